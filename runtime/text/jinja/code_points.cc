#include "runtime/text/jinja/code_points.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace qwen::text {
namespace {

/// first, first + step, ..., last map to themselves plus delta.
struct CaseRow {
  uint32_t first, last, step;
  int32_t delta;
};

constexpr CaseRow kUpper[] = {
#define UPPER(first, last, step, delta) {first, last, step, delta},
#define LOWER(first, last, step, delta)
#include "runtime/text/jinja/case_map.inc"
#undef UPPER
#undef LOWER
};

constexpr CaseRow kLower[] = {
#define UPPER(first, last, step, delta)
#define LOWER(first, last, step, delta) {first, last, step, delta},
#include "runtime/text/jinja/case_map.inc"
#undef UPPER
#undef LOWER
};

template <size_t N>
char32_t Map(const CaseRow (&rows)[N], char32_t c) {
  const CaseRow* next = std::upper_bound(std::begin(rows), std::end(rows), c,
                                         [](char32_t value, const CaseRow& row) { return value < row.first; });
  if (next == std::begin(rows)) return c;
  const CaseRow& row = next[-1];
  return c <= row.last && (c - row.first) % row.step == 0 ? c + row.delta : c;
}

struct Span {
  uint32_t first, last;
};

// Unicode 14 categories Cc, Cf, Co, Cs, Zl, Zp and Zs above ASCII.
constexpr Span kNotPrintable[] = {
    {0x80, 0xA0},       {0xAD, 0xAD},         {0x600, 0x605},     {0x61C, 0x61C},     {0x6DD, 0x6DD},
    {0x70F, 0x70F},     {0x890, 0x891},       {0x8E2, 0x8E2},     {0x1680, 0x1680},   {0x180E, 0x180E},
    {0x2000, 0x200F},   {0x2028, 0x202F},     {0x205F, 0x2064},   {0x2066, 0x206F},   {0x3000, 0x3000},
    {0xD800, 0xF8FF},   {0xFEFF, 0xFEFF},     {0xFFF9, 0xFFFB},   {0x110BD, 0x110BD}, {0x110CD, 0x110CD},
    {0x13430, 0x13438}, {0x1BCA0, 0x1BCA3},   {0x1D173, 0x1D17A}, {0xE0001, 0xE0001}, {0xE0020, 0xE007F},
    {0xF0000, 0xFFFFD}, {0x100000, 0x10FFFD},
};

}  // namespace

size_t PreviousUtf8(std::string_view text, size_t at) {
  for (size_t length = 2; length <= 4 && length <= at; ++length)
    if (const Utf8Unit unit = DecodeUtf8(text, at - length); unit.code_point != kIllFormed && unit.length == length)
      return at - length;
  return at - 1;
}

size_t FirstIllFormed(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, at);
    if (unit.code_point == kIllFormed) return at;
    at += unit.length;
  }
  return text.size();
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t CountCodePoints(std::string_view text) {
  if (IsAscii(text)) return text.size();
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += DecodeUtf8(text, at).length) ++count;
  return count;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c != 0x7F;
  return std::none_of(std::begin(kNotPrintable), std::end(kNotPrintable),
                      [&](const Span& s) { return c >= s.first && c <= s.last; });
}

char32_t ToUpper(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return Map(kUpper, c);
}

char32_t ToLower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return Map(kLower, c);
}

}  // namespace qwen::text
