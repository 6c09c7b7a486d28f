// router: logits of all experts, and the block that comes last picks. Bound by the weights' bytes, experts * hidden * 2: a
// mebibyte for 256 experts of 2048 channels, over sixteen blocks.
#ifndef QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_CUH_
#define QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_CUH_

#include "runtime/kernels/cuda/tile16.cuh"
#include "runtime/kernels/router/router.h"

namespace qwen::kernels::cuda {

/// Softmax over a row's logits and its top_k, a warp a row; ties go to the lowest id. A lane has every 32nd expert.
template <class Spec>
__device__ void PickExperts(const float* logits, float* weights, int* ids) {
  constexpr int kPerLane = (Spec::experts + 31) / 32;
  const int lane = threadIdx.x % 32;
  float p[kPerLane], highest = __builtin_bit_cast(float, 0xff800000u), sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    p[i] = e < Spec::experts ? logits[e] : __builtin_bit_cast(float, 0xff800000u);
    highest = p[i] > highest ? p[i] : highest;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, highest, step);
    highest = other > highest ? other : highest;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const bool there = lane + 32 * i < Spec::experts;
    p[i] = there ? expf(p[i] - highest) : 0;
    sum += p[i];
    if (!there) p[i] = -1;
  }
  sum = WarpSum(sum);
  float picked = 0;
  for (int k = 0; k < Spec::top_k; ++k) {
    // -1 marks a taken expert. A row of NaN still gives ids in range, all different.
    float best = -1;
    int id = -1;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (p[i] != -1.0f && (id < 0 || p[i] > best)) best = p[i], id = lane + 32 * i;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float value = __shfl_xor_sync(0xffffffffu, best, step);
      const int other = __shfl_xor_sync(0xffffffffu, id, step);
      if (other >= 0 && (id < 0 || value > best || (!(best > value) && other < id))) best = value, id = other;
    }
    if (lane == 0) ids[k] = id, weights[k] = best / sum;
    picked += best / sum;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i == id) p[i] = -1;
  }
  if constexpr (Spec::renormalize) {
    __syncwarp();
    for (int k = lane; k < Spec::top_k; k += 32) weights[k] = weights[k] / picked;
  }
}

template <class Spec, int kTiles>
__device__ void RouterBlock(const Launch<kRouterArgs>& launch, int first, int count, ProductShared& shared,
                            float* scale) {
  using T = Element<Spec::x_type>;
  const T* x = static_cast<const T*>(launch.args[kRouterX]) + static_cast<long long>(first) * Spec::hidden;
  const float* weight = static_cast<const float*>(launch.args[kRouterNormWeight]);
  float* logits = static_cast<float*>(launch.args[kRouterTemp]);
  auto row = [&](int token) { return x + static_cast<long long>(token) * Spec::hidden; };
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
  if (Spec::norm && launch.args[kRouterH] && blockIdx.x == 0) {
    T* h = static_cast<T*>(launch.args[kRouterH]) + static_cast<long long>(first) * Spec::hidden;
#pragma unroll 1
    for (int i = threadIdx.x; i < count * Spec::hidden; i += kProductThreads) {
      const int token = i / Spec::hidden, c = i % Spec::hidden;
      h[i] = FromFloat<T>(Normed<T, Spec::round_first>(ToFloat(x[i]), scale[token], weight[c]));
    }
  }
  // Sixteen experts an item: few weights, so many blocks count for more than whole tiles.
  for (int item = blockIdx.x; item * kTileRows < Spec::experts; item += gridDim.x) {
    Product<Spec::w_type, Spec::hidden, kTiles>(
        Group<Spec::w_type, Spec::hidden>(launch.args[kRouterW], item, Spec::experts), nullptr, columns, shared);
#pragma unroll 1
    for (int i = threadIdx.x; i < kTileRows * count; i += kProductThreads) {
      const int out = i % kTileRows, token = i / kTileRows, e = item * kTileRows + out;
      if (e < Spec::experts) logits[static_cast<long long>(first + token) * Spec::experts + e] = shared.sum[token][out];
    }
  }
}

/// grid: items; rows by sixteen, each with a ticket.
template <class Spec>
__device__ void Router(const Launch<kRouterArgs>& launch) {
  __shared__ ProductShared shared;
  __shared__ float scale[kBlockTokens];
  const int first = blockIdx.y * kBlockTokens, count = min(kBlockTokens, *launch.rows - first);
  if (count <= 0) return;
  if (count <= kTokenTile)
    RouterBlock<Spec, 1>(launch, first, count, shared, scale);
  else
    RouterBlock<Spec, kTokenTiles>(launch, first, count, shared, scale);

  if (!LastToArrive(reinterpret_cast<unsigned*>(launch.shared) + blockIdx.y, gridDim.x)) return;
#pragma unroll 1
  for (int token = threadIdx.x / 32; token < count; token += kProductWarps) {
    const long long at = first + token;
    PickExperts<Spec>(static_cast<const float*>(launch.args[kRouterTemp]) + at * Spec::experts,
                      static_cast<float*>(launch.args[kRouterWeights]) + at * Spec::top_k,
                      static_cast<int*>(launch.args[kRouterIds]) + at * Spec::top_k);
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_CUH_
