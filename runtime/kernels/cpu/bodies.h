// The tables of bodies, one an ISA, in the order of catalog.def.
#ifndef QWEN_RUNTIME_KERNELS_CPU_BODIES_H_
#define QWEN_RUNTIME_KERNELS_CPU_BODIES_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {
namespace base {
extern const CpuBody kBodies[];
}
namespace avx2 {
extern const CpuBody kBodies[];
}
namespace avx512 {
extern const CpuBody kBodies[];
}
}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_CPU_BODIES_H_
