// What a request says → the token ids that a model reads (serving design, 14).
#ifndef QWEN_RUNTIME_SERVER_API_PROMPT_H_
#define QWEN_RUNTIME_SERVER_API_PROMPT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/server/api/generation_request.h"
#include "runtime/server/api/options.h"
#include "runtime/text/jinja/chat_template.h"

namespace qwen::server {

struct Prompt {
  std::vector<int32_t> ids;
  std::vector<int32_t> turn_ends;  // engine::Request
  std::string text;                // of a chat: as rendered
  text::PromptEnd end = text::PromptEnd::kOther;
  bool continued = false;  // the model goes on where the last message ends
};

/// The chat's rendering, without ids. Everything that a template could trip over in the messages is refused first, with
/// its place; what is left is the template's own word.
Refusal RenderChat(const ServedModel& model, const ApiOptions& options, const GenerationRequest& request,
                   text::Rendered* to);

/// Ids of a rendering; special tokens are those of the template, unless the operator trusts what users type.
std::vector<int32_t> EncodeChat(const text::Tokenizer& tokenizer, const ApiOptions& options,
                                const text::Rendered& rendered);

/// One prompt of a chat, one or more of a completion. `tokenizer` and template are there.
Refusal MakePrompts(const ServedModel& model, const ApiOptions& options, const GenerationRequest& request,
                    std::vector<Prompt>* to);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_PROMPT_H_
