// qwenrt perplexity: how well the model predicts a text, in bits per byte and as perplexity.
#include "runtime/engine/perplexity.h"

#include <chrono>
#include <cstdio>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/progress.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/text.h"

namespace qwen::qwenrt {

Status PerplexityCommand(const Flags& flags) {
  if (!flags.HasValue("text")) return InvalidArgumentError("--text is missing", "name a file of UTF-8 text");
  const std::string& path = flags.Text("text");
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, NeedTokenizer(model));
  QWEN_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPromptBytes));
  QWEN_RETURN_IF_ERROR(text::CheckUtf8(text).Annotate(path));
  // A text is no prompt: what looks like a special token in it is text.
  const std::vector<int32_t> ids = tokenizer->Encode(text, {.parse_special = false});
  const int window = static_cast<int>(std::min(flags.Int("window"), plan.model.max_model_len));
  const int stride = flags.HasValue("stride") ? static_cast<int>(flags.Int("stride")) : std::max(1, window / 2);

  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine,
                        LoadEngine(plan, flags, engine::PagesFor(window), /*num_slots=*/1));
  GracefulStop stop;
  std::unique_ptr<Progress> progress = Progress::Make(ProgressKindOf(flags.Choice("progress")), stderr);
  progress->Phase("perplexity", static_cast<int64_t>(ids.size()), "tokens");
  const auto start = std::chrono::steady_clock::now();
  QWEN_ASSIGN_OR_RETURN(const engine::Perplexity result,
                        engine::MeasurePerplexity(*engine, ids, window, stride, stop.flag(),
                                                  [&](int64_t done) { progress->Update(done); }));
  progress->Finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double bits = result.BitsPerByte(static_cast<int64_t>(text.size()));
  if (flags.Bool("json"))
    fmt::print(
        "{{\"plan\": {}, \"text\": {}, \"bytes\": {}, \"tokens\": {}, \"scored_tokens\": {}, \"windows\": {}, "
        "\"window\": {}, \"stride\": {}, \"nats\": {:.6f}, \"bits_per_byte\": {:.6f}, \"perplexity\": {:.6f}, "
        "\"seconds\": {:.3f}}}\n",
        JsonQuote(flags.Argument(0)), JsonQuote(path), text.size(), ids.size(), result.scored, result.windows, window,
        stride, result.nats, bits, result.PerToken(), seconds);
  else
    fmt::print("{:.4f} bits per byte, perplexity {:.3f} per token\n{} bytes, {} tokens, {} windows of {} every {}\n",
               bits, result.PerToken(), text.size(), ids.size(), result.windows, window, stride);
  return {};
}

}  // namespace qwen::qwenrt
