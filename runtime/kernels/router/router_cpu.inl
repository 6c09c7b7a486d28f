// Few rows: the experts' tiles are dealt out, and whoever finishes last picks for all rows. Many rows: each thread
// takes rows of its own from norm to pick. A logit is the same sum either way.

/// Softmax over the row's logits, then the top_k highest, ties to the lowest id. `logits` is overwritten.
inline void PickExperts(const RouterSpec& s, float* logits, float* weights, int* ids) {
  float highest = -__builtin_inff();
  for (int e = 0; e < s.experts; ++e) highest = logits[e] > highest ? logits[e] : highest;
  F16 sums = Splat(0);
  ForRuns(s.experts, [&](int i, int run) {
    float lanes[kLanes];
    Store(lanes, Exp(LoadPart(logits + i, run) - Splat(highest)));
    for (int j = run; j < kLanes; ++j) lanes[j] = 0;
    StorePart(logits + i, Load(lanes), run);
    sums = sums + Load(lanes);
  });
  const float sum = SumLanes(sums);
  float picked = 0;
  for (int k = 0; k < s.top_k; ++k) {
    // -1 marks a taken expert. A row of NaN still gives ids in range, all different.
    int best = -1;
    for (int e = 0; e < s.experts; ++e)
      if (logits[e] != -1.0f && (best < 0 || logits[e] > logits[best])) best = e;
    ids[k] = best;
    weights[k] = logits[best] / sum;
    picked += weights[k];
    logits[best] = -1.0f;
  }
  if (s.renormalize)
    for (int k = 0; k < s.top_k; ++k) weights[k] = weights[k] / picked;
}

inline void Router(const void* spec, const Launch& l) {
  const RouterSpec& s = *static_cast<const RouterSpec*>(spec);
  const int tokens = l.batch->num_tokens;
  const bool by_rows = tokens >= 4 * l.threads;
  const Range share = ShareOf(l, by_rows ? tokens : NumTiles(s.experts));
  const int row_begin = by_rows ? static_cast<int>(share.begin) : 0;
  const int row_end = by_rows ? static_cast<int>(share.end) : tokens;
  const int tile_begin = by_rows ? 0 : static_cast<int>(share.begin);
  const int tile_end = by_rows ? NumTiles(s.experts) : static_cast<int>(share.end);
  float* scratch = reinterpret_cast<float*>(l.scratch);
  float* logits = static_cast<float*>(l.args[kRouterTemp]);
  float* weights = static_cast<float*>(l.args[kRouterWeights]);
  int* ids = static_cast<int*>(l.args[kRouterIds]);

  RowBlock rows;
  for (int first = row_begin; first < row_end; first += kRowChunk) {
    rows.count = Min(kRowChunk, row_end - first);
    for (int r = 0; r < rows.count; ++r) {
      const long long row = first + r;
      float* to = scratch + static_cast<long long>(r) * RoundUp16(s.hidden);
      WidenRow(s.x_type, l.args[kRouterX], row * s.hidden, s.hidden, to);
      rows.row[r] = to;
      if (!s.norm) continue;
      RmsNormRow(s.x_type, to, static_cast<const float*>(l.args[kRouterNormWeight]), s.hidden, s.eps, s.round_first,
                 to);
      if (l.args[kRouterH] && (by_rows || row % l.threads == l.thread))
        ForRuns(s.hidden, [&](int i, int run) {
          StoreTyped(s.x_type, l.args[kRouterH], row * s.hidden + i, LoadPart(to + i, run), run);
        });
    }
    rows.Ready(s.w_type, s.hidden, scratch + static_cast<long long>(kRowChunk) * RoundUp16(s.hidden));
    DotTiles(s.w_type, rows, l.args[kRouterW], tile_begin, tile_end, s.hidden, [&](int r, int tile, F16 v) {
      StorePart(logits + (first + r) * static_cast<long long>(s.experts) + tile * 16, v,
                Min(16, s.experts - tile * 16));
    });
  }

  int pick_begin = row_begin, pick_end = row_end;
  if (!by_rows) {
    int* arrived = reinterpret_cast<int*>(l.shared);
    if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) != l.threads) return;
    __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
  }
  for (long long t = pick_begin; t < pick_end; ++t)
    PickExperts(s, logits + t * s.experts, weights + t * s.top_k, ids + t * s.top_k);
}
