// One item is one KV head of one sequence: it writes its keys and values, then its query heads read them. No other item
// touches them, so append and attention need no barrier between.
//
// Softmax runs online, page by page in order of position, with one rescale a page. A row sees the same pages in the
// same order however its prompt was cut, and its keys are summed one by one within a page: same bits.

using cpu::kAttnRows, cpu::kPageTokens;

/// sin and cos of `angle`, reduced in f64: right to the last bit or so at any position.
QWEN_INLINE void SinCos(float angle, float* sin, float* cos) {
  double x = angle;
  double shifted = x * 0.63661977236758134 + 6755399441055744.0;  // to the nearest integer, in the low bits
  long long quadrant;
  __builtin_memcpy(&quadrant, &shifted, 8);
  double r = x - (shifted - 6755399441055744.0) * 1.5707963267948966;
  double z = r * r;
  double s = r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 - z * (1.0 / 39916800)))));
  double c =
      1 +
      z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
  double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
  *sin = static_cast<float>(quadrant & 2 ? -a : a);
  *cos = static_cast<float>((quadrant + 1) & 2 ? -b : b);
}

struct AttnSpace {
  float *head, *sin, *cos;          // [head_dim], [freqs], [freqs]
  float *q, *sum, *highest, *norm;  // [rows][group]: [head_dim], [head_dim], one, one
  int d16;
};

inline void AttnAngles(const AttentionSpec& s, const AttnSpace& w, int position) {
  for (int j = 0; j < s.freqs; ++j) {
    SinCos(static_cast<float>(position) * s.inv_freq[j], w.sin + j, w.cos + j);
    w.sin[j] *= s.attention_factor;
    w.cos[j] *= s.attention_factor;
  }
}
inline void AttnRotate(const AttentionSpec& s, const AttnSpace& w, float* x) {
  for (int j = 0; j < s.freqs; ++j) {
    const float a = x[j], b = x[j + s.freqs];
    x[j] = a * w.cos[j] - b * w.sin[j];
    x[j + s.freqs] = b * w.cos[j] + a * w.sin[j];
  }
}

/// Where a sequence's keys and values of one KV head lie: K of page token j at Keys(page) + j * head_dim elements.
struct AttnPages {
  unsigned char* layer;
  const int* table;
  long long page_bytes, head_bytes, values;
  int kv_head;

  unsigned char* Keys(int index) const { return layer + table[index] * page_bytes + kv_head * head_bytes; }
  unsigned char* Values(int index) const { return Keys(index) + values; }
};

inline void AttnAppend(const AttentionSpec& s, const Launch& l, const AttnSpace& w, const AttnPages& pages, int seq) {
  const long long token = l.batch->cu_tokens[seq];
  const int rows = l.batch->cu_tokens[seq + 1] - l.batch->cu_tokens[seq], bytes = DTypeBytes(s.cache_type);
  for (int t = 0; t < rows; ++t) {
    const int position = l.batch->position[seq] + t;
    const long long from = ((token + t) * s.kv_heads + pages.kv_head) * s.head_dim;
    const long long to = 1LL * (position % kPageTokens) * s.head_dim * bytes;
    unsigned char* value = pages.Values(position / kPageTokens) + to;
    WidenRow(s.type, l.args[kAttnV], from, s.head_dim, w.head);
    ForRuns(s.head_dim, [&](int i, int run) { StoreTyped(s.cache_type, value, i, LoadPart(w.head + i, run), run); });
    unsigned char* key = pages.Keys(position / kPageTokens) + to;
    WidenRow(s.type, l.args[kAttnK], from, s.head_dim, w.head);
    // Rounded once, as it goes into the cache.
    if (s.qk_norm)
      RmsNormRow(s.round_first ? s.type : DType::kF32, DType::kF32, w.head,
                 static_cast<const float*>(l.args[kAttnKNorm]), s.head_dim, s.eps, w.head);
    if (s.freqs > 0) {
      AttnAngles(s, w, position);
      AttnRotate(s, w, w.head);
    }
    ForRuns(s.head_dim, [&](int i, int run) { StoreTyped(s.cache_type, key, i, LoadPart(w.head + i, run), run); });
  }
}

/// Keys [begin, end) of a page for kHeads query heads of one row.
template <DType kType, int kHeads>
inline __attribute__((noinline)) void AttnPage(int head_dim, float scale, const void* keys, const void* values,
                                               int begin, int end, const float* q, float* sum, float* highest,
                                               float* norm) {
  const int d16 = RoundUp16(head_dim);
  float p[kHeads][kPageTokens], shrink[kHeads];
  for (int h = 0; h < kHeads; ++h)
    for (int j = 0; j < kPageTokens; ++j) p[h][j] = -__builtin_inff();
  for (int j = begin; j < end; ++j) {
    F16 dot[kHeads];
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) dot[h] = Splat(0);
    for (int c = 0; c < head_dim; c += kLanes) {
      F16 k = LoadTyped(kType, keys, static_cast<long long>(j) * head_dim + c, head_dim - c);
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) dot[h] = Fma(Load(q + h * d16 + c), k, dot[h]);
    }
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) p[h][j] = SumLanes(dot[h]) * scale;
  }
  for (int h = 0; h < kHeads; ++h) {
    float top = highest[h];
    for (int j = begin; j < end; ++j) top = p[h][j] > top ? p[h][j] : top;
    shrink[h] = __builtin_expf(highest[h] - top);
    highest[h] = top;
    for (int j = 0; j < kPageTokens; j += kLanes) Store(p[h] + j, Exp(Load(p[h] + j) - Splat(top)));
    for (int j = 0; j < begin; ++j) p[h][j] = 0;
    for (int j = end; j < kPageTokens; ++j) p[h][j] = 0;
    norm[h] = norm[h] * shrink[h] + SumLanes(Load(p[h]) + Load(p[h] + kLanes));
  }
  for (int c = 0; c < head_dim; c += kLanes) {
    F16 acc[kHeads];
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) acc[h] = Load(sum + h * d16 + c) * Splat(shrink[h]);
    for (int j = begin; j < end; ++j) {
      F16 v = LoadTyped(kType, values, static_cast<long long>(j) * head_dim + c, head_dim - c);
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) acc[h] = Fma(Splat(p[h][j]), v, acc[h]);
    }
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) Store(sum + h * d16 + c, acc[h]);
  }
}

template <int kHeads>
QWEN_INLINE void AttnPageOf(DType type, int head_dim, float scale, const void* keys, const void* values, int begin,
                            int end, const float* q, float* sum, float* highest, float* norm) {
  if (type == DType::kBF16)
    AttnPage<DType::kBF16, kHeads>(head_dim, scale, keys, values, begin, end, q, sum, highest, norm);
  else
    AttnPage<DType::kF32, kHeads>(head_dim, scale, keys, values, begin, end, q, sum, highest, norm);
}

/// The query heads `heads[0 .. group)` of rows [first, first + rows) of the sequence.
inline void AttnAttend(const AttentionSpec& s, const Launch& l, const AttnSpace& w, const AttnPages& pages, int seq,
                       const int* heads, int group, int first, int rows) {
  const BatchView& batch = *l.batch;
  const long long token = batch.cu_tokens[seq] + first;
  const int position = batch.position[seq] + first;
  const int last = batch.position[seq] + batch.cu_tokens[seq + 1] - batch.cu_tokens[seq] - 1;
  const int width = s.gate ? 2 * s.head_dim : s.head_dim;
  auto begin_of = [&](int p) { return s.window > 0 && p - s.window + 1 > 0 ? p - s.window + 1 : 0; };
  auto end_of = [&](int p) { return (s.block ? last : p) + 1; };

  for (int t = 0; t < rows; ++t) {
    if (s.freqs > 0) AttnAngles(s, w, position + t);
    for (int g = 0; g < group; ++g) {
      const int item = t * group + g;
      float* q = w.q + static_cast<long long>(item) * w.d16;
      float* sum = w.sum + static_cast<long long>(item) * w.d16;
      for (int c = 0; c < w.d16; ++c) q[c] = sum[c] = 0;
      w.highest[item] = -__builtin_inff();
      w.norm[item] = 0;
      WidenRow(s.type, l.args[kAttnQ], ((token + t) * s.q_heads + heads[g]) * width, s.head_dim, q);
      if (s.qk_norm)
        RmsNormRow(s.type, q, static_cast<const float*>(l.args[kAttnQNorm]), s.head_dim, s.eps, s.round_first, q);
      if (s.freqs > 0) {
        AttnRotate(s, w, q);
        ForRuns(s.head_dim, [&](int i, int run) { StorePart(q + i, RoundTo(s.type, LoadPart(q + i, run)), run); });
      }
    }
  }

  for (int page = begin_of(position) / kPageTokens; page * kPageTokens < end_of(position + rows - 1); ++page) {
    const void *keys = pages.Keys(page), *values = pages.Values(page);
    for (int t = 0; t < rows; ++t) {
      const int begin = MaxInt(begin_of(position + t) - page * kPageTokens, 0);
      const int end = Min(end_of(position + t) - page * kPageTokens, kPageTokens);
      if (begin >= end) continue;
      for (int g = 0; g < group;) {
        const int item = t * group + g;
        float* q = w.q + static_cast<long long>(item) * w.d16;
        float* sum = w.sum + static_cast<long long>(item) * w.d16;
        if (group - g >= 4) {
          AttnPageOf<4>(s.cache_type, s.head_dim, s.scale, keys, values, begin, end, q, sum, w.highest + item,
                        w.norm + item);
          g += 4;
        } else {
          AttnPageOf<1>(s.cache_type, s.head_dim, s.scale, keys, values, begin, end, q, sum, w.highest + item,
                        w.norm + item);
          g += 1;
        }
      }
    }
  }

  for (int t = 0; t < rows; ++t)
    for (int g = 0; g < group; ++g) {
      const int item = t * group + g;
      const long long row = (token + t) * s.q_heads + heads[g];
      ForRuns(s.head_dim, [&](int i, int run) {
        F16 o = LoadPart(w.sum + static_cast<long long>(item) * w.d16 + i, run) / Splat(w.norm[item]);
        if (s.gate) o = o * Sigmoid(LoadTyped(s.type, l.args[kAttnQ], row * width + s.head_dim + i, run));
        StoreTyped(s.type, l.args[kAttnO], row * s.head_dim + i, o, run);
      });
    }
}

/// Sequences [begin, end), dealt out by the keys their rows see.
inline void AttnSequences(const void* spec, const Launch& l, int begin, int end) {
  const AttentionSpec& s = *static_cast<const AttentionSpec*>(spec);
  const BatchView& batch = *l.batch;
  auto cost_of = [&](int seq) {
    const long long rows = batch.cu_tokens[seq + 1] - batch.cu_tokens[seq];
    return rows * (batch.position[seq] + rows + 64);
  };
  long long total = 0, before = 0;
  for (int seq = begin; seq < end; ++seq) total += cost_of(seq) * s.kv_heads;
  int group = 0;  // the most query heads of a KV head
  for (int kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
    int heads = 0;
    for (int h = 0; h < s.q_heads; ++h) heads += s.kv_map[h] == kv_head;
    group = MaxInt(group, heads);
  }
  AttnSpace w;
  w.d16 = RoundUp16(s.head_dim);
  const int freqs16 = RoundUp16(s.freqs);
  w.head = reinterpret_cast<float*>(l.scratch);
  w.sin = w.head + w.d16;
  w.cos = w.sin + freqs16;
  w.q = w.cos + freqs16;
  w.sum = w.q + static_cast<long long>(kAttnRows) * group * w.d16;
  w.highest = w.sum + static_cast<long long>(kAttnRows) * group * w.d16;
  w.norm = w.highest + kAttnRows * group;

  for (int seq = begin; seq < end; ++seq) {
    const long long cost = cost_of(seq);
    for (int kv_head = 0; kv_head < s.kv_heads; ++kv_head, before += cost) {
      if (batch.table_row[seq] < 0 || !Owns(l, before, cost, total)) continue;
      AttnPages pages;
      pages.layer = static_cast<unsigned char*>(l.args[kAttnCache]);
      pages.table = batch.page_table + static_cast<long long>(batch.table_row[seq]) * batch.max_pages;
      pages.page_bytes = l.state->page_bytes;
      pages.head_bytes = 1LL * kPageTokens * s.head_dim * DTypeBytes(s.cache_type);
      pages.values = pages.head_bytes * s.kv_heads;
      pages.kv_head = kv_head;
      if (s.append) AttnAppend(s, l, w, pages, seq);
      if (!s.attend) continue;
      int heads[kMaxQHeads], count = 0;
      for (int h = 0; h < s.q_heads; ++h)
        if (s.kv_map[h] == kv_head) heads[count++] = h;
      const int rows = batch.cu_tokens[seq + 1] - batch.cu_tokens[seq];
      for (int first = 0; count > 0 && first < rows; first += kAttnRows)
        AttnAttend(s, l, w, pages, seq, heads, count, first, Min(kAttnRows, rows - first));
    }
  }
}

inline void AttnDecode(const void* spec, const Launch& l) { AttnSequences(spec, l, 0, l.batch->num_short); }
inline void AttnPrefill(const void* spec, const Launch& l) {
  AttnSequences(spec, l, l.batch->num_short, l.batch->num_seqs);
}
