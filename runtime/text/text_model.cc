#include "runtime/text/text_model.h"

#include <cmath>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::text {
namespace {

constexpr JsonLimits kConfigLimits = {.max_bytes = size_t{1} << 20, .max_values = 10'000, .max_depth = 16};

Status Wrong(const std::string& where, std::string_view key, const std::string& why) {
  return DataLossError(fmt::format("{}:{}: {}", where, JsonPointer("", key), why));
}

// A number in [low, high] under `key`, when there is one; null is absence.
Status ReadNumber(const Json& json, const std::string& where, std::string_view key, double low, double high,
                  std::optional<double>* value) {
  const Json* found = json.Find(key);
  if (!found || found->IsNull()) return {};
  if (!found->IsNumber()) return Wrong(where, key, fmt::format("want a number, found {}", found->KindName()));
  if (found->AsNumber() < low || found->AsNumber() > high)
    return Wrong(where, key, fmt::format("{} is not in {} to {}", found->AsNumber(), low, high));
  *value = found->AsNumber();
  return {};
}

Status ReadIds(const Json& json, const std::string& where, std::vector<int64_t>* ids) {
  constexpr std::string_view kKey = "eos_token_id";
  const Json* found = json.Find(kKey);
  if (!found || found->IsNull()) return {};
  auto take = [&](const Json& id) -> Status {
    if (!id.IsInteger()) return Wrong(where, kKey, fmt::format("want an integer, found {}", id.KindName()));
    if (id.AsInteger() < 0 || id.AsInteger() >= kMaxTokens)
      return Wrong(where, kKey, fmt::format("{} is not in 0 to {}", id.AsInteger(), kMaxTokens - 1));
    ids->push_back(id.AsInteger());
    return {};
  };
  if (!found->IsArray()) return take(*found);
  for (const Json& id : found->items()) QWEN_RETURN_IF_ERROR(take(id));
  return {};
}

}  // namespace

StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view text, const std::string& where) {
  QWEN_ASSIGN_OR_RETURN(Json json, ParseJson(text, where, kConfigLimits));
  if (!json.IsObject()) return DataLossError(fmt::format("{}: want an object, found {}", where, json.KindName()));
  GenerationDefaults defaults;
  if (const Json* found = json.Find("do_sample"); found && !found->IsNull()) {
    if (!found->IsBool()) return Wrong(where, "do_sample", fmt::format("want a boolean, found {}", found->KindName()));
    defaults.do_sample = found->AsBool();
  }
  std::optional<double> top_k;
  QWEN_RETURN_IF_ERROR(ReadNumber(json, where, "temperature", 0, 100, &defaults.temperature));
  QWEN_RETURN_IF_ERROR(ReadNumber(json, where, "top_p", 0, 1, &defaults.top_p));
  QWEN_RETURN_IF_ERROR(ReadNumber(json, where, "min_p", 0, 1, &defaults.min_p));
  QWEN_RETURN_IF_ERROR(ReadNumber(json, where, "repetition_penalty", 0, 100, &defaults.repetition_penalty));
  QWEN_RETURN_IF_ERROR(ReadNumber(json, where, "top_k", 0, kMaxTokens, &top_k));
  if (top_k) {
    if (*top_k != std::floor(*top_k)) return Wrong(where, "top_k", fmt::format("{} is not an integer", *top_k));
    defaults.top_k = static_cast<int64_t>(*top_k);
  }
  QWEN_RETURN_IF_ERROR(ReadIds(json, where, &defaults.eos_ids));
  return defaults;
}

StatusOr<TextModel> TextModel::Open(const Parts& parts, const std::string& where) {
  TextModel model;
  if (!parts.tokenizer.empty()) {
    QWEN_ASSIGN_OR_RETURN(model.tokenizer_, Tokenizer::FromBlob(parts.tokenizer, where + ": tokenizer"));
  }
  if (!parts.chat_template.empty()) {
    QWEN_ASSIGN_OR_RETURN(model.template_, ChatTemplate::Parse(parts.chat_template, where + ": chat template"));
  }
  if (!parts.generation_config.empty()) {
    QWEN_ASSIGN_OR_RETURN(model.defaults_,
                          ParseGenerationConfig(parts.generation_config, where + ": generation_config"));
  }
  return model;
}

std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer, const Rendered& prompt) {
  std::vector<ByteRange> ranges;
  for (const Range& range : prompt.from_template) ranges.push_back({range.begin, range.end});
  return tokenizer.Encode(prompt.text, {.parse_special = false, .template_ranges = ranges});
}

Status CheckUtf8(std::string_view text) {
  // What a decoder leaves as it is was well-formed; where the two part is the first byte that was not.
  const std::string decoded = ReplaceIllFormed(text);
  if (decoded == text) return {};
  size_t at = 0;
  while (at < text.size() && at < decoded.size() && text[at] == decoded[at]) ++at;
  return InvalidArgumentError(fmt::format("byte {} of {} is not UTF-8", at, text.size()));
}

}  // namespace qwen::text
