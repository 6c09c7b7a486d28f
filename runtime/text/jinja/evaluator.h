// One rendering of a program.
#ifndef QWEN_RUNTIME_TEXT_JINJA_EVALUATOR_H_
#define QWEN_RUNTIME_TEXT_JINJA_EVALUATOR_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/text/jinja/ast.h"
#include "runtime/text/jinja/limits.h"
#include "runtime/text/jinja/marked_text.h"

namespace qwen::text {

/// The variables that a template sees.
using Context = std::vector<std::pair<std::string_view, Value>>;

/// The output; the meter's status says whether it is one.
MarkedText Evaluate(const Program& program, const Context& context, Meter* meter);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_EVALUATOR_H_
