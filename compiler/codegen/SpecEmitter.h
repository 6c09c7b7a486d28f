//===- SpecEmitter.h - a kernel record as CUDA C++ ------------------------===//
//
// The bodies are files of runtime/kernels, built into the program as text; what is written for a kernel is an include, a
// Spec and a name. No MLIR here: the conformance tables compile kernels through the same door.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_CODEGEN_SPECEMITTER_H
#define QWEN_COMPILER_CODEGEN_SPECEMITTER_H

#include "runtime/kernels/cuda/cuda_catalog.h"
#include "runtime/plan/plan.h"

#include <string>
#include <vector>

namespace qwen::compiler {

/// The source of `kernel`, whose entry point has the record's name. Every field of the Spec is a constant of
/// `struct Spec`: an int, a float, or a function of an index for a list (`n(i)` folds where i is known, `n_at(i)` reads
/// constant memory); `kThreads` is the block's size. Fields named `*type*` are DType.
std::string emitCudaSource(const plan::Kernel &kernel, const kernels::CudaKernelInfo &info,
                           const plan::LaunchShape &shape, int numArgs);

/// A file that sources include, by the name they include it by.
struct DeviceHeader {
  const char *name, *text;
};
/// All of them, sorted by name.
const std::vector<DeviceHeader> &deviceHeaders();

} // namespace qwen::compiler

#endif
