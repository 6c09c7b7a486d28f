// Arithmetic in the directed rounding modes. Built with -frounding-math, so that no operation moves out of its mode.
#include <cfenv>

#include "test/cuda_emulator/numeric.h"

namespace qwen::emu {
namespace {

class Mode {
 public:
  explicit Mode(Rounding mode) : before_(std::fegetround()) {
    static constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD, FE_TONEAREST};
    std::fesetround(kModes[static_cast<int>(mode)]);
  }
  ~Mode() { std::fesetround(before_); }

 private:
  int before_;
};

}  // namespace

float AddRounded(float a, float b, Rounding mode) {
  Mode set(mode);
  volatile float x = a, y = b;
  volatile float r = x + y;
  return r;
}
float MulRounded(float a, float b, Rounding mode) {
  Mode set(mode);
  volatile float x = a, y = b;
  volatile float r = x * y;
  return r;
}
float FmaRounded(float a, float b, float c, Rounding mode) {
  Mode set(mode);
  volatile float x = a, y = b, z = c;
  volatile float r = __builtin_fmaf(x, y, z);
  return r;
}
float DivRounded(float a, float b, Rounding mode) {
  Mode set(mode);
  volatile float x = a, y = b;
  volatile float r = x / y;
  return r;
}
float SqrtRounded(float a, Rounding mode) {
  Mode set(mode);
  volatile float x = a;
  volatile float r = __builtin_sqrtf(x);
  return r;
}
double AddRounded(double a, double b, Rounding mode) {
  Mode set(mode);
  volatile double x = a, y = b;
  volatile double r = x + y;
  return r;
}
double MulRounded(double a, double b, Rounding mode) {
  Mode set(mode);
  volatile double x = a, y = b;
  volatile double r = x * y;
  return r;
}
double FmaRounded(double a, double b, double c, Rounding mode) {
  Mode set(mode);
  volatile double x = a, y = b, z = c;
  volatile double r = __builtin_fma(x, y, z);
  return r;
}
double RoundToInteger(double x, Rounding mode) {
  if (mode == Rounding::kNearestAway) return std::round(x);
  Mode set(mode);
  volatile double v = x;
  volatile double r = std::nearbyint(v);
  return r;
}
float DoubleToFloat(double x, Rounding mode) {
  Mode set(mode);
  volatile double v = x;
  volatile float r = static_cast<float>(v);
  return r;
}
float IntegerToFloat(int64_t x, Rounding mode) {
  Mode set(mode);
  volatile int64_t v = x;
  volatile float r = static_cast<float>(v);
  return r;
}
float UnsignedToFloat(uint64_t x, Rounding mode) {
  Mode set(mode);
  volatile uint64_t v = x;
  volatile float r = static_cast<float>(v);
  return r;
}

}  // namespace qwen::emu
