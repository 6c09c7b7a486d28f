// qwenrt run: one prompt, one continuation, on stdout as text, as ids or as a JSON object.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/engine/generate.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/text.h"

namespace qwen::qwenrt {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// The prompt's ids. With --prompt-tokens the answer is ids too; otherwise `tokenizer` is set.
struct Prompt {
  std::string_view way;  // the flag it came from
  std::string where;     // the same, for messages
  std::vector<int32_t> ids;
  const text::Tokenizer* tokenizer = nullptr;
};

// Which flag gives the prompt, and its ids where that takes no plan.
StatusOr<Prompt> BeginPrompt(const Flags& flags) {
  constexpr std::string_view kWays[] = {"prompt-tokens", "prompt", "chat"};
  Prompt prompt;
  for (std::string_view name : kWays) {
    if (!flags.HasValue(name)) continue;
    if (!prompt.way.empty())
      return InvalidArgumentError(fmt::format("--{} and --{}: only one of them is the prompt", prompt.way, name));
    prompt.way = name;
  }
  if (prompt.way.empty())
    return InvalidArgumentError("there is no prompt", "give --prompt TEXT, --chat TEXT or --prompt-tokens 1,2,3");
  prompt.where = fmt::format("--{}", prompt.way);
  if (prompt.way != "prompt-tokens") return prompt;
  StatusOr<std::vector<int32_t>> ids = ParsePrompt(flags.Text(prompt.way));
  if (!ids.ok()) return ids.status().Annotate(prompt.where);
  prompt.ids = *std::move(ids);
  return prompt;
}

StatusOr<Prompt> ReadPrompt(const Flags& flags, Prompt prompt, const text::TextModel& model) {
  if (!prompt.ids.empty()) return prompt;
  const std::string_view way = prompt.way;
  const std::string& where = prompt.where;
  QWEN_ASSIGN_OR_RETURN(prompt.tokenizer, NeedTokenizer(model));
  std::string text = flags.Text(way);
  if (text == "-") {
    QWEN_ASSIGN_OR_RETURN(text, ReadStdin(kMaxPromptBytes));
  }
  QWEN_RETURN_IF_ERROR(text::CheckUtf8(text).Annotate(where));
  if (way == "prompt") {
    prompt.ids = prompt.tokenizer->Encode(text);
    return prompt;
  }
  QWEN_ASSIGN_OR_RETURN(const text::ChatTemplate* chat_template, NeedTemplate(model));
  std::vector<Json> messages;
  if (flags.HasValue("system")) {
    QWEN_RETURN_IF_ERROR(text::CheckUtf8(flags.Text("system")).Annotate("--system"));
    messages.push_back(Message("system", flags.Text("system")));
  }
  messages.push_back(Message("user", std::move(text)));
  const Json list(std::move(messages));
  QWEN_ASSIGN_OR_RETURN(const Json kwargs, ReadKwargs(flags));
  QWEN_ASSIGN_OR_RETURN(const text::Rendered rendered, chat_template->Render({.messages = list, .kwargs = &kwargs}));
  prompt.ids = text::EncodePrompt(*prompt.tokenizer, rendered);
  return prompt;
}

}  // namespace

Status RunCommand(const Flags& flags) {
  Clock::time_point start = Clock::now();
  QWEN_ASSIGN_OR_RETURN(Prompt begun, BeginPrompt(flags));
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const text::TextModel model, OpenText(plan, flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const Prompt prompt, ReadPrompt(flags, std::move(begun), model));
  QWEN_RETURN_IF_ERROR(engine::CheckPrompt(plan, prompt.ids).Annotate(prompt.where));
  engine::GenerateOptions options;
  options.max_tokens = static_cast<int>(flags.Int("max-tokens"));
  QWEN_ASSIGN_OR_RETURN(options.sampling, SamplingOf(model.defaults(), flags));
  options.eos_ids = plan.model.eos_ids;
  int64_t prompt_tokens = static_cast<int64_t>(prompt.ids.size());
  int64_t longest = std::min(prompt_tokens + options.max_tokens - 1, plan.model.max_model_len);
  QWEN_ASSIGN_OR_RETURN(const PoolSizes pools, PoolsFor(plan, flags, longest));
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine, LoadEngine(plan, flags, pools.pages, pools.slots));

  bool json = flags.Bool("json");
  GracefulStop stop;
  options.stop = stop.flag();
  Clock::time_point ready = Clock::now(), first = ready;
  int count = 0;
  std::optional<TextPrinter> printer;
  if (prompt.tokenizer) printer.emplace(*prompt.tokenizer, json);
  options.on_token = [&](size_t, int32_t token) {
    if (count++ == 0) first = Clock::now();
    const bool ends = std::ranges::find(options.eos_ids, token) != options.eos_ids.end();
    if (printer && !ends) printer->Push(token);
    if (printer || json) return;
    // As they come, in the form --prompt-tokens takes.
    fmt::print("{}{}", count > 1 ? "," : "", token);
    std::fflush(stdout);
  };
  StatusOr<std::vector<engine::Generated>> results = engine::Generate(*engine, {&prompt.ids, 1}, options);
  Clock::time_point end = Clock::now();
  if (printer) printer->Finish();
  if (!json && count > 0) fmt::print("\n");
  if (!results.ok()) return results.status();
  const engine::Generated& result = (*results)[0];
  double prefill = Seconds(ready, first), decode = Seconds(first, end);
  double prefill_rate = prefill > 0 ? static_cast<double>(prompt_tokens) / prefill : 0;
  double decode_rate = count > 1 && decode > 0 ? (count - 1) / decode : 0;
  if (json) {
    fmt::print(
        "{{\"plan\": {}, \"prompt_tokens\": {}, \"ids\": [{}], {}\"finish_reason\": \"{}\", "
        "\"timing\": {{\"load_s\": {:.6f}, \"prefill_s\": {:.6f}, \"decode_s\": {:.6f}, "
        "\"prefill_tokens_per_s\": {:.3f}, \"decode_tokens_per_s\": {:.3f}}}}}\n",
        JsonQuote(flags.Argument(0)), prompt_tokens, fmt::join(result.tokens, ", "),
        printer ? fmt::format("\"text\": {}, ", JsonQuote(printer->text())) : "",
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
