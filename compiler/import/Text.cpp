#include "compiler/import/Text.h"

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/text/jinja/chat_template.h"
#include "runtime/text/text_model.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <optional>

namespace qwen::compiler {
namespace {

constexpr size_t kMaxTextBytes = 4 << 20; // templates have some 10 KB, configs with their added tokens some 100 KB

void addBlob(plan::Plan &plan, plan::BlobKind kind, std::string_view bytes) {
  plan.blobs.push_back({kind, {bytes.begin(), bytes.end()}});
}

/// The file's text; none when it is not there.
StatusOr<std::optional<std::string>> readIfThere(const std::string &path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    return std::optional<std::string>();
  QWEN_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxTextBytes));
  return std::optional(std::move(text));
}

Status addEos(plan::Plan &plan, int64_t id, const std::string &where) {
  std::vector<int64_t> &ids = plan.model.eos_ids;
  if (id >= plan.model.vocab)
    return DataLossError(
        fmt::format("{}: end-of-sequence token {}, the vocabulary has {}", where, id, plan.model.vocab));
  if (std::find(ids.begin(), ids.end(), id) == ids.end())
    ids.push_back(id);
  return {};
}

/// `chat_template` of a tokenizer_config.json: a text, or a list of named ones of which `default` is meant.
std::optional<std::string> templateOf(const Json &config) {
  const Json *found = config.Find("chat_template");
  if (found && found->IsString())
    return found->AsString();
  if (!found || !found->IsArray())
    return std::nullopt;
  for (const Json &entry : found->items()) {
    const Json *name = entry.Find("name"), *text = entry.Find("template");
    if (name && name->IsString() && name->AsString() == "default" && text && text->IsString())
      return text->AsString();
  }
  return std::nullopt;
}

/// `eos_token`: a text, or an object with it as `content`.
std::optional<std::string> eosTokenOf(const Json &config) {
  const Json *found = config.Find("eos_token");
  if (found && found->IsObject())
    found = found->Find("content");
  return found && found->IsString() ? std::optional(found->AsString()) : std::nullopt;
}

} // namespace

Status readText(const std::string &dir, plan::Plan &plan) {
  const std::string prefix = dir.empty() ? "" : dir + "/";
  std::optional<text::Tokenizer> tokenizer;
  const std::string tokenizerPath = prefix + "tokenizer.json";
  std::error_code error;
  if (std::filesystem::exists(tokenizerPath, error)) {
    QWEN_ASSIGN_OR_RETURN(tokenizer, text::ReadTokenizerJson(tokenizerPath));
    if (tokenizer->vocab_size() > plan.model.vocab)
      return UnimplementedError(fmt::format("{}: {} tokens, the model's vocabulary has {}", tokenizerPath,
                                            tokenizer->vocab_size(), plan.model.vocab),
                                "is it another model's tokenizer?");
    std::span<const uint8_t> blob = tokenizer->Serialize();
    addBlob(plan, plan::BlobKind::kTokenizer, {reinterpret_cast<const char *>(blob.data()), blob.size()});
  }

  // The file of its own is the newer habit and wins, as in transformers.
  std::string templatePath = prefix + "chat_template.jinja";
  QWEN_ASSIGN_OR_RETURN(std::optional<std::string> source, readIfThere(templatePath));
  const std::string configPath = prefix + "tokenizer_config.json";
  QWEN_ASSIGN_OR_RETURN(std::optional<std::string> configText, readIfThere(configPath));
  if (configText) {
    QWEN_ASSIGN_OR_RETURN(Json config, ParseJson(*configText, configPath));
    if (!source) {
      source = templateOf(config);
      templatePath = configPath + ":/chat_template";
    }
    if (std::optional<std::string> eos = eosTokenOf(config); eos && tokenizer)
      if (std::optional<int32_t> id = tokenizer->Find(*eos))
        QWEN_RETURN_IF_ERROR(addEos(plan, *id, configPath));
  }
  if (source) {
    StatusOr<text::ChatTemplate> parsed = text::ChatTemplate::Parse(*source, templatePath);
    if (!parsed.ok())
      return parsed.status();
    addBlob(plan, plan::BlobKind::kTemplate, *source);
  }

  const std::string generationPath = prefix + "generation_config.json";
  QWEN_ASSIGN_OR_RETURN(std::optional<std::string> generation, readIfThere(generationPath));
  if (generation) {
    QWEN_ASSIGN_OR_RETURN(text::GenerationDefaults defaults, text::ParseGenerationConfig(*generation, generationPath));
    for (int64_t id : defaults.eos_ids)
      QWEN_RETURN_IF_ERROR(addEos(plan, id, generationPath));
    addBlob(plan, plan::BlobKind::kGenerationConfig, *generation);
  }
  return {};
}

} // namespace qwen::compiler
