// Rows times a matrix in tile16, for few rows: the weights pass once, and they are what decode waits for.
//
// The matrix is the M side of mma.m16n8k16, the rows are its N side, eight at a time. A warp takes two groups of sixteen
// output rows and 32 columns: word (pair of columns p, row n) of a tile lies at 16 p + n, so lane (g = lane / 4,
// t = lane % 4) loads four rows 4 (g % 4) ... of group g / 4 at pairs 4 t + i, i = 0 ... 3: four 16-byte loads, 2 KiB a
// warp, every sector whole. Loads i and i + 1 are then A operands as they lie, because an mma does not care which
// columns it sums in which slot as long as both sides agree, nor which rows it calls g and g + 8:
//
//     mma "low":  a0 = load(i).x, a1 = load(i).y, a2 = load(i+1).x, a3 = load(i+1).y     output rows 4 g, 4 g + 1
//     mma "high": the same of .z and .w                                                 output rows 4 g + 2, 4 g + 3
//     both:       b0 = the row's columns 8 t + 2 i, b1 = 8 t + 2 i + 2                    so a lane's x is eight columns
//
// x is f32 and cut into three bf16 planes without losing a bit (x = high + middle + low), so products are those of f32.
// An mma is cheap here: at 1008 GB/s an SM of a 4090 gets 2 KiB in 660 cycles, and three planes of sixteen rows take 24
// mma of 32 cycles on one of its four tensor cores.
//
// The block's warps take column tiles in turn and their sums meet in shared memory, in order of the warps. The order
// of a sum hangs on the number of columns alone, so a row's bits do not depend on its company.
#ifndef QWEN_RUNTIME_KERNELS_CUDA_TILE16_CUH_
#define QWEN_RUNTIME_KERNELS_CUDA_TILE16_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/formats/tile16.h"

namespace qwen::kernels::cuda {

inline constexpr int kProductWarps = 8;  // 256 threads: two blocks an SM keep 32 KiB of loads in flight
inline constexpr int kProductThreads = 32 * kProductWarps;
inline constexpr int kItemRows = 2 * kTileRows;  // output rows of a product
inline constexpr int kTokenTile = 8;             // rows of an mma's N side
inline constexpr int kTokenTiles = 2;            // that a block takes at once: sixteen sequences in one pass
inline constexpr int kBlockTokens = kTokenTile * kTokenTiles;

/// Sums of the block's warps, then of the block. Rows lie side by side, as a lane has four of them; four words more put the
/// tokens 2 t that a quarter of a warp writes 8 banks apart.
inline constexpr int kSumRow = kItemRows + 4;
struct ProductShared {
  alignas(16) float partial[kProductWarps][kBlockTokens][kSumRow];
  float sum[kBlockTokens][kSumRow];
};
static_assert(2 * kSumRow % 32 == 8 && kSumRow % 4 == 0);

__device__ __forceinline__ uint4 LoadWeights(const unsigned char* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

__device__ __forceinline__ void Mma(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                    unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// Takes the upper eight bits of two numbers away, into a pair of bf16.
__device__ __forceinline__ unsigned TakePlane(float& a, float& b) {
  const unsigned plane = PackBf16(a, b);
  a -= __uint_as_float(plane << 16);
  b -= __uint_as_float(plane & 0xffff0000u);
  return plane;
}

/// Eight columns of a row from `k` on, zero beyond kColumns. Rows of a multiple of eight columns are loaded by 16 bytes,
/// unless they start somewhere else.
template <class T, int kColumns, bool kAligned = true>
__device__ __forceinline__ void LoadColumns(const T* row, int k, float (&v)[8]) {
  if constexpr (kAligned && kColumns % 8 == 0 && sizeof(T) == 4) {
    float4 a{}, b{};
    if (k < kColumns) {
      a = *reinterpret_cast<const float4*>(row + k);
      b = *reinterpret_cast<const float4*>(row + k + 4);
    }
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = k + i < kColumns ? ToFloat(row[k + i]) : 0;
  }
}

/// 32 columns of one or two groups, in registers.
struct WeightTile {
  uint4 pair[4];

  __device__ __forceinline__ void Load(const unsigned char* group, int tile) {
    const int lane = threadIdx.x % 32;
    const unsigned char* at = group + tile * (kTileRows * kTileColumnsBf16 * 2) + (lane % 4) * 256 + (lane / 4 % 4) * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) pair[i] = group ? LoadWeights(at + i * 64) : uint4{};
  }
};

/// sum[token][row] = (rows `first` and `second`) . x of `kTiles` tiles of tokens, in shared memory behind the barrier
/// that ends the call. A null group gives zeros. `x(token, k, v)` puts eight columns from k on into v, zero beyond
/// kColumns and for tokens that are not there; it is called for tokens of the block, 0 to 8 kTiles - 1.
template <int kColumns, int kTiles, int kRing, class X>
__device__ __forceinline__ void ProductBf16(const unsigned char* first, const unsigned char* second, const X& x,
                                            ProductShared& shared) {
  constexpr int kColumnTiles = (kColumns + kTileColumnsBf16 - 1) / kTileColumnsBf16;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const unsigned char* group = g < 4 ? first : second;
  float low[kTiles][4] = {}, high[kTiles][4] = {};
  WeightTile ring[kRing];
#pragma unroll
  for (int r = 0; r < kRing; ++r) {
    const int tile = warp + r * kProductWarps;
    if (tile < kColumnTiles) ring[r].Load(group, tile);
  }
  for (int base = warp; base < kColumnTiles; base += kRing * kProductWarps) {
#pragma unroll
    for (int r = 0; r < kRing; ++r) {
      const int tile = base + r * kProductWarps;
      if (tile >= kColumnTiles) break;
      const WeightTile w = ring[r];
      if (tile + kRing * kProductWarps < kColumnTiles) ring[r].Load(group, tile + kRing * kProductWarps);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        float v[8];
        x(n * kTokenTile + g, tile * kTileColumnsBf16 + 8 * t, v);
#pragma unroll
        for (int plane = 0; plane < 3; ++plane) {
          unsigned b[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) b[i] = TakePlane(v[2 * i], v[2 * i + 1]);
#pragma unroll
          for (int i = 0; i < 4; i += 2) {
            Mma(low[n], w.pair[i].x, w.pair[i].y, w.pair[i + 1].x, w.pair[i + 1].y, b[i], b[i + 1]);
            Mma(high[n], w.pair[i].z, w.pair[i].w, w.pair[i + 1].z, w.pair[i + 1].w, b[i], b[i + 1]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c)
      *reinterpret_cast<float4*>(&shared.partial[warp][n * kTokenTile + 2 * t + c][4 * g]) =
          make_float4(low[n][c], low[n][2 + c], high[n][c], high[n][2 + c]);
  }
}

/// The same of f32 weights, one fma after the other: a lane is an output row. Plans in f32 are for comparisons.
template <int kColumns, int kTiles, class X>
__device__ __forceinline__ void ProductF32(const unsigned char* first, const unsigned char* second, const X& x,
                                           ProductShared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float* group = reinterpret_cast<const float*>(lane < kTileRows ? first : second);
  for (int token = 0; token < kTiles * kTokenTile; ++token) {
    float sum = 0;
    for (int k = warp * 8; k < kColumns; k += kProductWarps * 8) {
      float v[8];
      x(token, k, v);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (group && k + i < kColumns) sum = fmaf(group[(k + i) * kTileRows + lane % kTileRows], v[i], sum);
    }
    shared.partial[warp][token][lane] = sum;
  }
}

/// As above, by the weights' type. Every thread of the block calls it; sums are there when it returns, and stay until
/// the next call. `kRing` column tiles of a warp are on their way beside the one at hand, 16 registers each: one of two
/// blocks' warps is 32 KiB a multiprocessor, twice what the latency of DRAM asks for.
template <DType kType, int kColumns, int kTiles, int kRing = 2, class X>
__device__ __forceinline__ void Product(const unsigned char* first, const unsigned char* second, const X& x,
                                        ProductShared& shared) {
  if constexpr (kType == DType::kBF16)
    ProductBf16<kColumns, kTiles, kRing>(first, second, x, shared);
  else
    ProductF32<kColumns, kTiles>(first, second, x, shared);
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < kItemRows * kTiles * kTokenTile; i += kProductThreads) {
    const int row = i % kItemRows, token = i / kItemRows;
    float sum = shared.partial[0][token][row];
#pragma unroll
    for (int w = 1; w < kProductWarps; ++w) sum += shared.partial[w][token][row];
    shared.sum[token][row] = sum;
  }
  __syncthreads();
}

/// A group of sixteen rows of a matrix; null beyond its last.
template <DType kType, int kColumns>
__device__ __forceinline__ const unsigned char* Group(const void* matrix, int group, int rows) {
  if (group * kTileRows >= rows) return nullptr;
  return static_cast<const unsigned char*>(matrix) + group * Tile16GroupBytes(kType, kColumns);
}

/// Root mean square scales of `count` rows, a warp a row: scale[row] = 1 / sqrt(mean(x^2) + eps). `row(i)` is row i's
/// address. A barrier must follow.
template <class T, int kColumns, class Row>
__device__ __forceinline__ void RowScales(int count, float eps, const Row& row, float* scale) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int i = threadIdx.x / 32; i < count; i += kProductWarps) {
    const T* x = row(i);
    float squares = 0;
    for (int k = lane * 8; k < kColumns; k += 32 * 8) {
      float v[8];
      LoadColumns<T, kColumns>(x, k, v);
#pragma unroll
      for (int j = 0; j < 8; ++j) squares = fmaf(v[j], v[j], squares);
    }
    squares = WarpSum(squares);
    if (lane == 0) scale[i] = 1 / sqrtf(squares / kColumns + eps);
  }
}

/// x * scale * weight, as rms_norm rounds it.
template <class T, bool kRoundFirst>
__device__ __forceinline__ float Normed(float x, float scale, float weight) {
  float v = x * scale;
  if constexpr (kRoundFirst) v = Rounded<T>(v);
  return Rounded<T>(v * weight);
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_CUDA_TILE16_CUH_
