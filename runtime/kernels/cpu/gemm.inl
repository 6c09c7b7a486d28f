// Dot products of rows with tile16 weights: every projection, expert, router and lm_head comes through here.
//
// tile16 keeps sixteen outputs side by side for every k, so one accumulator holds sixteen outputs of a row and the sum
// runs over k in order, in one chain: no blocking over rows or outputs can change a bit. The blocks exist to have
// enough chains in flight and to load a weight once for several rows.

using cpu::kRowChunk;

// Sums that a block keeps in registers. bf16 needs more of them beside: a pair, its halves and a mask.
template <DType kType>
inline constexpr int kDotSums =
#if defined(__AVX512F__)
    24;
#elif defined(__AVX2__)
    6;
#else
    kType == DType::kF32 ? 3 : 2;
#endif
inline constexpr int kMaxDotRows = 6, kMaxDotTiles = 4;
inline constexpr int kDotAhead = 2048;  // bytes of a tile to ask for early: several rows take long over one stream

QWEN_INLINE long long TileBytes(DType type, int k) {
  return type == DType::kBF16 ? 64LL * ((k + 31) / 32 * 16) : 64LL * k;
}
QWEN_INLINE int NumTiles(int n) { return (n + 15) / 16; }

/// Rows that linear takes at once.
QWEN_INLINE int LinearChunk(DType weight_type, int k) {
#if defined(QWEN_AMX)
  if (weight_type == DType::kBF16) return cpu::TileChunk(k);
#endif
  return kRowChunk;
}

/// The rows of one pass over weights of `k` columns.
struct RowBlock {
  const float* row[cpu::kMostRows];
  int count = 0;
  unsigned char* planes;  // of an ISA with matrix tiles: the rows in their form

  /// After the last row is in place, before the first product. `space` is cpu::PlaneScratch of the scratch.
  QWEN_INLINE void Ready(DType weight_type, int k, float* space) {
    planes = reinterpret_cast<unsigned char*>(space);
#if defined(QWEN_AMX)
    if (weight_type == DType::kBF16) CutRows(row, count, k, planes);
#endif
  }
};

template <DType kType, int kRows, int kTiles>
inline __attribute__((noinline)) void DotKernel(const float* const* rows, const unsigned char* const* tiles, int k,
                                                float* out) {
  F16 sum[kRows][kTiles];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) sum[r][t] = Splat(0);
  // Copies: the fence below would have every pointer read again.
  const float* row[kRows];
  const unsigned char* tile[kTiles];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) row[r] = rows[r];
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) tile[t] = tiles[t];
  const auto step = [&](int i, const F16(&w)[kTiles]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      F16 x = Splat(row[r][i]);
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) sum[r][t] = Fma(x, w[t], sum[r][t]);
    }
  };
  F16 w[kTiles];
  if constexpr (kType == DType::kF32) {
    for (int i = 0; i < k; ++i) {
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) w[t] = Load(reinterpret_cast<const float*>(tile[t]) + 16LL * i);
      step(i, w);
    }
  } else {
    for (int i = 0; i < k; i += 2) {
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) __builtin_prefetch(tile[t] + 32LL * i + kDotAhead);
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t)
        w[t] = Make<F16>::LoadPairs(reinterpret_cast<const unsigned*>(tile[t]) + 8LL * i, false);
      step(i, w);
      if (i + 1 == k) break;
      // Twelve sums, a pair's halves, the broadcast and the mask are AVX2's sixteen registers: the pair is loaded twice
      // rather than kept.
      if constexpr (kNativeLanes == 8 && kRows * kTiles == 6) asm volatile("" ::: "memory");
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t)
        w[t] = Make<F16>::LoadPairs(reinterpret_cast<const unsigned*>(tile[t]) + 8LL * i, true);
      step(i + 1, w);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) Store(out + 16 * (kTiles * r + t), sum[r][t]);
}

/// out[r][t][16] = rows[r] . tiles[t], for as many of `num_rows` as one block takes; their number.
template <DType kType, int kTiles>
inline int DotRows(const float* const* rows, int num_rows, const unsigned char* const* tiles, int k, float* out) {
  if constexpr (6 * kTiles <= kDotSums<kType>)
    if (num_rows >= 6) return DotKernel<kType, 6, kTiles>(rows, tiles, k, out), 6;
  if constexpr (4 * kTiles <= kDotSums<kType>)
    if (num_rows >= 4) return DotKernel<kType, 4, kTiles>(rows, tiles, k, out), 4;
  if constexpr (3 * kTiles <= kDotSums<kType>)
    if (num_rows >= 3) return DotKernel<kType, 3, kTiles>(rows, tiles, k, out), 3;
  if constexpr (2 * kTiles <= kDotSums<kType>)
    if (num_rows >= 2) return DotKernel<kType, 2, kTiles>(rows, tiles, k, out), 2;
  return DotKernel<kType, 1, kTiles>(rows, tiles, k, out), 1;
}

/// How many tiles to take at once when there are many: one row alone needs them for chains in flight.
QWEN_INLINE int DotTileGroup(DType type, int num_rows) {
#if defined(QWEN_AMX)
  if (type == DType::kBF16) return num_rows == 1 || (num_rows > kFewRows && num_rows <= kTileRows) ? 3 : 2;
#endif
  if (kDotSums<DType::kBF16> >= 24) return 4;
  return num_rows > 1 ? 1 : kDotSums<DType::kBF16> >= 4 ? 4 : 2;
}

/// put(row, t, F16) for every row and for t < num_tiles, num_tiles being 1, 2 or 4: rows . tiles[t].
template <DType kType, class Put>
QWEN_INLINE void DotGroupOf(const float* const* rows, int num_rows, const unsigned char* const* tiles, int num_tiles,
                            int k, Put put) {
  float out[16 * kMaxDotRows * kMaxDotTiles];
  // Two tiles of several rows want more registers than AVX2 has: one after the other then.
  const int together = num_tiles == 2 && num_rows > 2 && 4 * num_tiles > kDotSums<kType> ? 1 : num_tiles;
  for (int r = 0; r < num_rows;) {
    int taken = 0;
    for (int t = 0; t < num_tiles; t += together) {
      float* to = out + 16 * kMaxDotRows * t;
      taken = together == 4   ? DotRows<kType, 4>(rows + r, num_rows - r, tiles, k, to)
              : together == 2 ? DotRows<kType, 2>(rows + r, num_rows - r, tiles, k, to)
                              : DotRows<kType, 1>(rows + r, num_rows - r, tiles + t, k, to);
    }
    for (int i = 0; i < taken; ++i)
      for (int t = 0; t < num_tiles; ++t)
        put(r + i, t, Load(out + (together == 1 ? 16 * (kMaxDotRows * t + i) : 16 * (num_tiles * i + t))));
    r += taken;
  }
}
/// The same for tiles of `type`, any number of them on an ISA with matrix tiles.
template <class Put>
QWEN_INLINE void DotGroup(DType type, const RowBlock& rows, const unsigned char* const* tiles, int num_tiles, int k,
                          Put put) {
#if defined(QWEN_AMX)
  if (type == DType::kBF16) return TileGroup(rows.planes, rows.count, tiles, num_tiles, k, put);
#endif
  if (type == DType::kBF16)
    DotGroupOf<DType::kBF16>(rows.row, rows.count, tiles, num_tiles, k, put);
  else
    DotGroupOf<DType::kF32>(rows.row, rows.count, tiles, num_tiles, k, put);
}

/// put(row, tile, F16) for tiles [begin, end) of a weight of `k` columns.
template <class Put>
QWEN_INLINE void DotTiles(DType type, const RowBlock& rows, const void* weight, int begin, int end, int k, Put put) {
  const unsigned char* base = static_cast<const unsigned char*>(weight);
  const long long bytes = TileBytes(type, k);
  int group = DotTileGroup(type, rows.count);
  for (int tile = begin; tile < end;) {
    int count = end - tile >= group ? group : 1;
    const unsigned char* tiles[kMaxDotTiles];
    for (int t = 0; t < count; ++t) tiles[t] = base + bytes * (tile + t);
    DotGroup(type, rows, tiles, count, k, [&](int r, int t, F16 v) { put(r, tile + t, v); });
    tile += count;
  }
}
