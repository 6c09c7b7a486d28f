// Conversions between number formats, and arithmetic of the narrow ones, rounded as the PTX ISA says: once, to nearest
// even unless a mode is named. NaN results are the canonical one (0x7fff, 0x7fffffff).
#ifndef QWEN_TEST_CUDA_EMULATOR_NUMERIC_H_
#define QWEN_TEST_CUDA_EMULATOR_NUMERIC_H_

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace qwen::emu {

enum class Rounding : uint8_t { kNearest, kZero, kDown, kUp, kNearestAway };

constexpr float CanonicalNan() { return std::bit_cast<float>(0x7fffffffu); }
/// On the bits: to a compiler one NaN is as good as another.
inline float Canonical(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : bits);
}

/// .ftz: a subnormal becomes a zero of its sign.
inline float Flush(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) ? bits : bits & 0x80000000u);
}

inline float HalfToFloat(uint16_t h) { return _cvtsh_ss(h); }
inline uint16_t FloatToHalf(float x) {
  return x != x ? 0x7fff : _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline uint16_t FloatToHalfZero(float x) {
  return x != x ? 0x7fff : _cvtss_sh(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

inline float Bf16ToFloat(uint16_t b) { return std::bit_cast<float>(uint32_t{b} << 16); }
[[gnu::always_inline]] inline uint16_t FloatToBf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>(x != x ? 0x7fff : rounded);
}
inline uint16_t FloatToBf16Zero(float x) {
  return static_cast<uint16_t>(x != x ? 0x7fff : std::bit_cast<uint32_t>(x) >> 16);
}

/// The double nearest to a + b whose last bit is 1 when the sum is not exact. Rounding it again to half the digits or
/// fewer then gives what rounding the exact sum once gives (Boldo and Melquiond 2008).
[[gnu::always_inline]] inline double AddToOdd(double a, double b) {
  double sum = a + b;
  double shadow = sum - a;
  double error = (a - (sum - shadow)) + (b - shadow);
  uint64_t bits = std::bit_cast<uint64_t>(sum);
  bool inexact = error != 0 && error == error && std::fabs(sum) < INFINITY;
  bool beyond = (error < 0) != (sum < 0);
  bits = inexact ? (bits - beyond) | 1 : bits;
  return std::bit_cast<double>(bits);
}
/// The same from a double to a float.
[[gnu::always_inline]] inline float ToFloatOdd(double x) {
  float narrow = static_cast<float>(x);
  uint32_t bits = std::bit_cast<uint32_t>(narrow);
  double back = narrow;
  if (back == x || x != x) return narrow;
  bool beyond = std::fabs(back) > std::fabs(x);
  return std::bit_cast<float>((bits - beyond) | 1);
}

// a * b of two 16-bit floats is exact in float (11 + 11 digits), so these round once.
[[gnu::always_inline]] inline uint16_t HalfFma(uint16_t a, uint16_t b, uint16_t c) {
  double product = static_cast<double>(HalfToFloat(a)) * HalfToFloat(b);
  return FloatToHalf(ToFloatOdd(AddToOdd(product, HalfToFloat(c))));
}
[[gnu::always_inline]] inline uint16_t Bf16Fma(uint16_t a, uint16_t b, uint16_t c) {
  double product = static_cast<double>(Bf16ToFloat(a)) * Bf16ToFloat(b);
  return FloatToBf16(ToFloatOdd(AddToOdd(product, Bf16ToFloat(c))));
}

/// An 8-bit float: `mantissa` bits, exponents biased by `bias`. e4m3 has no infinity and NaN only at 0x7f; e5m2 is
/// IEEE's. Conversion from float is to nearest even and saturates (.satfinite, the only form there is).
struct E4m3 {
  static constexpr int kMantissa = 3, kBias = 7;
  static constexpr float kMax = 448.0f;
  static constexpr uint8_t kMaxBits = 0x7e;
};
struct E5m2 {
  static constexpr int kMantissa = 2, kBias = 15;
  static constexpr float kMax = 57344.0f;
  static constexpr uint8_t kMaxBits = 0x7b;
};
template <class F>
uint8_t FloatToByte(float x) {
  uint8_t sign = std::signbit(x) ? 0x80 : 0;
  float magnitude = std::fabs(x);
  if (x != x) return 0x7f;
  if (magnitude >= F::kMax) return sign | F::kMaxBits;
  int exponent = magnitude == 0 ? 1 - F::kBias : std::max(std::ilogb(magnitude), 1 - F::kBias);
  // Units of the last place; a carry runs into the exponent by itself.
  double units = std::nearbyint(std::ldexp(static_cast<double>(magnitude), F::kMantissa - exponent));
  int bits = static_cast<int>(units) + ((exponent + F::kBias - 1) << F::kMantissa);
  return static_cast<uint8_t>(sign | bits);
}
template <class F>
float ByteToFloat(uint8_t b) {
  int exponent = (b & 0x7f) >> F::kMantissa, mantissa = b & ((1 << F::kMantissa) - 1);
  float sign = b & 0x80 ? -1.0f : 1.0f;
  if (F::kMantissa == 3 && (b & 0x7f) == 0x7f) return CanonicalNan();
  if (F::kMantissa == 2 && exponent == 31) return mantissa ? CanonicalNan() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), 1 - F::kBias - F::kMantissa);
  return sign * std::ldexp(static_cast<float>(mantissa | 1 << F::kMantissa), exponent - F::kBias - F::kMantissa);
}

/// The f32 results of the directed modes, which this machine rounds itself (rounding.cc).
float AddRounded(float a, float b, Rounding mode);
float MulRounded(float a, float b, Rounding mode);
float FmaRounded(float a, float b, float c, Rounding mode);
float DivRounded(float a, float b, Rounding mode);
float SqrtRounded(float a, Rounding mode);
double AddRounded(double a, double b, Rounding mode);
double MulRounded(double a, double b, Rounding mode);
double FmaRounded(double a, double b, double c, Rounding mode);
/// x as an integer in floating point.
double RoundToInteger(double x, Rounding mode);
float DoubleToFloat(double x, Rounding mode);
float IntegerToFloat(int64_t x, Rounding mode);
float UnsignedToFloat(uint64_t x, Rounding mode);

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_NUMERIC_H_
