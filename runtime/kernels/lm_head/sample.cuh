// sample: a block draws a row's token, with the very numbers of the CPU's body: temperature, top-k, top-p, min-p, and the
// largest logit plus noise (contracts, section 4). Bound by the row's bytes, vocab * 4, read once for a greedy draw.
//
// A candidate is a 64-bit key: the logit in an order-preserving form above, the complement of the id below, so that the
// larger key is the likelier candidate, ties going to the lower id. The k-th largest key is found by bits, 8 at a time,
// over counts in shared memory, each pass reading the row again from L2; top-p walks the same way over sums of
// probabilities. Those sums are in f64 and in a fixed order, but not in the CPU's: at a token whose share ends within
// 1e-12 of top_p the two may keep one token more or less.
#ifndef QWEN_RUNTIME_KERNELS_LM_HEAD_SAMPLE_CUH_
#define QWEN_RUNTIME_KERNELS_LM_HEAD_SAMPLE_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/lm_head/philox.h"

namespace qwen::kernels::cuda {

using SampleKey = unsigned long long;

/// Above all else: no candidate has key 0.
__device__ __forceinline__ SampleKey KeyOf(float z, int id) {
  const unsigned bits = __float_as_uint(z + 0.0f);  // both zeros are one
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<SampleKey>(ordered) << 32 | static_cast<unsigned>(~id);
}
__device__ __forceinline__ int IdOf(SampleKey key) { return static_cast<int>(~static_cast<unsigned>(key)); }
__device__ __forceinline__ float ValueOf(SampleKey key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

template <int kThreads>
struct SampleShared {
  static constexpr int kWarps = kThreads / 32;
  SampleKey keys[kWarps];
  double sums[256];
  int counts[256];
  SampleKey prefix;
  double weight;
  int left;
};

/// The largest key of the block, on every thread.
template <int kThreads>
__device__ __forceinline__ SampleKey BlockMax(SampleKey key, SampleShared<kThreads>& shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const SampleKey other = __shfl_xor_sync(0xffffffffu, key, step);
    key = other > key ? other : key;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.keys[threadIdx.x / 32] = key;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < SampleShared<kThreads>::kWarps; ++w) key = shared.keys[w] > key ? shared.keys[w] : key;
  return key;
}

template <class Spec>
__device__ void Sample(const Launch<kSampleArgs>& launch) {
  constexpr int kThreads = Spec::kThreads;
  __shared__ SampleShared<kThreads> shared;
  const int n = blockIdx.x, tid = threadIdx.x;
  if (n >= launch.batch.counts[kNumLogitRows]) return;
  const int row = launch.batch.logit_rows[n];
  int seq = 0;
  while (launch.batch.cu_tokens[seq + 1] <= row) ++seq;
  // A row at p draws the token at p + 1.
  const int position = launch.batch.position[seq] + (row - launch.batch.cu_tokens[seq]) + 1;
  const SampleParams& params = launch.batch.sample[n];
  const int vocab = params.vocab_used > 0 ? min(params.vocab_used, Spec::vocab) : Spec::vocab;
  const float* logits = static_cast<const float*>(launch.args[kSampleLogits]) + static_cast<long long>(n) * Spec::vocab;
  int* next = static_cast<int*>(launch.args[kSampleNext]) + n;
  const bool greedy = (params.flags & kSampleGreedy) || params.temperature < 1e-5f;
  const float temperature = greedy ? 1.0f : params.temperature;

  // NaN and -inf have no chance.
  auto key_at = [&](int v) -> SampleKey {
    const float z = greedy ? logits[v] : logits[v] / temperature;
    return z > __uint_as_float(0xff800000u) ? KeyOf(z, v) : 0;
  };
  SampleKey best = 0;
  for (int v = tid; v < vocab; v += kThreads) {
    const SampleKey key = key_at(v);
    best = key > best ? key : best;
  }
  best = BlockMax(best, shared);
  if (greedy || best == 0) {
    if (tid == 0) *next = best == 0 ? -1 : IdOf(best);
    return;
  }
  const double highest = ValueOf(best);
  auto weight_of = [&](SampleKey key) { return exp(static_cast<double>(ValueOf(key)) - highest); };

  // The least key that is kept: 1 keeps every candidate.
  SampleKey least = 1;
  if (params.top_k > 0 && params.top_k < vocab) {
    if (tid == 0) shared.prefix = 0, shared.left = params.top_k;
#pragma unroll 1
    for (int shift = 56; shift >= 0; shift -= 8) {
#pragma unroll 1
      for (int i = tid; i < 256; i += kThreads) shared.counts[i] = 0;
      __syncthreads();
      const SampleKey prefix = shared.prefix, mask = shift == 56 ? 0 : ~SampleKey{0} << (shift + 8);
      for (int v = tid; v < vocab; v += kThreads)
        if (const SampleKey key = key_at(v); key != 0 && (key & mask) == prefix)
          atomicAdd(&shared.counts[key >> shift & 255], 1);
      __syncthreads();
      if (tid == 0) {
        int digit = 255;
        while (digit > 0 && shared.counts[digit] < shared.left) shared.left -= shared.counts[digit--];
        shared.prefix = prefix | static_cast<SampleKey>(digit) << shift;
      }
      __syncthreads();
    }
    // Fewer candidates than top_k end at digit 0 all the way down.
    least = shared.prefix == 0 ? 1 : shared.prefix;
    __syncthreads();
  }
  if (params.top_p < 1.0f) {
    // Probabilities of a digit, summed by one thread each in order of the ids: always the same sum.
    if (tid == 0) shared.prefix = 0, shared.weight = 0;
    double target = 0;
#pragma unroll 1
    for (int shift = 56; shift >= 0; shift -= 8) {
      __syncthreads();
      const SampleKey prefix = shared.prefix, mask = shift == 56 ? 0 : ~SampleKey{0} << (shift + 8);
      // A thread's ids are a run, and its sums of all digits are added up digit by digit, run by run.
      const int each = (vocab + kThreads - 1) / kThreads;
#pragma unroll 1
      for (int i = tid; i < 256; i += kThreads) shared.sums[i] = 0, shared.counts[i] = 0;
      __syncthreads();
#pragma unroll 1
      for (int v = tid * each; v < min(vocab, tid * each + each); ++v)
        if (const SampleKey key = key_at(v); key >= least && (key & mask) == prefix) atomicOr(&shared.counts[key >> shift & 255], 1);
      __syncthreads();
#pragma unroll 1
      for (int digit = tid / 32; digit < 256; digit += kThreads / 32) {  // a warp a digit that occurs
        if (shared.counts[digit] == 0) continue;
        double sum = 0;
#pragma unroll 1
        for (int v = tid % 32; v < vocab; v += 32)
          if (const SampleKey key = key_at(v);
              key >= least && (key & mask) == prefix && static_cast<int>(key >> shift & 255) == digit)
            sum += weight_of(key);
#pragma unroll
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (tid % 32 == 0) shared.sums[digit] = sum;
      }
      __syncthreads();
      if (shift == 56) {
        double total = 0;
#pragma unroll 1
        for (int i = 0; i < 256; ++i) total += shared.sums[i];
        target = params.top_p * total;
      }
      __syncthreads();
      if (tid == 0) {
        // The digit in which the sum from above reaches the target; the last that occurs when it never does.
        double sum = shared.weight;
        int digit = 255, lowest = 0;
        while (lowest < 255 && shared.counts[lowest] == 0) ++lowest;
        while (digit > lowest && sum + shared.sums[digit] < target) sum += shared.sums[digit--];
        shared.weight = sum;
        shared.prefix = prefix | static_cast<SampleKey>(digit) << shift;
      }
      __syncthreads();
    }
    least = shared.prefix > least ? shared.prefix : least;
    __syncthreads();
  }

  // The largest logit plus noise; as on the CPU, the likeliest first, whose noise spares most others theirs.
  const float lead = ValueOf(best) + Gumbel(params.seed, IdOf(best), position, params.choice);
  SampleKey drawn = KeyOf(lead, IdOf(best));
  for (int v = tid; v < vocab; v += kThreads) {
    const SampleKey key = key_at(v);
    if (key < least || key == 0) continue;
    const float z = ValueOf(key);
    if (z + kMaxGumbel < lead) continue;
    if (params.min_p > 0 && weight_of(key) < params.min_p) continue;
    const SampleKey noisy = KeyOf(z + Gumbel(params.seed, v, position, params.choice), v);
    drawn = noisy > drawn ? noisy : drawn;
  }
  drawn = BlockMax(drawn, shared);
  if (tid == 0) *next = IdOf(drawn);
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_LM_HEAD_SAMPLE_CUH_
