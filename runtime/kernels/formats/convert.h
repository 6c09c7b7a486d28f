// Element types to and from f32, for weights on their way into a kernel's layout.
#ifndef QWEN_RUNTIME_KERNELS_FORMATS_CONVERT_H_
#define QWEN_RUNTIME_KERNELS_FORMATS_CONVERT_H_

#include <bit>
#include <cstdint>

#include "runtime/base/dtype.h"

namespace qwen::kernels {

inline float F32FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// To nearest, ties to even; NaN stays NaN.
inline uint16_t Bf16FromF32(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Whether ToF32 knows the type: f32, bf16, f16, f64.
bool ConvertsToF32(DType type);

/// `count` elements of `type`, which need no alignment.
void ToF32(DType type, const uint8_t* from, int64_t count, float* to);

/// `type` is f32 or bf16.
void FromF32(const float* from, int64_t count, DType type, uint8_t* to);

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_FORMATS_CONVERT_H_
