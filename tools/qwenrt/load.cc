#include "tools/qwenrt/load.h"

#include <signal.h>
#include <unistd.h>

#include "fmt/format.h"
#include "runtime/base/log.h"
#include "runtime/exec/executor.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/catalog.h"
#include "tools/qwenrt/args.h"

namespace qwen::qwenrt {
namespace {

std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void OnInterrupt(int) {
  if (stop_requested.exchange(true)) _exit(130);
}

StatusOr<std::optional<kernels::Isa>> ChooseIsa(const Flags& flags) {
  if (!flags.HasValue("isa")) return std::optional<kernels::Isa>();
  for (kernels::Isa isa : {kernels::Isa::kBase, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
    if (kernels::IsaName(isa) != flags.Choice("isa")) continue;
    if (kernels::IsaSupported(isa)) return std::optional(isa);
    return UnimplementedError(fmt::format("--isa: {}: this machine cannot run it", flags.Choice("isa")),
                              fmt::format("the best it can is {}", kernels::IsaName(kernels::DetectIsa())));
  }
  return InternalError(fmt::format("--isa: {} is no instruction set", flags.Choice("isa")));
}

}  // namespace

StatusOr<std::unique_ptr<engine::Engine>> LoadEngine(const plan::Plan& plan, const Flags& flags, int num_pages,
                                                     int num_slots) {
  exec::ExecutorOptions options;
  options.num_pages = num_pages;
  options.num_slots = num_slots;
  if (flags.HasValue("threads")) options.threads = static_cast<int>(flags.Int("threads"));
  QWEN_ASSIGN_OR_RETURN(options.isa, ChooseIsa(flags));
  QWEN_ASSIGN_OR_RETURN(WeightSource source,
                        ParseWeights(flags.Text("weights"), flags.Argument(0), plan.model.weights_dir));
  auto load = [&]() -> StatusOr<exec::Weights> {
    if (source.seed) return exec::RandomWeights(plan, *source.seed);
    ProgressBar bar("weights");
    return exec::LoadWeights(plan, source.dir, [&](int64_t done, int64_t total) { bar.Update(done, total); });
  };
  QWEN_ASSIGN_OR_RETURN(exec::Weights weights, load());
  for (const std::string& warning : weights.warnings) PrintWarning("qwenrt", warning);
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<exec::Executor> executor,
                        exec::Executor::Create(plan, std::move(weights), options));
  return std::make_unique<engine::Engine>(plan, std::move(executor), num_pages, num_slots);
}

GracefulStop::GracefulStop() {
  struct sigaction action{};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, nullptr);
}

GracefulStop::~GracefulStop() {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  sigaction(SIGINT, &action, nullptr);
}

const std::atomic<bool>* GracefulStop::flag() const { return &stop_requested; }

}  // namespace qwen::qwenrt
