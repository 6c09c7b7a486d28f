// qwenrt run: one prompt, one continuation, on stdout as ids or as a JSON object.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/engine/generate.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"

namespace qwen::qwenrt {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Status RunCommand(const Flags& flags) {
  Clock::time_point start = Clock::now();
  if (!flags.HasValue("prompt-tokens"))
    return InvalidArgumentError("--prompt-tokens is missing", "prompts look like --prompt-tokens 1,2,3");
  StatusOr<std::vector<int32_t>> prompt = ParsePrompt(flags.Text("prompt-tokens"));
  if (!prompt.ok()) return prompt.status().Annotate("--prompt-tokens");
  engine::GenerateOptions options;
  options.max_tokens = static_cast<int>(flags.Int("max-tokens"));
  options.sampling.temperature = static_cast<float>(flags.Real("temperature"));
  options.sampling.top_k = static_cast<int>(flags.Int("top-k"));
  options.sampling.top_p = static_cast<float>(flags.Real("top-p"));
  options.sampling.min_p = static_cast<float>(flags.Real("min-p"));
  options.sampling.seed = static_cast<uint64_t>(flags.Int("seed"));
  QWEN_RETURN_IF_ERROR(engine::CheckSampling(options.sampling));

  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_RETURN_IF_ERROR(engine::CheckPrompt(plan, *prompt).Annotate("--prompt-tokens"));
  options.eos_ids = plan.model.eos_ids;
  int64_t prompt_tokens = static_cast<int64_t>(prompt->size());
  int64_t longest = std::min(prompt_tokens + options.max_tokens - 1, plan.model.max_model_len);
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine,
                        LoadEngine(plan, flags, engine::PagesFor(longest), /*num_slots=*/1));

  bool json = flags.Bool("json");
  GracefulStop stop;
  options.stop = stop.flag();
  Clock::time_point ready = Clock::now(), first = ready;
  int count = 0;
  options.on_token = [&](size_t, int32_t token) {
    if (count++ == 0) first = Clock::now();
    if (json) return;
    // As they come, in the form --prompt-tokens takes.
    fmt::print("{}{}", count > 1 ? "," : "", token);
    std::fflush(stdout);
  };
  StatusOr<std::vector<engine::Generated>> results = engine::Generate(*engine, {&*prompt, 1}, options);
  Clock::time_point end = Clock::now();
  if (!json && count > 0) fmt::print("\n");
  if (!results.ok()) return results.status();
  const engine::Generated& result = (*results)[0];
  double prefill = Seconds(ready, first), decode = Seconds(first, end);
  double prefill_rate = prefill > 0 ? static_cast<double>(prompt_tokens) / prefill : 0;
  double decode_rate = count > 1 && decode > 0 ? (count - 1) / decode : 0;
  if (json) {
    fmt::print(
        "{{\"plan\": {}, \"prompt_tokens\": {}, \"ids\": [{}], \"finish_reason\": \"{}\", "
        "\"timing\": {{\"load_s\": {:.6f}, \"prefill_s\": {:.6f}, \"decode_s\": {:.6f}, "
        "\"prefill_tokens_per_s\": {:.3f}, \"decode_tokens_per_s\": {:.3f}}}}}\n",
        JsonQuote(flags.Argument(0)), prompt_tokens, fmt::join(result.tokens, ", "),
        engine::FinishReasonName(result.reason), Seconds(start, ready), prefill, decode, prefill_rate, decode_rate);
  } else if (StderrIsTerminal()) {
    fmt::print(stderr, "{} tokens ({}), {:.1f} tokens/s; prompt {:.1f} tokens/s; loaded in {:.2f} s\n", count,
               engine::FinishReasonName(result.reason), decode_rate, prefill_rate, Seconds(start, ready));
  }
  if (result.reason == engine::FinishReason::kCancelled)
    return CancelledError(fmt::format("stopped by Ctrl-C after {} of {} tokens", count, options.max_tokens));
  return {};
}

}  // namespace qwen::qwenrt
