// gdn: convolution, norms, gates and the gated delta rule over a slot, for short rows and for prompts.
//
// Bound by the state's bytes: value_heads * value_dim * key_dim * 4 read a sequence and layer (1 MiB for 16 heads of 128 x 128),
// and written only when the ring is folded. A block owns 32 rows of one value head's S, in registers from the first
// record to the last row: eight lanes share a row, a warp has four at a time, so a row's 512 bytes are whole sectors
// and its sums are three shuffles. What the value heads of a key head share (convolution and norms of q and k) every
// block computes for itself; one of them writes it down.
//
// An element of S sees the same products in the same order whether its record is folded, its row decoded or its prompt
// scanned; so when a fold happens, and how a sequence was cut, changes no bit.
#ifndef QWEN_RUNTIME_KERNELS_GDN_GDN_CUH_
#define QWEN_RUNTIME_KERNELS_GDN_GDN_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/gdn/gdn.h"

namespace qwen::kernels::cuda {

inline constexpr int kGdnThreads = 128;
inline constexpr int kGdnPartRows = 32;                                  // rows of S a block owns
inline constexpr int kGdnPasses = kGdnPartRows / (kGdnThreads / 32 * 4);  // rows a thread has a share of
inline constexpr int kGdnHistory = 3;                                    // most rows of the past that a filter sees

/// A sequence's slot, for one layer.
template <class Spec>
struct GdnSlot {
  static constexpr int kKeys = Spec::key_heads * Spec::key_dim, kValues = Spec::value_heads * Spec::value_dim;

  __device__ GdnSlot(const StateView& state, void* layer, int slot)
      : base(static_cast<unsigned char*>(layer) + slot * state.slot_bytes),
        at(MakeSlotLayout(Spec::key_heads, Spec::value_heads, Spec::key_dim, Spec::value_dim, Spec::x_type,
                          state.ring_rows, state.conv_rows)),
        ring_rows(state.ring_rows),
        conv_rows(state.conv_rows) {}

  __device__ float* Rows(int head) const {
    return reinterpret_cast<float*>(base) + static_cast<long long>(head) * Spec::value_dim * Spec::key_dim;
  }
  __device__ float* Record(int position) const {
    return reinterpret_cast<float*>(base + at.ring + at.record_bytes * (position % ring_rows));
  }
  __device__ void* ConvRow(int position) const {
    return base + at.conv + at.conv_row_bytes * (position % conv_rows);
  }

  unsigned char* base;
  SlotLayout at;
  int ring_rows, conv_rows;
};

/// A block's part of S. Lane `sub` of a row's eight has columns 32 i + 4 sub ... + 3.
template <class Spec>
struct GdnState {
  static constexpr int kGroups = (Spec::key_dim + 31) / 32;
  // Rows of S and keys start at multiples of 16 bytes; those of a record do where its parts before them do.
  static constexpr bool kVector = Spec::key_dim % 4 == 0;
  static constexpr bool kVectorRecord = kVector && (GdnSlot<Spec>::kValues + Spec::value_heads) % 4 == 0;

  __device__ GdnState(int part) : sub(threadIdx.x % 8), first(part * kGdnPartRows + threadIdx.x / 8) {}
  __device__ int row(int pass) const { return first + pass * (kGdnThreads / 8); }

  template <bool kWide>
  static __device__ __forceinline__ void LoadFour(const float* from, int c, float (&v)[4]) {
    if constexpr (kWide) {
      float4 four{};
      if (c < Spec::key_dim) four = *reinterpret_cast<const float4*>(from + c);
      v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) v[e] = c + e < Spec::key_dim ? from[c + e] : 0;
    }
  }
  __device__ __forceinline__ void Load(const float* rows) {
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass)
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        if (rows && row(pass) < Spec::value_dim)
          LoadFour<kVector>(rows + row(pass) * Spec::key_dim, 32 * i + 4 * sub, s[pass][i]);
        else
          s[pass][i][0] = s[pass][i][1] = s[pass][i][2] = s[pass][i][3] = 0;
      }
  }
  __device__ __forceinline__ void Store(float* rows) const {
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass) {
      if (row(pass) >= Spec::value_dim) continue;
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        const int c = 32 * i + 4 * sub;
        float* to = rows + row(pass) * Spec::key_dim + c;
        const float(&v)[4] = s[pass][i];
        if constexpr (kVector) {
          if (c < Spec::key_dim) *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
        } else {
#pragma unroll
          for (int e = 0; e < 4; ++e)
            if (c + e < Spec::key_dim) to[e] = v[e];
        }
      }
    }
  }

  /// S <- e^g S + u k^T.
  __device__ __forceinline__ void Fold(const float (&k)[kGroups][4], const float (&u)[kGdnPasses], float decay) {
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass)
#pragma unroll
      for (int i = 0; i < kGroups; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[pass][i][e] = fmaf(u[pass], k[i][e], s[pass][i][e] * decay);
  }

  /// (e^g S) x, on all eight lanes of a row.
  __device__ __forceinline__ void Times(const float (&x)[kGroups][4], float decay, float (&sum)[kGdnPasses]) const {
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass) {
      sum[pass] = 0;
#pragma unroll
      for (int i = 0; i < kGroups; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[pass] = fmaf(s[pass][i][e] * decay, x[i][e], sum[pass]);
    }
#pragma unroll
    for (int step = 4; step > 0; step /= 2)
#pragma unroll
      for (int pass = 0; pass < kGdnPasses; ++pass) sum[pass] += __shfl_xor_sync(0xffffffffu, sum[pass], step);
  }

  const int sub, first;
  float s[kGdnPasses][kGroups][4];
};

/// Records position - fill ... position - 1 of a value head into S.
template <class Spec>
__device__ __forceinline__ void GdnFoldRecords(const GdnSlot<Spec>& slot, int head, int position, int fill,
                                               GdnState<Spec>& state) {
  constexpr int kRatio = Spec::value_heads / Spec::key_heads;
#pragma unroll 1
  for (int p = position - fill; p < position; ++p) {
    const float* record = slot.Record(p);
    float k[GdnState<Spec>::kGroups][4], u[kGdnPasses];
#pragma unroll
    for (int i = 0; i < GdnState<Spec>::kGroups; ++i)
      GdnState<Spec>::template LoadFour<GdnState<Spec>::kVectorRecord>(record + head / kRatio * Spec::key_dim,
                                                                       32 * i + 4 * state.sub, k[i]);
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass)
      u[pass] = state.row(pass) < Spec::value_dim
                    ? record[GdnSlot<Spec>::kKeys + head * Spec::value_dim + state.row(pass)]
                    : 0;
    state.Fold(k, u, expf(record[GdnSlot<Spec>::kKeys + GdnSlot<Spec>::kValues + head]));
  }
}

template <class Spec>
struct GdnShared {
  static constexpr int kKeyRow = GdnState<Spec>::kGroups * 32;
  float q[kKeyRow], k[kKeyRow];  // zero behind key_dim
  float v[kGdnPartRows];
  float scale[2];
};

/// One sequence's rows for 32 rows of one value head.
template <class Spec, bool kLong>
__device__ void GdnSequence(const Launch<kGdnArgs>& launch, int seq, int head, int part, int ticket,
                            GdnShared<Spec>& shared) {
  using T = Element<Spec::x_type>;
  using Gate = Element<Spec::ba_type>;
  constexpr int kRatio = Spec::value_heads / Spec::key_heads, kChannels = 2 * GdnSlot<Spec>::kKeys + GdnSlot<Spec>::kValues;
  constexpr int kHistory = Spec::width - 1;
  static_assert(kHistory <= kGdnHistory, "the conv ring keeps three rows of the past");
  // Channels of a row that the block needs: the key head's q and k, its own part of v.
  constexpr int kMine = 2 * Spec::key_dim + kGdnPartRows, kPerThread = (kMine + kGdnThreads - 1) / kGdnThreads;
  if (launch.batch.state_slot[seq] < 0) return;
  const int tid = threadIdx.x, key_head = head / kRatio;
  const bool writes_keys = head % kRatio == 0 && part == 0;
  const long long token = launch.batch.cu_tokens[seq];
  const int rows = launch.batch.cu_tokens[seq + 1] - launch.batch.cu_tokens[seq];
  const int position = launch.batch.position[seq], fill = launch.batch.ring_fill[seq];
  const GdnSlot<Spec> slot(launch.state, launch.args[kGdnState], launch.batch.state_slot[seq]);
  const T* qkv = static_cast<const T*>(launch.args[kGdnQkv]);

  // First of all, as it takes longest. With nothing but unfolded rows behind it S0 is zero, and was never written.
  GdnState<Spec> state(part);
  state.Load(position > fill ? slot.Rows(head) : nullptr);

  // Filters, and the rows before the first one; rows before the sequence are zero.
  int channel[kPerThread];
  float taps[kPerThread][Spec::width], past[kPerThread][kGdnHistory + 1];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int c = tid + i * kGdnThreads, v = part * kGdnPartRows + c - 2 * Spec::key_dim;
    channel[i] = c < Spec::key_dim       ? key_head * Spec::key_dim + c
                 : c < 2 * Spec::key_dim ? (Spec::key_heads + key_head - 1) * Spec::key_dim + c
                 : c < kMine && v < Spec::value_dim
                     ? 2 * GdnSlot<Spec>::kKeys + head * Spec::value_dim + v
                     : -1;
    if (channel[i] < 0) continue;
#pragma unroll
    for (int j = 0; j < Spec::width; ++j)
      taps[i][j] = static_cast<const float*>(launch.args[kGdnConv])[channel[i] * Spec::width + j];
#pragma unroll
    for (int j = 0; j < kHistory; ++j) {
      const int p = position - kHistory + j;
      past[i][j] = p >= 0 ? ToFloat(static_cast<const T*>(slot.ConvRow(p))[channel[i]]) : 0;
    }
  }
  // The last block of a key head to have read the old conv rows is the one that may overwrite them.
  bool overwrites = false;
  if constexpr (kLong)
    overwrites = LastToArrive(reinterpret_cast<unsigned*>(launch.shared) + ticket * Spec::key_heads + key_head,
                              kRatio * ((Spec::value_dim + kGdnPartRows - 1) / kGdnPartRows));
#pragma unroll 1
  for (int c = Spec::key_dim + tid; c < GdnShared<Spec>::kKeyRow; c += kGdnThreads) shared.q[c] = shared.k[c] = 0;

  GdnFoldRecords(slot, head, position, fill, state);
  if (!kLong && fill > 0 && launch.batch.fold[seq]) state.Store(slot.Rows(head));

  const float decay_rate = -expf(static_cast<const float*>(launch.args[kGdnALog])[head]);
  const float dt_bias = static_cast<const float*>(launch.args[kGdnDtBias])[head];
  for (int t = 0; t < rows; ++t) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (channel[i] < 0) continue;
      const T raw = qkv[(token + t) * kChannels + channel[i]];
      past[i][kHistory] = ToFloat(raw);
      float sum = taps[i][0] * past[i][0];
#pragma unroll
      for (int j = 1; j < Spec::width; ++j) sum = fmaf(taps[i][j], past[i][j], sum);
#pragma unroll
      for (int j = 0; j < kHistory; ++j) past[i][j] = past[i][j + 1];
      const int c = tid + i * kGdnThreads;
      float* to = c < Spec::key_dim       ? shared.q + c
                  : c < 2 * Spec::key_dim ? shared.k + c - Spec::key_dim
                                          : shared.v + c - 2 * Spec::key_dim;
      *to = Silu(sum);
      if (!kLong && (writes_keys || c >= 2 * Spec::key_dim))
        static_cast<T*>(slot.ConvRow(position + t))[channel[i]] = raw;
    }
    __syncthreads();
    if (tid < 64) {
      const float* x = tid < 32 ? shared.q : shared.k;
      float squares = 0;
      for (int c = tid % 32; c < Spec::key_dim; c += 32) squares = fmaf(x[c], x[c], squares);
      squares = WarpSum(squares);
      if (tid % 32 == 0) shared.scale[tid / 32] = 1 / sqrtf(squares + Spec::l2_eps) * (tid < 32 ? Spec::q_scale : 1.0f);
    }
    __syncthreads();

    const long long gate_at = (token + t) * Spec::value_heads + head;
    const float a = ToFloat(static_cast<const Gate*>(launch.args[kGdnA])[gate_at]) + dt_bias;
    const float g = decay_rate * (a > 20 ? a : log1pf(expf(a))), decay = expf(g);
    const float beta = Sigmoid(ToFloat(static_cast<const Gate*>(launch.args[kGdnB])[gate_at]));
    float q[GdnState<Spec>::kGroups][4], k[GdnState<Spec>::kGroups][4], u[kGdnPasses], o[kGdnPasses];
#pragma unroll
    for (int i = 0; i < GdnState<Spec>::kGroups; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        q[i][e] = shared.q[32 * i + 4 * state.sub + e] * shared.scale[0];
        k[i][e] = shared.k[32 * i + 4 * state.sub + e] * shared.scale[1];
      }
    state.Times(k, decay, u);
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass) {
      const int row = state.row(pass);
      u[pass] = row < Spec::value_dim ? beta * (shared.v[row - part * kGdnPartRows] - u[pass]) : 0;
    }
    state.Fold(k, u, decay);
    state.Times(q, 1, o);
    float* record = slot.Record(position + t);
#pragma unroll
    for (int pass = 0; pass < kGdnPasses; ++pass) {
      const int row = state.row(pass);
      if (state.sub != 0 || row >= Spec::value_dim) continue;
      static_cast<T*>(launch.args[kGdnO])[gate_at * Spec::value_dim + row] = FromFloat<T>(o[pass]);
      if constexpr (!kLong) record[GdnSlot<Spec>::kKeys + head * Spec::value_dim + row] = u[pass];
    }
    if constexpr (!kLong) {
      if (writes_keys && state.first % kGdnPartRows == 0) {  // the eight lanes of the first row
#pragma unroll
        for (int i = 0; i < GdnState<Spec>::kGroups; ++i)
#pragma unroll
          for (int e = 0; e < 4; ++e)
            if (const int c = 32 * i + 4 * state.sub + e; c < Spec::key_dim) record[key_head * Spec::key_dim + c] = k[i][e];
      }
      if (part == 0 && tid == 0) record[GdnSlot<Spec>::kKeys + GdnSlot<Spec>::kValues + head] = g;
    }
    __syncthreads();  // q, k and v are read; the next row's may come
  }

  if constexpr (kLong) {
    state.Store(slot.Rows(head));
#pragma unroll 1
    for (int t = max(rows - kHistory, 0); t < rows; ++t) {
      const T* from = qkv + (token + t) * kChannels;
      T* to = static_cast<T*>(slot.ConvRow(position + t));
      // v's channels are this block's alone; q's and k's belong to whoever came last.
#pragma unroll
      for (int i = 0; i < kPerThread; ++i)
        if (channel[i] >= 0 && (overwrites || tid + i * kGdnThreads >= 2 * Spec::key_dim)) to[channel[i]] = from[channel[i]];
    }
  }
}

/// grid: (sequence, value head, part), the part fastest.
template <class Spec, bool kLong>
__device__ void GdnGrid(const Launch<kGdnArgs>& launch) {
  if constexpr (Spec::value_heads > 0) {
    constexpr int kParts = (Spec::value_dim + kGdnPartRows - 1) / kGdnPartRows;
    __shared__ GdnShared<Spec> shared;
    const int part = blockIdx.x % kParts, head = blockIdx.x / kParts % Spec::value_heads;
    const int item = blockIdx.x / kParts / Spec::value_heads, num_short = launch.batch.counts[kNumShort];
    const int seq = kLong ? num_short + item : item;
    if (seq < (kLong ? launch.batch.counts[kNumSeqs] : num_short))
      GdnSequence<Spec, kLong>(launch, seq, head, part, item, shared);
  }
}
template <class Spec>
__device__ void GdnDecode(const Launch<kGdnArgs>& launch) {
  GdnGrid<Spec, false>(launch);
}
template <class Spec>
__device__ void GdnScan(const Launch<kGdnArgs>& launch) {
  GdnGrid<Spec, true>(launch);
}

/// fold(S0, ring) of the first sequence's slot, which stays as it is. grid: (value head, part).
template <class Spec>
__device__ void GdnFold(const Launch<kGdnFoldArgs>& launch) {
  if constexpr (Spec::value_heads > 0) {
    constexpr int kParts = (Spec::value_dim + kGdnPartRows - 1) / kGdnPartRows;
    const int part = blockIdx.x % kParts, head = blockIdx.x / kParts;
    const int position = launch.batch.position[0], fill = launch.batch.ring_fill[0];
    const GdnSlot<Spec> slot(launch.state, launch.args[kGdnFoldState], launch.batch.state_slot[0]);
    GdnState<Spec> state(part);
    state.Load(position > fill ? slot.Rows(head) : nullptr);
    GdnFoldRecords(slot, head, position, fill, state);
    state.Store(static_cast<float*>(launch.args[kGdnFoldBase]) +
                static_cast<long long>(head) * Spec::value_dim * Spec::key_dim);
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_GDN_GDN_CUH_
