// attention: norm, rotation, cache write and paged softmax attention.
//
// attn_decode is bound by the cache's bytes, 2 * kv_heads * head_dim * bytes a visible token. The keys of a sequence and KV
// head are divided into kAttnSplits runs of pages and one more item for the rows of this very step, which writes them
// to the cache and reads them back; a block an item. The last block of a KV head to arrive adds the parts up, in order.
// A warp works alone: its lanes lie along a key's channels, 16 bytes each, and four keys at a time meet all query heads
// of the group, so that K and V pass once and nothing but the last sum needs a barrier. How many pages a part has
// depends on the sequence's own length, so its bits do not depend on the batch.
//
// attn_prefill takes a few rows of a sequence and KV head a block and stages keys and values by pages in shared memory;
// those of this step's rows come from the inputs, normed and rotated again, so that no block waits for another.
#ifndef QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_CUH_
#define QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_CUH_

#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/attention/attention_shape.h"
#include "runtime/kernels/cuda/types.cuh"

namespace qwen::kernels::cuda {

inline constexpr float kNegInf = __builtin_bit_cast(float, 0xff800000u);

/// Dynamic shared memory.
extern __shared__ __align__(16) unsigned char attn_shared[];

/// sin and cos to 2^-23 for angles up to 2^20: reduced by pi / 2 in three parts, whose products fma does not round.
__device__ __forceinline__ void SinCos(float angle, float* sin, float* cos) {
  const float n = rintf(angle * 0.636619772f);
  float r = fmaf(n, -1.57079637e+00f, angle);
  r = fmaf(n, 4.37113883e-08f, r);
  r = fmaf(n, 1.71512489e-15f, r);
  const float z = r * r;
  float s = fmaf(z, fmaf(z, fmaf(z, 2.75573192e-6f, -1.98412698e-4f), 8.33333333e-3f), -1.66666667e-1f);
  s = fmaf(r * z, s, r);
  float c = fmaf(z, fmaf(z, fmaf(z, fmaf(z, -2.75573192e-7f, 2.48015873e-5f), -1.38888889e-3f), 4.16666667e-2f), -0.5f);
  c = fmaf(z, c, 1.0f);
  const int quadrant = static_cast<int>(n);
  const float a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
  *sin = quadrant & 2 ? -a : a;
  *cos = (quadrant + 1) & 2 ? -b : b;
}

/// A warp norms and rotates a head. `in` is the head's channels, `out` its place in shared memory; round_first and
/// kRoundNorm as the contract says for keys and queries. Lanes read what others wrote: all of the warp must come here.
template <class Spec, class T, bool kQuery>
__device__ __forceinline__ void NormRotate(const T* in, const float* weight, int position, float* out) {
  constexpr int kPerLane = (Spec::head_dim + 31) / 32;
  const int lane = threadIdx.x % 32;
  float v[kPerLane], squares = 0;
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) {
    const int c = lane + 32 * e;
    v[e] = c < Spec::head_dim ? ToFloat(in[c]) : 0;
    squares = fmaf(v[e], v[e], squares);
  }
  if constexpr (Spec::qk_norm) {
    const float scale = 1 / sqrtf(WarpSum(squares) / Spec::head_dim + Spec::eps);
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) {
      const int c = lane + 32 * e;
      if (c >= Spec::head_dim) continue;
      v[e] *= scale;
      if constexpr (Spec::round_first) v[e] = Rounded<T>(v[e]);
      v[e] *= weight[c];
      if constexpr (kQuery) v[e] = Rounded<T>(v[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < kPerLane; ++e)
    if (const int c = lane + 32 * e; c < Spec::head_dim) out[c] = v[e];
  __syncwarp();
  if constexpr (Spec::freqs > 0) {
    for (int j = lane; j < Spec::freqs; j += 32) {
      float sin, cos;
      SinCos(static_cast<float>(position) * Spec::inv_freq_at(j), &sin, &cos);
      sin *= Spec::attention_factor, cos *= Spec::attention_factor;
      const float a = out[j], b = out[j + Spec::freqs];
      float x = a * cos - b * sin, y = b * cos + a * sin;
      out[j] = x, out[j + Spec::freqs] = y;
    }
    __syncwarp();
    if constexpr (kQuery) {
#pragma unroll
      for (int e = 0; e < kPerLane; ++e)
        if (const int c = lane + 32 * e; c < Spec::head_dim) out[c] = Rounded<T>(out[c]);
      __syncwarp();
    }
  }
}

/// kCount numbers from a row of the cache on, by 16 bytes where they are that many.
template <class C, int kCount, bool kAligned>
__device__ __forceinline__ void LoadChannels(const C* from, int limit, float (&v)[kCount]) {
  if constexpr (kAligned && sizeof(C) == 2 && kCount == 8) {
    const uint4 w = *reinterpret_cast<const uint4*>(from);
    const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = __uint_as_float(words[i] << 16);
      v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  } else if constexpr (kAligned && sizeof(C) == 2 && kCount == 4) {
    const uint2 w = *reinterpret_cast<const uint2*>(from);
    v[0] = __uint_as_float(w.x << 16), v[1] = __uint_as_float(w.x & 0xffff0000u);
    v[2] = __uint_as_float(w.y << 16), v[3] = __uint_as_float(w.y & 0xffff0000u);
  } else if constexpr (kAligned && sizeof(C) == 4 && kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = i < limit ? ToFloat(from[i]) : 0;
  }
}

/// The keys and values of one KV head of a sequence.
template <class Spec>
struct AttnPages {
  using C = Element<Spec::cache_type>;

  __device__ AttnPages(const Launch<kAttnArgs>& launch, int seq, int kv_head)
      : layer(static_cast<unsigned char*>(launch.args[kAttnCache])),
        table(launch.batch.page_table + static_cast<long long>(launch.batch.table_row[seq]) * launch.batch.max_pages),
        page_bytes(launch.state.page_bytes),
        head(kv_head * (kAttnPageTokens * Spec::head_dim)) {}

  __device__ __forceinline__ C* Key(int position) const {
    return reinterpret_cast<C*>(layer + table[position / kAttnPageTokens] * page_bytes) + head +
           position % kAttnPageTokens * Spec::head_dim;
  }
  static constexpr int kValues = Spec::kv_heads * kAttnPageTokens * Spec::head_dim;  // elements from a key to its value

  unsigned char* layer;
  const int* table;
  long long page_bytes;
  int head;
};

/// First and last + 1 position that a row at `position` sees; `last` is the sequence's last one of this step.
template <class Spec>
__device__ __forceinline__ int AttnBegin(int position) {
  return Spec::window > 0 ? max(position - Spec::window + 1, 0) : 0;
}
template <class Spec>
__device__ __forceinline__ int AttnEnd(int position, int last) {
  return (Spec::block ? last : position) + 1;
}

/// The `index`-th query head of a KV head; -1 where there are fewer.
template <class Spec>
__device__ __forceinline__ int AttnHead(int kv_head, int index) {
  for (int h = 0; h < Spec::q_heads; ++h)
    if (Spec::kv_map_at(h) == kv_head && index-- == 0) return h;
  return -1;
}

/// Writes a row's key and value to the cache, a warp a row; `scratch` is head_dim floats of shared memory.
template <class Spec>
__device__ __forceinline__ void AttnAppend(const Launch<kAttnArgs>& launch, const AttnPages<Spec>& pages, int kv_head,
                                           long long token, int position, float* scratch) {
  using T = Element<Spec::type>;
  using C = Element<Spec::cache_type>;
  const long long from = (token * Spec::kv_heads + kv_head) * Spec::head_dim;
  NormRotate<Spec, T, false>(static_cast<const T*>(launch.args[kAttnK]) + from,
                             static_cast<const float*>(launch.args[kAttnKNorm]), position, scratch);
  C* key = pages.Key(position);
  for (int c = threadIdx.x % 32; c < Spec::head_dim; c += 32) {
    key[c] = FromFloat<C>(scratch[c]);
    key[AttnPages<Spec>::kValues + c] = FromFloat<C>(ToFloat(static_cast<const T*>(launch.args[kAttnV])[from + c]));
  }
}

/// Sum, norm and highest logit of some keys, for kHeads query heads: the lane's channels.
/// Where a channel of a row of floats lies in shared memory: a lane's channels by fours, 128 apart, so that the lanes' 16
/// bytes lie side by side. AttnChannel is its inverse. Heads that lanes share unevenly stay as they are.
constexpr bool AttnByFours(int head_dim) { return head_dim % 128 == 0; }
template <int kHeadDim>
__device__ __forceinline__ constexpr int AttnPlace(int channel) {
  constexpr int kPerLane = kHeadDim / 32;
  if constexpr (!AttnByFours(kHeadDim)) return channel;
  else return channel % kPerLane / 4 * 128 + channel / kPerLane * 4 + channel % 4;
}
template <int kHeadDim>
__device__ __forceinline__ constexpr int AttnChannel(int place) {
  constexpr int kPerLane = kHeadDim / 32;
  if constexpr (!AttnByFours(kHeadDim)) return place;
  else return place % 128 / 4 * kPerLane + place / 128 * 4 + place % 4;
}

/// A lane's channels of such a row.
template <int kHeadDim, int kPerLane>
__device__ __forceinline__ void AttnLoad(const float* row, float (&v)[kPerLane]) {
  const int lane = threadIdx.x % 32;
  if constexpr (AttnByFours(kHeadDim)) {
#pragma unroll
    for (int e = 0; e < kPerLane; e += 4) {
      const float4 four = *reinterpret_cast<const float4*>(row + e * 32 + lane * 4);
      v[e] = four.x, v[e + 1] = four.y, v[e + 2] = four.z, v[e + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) v[e] = row[lane * kPerLane + e];
  }
}
template <int kHeadDim, int kPerLane>
__device__ __forceinline__ void AttnStore(const float (&v)[kPerLane], float* row) {
  const int lane = threadIdx.x % 32;
  if constexpr (AttnByFours(kHeadDim)) {
#pragma unroll
    for (int e = 0; e < kPerLane; e += 4)
      *reinterpret_cast<float4*>(row + e * 32 + lane * 4) = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
  } else {
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) row[lane * kPerLane + e] = v[e];
  }
}

template <class Spec, int kHeads>
struct AttnSums {
  static constexpr int kPerLane = (Spec::head_dim + 31) / 32;
  float highest[kHeads], norm[kHeads], sum[kHeads][kPerLane];
};

/// A part's result in scratch: sums of head_dim channels, then norm and highest.
template <class Spec>
__device__ __forceinline__ float* AttnPart(const Launch<kAttnArgs>& launch, long long row, int head, int split) {
  return reinterpret_cast<float*>(launch.scratch) +
         ((row * Spec::q_heads + head) * (AttnSplits(Spec::kv_heads) + 1) + split) * AttnPartFloats(Spec::head_dim);
}

template <class Spec, int kHeads>
__device__ void AttnDecodeRow(const Launch<kAttnArgs>& launch, const AttnPages<Spec>& pages, int kv_head, int first_head,
                              long long token, int position, int begin, int end, int split) {
  using T = Element<Spec::type>;
  using C = Element<Spec::cache_type>;
  using Sums = AttnSums<Spec, kHeads>;
  constexpr int kPerLane = Sums::kPerLane, kKeys = 4, kRow = kPerLane * 32;  // of q: zero behind head_dim
  constexpr int kWidth = Spec::gate ? 2 * Spec::head_dim : Spec::head_dim;
  constexpr bool kAligned = Spec::head_dim % 32 == 0;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* q = reinterpret_cast<float*>(attn_shared);  // [kHeads][kRow]
  float* parts = q + kHeads * kRow;                  // [warps][kHeads][kRow + 4]: sums, norm, highest

#pragma unroll 1
  for (int h = warp; h < kHeads; h += kAttnWarps) {
    const int head = AttnHead<Spec>(kv_head, first_head + h);
#pragma unroll 1
    for (int c = Spec::head_dim + lane; c < kRow; c += 32) q[h * kRow + c] = 0;
    if (head < 0) {
#pragma unroll 1
      for (int c = lane; c < Spec::head_dim; c += 32) q[h * kRow + c] = 0;
      continue;
    }
    NormRotate<Spec, T, true>(static_cast<const T*>(launch.args[kAttnQ]) + (token * Spec::q_heads + head) * kWidth,
                              static_cast<const float*>(launch.args[kAttnQNorm]), position, q + h * kRow);
    if constexpr (AttnByFours(Spec::head_dim) && kPerLane > 4) {
      float v[kPerLane];
      __syncwarp();
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) v[e] = q[h * kRow + lane + 32 * e];
      __syncwarp();
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) q[h * kRow + AttnPlace<Spec::head_dim>(lane + 32 * e)] = v[e];
    }
  }
  __syncthreads();

  Sums s;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    s.highest[h] = kNegInf, s.norm[h] = 0;
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) s.sum[h][e] = 0;
  }
  const int limit = Spec::head_dim - lane * kPerLane;  // channels of the lane
  for (int group = begin / kKeys + warp; group * kKeys < end; group += kAttnWarps) {
    const int base = group * kKeys;
    const C* key = pages.Key(base) + lane * kPerLane;  // four keys of a page, as pages hold 32
    float logit[kHeads][kKeys];
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      float k[kPerLane] = {};
      const bool seen = base + j >= begin && base + j < end;
      if (seen && limit > 0) LoadChannels<C, kPerLane, kAligned>(key + j * Spec::head_dim, limit, k);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        float mine[kPerLane], dot = 0;
        AttnLoad<Spec::head_dim>(q + h * kRow, mine);
#pragma unroll
        for (int e = 0; e < kPerLane; ++e) dot = fmaf(mine[e], k[e], dot);
        logit[h][j] = dot;
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float dot = WarpSum(logit[h][j]) * Spec::scale;
        logit[h][j] = seen ? dot : kNegInf;
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      float top = s.highest[h];
#pragma unroll
      for (int j = 0; j < kKeys; ++j) top = logit[h][j] > top ? logit[h][j] : top;
      const float shrink = expf(s.highest[h] - top);
      s.highest[h] = top;
      s.norm[h] *= shrink;
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) s.sum[h][e] *= shrink;
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        logit[h][j] = expf(logit[h][j] - top);
        s.norm[h] += logit[h][j];
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      float v[kPerLane] = {};
      if (base + j >= begin && base + j < end && limit > 0)
        LoadChannels<C, kPerLane, kAligned>(key + AttnPages<Spec>::kValues + j * Spec::head_dim, limit, v);
#pragma unroll
      for (int h = 0; h < kHeads; ++h)
#pragma unroll
        for (int e = 0; e < kPerLane; ++e) s.sum[h][e] = fmaf(logit[h][j], v[e], s.sum[h][e]);
    }
  }

  // The warps' parts, in order of the warps.
  float* mine = parts + warp * kHeads * (kRow + 4);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    AttnStore<Spec::head_dim>(s.sum[h], mine + h * (kRow + 4));
    if (lane == 0) mine[h * (kRow + 4) + kRow] = s.norm[h], mine[h * (kRow + 4) + kRow + 1] = s.highest[h];
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < kHeads * (Spec::head_dim + 1); i += kAttnThreads) {
    const int h = i / (Spec::head_dim + 1), c = i % (Spec::head_dim + 1);
    const int head = AttnHead<Spec>(kv_head, first_head + h);
    if (head < 0) continue;
    const float* from = parts + h * (kRow + 4);
    float top = kNegInf, sum = 0;
#pragma unroll
    for (int w = 0; w < kAttnWarps; ++w) top = fmaxf(top, from[w * kHeads * (kRow + 4) + kRow + 1]);
    // Place head_dim stands for the norm.
#pragma unroll
    for (int w = 0; w < kAttnWarps; ++w) {
      const float* part = from + w * kHeads * (kRow + 4);
      if (part[kRow + 1] > kNegInf) sum = fmaf(expf(part[kRow + 1] - top), part[c < Spec::head_dim ? c : kRow], sum);
    }
    float* to = AttnPart<Spec>(launch, token, head, split);
    to[c < Spec::head_dim ? AttnChannel<Spec::head_dim>(c) : c] = sum;
    if (c == Spec::head_dim) to[c + 1] = top;
  }
  __syncthreads();
}

/// grid: (short sequence, KV head, part), the part fastest.
template <class Spec>
__device__ void AttnDecode(const Launch<kAttnArgs>& launch) {
  if constexpr (Spec::kv_heads > 0) {
    using T = Element<Spec::type>;
    constexpr int kSplits = AttnSplits(Spec::kv_heads), kGroup = AttnGroup<Spec>(), kHeads = AttnHeadsAtOnce(kGroup);
    const int split = blockIdx.x % (kSplits + 1), kv_head = blockIdx.x / (kSplits + 1) % Spec::kv_heads;
    const int seq = blockIdx.x / (kSplits + 1) / Spec::kv_heads;
    if (seq >= launch.batch.counts[kNumShort] || launch.batch.table_row[seq] < 0) return;
    const long long token = launch.batch.cu_tokens[seq];
    const int rows = launch.batch.cu_tokens[seq + 1] - launch.batch.cu_tokens[seq];
    const int position = launch.batch.position[seq], last = position + rows - 1, warp = threadIdx.x / 32;
    const AttnPages<Spec> pages(launch, seq, kv_head);

    // This step's rows are the last part, and the one block that reads them is the one that writes them.
    const bool own = split == kSplits;
    if (Spec::append && own) {
      float* scratch = reinterpret_cast<float*>(attn_shared) + warp * Spec::head_dim;
      for (int t = warp; t < rows; t += kAttnWarps)
        AttnAppend(launch, pages, kv_head, token + t, position + t, scratch);
      __syncthreads();
    }
    if constexpr (!Spec::attend || kGroup == 0) return;

    const int first_page = AttnBegin<Spec>(position) / kAttnPageTokens;
    const int num_pages = (position + kAttnPageTokens - 1) / kAttnPageTokens - first_page;
    const int each = max((num_pages + kSplits - 1) / kSplits, kAttnLeastPages);
    const int used = (num_pages + each - 1) / each;  // parts before the last one that have a key
    if (own || split < used) {
      const int first = own ? position : (first_page + split * each) * kAttnPageTokens;
      const int end = own ? last + 1 : min(first + each * kAttnPageTokens, position);
      for (int t = 0; t < rows; ++t)
        for (int head = 0; head < kGroup; head += kHeads)
          AttnDecodeRow<Spec, kHeads>(launch, pages, kv_head, head, token + t, position + t,
                                      max(first, AttnBegin<Spec>(position + t)),
                                      min(end, AttnEnd<Spec>(position + t, last)), own ? kSplits : split);
    }

    // Whoever arrives last adds up.
    if (!LastToArrive(reinterpret_cast<unsigned*>(launch.shared) + seq * Spec::kv_heads + kv_head, kSplits + 1)) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * kGroup * Spec::head_dim; i += kAttnThreads) {
      const int c = i % Spec::head_dim, t = i / Spec::head_dim / kGroup;
      const int head = AttnHead<Spec>(kv_head, i / Spec::head_dim % kGroup);
      if (head < 0) continue;
      const float* parts = AttnPart<Spec>(launch, token + t, head, 0);
      float top = kNegInf, sum = 0, norm = 0;
      for (int p = 0; p <= used; ++p)
        top = fmaxf(top, parts[(p < used ? p : kSplits) * AttnPartFloats(Spec::head_dim) + Spec::head_dim + 1]);
      for (int p = 0; p <= used; ++p) {
        const float* part = parts + (p < used ? p : kSplits) * AttnPartFloats(Spec::head_dim);
        if (!(part[Spec::head_dim + 1] > kNegInf)) continue;
        const float shrink = expf(part[Spec::head_dim + 1] - top);
        sum = fmaf(shrink, part[c], sum);
        norm = fmaf(shrink, part[Spec::head_dim], norm);
      }
      float o = sum / norm;
      const long long row = (token + t) * Spec::q_heads + head;
      if constexpr (Spec::gate)
        o *= Sigmoid(ToFloat(
            static_cast<const T*>(launch.args[kAttnQ])[row * 2 * Spec::head_dim + Spec::head_dim + c]));
      static_cast<T*>(launch.args[kAttnO])[row * Spec::head_dim + c] = FromFloat<T>(o);
    }
  }
}

/// Rows [first, first + rows) of a sequence, for one KV head.
template <class Spec>
__device__ void AttnPrefillTile(const Launch<kAttnArgs>& launch, int seq, int kv_head, int first, int rows) {
  using T = Element<Spec::type>;
  using C = Element<Spec::cache_type>;
  constexpr int kGroup = AttnGroup<Spec>(), kPairs = kAttnPairs / kAttnPrefillWarps;  // pairs of a row and a head a warp
  constexpr int kPerLane = (Spec::head_dim + 31) / 32, kRow = kPerLane * 32;
  constexpr int kKeyStride = AttnKeyStride(Spec::head_dim, sizeof(C));
  constexpr int kWidth = Spec::gate ? 2 * Spec::head_dim : Spec::head_dim;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const long long token = launch.batch.cu_tokens[seq];
  const int start = launch.batch.position[seq];  // of the chunk
  const int last = start + launch.batch.cu_tokens[seq + 1] - launch.batch.cu_tokens[seq] - 1;
  const AttnPages<Spec> pages(launch, seq, kv_head);
  float* q = reinterpret_cast<float*>(attn_shared);                    // [kAttnPairs][kRow]
  C* keys = reinterpret_cast<C*>(q + kAttnPairs * kRow);               // [32][kKeyStride]
  C* values = keys + AttnValueOffset(Spec::head_dim, sizeof(C));       // [32][head_dim]
  float* scratch = q + warp * kRow;                                    // before q is there

  if constexpr (Spec::append) {
    for (int t = warp; t < rows; t += kAttnPrefillWarps)
      AttnAppend(launch, pages, kv_head, token + first + t, start + first + t, scratch);
    __syncthreads();
  }
  if constexpr (!Spec::attend || kGroup == 0) return;

  for (int chunk = 0; chunk < rows * kGroup; chunk += kAttnPairs) {
    // A pair's row and head; the head is -1 where there is none.
    auto row_of = [&](int pair) { return (chunk + pair) / kGroup; };
    auto head_of = [&](int pair) {
      return chunk + pair < rows * kGroup ? AttnHead<Spec>(kv_head, (chunk + pair) % kGroup) : -1;
    };
    for (int pair = warp; pair < kAttnPairs; pair += kAttnPrefillWarps) {
      const int head = head_of(pair);
      float* to = q + pair * kRow;
      for (int c = lane; c < kRow; c += 32)
        if (head < 0 || c >= Spec::head_dim) to[c] = 0;
      if (head >= 0)
        NormRotate<Spec, T, true>(static_cast<const T*>(launch.args[kAttnQ]) +
                                      ((token + first + row_of(pair)) * Spec::q_heads + head) * kWidth,
                                  static_cast<const float*>(launch.args[kAttnQNorm]), start + first + row_of(pair), to);
    }
    float highest[kPairs], norm[kPairs], sum[kPairs][kPerLane];
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      highest[i] = kNegInf, norm[i] = 0;
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) sum[i][e] = 0;
    }
    const int low = start + first + chunk / kGroup;
    const int high = start + first + min((chunk + kAttnPairs - 1) / kGroup, rows - 1);
    for (int page = AttnBegin<Spec>(low) / kAttnPageTokens; page * kAttnPageTokens < AttnEnd<Spec>(high, last); ++page) {
      __syncthreads();  // q is there, and the page before was read
      for (int j = warp; j < kAttnPageTokens; j += kAttnPrefillWarps) {
        const int p = page * kAttnPageTokens + j;
        if (p < AttnBegin<Spec>(low) || p >= AttnEnd<Spec>(high, last)) continue;
        C* key = keys + j * kKeyStride;
        C* value = values + j * Spec::head_dim;
        if (Spec::append && p >= start) {
          const long long from = ((token + p - start) * Spec::kv_heads + kv_head) * Spec::head_dim;
          float* normed = reinterpret_cast<float*>(values + kAttnPageTokens * Spec::head_dim) + warp * kRow;
          NormRotate<Spec, T, false>(static_cast<const T*>(launch.args[kAttnK]) + from,
                                     static_cast<const float*>(launch.args[kAttnKNorm]), p, normed);
          for (int c = lane; c < Spec::head_dim; c += 32) {
            key[c] = FromFloat<C>(normed[c]);
            value[c] = FromFloat<C>(ToFloat(static_cast<const T*>(launch.args[kAttnV])[from + c]));
          }
          __syncwarp();
        } else {
          const C* cached = pages.Key(p);
          for (int c = lane; c < Spec::head_dim; c += 32) {
            key[c] = cached[c];
            value[c] = cached[AttnPages<Spec>::kValues + c];
          }
        }
      }
      __syncthreads();

      // Lanes are keys here.
      float p[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) p[i] = 0;
      for (int c = 0; c < Spec::head_dim; ++c) {
        const int at = page * kAttnPageTokens + lane;
        const float k = at >= AttnBegin<Spec>(low) && at < AttnEnd<Spec>(high, last) ? ToFloat(keys[lane * kKeyStride + c]) : 0;
#pragma unroll
        for (int i = 0; i < kPairs; ++i) p[i] = fmaf(q[(warp * kPairs + i) * kRow + c], k, p[i]);
      }
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int pair = warp * kPairs + i, row = min(row_of(pair), rows - 1), position = start + first + row;
        const int at = page * kAttnPageTokens + lane;
        const bool seen = at >= AttnBegin<Spec>(position) && at < AttnEnd<Spec>(position, last);
        const float logit = seen ? p[i] * Spec::scale : kNegInf;
        float top = logit;
#pragma unroll
        for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
        top = fmaxf(top, highest[i]);
        // A page that the row does not see changes nothing.
        const float shrink = top > kNegInf ? expf(highest[i] - top) : 1;
        p[i] = seen ? expf(logit - top) : 0;
        highest[i] = top;
        norm[i] = norm[i] * shrink + WarpSum(p[i]);
#pragma unroll
        for (int e = 0; e < kPerLane; ++e) sum[i][e] *= shrink;
      }
      // And channels here.
      const int begin = max(AttnBegin<Spec>(low) - page * kAttnPageTokens, 0);
      const int end = min(AttnEnd<Spec>(high, last) - page * kAttnPageTokens, kAttnPageTokens);
      for (int j = begin; j < end; ++j) {
        float v[kPerLane];
#pragma unroll
        for (int e = 0; e < kPerLane; ++e) {
          const int c = lane + 32 * e;
          v[e] = c < Spec::head_dim ? ToFloat(values[j * Spec::head_dim + c]) : 0;
        }
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          const float weight = __shfl_sync(0xffffffffu, p[i], j);
          if (weight == 0) continue;  // what the row does not see may be no number
#pragma unroll
          for (int e = 0; e < kPerLane; ++e) sum[i][e] = fmaf(weight, v[e], sum[i][e]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = warp * kPairs + i, head = head_of(pair);
      if (head < 0) continue;
      const long long row = (token + first + row_of(pair)) * Spec::q_heads + head;
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) {
        const int c = lane + 32 * e;
        if (c >= Spec::head_dim) continue;
        float o = sum[i][e] / norm[i];
        if constexpr (Spec::gate)
          o *= Sigmoid(ToFloat(
              static_cast<const T*>(launch.args[kAttnQ])[row * 2 * Spec::head_dim + Spec::head_dim + c]));
        static_cast<T*>(launch.args[kAttnO])[row * Spec::head_dim + c] = FromFloat<T>(o);
      }
    }
    __syncthreads();  // the next chunk's q
  }
}

/// grid: (tile of rows, KV head), the head fastest; as many tiles as there are rows, of which few are used.
template <class Spec>
__device__ void AttnPrefill(const Launch<kAttnArgs>& launch) {
  if constexpr (Spec::kv_heads > 0) {
    constexpr int kTile = AttnTileRows(AttnGroup<Spec>());
    const int kv_head = blockIdx.x % Spec::kv_heads;
    int tile = blockIdx.x / Spec::kv_heads;
    for (int seq = launch.batch.counts[kNumShort]; seq < launch.batch.counts[kNumSeqs]; ++seq) {
      const int rows = launch.batch.cu_tokens[seq + 1] - launch.batch.cu_tokens[seq];
      const int tiles = (rows + kTile - 1) / kTile;
      if (tile >= tiles) {
        tile -= tiles;
        continue;
      }
      if (launch.batch.table_row[seq] >= 0)
        AttnPrefillTile<Spec>(launch, seq, kv_head, tile * kTile, min(kTile, rows - tile * kTile));
      return;
    }
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_CUH_
