// What the tokenizer needs to know of a code point. The tables are probed out of the library that models are trained
// with (make_tables.py), not taken from a Unicode release: its regex and its normalizer are of different versions.
#ifndef QWEN_RUNTIME_TEXT_UNICODE_PROPERTIES_H_
#define QWEN_RUNTIME_TEXT_UNICODE_PROPERTIES_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/text/unicode/utf8.h"

namespace qwen::text {

/// The classes that pre-tokenizer patterns ask for; each code point is in one.
enum class CharClass : uint8_t {
  kOther,
  kLetter,   // \p{L}
  kMark,     // \p{M}
  kNumber,   // \p{N}
  kSpace,    // \s without the two below
  kNewline,  // \r \n
};

struct CharProperties {
  CharClass char_class;
  uint8_t combining_class;  // canonical, 0 for starters
  bool nfc_stable;          // NFC_Quick_Check is Yes: NFC can change it only by reordering
};

namespace internal {
inline constexpr int kPageBits = 7;
extern const uint8_t kPageOf[];  // of code point >> kPageBits, up to that of kIllFormed
extern const uint8_t kPages[];   // rows of kPalette, 1 << kPageBits to a page
extern const CharProperties kPalette[];
}  // namespace internal

/// `c` at most kIllFormed, which is a stable starter of class kOther.
inline const CharProperties& PropertiesOf(char32_t c) {
  using namespace internal;
  return kPalette[kPages[size_t{kPageOf[c >> kPageBits]} << kPageBits | (c & ((1 << kPageBits) - 1))]];
}

/// The full canonical decomposition of `c`; empty when it has none or is a Hangul syllable.
std::span<const char32_t> DecompositionOf(char32_t c);

/// The primary composite of a pair, 0 when there is none. Knows nothing of Hangul.
char32_t CompositeOf(char32_t first, char32_t second);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_UNICODE_PROPERTIES_H_
