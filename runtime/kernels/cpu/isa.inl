// Every CPU body, in the namespace QWEN_ISA. An ISA file is this and the flags it is built with.
//
// No standard headers here or below: an inline function built for AVX-512 may be the copy the linker keeps for all.
#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/cpu/bodies.h"
#include "runtime/kernels/cpu/scratch.h"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/lm_head/philox.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/router/router.h"

namespace qwen::kernels::QWEN_ISA {
namespace {
// clang-format off: each needs those before it
#include "runtime/kernels/cpu/vec.inl"
#if defined(QWEN_AMX)
#include "runtime/kernels/cpu/amx.inl"
#endif
#include "runtime/kernels/cpu/ceilings.inl"
#include "runtime/kernels/cpu/gemm.inl"

#include "runtime/kernels/all_reduce/all_reduce_cpu.inl"
#include "runtime/kernels/attention/attention_cpu.inl"
#include "runtime/kernels/embed/embed_cpu.inl"
#include "runtime/kernels/experts/experts_cpu.inl"
#include "runtime/kernels/gdn/gdn_cpu.inl"
#include "runtime/kernels/linear/linear_cpu.inl"
#include "runtime/kernels/lm_head/lm_head_cpu.inl"
#include "runtime/kernels/rms_norm/rms_norm_cpu.inl"
#include "runtime/kernels/router/router_cpu.inl"

#include "runtime/kernels/elementwise/elementwise_cpu.inl"  // uses lm_head's candidates
// clang-format on
}  // namespace

const CpuBody kBodies[] = {
#define QWEN_KERNEL(entry, family, part, collective, Spec, Body) Body,
#include "runtime/kernels/catalog.def"
};
const CpuCeilings kCeilings = {ReadCeiling, MultiplyCeiling};

}  // namespace qwen::kernels::QWEN_ISA
