// Element types in device code. bf16 is ours: sixteen bits, widened by a shift, rounded to nearest even as on the CPU.
#ifndef QWEN_RUNTIME_KERNELS_CUDA_TYPES_CUH_
#define QWEN_RUNTIME_KERNELS_CUDA_TYPES_CUH_

#include "runtime/base/dtype.h"
#include "runtime/kernels/cuda/launch.h"

namespace qwen::kernels::cuda {

struct bf16 {
  unsigned short bits;
};

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

/// Two rounded to nearest even, `low` in the low half.
__device__ __forceinline__ unsigned PackBf16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <class T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 FromFloat<bf16>(float x) {
  return {static_cast<unsigned short>(PackBf16(x, 0))};
}

template <DType kType>
struct ElementOf;
template <>
struct ElementOf<DType::kF32> {
  using Type = float;
};
template <>
struct ElementOf<DType::kBF16> {
  using Type = bf16;
};
/// float or bf16.
template <DType kType>
using Element = typename ElementOf<kType>::Type;

/// `x` as `T` would hold it.
template <class T>
__device__ __forceinline__ float Rounded(float x) {
  return ToFloat(FromFloat<T>(x));
}

__device__ __forceinline__ float Sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ __forceinline__ float Silu(float x) { return x / (1 + expf(-x)); }

/// Sum over a warp, in one order, on every lane.
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// Sum over a block of kWarps whole warps, on every thread; `scratch` is kWarps floats of shared memory, free again
/// when the next barrier has passed.
template <int kWarps>
__device__ __forceinline__ float BlockSum(float x, float* scratch) {
  x = WarpSum(x);
  if constexpr (kWarps == 1) return x;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += scratch[w];
  return sum;
}

/// Whether this block is the last of `blocks` to come to the ticket, which it leaves at zero. All that the others' threads
/// wrote before they came is then visible to all of this one's. Every thread of a block must call it.
__device__ __forceinline__ bool LastToArrive(unsigned* ticket, unsigned blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // releases what the barrier gathered
    last = atomicAdd(ticket, 1) == blocks - 1;
    if (last) *ticket = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_CUDA_TYPES_CUH_
