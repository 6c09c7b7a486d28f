// lm_head: a thread owns a run of vocabulary tiles. sample: a thread owns whole rows.

inline void LmHead(const void* spec, const Launch& l) {
  const LmHeadSpec& s = *static_cast<const LmHeadSpec*>(spec);
  const Range share = ShareOf(l, NumTiles(s.vocab));
  if (share.begin == share.end) return;
  float* scratch = reinterpret_cast<float*>(l.scratch);
  float* logits = static_cast<float*>(l.args[kLmHeadLogits]);
  RowBlock rows;
  const int wanted = l.batch->num_logit_rows;
  for (int first = 0; first < wanted; first += kRowChunk) {
    rows.count = Min(kRowChunk, wanted - first);
    for (int r = 0; r < rows.count; ++r) {
      const long long row = s.gather ? l.batch->logit_rows[first + r] : first + r;
      float* to = scratch + static_cast<long long>(r) * RoundUp16(s.hidden);
      WidenRow(s.x_type, l.args[kLmHeadX], row * s.hidden, s.hidden, to);
      if (s.norm)
        RmsNormRow(s.x_type, to, static_cast<const float*>(l.args[kLmHeadNormWeight]), s.hidden, s.eps, s.round_first,
                   to);
      rows.row[r] = to;
    }
    rows.Ready(s.w_type, s.hidden, scratch + static_cast<long long>(kRowChunk) * RoundUp16(s.hidden));
    DotTiles(s.w_type, rows, l.args[kLmHeadW], static_cast<int>(share.begin), static_cast<int>(share.end),
             s.hidden, [&](int r, int tile, F16 v) {
               StorePart(logits + (first + r) * static_cast<long long>(s.vocab) + tile * 16, v,
                         Min(16, s.vocab - tile * 16));
             });
  }
}

/// A token that may be drawn.
struct Candidate {
  float z;
  int id;
};
/// Higher first, ties to the lower id.
QWEN_INLINE bool Before(Candidate a, Candidate b) { return a.z > b.z || (a.z == b.z && a.id < b.id); }

/// Restores a heap whose root may be wrong; the root is the first by Before, or the last with `worst_on_top`.
inline void SiftDown(Candidate* heap, int count, int at, bool worst_on_top) {
  for (;;) {
    int child = 2 * at + 1;
    if (child >= count) return;
    if (child + 1 < count && Before(heap[child + 1], heap[child]) != worst_on_top) ++child;
    if (Before(heap[child], heap[at]) == worst_on_top) return;
    Candidate swapped = heap[at];
    heap[at] = heap[child], heap[child] = swapped;
    at = child;
  }
}
inline void MakeHeap(Candidate* heap, int count, bool worst_on_top) {
  for (int i = count / 2 - 1; i >= 0; --i) SiftDown(heap, count, i, worst_on_top);
}

/// Fills `heap` with the tokens that have a chance before top-p: all, or the top_k first. NaN and -inf have none.
/// Once the heap is full hardly any token is above its root: sixty-four at a time are looked at and passed over.
inline int TakeCandidates(const float* logits, int vocab, float temperature, int top_k, Candidate* heap) {
  constexpr int kBlock = 64;
  const int limit = top_k > 0 && top_k < vocab ? top_k : vocab;
  int count = 0;
  for (int first = 0; first < vocab; first += kBlock) {
    const int block = Min(kBlock, vocab - first);
    const float least = count == limit ? heap[0].z : -__builtin_inff();
    float z[kBlock];
    NativeI above{};
    ForRuns(block, [&](int i, int run) {
      const F16 scaled = LoadPart(logits + first + i, run) / Splat(temperature);
      Store(z + i, scaled);
      above |= Above(scaled, least);
    });
    if (!Any(above)) continue;
    for (int i = 0; i < block; ++i) {
      const Candidate c{z[i], first + i};
      if (!(c.z > -__builtin_inff())) continue;
      if (count < limit) {
        heap[count++] = c;
        if (count == limit && limit < vocab) MakeHeap(heap, count, /*worst_on_top=*/true);
      } else if (Before(c, heap[0])) {
        heap[0] = c;
        SiftDown(heap, count, 0, /*worst_on_top=*/true);
      }
    }
  }
  return count;
}

/// One draw: temperature, top-k, top-p, min-p, Gumbel-max (serving design, section 18). -1 when no logit is above -inf.
inline int DrawToken(const SampleParams& p, const float* logits, int vocab, int position, Candidate* scratch) {
  if ((p.flags & kSampleGreedy) || p.temperature < 1e-5f) {
    Candidate best;
    return TakeCandidates(logits, vocab, 1.0f, 1, &best) > 0 ? best.id : -1;
  }
  Candidate* kept = scratch;
  int count = TakeCandidates(logits, vocab, p.temperature, p.top_k, scratch);
  if (count == 0) return -1;
  Candidate first = kept[0];
  for (int i = 1; i < count; ++i)
    if (Before(kept[i], first)) first = kept[i];
  const double highest = first.z;

  if (p.top_p < 1.0f) {
    double total = 0, sum = 0;
    for (int i = 0; i < count; ++i) total += __builtin_exp(scratch[i].z - highest);
    MakeHeap(scratch, count, /*worst_on_top=*/false);
    int left = count;
    do {  // the first goes to the end, so what is kept grows down from there
      const Candidate next = scratch[0];
      scratch[0] = scratch[--left];
      scratch[left] = next;
      SiftDown(scratch, left, 0, /*worst_on_top=*/false);
      sum += __builtin_exp(next.z - highest);
    } while (left > 0 && sum < p.top_p * total);
    kept = scratch + left;
    count -= left;
  }

  // From the likeliest on: hardly any other is then worth the logarithms of its noise.
  Candidate drawn{first.z + Gumbel(p.seed, first.id, position, p.choice), first.id};
  int group = -1;
  PhiloxWords words{};
  for (int i = 0; i < count; ++i) {
    const Candidate c = kept[i];
    if (c.z + kMaxGumbel < drawn.z) continue;
    if (p.min_p > 0 && __builtin_exp(c.z - highest) < p.min_p) continue;
    if (c.id >> 2 != group) group = c.id >> 2, words = DrawWords(p.seed, group, position, p.choice);
    if (c.z + GumbelBound(words.w[c.id & 3]) < drawn.z) continue;
    const Candidate noisy{c.z + GumbelOfWord(words.w[c.id & 3]), c.id};
    if (Before(noisy, drawn)) drawn = noisy;
  }
  return drawn.id;
}

inline void Sample(const void* spec, const Launch& l) {
  const SampleSpec& s = *static_cast<const SampleSpec*>(spec);
  const BatchView& batch = *l.batch;
  int seq = 0;
  const Range share = ShareOf(l, batch.num_logit_rows);
  for (long long n = share.begin; n < share.end; ++n) {
    const int row = batch.logit_rows[n];
    if (batch.cu_tokens[seq] > row) seq = 0;
    while (batch.cu_tokens[seq + 1] <= row) ++seq;
    // A row at p draws the token at p + 1.
    const int position = batch.position[seq] + (row - batch.cu_tokens[seq]) + 1;
    const SampleParams& params = batch.sample[n];
    const int vocab = params.vocab_used > 0 ? Min(params.vocab_used, s.vocab) : s.vocab;
    static_cast<int*>(l.args[kSampleNext])[n] =
        DrawToken(params, static_cast<const float*>(l.args[kSampleLogits]) + n * s.vocab, vocab, position,
                  reinterpret_cast<Candidate*>(l.scratch));
  }
}
