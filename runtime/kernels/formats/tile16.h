// tile16: how linear kernels, on the CPU and on CUDA, want a matrix [rows, columns] (contracts, section 6).
//
//   f32   [rows/16][columns][16]
//   bf16  [rows/16][columns/32][16 pairs of columns][16 rows][2]: 1 KiB tiles, as AMX and vdpbf16ps read them
//
// Both are 32-bit words transposed inside a group of 16 rows: a vector holds 16 rows of one column (one pair), so a dot
// product needs no sum across lanes and its order over the columns is that of the loop. On CUDA two groups and 32
// columns are four 16-byte loads a lane, and those are the A operands of four mma.m16n8k16 (cuda/tile16.cuh).
// Padding is zero. No includes but ours: device code reads this header too.
#ifndef QWEN_RUNTIME_KERNELS_FORMATS_TILE16_H_
#define QWEN_RUNTIME_KERNELS_FORMATS_TILE16_H_

#include "runtime/base/dtype.h"

namespace qwen::kernels {

inline constexpr int kTileRows = 16;
inline constexpr int kTileColumnsBf16 = 32;

/// Columns with padding. `type` is f32 or bf16, as everywhere here.
constexpr long long Tile16Columns(DType type, long long columns) {
  return type == DType::kBF16 ? (columns + kTileColumnsBf16 - 1) / kTileColumnsBf16 * kTileColumnsBf16 : columns;
}

/// Bytes of one group of 16 rows.
constexpr long long Tile16GroupBytes(DType type, long long columns) {
  return kTileRows * Tile16Columns(type, columns) * DTypeBytes(type);
}

/// Bytes of the whole matrix.
constexpr long long Tile16Bytes(DType type, long long rows, long long columns) {
  return (rows + kTileRows - 1) / kTileRows * Tile16GroupBytes(type, columns);
}

/// Where element (row, column) lies, in elements.
constexpr long long Tile16Index(DType type, long long columns, long long row, long long column) {
  long long group = row / kTileRows * kTileRows * Tile16Columns(type, columns);
  if (type == DType::kBF16) return group + column / 2 * (2 * kTileRows) + row % kTileRows * 2 + column % 2;
  return group + column * kTileRows + row % kTileRows;
}

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_FORMATS_TILE16_H_
