// qwenrt bench: prompts and decode steps timed, beside what the machine's memory and arithmetic would allow.
#include <algorithm>
#include <cstdio>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/thread_pool.h"
#include "runtime/engine/measure.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/machine.h"
#include "tools/qwenrt/plot.h"

namespace qwen::qwenrt {
namespace {

struct Row {
  bool prefill = false;
  int tokens = 0, sequences = 1;  // of the prompt, or of the context that decode starts from
  engine::Measured measured;

  double Median() const { return engine::Percentile(measured.seconds, 0.5); }
  double TokensPerSecond() const { return (prefill ? tokens : sequences) / Median(); }
  double BytesPerSecond() const { return measured.work.bytes / Median(); }
  double FlopsPerSecond() const { return measured.work.flops / Median(); }
  /// The time that the ceiling which binds would take.
  double Floor(const engine::Ceilings& c) const {
    return std::max(measured.work.bytes / c.bytes_per_second, measured.work.flops / c.flops_per_second);
  }
};

// A list of counts: each at least 1, at most `most`.
StatusOr<std::vector<int>> Counts(const Flags& flags, std::string_view name, int64_t most, const char* limit) {
  auto where = [&] { return fmt::format("--{}", name); };
  StatusOr<std::vector<int64_t>> parsed = ParseIntegers(flags.Text(name));
  if (!parsed.ok()) return parsed.status().Annotate(where());
  std::vector<int> counts;
  for (int64_t count : *parsed) {
    if (count < 1 || count > most)
      return InvalidArgumentError(fmt::format("{}: {} is not in 1 to {}, {}", where(), count, most, limit));
    counts.push_back(static_cast<int>(count));
  }
  std::sort(counts.begin(), counts.end());
  return counts;
}

std::string RowJson(const Row& row, const engine::Ceilings& ceilings) {
  const std::vector<double>& s = row.measured.seconds;
  const double per = row.prefill ? row.tokens : row.sequences;
  return fmt::format(
      "{{\"phase\": \"{}\", \"sequences\": {}, \"tokens\": {}, \"samples\": {}, \"seconds_p50\": {:.9f}, "
      "\"seconds_p90\": {:.9f}, \"seconds_p99\": {:.9f}, \"tokens_per_s\": {:.3f}, \"bytes_per_token\": {:.0f}, "
      "\"flops_per_token\": {:.0f}, \"bytes_per_s\": {:.0f}, \"flops_per_s\": {:.0f}, \"bandwidth_share\": {:.4f}, "
      "\"compute_share\": {:.4f}, \"floor_share\": {:.4f}}}",
      row.prefill ? "prefill" : "decode", row.sequences, row.tokens, s.size(), engine::Percentile(s, 0.5),
      engine::Percentile(s, 0.9), engine::Percentile(s, 0.99), row.TokensPerSecond(), row.measured.work.bytes / per,
      row.measured.work.flops / per, row.BytesPerSecond(), row.FlopsPerSecond(),
      row.BytesPerSecond() / ceilings.bytes_per_second, row.FlopsPerSecond() / ceilings.flops_per_second,
      row.Floor(ceilings) / row.Median());
}

std::string Plot(const std::string& title, const std::vector<Row>& rows, const engine::Ceilings& ceilings) {
  Panel prefill{"prefill", "tokens of the prompt", "tokens/s", {}}, decode{"decode", "sequences", "tokens/s", {}};
  for (const Row& row : rows) {
    const double count = row.prefill ? row.tokens : row.sequences;
    (row.prefill ? prefill : decode).points.push_back({count, row.TokensPerSecond(), count / row.Floor(ceilings)});
  }
  return DrawPlot(title + "   (dashed: the machine's ceilings)", {prefill, decode});
}

}  // namespace

Status BenchCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(std::vector<int> prompts,
                        Counts(flags, "prefill", plan.model.max_model_len, "the plan's length"));
  QWEN_ASSIGN_OR_RETURN(std::vector<int> batches,
                        Counts(flags, "decode", plan.capacity.max_num_seqs, "the plan's --max-num-seqs"));
  const int context = static_cast<int>(flags.Int("context")), steps = static_cast<int>(flags.Int("steps"));
  const int repeat = static_cast<int>(flags.Int("repeat"));
  if (context + steps + 1 > plan.model.max_model_len)
    return InvalidArgumentError(fmt::format("--context {} and --steps {} need {} tokens, the plan takes {}", context,
                                            steps, context + steps + 1, plan.model.max_model_len));
  if (flags.HasValue("plot")) QWEN_RETURN_IF_ERROR(CheckOutput(flags.Text("plot"), flags.Bool("force")));

  QWEN_RETURN_IF_ERROR(ApplyCpuMask(flags));
  QWEN_ASSIGN_OR_RETURN(std::optional<kernels::Isa> forced, ChooseIsa(flags));
  const kernels::Isa isa = forced.value_or(kernels::DetectIsa());
  const int threads =
      flags.HasValue("threads") ? static_cast<int>(flags.Int("threads")) : std::max(1, AvailableCores() / plan.tp);
  // Before the weights are there: what both need must not add up.
  QWEN_ASSIGN_OR_RETURN(const exec::DeviceKind device, ChooseDevice(plan, flags));
  const bool cuda = device == exec::DeviceKind::kCuda;
  engine::Ceilings ceilings;
  std::string machine = CpuName(), machine_json;
  if (cuda) {
    QWEN_ASSIGN_OR_RETURN(const std::vector<exec::Card> cards, exec::CudaCards());
    machine = cards.front().name;
    ceilings = {cards.front().bytes_per_second, cards.front().flops_per_second};
    machine_json = fmt::format("{{\"card\": {}, \"ranks\": {}}}", JsonQuote(machine), plan.tp);
  } else {
    QWEN_ASSIGN_OR_RETURN(ceilings, engine::MeasureCeilings(isa, threads * plan.tp, flags.Size("ceiling-bytes")));
    machine_json = fmt::format("{{\"cpu\": {}, \"isa\": \"{}\", \"threads\": {}, \"ranks\": {}}}", JsonQuote(machine),
                               kernels::IsaName(isa), threads, plan.tp);
  }
  const int pages =
      std::max(engine::PagesFor(prompts.back()), batches.back() * engine::PagesFor(int64_t{context} + steps + 1));
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine, LoadEngine(plan, flags, pages, batches.back()));

  GracefulStop stop;
  std::vector<Row> rows;
  for (int tokens : prompts) {
    Row row{.prefill = true, .tokens = tokens, .measured = {}};
    QWEN_ASSIGN_OR_RETURN(row.measured, engine::MeasurePrefill(*engine, tokens, repeat, stop.flag()));
    rows.push_back(std::move(row));
  }
  for (int sequences : batches) {
    Row row{.tokens = context, .sequences = sequences, .measured = {}};
    QWEN_ASSIGN_OR_RETURN(row.measured, engine::MeasureDecode(*engine, sequences, context, steps, stop.flag()));
    rows.push_back(std::move(row));
  }

  const std::string title =
      fmt::format("{}, {}, {}", plan.model.family, DTypeName(plan.model.dtype),
                  cuda ? exec::TargetOf(device) : fmt::format("{} ({} threads)", kernels::IsaName(isa), threads * plan.tp));
  if (flags.HasValue("plot"))
    QWEN_RETURN_IF_ERROR(WriteFileAtomic(flags.Text("plot"), Plot(title, rows, ceilings), flags.Bool("force")));
  if (flags.Bool("json")) {
    std::string list;
    for (const Row& row : rows) list += (list.empty() ? "" : ", ") + RowJson(row, ceilings);
    fmt::print(
        "{{\"plan\": {}, \"family\": {}, \"dtype\": \"{}\", \"weights\": {}, \"machine\": {}, "
        "\"ceilings\": {{\"bytes_per_s\": {:.0f}, \"flops_per_s\": {:.0f}}}, "
        "\"rows\": [{}]}}\n",
        JsonQuote(flags.Argument(0)), JsonQuote(plan.model.family), DTypeName(plan.model.dtype),
        JsonQuote(flags.Text("weights")), machine_json, ceilings.bytes_per_second, ceilings.flops_per_second, list);
    return {};
  }
  const char* type = cuda ? "bf16" : "f32";
  fmt::print("{}\n{}\n", title, machine);
  fmt::print("ceilings{}: read {:.1f} GB/s, multiply {:.0f} GFLOP/s in {}\n\n", cuda ? " by its clocks" : "",
             ceilings.bytes_per_second / 1e9, ceilings.flops_per_second / 1e9, type);
  fmt::print("{:<8} {:>7} {:>9} {:>10} {:>10} {:>11} {:>8} {:>9} {:>11} {:>10}\n", "phase", "tokens", "sequences", "ms",
             "p99 ms", "tokens/s", "GB/s", "of read", "GFLOP/s", fmt::format("of {}", type));
  for (const Row& row : rows)
    fmt::print("{:<8} {:>7} {:>9} {:>10.3f} {:>10.3f} {:>11.2f} {:>8.2f} {:>8.1f}% {:>11.1f} {:>9.1f}%\n",
               row.prefill ? "prefill" : "decode", row.tokens, row.sequences, 1e3 * row.Median(),
               1e3 * engine::Percentile(row.measured.seconds, 0.99), row.TokensPerSecond(), row.BytesPerSecond() / 1e9,
               100 * row.BytesPerSecond() / ceilings.bytes_per_second, row.FlopsPerSecond() / 1e9,
               100 * row.FlopsPerSecond() / ceilings.flops_per_second);
  return {};
}

}  // namespace qwen::qwenrt
