// One item is one key head of one sequence: its q, k and v channels, its value heads, their state. Nothing is shared
// between items, so there is no barrier and no order among them.
//
// S is kept V-first, so its rows are independent of each other: four of them at a time stay in the first-level cache
// while the ring's records and then a block of rows pass over them. The block size and the four change no bit; what is
// done to an element of S, by GdnFoldRows and GdnStepRows, is the same for decode, prompts and snapshots.

using cpu::kGdnBlock, cpu::kGdnRows;

/// What happens to one value head's S in one pass.
struct GdnPass {
  int dk, dk16, dv, dv16;
  const float* from;  // S before, rows of `from_stride`; nullptr: zero
  long long from_stride;
  int folds;                   // records that come first
  const float* fold_k;         // [folds][dk16]
  const float* const* fold_u;  // [folds] -> [dv]
  const float* fold_decay;     // [folds] e^g
  float* folded;               // S after the records, rows of dk; nullptr: not kept
  int rows;
  const float *q, *k;  // [rows][dk16]
  const float* v;      // [rows], `v_stride` apart
  long long v_stride;
  const float *beta, *decay;  // [rows]
  float* const* u;            // [rows] -> [dv], or nullptr
  float* o;                   // [rows][dv16]
  float* to;                  // S at the end, rows of `to_stride`; nullptr: not kept
  long long to_stride;
};

/// S <- e^g S; S <- S + u k^T, for all records in order. Sixteen columns of the rows stay in registers meanwhile: a record
/// costs a product and an fma an element, and no load or store of S.
template <int kRows>
QWEN_INLINE void GdnFoldRows(const GdnPass& p, int first, float* s) {
  for (int c = 0; c < p.dk16; c += kLanes) {
    const int run = Min(kLanes, p.dk - c);
    F16 x[kRows];
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i)
      x[i] = p.from && run > 0 ? LoadPart(p.from + (first + i) * p.from_stride + c, run) : Splat(0);
    for (int f = 0; f < p.folds; ++f) {
      const F16 kc = Load(p.fold_k + static_cast<long long>(f) * p.dk16 + c), decay = Splat(p.fold_decay[f]);
      const float* u = p.fold_u[f] + first;
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) x[i] = Fma(Splat(u[i]), kc, x[i] * decay);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) Store(s + i * p.dk16 + c, x[i]);
  }
}

/// u = beta (v - (e^g S) k); then as a record; o = S q. S itself is written only where it is needed again.
template <int kRows, bool kKeep>
QWEN_INLINE void GdnStepRows(float* s, int dk16, const float* q, const float* k, const float* v, float beta, float decay,
                            float* u, float* o) {
  F16 sum[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) sum[i] = Splat(0);
  for (int c = 0; c < dk16; c += kLanes) {
    F16 kc = Load(k + c);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) sum[i] = Fma(Load(s + i * dk16 + c) * Splat(decay), kc, sum[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    u[i] = beta * (v[i] - SumLanes(sum[i]));
    sum[i] = Splat(0);
  }
  for (int c = 0; c < dk16; c += kLanes) {
    F16 kc = Load(k + c), qc = Load(q + c);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      float* at = s + i * dk16 + c;
      F16 next = Fma(Splat(u[i]), kc, Load(at) * Splat(decay));
      if (kKeep) Store(at, next);
      sum[i] = Fma(next, qc, sum[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) o[i] = SumLanes(sum[i]);
}

inline void GdnStoreRows(const float* s, const GdnPass& p, int rows, float* to, long long stride) {
  for (int i = 0; i < rows; ++i)
    ForRuns(p.dk, [&](int c, int run) { StorePart(to + i * stride + c, Load(s + i * p.dk16 + c), run); });
}

template <int kRows>
inline __attribute__((noinline)) void GdnRunRows(const GdnPass& p, int first, float* s) {
  GdnFoldRows<kRows>(p, first, s);
  if (p.folded) GdnStoreRows(s, p, kRows, p.folded + static_cast<long long>(first) * p.dk, p.dk);
  for (int t = 0; t < p.rows; ++t) {
    float u[kRows];
    const long long at = static_cast<long long>(t) * p.dk16;
    const auto step = p.to || t + 1 < p.rows ? GdnStepRows<kRows, true> : GdnStepRows<kRows, false>;
    step(s, p.dk16, p.q + at, p.k + at, p.v + t * p.v_stride + first, p.beta[t], p.decay[t], u,
         p.o + static_cast<long long>(t) * p.dv16 + first);
    if (p.u)
      for (int i = 0; i < kRows; ++i) p.u[t][first + i] = u[i];
  }
  if (p.to) GdnStoreRows(s, p, kRows, p.to + first * p.to_stride, p.to_stride);
}

inline void GdnRun(const GdnPass& p, float* s) {
  int first = 0;
  for (; first + kGdnRows <= p.dv; first += kGdnRows) GdnRunRows<kGdnRows>(p, first, s);
  for (; first < p.dv; ++first) GdnRunRows<1>(p, first, s);
}

/// Where a sequence's state lies.
struct GdnSlot {
  unsigned char* base;
  SlotLayout at;
  int ring_rows, conv_rows;

  float* S0() const { return reinterpret_cast<float*>(base + at.base); }
  float* Record(long long position) const {
    return reinterpret_cast<float*>(base + at.ring + at.record_bytes * (position % ring_rows));
  }
  unsigned char* ConvRow(long long position) const {
    return base + at.conv + at.conv_row_bytes * (position % conv_rows);
  }
};
QWEN_INLINE GdnSlot GdnSlotOf(const GdnSpec& s, const Launch& l, void* layer, int slot) {
  return {static_cast<unsigned char*>(layer) + slot * l.state->slot_bytes,
          MakeSlotLayout(s.key_heads, s.value_heads, s.key_dim, s.value_dim, s.x_type, l.state->ring_rows,
                         l.state->conv_rows),
          l.state->ring_rows, l.state->conv_rows};
}

/// One key head's working space, cut from the thread's scratch.
struct GdnSpace {
  int dk16, rv16, width;  // a row is q | k | v, each padded to sixteen
  float *taps, *x, *q, *k, *v, *fold_k, *beta, *decay, *fold_decay, *o, *s, *carry;
};
/// As cpu::GdnScratch counts.
inline GdnSpace GdnCut(const GdnSpec& s, float* next) {
  const int ratio = s.value_heads / s.key_heads;
  GdnSpace w;
  w.dk16 = RoundUp16(s.key_dim), w.rv16 = RoundUp16(ratio * s.value_dim);
  w.width = 2 * w.dk16 + w.rv16;
  auto take = [&](long long floats) {
    float* at = next;
    next += floats;
    return at;
  };
  w.taps = take(1LL * s.width * w.width);
  w.x = take((s.width - 1LL + kGdnBlock) * w.width);
  w.q = take(1LL * kGdnBlock * w.dk16);
  w.k = take(1LL * kGdnBlock * w.dk16);
  w.fold_k = take(1LL * kGdnBlock * w.dk16);
  w.v = take(1LL * kGdnBlock * w.rv16);
  w.o = take(1LL * kGdnBlock * RoundUp16(s.value_dim));
  w.s = take(1LL * kGdnRows * w.dk16);
  w.carry = take(1LL * ratio * s.value_dim * w.dk16);
  w.beta = take(1LL * ratio * kGdnBlock);
  w.decay = take(1LL * ratio * kGdnBlock);
  w.fold_decay = take(1LL * ratio * kGdnBlock);
  return w;
}

/// The head's three runs of channels: visit(first channel, channels, first column of a scratch row).
template <class Visit>
QWEN_INLINE void GdnParts(const GdnSpec& s, const GdnSpace& w, int head, Visit visit) {
  const int ratio = s.value_heads / s.key_heads;
  visit(head * s.key_dim, s.key_dim, 0);
  visit((s.key_heads + head) * s.key_dim, s.key_dim, w.dk16);
  visit(2 * s.key_heads * s.key_dim + head * ratio * s.value_dim, ratio * s.value_dim, 2 * w.dk16);
}
inline void GdnLoadRow(const GdnSpec& s, const GdnSpace& w, int head, const void* row, float* to) {
  GdnParts(s, w, head, [&](int channel, int count, int column) {
    ForRuns(count, [&](int i, int run) { Store(to + column + i, LoadTyped(s.x_type, row, channel + i, run)); });
  });
}

/// Records P - R + first ... into fold_k and fold_decay; u stays in the ring.
inline void GdnLoadRecords(const GdnSpec& s, const GdnSpace& w, const GdnSlot& slot, int head, long long position,
                           int count) {
  const int ratio = s.value_heads / s.key_heads;
  for (int f = 0; f < count; ++f) {
    const float* record = slot.Record(position + f);
    ForRuns(s.key_dim, [&](int i, int run) {
      Store(w.fold_k + static_cast<long long>(f) * w.dk16 + i, LoadPart(record + head * s.key_dim + i, run));
    });
    const float* g = record + s.key_heads * s.key_dim + s.value_heads * s.value_dim + head * ratio;
    for (int r = 0; r < ratio; ++r) w.fold_decay[r * kGdnBlock + f] = __builtin_expf(g[r]);
  }
}

/// The head's taps of the convolution, [width][w.width].
inline void GdnLoadTaps(const GdnSpec& s, const GdnSpace& w, const Launch& l, int head) {
  for (int i = 0; i < s.width * w.width; ++i) w.taps[i] = 0;
  GdnParts(s, w, head, [&](int channel, int count, int column) {
    const float* conv = static_cast<const float*>(l.args[kGdnConv]) + 1LL * channel * s.width;
    for (int c = 0; c < count; ++c)
      for (int j = 0; j < s.width; ++j) w.taps[j * w.width + column + c] = conv[c * s.width + j];
  });
}

/// The sequence's rows [first, first + count) for one key head: convolution, SiLU, L2 norms and gates.
inline void GdnPrepare(const GdnSpec& s, const GdnSpace& w, const Launch& l, int head, long long token, int count,
                       float* const* g_to) {
  const int ratio = s.value_heads / s.key_heads;
  for (int t = 0; t < count; ++t) {
    const float* x = w.x + static_cast<long long>(t) * w.width;
    float* parts[3] = {w.q + static_cast<long long>(t) * w.dk16, w.k + static_cast<long long>(t) * w.dk16,
                       w.v + static_cast<long long>(t) * w.rv16};
    for (int c = 0; c < w.width; c += kLanes) {
      F16 sum = Load(w.taps + c) * Load(x + c);
      for (int j = 1; j < s.width; ++j)
        sum = Fma(Load(w.taps + j * w.width + c), Load(x + static_cast<long long>(j) * w.width + c), sum);
      const int part = c < w.dk16 ? 0 : c < 2 * w.dk16 ? 1 : 2;
      Store(parts[part] + c - part * w.dk16, Silu(sum));
    }
    for (int part = 0; part < 2; ++part) {
      float scale = 1.0f / __builtin_sqrtf(SumSquares(parts[part], s.key_dim) + s.l2_eps);
      if (part == 0) scale *= s.q_scale;
      for (int c = 0; c < w.dk16; c += kLanes) Store(parts[part] + c, Load(parts[part] + c) * Splat(scale));
    }
    for (int r = 0; r < ratio; ++r) {
      const int value_head = head * ratio + r;
      const long long at = (token + t) * s.value_heads + value_head;
      const float a = LoadOne(s.ba_type, l.args[kGdnA], at) + static_cast<const float*>(l.args[kGdnDtBias])[value_head];
      const float softplus = a > 20.0f ? a : __builtin_log1pf(__builtin_expf(a));
      const float g = -__builtin_expf(static_cast<const float*>(l.args[kGdnALog])[value_head]) * softplus;
      w.beta[r * kGdnBlock + t] = SigmoidOne(LoadOne(s.ba_type, l.args[kGdnB], at));
      w.decay[r * kGdnBlock + t] = __builtin_expf(g);
      if (g_to) g_to[t][r] = g;
    }
  }
}

inline void GdnHead(const GdnSpec& s, const GdnSpace& w, const Launch& l, int seq, int head, bool is_long) {
  const BatchView& batch = *l.batch;
  const int ratio = s.value_heads / s.key_heads, channels = s.conv_channels(), history = s.width - 1;
  const long long token = batch.cu_tokens[seq], position = batch.position[seq];
  const int rows = batch.cu_tokens[seq + 1] - batch.cu_tokens[seq], fill = batch.ring_fill[seq];
  const GdnSlot slot = GdnSlotOf(s, l, l.args[kGdnState], batch.state_slot[seq]);
  const unsigned char* qkv = static_cast<const unsigned char*>(l.args[kGdnQkv]);
  const long long row_bytes = 1LL * channels * DTypeBytes(s.x_type);
  auto keep_conv_row = [&](int row) {
    const unsigned char* from = qkv + (token + row) * row_bytes;
    unsigned char* to = slot.ConvRow(position + row);
    const int bytes = DTypeBytes(s.x_type);
    GdnParts(s, w, head, [&](int channel, int count, int) {
      __builtin_memcpy(to + 1LL * channel * bytes, from + 1LL * channel * bytes, 1LL * count * bytes);
    });
  };

  // Rows before the sequence are zero; the slot may hold another's there.
  for (int j = 0; j < history; ++j) {
    float* to = w.x + static_cast<long long>(j) * w.width;
    const long long p = position - history + j;
    if (p >= 0)
      GdnLoadRow(s, w, head, slot.ConvRow(p), to);
    else
      for (int c = 0; c < w.width; ++c) to[c] = 0;
  }

  int folded = 0, done = 0;
  bool first_pass = true;
  do {
    const int folds = Min(kGdnBlock, fill - folded);
    GdnLoadRecords(s, w, slot, head, position - fill + folded, folds);
    const long long first_record = position - fill + folded;
    folded += folds;
    const int count = folded == fill ? Min(kGdnBlock, rows - done) : 0;
    float *g_to[kGdnBlock], *u_to[kGdnBlock];
    for (int t = 0; t < count; ++t) {
      GdnLoadRow(s, w, head, qkv + (token + done + t) * row_bytes, w.x + static_cast<long long>(history + t) * w.width);
      if (is_long) continue;
      keep_conv_row(done + t);
      g_to[t] = slot.Record(position + done + t) + s.key_heads * s.key_dim + s.value_heads * s.value_dim + head * ratio;
    }
    GdnPrepare(s, w, l, head, token + done, count, is_long ? nullptr : g_to);
    if (!is_long)
      for (int t = 0; t < count; ++t)
        ForRuns(s.key_dim, [&](int i, int run) {
          StorePart(slot.Record(position + done + t) + head * s.key_dim + i,
                    Load(w.k + static_cast<long long>(t) * w.dk16 + i), run);
        });

    const bool last_pass = folded == fill && done + count == rows;
    for (int r = 0; r < ratio; ++r) {
      const int value_head = head * ratio + r;
      float* s0 = slot.S0() + 1LL * value_head * s.value_dim * s.key_dim;
      float* carry = w.carry + 1LL * r * s.value_dim * w.dk16;
      const long long u_at = 1LL * s.key_heads * s.key_dim + 1LL * value_head * s.value_dim;
      const float* fold_u[kGdnBlock];
      for (int f = 0; f < folds; ++f) fold_u[f] = slot.Record(first_record + f) + u_at;
      for (int t = 0; t < count; ++t) u_to[t] = slot.Record(position + done + t) + u_at;
      GdnPass p{};
      p.dk = s.key_dim, p.dk16 = w.dk16, p.dv = s.value_dim, p.dv16 = RoundUp16(s.value_dim);
      // With nothing but unfolded rows behind it S0 is zero, and was never written.
      if (first_pass)
        p.from = position == fill ? nullptr : s0, p.from_stride = s.key_dim;
      else if (is_long)
        p.from = s0, p.from_stride = s.key_dim;
      else
        p.from = carry, p.from_stride = w.dk16;
      p.folds = folds, p.fold_k = w.fold_k, p.fold_u = fold_u, p.fold_decay = w.fold_decay + r * kGdnBlock;
      if (!is_long && batch.fold[seq] && fill > 0 && folded == fill && done == 0) p.folded = s0;
      p.rows = count, p.q = w.q, p.k = w.k, p.v = w.v + 1LL * r * s.value_dim, p.v_stride = w.rv16;
      p.beta = w.beta + r * kGdnBlock, p.decay = w.decay + r * kGdnBlock;
      p.u = is_long ? nullptr : u_to, p.o = w.o;
      if (is_long)
        p.to = s0, p.to_stride = s.key_dim;
      else if (!last_pass)
        p.to = carry, p.to_stride = w.dk16;
      GdnRun(p, w.s);
      for (int t = 0; t < count; ++t)
        ForRuns(s.value_dim, [&](int i, int run) {
          StoreTyped(s.x_type, l.args[kGdnO], ((token + done + t) * s.value_heads + value_head) * s.value_dim + i,
                     Load(w.o + static_cast<long long>(t) * p.dv16 + i), run);
        });
    }
    // The block's last rows are the next one's history.
    for (int j = 0; j < history; ++j)
      for (int c = 0; c < w.width; ++c)
        w.x[static_cast<long long>(j) * w.width + c] = w.x[static_cast<long long>(count + j) * w.width + c];
    done += count;
    first_pass = false;
  } while (folded < fill || done < rows);
  if (is_long)
    for (int row = rows > history ? rows - history : 0; row < rows; ++row) keep_conv_row(row);
}

/// Sequences [begin, end), dealt out by their rows.
inline void GdnSequences(const void* spec, const Launch& l, int begin, int end, bool is_long) {
  const GdnSpec& s = *static_cast<const GdnSpec*>(spec);
  if (s.key_heads == 0 || begin >= end) return;
  const GdnSpace w = GdnCut(s, reinterpret_cast<float*>(l.scratch));
  const int* cu = l.batch->cu_tokens;
  const long long each = 4;  // what a head costs beside its rows
  const long long total = (cu[end] - cu[begin] + each * (end - begin)) * s.key_heads;
  // Head by head: the taps are laid out once for all sequences.
  long long before = 0;
  for (int head = 0, taps = -1; head < s.key_heads; ++head)
    for (int seq = begin; seq < end; ++seq) {
      const long long cost = cu[seq + 1] - cu[seq] + each;
      if (l.batch->state_slot[seq] >= 0 && Owns(l, before, cost, total)) {
        if (taps != head) GdnLoadTaps(s, w, l, taps = head);
        GdnHead(s, w, l, seq, head, is_long);
      }
      before += cost;
    }
}

inline void GdnDecode(const void* spec, const Launch& l) { GdnSequences(spec, l, 0, l.batch->num_short, false); }
inline void GdnScan(const void* spec, const Launch& l) {
  GdnSequences(spec, l, l.batch->num_short, l.batch->num_seqs, true);
}

/// fold(S0, ring) of slot state_slot[0] at position[0] into a copy: the state part of a snapshot.
inline void GdnFold(const void* spec, const Launch& l) {
  const GdnSpec& s = *static_cast<const GdnSpec*>(spec);
  if (s.key_heads == 0) return;
  const GdnSpace w = GdnCut(s, reinterpret_cast<float*>(l.scratch));
  const int ratio = s.value_heads / s.key_heads, fill = l.batch->ring_fill[0];
  const long long position = l.batch->position[0];
  const GdnSlot slot = GdnSlotOf(s, l, l.args[kGdnFoldState], l.batch->state_slot[0]);
  const Range share = ShareOf(l, s.key_heads);
  for (int head = static_cast<int>(share.begin); head < share.end; ++head) {
    int folded = 0;
    do {
      const int folds = Min(kGdnBlock, fill - folded);
      const long long first_record = position - fill + folded;
      GdnLoadRecords(s, w, slot, head, first_record, folds);
      for (int r = 0; r < ratio; ++r) {
        const int value_head = head * ratio + r;
        const long long at = 1LL * value_head * s.value_dim * s.key_dim;
        float* out = static_cast<float*>(l.args[kGdnFoldBase]) + at;
        const float* fold_u[kGdnBlock];
        for (int f = 0; f < folds; ++f)
          fold_u[f] = slot.Record(first_record + f) + 1LL * s.key_heads * s.key_dim + 1LL * value_head * s.value_dim;
        GdnPass p{};
        p.dk = s.key_dim, p.dk16 = w.dk16, p.dv = s.value_dim, p.dv16 = RoundUp16(s.value_dim);
        p.from = folded > 0 ? out : position == fill ? nullptr : slot.S0() + at;
        p.from_stride = p.to_stride = s.key_dim;
        p.folds = folds, p.fold_k = w.fold_k, p.fold_u = fold_u, p.fold_decay = w.fold_decay + r * kGdnBlock;
        p.to = out;
        GdnRun(p, w.s);
      }
      folded += folds;
    } while (folded < fill);
  }
}
