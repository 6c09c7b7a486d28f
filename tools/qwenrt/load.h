// From a plan and the user's flags to an engine that is ready to run.
#ifndef QWEN_TOOLS_QWENRT_LOAD_H_
#define QWEN_TOOLS_QWENRT_LOAD_H_

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "runtime/base/flags.h"
#include "runtime/base/signals.h"
#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/exec/executor.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/plan.h"

namespace qwen::qwenrt {

/// Keeps the process to the cores of --cpu-mask, when given: before it makes threads.
Status ApplyCpuMask(const Flags& flags);

/// What --isa names; none when absent. kUnimplemented when this machine cannot run it.
StatusOr<std::optional<kernels::Isa>> ChooseIsa(const Flags& flags);

/// What --device names, or CUDA where the plan has programs for sm_89 and the machine a card that runs them and holds
/// the plan, else the CPU. What is missing is an error when CUDA was asked for, and otherwise a warning, once.
StatusOr<exec::DeviceKind> ChooseDevice(const plan::Plan& plan, const Flags& flags);

/// Runs `work` with a callback that shows its bytes as one phase of --progress.
Status WithProgress(const Flags& flags, std::string_view phase,
                    const std::function<Status(const exec::LoadOptions&)>& work);

/// Whether what --weights names, a checkpoint's folder or a pack file, is what the plan wants; of a pack every byte.
Status CheckWeights(const plan::Plan& plan, const Flags& flags);

struct PoolSizes {
  int pages = 0, slots = 0;
};
/// Room for one sequence of `tokens`, or what --max-num-seqs and --max-model-len ask for. kInvalidArgument when that is
/// less, or more than the plan takes.
StatusOr<PoolSizes> PoolsFor(const plan::Plan& plan, const Flags& flags, int64_t tokens);

/// Loads the weights that --weights names and makes an engine with these pools. `plan` outlives it. `loading` hears the
/// share of the weights that is in.
StatusOr<std::unique_ptr<engine::Engine>> LoadEngine(const plan::Plan& plan, const Flags& flags, int num_pages,
                                                     int num_slots, std::function<void(double)> loading = {});

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_LOAD_H_
