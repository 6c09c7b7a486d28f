// The AMX bodies for a machine without AMX: every line of them but the tile instructions themselves.
#include "runtime/kernels/kernel.h"

namespace qwen::kernels::amx_emulated {
extern const CpuBody kBodies[];
extern const CpuCeilings kCeilings;
}  // namespace qwen::kernels::amx_emulated

#define QWEN_ISA amx_emulated
#define QWEN_AMX
#define QWEN_AMX_EMULATED
#include "runtime/kernels/cpu/isa.inl"
