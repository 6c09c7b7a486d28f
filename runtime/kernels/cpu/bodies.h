// The tables of bodies, one an ISA, in the order of catalog.def, and its ceilings.
#ifndef QWEN_RUNTIME_KERNELS_CPU_BODIES_H_
#define QWEN_RUNTIME_KERNELS_CPU_BODIES_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {
namespace base {
extern const CpuBody kBodies[];
extern const CpuCeilings kCeilings;
}
namespace avx2 {
extern const CpuBody kBodies[];
extern const CpuCeilings kCeilings;
}
namespace avx512 {
extern const CpuBody kBodies[];
extern const CpuCeilings kCeilings;
}
namespace amx {
extern const CpuBody kBodies[];
extern const CpuCeilings kCeilings;
}
}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_CPU_BODIES_H_
