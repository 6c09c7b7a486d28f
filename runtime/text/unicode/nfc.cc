// Nearly all text is in NFC already, so the first pass only looks for a spot that may not be: a code point whose quick
// check is not Yes, or marks out of order. Around such a spot the text from the last stable starter to the next one is
// taken apart, sorted and put together again; what lies between spots is copied as bytes (UAX #15, 9.1).
#include "runtime/text/unicode/nfc.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/text/unicode/properties.h"
#include "runtime/text/unicode/utf8.h"

namespace qwen::text {
namespace {

struct Char {
  char32_t code_point;
  uint8_t combining_class;
  uint32_t place = 0;  // before sorting
};

// Hangul syllables are arithmetic (The Unicode Standard, 3.12): lead, vowel and optional tail.
constexpr char32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr uint32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

void AppendDecomposed(char32_t c, std::vector<Char>* chars) {
  if (const uint32_t syllable = c - kSyllable; syllable < kSyllables) {
    chars->push_back({kLead + syllable / (kVowels * kTails), 0});
    chars->push_back({kVowel + syllable / kTails % kVowels, 0});
    if (syllable % kTails != 0) chars->push_back({kTail + syllable % kTails, 0});
    return;
  }
  const std::span<const char32_t> parts = DecompositionOf(c);
  if (parts.empty()) chars->push_back({c, PropertiesOf(c).combining_class});
  for (char32_t part : parts) chars->push_back({part, PropertiesOf(part).combining_class});
}

char32_t Compose(char32_t first, char32_t second) {
  if (first - kLead < kLeads && second - kVowel < kVowels)
    return kSyllable + ((first - kLead) * kVowels + (second - kVowel)) * kTails;
  // kTail itself is one before the first tail: a syllable without one.
  if (first - kSyllable < kSyllables && (first - kSyllable) % kTails == 0 && second - kTail - 1 < kTails - 1)
    return first + (second - kTail);
  return CompositeOf(first, second);
}

/// Sorts each run of marks by combining class; marks of one class keep their order.
void Reorder(std::vector<Char>* chars) {
  const auto is_starter = [](const Char& c) { return c.combining_class == 0; };
  for (size_t i = 0; i < chars->size(); ++i) (*chars)[i].place = static_cast<uint32_t>(i);
  for (auto at = chars->begin(); (at = std::find_if_not(at, chars->end(), is_starter)) != chars->end();) {
    const auto end = std::find_if(at, chars->end(), is_starter);
    std::sort(at, end, [](const Char& a, const Char& b) {
      return std::pair(a.combining_class, a.place) < std::pair(b.combining_class, b.place);
    });
    at = end;
  }
}

/// Puts together what is not blocked: a mark joins its starter unless one of the same or a higher class, or another
/// starter, stands between them.
void Recompose(std::vector<Char>* chars) {
  size_t kept = 0, starter = SIZE_MAX;
  for (const Char c : *chars) {
    if (starter != SIZE_MAX) {
      const bool adjacent = kept == starter + 1;
      if (adjacent || (*chars)[kept - 1].combining_class < c.combining_class) {
        if (const char32_t composite = Compose((*chars)[starter].code_point, c.code_point)) {
          (*chars)[starter].code_point = composite;
          continue;
        }
      }
    }
    if (c.combining_class == 0) starter = kept;
    (*chars)[kept++] = c;
  }
  chars->resize(kept);
}

}  // namespace

std::string_view ToNfc(std::string_view text, std::string* storage) {
  bool changed = false;
  size_t copied = 0;    // text before it is in *storage, if anything is
  size_t boundary = 0;  // the last stable starter: nothing after it can change what is before
  uint8_t last_class = 0;
  std::vector<Char> chars;
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, at);
    if (unit.code_point < 0x300) {  // stable starters, all of them
      boundary = at;
      last_class = 0;
      at += unit.length;
      continue;
    }
    const CharProperties& properties = PropertiesOf(unit.code_point);
    if (properties.nfc_stable && (properties.combining_class == 0 || properties.combining_class >= last_class)) {
      if (properties.combining_class == 0) boundary = unit.code_point == kIllFormed ? at + unit.length : at;
      last_class = properties.combining_class;
      at += unit.length;
      continue;
    }
    if (!changed) storage->clear();
    changed = true;
    storage->append(text, copied, boundary - copied);
    chars.clear();
    for (at = boundary; at < text.size();) {
      const Utf8Unit next = DecodeUtf8(text, at);
      const CharProperties& stable = PropertiesOf(next.code_point);
      if (at != boundary && stable.nfc_stable && stable.combining_class == 0) break;
      AppendDecomposed(next.code_point, &chars);
      at += next.length;
    }
    Reorder(&chars);
    Recompose(&chars);
    for (const Char c : chars) AppendUtf8(c.code_point, storage);
    copied = boundary = at;
    last_class = 0;
  }
  if (!changed) return text;
  storage->append(text, copied);
  return *storage;
}

}  // namespace qwen::text
