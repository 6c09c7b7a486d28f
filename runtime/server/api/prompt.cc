#include "runtime/server/api/prompt.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "fmt/format.h"
#include "runtime/text/jinja/limits.h"

namespace qwen::server {
namespace {

ApiError Missing(const std::string& path) {
  return MakeError(ErrorKind::kMissingParameter, path + ": is missing", path);
}

constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};

Refusal CheckPart(const Json& part, const std::string& path) {
  if (!part.IsObject()) return WrongType(path, part, "an object");
  const Json* type = part.Find("type");
  if (!type || type->IsNull()) return Missing(path + ".type");
  if (!type->IsString()) return WrongType(path + ".type", *type, "a string");
  if (type->AsString() != "text")
    return MakeError(
        ErrorKind::kUnsupportedContent,
        fmt::format("{}: is a part of type {}, only \"text\" is supported", path, QuoteUser(type->AsString())), path);
  const Json* text = part.Find("text");
  if (!text || text->IsNull()) return Missing(path + ".text");
  if (!text->IsString()) return WrongType(path + ".text", *text, "a string");
  return std::nullopt;
}

Refusal CheckMessage(const Json& message, const std::string& path, const RequestLimits& limits) {
  if (!message.IsObject()) return WrongType(path, message, "an object");
  const Json* role = message.Find("role");
  if (!role || role->IsNull()) return Missing(path + ".role");
  if (!role->IsString()) return WrongType(path + ".role", *role, "a string");
  if (std::find(std::begin(kRoles), std::end(kRoles), role->AsString()) == std::end(kRoles))
    return MakeError(ErrorKind::kInvalidValue,
                     fmt::format("{}.role: {} is none of system, developer, user, assistant, tool, function", path,
                                 QuoteUser(role->AsString())),
                     path + ".role");
  for (const char* key : {"reasoning", "reasoning_content", "name", "tool_call_id"})
    if (const Json* text = message.Find(key); text && !text->IsNull() && !text->IsString())
      return WrongType(MemberPath(path, key), *text, "a string");
  const Json* content = message.Find("content");
  const std::string where = path + ".content";
  if (!content || content->IsNull()) {
    const Json* calls = message.Find("tool_calls");
    if (role->AsString() == "assistant" || (calls && !calls->IsNull())) return std::nullopt;
    return Missing(where);
  }
  if (content->IsString()) return std::nullopt;
  if (!content->IsArray()) return WrongType(where, *content, "a string or an array of parts");
  if (static_cast<int64_t>(content->items().size()) > limits.max_parts)
    return MakeError(ErrorKind::kInvalidValue,
                     fmt::format("{}: has {} parts, the limit is {}", where, content->items().size(), limits.max_parts),
                     where);
  for (size_t i = 0; i < content->items().size(); ++i)
    if (Refusal refusal = CheckPart(content->items()[i], ItemPath(where, i))) return refusal;
  return std::nullopt;
}

/// What the renderer found wrong. It names places in the request as we do.
ApiError RenderError(const Status& status) {
  const std::string& message = status.message();
  if (text::IsTemplateLimit(status)) return MakeError(ErrorKind::kTemplateLimit, message);
  for (std::string_view place : {"messages", "chat_template_kwargs", "continue_final_message"})
    if (message.starts_with(place))
      return MakeError(ErrorKind::kInvalidValue, message, message.substr(0, message.find(": ")));
  return MakeError(ErrorKind::kTemplateError, message);
}

/// The operator's variables, then the request's: a later one of a name takes the place of an earlier one.
Json MergeKwargs(const ApiOptions& options, const GenerationRequest& request) {
  std::vector<Json::Member> members;
  auto set = [&](const std::string& key, Json value) {
    auto same = std::find_if(members.begin(), members.end(), [&](const Json::Member& m) { return m.first == key; });
    if (same != members.end()) {
      same->second = std::move(value);
    } else {
      members.emplace_back(key, std::move(value));
    }
  };
  if (StatusOr<Json> kwargs = ParseJson(options.chat_template_kwargs, "--chat-template-kwargs");
      kwargs.ok() && kwargs->IsObject())
    for (const auto& [key, value] : kwargs->members()) set(key, value.Clone());
  if (request.reasoning_effort) {
    if (*request.reasoning_effort == "none") {
      set("enable_thinking", Json(false));
    } else {
      set("reasoning_effort", Json(*request.reasoning_effort));
    }
  }
  if (request.kwargs)
    for (const auto& [key, value] : request.kwargs->members()) set(key, value.Clone());
  return Json(std::move(members));
}

/// Whether the model continues the last message. The messages were checked.
bool GoesOn(const ApiOptions& options, const GenerationRequest& request) {
  const Json& last = request.messages->items().back();
  return request.continue_final_message.value_or(options.prefill_assistant &&
                                                 last.Find("role")->AsString() == "assistant");
}

/// Every token that begins a message: a template writes the same special token in front of each.
std::vector<int32_t> TurnEnds(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::vector<int32_t> ends;
  const auto first = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer.IsSpecial(id); });
  for (auto at = first; at != ids.end(); ++at)
    if (*at == *first && at != ids.begin()) ends.push_back(static_cast<int32_t>(at - ids.begin()));
  return ends;
}

Refusal CheckLength(const ServedModel& model, const Prompt& prompt, const std::string& param) {
  const auto tokens = static_cast<int64_t>(prompt.ids.size());
  if (tokens == 0) return MakeError(ErrorKind::kInvalidValue, param + ": has no tokens", param);
  if (tokens < model.max_model_len) return std::nullopt;
  ApiError error = MakeError(ErrorKind::kContextLength,
                             fmt::format("{}: has {} tokens, the context takes {} and at least one more", param, tokens,
                                         model.max_model_len - 1),
                             param);
  error.numbers = {{"n_prompt_tokens", tokens}, {"n_ctx", model.max_model_len}};
  return error;
}

}  // namespace

Refusal RenderChat(const ServedModel& model, const ApiOptions& options, const GenerationRequest& request,
                   text::Rendered* to) {
  const Json& messages = *request.messages;
  for (size_t i = 0; i < messages.items().size(); ++i)
    if (Refusal refusal = CheckMessage(messages.items()[i], ItemPath("messages", i), options.limits)) return refusal;
  const text::ChatTemplate* chat = model.text.chat_template();
  std::optional<text::ChatTemplate> own;
  if (request.chat_template) {
    if (!options.trust_request_chat_template)
      return MakeError(ErrorKind::kUnsupportedParameter, "chat_template: this server takes no templates from requests",
                       "chat_template");
    StatusOr<text::ChatTemplate> parsed = text::ChatTemplate::Parse(*request.chat_template, "chat_template");
    if (!parsed.ok()) return MakeError(ErrorKind::kTemplateError, parsed.status().message(), "chat_template");
    chat = &own.emplace(*std::move(parsed));
  }
  if (!chat) return MakeError(ErrorKind::kNotSupported, "the model has no chat template");

  const bool goes_on = GoesOn(options, request);
  const Json kwargs = MergeKwargs(options, request);
  StatusOr<text::Rendered> rendered =
      chat->Render({.messages = messages,
                    .kwargs = &kwargs,
                    .add_generation_prompt = request.add_generation_prompt.value_or(true) && !goes_on,
                    .continue_final_message = goes_on});
  if (!rendered.ok()) return RenderError(rendered.status());
  *to = *std::move(rendered);
  return std::nullopt;
}

std::vector<int32_t> EncodeChat(const text::Tokenizer& tokenizer, const ApiOptions& options,
                                const text::Rendered& rendered) {
  return options.parse_special_in_content ? tokenizer.Encode(rendered.text) : text::EncodePrompt(tokenizer, rendered);
}

Refusal MakePrompts(const ServedModel& model, const ApiOptions& options, const GenerationRequest& request,
                    std::vector<Prompt>* to) {
  const text::Tokenizer& tokenizer = *model.text.tokenizer();
  if (request.endpoint == kChat) {
    text::Rendered rendered;
    if (Refusal refusal = RenderChat(model, options, request, &rendered)) return refusal;
    Prompt& prompt = to->emplace_back();
    prompt.ids =
        options.parse_special_in_content ? tokenizer.Encode(rendered.text) : text::EncodePrompt(tokenizer, rendered);
    prompt.continued = GoesOn(options, request);
    prompt.turn_ends = TurnEnds(tokenizer, prompt.ids);
    prompt.end = text::EndOf(rendered.text);
    prompt.text = std::move(rendered.text);
    return CheckLength(model, prompt, "messages");
  }
  for (const std::string& text : request.text_prompts) to->push_back({.ids = tokenizer.Encode(text), .text = text});
  for (const std::vector<int32_t>& ids : request.id_prompts) to->push_back({.ids = ids, .text = tokenizer.Decode(ids)});
  for (size_t i = 0; i < to->size(); ++i)
    if (Refusal refusal = CheckLength(model, (*to)[i], to->size() == 1 ? "prompt" : ItemPath("prompt", i)))
      return refusal;
  return std::nullopt;
}

}  // namespace qwen::server
