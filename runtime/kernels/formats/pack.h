// tile16: how the CPU's linear kernels want a matrix [rows, columns] (contracts, section 6).
//
//   f32   [rows/16][columns][16]
//   bf16  [rows/16][columns/32][16 pairs of columns][16 rows][2]: 1 KiB tiles, as AMX and vdpbf16ps read them
//
// Both are 32-bit words transposed inside a group of 16 rows: a vector holds 16 rows of one column (one pair), so a dot
// product needs no sum across lanes and its order over the columns is that of the loop. Padding is zero.
#ifndef QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_
#define QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_

#include <cstdint>

#include "runtime/base/dtype.h"

namespace qwen::kernels {

inline constexpr int kTileRows = 16;
inline constexpr int kTileColumnsBf16 = 32;

/// Columns with padding. `type` is f32 or bf16, as everywhere here.
constexpr int64_t Tile16Columns(DType type, int64_t columns) {
  return type == DType::kBF16 ? (columns + kTileColumnsBf16 - 1) / kTileColumnsBf16 * kTileColumnsBf16 : columns;
}

/// Bytes of one group of 16 rows.
constexpr int64_t Tile16GroupBytes(DType type, int64_t columns) {
  return kTileRows * Tile16Columns(type, columns) * DTypeBytes(type);
}

/// Bytes of the whole matrix.
constexpr int64_t Tile16Bytes(DType type, int64_t rows, int64_t columns) {
  return (rows + kTileRows - 1) / kTileRows * Tile16GroupBytes(type, columns);
}

/// Where element (row, column) lies, in elements.
constexpr int64_t Tile16Index(DType type, int64_t columns, int64_t row, int64_t column) {
  int64_t group = row / kTileRows * kTileRows * Tile16Columns(type, columns);
  if (type == DType::kBF16) return group + column / 2 * (2 * kTileRows) + row % kTileRows * 2 + column % 2;
  return group + column * kTileRows + row % kTileRows;
}

/// Packs 16 rows of `columns` elements into one group; nullptr is a row of zeros. Rows need no alignment.
void PackTile16(DType type, const uint8_t* const rows[kTileRows], int64_t columns, uint8_t* to);

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_
