// Shorthands of the template tests.
#ifndef QWEN_TEST_RUNTIME_TEXT_JINJA_JINJA_TESTING_H_
#define QWEN_TEST_RUNTIME_TEXT_JINJA_JINJA_TESTING_H_

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/text/jinja/template.h"

namespace qwen::text {

inline Json J(std::string_view text) {
  StatusOr<Json> json = ParseJson(text, "json");
  EXPECT_TRUE(json.ok()) << json.status().message() << "\n" << text;
  return json.ok() ? *std::move(json) : Json();
}

inline std::string DataFile(const std::string& name) {
  StatusOr<std::string> text = ReadFile(QWEN_SOURCE_DIR "/test/data/chat_templates/" + name, 1 << 22);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : "";
}

/// The five published templates, without `.jinja`.
inline constexpr const char* kTemplates[] = {"Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B",
                                             "Qwen3-Coder", "Qwen3.5-4B"};

// Sanitizers make a rendering many times slower; the limits that tests are about are counted, not timed.
inline RenderLimits Untimed() { return {.time_ms = 0}; }

inline StatusOr<Rendered> RenderText(std::string_view source, std::string_view context = "{}",
                                     const RenderLimits& limits = Untimed()) {
  StatusOr<Template> compiled = Template::Parse(source, "t");
  if (!compiled.ok()) return compiled.status();
  return compiled->Render(J(context), limits);
}

/// The output, or "error: message".
inline std::string Out(std::string_view source, std::string_view context = "{}",
                       const RenderLimits& limits = Untimed()) {
  StatusOr<Rendered> rendered = RenderText(source, context, limits);
  return rendered.ok() ? rendered->text : "error: " + rendered.status().message();
}

}  // namespace qwen::text

#endif  // QWEN_TEST_RUNTIME_TEXT_JINJA_JINJA_TESTING_H_
