#include "runtime/kernels/formats/convert.h"

#include <cassert>
#include <cstring>

namespace qwen::kernels {
namespace {

float F32FromF16(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  float value = static_cast<float>(fraction) * 0x1p-24f;  // a subnormal: exact
  return sign ? -value : value;
}

template <class T>
T Load(const uint8_t* from, int64_t index) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

}  // namespace

bool ConvertsToF32(DType type) {
  return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16 || type == DType::kF64;
}

void ToF32(DType type, const uint8_t* from, int64_t count, float* to) {
  assert(ConvertsToF32(type));
  if (count == 0) return;  // memcpy takes no nullptr
  if (type == DType::kF32) {
    std::memcpy(to, from, count * sizeof(float));
  } else if (type == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) to[i] = F32FromBf16(Load<uint16_t>(from, i));
  } else if (type == DType::kF16) {
    for (int64_t i = 0; i < count; ++i) to[i] = F32FromF16(Load<uint16_t>(from, i));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(Load<double>(from, i));
  }
}

void FromF32(const float* from, int64_t count, DType type, uint8_t* to) {
  assert(type == DType::kF32 || type == DType::kBF16);
  if (count == 0) return;
  if (type == DType::kF32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = Bf16FromF32(from[i]);
    std::memcpy(to + i * 2, &bits, 2);
  }
}

}  // namespace qwen::kernels
