// Rows of f32 times tile16 weights of bf16 on AMX tiles, with no bit of a row lost.
//
// A tile product takes bf16 on both sides and sums in f32. A row's f32 is cut into three bf16, x = high + middle + low
// of eight bits of mantissa each, so three products give what f32 would: 2.1 TFLOP/s a core at most for bf16 alone
// become 1.0 with all three, against 0.2 for AVX-512 in f32. An infinite weight is not for this file: zero times it is
// NaN.
//
// Few rows leave tiles empty and wait for each product (one row: 65 % of a machine's bandwidth), so vectors take them,
// in the very order of a tile product's sums: a row's bits do not depend on how many rows there are.
//
// The tile instructions are written as asm: the compilers' intrinsics need a header, and GCC 12's _tile_loadconfig
// declares 8 of the 64 bytes it reads. With QWEN_AMX_EMULATED they are the loops of Intel's manual, for machines
// without AMX to run every line here (test/conformance).

inline constexpr int kTileRows = 16, kTileBytes = 1024, kPlanes = 3;
inline constexpr int kFewRows = 3;  // three rows: 18 vector products for 64 bytes of weights, about what memory gives
inline constexpr int kTilesAhead = 4;  // of each of up to three weights: 12 KiB in flight, what 25 GB/s take in 0.5 us

#if defined(QWEN_AMX_EMULATED)
struct EmulatedTiles {
  unsigned char config[64];
  float tile[8][kTileRows][16];
};
thread_local EmulatedTiles emulated;

QWEN_INLINE void TileConfig(const unsigned char (&config)[64]) {
  __builtin_memcpy(emulated.config, config, 64);
  __builtin_memset(emulated.tile, 0, sizeof emulated.tile);
}
QWEN_INLINE void TileRelease() { __builtin_memset(&emulated, 0, sizeof emulated); }
template <int kTile>
QWEN_INLINE void TileLoad(const void* from) {
  __builtin_memset(emulated.tile[kTile], 0, kTileBytes);
  __builtin_memcpy(emulated.tile[kTile], from, 64 * emulated.config[48 + kTile]);
}
template <int kTile>
QWEN_INLINE void TileStore(void* to) {
  __builtin_memcpy(to, emulated.tile[kTile], 64 * emulated.config[48 + kTile]);
}
/// TDPBF16PS: even and odd products are summed apart, in order, then both added to the element.
template <int kSum, int kA, int kB>
inline void TileDot() {
  for (int m = 0; m < emulated.config[48 + kSum]; ++m)
    for (int n = 0; n < 16; ++n) {
      float sum[2] = {};
      for (int k = 0; k < 32; ++k) {
        const unsigned short* a = reinterpret_cast<const unsigned short*>(emulated.tile[kA][m]);
        const unsigned short* b = reinterpret_cast<const unsigned short*>(emulated.tile[kB][k / 2]);
        sum[k % 2] += WidenOne(a[k]) * WidenOne(b[2 * n + k % 2]);
      }
      emulated.tile[kSum][m][n] += sum[0] + sum[1];
    }
}
#else
QWEN_INLINE void TileConfig(const unsigned char (&config)[64]) { asm volatile("ldtilecfg %0" ::"m"(config)); }
QWEN_INLINE void TileRelease() { asm volatile("tilerelease"); }
template <int kTile>
QWEN_INLINE void TileLoad(const void* from) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTile), "r"(from), "r"(64LL) : "memory");
}
template <int kTile>
QWEN_INLINE void TileStore(void* to) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kTile), "r"(to), "r"(64LL) : "memory");
}
template <int kSum, int kA, int kB>
QWEN_INLINE void TileDot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}
#endif

template <int kCount, int kAt = 0, class F>
QWEN_INLINE void Unroll(F f) {
  if constexpr (kAt < kCount) {
    f.template operator()<kAt>();
    Unroll<kCount, kAt + 1>(f);
  }
}

QWEN_INLINE NativeF CutToBf16(NativeF v) {
  NativeF cut = (NativeF)((NativeU)v & 0xffff0000u);
  return v == v ? cut : v;  // cutting a NaN might make it infinite
}
QWEN_INLINE NativeF ZeroIfNan(NativeF v) { return v == v ? v : NativeF{}; }
template <class H>
QWEN_INLINE Two<H> CutToBf16(Two<H> v) {
  return {CutToBf16(v.lo), CutToBf16(v.hi)};
}
template <class H>
QWEN_INLINE Two<H> ZeroIfNan(Two<H> v) {
  return {ZeroIfNan(v.lo), ZeroIfNan(v.hi)};
}

/// Where a tile of the rows lies: [k / 32][row tile][plane] tiles of [16 rows][32 k].
QWEN_INLINE long long PlaneAt(int block, int row_tiles, int row_tile, int plane) {
  return ((1LL * block * row_tiles + row_tile) * kPlanes + plane) * kTileBytes;
}

/// Few rows are kept as they are widened: [k / 32][row][plane][32] of f32.
inline void CutRows(const float* const* rows, int count, int k, unsigned char* planes) {
  const int row_tiles = (count + kTileRows - 1) / kTileRows;
  for (int r = 0; r < count; ++r)
    for (int first = 0; first < (k + 31) / 32 * 32; first += kLanes) {
      F16 rest = first < k ? LoadPart(rows[r] + first, Min(kLanes, k - first)) : Splat(0);
      for (int plane = 0; plane < kPlanes; ++plane) {
        const F16 part = CutToBf16(rest);
        if (count <= kFewRows) {
          Store(reinterpret_cast<float*>(planes) + ((first / 32 * count + r) * kPlanes + plane) * 32 + first % 32,
                part);
        } else {
          unsigned char* to = planes + PlaneAt(first / 32, row_tiles, r / kTileRows, plane) + r % kTileRows * 64;
          StoreBf16(reinterpret_cast<unsigned short*>(to) + first % 32, part);
        }
        rest = ZeroIfNan(rest - part);  // of what is not finite, the first part is all
      }
    }
}

/// out[row tile][tile][16][16] = rows . tiles, for kRowTiles tiles of rows from the `first`. `next` bytes behind each
/// tile begins the one that is read after it.
template <int kRowTiles, int kTiles>
inline __attribute__((noinline)) void TileKernel(const unsigned char* planes, int count, int first,
                                                 const unsigned char* const* tiles, int k, long long next, float* out) {
  constexpr int kA = kRowTiles * kTiles, kB = kA + kRowTiles;
  static_assert(kB + kTiles <= 8, "there are eight tile registers");
  const int row_tiles = (count + kTileRows - 1) / kTileRows;
  // Palette 1; bytes a row at 16, 18 ..., rows at 48, 49 ...
  alignas(64) unsigned char config[64] = {1};
  for (int i = 0; i < kB + kTiles; ++i) {
    const int row_tile = i < kA ? i / kTiles : i - kA;
    config[16 + 2 * i] = 64;
    config[48 + i] = static_cast<unsigned char>(i < kB ? Min(kTileRows, count - (first + row_tile) * kTileRows) : 16);
  }
  TileConfig(config);  // zeroes the sums
  const int blocks = (k + 31) / 32;
  for (int block = 0; block < blocks; ++block) {
    // A tile is sixteen lines: without being asked for they come one latency after the other.
    const int later = block + kTilesAhead;
    const long long distance = later < blocks ? 1LL * kTileBytes * later : next + 1LL * kTileBytes * (later - blocks);
    Unroll<kTiles>([&]<int t>() {
      const unsigned char* ahead = tiles[t] + distance;
#pragma GCC unroll 16
      for (int line = 0; line < kTileBytes; line += 64) __builtin_prefetch(ahead + line, 0, 2);
    });
    Unroll<kTiles>([&]<int t>() { TileLoad<kB + t>(tiles[t] + 1LL * kTileBytes * block); });
    // A load right before its products: the next tile of rows, from L2, comes while the other's products run.
    for (int plane = 0; plane < kPlanes; ++plane)
      Unroll<kRowTiles>([&]<int r>() {
        TileLoad<kA + r>(planes + PlaneAt(block, row_tiles, first + r, plane));
        Unroll<kTiles>([&]<int t>() { TileDot<r * kTiles + t, kA + r, kB + t>(); });
      });
  }
  Unroll<kRowTiles * kTiles>([&]<int c>() { TileStore<c>(out + 256 * c); });
  TileRelease();  // a thread that sleeps with live tiles has 8 KiB more to save
}

/// The vector unit as a tile product is, whatever the thread's mode: denormals are zero, on the way in and out.
struct FlushDenormals {
#if defined(QWEN_AMX_EMULATED)
  FlushDenormals() {}
#else
  unsigned before;
  QWEN_INLINE FlushDenormals() {
    asm volatile("stmxcsr %0" : "=m"(before)::"memory");
    const unsigned flush = before | 0x8040;
    asm volatile("ldmxcsr %0" ::"m"(flush) : "memory");
  }
  QWEN_INLINE ~FlushDenormals() { asm volatile("ldmxcsr %0" ::"m"(before) : "memory"); }
#endif
};

/// out[row][tile][16] = rows . tiles as TileKernel sums: per block of 32 k and plane, even and odd products apart, in
/// order from zero, their sum added to the element.
template <int kRows, int kTiles>
inline __attribute__((noinline)) void FewRowsKernel(const float* rows, const unsigned char* const* tiles, int k,
                                                    float* out) {
  F16 sum[kRows][kTiles];
  const unsigned char* tile[kTiles];
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) tile[t] = tiles[t];
#pragma GCC unroll 4
  for (int i = 0; i < kRows * kTiles; ++i) sum[i / kTiles][i % kTiles] = Splat(0);
  const int blocks = (k + 31) / 32;
  for (int block = 0; block < blocks; ++block) {
    F16 part[kRows][kTiles][kPlanes][2];
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kTiles * kPlanes * 2; ++i)
      part[i / (6 * kTiles)][i / 6 % kTiles][i / 2 % kPlanes][i % 2] = Splat(0);
    const float* x = rows + 32LL * kRows * kPlanes * block;
    const long long at = 1LL * kTileBytes * block;
#pragma GCC unroll 2
    for (int pair = 0; pair < 16; ++pair) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) __builtin_prefetch(tile[t] + at + 64 * pair + kTilesAhead * kTileBytes, 0, 2);
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        F16 w[kTiles];
#pragma GCC unroll 4
        for (int t = 0; t < kTiles; ++t)
          w[t] = Make<F16>::LoadPairs(reinterpret_cast<const unsigned*>(tile[t] + at) + 16 * pair, odd == 1);
#pragma GCC unroll 9
        for (int i = 0; i < kRows * kPlanes; ++i)
#pragma GCC unroll 4
          for (int t = 0; t < kTiles; ++t) {
            F16& to = part[i / kPlanes][t][i % kPlanes][odd];
            to = Fma(Splat(x[32 * i + 2 * pair + odd]), w[t], to);
          }
      }
    }
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kTiles * kPlanes; ++i) {
      F16& to = sum[i / (kPlanes * kTiles)][i / kPlanes % kTiles];
      const auto& p = part[i / (kPlanes * kTiles)][i / kPlanes % kTiles][i % kPlanes];
      to = to + (p[0] + p[1]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows * kTiles; ++i) Store(out + 16 * i, sum[i / kTiles][i % kTiles]);
}

template <int kRows, int kTiles, class Put>
QWEN_INLINE void FewRows(const unsigned char* planes, const unsigned char* const* tiles, int num_tiles, int k,
                         Put put) {
  static_assert(kRows * kTiles * kPlanes * 2 <= 24, "sums stay in registers");
  const float* rows = reinterpret_cast<const float*>(planes);
  float out[3 * kRows * 16];  // [tile group][row][tile]
  {
    const FlushDenormals flush;
    for (int t = 0; t < num_tiles; t += kTiles)
      if (num_tiles - t >= kTiles)
        FewRowsKernel<kRows, kTiles>(rows, tiles + t, k, out + 16 * kRows * t);
      else
        for (int u = t; u < num_tiles; ++u) FewRowsKernel<kRows, 1>(rows, tiles + u, k, out + 16 * kRows * u);
  }
  const int grouped = num_tiles / kTiles * kTiles;
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < num_tiles; ++t) {
      const int group = t < grouped ? t / kTiles * kTiles : t;
      const int width = t < grouped ? kTiles : 1;
      put(r, t, Load(out + 16 * (kRows * group + r * width + t - group)));
    }
}

/// put(row, t, F16) for every row and t < num_tiles, in order of t within a row when num_tiles <= 2.
template <class Put>
QWEN_INLINE void TileGroup(const unsigned char* planes, int count, const unsigned char* const* tiles, int num_tiles,
                           int k, Put put) {
  static_assert(kFewRows == 3);
  if (count == 1) return FewRows<1, 3>(planes, tiles, num_tiles, k, put);
  if (count == 2) return FewRows<2, 2>(planes, tiles, num_tiles, k, put);
  if (count == 3) return FewRows<3, 1>(planes, tiles, num_tiles, k, put);
  alignas(64) float out[4 * 256];
  const int row_tiles = (count + kTileRows - 1) / kTileRows;
  // Neighbours are read in groups, others one after the other.
  const long long bytes = 1LL * kTileBytes * ((k + 31) / 32);
  const long long next = num_tiles > 1 && tiles[1] == tiles[0] + bytes ? num_tiles * bytes : bytes;
  for (int first = 0; first < row_tiles;) {
    const int two = row_tiles - first >= 2;
    for (int t = 0; t < num_tiles;) {
      const int take = Min(two ? 2 : 3, num_tiles - t);
      if (two)
        take == 2 ? TileKernel<2, 2>(planes, count, first, tiles + t, k, next, out)
                  : TileKernel<2, 1>(planes, count, first, tiles + t, k, next, out);
      else
        take == 3   ? TileKernel<1, 3>(planes, count, first, tiles + t, k, next, out)
        : take == 2 ? TileKernel<1, 2>(planes, count, first, tiles + t, k, next, out)
                    : TileKernel<1, 1>(planes, count, first, tiles + t, k, next, out);
      const int begin = first * kTileRows, end = Min(count, begin + (1 + two) * kTileRows);
      for (int r = begin; r < end; ++r)
        for (int i = 0; i < take; ++i)
          put(r, t + i, Load(out + 256 * ((r - begin) / kTileRows * take + i) + (r - begin) % kTileRows * 16));
      t += take;
    }
    first += 1 + two;
  }
}
