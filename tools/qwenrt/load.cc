#include "tools/qwenrt/load.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/base/log.h"
#include "runtime/base/progress.h"
#include "runtime/base/thread_pool.h"
#include "runtime/exec/executor.h"
#include "runtime/exec/pack.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/memory.h"
#include "runtime/plan/weight_map.h"
#include "tools/qwenrt/args.h"

namespace qwen::qwenrt {

StatusOr<std::optional<kernels::Isa>> ChooseIsa(const Flags& flags) {
  if (!flags.HasValue("isa")) return std::optional<kernels::Isa>();
  for (kernels::Isa isa : kernels::kAllIsas) {
    if (kernels::IsaName(isa) != flags.Choice("isa")) continue;
    if (kernels::IsaSupported(isa)) return std::optional(isa);
    return UnimplementedError(fmt::format("--isa: {}: this machine cannot run it", flags.Choice("isa")),
                              fmt::format("the best it can is {}", kernels::IsaName(kernels::DetectIsa())));
  }
  return InternalError(fmt::format("--isa: {} is no instruction set", flags.Choice("isa")));
}

namespace {

// Whether the machine's card runs the plan with the smallest pools that the command can do with. What was asked for
// beyond them is an error where it does not fit, not a reason for another device: their sizes come after the choice.
Status CheckCard(const plan::Plan& plan, const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(const std::vector<exec::Card> cards, exec::CudaCards());
  if (plan.tp > 1)
    return UnimplementedError(fmt::format("the plan is for {} ranks, this build runs one on CUDA cards", plan.tp),
                              "compile with --tp 1, or use --device cpu");
  plan::MemoryOptions least{.memory_bytes = cards.front().memory_bytes, .num_slots = 1, .num_pages = 1};
  if (flags.command() == "serve") {
    least.num_slots = flags.HasValue("max-num-seqs") ? flags.Int("max-num-seqs") : plan.capacity.max_num_seqs;
    least.memory_bytes =
        static_cast<int64_t>(static_cast<double>(least.memory_bytes) * flags.Real("gpu-memory-utilization"));
  }
  return plan::CheckFit(plan, std::string(exec::TargetOf(exec::DeviceKind::kCuda)), least);
}

}  // namespace

StatusOr<exec::DeviceKind> ChooseDevice(const plan::Plan& plan, const Flags& flags) {
  const bool asked = flags.HasValue("device");
  if (asked && flags.Choice("device") == "cpu") return exec::DeviceKind::kCpu;
  const std::string_view target = exec::TargetOf(exec::DeviceKind::kCuda);
  const bool has = std::ranges::find(plan.targets, target) != plan.targets.end();
  if (!asked && !has) return exec::DeviceKind::kCpu;
  if (!has)
    return UnimplementedError(
        fmt::format("--device=cuda: the plan has no program for {}, only for {}", target, fmt::join(plan.targets, ", ")),
        fmt::format("compile with --target=cpu,{}", target));
  Status card = CheckCard(plan, flags);
  if (card.ok()) return exec::DeviceKind::kCuda;
  if (asked) return std::move(card).Annotate("--device=cuda");
  // Commands that size their pools by the device ask more than once.
  static bool said = false;
  if (!std::exchange(said, true)) PrintWarning("qwenrt", fmt::format("runs on the CPU: {}", card.message()));
  return exec::DeviceKind::kCpu;
}

Status ApplyCpuMask(const Flags& flags) {
  if (!flags.HasValue("cpu-mask")) return {};
  StatusOr<std::vector<int>> cores = ParseCores(flags.Text("cpu-mask"));
  if (!cores.ok()) return cores.status().Annotate("--cpu-mask");
  return UseCores(*cores).Annotate("--cpu-mask");
}

Status WithProgress(const Flags& flags, std::string_view phase,
                    const std::function<Status(const exec::LoadOptions&)>& work) {
  std::unique_ptr<Progress> progress = Progress::Make(ProgressKindOf(flags.Choice("progress")), stderr);
  exec::LoadOptions options;
  bool begun = false;
  options.progress = [&](int64_t done, int64_t total) {
    if (!std::exchange(begun, true)) progress->Phase(phase, total, "bytes");
    progress->Update(done);
  };
  QWEN_RETURN_IF_ERROR(work(options));
  progress->Finish();
  return {};
}

Status CheckWeights(const plan::Plan& plan, const Flags& flags) {
  const std::string& path = flags.Text("weights");
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error))
    return WithProgress(flags, "checksums",
                        [&](const exec::LoadOptions& options) { return exec::VerifyPack(plan, path, options); });
  QWEN_ASSIGN_OR_RETURN(const plan::Checkpoint checkpoint, plan::OpenCheckpoint(path));
  return plan::ResolveWeights(plan, checkpoint).status();
}

StatusOr<PoolSizes> PoolsFor(const plan::Plan& plan, const Flags& flags, int64_t tokens) {
  plan::MemoryOptions asked{.max_num_seqs = static_cast<int32_t>(flags.Int("max-num-seqs")), .max_model_len = tokens};
  if (flags.HasValue("max-model-len")) asked.max_model_len = flags.Int("max-model-len");
  if (asked.max_model_len < tokens)
    return InvalidArgumentError(
        fmt::format("--max-model-len: is {}, the prompt and --max-tokens take {}", asked.max_model_len, tokens));
  QWEN_RETURN_IF_ERROR(plan::CheckCapacity(plan, asked));
  const int64_t pages = int64_t{asked.max_num_seqs} * engine::PagesFor(asked.max_model_len);
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  if (pages > kMost)
    return InvalidArgumentError(fmt::format("{} sequences of {} tokens take {} pages, the limit is {}",
                                            asked.max_num_seqs, asked.max_model_len, pages, kMost));
  return PoolSizes{.pages = static_cast<int>(pages), .slots = asked.max_num_seqs};
}

StatusOr<std::unique_ptr<engine::Engine>> LoadEngine(const plan::Plan& plan, const Flags& flags, int num_pages,
                                                     int num_slots, std::function<void(double)> loading) {
  QWEN_RETURN_IF_ERROR(ApplyCpuMask(flags));
  exec::ExecutorOptions options;
  options.num_pages = num_pages;
  options.num_slots = num_slots;
  options.preallocate = flags.Bool("preallocate");
  if (flags.HasValue("threads")) options.threads = static_cast<int>(flags.Int("threads"));
  QWEN_ASSIGN_OR_RETURN(options.isa, ChooseIsa(flags));
  QWEN_ASSIGN_OR_RETURN(options.device, ChooseDevice(plan, flags));
  QWEN_ASSIGN_OR_RETURN(const WeightSource source,
                        ParseWeights(flags.Text("weights"), flags.Argument(0), plan.model.weights_dir));
  QWEN_RETURN_IF_ERROR(exec::CheckMemory(plan, options));
  exec::Weights weights;
  std::error_code error;
  if (!source.seed && std::filesystem::is_regular_file(source.dir, error)) {
    QWEN_ASSIGN_OR_RETURN(const WeightSource beside, ParseWeights("", flags.Argument(0), plan.model.weights_dir));
    QWEN_ASSIGN_OR_RETURN(
        weights, exec::MapPack(plan, source.dir, {.checkpoint_dir = beside.dir, .preallocate = options.preallocate}));
  } else {
    QWEN_RETURN_IF_ERROR(WithProgress(flags, "weights", [&](exec::LoadOptions load) -> Status {
      if (loading)
        load.progress = [show = std::move(load.progress), &loading](int64_t done, int64_t total) {
          show(done, total);
          if (total > 0) loading(static_cast<double>(done) / static_cast<double>(total));
        };
      QWEN_ASSIGN_OR_RETURN(weights, source.seed ? exec::RandomWeights(plan, *source.seed, load)
                                                 : exec::LoadWeights(plan, source.dir, load));
      return {};
    }));
  }
  for (const std::string& warning : weights.warnings) PrintWarning("qwenrt", warning);
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<exec::Executor> executor,
                        exec::Executor::Create(plan, std::move(weights), options));
  return std::make_unique<engine::Engine>(plan, std::move(executor), num_pages, num_slots);
}

}  // namespace qwen::qwenrt
