// The text side of a model: its tokenizer, its chat template, what its makers recommend for sampling.
//
// qwenc reads the checkpoint's files once and puts them into the plan; the programs open what the plan carries. Each
// part may be absent: a plan of a bare config.json takes token ids only.
#ifndef QWEN_RUNTIME_TEXT_TEXT_MODEL_H_
#define QWEN_RUNTIME_TEXT_TEXT_MODEL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/text/jinja/chat_template.h"
#include "runtime/text/tokenizer.h"

namespace qwen::text {

/// generation_config.json, as far as it is ours. Absent: the file does not say.
struct GenerationDefaults {
  bool do_sample = false;  // false: greedy, whatever the others are
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::vector<int64_t> eos_ids;
};
/// kDataLoss, `where` and the JSON pointer in front, for a wrong type or a value out of range. Other keys are ignored.
StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view json, const std::string& where);

/// Threads: const, so any number at once.
class TextModel {
 public:
  struct Parts {
    std::span<const uint8_t> tokenizer;  // Tokenizer::Serialize
    std::string_view chat_template;      // the template's source
    std::string_view generation_config;  // the file
  };
  /// Empty parts are absent. kDataLoss for what does not parse, `where` in front.
  static StatusOr<TextModel> Open(const Parts& parts, const std::string& where);

  /// nullptr when absent.
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  const ChatTemplate* chat_template() const { return template_ ? &*template_ : nullptr; }
  const GenerationDefaults& defaults() const { return defaults_; }

 private:
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
  GenerationDefaults defaults_;
};

/// Ids of a rendered prompt: special tokens are those that the template wrote (serving design, 14.2).
std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer, const Rendered& prompt);

/// kInvalidArgument, with the offset of the first byte that is wrong, for text that is not UTF-8.
Status CheckUtf8(std::string_view text);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_TEXT_MODEL_H_
