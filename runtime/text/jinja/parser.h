// Template text → Program.
#ifndef QWEN_RUNTIME_TEXT_JINJA_PARSER_H_
#define QWEN_RUNTIME_TEXT_JINJA_PARSER_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/text/jinja/ast.h"

namespace qwen::text {

inline constexpr size_t kMaxTemplateBytes = 1 << 20;
inline constexpr size_t kMaxNames = 1024;   // variables, attributes, arguments of one template
inline constexpr uint32_t kMaxDepth = 100;  // statements and expressions inside each other

/// Parses with Jinja2's grammar and precedences. kDataLoss, `where:line:column: why`, for what is malformed, deeper or
/// larger than the limits, or outside the subset (README.md); unknown filters and tests are found here too.
StatusOr<Program> ParseTemplate(std::string_view text, const std::string& where);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_PARSER_H_
