// qwenrt tokenize, detokenize and render, and what the other commands share of text.
#include "tools/qwenrt/text.h"

#include <cstdio>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"

namespace qwen::qwenrt {
namespace {

constexpr JsonLimits kMessageLimits = {.max_bytes = size_t{16} << 20};

const plan::Blob* FindBlob(const plan::Plan& plan, plan::BlobKind kind) {
  for (const plan::Blob& blob : plan.blobs)
    if (blob.kind == kind) return &blob;
  return nullptr;
}

// What --text, a file or standard input gives, in that order.
StatusOr<std::string> InputText(const Flags& flags, std::string_view flag) {
  if (flags.HasValue(flag)) return flags.Text(flag);
  return ReadStdin(kMaxPromptBytes);
}

}  // namespace

StatusOr<text::TextModel> OpenText(const plan::Plan& plan, const std::string& path, const std::string& template_file) {
  text::TextModel::Parts parts;
  auto view = [](const plan::Blob* blob) {
    return blob ? std::string_view(reinterpret_cast<const char*>(blob->bytes.data()), blob->bytes.size())
                : std::string_view();
  };
  if (const plan::Blob* blob = FindBlob(plan, plan::BlobKind::kTokenizer)) parts.tokenizer = blob->bytes;
  parts.chat_template = view(FindBlob(plan, plan::BlobKind::kTemplate));
  parts.generation_config = view(FindBlob(plan, plan::BlobKind::kGenerationConfig));
  std::string own_template;
  if (!template_file.empty()) {
    QWEN_ASSIGN_OR_RETURN(own_template, ReadFile(template_file, size_t{1} << 20));
    parts.chat_template = own_template;
  }
  return text::TextModel::Open(parts, path);
}

StatusOr<const text::Tokenizer*> NeedTokenizer(const text::TextModel& model) {
  if (model.tokenizer()) return model.tokenizer();
  return UnimplementedError("the plan has no tokenizer",
                            "compile the checkpoint's folder, with its tokenizer.json, or give --tokenizer DIR");
}

StatusOr<const text::ChatTemplate*> NeedTemplate(const text::TextModel& model) {
  if (model.chat_template()) return model.chat_template();
  return UnimplementedError("the plan has no chat template",
                            "compile a folder with chat_template.jinja or tokenizer_config.json, or use --prompt");
}

StatusOr<std::string> ReadStdin(size_t limit) {
  std::string text;
  char buffer[1 << 16];
  while (size_t read = std::fread(buffer, 1, sizeof buffer, stdin)) {
    text.append(buffer, read);
    if (text.size() > limit) return InvalidArgumentError(fmt::format("standard input: more than {} bytes", limit));
  }
  return text;
}

Json Message(std::string role, std::string content) {
  std::vector<Json::Member> members;
  members.emplace_back("role", Json(std::move(role)));
  members.emplace_back("content", Json(std::move(content)));
  return Json(std::move(members));
}

StatusOr<Json> ReadJsonFlag(const Flags& flags, std::string_view flag) {
  const std::string& value = flags.Text(flag);
  if (!value.starts_with("@")) return ParseJson(value, fmt::format("--{}", flag), kMessageLimits);
  QWEN_ASSIGN_OR_RETURN(std::string text, ReadFile(value.substr(1), kMessageLimits.max_bytes));
  return ParseJson(text, value.substr(1), kMessageLimits);
}

StatusOr<Json> ReadKwargs(const Flags& flags) {
  if (!flags.HasValue("kwargs")) return Json(std::vector<Json::Member>{});
  QWEN_ASSIGN_OR_RETURN(Json kwargs, ReadJsonFlag(flags, "kwargs"));
  if (!kwargs.IsObject())
    return InvalidArgumentError(fmt::format("--kwargs: want an object, found {}", kwargs.KindName()));
  return kwargs;
}

StatusOr<engine::SamplingOptions> SamplingOf(const text::GenerationDefaults& defaults, const Flags& flags) {
  engine::SamplingOptions sampling;
  if (defaults.do_sample) {
    sampling.temperature = static_cast<float>(defaults.temperature.value_or(1));
    sampling.top_k = static_cast<int>(defaults.top_k.value_or(0));
    sampling.top_p = static_cast<float>(defaults.top_p.value_or(1));
    sampling.min_p = static_cast<float>(defaults.min_p.value_or(0));
  }
  if (flags.HasValue("temperature")) sampling.temperature = static_cast<float>(flags.Real("temperature"));
  if (flags.HasValue("top-k")) sampling.top_k = static_cast<int>(flags.Int("top-k"));
  if (flags.HasValue("top-p")) sampling.top_p = static_cast<float>(flags.Real("top-p"));
  if (flags.HasValue("min-p")) sampling.min_p = static_cast<float>(flags.Real("min-p"));
  sampling.seed = static_cast<uint64_t>(flags.Int("seed"));
  QWEN_RETURN_IF_ERROR(engine::CheckSampling(sampling));
  return sampling;
}

void TextPrinter::Push(int32_t token) {
  if (tokenizer_.IsSpecial(token)) return;
  const size_t from = text_.size();
  stream_.Push(tokenizer_.Bytes(token), &text_);
  Print(from);
}

void TextPrinter::Finish() {
  const size_t from = text_.size();
  stream_.Flush(&text_);
  Print(from);
}

void TextPrinter::Print(size_t from) const {
  if (quiet_ || from == text_.size()) return;
  std::fwrite(text_.data() + from, 1, text_.size() - from, stdout);
  std::fflush(stdout);
}

Status TokenizeCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, NeedTokenizer(model));
  QWEN_ASSIGN_OR_RETURN(const std::string text, InputText(flags, "text"));
  QWEN_RETURN_IF_ERROR(text::CheckUtf8(text).Annotate(flags.HasValue("text") ? "--text" : "standard input"));
  const text::EncodedText encoded = tokenizer->EncodeWithPieces(text, {.parse_special = flags.Bool("special")});
  if (flags.Bool("json")) {
    std::string pieces;
    for (const text::EncodedText::Piece& piece : encoded.pieces)
      pieces += fmt::format(
          "{}{}", pieces.empty() ? "" : ", ",
          JsonQuote(
              std::string_view(encoded.normalized).substr(piece.bytes.begin, piece.bytes.end - piece.bytes.begin)));
    fmt::print("{{\"ids\": [{}], \"pieces\": [{}]}}\n", fmt::join(encoded.ids, ", "), pieces);
    return {};
  }
  if (!flags.Bool("pieces")) {
    fmt::print("{}\n", fmt::join(encoded.ids, ","));
    return {};
  }
  for (const text::EncodedText::Piece& piece : encoded.pieces) {
    const std::span<const int32_t> ids(encoded.ids.data() + piece.first_token, piece.tokens);
    fmt::print(
        "{}\t{}\n",
        JsonQuote(std::string_view(encoded.normalized).substr(piece.bytes.begin, piece.bytes.end - piece.bytes.begin)),
        fmt::join(ids, ","));
  }
  return {};
}

Status DetokenizeCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, NeedTokenizer(model));
  QWEN_ASSIGN_OR_RETURN(std::string list, InputText(flags, "tokens"));
  while (!list.empty() && (list.back() == '\n' || list.back() == '\r')) list.pop_back();
  std::vector<int32_t> ids;
  if (!list.empty()) {
    StatusOr<std::vector<int32_t>> parsed = ParsePrompt(list);
    if (!parsed.ok()) return parsed.status().Annotate(flags.HasValue("tokens") ? "--tokens" : "standard input");
    ids = *std::move(parsed);
  }
  for (size_t i = 0; i < ids.size(); ++i)
    if (tokenizer->Kind(ids[i]) == text::TokenKind::kNone)
      return InvalidArgumentError(fmt::format("token {} is {}, the tokenizer has none with that id (it has {})", i,
                                              ids[i], tokenizer->vocab_size()));
  const std::string text = tokenizer->Decode(ids, flags.Bool("skip-special"));
  if (flags.Bool("json"))
    fmt::print("{{\"text\": {}}}\n", JsonQuote(text));
  else
    std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

Status RenderCommand(const Flags& flags) {
  if (!flags.HasValue("messages"))
    return InvalidArgumentError("--messages is missing",
                                "--messages '[{\"role\": \"user\", \"content\": \"hi\"}]' or @FILE");
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::ChatTemplate* chat_template, NeedTemplate(model));
  QWEN_ASSIGN_OR_RETURN(Json messages, ReadJsonFlag(flags, "messages"));
  QWEN_ASSIGN_OR_RETURN(Json kwargs, ReadKwargs(flags));
  Json tools;
  if (flags.HasValue("tools")) {
    QWEN_ASSIGN_OR_RETURN(tools, ReadJsonFlag(flags, "tools"));
  }
  QWEN_ASSIGN_OR_RETURN(text::Rendered rendered,
                        chat_template->Render({.messages = messages,
                                               .tools = flags.HasValue("tools") ? &tools : nullptr,
                                               .kwargs = &kwargs,
                                               .add_generation_prompt = flags.Bool("generation-prompt"),
                                               .continue_final_message = flags.Bool("continue-final-message")}));
  if (!flags.Bool("json")) {
    std::fwrite(rendered.text.data(), 1, rendered.text.size(), stdout);
    return {};
  }
  std::string ids;
  if (model.tokenizer())
    ids = fmt::format(", \"ids\": [{}]", fmt::join(text::EncodePrompt(*model.tokenizer(), rendered), ", "));
  fmt::print("{{\"text\": {}{}}}\n", JsonQuote(rendered.text), ids);
  return {};
}

}  // namespace qwen::qwenrt
