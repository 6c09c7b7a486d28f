// The CUDA driver, opened at run time: qwenrt starts, and says why, on a machine that has none.
#ifndef QWEN_RUNTIME_DEVICE_CUDA_DRIVER_H_
#define QWEN_RUNTIME_DEVICE_CUDA_DRIVER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::device {

using CudaResult = int;  // CUresult
using CudaAddress = uint64_t;
using CudaContext = struct CudaContextTag*;
using CudaModule = struct CudaModuleTag*;
using CudaFunction = struct CudaFunctionTag*;
using CudaStream = struct CudaStreamTag*;
using CudaEvent = struct CudaEventTag*;
using CudaGraph = struct CudaGraphTag*;
using CudaGraphExec = struct CudaGraphExecTag*;

struct CudaDriver {
#define QWEN_CUDA_SYMBOL(name, parameters) CudaResult(*name) parameters = nullptr;
#include "runtime/device/cuda_symbols.def"

  /// Opened and initialised once a process: QWENRT_CUDA_DRIVER, else libcuda.so.1. kUnimplemented when there is none, no
  /// card, or one too old for the PTX that qwenc makes.
  static StatusOr<const CudaDriver*> Open();

  /// OK, or kInternal: "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)".
  Status Check(CudaResult result, const char* call) const;
};

struct CudaCard {
  int ordinal = 0;
  std::string name;
  int64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  // At best, from its clocks: of DRAM, and of dense bf16 products with f32 sums. What a data sheet says.
  double bytes_per_second = 0, flops_per_second = 0;
};
/// The cards that can run sm_89 plans: compute capability 8.9 or more.
StatusOr<std::vector<CudaCard>> CudaCards();

}  // namespace qwen::device

#endif  // QWEN_RUNTIME_DEVICE_CUDA_DRIVER_H_
