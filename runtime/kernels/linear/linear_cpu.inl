// A thread owns a run of weight tiles over all outputs and makes the prologue's rows for itself: reading a row again is
// cheaper than a barrier, and the weights, which bound decode, are read once.

/// Row `row` of a gated_rms_norm: per head norm, weight, activated gate, rounded once (model specification, 6.7).
inline void GatedNormRow(const LinearSpec& s, const float* x, const void* gate, long long row, const float* w,
                         float* y) {
  if (s.head_dim == 0) return;
  for (int first = 0; first + s.head_dim <= s.k; first += s.head_dim) {
    const float* head = x + first;
    float scale = 1.0f / __builtin_sqrtf(SumSquares(head, s.head_dim) / static_cast<float>(s.head_dim) + s.eps);
    ForRuns(s.head_dim, [&](int i, int run) {
      F16 z = LoadTyped(s.x_type, gate, row * s.k + first + i, run);
      F16 v = LoadPart(head + i, run) * Splat(scale) * LoadPart(w + i, run) * (s.sigmoid ? Sigmoid(z) : Silu(z));
      StorePart(y + first + i, RoundTo(s.x_type, v), run);
    });
  }
}

inline void Linear(const void* spec, const Launch& l) {
  const LinearSpec& s = *static_cast<const LinearSpec*>(spec);
  const void* x = l.args[kLinearX];
  const float* norm = static_cast<const float*>(l.args[kLinearNormWeight]);
  void* const* weights = l.args + kLinearFirstWeight;
  void* const* results = weights + s.outputs;
  const int tokens = l.batch->num_tokens;

  long long total = 0;
  for (int o = 0; o < s.results(); ++o) total += NumTiles(s.n[o]);
  const Range share = ShareOf(l, total);
  if (share.begin == share.end) return;

  float* scratch = reinterpret_cast<float*>(l.scratch);
  const int stride = RoundUp16(s.k);
  const bool as_they_are = s.prologue == kPrologueNone && s.x_type == DType::kF32;
  const int chunk = LinearChunk(s.w_type, s.k);
  RowBlock rows;
  for (int first = 0; first < tokens; first += chunk) {
    rows.count = Min(chunk, tokens - first);
    for (int r = 0; r < rows.count; ++r) {
      const long long row = first + r;
      if (as_they_are) {
        rows.row[r] = static_cast<const float*>(x) + row * s.k;
        continue;
      }
      float* to = scratch + static_cast<long long>(r) * stride;
      WidenRow(s.x_type, x, row * s.k, s.k, to);
      if (s.prologue == kPrologueRmsNorm) RmsNormRow(s.x_type, to, norm, s.k, s.eps, s.round_first, to);
      if (s.prologue == kPrologueGatedRmsNorm) GatedNormRow(s, to, l.args[kLinearGate], row, norm, to);
      rows.row[r] = to;
    }
    rows.Ready(s.w_type, s.k, scratch + (as_they_are ? 0LL : 1LL * chunk * stride));

    if (s.silu_mul) {
      const long long bytes = TileBytes(s.w_type, s.k);
      for (long long tile = share.begin; tile < share.end; ++tile) {
        const unsigned char* pair[2] = {static_cast<const unsigned char*>(weights[0]) + bytes * tile,
                                        static_cast<const unsigned char*>(weights[1]) + bytes * tile};
        const int lanes = Min(16, s.n[0] - static_cast<int>(tile) * 16);
        F16 gate = Splat(0);
        DotGroup(s.w_type, rows, pair, 2, s.k, [&](int r, int t, F16 v) {
          if (t == 0)
            gate = v;
          else
            StoreTyped(s.y_type[0], results[0], (first + r) * static_cast<long long>(s.n[0]) + tile * 16,
                       Silu(gate) * v, lanes);
        });
      }
      continue;
    }
    long long before = 0;
    for (int o = 0; o < s.outputs; ++o) {
      const long long tiles = NumTiles(s.n[o]);
      const long long begin = share.begin > before ? share.begin - before : 0;
      const long long end = share.end - before < tiles ? share.end - before : tiles;
      before += tiles;
      if (begin >= end) continue;
      DotTiles(s.w_type, rows, weights[o], static_cast<int>(begin), static_cast<int>(end), s.k,
               [&](int r, int tile, F16 v) {
                 const long long at = (first + r) * static_cast<long long>(s.n[o]) + tile * 16;
                 const int lanes = Min(16, s.n[o] - tile * 16);
                 if (s.residual) v = v + LoadTyped(s.y_type[o], l.args[kLinearResidual], at, lanes);
                 StoreTyped(s.y_type[o], results[o], at, v, lanes);
               });
    }
  }
}
