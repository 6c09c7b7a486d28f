// Packs rows of a matrix into tile16.
#ifndef QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_
#define QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_

#include <cstdint>

#include "runtime/kernels/formats/tile16.h"

namespace qwen::kernels {

/// Packs 16 rows of `columns` elements into one group; nullptr is a row of zeros. Rows need no alignment.
void PackTile16(DType type, const uint8_t* const rows[kTileRows], int64_t columns, uint8_t* to);

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_FORMATS_PACK_H_
