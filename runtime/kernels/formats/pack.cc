#include "runtime/kernels/formats/pack.h"

#include <cassert>
#include <cstring>

namespace qwen::kernels {

void PackTile16(DType type, const uint8_t* const rows[kTileRows], int64_t columns, uint8_t* to) {
  assert(type == DType::kF32 || type == DType::kBF16);
  const int64_t bytes = columns * DTypeBytes(type);
  const int64_t all_words = Tile16Columns(type, columns) * DTypeBytes(type) / 4;
  constexpr int kBlock = 16;  // 16 rows of 16 words: each side stays within 16 cache lines
  for (int64_t word = 0; word < all_words; word += kBlock) {
    const int count = static_cast<int>(all_words - word < kBlock ? all_words - word : kBlock);
    for (int n = 0; n < kTileRows; ++n) {
      uint32_t from[kBlock] = {};
      if (const int64_t rest = bytes - word * 4; rows[n] && rest > 0) {
        // Two calls: the common one has a size the compiler knows. A row may end inside a word.
        if (rest >= static_cast<int64_t>(sizeof(from)))
          std::memcpy(from, rows[n] + word * 4, sizeof(from));
        else
          std::memcpy(from, rows[n] + word * 4, rest);
      }
      for (int i = 0; i < count; ++i) std::memcpy(to + ((word + i) * kTileRows + n) * 4, &from[i], 4);
    }
  }
}

}  // namespace qwen::kernels
