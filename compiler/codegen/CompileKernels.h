//===- CompileKernels.h - PTX for a plan's kernels ------------------------===//

#ifndef QWEN_COMPILER_CODEGEN_COMPILEKERNELS_H
#define QWEN_COMPILER_CODEGEN_COMPILEKERNELS_H

#include "compiler/codegen/Nvrtc.h"
#include "compiler/codegen/PtxCache.h"
#include "runtime/plan/plan.h"

namespace qwen::compiler {

struct KernelOptions {
  std::string cacheDir; // "": none
  std::string dumpDir;  // "": none; else NAME.cu and NAME.ptx of every kernel
  int jobs = 2;         // NVRTC compiles on so many threads; two halve the time, more were not measured
};

struct KernelFigures {
  int compiled = 0, cached = 0;
};

/// Gives every kernel of the plan that says how it is launched its PTX, as a blob. The first failure, in the plan's
/// order, carries NVRTC's log; `failed` is then the kernel's index.
StatusOr<KernelFigures> compileKernels(plan::Plan &plan, const Nvrtc &nvrtc, const KernelOptions &options, size_t *failed);

} // namespace qwen::compiler

#endif
