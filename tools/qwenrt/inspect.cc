// qwenrt inspect, verify and devices: what is in a file, whether it is sound, what could run it. Nothing is executed.
#include <unistd.h>

#include <thread>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/exec/executor.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/dump.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/machine.h"

namespace qwen::qwenrt {
namespace {

plan::MemoryOptions MemoryOptionsOf(const plan::Plan& plan, const Flags& flags) {
  plan::MemoryOptions options;
  options.threads = exec::ThreadsFor(plan, flags.HasValue("threads") ? static_cast<int>(flags.Int("threads")) : 0);
  options.snapshot_bytes = flags.Size("state-cache-bytes");
  if (flags.HasValue("gpu-memory")) options.memory_bytes = flags.Size("gpu-memory");
  if (flags.HasValue("max-num-seqs")) options.max_num_seqs = static_cast<int32_t>(flags.Int("max-num-seqs"));
  if (flags.HasValue("max-model-len")) options.max_model_len = flags.Int("max-model-len");
  return options;
}

}  // namespace

Status InspectCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  bool json = flags.Bool("json");
  if (flags.Bool("memory")) {
    const plan::MemoryOptions options = MemoryOptionsOf(plan, flags);
    QWEN_RETURN_IF_ERROR(plan::CheckCapacity(plan, options));
    fmt::print("{}", json ? plan::DumpMemoryJson(plan, options) : plan::DumpMemory(plan, options));
    for (const std::string& target : plan.targets) QWEN_RETURN_IF_ERROR(plan::CheckFit(plan, target, options));
    return {};
  }
  std::string text;
  if (flags.Bool("steps"))
    text = json ? plan::DumpStepsJson(plan) : plan::DumpSteps(plan);
  else if (flags.Bool("kernels"))
    text = json ? plan::DumpKernelsJson(plan) : plan::DumpKernels(plan);
  else
    text = json ? plan::DumpJson(plan) : plan::DumpSummary(plan);
  fmt::print("{}", text);
  return {};
}

Status VerifyCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  if (flags.HasValue("weights")) QWEN_RETURN_IF_ERROR(CheckWeights(plan, flags));
  if (flags.Bool("json"))
    fmt::print("{{\"plan\": {}, \"ok\": true, \"programs\": {}, \"kernels\": {}, \"weights\": {}}}\n",
               JsonQuote(flags.Argument(0)), plan.programs.size(), plan.kernels.size(), plan.weights.size());
  else
    fmt::print("{}: sound: {} programs, {} kernels, {} weights\n", flags.Argument(0), plan.programs.size(),
               plan.kernels.size(), plan.weights.size());
  return {};
}

Status DevicesCommand(const Flags& flags) {
  unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  double gib = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 0x1p30;
  const auto cards = exec::CudaCards();
  if (flags.Bool("json")) {
    std::string isas, cuda;
    for (const exec::Card& card : cards.ok() ? *cards : std::vector<exec::Card>())
      cuda += fmt::format(
          ", {{\"device\": \"cuda\", \"ordinal\": {}, \"name\": {}, \"memory_gib\": {:.1f}, "
          "\"compute_capability\": \"{}.{}\", \"bytes_per_s\": {:.0f}, \"flops_per_s\": {:.0f}}}",
          card.ordinal, JsonQuote(card.name), static_cast<double>(card.memory_bytes) / 0x1p30, card.major, card.minor,
          card.bytes_per_second, card.flops_per_second);
    for (kernels::Isa isa : kernels::kAllIsas)
      isas += fmt::format("{}\"{}\": {}", isas.empty() ? "" : ", ", kernels::IsaName(isa), kernels::IsaSupported(isa));
    fmt::print(
        "{{\"devices\": [{{\"device\": \"cpu\", \"name\": {}, \"cores\": {}, \"memory_gib\": {:.1f}, "
        "\"isa\": \"{}\", \"isas\": {{{}}}}}{}], \"no_cuda\": {}}}\n",
        JsonQuote(CpuName()), cores, gib, kernels::IsaName(kernels::DetectIsa()), isas, cuda,
        cards.ok() ? "null" : JsonQuote(cards.status().message()));
    return {};
  }
  fmt::print("cpu: {}, {} cores, {:.1f} GiB\n", CpuName(), cores, gib);
  for (kernels::Isa isa : kernels::kAllIsas)
    fmt::print("  {:<8}{}\n", kernels::IsaName(isa),
               !kernels::IsaSupported(isa)   ? "not on this machine"
               : isa == kernels::DetectIsa() ? "used"
                                             : "possible");
  if (!cards.ok()) {
    fmt::print("cuda: not used: {}\n", cards.status().message());
    return {};
  }
  for (const exec::Card& card : *cards)
    fmt::print("cuda:{}: {}, {:.1f} GiB, compute capability {}.{}, {:.0f} GB/s, {:.0f} Tflop/s in bf16\n", card.ordinal,
               card.name, static_cast<double>(card.memory_bytes) / 0x1p30, card.major, card.minor,
               card.bytes_per_second / 1e9, card.flops_per_second / 1e12);
  return {};
}

}  // namespace qwen::qwenrt
