// linear: norm, products and epilogue in one kernel. Bound by the weights' bytes, sum n_i * k * 2; the rows and their norms are
// made anew by every block, from L2, which costs less than another launch.
#ifndef QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_CUH_
#define QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_CUH_

#include "runtime/kernels/cuda/tile16.cuh"
#include "runtime/kernels/linear/linear.h"

namespace qwen::kernels::cuda {

/// What stands in front of the products, for the block's rows.
template <class Spec, int kArgs>
struct LinearRows {
  using T = Element<Spec::x_type>;
  // A gate's columns take the registers of a tile on its way.
  static constexpr int kRing = Spec::prologue == kPrologueGatedRmsNorm ? 1 : 2;
  static constexpr int kHeads = Spec::prologue == kPrologueGatedRmsNorm ? Spec::k / Spec::head_dim : 1;

  struct Shared {
    float scale[kBlockTokens][kHeads ? kHeads : 1];
  };

  __device__ LinearRows(const Launch<kArgs>& launch, int first, int count, Shared& shared)
      : x(static_cast<const T*>(launch.args[kLinearX]) + static_cast<long long>(first) * Spec::k),
        gate(static_cast<const T*>(launch.args[kLinearGate]) + static_cast<long long>(first) * Spec::k),
        weight(static_cast<const float*>(launch.args[kLinearNormWeight])),
        count(count),
        shared(shared) {
    if constexpr (Spec::prologue == kPrologueRmsNorm)
      RowScales<T, Spec::k>(count, Spec::eps, [&](int i) { return x + static_cast<long long>(i) * Spec::k; },
                            &shared.scale[0][0]);
    if constexpr (Spec::prologue == kPrologueGatedRmsNorm)
      RowScales<T, Spec::head_dim>(
          count * kHeads, Spec::eps, [&](int i) { return x + static_cast<long long>(i) * Spec::head_dim; },
          &shared.scale[0][0]);
    if constexpr (Spec::prologue != kPrologueNone) __syncthreads();
  }

  __device__ __forceinline__ void operator()(int token, int k, float (&v)[8]) const {
    if (token >= count) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = 0;
      return;
    }
    const long long at = static_cast<long long>(token) * Spec::k;
    LoadColumns<T, Spec::k>(x + at, k, v);
    if constexpr (Spec::prologue == kPrologueRmsNorm) {
      float w[8];
      LoadColumns<float, Spec::k>(weight, k, w);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = Normed<T, Spec::round_first>(v[i], shared.scale[0][token], w[i]);
    } else if constexpr (Spec::prologue == kPrologueGatedRmsNorm) {
      float z[8];
      LoadColumns<T, Spec::k>(gate + at, k, z);
      if constexpr (Spec::head_dim % 8 == 0) {  // eight columns are of one head
        if (k >= Spec::k) return;
        const float scale = shared.scale[token][k / Spec::head_dim];
        float w[8];
        LoadColumns<float, Spec::head_dim>(weight, k % Spec::head_dim, w);
#pragma unroll
        for (int i = 0; i < 8; ++i)
          v[i] = Rounded<T>(v[i] * scale * w[i] * (Spec::sigmoid ? Sigmoid(z[i]) : Silu(z[i])));
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          if (k + i >= Spec::k) break;
          v[i] = Rounded<T>(v[i] * shared.scale[token][(k + i) / Spec::head_dim] * weight[(k + i) % Spec::head_dim] *
                            (Spec::sigmoid ? Sigmoid(z[i]) : Silu(z[i])));
        }
      }
    }
  }

  const T *x, *gate;
  const float* weight;
  const int count;
  Shared& shared;
};

/// Output o's part of item i, where i is counted over all outputs: visit(o, item of o).
template <class Spec, int kOutput = 0, class Visit>
__device__ __forceinline__ void VisitOutput(int item, const Visit& visit) {
  if constexpr (kOutput < Spec::outputs) {
    constexpr int kItems = (Spec::n(kOutput) + kItemRows - 1) / kItemRows;
    if (item < kItems)
      visit.template operator()<kOutput>(item);
    else
      VisitOutput<Spec, kOutput + 1>(item - kItems, visit);
  }
}

template <class Spec, int kTiles, int kArgs>
__device__ void LinearBlock(const Launch<kArgs>& launch, int first, int count, ProductShared& shared,
                            typename LinearRows<Spec, kArgs>::Shared& rows_shared) {
  constexpr int kFirstResult = kLinearFirstWeight + Spec::outputs;
  const LinearRows<Spec, kArgs> x(launch, first, count, rows_shared);
  if constexpr (Spec::silu_mul) {
    // An item is sixteen gate rows and the sixteen up rows of the same channels.
    constexpr int kChannels = Spec::n(0);
    using Y = Element<Spec::y_type(0)>;
    for (int item = blockIdx.x; item * kTileRows < kChannels; item += gridDim.x) {
      Product<Spec::w_type, Spec::k, kTiles, LinearRows<Spec, kArgs>::kRing>(
          Group<Spec::w_type, Spec::k>(launch.args[kLinearFirstWeight], item, kChannels),
          Group<Spec::w_type, Spec::k>(launch.args[kLinearFirstWeight + 1], item, kChannels), x, shared);
#pragma unroll 1
      for (int i = threadIdx.x; i < kTileRows * count; i += kProductThreads) {
        const int row = i % kTileRows, token = i / kTileRows, channel = item * kTileRows + row;
        if (channel < kChannels)
          static_cast<Y*>(launch.args[kFirstResult])[static_cast<long long>(first + token) * kChannels + channel] =
              FromFloat<Y>(Silu(shared.sum[token][row]) * shared.sum[token][kTileRows + row]);
      }
    }
  } else {
    int items = 0;
#pragma unroll
    for (int o = 0; o < Spec::outputs; ++o) items += (Spec::n(o) + kItemRows - 1) / kItemRows;
    for (int item = blockIdx.x; item < items; item += gridDim.x)
      VisitOutput<Spec>(item, [&]<int kOutput>(int at) {
        constexpr int kChannels = Spec::n(kOutput);
        using Y = Element<Spec::y_type(kOutput)>;
        const void* matrix = launch.args[kLinearFirstWeight + kOutput];
        Product<Spec::w_type, Spec::k, kTiles, LinearRows<Spec, kArgs>::kRing>(Group<Spec::w_type, Spec::k>(matrix, 2 * at, kChannels),
                                               Group<Spec::w_type, Spec::k>(matrix, 2 * at + 1, kChannels), x, shared);
#pragma unroll 1
        for (int i = threadIdx.x; i < kItemRows * count; i += kProductThreads) {
          const int row = i % kItemRows, token = i / kItemRows, channel = at * kItemRows + row;
          if (channel >= kChannels) continue;
          const long long to = static_cast<long long>(first + token) * kChannels + channel;
          float y = shared.sum[token][row];
          if constexpr (Spec::residual) y += ToFloat(static_cast<const Y*>(launch.args[kLinearResidual])[to]);
          static_cast<Y*>(launch.args[kFirstResult + kOutput])[to] = FromFloat<Y>(y);
        }
      });
  }
}

/// grid: items, at most some a multiprocessor; rows by sixteen.
template <class Spec, int kArgs>
__device__ void Linear(const Launch<kArgs>& launch) {
  __shared__ ProductShared shared;
  __shared__ typename LinearRows<Spec, kArgs>::Shared rows_shared;
  const int first = blockIdx.y * kBlockTokens, count = min(kBlockTokens, *launch.rows - first);
  if (count <= 0) return;
  if (count <= kTokenTile)
    LinearBlock<Spec, 1>(launch, first, count, shared, rows_shared);
  else
    LinearBlock<Spec, kTokenTiles>(launch, first, count, shared, rows_shared);
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_CUH_
