// all_reduce, all_gather: every rank reads all ranks' rows, which lie where this device reaches them, and adds them in rank
// order, so all hold the same bits. A block owns a row. Bound by the peers' bytes over the bus: ranks * channels * 4 a row.
#ifndef QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_CUH_
#define QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_CUH_

#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/cuda/types.cuh"

namespace qwen::kernels::cuda {

template <class Spec>
__device__ void AllReduce(const Launch<kReduceArgs>& launch) {
  using Y = Element<Spec::y_type>;
  constexpr int kWarps = Spec::kThreads / 32, kPerThread = (Spec::channels + Spec::kThreads - 1) / Spec::kThreads;
  __shared__ float sums[kWarps];
  if (blockIdx.x >= *launch.rows) return;
  const long long first = static_cast<long long>(blockIdx.x) * Spec::channels;
  float row[kPerThread], squares = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int c = threadIdx.x + i * Spec::kThreads;
    row[i] = 0;
    if (c >= Spec::channels) continue;
    float sum = static_cast<const float*>(launch.peers[0])[first + c];
#pragma unroll 1
    for (int r = 1; r < launch.ranks; ++r) sum += static_cast<const float*>(launch.peers[r])[first + c];
    sum = Rounded<Y>(sum);
    if constexpr (Spec::residual)
      sum = Rounded<Y>(sum + ToFloat(static_cast<const Y*>(launch.args[kReduceResidual])[first + c]));
    if (launch.args[kReduceSum]) static_cast<Y*>(launch.args[kReduceSum])[first + c] = FromFloat<Y>(sum);
    row[i] = sum;
    squares = fmaf(sum, sum, squares);
  }
  if constexpr (Spec::norm) {
    const float scale = 1 / sqrtf(BlockSum<kWarps>(squares, sums) / Spec::channels + Spec::eps);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int c = threadIdx.x + i * Spec::kThreads;
      if (c >= Spec::channels) continue;
      float v = row[i] * scale;
      if constexpr (Spec::round_first) v = Rounded<Y>(v);
      static_cast<Y*>(launch.args[kReduceY])[first + c] =
          FromFloat<Y>(v * static_cast<const float*>(launch.args[kReduceNormWeight])[c]);
    }
  }
}

template <class Spec>
__device__ void AllGather(const Launch<kGatherArgs>& launch) {
  const long long n = blockIdx.x;
  if (n >= launch.batch.counts[kNumLogitRows]) return;
  long long channels = 0;
  for (int r = 0; r < Spec::ranks; ++r) channels += Spec::counts_at(r);
  float* to = static_cast<float*>(launch.args[kGatherY]) + n * channels;
  for (int r = 0; r < Spec::ranks; to += Spec::counts_at(r), ++r)
#pragma unroll 1
    for (int c = threadIdx.x; c < Spec::counts_at(r); c += Spec::kThreads)
      to[c] = static_cast<const float*>(launch.peers[r])[n * Spec::counts_at(r) + c];
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_CUH_
