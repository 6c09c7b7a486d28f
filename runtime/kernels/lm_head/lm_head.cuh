// lm_head: logits of the wanted rows. Bound by the weights' bytes, vocab * hidden * 2 a step.
#ifndef QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_CUH_
#define QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_CUH_

#include "runtime/kernels/cuda/tile16.cuh"
#include "runtime/kernels/lm_head/lm_head.h"

namespace qwen::kernels::cuda {

template <class Spec, int kTiles>
__device__ void LmHeadBlock(const Launch<kLmHeadArgs>& launch, int first, int count, ProductShared& shared,
                            float* scale) {
  using T = Element<Spec::x_type>;
  const T* x = static_cast<const T*>(launch.args[kLmHeadX]);
  const float* weight = static_cast<const float*>(launch.args[kLmHeadNormWeight]);
  float* logits = static_cast<float*>(launch.args[kLmHeadLogits]);
  auto row = [&](int token) {
    const int at = first + token;
    return x + static_cast<long long>(Spec::gather ? launch.batch.logit_rows[at] : at) * Spec::hidden;
  };
  if constexpr (Spec::norm) {
    RowScales<T, Spec::hidden>(count, Spec::eps, row, scale);
    __syncthreads();
  }
  auto columns = [&](int token, int k, float(&v)[8]) {
    if (token >= count) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = 0;
      return;
    }
    LoadColumns<T, Spec::hidden>(row(token), k, v);
    if constexpr (Spec::norm) {
      float w[8];
      LoadColumns<float, Spec::hidden>(weight, k, w);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = Normed<T, Spec::round_first>(v[i], scale[token], w[i]);
    }
  };
  for (int item = blockIdx.x; item * kItemRows < Spec::vocab; item += gridDim.x) {
    Product<Spec::w_type, Spec::hidden, kTiles>(
        Group<Spec::w_type, Spec::hidden>(launch.args[kLmHeadW], 2 * item, Spec::vocab),
        Group<Spec::w_type, Spec::hidden>(launch.args[kLmHeadW], 2 * item + 1, Spec::vocab), columns, shared);
#pragma unroll 1
    for (int i = threadIdx.x; i < kItemRows * count; i += kProductThreads) {
      const int out = i % kItemRows, token = i / kItemRows, id = item * kItemRows + out;
      if (id < Spec::vocab) logits[static_cast<long long>(first + token) * Spec::vocab + id] = shared.sum[token][out];
    }
  }
}

template <class Spec>
__device__ void LmHead(const Launch<kLmHeadArgs>& launch) {
  __shared__ ProductShared shared;
  __shared__ float scale[kBlockTokens];
  const int first = blockIdx.y * kBlockTokens;
  const int count = min(kBlockTokens, launch.batch.counts[kNumLogitRows] - first);
  if (count <= 0) return;
  if (count <= kTokenTile)
    LmHeadBlock<Spec, 1>(launch, first, count, shared, scale);
  else
    LmHeadBlock<Spec, kTokenTiles>(launch, first, count, shared, scale);
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_CUH_
