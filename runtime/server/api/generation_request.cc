#include "runtime/server/api/generation_request.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

#include "fmt/format.h"

namespace qwen::server {
namespace {

using R = GenerationRequest;

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();
constexpr int64_t kMinInt = std::numeric_limits<int64_t>::min(), kMaxInt = std::numeric_limits<int64_t>::max();

ApiError Invalid(std::string param, std::string_view why) {
  return MakeError(ErrorKind::kInvalidValue, fmt::format("{}: {}", param, why), param);
}

// --- Fields with a shape of their own ---

Refusal ReadStopString(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  std::string word;
  if (Refusal refusal = ReadString(value, path, &word)) return refusal;
  const auto most = static_cast<size_t>(reader.limits.max_stop_bytes);
  if (word.empty() || word.size() > most)
    return Invalid(path, fmt::format("has {} bytes, want 1 to {}", word.size(), most));
  to->stop.push_back(std::move(word));
  return std::nullopt;
}

Refusal CheckCount(const Json& list, const std::string& path, int64_t low, int64_t high) {
  const auto count = static_cast<int64_t>(list.IsArray() ? list.items().size() : list.members().size());
  if (count >= low && count <= high) return std::nullopt;
  return Invalid(path, fmt::format("has {} items, want {} to {}", count, low, high));
}

Refusal ReadStop(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  if (value.IsString()) return ReadStopString(value, path, reader, to);
  if (!value.IsArray()) return WrongType(path, value, "a string or an array of strings");
  if (Refusal refusal = CheckCount(value, path, 0, reader.limits.max_stop)) return refusal;
  for (size_t i = 0; i < value.items().size(); ++i)
    if (Refusal refusal = ReadStopString(value.items()[i], ItemPath(path, i), reader, to)) return refusal;
  return std::nullopt;
}

Refusal ReadTokenIds(const Json& value, const std::string& path, const FieldReader& reader, int64_t most,
                     std::vector<int32_t>* to) {
  if (!value.IsArray()) return WrongType(path, value, "an array of token ids");
  if (Refusal refusal = CheckCount(value, path, 0, most)) return refusal;
  for (size_t i = 0; i < value.items().size(); ++i)
    if (Refusal refusal = ReadTokenId(value.items()[i], ItemPath(path, i), reader, &to->emplace_back())) return refusal;
  return std::nullopt;
}

Refusal ReadStopIds(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  return ReadTokenIds(value, path, reader, reader.limits.max_stop_ids, &to->stop_token_ids);
}

Refusal ReadLogitBias(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  if (!value.IsObject()) return WrongType(path, value, "an object of token ids");
  if (Refusal refusal = CheckCount(value, path, 0, reader.limits.max_logit_bias)) return refusal;
  for (const auto& [key, bias] : value.members()) {
    const std::string where = MemberPath(path, key);
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size())
      return Invalid(where, fmt::format("{} is no token id", QuoteUser(key)));
    if (id < 0 || id >= reader.limits.vocab_used)
      return OutOfRange(where, fmt::format("{}", id), fmt::format("in 0 to {}", reader.limits.vocab_used - 1));
    double number = 0;
    if (Refusal refusal = ReadNumber(bias, where, -100, 100, false, &number)) return refusal;
    to->logit_bias.emplace_back(static_cast<int32_t>(id), static_cast<float>(number));
  }
  // "7" and "007" are two keys and one id.
  auto& biases = to->logit_bias;
  std::sort(biases.begin(), biases.end());
  auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (auto repeat = std::adjacent_find(biases.begin(), biases.end(), same); repeat != biases.end())
    return Invalid(path, fmt::format("token id {} is given twice", repeat->first));
  return std::nullopt;
}

Refusal ReadMessages(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  if (!value.IsArray()) return WrongType(path, value, "an array of messages");
  to->messages = &value;
  return CheckCount(value, path, 1, reader.limits.max_messages);
}

Refusal ReadPrompt(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  auto text = [&](const Json& item, const std::string& where) -> Refusal {
    if (item.AsString().empty()) return Invalid(where, "is empty");
    to->text_prompts.push_back(item.AsString());
    return std::nullopt;
  };
  auto ids = [&](const Json& item, const std::string& where) -> Refusal {
    if (Refusal refusal = CheckCount(item, where, 1, reader.limits.max_json_values)) return refusal;
    return ReadTokenIds(item, where, reader, reader.limits.max_json_values, &to->id_prompts.emplace_back());
  };
  if (value.IsString()) return text(value, path);
  if (!value.IsArray()) return WrongType(path, value, "a string, token ids, or an array of them");
  if (value.items().empty()) return Invalid(path, "is empty");
  if (value.items()[0].IsNumber()) return ids(value, path);
  if (Refusal refusal = CheckCount(value, path, 1, reader.limits.max_prompts)) return refusal;
  const bool texts = value.items()[0].IsString();
  for (size_t i = 0; i < value.items().size(); ++i) {
    const Json& item = value.items()[i];
    const std::string where = ItemPath(path, i);
    if (texts ? !item.IsString() : !item.IsArray())
      return WrongType(where, item,
                       i == 0 ? "a string, a token id or an array of token ids"
                              : (texts ? "a string, as the first prompt" : "an array, as the first prompt"));
    if (Refusal refusal = texts ? text(item, where) : ids(item, where)) return refusal;
  }
  return std::nullopt;
}

constexpr Field<R> kStreamOptions[] = {
    {"include_usage", BoolField<R>{&R::include_usage}},
    {"include_obfuscation", NoEffect{}},
    {"continuous_usage_stats", NoEffect{}},
};
Refusal ReadStreamOptions(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  to->has_stream_options = true;
  return ReadFields<R>(value, path, kStreamOptions, reader, to);
}

Refusal Unsupported(const std::string& path, std::string_view why) {
  return MakeError(ErrorKind::kUnsupportedParameter, fmt::format("{}: {}", path, why), path);
}

Refusal ReadResponseFormat(const Json& value, const std::string& path, FieldReader&, R*) {
  if (!value.IsObject()) return WrongType(path, value, "an object");
  const Json* type = value.Find("type");
  const std::string where = MemberPath(path, "type");
  if (!type || type->IsNull()) return MakeError(ErrorKind::kMissingParameter, where + ": is missing", where);
  if (!type->IsString()) return WrongType(where, *type, "a string");
  if (type->AsString() == "text") return std::nullopt;
  if (type->AsString() == "json_object" || type->AsString() == "json_schema")
    return Unsupported(where, "structured output is not supported yet, only \"text\"");
  return Invalid(where, QuoteUser(type->AsString()) + " is none of text, json_object, json_schema");
}

constexpr char kNoTools[] = "tools are not supported yet";

Refusal ReadTools(const Json& value, const std::string& path, FieldReader&, R*) {
  if (!value.IsArray()) return WrongType(path, value, "an array of tools");
  return value.items().empty() ? std::nullopt : Unsupported(path, kNoTools);
}

Refusal ReadToolChoice(const Json& value, const std::string& path, FieldReader&, R*) {
  if (!value.IsString() && !value.IsObject()) return WrongType(path, value, "a string or an object");
  if (value.IsString() && (value.AsString() == "none" || value.AsString() == "auto")) return std::nullopt;
  return Unsupported(path, kNoTools);
}

Refusal ReadModalities(const Json& value, const std::string& path, FieldReader&, R*) {
  if (!value.IsArray()) return WrongType(path, value, "an array of strings");
  for (size_t i = 0; i < value.items().size(); ++i) {
    const Json& item = value.items()[i];
    if (!item.IsString()) return WrongType(ItemPath(path, i), item, "a string");
    if (item.AsString() != "text") return Unsupported(ItemPath(path, i), "only \"text\" is supported");
  }
  return std::nullopt;
}

Refusal ReadStore(const Json& value, const std::string& path, FieldReader& reader, R*) {
  bool store = false;
  if (Refusal refusal = ReadBool(value, path, &store)) return refusal;
  if (!store) return std::nullopt;
  reader.ignored.push_back(path);  // taken even by a strict server, and said not to be done
  ++reader.ignored_count;
  return std::nullopt;
}

constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
Refusal ReadEffort(const Json& value, const std::string& path, FieldReader&, R* to) {
  if (Refusal refusal = ReadString(value, path, &to->reasoning_effort.emplace())) return refusal;
  if (std::find(std::begin(kEfforts), std::end(kEfforts), *to->reasoning_effort) != std::end(kEfforts))
    return std::nullopt;
  return Invalid(path, QuoteUser(*to->reasoning_effort) + " is none of none, minimal, low, medium, high, xhigh, max");
}

/// Depth of a value, and about how many bytes its text has.
struct Extent {
  int64_t depth = 0, bytes = 0;
};
Extent Measure(const Json& value) {
  Extent extent{0, 8};
  auto add = [&](const Json& item, size_t key) {
    const Extent inner = Measure(item);  // the parser bounds the depth
    extent.depth = std::max(extent.depth, inner.depth);
    extent.bytes += inner.bytes + static_cast<int64_t>(key);
  };
  if (value.IsString()) extent.bytes += static_cast<int64_t>(value.AsString().size());
  if (value.IsArray())
    for (const Json& item : value.items()) add(item, 0);
  if (value.IsObject())
    for (const auto& [key, item] : value.members()) add(item, key.size());
  if (value.IsArray() || value.IsObject()) ++extent.depth;
  return extent;
}

Refusal ReadKwargs(const Json& value, const std::string& path, FieldReader& reader, R* to) {
  if (!value.IsObject()) return WrongType(path, value, "an object");
  if (Refusal refusal = CheckCount(value, path, 0, reader.limits.max_kwargs)) return refusal;
  const Extent extent = Measure(value);
  if (extent.depth > reader.limits.max_kwargs_depth)
    return Invalid(path, fmt::format("nests {} deep, the limit is {}", extent.depth, reader.limits.max_kwargs_depth));
  if (extent.bytes > reader.limits.max_kwargs_bytes)
    return Invalid(path, fmt::format("has {} bytes, the limit is {}", extent.bytes, reader.limits.max_kwargs_bytes));
  to->kwargs = &value;
  return std::nullopt;
}

// --- The table ---

constexpr char kNotStructured[] = "structured output is not supported yet";

constexpr Field<R> kFields[] = {
    {"model", StringField<R>{&R::model}},
    {"messages", ShapeField<R>{ReadMessages}, kChat},
    {"prompt", ShapeField<R>{ReadPrompt}, kText},
    {"max_completion_tokens", IntegerField<R>{&R::max_completion_tokens, 0, kMaxTokens}, kChat},
    {"max_tokens", IntegerField<R>{&R::max_tokens, 0, kMaxTokens}},
    {"min_tokens", IntegerField<R>{&R::min_tokens, 0, kMaxTokens}},
    {"temperature", NumberField<R>{&R::temperature, 0, 2}},
    {"top_p", NumberField<R>{&R::top_p, 0, 1, true}},
    {"top_k", IntegerField<R>{&R::top_k, -1, kMaxTokens}},
    {"min_p", NumberField<R>{&R::min_p, 0, 1}},
    {"presence_penalty", NumberField<R>{&R::presence_penalty, -2, 2}},
    {"frequency_penalty", NumberField<R>{&R::frequency_penalty, -2, 2}},
    {"repetition_penalty", NumberField<R>{&R::repetition_penalty, 0, 10, true}},
    {"seed", IntegerField<R>{&R::seed, kMinInt, kMaxInt}},
    {"n", IntegerField<R>{&R::n, 1, 0, &RequestLimits::max_n}},
    {"stop", ShapeField<R>{ReadStop}},
    {"stop_token_ids", ShapeField<R>{ReadStopIds}},
    {"ignore_eos", BoolField<R>{&R::ignore_eos}},
    {"include_stop_str_in_output", BoolField<R>{&R::include_stop}},
    {"skip_special_tokens", BoolField<R>{&R::skip_special}},
    {"logit_bias", ShapeField<R>{ReadLogitBias}},
    {"logprobs", BoolField<R>{&R::want_logprobs}, kChat},
    {"top_logprobs", IntegerField<R>{&R::top_logprobs, 0, 0, &RequestLimits::max_logprobs}, kChat},
    {"logprobs", IntegerField<R>{&R::logprobs, 0, 0, &RequestLimits::max_logprobs}, kText},
    {"stream", BoolField<R>{&R::stream}},
    {"stream_options", ShapeField<R>{ReadStreamOptions}},
    {"cache_prompt", BoolField<R>{&R::cache_prompt}},
    {"priority", IntegerField<R>{&R::priority, -10, 10}},
    {"timings_per_token", BoolField<R>{&R::timings_per_token}},
    {"return_progress", BoolField<R>{&R::return_progress}, kChat},

    {"reasoning_effort", ShapeField<R>{ReadEffort}, kChat},
    {"include_reasoning", BoolField<R>{&R::include_reasoning}, kChat},
    {"chat_template", StringField<R>{&R::chat_template}, kChat},
    {"chat_template_kwargs", ShapeField<R>{ReadKwargs}, kChat},
    {"continue_final_message", BoolField<R>{&R::continue_final_message}, kChat},
    {"add_generation_prompt", BoolField<R>{&R::add_generation_prompt}, kChat},
    {"thinking_budget", Refused{"is not supported yet"}, kChat},

    {"echo", BoolField<R>{&R::echo}, kText},
    {"best_of", IntegerField<R>{&R::best_of, 1, kMaxInt}, kText},
    {"echo", Refused{"is for /v1/completions"}, kChat},
    {"best_of", Refused{"is for /v1/completions"}, kChat},
    {"suffix", Refused{"is not supported"}},

    {"response_format", ShapeField<R>{ReadResponseFormat}},
    {"structured_outputs", Refused{kNotStructured}},
    {"grammar", Refused{kNotStructured}},
    {"json_schema", Refused{kNotStructured}},
    {"tools", ShapeField<R>{ReadTools}, kChat},
    {"tool_choice", ShapeField<R>{ReadToolChoice}, kChat},
    {"parallel_tool_calls", NoEffect{}, kChat},
    {"functions", Refused{"is not supported, use tools"}, kChat},
    {"function_call", Refused{"is not supported, use tool_choice"}, kChat},
    {"audio", Refused{"is not supported"}, kChat},
    {"modalities", ShapeField<R>{ReadModalities}, kChat},
    {"web_search_options", Refused{"is not supported"}, kChat},

    {"user", NoEffect{}},
    {"safety_identifier", NoEffect{}},
    {"metadata", NoEffect{}},
    {"store", ShapeField<R>{ReadStore}},
    {"service_tier", NoEffect{}},
    {"prompt_cache_key", NoEffect{}},
    {"prompt_cache_retention", NoEffect{}},
    {"verbosity", NoEffect{}},
    {"prediction", NoEffect{}},
};

// --- Between fields ---

Refusal CheckTogether(const R& r, const RequestLimits& limits) {
  if (r.endpoint == kChat && !r.messages)
    return MakeError(ErrorKind::kMissingParameter, "messages: is missing", "messages");
  if (r.endpoint == kText && r.prompts() == 0)
    return MakeError(ErrorKind::kMissingParameter, "prompt: is missing", "prompt");
  const std::optional<int64_t> max_tokens = r.max_completion_tokens ? r.max_completion_tokens : r.max_tokens;
  if (r.min_tokens && max_tokens && *r.min_tokens > *max_tokens)
    return Invalid("min_tokens", fmt::format("{} is more than max_tokens, {}", *r.min_tokens, *max_tokens));
  if (r.top_logprobs.value_or(0) > 0 && !r.want_logprobs.value_or(false))
    return Invalid("top_logprobs", "needs logprobs");
  if (r.has_stream_options && !r.stream.value_or(false)) return Invalid("stream_options", "needs stream");
  if (r.return_progress.value_or(false) && !r.stream.value_or(false)) return Invalid("return_progress", "needs stream");
  if (r.best_of && *r.best_of != r.choices())
    return Invalid("best_of", fmt::format("is {}, want n, {}, or nothing", *r.best_of, r.choices()));
  if (r.continue_final_message.value_or(false) && r.add_generation_prompt.value_or(false))
    return Invalid("continue_final_message", "excludes add_generation_prompt");
  int64_t choices = 0;
  if (__builtin_mul_overflow(r.choices(), static_cast<int64_t>(r.prompts()), &choices) || choices > limits.max_choices)
    return Invalid(
        "n", fmt::format("{} choices of {} prompts are more than {}", r.choices(), r.prompts(), limits.max_choices));
  return std::nullopt;
}

}  // namespace

int GenerationRequest::Rivals() const {
  if (endpoint == kText) return logprobs ? static_cast<int>(*logprobs) : -1;
  return want_logprobs.value_or(false) ? static_cast<int>(top_logprobs.value_or(0)) : -1;
}

Refusal ReadGenerationRequest(std::string_view body, Endpoint endpoint, const RequestLimits& limits, bool strict,
                              GenerationRequest* to) {
  to->endpoint = endpoint;
  if (Refusal refusal = ParseBody(body, limits, &to->body)) return refusal;
  FieldReader reader{limits, strict, endpoint};
  if (Refusal refusal = ReadFields<R>(to->body, "", kFields, reader, to)) return refusal;
  to->ignored = std::move(reader.ignored);
  to->ignored_count = reader.ignored_count;
  return CheckTogether(*to, limits);
}

}  // namespace qwen::server
