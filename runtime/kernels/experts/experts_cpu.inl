// Both phases sort the pairs (token, pick) by expert, so that an expert's weights are read once for all its rows. The
// first deals out (expert, tile of the intermediate channels); the second tiles of the output, each over all experts in
// ascending order: the sum of a token then has one order and no two threads meet in it.

/// The pairs of the experts that this rank holds, by expert, in order of token: pair = token * top_k + pick.
struct ExpertPairs {
  const int* begin;  // [experts + 1]
  const int* pairs;
};
inline ExpertPairs SortPairs(const ExpertsSpec& s, const Launch& l, int** next) {
  const int* ids = static_cast<const int*>(l.args[kExpertsIds]);
  const long long count = 1LL * l.batch->num_tokens * s.top_k;
  int* begin = *next;
  int* pairs = begin + RoundUp16(s.experts + 2);
  *next = pairs + (count + 15) / 16 * 16;
  auto local = [&](long long pair) {
    const int e = ids[pair] - s.first_expert;
    return e >= 0 && e < s.experts ? e : -1;
  };
  // Counted two places up, summed one up: filling the list then moves each count to its expert's end.
  for (int e = 0; e < s.experts + 2; ++e) begin[e] = 0;
  for (long long pair = 0; pair < count; ++pair)
    if (local(pair) >= 0) ++begin[local(pair) + 2];
  for (int e = 2; e < s.experts + 2; ++e) begin[e] += begin[e - 1];
  for (long long pair = 0; pair < count; ++pair)
    if (local(pair) >= 0) pairs[begin[local(pair) + 1]++] = static_cast<int>(pair);
  return {begin, pairs};
}

/// act[row][tile * 16 ...] = silu(x . gate rows) * (x . up rows); the up rows start at row `up_first` of `up`, which
/// need not be the first of a tile.
template <class Row>
inline void GateUpTile(const ExpertsSpec& s, const RowBlock& rows, const unsigned char* gate, const unsigned char* up,
                       int up_first, int inter, int tile, Row row_of) {
  const long long bytes = TileBytes(s.w_type, s.hidden);
  const int lanes = Min(16, inter - tile * 16);
  const int up_row = up_first + tile * 16, shift = up_row % 16;
  const unsigned char* tiles[4] = {gate + bytes * tile, up + bytes * (up_row / 16)};
  if (shift == 0) {
    F16 g = Splat(0);
    DotGroup(s.w_type, rows, tiles, 2, s.hidden, [&](int r, int t, F16 v) {
      if (t == 0)
        g = v;
      else
        StorePart(row_of(r) + tile * 16, Silu(g) * v, lanes);
    });
    return;
  }
  // The sixteen up rows lie across two tiles, unless the second would begin past the last of them.
  const bool two = shift + lanes > 16;
  float g[kRowChunk][16], u[kRowChunk][32];
  DotGroup(s.w_type, rows, tiles, 2, s.hidden, [&](int r, int t, F16 v) { Store(t == 0 ? g[r] : u[r], v); });
  if (two) {
    tiles[0] = tiles[1] + bytes;
    DotGroup(s.w_type, rows, tiles, 1, s.hidden, [&](int r, int, F16 v) { Store(u[r] + 16, v); });
  } else {
    for (int r = 0; r < rows.count; ++r) Store(u[r] + 16, Splat(0));
  }
  for (int r = 0; r < rows.count; ++r) StorePart(row_of(r) + tile * 16, Silu(Load(g[r])) * Load(u[r] + shift), lanes);
}

inline void ExpertsGateUp(const void* spec, const Launch& l) {
  const ExpertsSpec& s = *static_cast<const ExpertsSpec*>(spec);
  const int tokens = l.batch->num_tokens;
  if (tokens == 0) return;
  int* next = reinterpret_cast<int*>(l.scratch);
  const ExpertPairs sorted = SortPairs(s, l, &next);
  float* scratch = reinterpret_cast<float*>(next);
  float* temp = static_cast<float*>(l.args[kExpertsTemp]);
  const long long temp_row = s.temp_row(), shared_at = 1LL * s.top_k * s.inter;
  const int tiles = NumTiles(s.inter), shared_tiles = s.shared ? NumTiles(s.shared_inter) : 0;

  RowBlock rows;
  // token_of(i): the i-th row of a group.
  auto load_rows = [&](int first, int count, auto token_of) {
    rows.count = count;
    for (int r = 0; r < count; ++r) {
      const long long at = 1LL * token_of(first + r) * s.hidden;
      if (s.x_type == DType::kF32) {
        rows.row[r] = static_cast<const float*>(l.args[kExpertsX]) + at;
        continue;
      }
      float* to = scratch + static_cast<long long>(r) * RoundUp16(s.hidden);
      WidenRow(s.x_type, l.args[kExpertsX], at, s.hidden, to);
      rows.row[r] = to;
    }
    rows.Ready(s.w_type, s.hidden, scratch + static_cast<long long>(kRowChunk) * RoundUp16(s.hidden));
  };

  // A tile costs its weights, worth some rows, and its rows.
  const long long each = 4;
  long long total = shared_tiles * (tokens + each) + (s.shared ? tokens + each : 0);
  for (int e = 0; e < s.experts; ++e) {
    const int count = sorted.begin[e + 1] - sorted.begin[e];
    if (count > 0) total += tiles * (count + each);
  }
  if (total == 0) return;

  long long before = 0;
  // The thread's tiles of a group of equally dear ones; moves on behind them.
  auto mine = [&](int count_tiles, long long cost) {
    int begin = 0, end = 0;
    for (int tile = 0; tile < count_tiles; ++tile, before += cost)
      if (Owns(l, before, cost, total)) {
        if (end == 0) begin = tile;
        end = tile + 1;
      }
    return Range{begin, end};
  };

  const long long up_bytes = TileBytes(s.w_type, s.hidden) * NumTiles(2 * s.inter);
  for (int e = 0; e < s.experts; ++e) {
    const int* pairs = sorted.pairs + sorted.begin[e];
    const int pair_count = sorted.begin[e + 1] - sorted.begin[e];
    if (pair_count == 0) continue;
    const Range share = mine(tiles, pair_count + each);
    if (share.begin == share.end) continue;
    const unsigned char* weight = static_cast<const unsigned char*>(l.args[kExpertsGateUp]) + up_bytes * e;
    for (int first = 0; first < pair_count; first += kRowChunk) {
      const int count = Min(kRowChunk, pair_count - first);
      load_rows(first, count, [&](int i) { return pairs[i] / s.top_k; });
      for (int tile = static_cast<int>(share.begin); tile < share.end; ++tile)
        GateUpTile(s, rows, weight, weight, s.inter, s.inter, tile, [&](int r) {
          const int pair = pairs[first + r];
          return temp + pair / s.top_k * temp_row + 1LL * (pair % s.top_k) * s.inter;
        });
    }
  }
  if (!s.shared) return;
  const Range share = mine(shared_tiles, tokens + each);
  const Range scalar = mine(1, tokens + each);
  if (share.begin == share.end && scalar.begin == scalar.end) return;
  for (int first = 0; first < tokens; first += kRowChunk) {
    const int count = Min(kRowChunk, tokens - first);
    load_rows(first, count, [](int i) { return i; });
    for (int tile = static_cast<int>(share.begin); tile < share.end; ++tile)
      GateUpTile(s, rows, static_cast<const unsigned char*>(l.args[kExpertsSharedGate]),
                 static_cast<const unsigned char*>(l.args[kExpertsSharedUp]), 0, s.shared_inter, tile,
                 [&](int r) { return temp + (first + r) * temp_row + shared_at; });
    if (scalar.begin < scalar.end)
      DotTiles(s.w_type, rows, l.args[kExpertsScalarGate], 0, 1, s.hidden, [&](int r, int, F16 v) {
        float lanes[kLanes];
        Store(lanes, v);
        temp[(first + r) * temp_row + shared_at + s.shared_inter] = SigmoidOne(lanes[0]);
      });
  }
}

inline void ExpertsDown(const void* spec, const Launch& l) {
  const ExpertsSpec& s = *static_cast<const ExpertsSpec*>(spec);
  const int tokens = l.batch->num_tokens;
  const Range share = ShareOf(l, NumTiles(s.hidden));
  if (tokens == 0 || share.begin == share.end) return;
  int* next = reinterpret_cast<int*>(l.scratch);
  const ExpertPairs sorted = SortPairs(s, l, &next);
  float* sums = reinterpret_cast<float*>(next);  // [tokens][group * 16]
  float* planes = sums + 16LL * cpu::kDownTiles * tokens;
  const float* temp = static_cast<const float*>(l.args[kExpertsTemp]);
  const float* weights = static_cast<const float*>(l.args[kExpertsWeights]);
  const long long temp_row = s.temp_row(), shared_at = 1LL * s.top_k * s.inter;
  const long long down_bytes = TileBytes(s.w_type, s.inter) * NumTiles(s.hidden);

  RowBlock rows;
  for (int tile = static_cast<int>(share.begin); tile < share.end; tile += cpu::kDownTiles) {
    const int group = Min(cpu::kDownTiles, static_cast<int>(share.end) - tile), width = group * 16;
    for (long long i = 0; i < 1LL * tokens * width; ++i) sums[i] = 0;
    for (int e = 0; e < s.experts; ++e) {
      const int* pairs = sorted.pairs + sorted.begin[e];
      const int pair_count = sorted.begin[e + 1] - sorted.begin[e];
      for (int first = 0; first < pair_count; first += kRowChunk) {
        rows.count = Min(kRowChunk, pair_count - first);
        for (int r = 0; r < rows.count; ++r) {
          const int pair = pairs[first + r];
          rows.row[r] = temp + pair / s.top_k * temp_row + 1LL * (pair % s.top_k) * s.inter;
        }
        rows.Ready(s.w_type, s.inter, planes);
        DotTiles(s.w_type, rows, static_cast<const unsigned char*>(l.args[kExpertsDown]) + down_bytes * e, tile,
                 tile + group, s.inter, [&](int r, int t, F16 v) {
                   const int pair = pairs[first + r];
                   float* sum = sums + 1LL * (pair / s.top_k) * width + (t - tile) * 16;
                   Store(sum, Fma(Splat(weights[pair]), v, Load(sum)));
                 });
      }
    }
    for (int first = 0; s.shared && first < tokens; first += kRowChunk) {
      rows.count = Min(kRowChunk, tokens - first);
      for (int r = 0; r < rows.count; ++r) rows.row[r] = temp + (first + r) * temp_row + shared_at;
      rows.Ready(s.w_type, s.shared_inter, planes);
      DotTiles(s.w_type, rows, l.args[kExpertsSharedDown], tile, tile + group, s.shared_inter,
               [&](int r, int t, F16 v) {
                 float* sum = sums + 1LL * (first + r) * width + (t - tile) * 16;
                 Store(sum, Fma(Splat(rows.row[r][s.shared_inter]), v, Load(sum)));
               });
    }
    for (int t = 0; t < tokens; ++t)
      for (int g = 0; g < group; ++g) {
        const int column = (tile + g) * 16, lanes = Min(16, s.hidden - column);
        const long long at = 1LL * t * s.hidden + column;
        F16 v = Load(sums + 1LL * t * width + g * 16);
        if (s.residual) v = v + LoadTyped(s.y_type, l.args[kExpertsResidual], at, lanes);
        StoreTyped(s.y_type, l.args[kExpertsY], at, v, lanes);
      }
  }
}
