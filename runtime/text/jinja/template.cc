#include "runtime/text/jinja/template.h"

#include <cassert>
#include <utility>

#include "runtime/text/jinja/parser.h"

namespace qwen::text {

Rendered MakeRendered(MarkedText text) {
  Rendered rendered;
  for (const MarkedText::Run& run : text.runs())
    if (run.origin == Origin::kTemplate) rendered.from_template.push_back({run.begin, run.end});
  rendered.text = std::move(text).TakeBytes();
  return rendered;
}

StatusOr<Template> Template::Parse(std::string_view text, const std::string& where) {
  QWEN_ASSIGN_OR_RETURN(Program program, ParseTemplate(text, where));
  return Template(std::move(program));
}

StatusOr<Rendered> Template::Render(const Json& context, const RenderLimits& limits) const {
  assert(context.IsObject());
  Meter meter(limits);
  Context variables;
  for (const auto& [name, value] : context.members()) variables.emplace_back(name, FromJson(value, &meter));
  QWEN_ASSIGN_OR_RETURN(MarkedText text, Render(variables, &meter));
  return MakeRendered(std::move(text));
}

StatusOr<MarkedText> Template::Render(const Context& context, Meter* meter) const {
  MarkedText text = meter->ok() ? Evaluate(*program_, context, meter) : MarkedText();
  if (!meter->ok()) return meter->status();
  return text;
}

}  // namespace qwen::text
