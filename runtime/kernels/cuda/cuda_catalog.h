// The CUDA side of the catalogue: which kernels have a body for NVRTC, what they need, how they are launched.
//
// An entry means the same on every target: the contract, the Spec, the arguments and the work are catalog.h's. What
// differs is the workspace and the shape of a launch, and they are here.
#ifndef QWEN_RUNTIME_KERNELS_CUDA_CUDA_CATALOG_H_
#define QWEN_RUNTIME_KERNELS_CUDA_CUDA_CATALOG_H_

#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/plan.h"

namespace qwen::kernels {

/// Bytes of the rank beside a kernel's arguments.
struct CudaWorkspace {
  int64_t scratch = 0;  // anything on entry
  int64_t shared = 0;   // zero between steps
};

struct CudaKernelInfo {
  std::string_view entry;   // as in catalog.def
  std::string_view header;  // below runtime/kernels: the body
  std::string_view body;    // its function template
  int min_blocks;           // of a multiprocessor, for __launch_bounds__; 0: ptxas decides
  /// What the body cannot do though the contract allows it: kUnimplemented.
  Status (*check)(const void* spec);
  plan::LaunchShape (*shape)(const void* spec);
  CudaWorkspace (*workspace)(const void* spec, const plan::Capacity& capacity);
};

std::span<const CudaKernelInfo> CudaCatalog();
/// nullptr when there is none of that name.
const CudaKernelInfo* FindCudaKernel(std::string_view entry);

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_CUDA_CUDA_CATALOG_H_
