// From a plan and the user's flags to text in and text out.
#ifndef QWEN_TOOLS_QWENRT_TEXT_H_
#define QWEN_TOOLS_QWENRT_TEXT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/flags.h"
#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "runtime/engine/sampler.h"
#include "runtime/plan/plan.h"
#include "runtime/text/text_model.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::qwenrt {

/// The text side of a plan. kUnimplemented when a command needs a part that the plan was made without.
/// `template_file`, when not empty, takes the place of the plan's chat template.
StatusOr<text::TextModel> OpenText(const plan::Plan& plan, const std::string& path,
                                   const std::string& template_file = {});
StatusOr<const text::Tokenizer*> NeedTokenizer(const text::TextModel& model);
StatusOr<const text::ChatTemplate*> NeedTemplate(const text::TextModel& model);

/// All of standard input, at most `limit` bytes.
StatusOr<std::string> ReadStdin(size_t limit);
inline constexpr size_t kMaxPromptBytes = size_t{64} << 20;

/// The JSON that a flag gives as it stands, or as @FILE; kInvalidArgument or kDataLoss when it is none.
StatusOr<Json> ReadJsonFlag(const Flags& flags, std::string_view flag);
/// The object of --kwargs; empty when absent.
StatusOr<Json> ReadKwargs(const Flags& flags);
/// {"role": ..., "content": ...}
Json Message(std::string role, std::string content);

/// The model's own recommendation, then what the flags say.
StatusOr<engine::SamplingOptions> SamplingOf(const text::GenerationDefaults& defaults, const Flags& flags);

/// Tokens to text on stdout as they come: whole code points, no token that ends the text, no special token.
class TextPrinter {
 public:
  TextPrinter(const text::Tokenizer& tokenizer, bool quiet) : tokenizer_(tokenizer), quiet_(quiet) {}
  void Push(int32_t token);
  void Finish();
  const std::string& text() const { return text_; }

 private:
  void Print(size_t from) const;

  const text::Tokenizer& tokenizer_;
  const bool quiet_;
  text::Utf8Stream stream_;
  std::string text_;
};

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_TEXT_H_
