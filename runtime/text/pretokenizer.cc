#include "runtime/text/pretokenizer.h"

#include "runtime/text/unicode/properties.h"
#include "runtime/text/unicode/utf8.h"

namespace qwen::text {
namespace {

constexpr std::string_view kRegexes[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)",
};

struct Char {
  CharClass char_class;
  uint32_t length;
};

/// Both patterns, over one text. Each method is an alternative of the expression or a part of one.
template <Pattern kPattern>
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  size_t PieceEnd(size_t begin) const {
    if (text_[begin] == '\'')
      if (const size_t length = Contraction(begin)) return begin + length;
    const Char first = At(begin);
    const size_t next = begin + first.length;
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if (IsWord(first.char_class)) return WordsEnd(next);
    const bool more = next < text_.size();
    if (more && first.char_class != CharClass::kNewline && first.char_class != CharClass::kNumber)
      if (const Char second = At(next); IsWord(second.char_class)) return WordsEnd(next + second.length);
    // \p{N}
    if (first.char_class == CharClass::kNumber) return next;
    // ?[^\s\p{L}\p{N}]+[\r\n]* with a blank in front of the question mark
    if (IsSymbol(first.char_class)) return SymbolsEnd(next);
    if (more && text_[begin] == ' ')
      if (const Char second = At(next); IsSymbol(second.char_class)) return SymbolsEnd(next + second.length);
    return SpacesEnd(begin);
  }

 private:
  static bool IsWord(CharClass c) {
    return c == CharClass::kLetter || (kPattern == Pattern::kWordsWithMarks && c == CharClass::kMark);
  }
  static bool IsSymbol(CharClass c) {
    return c == CharClass::kOther || (kPattern == Pattern::kWords && c == CharClass::kMark);
  }

  Char At(size_t at) const {
    const Utf8Unit unit = DecodeUtf8(text_, at);
    return {PropertiesOf(unit.code_point).char_class, unit.length};
  }

  /// Bytes of (?i:'s|'t|'re|'ve|'m|'ll|'d) at `begin`, 0 when it does not match. Case folding makes U+017F an s; no
  /// other code point outside ASCII folds to one of these letters (make_tables.py asks).
  size_t Contraction(size_t begin) const {
    const std::string_view rest = text_.substr(begin + 1, 2);
    if (rest.empty()) return 0;
    if (rest == "\u017F") return 3;
    const auto lower = [&](size_t i) { return i < rest.size() ? rest[i] | 0x20 : 0; };
    switch (lower(0)) {
      case 's':
      case 't':
      case 'm':
      case 'd':
        return 2;
      case 'r':
      case 'v':
        return lower(1) == 'e' ? 3 : 0;
      case 'l':
        return lower(1) == 'l' ? 3 : 0;
      default:
        return 0;
    }
  }

  size_t WordsEnd(size_t at) const {
    while (at < text_.size()) {
      const Char c = At(at);
      if (!IsWord(c.char_class)) break;
      at += c.length;
    }
    return at;
  }

  size_t SymbolsEnd(size_t at) const {
    while (at < text_.size()) {
      const Char c = At(at);
      if (!IsSymbol(c.char_class)) break;
      at += c.length;
    }
    while (at < text_.size() && (text_[at] == '\r' || text_[at] == '\n')) ++at;
    return at;
  }

  /// \s*[\r\n]+ up to the last line end of the run, else \s+(?!\S): all but the last blank where something follows,
  /// else \s+.
  size_t SpacesEnd(size_t begin) const {
    size_t end = begin, last = begin, newline_end = begin;
    while (end < text_.size()) {
      const Char c = At(end);
      if (c.char_class != CharClass::kSpace && c.char_class != CharClass::kNewline) break;
      last = end;
      end += c.length;
      if (c.char_class == CharClass::kNewline) newline_end = end;
    }
    if (newline_end != begin) return newline_end;
    return end == text_.size() || last == begin ? end : last;
  }

  std::string_view text_;
};

}  // namespace

std::span<const std::string_view> PatternRegexes() { return kRegexes; }

std::optional<Pattern> FindPattern(std::string_view regex) {
  for (uint32_t i = 0; i < std::size(kRegexes); ++i)
    if (kRegexes[i] == regex) return static_cast<Pattern>(i);
  return std::nullopt;
}

size_t PieceEnd(std::string_view text, size_t begin, Pattern pattern) {
  return pattern == Pattern::kWords ? Scanner<Pattern::kWords>(text).PieceEnd(begin)
                                    : Scanner<Pattern::kWordsWithMarks>(text).PieceEnd(begin);
}

}  // namespace qwen::text
