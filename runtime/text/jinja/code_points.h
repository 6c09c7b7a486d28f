// Code points as Python's str sees them: what is white space, printable, upper case.
//
// Bytes that are not UTF-8 count as one code point (unicode/utf8.h), so nothing here fails or reads past the end.
#ifndef QWEN_RUNTIME_TEXT_JINJA_CODE_POINTS_H_
#define QWEN_RUNTIME_TEXT_JINJA_CODE_POINTS_H_

#include <cstddef>
#include <string_view>

#include "runtime/text/unicode/utf8.h"

namespace qwen::text {

/// Where the code point that ends at byte `at` > 0 begins.
size_t PreviousUtf8(std::string_view text, size_t at);
/// Offset of the first byte that is not UTF-8, or the size.
size_t FirstIllFormed(std::string_view text);
bool IsAscii(std::string_view text);
/// len(text)
size_t CountCodePoints(std::string_view text);

/// str.isspace
bool IsSpace(char32_t c);
/// What repr shows as it is: not controls, formats, separators, private use. Unassigned ones count as printable.
bool IsPrintable(char32_t c);
/// Where Unicode maps to one code point; elsewhere (`ß`) the same. No rules that look at neighbours.
char32_t ToUpper(char32_t c);
char32_t ToLower(char32_t c);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_CODE_POINTS_H_
