// Chats → prompts: a model's own template over the messages of a request.
//
// Templates disagree about what a message may look like: some raise where `content` is null, some print a list of parts
// as Python would. What a request may say is one thing for all of them, so messages are brought into the form that this
// template takes; which that is, is found by rendering small probes when the template is parsed, not by its name.
#ifndef QWEN_RUNTIME_TEXT_JINJA_CHAT_TEMPLATE_H_
#define QWEN_RUNTIME_TEXT_JINJA_CHAT_TEMPLATE_H_

#include <string>
#include <string_view>
#include <utility>

#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "runtime/text/jinja/template.h"

namespace qwen::text {

/// Where a prompt leaves the model: decides what its first token belongs to.
enum class PromptEnd {
  kOther,
  kThinkOpen,    // ends in `<think>`: reasoning
  kThinkClosed,  // ends in `</think>`: the answer
};
/// White space at the end does not count.
PromptEnd EndOf(std::string_view prompt);

/// What a template does, for those who parse what the model answers.
struct TemplateTraits {
  enum class ToolCalls {
    kNone,
    kJson,        // <tool_call>{"name": ..., "arguments": {...}}</tool_call>
    kParameters,  // <tool_call><function=...><parameter=...>...
  };

  bool takes_null_content = false;           // renders it like ""
  bool takes_content_parts = false;          // renders a list of text parts like their text
  bool says_think = false;                   // `<think>` is in its text
  bool enable_thinking = false;              // this variable changes the generation prompt
  PromptEnd prompt_end = PromptEnd::kOther;  // of a plain question's generation prompt
  ToolCalls tool_calls = ToolCalls::kNone;
};

struct ChatRequest {
  const Json& messages;          // an array of objects
  const Json* tools = nullptr;   // an array of objects, or none
  const Json* kwargs = nullptr;  // an object: more variables
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the prompt ends where the last message does, so that the model goes on there
};

/// Threads: const, so any number at once.
class ChatTemplate {
 public:
  /// kDataLoss, `where:line:column: why`, when the template does not parse.
  static StatusOr<ChatTemplate> Parse(std::string_view text, const std::string& where);

  const TemplateTraits& traits() const { return traits_; }

  /// The prompt. Before the template sees them, messages become what every template takes (serving design, 14.3):
  /// arguments of tool calls are objects, `content` is what traits() say, `developer` is `system` and `function` is
  /// `tool`, several leading system messages are one, `reasoning` is also `reasoning_content`.
  /// kInvalidArgument with the place in the request ("messages[2].content: ..."), or as Template::Render.
  StatusOr<Rendered> Render(const ChatRequest& request, const RenderLimits& limits = {}) const;

 private:
  explicit ChatTemplate(Template compiled) : template_(std::move(compiled)) {}
  void Probe(std::string_view text);

  Template template_;
  TemplateTraits traits_;
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_CHAT_TEMPLATE_H_
