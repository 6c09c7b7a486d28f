// A Jinja template for chats: parsed once, rendered from any thread, within limits, with the origin of every byte.
#ifndef QWEN_RUNTIME_TEXT_JINJA_TEMPLATE_H_
#define QWEN_RUNTIME_TEXT_JINJA_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "runtime/text/jinja/evaluator.h"
#include "runtime/text/jinja/limits.h"
#include "runtime/text/jinja/marked_text.h"

namespace qwen::text {

struct Range {
  uint32_t begin, end;  // bytes
  bool operator==(const Range&) const = default;
};

/// A rendered prompt. Bytes outside of `from_template` came from the request: a special token is one only when all of
/// its bytes are inside (serving design, 14.2).
struct Rendered {
  std::string text;
  std::vector<Range> from_template;  // in order, apart
};

/// Splits text and marks.
Rendered MakeRendered(MarkedText text);

/// A subset of Jinja2 (README.md) with the results of ImmutableSandboxedEnvironment(trim_blocks, lstrip_blocks).
/// Threads: const, so any number at once.
class Template {
 public:
  /// kDataLoss, `where:line:column: why`, when the template does not parse or is outside the subset.
  static StatusOr<Template> Parse(std::string_view text, const std::string& where);

  /// `context` is an object: the variables. kInvalidArgument with the message of raise_exception, with "line N: why",
  /// or with "template_limit: ..." (IsTemplateLimit) and both numbers.
  StatusOr<Rendered> Render(const Json& context, const RenderLimits& limits = {}) const;

  /// The same for values of the room's own. The meter made them, and goes on counting.
  StatusOr<MarkedText> Render(const Context& context, Meter* meter) const;

 private:
  explicit Template(Program program) : program_(std::make_shared<const Program>(std::move(program))) {}

  std::shared_ptr<const Program> program_;
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_TEMPLATE_H_
