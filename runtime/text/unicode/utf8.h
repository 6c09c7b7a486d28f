// One code point at a time out of bytes that may be anything.
#ifndef QWEN_RUNTIME_TEXT_UNICODE_UTF8_H_
#define QWEN_RUNTIME_TEXT_UNICODE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qwen::text {

/// Stands where bytes are no code point. One more than the last, so that tables can have a row for it.
inline constexpr char32_t kIllFormed = 0x110000;
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Unit {
  char32_t code_point;
  uint32_t length;  // bytes, at least 1
  bool cut;         // ill-formed only because the text ends here
};

/// The unit at `text[at]`, `at < text.size()`. Ill-formed bytes are taken as far as one U+FFFD stands for them: the
/// longest beginning of a valid sequence, else one byte (The Unicode Standard, 3.9, "maximal subparts"; Python and Rust
/// replace the same).
inline Utf8Unit DecodeUtf8(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {lead, 1, false};
  uint32_t length;
  char32_t code_point;
  uint8_t low = 0x80, high = 0xBF;  // of the second byte: no overlong forms, no surrogates, nothing above U+10FFFF
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2, code_point = lead & 0x1F;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3, code_point = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4, code_point = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {kIllFormed, 1, false};
  }
  for (uint32_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {kIllFormed, i, true};
    const auto tail = static_cast<uint8_t>(text[at + i]);
    if (tail < low || tail > high) return {kIllFormed, i, false};
    code_point = code_point << 6 | (tail & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return {code_point, length, false};
}

/// Appends a code point below kIllFormed.
inline void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
    return;
  }
  if (c < 0x800) {
    *out += static_cast<char>(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      *out += static_cast<char>(0xE0 | c >> 12);
    } else {
      *out += static_cast<char>(0xF0 | c >> 18);
      *out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    }
    *out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
  }
  *out += static_cast<char>(0x80 | (c & 0x3F));
}

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_UNICODE_UTF8_H_
