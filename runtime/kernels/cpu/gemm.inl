// Dot products of rows with tile16 weights: every projection, expert, router and lm_head comes through here.
//
// tile16 keeps sixteen outputs side by side for every k, so one accumulator holds sixteen outputs of a row and the sum
// runs over k in order, in one chain: no blocking over rows or outputs can change a bit. The blocks exist to have
// enough chains in flight and to load a weight once for several rows.

using cpu::kRowChunk;

#if defined(__AVX512F__)
inline constexpr int kDotAccumulators = 24;  // of 32 registers
#elif defined(__AVX2__)
inline constexpr int kDotAccumulators = 6;  // 12 of 16
#else
inline constexpr int kDotAccumulators = 3;  // 12 of 16
#endif
inline constexpr int kMaxDotRows = 6, kMaxDotTiles = 4;

QWEN_INLINE long long TileBytes(DType type, int k) {
  return type == DType::kBF16 ? 64LL * ((k + 31) / 32 * 16) : 64LL * k;
}
QWEN_INLINE int NumTiles(int n) { return (n + 15) / 16; }

template <DType kType, int kRows, int kTiles>
inline __attribute__((noinline)) void DotKernel(const float* const* rows, const unsigned char* const* tiles, int k,
                                                float* out) {
  F16 sum[kRows][kTiles];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) sum[r][t] = Splat(0);
  const auto step = [&](int i, const F16(&w)[kTiles]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      F16 x = Splat(rows[r][i]);
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) sum[r][t] = Fma(x, w[t], sum[r][t]);
    }
  };
  F16 w[kTiles];
  if constexpr (kType == DType::kF32) {
    for (int i = 0; i < k; ++i) {
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) w[t] = Load(reinterpret_cast<const float*>(tiles[t]) + 16LL * i);
      step(i, w);
    }
  } else {
    for (int i = 0; i < k; i += 2) {
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t)
        w[t] = Make<F16>::LoadPairs(reinterpret_cast<const unsigned*>(tiles[t]) + 8LL * i, false);
      step(i, w);
      if (i + 1 == k) break;
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t)
        w[t] = Make<F16>::LoadPairs(reinterpret_cast<const unsigned*>(tiles[t]) + 8LL * i, true);
      step(i + 1, w);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) Store(out + 16 * (kTiles * r + t), sum[r][t]);
}

template <int kRows, int kTiles>
QWEN_INLINE void DotTyped(DType type, const float* const* rows, const unsigned char* const* tiles, int k, float* out) {
  if (type == DType::kBF16) DotKernel<DType::kBF16, kRows, kTiles>(rows, tiles, k, out);
  else DotKernel<DType::kF32, kRows, kTiles>(rows, tiles, k, out);
}

/// out[r][t][16] = rows[r] . tiles[t], for as many of `num_rows` as one block takes; their number.
template <int kTiles>
inline int DotRows(DType type, const float* const* rows, int num_rows, const unsigned char* const* tiles, int k,
                   float* out) {
  if constexpr (6 * kTiles <= kDotAccumulators)
    if (num_rows >= 6) return DotTyped<6, kTiles>(type, rows, tiles, k, out), 6;
  if constexpr (4 * kTiles <= kDotAccumulators)
    if (num_rows >= 4) return DotTyped<4, kTiles>(type, rows, tiles, k, out), 4;
  if constexpr (3 * kTiles <= kDotAccumulators)
    if (num_rows >= 3) return DotTyped<3, kTiles>(type, rows, tiles, k, out), 3;
  if constexpr (2 * kTiles <= kDotAccumulators)
    if (num_rows >= 2) return DotTyped<2, kTiles>(type, rows, tiles, k, out), 2;
  return DotTyped<1, kTiles>(type, rows, tiles, k, out), 1;
}

/// How many tiles to take at once when there are many: one row alone needs them for chains in flight.
QWEN_INLINE int DotTileGroup(int num_rows) {
  if (kDotAccumulators >= 24) return 4;
  return num_rows > 1 ? 1 : kDotAccumulators >= 4 ? 4 : 2;
}

/// put(row, t, F16) for every row and for t < num_tiles, num_tiles being 1, 2 or 4: rows . tiles[t].
template <class Put>
QWEN_INLINE void DotGroup(DType type, const float* const* rows, int num_rows, const unsigned char* const* tiles,
                          int num_tiles, int k, Put put) {
  float out[16 * kMaxDotRows * kMaxDotTiles];
  for (int r = 0; r < num_rows;) {
    int taken = num_tiles == 4   ? DotRows<4>(type, rows + r, num_rows - r, tiles, k, out)
                : num_tiles == 2 ? DotRows<2>(type, rows + r, num_rows - r, tiles, k, out)
                                 : DotRows<1>(type, rows + r, num_rows - r, tiles, k, out);
    for (int i = 0; i < taken; ++i)
      for (int t = 0; t < num_tiles; ++t) put(r + i, t, Load(out + 16 * (num_tiles * i + t)));
    r += taken;
  }
}

/// put(row, tile, F16) for tiles [begin, end) of a weight of `k` columns.
template <class Put>
QWEN_INLINE void DotTiles(DType type, const float* const* rows, int num_rows, const void* weight, int begin, int end,
                          int k, Put put) {
  const unsigned char* base = static_cast<const unsigned char*>(weight);
  const long long bytes = TileBytes(type, k);
  int group = DotTileGroup(num_rows);
  for (int tile = begin; tile < end;) {
    int count = end - tile >= group ? group : 1;
    const unsigned char* tiles[kMaxDotTiles];
    for (int t = 0; t < count; ++t) tiles[t] = base + bytes * (tile + t);
    DotGroup(type, rows, num_rows, tiles, count, k, [&](int r, int t, F16 v) { put(r, tile + t, v); });
    tile += count;
  }
}
