//===- KernelRunner.h - one launch of one kernel, on a processor or a card ===//

#ifndef QWEN_COMPILER_VERIFY_KERNELRUNNER_H
#define QWEN_COMPILER_VERIFY_KERNELRUNNER_H

#include "runtime/base/status.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/plan.h"

#include <memory>
#include <string>
#include <vector>

namespace qwen::compiler {

/// An argument as the host keeps it; absent without data.
struct Argument {
  uint8_t *data = nullptr;
  int64_t bytes = 0;
  bool written = false;
};

struct KernelCall {
  std::string name; // of the plan's record
  const kernels::KernelInfo *info = nullptr;
  const void *spec = nullptr;
  plan::Part part = plan::Part::kAll; // of the step
  const kernels::BatchView *batch = nullptr;
  const kernels::StateView *state = nullptr;
  std::vector<Argument> args;
  std::vector<Argument> peers; // argument 0 of every rank
  int rank = 0;
};

class KernelRunner {
public:
  virtual ~KernelRunner() = default;
  /// What the kernel writes lies in `call.args` afterwards.
  virtual Status run(const KernelCall &call) = 0;
};

/// Two threads, on the code path `isa`.
std::unique_ptr<KernelRunner> makeCpuRunner(kernels::Isa isa);
/// The first card, with the PTX of the plan's records; `plan` outlives it. kUnimplemented without a driver or a card.
StatusOr<std::unique_ptr<KernelRunner>> makeCudaRunner(const plan::Plan &plan);

} // namespace qwen::compiler

#endif
