// A template, a line `===`, and JSON: an object is the context, an array the messages of a chat.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/text/jinja/chat_template.h"

namespace {

void Check(const qwen::StatusOr<qwen::text::Rendered>& rendered, const qwen::text::RenderLimits& limits) {
  if (!rendered.ok()) {
    if (rendered.status().code() != qwen::StatusCode::kInvalidArgument) abort();
    return;
  }
  if (rendered->text.size() > static_cast<size_t>(limits.output_bytes)) abort();
  uint32_t end = 0;
  for (const qwen::text::Range& range : rendered->from_template) {
    if (range.begin >= range.end || range.begin < end || (end > 0 && range.begin == end)) abort();
    end = range.end;
  }
  if (end > rendered->text.size()) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::text;
  const std::string_view input(reinterpret_cast<const char*>(data), size), separator = "\n===\n";
  const size_t at = input.find(separator);
  if (at == input.npos) return 0;
  const qwen::StatusOr<qwen::Json> json = qwen::ParseJson(input.substr(at + separator.size()), "fuzz");
  if (!json.ok()) return 0;
  // Small enough for thousands of runs a second.
  const RenderLimits limits{.steps = 20'000,
                            .output_bytes = 1 << 16,
                            .list_items = 5'000,
                            .built_bytes = 1 << 20,
                            .recursion = 64,
                            .time_ms = 0};
  if (json->IsObject()) {
    const qwen::StatusOr<Template> compiled = Template::Parse(input.substr(0, at), "fuzz");
    if (compiled.ok()) Check(compiled->Render(*json, limits), limits);
  } else {
    const qwen::StatusOr<ChatTemplate> compiled = ChatTemplate::Parse(input.substr(0, at), "fuzz");
    if (!compiled.ok()) return 0;
    for (bool go_on : {false, true})
      Check(compiled->Render({.messages = *json, .add_generation_prompt = !go_on, .continue_final_message = go_on},
                             limits),
            limits);
  }
  return 0;
}
