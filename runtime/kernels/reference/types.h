// Element types and weights of the oracle: bytes as a file holds them, converted row by row where they are read, so that
// a weight of a gigabyte is never copied to double.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_TYPES_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_TYPES_H_

#include <cstdint>
#include <cstring>

namespace qwen::reference {

enum class Type { kF32, kBf16, kI32 };

inline int64_t BytesOf(Type type) { return type == Type::kBf16 ? 2 : 4; }

inline float FromBf16(uint16_t bits) {
  uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

/// Nearest, ties to even. A NaN stays one: rounding its bits could carry into the exponent.
inline uint16_t ToBf16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  if (value != value) return uint16_t((word >> 16) | 0x40);
  return uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

/// `value` as `type` would hold it; a double is left alone.
inline float Round(float value, Type type) { return type == Type::kBf16 ? FromBf16(ToBf16(value)) : value; }
inline double Round(double value, Type) { return value; }

/// A matrix [rows, cols] in f32 or bf16; the bytes need no alignment. A weight [experts, out, in] is seen as
/// [experts * out, in]. Does not own its bytes.
struct Weight {
  const void* data = nullptr;
  Type type = Type::kF32;
  int64_t rows = 0, cols = 0;

  template <class Real>
  void Row(int64_t row, Real* out) const {
    const char* from = static_cast<const char*>(data) + row * cols * BytesOf(type);
    for (int64_t c = 0; c < cols; ++c) {
      if (type == Type::kBf16) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * c, 2);
        out[c] = FromBf16(bits);
      } else {
        float value;
        std::memcpy(&value, from + 4 * c, 4);
        out[c] = value;
      }
    }
  }

  /// Rows [first, first + count) alone.
  Weight Slice(int64_t first, int64_t count) const {
    return {static_cast<const char*>(data) + first * cols * BytesOf(type), type, count, cols};
  }
};

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_TYPES_H_
