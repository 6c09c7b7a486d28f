// elementwise: one op that no fusion took. A block owns a row (a sequence for the two ops that walk one); none of these is
// on the path of a decode token of a fused plan.
#ifndef QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_CUH_
#define QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/lm_head/sample.cuh"

namespace qwen::kernels::cuda {

template <class Spec, int kInput>
__device__ __forceinline__ float ElementIn(void* const* args, long long row, int channel) {
  using T = Element<Spec::in_type(kInput)>;
  return ToFloat(static_cast<const T*>(args[kInput])[row * Spec::in_channels(kInput) + channel]);
}
template <class Spec, int kOutput>
__device__ __forceinline__ void ElementOut(void* const* args, long long row, int channel, float x) {
  using T = Element<Spec::out_type(kOutput)>;
  static_cast<T*>(args[Spec::inputs + kOutput])[row * Spec::out_channels(kOutput) + channel] = FromFloat<T>(x);
}

/// Calls visit.operator()<0>() ... <kCount - 1>().
template <int kCount, int kFrom = 0, class Visit>
__device__ __forceinline__ void ForEach(const Visit& visit) {
  if constexpr (kFrom < kCount) {
    visit.template operator()<kFrom>();
    ForEach<kCount, kFrom + 1>(visit);
  }
}

__device__ __forceinline__ int SequenceOf(const Batch& batch, int row) {
  int seq = 0;
  while (batch.cu_tokens[seq + 1] <= row) ++seq;
  return seq;
}

template <class Spec, int kArgs>
__device__ void Accept(const Launch<kArgs>& launch) {
  const Batch& batch = launch.batch;
  const int seq = blockIdx.x;
  if (threadIdx.x != 0 || seq >= batch.counts[kNumShort]) return;
  if (batch.state_slot[seq] < 0 && batch.table_row[seq] < 0) return;
  const int* next = static_cast<const int*>(launch.args[0]);
  const int begin = batch.cu_tokens[seq], end = batch.cu_tokens[seq + 1], wanted = batch.counts[kNumLogitRows];
  int n = 0;
  while (n < wanted && batch.logit_rows[n] < begin) ++n;
  int row = begin, drawn = -1;
  while (n < wanted && batch.logit_rows[n] == row) {
    drawn = next[n++];
    if (row + 1 == end || drawn != batch.token_ids[row + 1]) break;
    ++row, drawn = -1;
  }
  static_cast<int*>(launch.args[1])[seq] = row - begin;
  static_cast<int*>(launch.args[2])[seq] = drawn;
}

/// A sequence's rows one after the other; the k-th likeliest candidates are taken one by one, each by a maximum.
template <class Spec, int kArgs>
__device__ void CandidateWalk(const Launch<kArgs>& launch) {
  constexpr int kVocab = Spec::in_channels(0), kRank = Spec::in_channels(1), kThreads = Spec::kThreads;
  using Hidden = Element<Spec::in_type(1)>;
  using Before = Element<Spec::in_type(2)>;
  using After = Element<Spec::in_type(3)>;
  __shared__ SampleShared<kThreads> shared;
  const Batch& batch = launch.batch;
  const int seq = blockIdx.x;
  if (seq >= batch.counts[kNumSeqs]) return;
  const float* logits = static_cast<const float*>(launch.args[0]);
  int predecessor = batch.token_ids[batch.cu_tokens[seq]];
  for (int n = 0; n < batch.counts[kNumLogitRows]; ++n) {
    const int row = batch.logit_rows[n];
    if (row < batch.cu_tokens[seq] || row >= batch.cu_tokens[seq + 1]) continue;
    SampleKey below = ~SampleKey{0}, best = 0;
    for (int candidate = 0; candidate < Spec::candidates; ++candidate) {
      SampleKey top = 0;
      for (int v = threadIdx.x; v < kVocab; v += kThreads) {
        const float z = logits[static_cast<long long>(n) * kVocab + v];
        const SampleKey key = z > __uint_as_float(0xff800000u) ? KeyOf(z, v) : 0;
        if (key < below && key > top) top = key;
      }
      top = BlockMax(top, shared);
      if (top == 0) break;
      below = top;
      float edge = 0;
      for (int r = 0; r < kRank; ++r)
        edge = fmaf(ToFloat(static_cast<const Before*>(launch.args[2])[static_cast<long long>(predecessor) * kRank + r]) *
                        ToFloat(static_cast<const Hidden*>(launch.args[1])[static_cast<long long>(n) * kRank + r]),
                    ToFloat(static_cast<const After*>(launch.args[3])[static_cast<long long>(IdOf(top)) * kRank + r]),
                    edge);
      const SampleKey scored = KeyOf(ValueOf(top) + edge, IdOf(top));
      best = scored > best ? scored : best;
    }
    const int id = best == 0 ? -1 : IdOf(best);
    if (threadIdx.x == 0) static_cast<int*>(launch.args[4])[n] = id;
    predecessor = id < 0 ? predecessor : id;
  }
}

/// grid: rows, or sequences.
template <class Spec, int kArgs>
__device__ void Elementwise(const Launch<kArgs>& launch) {
  constexpr ElementwiseOp kOp = static_cast<ElementwiseOp>(Spec::op);
  if constexpr (kOp == ElementwiseOp::kAccept) {
    Accept<Spec>(launch);
  } else if constexpr (kOp == ElementwiseOp::kCandidateWalk) {
    CandidateWalk<Spec>(launch);
  } else {
    const long long t = blockIdx.x;
    void* const* args = launch.args;
    if (t >= launch.batch.counts[Spec::logit_rows ? kNumLogitRows : kNumTokens]) return;
    if constexpr (kOp == ElementwiseOp::kConcat) {
      int to = 0;
      ForEach<Spec::inputs>([&]<int kInput>() {
#pragma unroll 1
        for (int c = threadIdx.x; c < Spec::in_channels(kInput); c += Spec::kThreads)
          ElementOut<Spec, 0>(args, t, to + c, ElementIn<Spec, kInput>(args, t, c));
        to += Spec::in_channels(kInput);
      });
    } else if constexpr (kOp == ElementwiseOp::kSplit) {
      constexpr int kHead = Spec::in_channels(0) / Spec::heads;
      int from = 0;
      ForEach<Spec::outputs>([&]<int kOutput>() {
        constexpr int kWidth = Spec::out_channels(kOutput) / Spec::heads;
#pragma unroll 1
        for (int c = threadIdx.x; c < Spec::out_channels(kOutput); c += Spec::kThreads)
          ElementOut<Spec, kOutput>(args, t, c, ElementIn<Spec, 0>(args, t, c / kWidth * kHead + from + c % kWidth));
        from += kWidth;
      });
    } else {
#pragma unroll 1
      for (int c = threadIdx.x; c < Spec::out_channels(0); c += Spec::kThreads) {
        float y;
        if constexpr (kOp == ElementwiseOp::kAdd) {
          y = ElementIn<Spec, 0>(args, t, c) + ElementIn<Spec, 1>(args, t, c);
        } else if constexpr (kOp == ElementwiseOp::kSiluMul) {
          y = Silu(ElementIn<Spec, 0>(args, t, c)) * ElementIn<Spec, 1>(args, t, c);
        } else if constexpr (kOp == ElementwiseOp::kSigmoidGate) {
          y = ElementIn<Spec, 0>(args, t, c) * Sigmoid(ElementIn<Spec, 1>(args, t, c));
        } else if constexpr (kOp == ElementwiseOp::kLogitRows) {
          y = ElementIn<Spec, 0>(args, launch.batch.logit_rows[t], c);
        } else {
          static_assert(kOp == ElementwiseOp::kDynamicConv, "an op without a body");
          constexpr int kChannels = Spec::out_channels(0), kGroups = kChannels / Spec::group;
          const int block = launch.batch.cu_tokens[SequenceOf(launch.batch, static_cast<int>(t))];
          y = 0;
          for (int tap = 0; tap < Spec::taps && t - tap >= block; ++tap) {
            const int at = Spec::index * Spec::taps + tap;
            using Base = Element<Spec::in_type(2)>;
            const float weight = ToFloat(static_cast<const Base*>(args[2])[at * kChannels + c]) +
                                 ElementIn<Spec, 1>(args, t, at * kGroups + c / Spec::group);
            y = fmaf(weight, ElementIn<Spec, 0>(args, t - tap, c), y);
          }
        }
        ElementOut<Spec, 0>(args, t, c, y);
      }
    }
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_CUH_
