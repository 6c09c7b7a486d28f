// experts: the picked experts' feed-forward in two launches. Bound by the weights' bytes: an active expert's 3 * inter * hidden * 2
// and the shared expert's, once for sixteen rows.
//
// A block makes the list of the active experts of its sixteen rows for itself, from their ids in L2, and takes items of
// it: sixteen gate rows of one expert and the up rows of the same channels, or sixteen output rows of all experts. A
// token's sum over its experts is one thread's, in ascending order of the experts: no atomics, and the same bits alone and
// in any company.
#ifndef QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_CUH_
#define QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_CUH_

#include "runtime/kernels/cuda/tile16.cuh"
#include "runtime/kernels/experts/experts.h"

namespace qwen::kernels::cuda {

/// The rank's experts that the block's rows picked, ascending.
template <class Spec>
struct ActiveExperts {
  static constexpr int kWords = (Spec::experts + 31) / 32;
  static constexpr int kMost = Spec::experts < kBlockTokens * Spec::top_k ? Spec::experts : kBlockTokens * Spec::top_k;
  unsigned mask[kWords ? kWords : 1];
  int count;
  int experts[kMost ? kMost : 1];
  // Of the expert at hand: its rows of the block, and which pick of the row it was.
  int rows, row[kBlockTokens], pick[kBlockTokens];
};

/// Ends with a barrier.
template <class Spec>
__device__ __forceinline__ void FindActive(const int* ids, int count, ActiveExperts<Spec>& active) {
#pragma unroll 1
  for (int w = threadIdx.x; w < ActiveExperts<Spec>::kWords; w += kProductThreads) active.mask[w] = 0;
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < count * Spec::top_k; i += kProductThreads)
    if (const int e = ids[i] - Spec::first_expert; e >= 0 && e < Spec::experts)
      atomicOr(&active.mask[e / 32], 1u << (e % 32));
  __syncthreads();
  // Where an expert stands in the list: how many come before it.
#pragma unroll 1
  for (int e = threadIdx.x; e < Spec::experts; e += kProductThreads) {
    if (!(active.mask[e / 32] >> (e % 32) & 1)) continue;
    int before = __popc(active.mask[e / 32] & ((1u << (e % 32)) - 1));
#pragma unroll 1
    for (int w = 0; w < e / 32; ++w) before += __popc(active.mask[w]);
    active.experts[before] = e;
  }
  if (threadIdx.x == 0) {
    active.count = 0;
#pragma unroll 1
    for (int w = 0; w < ActiveExperts<Spec>::kWords; ++w) active.count += __popc(active.mask[w]);
  }
  __syncthreads();
}

/// The rows of the block that picked `expert`, in order. Ends with a barrier.
template <class Spec>
__device__ __forceinline__ void FindRows(const int* ids, int count, int expert, ActiveExperts<Spec>& active) {
  __syncthreads();  // whoever still reads the last expert's
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    int pick = -1;
    if (lane < count)
#pragma unroll 1
      for (int k = 0; k < Spec::top_k; ++k)
        if (ids[lane * Spec::top_k + k] - Spec::first_expert == expert) pick = k;
    const unsigned found = __ballot_sync(0xffffffffu, pick >= 0);
    if (pick >= 0) {
      const int at = __popc(found & ((1u << lane) - 1));
      active.row[at] = lane;
      active.pick[at] = pick;
    }
    if (lane == 0) active.rows = __popc(found);
  }
  __syncthreads();
}

template <class Spec>
inline constexpr long long kExpertsTempRow =
    ExpertsTempRow(Spec::top_k, Spec::inter, Spec::shared, Spec::shared_inter);

/// Sixteen channels from channel 16 `tile` on: silu(gate) * up of `count` rows, handed to store(row, channel, value). The
/// up rows start at row `up_first` of `up`, which need not be the first of a group.
template <class Spec, class X, class Store>
__device__ __forceinline__ void GateUpItem(const unsigned char* gate, const unsigned char* up, int up_first, int up_rows,
                                           int inter, int tile, int count, const X& x, ProductShared& shared,
                                           const Store& store) {
  const int from = up_first + tile * kTileRows, shift = from % kTileRows;
  const unsigned char* gates = Group<Spec::w_type, Spec::hidden>(gate, tile, inter);
  Product<Spec::w_type, Spec::hidden, kTokenTiles>(
      gates, Group<Spec::w_type, Spec::hidden>(up, from / kTileRows, up_rows), x, shared);
  // One thread a row and channel: sixteen rows of sixteen channels are the block's threads.
  const int channel = threadIdx.x % kTileRows, row = threadIdx.x / kTileRows;
  const float g = shared.sum[row][channel];
  float u = channel + shift < kTileRows ? shared.sum[row][kTileRows + channel + shift] : 0;
  if (shift != 0) {
    // The rest of the up rows are the next group's; gates are computed again, which tests alone pay for.
    __syncthreads();
    Product<Spec::w_type, Spec::hidden, kTokenTiles>(
        nullptr, Group<Spec::w_type, Spec::hidden>(up, from / kTileRows + 1, up_rows), x, shared);
    if (channel + shift >= kTileRows) u = shared.sum[row][kTileRows + channel + shift - kTileRows];
  }
  if (row < count && tile * kTileRows + channel < inter) store(row, tile * kTileRows + channel, Silu(g) * u);
  __syncthreads();
}

/// grid: items; rows by sixteen.
template <class Spec>
__device__ void ExpertsGateUp(const Launch<kExpertsArgs>& launch) {
  static_assert(kTileRows * kBlockTokens == kProductThreads);
  using T = Element<Spec::x_type>;
  __shared__ ProductShared shared;
  __shared__ ActiveExperts<Spec> active;
  const int first = blockIdx.y * kBlockTokens, count = min(kBlockTokens, *launch.rows - first);
  if (count <= 0) return;
  const int* ids = static_cast<const int*>(launch.args[kExpertsIds]) + first * Spec::top_k;
  const T* x = static_cast<const T*>(launch.args[kExpertsX]) + static_cast<long long>(first) * Spec::hidden;
  constexpr long long kTempRow = kExpertsTempRow<Spec>;
  float* temp = static_cast<float*>(launch.args[kExpertsTemp]) + first * kTempRow;
  constexpr int kItems = (Spec::inter + kTileRows - 1) / kTileRows;
  constexpr int kSharedItems = Spec::shared ? (Spec::shared_inter + kTileRows - 1) / kTileRows : 0;
  FindActive(ids, count, active);

  auto columns = [&](int row, int k, float(&v)[8]) {
    if (row < count) {
      LoadColumns<T, Spec::hidden>(x + static_cast<long long>(row) * Spec::hidden, k, v);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = 0;
    }
  };
  const int total = active.count * kItems + kSharedItems + (Spec::shared ? 1 : 0);
  for (int item = blockIdx.x; item < total; item += gridDim.x) {
    if (item < active.count * kItems) {
      const int expert = active.experts[item / kItems];
      FindRows(ids, count, expert, active);
      const unsigned char* weight =
          static_cast<const unsigned char*>(launch.args[kExpertsGateUp]) +
          expert * Tile16Bytes(Spec::w_type, 2 * Spec::inter, Spec::hidden);
      GateUpItem<Spec>(
          weight, weight, Spec::inter, 2 * Spec::inter, Spec::inter, item % kItems, active.rows,
          [&](int i, int k, float(&v)[8]) { columns(i < active.rows ? active.row[i] : kBlockTokens, k, v); },
          shared, [&](int i, int channel, float y) {
            temp[active.row[i] * kTempRow + active.pick[i] * Spec::inter + channel] = y;
          });
    } else if (item < active.count * kItems + kSharedItems) {
      GateUpItem<Spec>(
          static_cast<const unsigned char*>(launch.args[kExpertsSharedGate]),
          static_cast<const unsigned char*>(launch.args[kExpertsSharedUp]), 0, Spec::shared_inter, Spec::shared_inter,
          item - active.count * kItems, count, [&](int i, int k, float(&v)[8]) { columns(i, k, v); }, shared,
          [&](int i, int channel, float y) { temp[i * kTempRow + Spec::top_k * Spec::inter + channel] = y; });
    } else {
      Product<Spec::w_type, Spec::hidden, kTokenTiles>(
          static_cast<const unsigned char*>(launch.args[kExpertsScalarGate]), nullptr,
          [&](int i, int k, float(&v)[8]) { columns(i, k, v); }, shared);
      if (threadIdx.x < count)
        temp[threadIdx.x * kTempRow + Spec::top_k * Spec::inter + Spec::shared_inter] =
            Sigmoid(shared.sum[threadIdx.x][0]);
      __syncthreads();
    }
  }
}

/// grid: groups of sixteen output rows; rows by sixteen.
template <class Spec>
__device__ void ExpertsDown(const Launch<kExpertsArgs>& launch) {
  using Y = Element<Spec::y_type>;
  __shared__ ProductShared shared;
  __shared__ ActiveExperts<Spec> active;
  const int first = blockIdx.y * kBlockTokens, count = min(kBlockTokens, *launch.rows - first);
  if (count <= 0) return;
  const int* ids = static_cast<const int*>(launch.args[kExpertsIds]) + first * Spec::top_k;
  const float* weights = static_cast<const float*>(launch.args[kExpertsWeights]) + first * Spec::top_k;
  constexpr long long kTempRow = kExpertsTempRow<Spec>;
  const float* temp = static_cast<const float*>(launch.args[kExpertsTemp]) + first * kTempRow;
  FindActive(ids, count, active);
  const int out = threadIdx.x % kTileRows, token = threadIdx.x / kTileRows;

  for (int item = blockIdx.x; item * kTileRows < Spec::hidden; item += gridDim.x) {
    float sum = 0;
    for (int a = 0; a < active.count; ++a) {
      FindRows(ids, count, active.experts[a], active);
      Product<Spec::w_type, Spec::inter, kTokenTiles>(
          Group<Spec::w_type, Spec::inter>(static_cast<const unsigned char*>(launch.args[kExpertsDown]) +
                                               active.experts[a] * Tile16Bytes(Spec::w_type, Spec::hidden, Spec::inter),
                                           item, Spec::hidden),
          nullptr,
          [&](int i, int k, float(&v)[8]) {
            if (i < active.rows) {
              LoadColumns<float, Spec::inter>(temp + active.row[i] * kTempRow + active.pick[i] * Spec::inter, k, v);
            } else {
#pragma unroll
              for (int j = 0; j < 8; ++j) v[j] = 0;
            }
          },
          shared);
      // Which of the expert's rows is this thread's token?
#pragma unroll 1
      for (int i = 0; i < active.rows; ++i)
        if (active.row[i] == token)
          sum = fmaf(weights[token * Spec::top_k + active.pick[i]], shared.sum[i][out], sum);
    }
    if constexpr (Spec::shared) {
      Product<Spec::w_type, Spec::shared_inter, kTokenTiles>(
          Group<Spec::w_type, Spec::shared_inter>(launch.args[kExpertsSharedDown], item, Spec::hidden), nullptr,
          [&](int i, int k, float(&v)[8]) {
            if (i < count) {
              LoadColumns<float, Spec::shared_inter, Spec::top_k * Spec::inter % 4 == 0>(temp + i * kTempRow + Spec::top_k * Spec::inter, k, v);
            } else {
#pragma unroll
              for (int j = 0; j < 8; ++j) v[j] = 0;
            }
          },
          shared);
      if (token < count)
        sum = fmaf(temp[token * kTempRow + Spec::top_k * Spec::inter + Spec::shared_inter], shared.sum[token][out], sum);
    }
    if (const int channel = item * kTileRows + out; token < count && channel < Spec::hidden) {
      const long long at = static_cast<long long>(first + token) * Spec::hidden + channel;
      if constexpr (Spec::residual) sum += ToFloat(static_cast<const Y*>(launch.args[kExpertsResidual])[at]);
      static_cast<Y*>(launch.args[kExpertsY])[at] = FromFloat<Y>(sum);
    }
    __syncthreads();
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_CUH_
