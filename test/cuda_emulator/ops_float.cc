// Floating point: f32, f64, f16, bf16 and their pairs; approximate functions; comparisons of every type; selection.
//
// Rounding is exact. The `.approx` functions give the correctly rounded value of the function, in f32 through double:
// real hardware is within the few ulp that the PTX ISA states, so a kernel whose result depends on the difference is
// not tested by these bits.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "test/cuda_emulator/decode.h"
#include "test/cuda_emulator/numeric.h"

namespace qwen::emu {

void EmitSameType(Decoder& d, Handler handler, OpClass op_class, Type type, size_t sources);
void DecodeIntegerArithmetic(Decoder& d, Type type);

namespace {

struct AddF {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct SubF {
  template <class T>
  T operator()(T a, T b) const {
    return a - b;
  }
};
struct MulF {
  template <class T>
  T operator()(T a, T b) const {
    return a * b;
  }
};
struct DivF {
  template <class T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
struct FmaF {
  float operator()(float a, float b, float c) const { return __builtin_fmaf(a, b, c); }
  double operator()(double a, double b, double c) const { return __builtin_fma(a, b, c); }
};
/// A NaN loses against a number, and -0 is less than +0.
struct MinF {
  template <class T>
  T operator()(T a, T b) const {
    T r = a < b || (a == b && std::signbit(a)) ? a : b;
    return a != a ? b : b != b ? a : r;
  }
};
struct MaxF {
  template <class T>
  T operator()(T a, T b) const {
    T r = a > b || (a == b && !std::signbit(a)) ? a : b;
    return a != a ? b : b != b ? a : r;
  }
};
/// .NaN: a NaN wins.
template <class F>
struct WithNan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a ? a : b != b ? b : F{}(a, b);
  }
};

/// F on f32 lanes with .ftz and .sat around it.
template <class F, bool ftz, bool sat>
struct Float {
  template <class... A>
  float operator()(A... a) const {
    float r = ftz ? Canonical(F{}(Flush(a)...)) : Canonical(F{}(a...));
    if (ftz) r = Flush(r);
    if (sat) r = r > 0.0f ? (r < 1.0f ? r : 1.0f) : 0.0f;  // NaN becomes +0
    return r;
  }
};

// .f16 and .bf16 arithmetic is done in float and rounded once more: a sum or product of two such numbers rounds the
// same that way (float has more than twice their digits and two).
struct HalfFormat {
  static float Up(uint16_t x) { return HalfToFloat(x); }
  static uint16_t Down(float x) { return FloatToHalf(x); }
  static uint16_t Fma(uint16_t a, uint16_t b, uint16_t c) { return HalfFma(a, b, c); }
};
struct Bf16Format {
  static float Up(uint16_t x) { return Bf16ToFloat(x); }
  static uint16_t Down(float x) { return FloatToBf16(x); }
  static uint16_t Fma(uint16_t a, uint16_t b, uint16_t c) { return Bf16Fma(a, b, c); }
};
/// .ftz of a half: below the smallest normal.
inline uint16_t FlushHalf(uint16_t x) { return x & 0x7c00 ? x : x & 0x8000; }

template <class Format, class F, bool ftz = false>
struct Narrow {
  uint16_t operator()(uint16_t a, uint16_t b) const {
    if (ftz) a = FlushHalf(a), b = FlushHalf(b);
    uint16_t r = Format::Down(F{}(Format::Up(a), Format::Up(b)));
    return ftz ? FlushHalf(r) : r;
  }
};
template <class Format, bool relu, bool sat>
struct NarrowFma {
  [[gnu::always_inline]] uint16_t operator()(uint16_t a, uint16_t b, uint16_t c) const {
    uint16_t r = Format::Fma(a, b, c);
    bool nan = Format::Up(r) != Format::Up(r);
    if (relu && !nan && (r & 0x8000)) r = 0;
    if (sat) {
      float x = Format::Up(r);
      r = Format::Down(x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f);
    }
    return r;
  }
};
struct NarrowNeg {
  uint16_t operator()(uint16_t a) const { return a ^ 0x8000; }
};
struct NarrowAbs {
  uint16_t operator()(uint16_t a) const { return a & 0x7fff; }
};

/// F on both halves of a 32-bit lane.
template <class F>
struct Pair {
  template <class... A>
  [[gnu::always_inline]] uint32_t operator()(A... a) const {
    uint32_t low = F{}(static_cast<uint16_t>(a)...), high = F{}(static_cast<uint16_t>(a >> 16)...);
    return low | high << 16;
  }
};

template <class F>
Handler BinaryFloat(bool ftz, bool sat) {
  return ftz ? (sat ? Binary<float, Float<F, true, true>> : Binary<float, Float<F, true, false>>)
             : (sat ? Binary<float, Float<F, false, true>> : Binary<float, Float<F, false, false>>);
}
template <class F>
Handler UnaryFloat(bool ftz, bool sat = false) {
  return ftz ? (sat ? Unary<float, Float<F, true, true>> : Unary<float, Float<F, true, false>>)
             : (sat ? Unary<float, Float<F, false, true>> : Unary<float, Float<F, false, false>>);
}

Rounding TakeRounding(Decoder& d) {
  int mode = d.TakeOneOf({"rn", "rz", "rm", "rp"});
  return mode <= 0 ? Rounding::kNearest : static_cast<Rounding>(mode);
}

// Directed modes are rare: one slow handler each, the mode in the immediate, flags above it.
constexpr uint64_t kFtzBit = 256, kSatBit = 512;
template <class T, int sources, class F>
void Directed(Warp& w, const Instruction& i) {
  Rounding mode = static_cast<Rounding>(i.immediate & 255);
  const T* s[3] = {};
  for (int n = 0; n < sources; ++n) s[n] = w.At<T>(i.refs[n + 1]);
  T* out = w.At<T>(i.refs[0]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(w.mask >> l & 1)) continue;
    T v[3] = {};
    for (int n = 0; n < sources; ++n) {
      v[n] = s[n][l];
      if constexpr (sizeof(T) == 4)
        if (i.immediate & kFtzBit) v[n] = Flush(v[n]);
    }
    T r = F{}(v[0], v[1], v[2], mode);
    if constexpr (sizeof(T) == 4) {
      r = Canonical(r);
      if (i.immediate & kFtzBit) r = Flush(r);
      if (i.immediate & kSatBit) r = r > 0 ? std::min<T>(r, 1) : 0;
    }
    out[l] = r;
  }
}
struct AddD {
  template <class T>
  T operator()(T a, T b, T, Rounding m) const {
    return AddRounded(a, b, m);
  }
};
struct SubD {
  template <class T>
  T operator()(T a, T b, T, Rounding m) const {
    return AddRounded(a, -b, m);
  }
};
struct MulD {
  template <class T>
  T operator()(T a, T b, T, Rounding m) const {
    return MulRounded(a, b, m);
  }
};
struct FmaD {
  template <class T>
  T operator()(T a, T b, T c, Rounding m) const {
    return FmaRounded(a, b, c, m);
  }
};
struct DivD {
  float operator()(float a, float b, float, Rounding m) const { return DivRounded(a, b, m); }
};
struct RcpD {
  float operator()(float a, float, float, Rounding m) const { return DivRounded(1, a, m); }
};
struct SqrtD {
  float operator()(float a, float, float, Rounding m) const { return SqrtRounded(a, m); }
};

template <class T, int sources, class F>
void EmitDirected(Decoder& d, Type type, Rounding mode, bool ftz, bool sat) {
  size_t before = d.function().code.size();
  EmitSameType(d, Directed<T, sources, F>, sizeof(T) == 8 ? OpClass::kDouble : OpClass::kFloat, type, sources);
  if (d.ok() && d.function().code.size() > before)
    d.function().code.back().immediate = static_cast<uint64_t>(mode) | (ftz ? kFtzBit : 0) | (sat ? kSatBit : 0);
}

template <class F, class D>
void DecodeAddLike(Decoder& d) {
  Type type = d.TakeType();
  if (!IsFloat(type)) return DecodeIntegerArithmetic(d, type);
  bool ftz = d.Take("ftz"), sat = d.Take("sat");
  Rounding mode = TakeRounding(d);
  switch (type) {
    case Type::kF32:
      if (mode != Rounding::kNearest) return EmitDirected<float, 2, D>(d, type, mode, ftz, sat);
      return EmitSameType(d, BinaryFloat<F>(ftz, sat), OpClass::kFloat, type, 2);
    case Type::kF64:
      if (mode != Rounding::kNearest) return EmitDirected<double, 2, D>(d, type, mode, false, false);
      return EmitSameType(d, Binary<double, F>, OpClass::kDouble, type, 2);
    case Type::kF16:
    case Type::kF16x2: {
      if (sat || mode != Rounding::kNearest) return d.Fail("this form of f16 arithmetic is not emulated");
      using Plain = Narrow<HalfFormat, F>;
      using Ftz = Narrow<HalfFormat, F, true>;
      Handler handler = type == Type::kF16 ? (ftz ? Binary<uint16_t, Ftz> : Binary<uint16_t, Plain>)
                                           : (ftz ? Binary<uint32_t, Pair<Ftz>> : Binary<uint32_t, Pair<Plain>>);
      return EmitSameType(d, handler, OpClass::kHalf, type, 2);
    }
    default:
      return d.Fail("no such type for this opcode on sm_89");
  }
}

template <class Format, bool pair>
Handler PickNarrowFma(bool relu, bool sat) {
  if constexpr (pair)
    return relu  ? Ternary<uint32_t, Pair<NarrowFma<Format, true, false>>>
           : sat ? Ternary<uint32_t, Pair<NarrowFma<Format, false, true>>>
                 : Ternary<uint32_t, Pair<NarrowFma<Format, false, false>>>;
  else
    return relu  ? Ternary<uint16_t, NarrowFma<Format, true, false>>
           : sat ? Ternary<uint16_t, NarrowFma<Format, false, true>>
                 : Ternary<uint16_t, NarrowFma<Format, false, false>>;
}
void DecodeFma(Decoder& d) {
  Type type = d.TakeType();
  if (!IsFloat(type)) return DecodeIntegerArithmetic(d, type);
  bool ftz = d.Take("ftz"), relu = d.Take("relu"), sat = d.Take("sat");
  Rounding mode = TakeRounding(d);
  if (type != Type::kF32 && type != Type::kF64 && (ftz || mode != Rounding::kNearest))
    return d.Fail("this form of 16-bit fma is not emulated");
  switch (type) {
    case Type::kF32:
      if (relu) return d.Fail("no .relu for f32");
      if (mode != Rounding::kNearest) return EmitDirected<float, 3, FmaD>(d, type, mode, ftz, sat);
      return EmitSameType(
          d,
          ftz ? (sat ? Ternary<float, Float<FmaF, true, true>> : Ternary<float, Float<FmaF, true, false>>)
              : (sat ? Ternary<float, Float<FmaF, false, true>> : Ternary<float, Float<FmaF, false, false>>),
          OpClass::kFloat, type, 3);
    case Type::kF64:
      if (mode != Rounding::kNearest) return EmitDirected<double, 3, FmaD>(d, type, mode, false, false);
      return EmitSameType(d, Ternary<double, FmaF>, OpClass::kDouble, type, 3);
    case Type::kF16:
      return EmitSameType(d, PickNarrowFma<HalfFormat, false>(relu, sat), OpClass::kHalf, type, 3);
    case Type::kF16x2:
      return EmitSameType(d, PickNarrowFma<HalfFormat, true>(relu, sat), OpClass::kHalf, type, 3);
    case Type::kBf16:
      return EmitSameType(d, PickNarrowFma<Bf16Format, false>(relu, sat), OpClass::kHalf, type, 3);
    case Type::kBf16x2:
      return EmitSameType(d, PickNarrowFma<Bf16Format, true>(relu, sat), OpClass::kHalf, type, 3);
    default:
      return d.Fail("no such type for this opcode");
  }
}

void DecodeDiv(Decoder& d) {
  d.TakeOneOf({"approx", "full"});
  bool ftz = d.Take("ftz");
  Rounding mode = TakeRounding(d);
  Type type = d.TakeType();
  if (!IsFloat(type)) return DecodeIntegerArithmetic(d, type);
  if (type == Type::kF64) return EmitSameType(d, Binary<double, DivF>, OpClass::kDouble, type, 2);
  if (type != Type::kF32) return d.Fail("no such type for this opcode");
  if (mode != Rounding::kNearest) return EmitDirected<float, 2, DivD>(d, type, mode, ftz, false);
  EmitSameType(d, BinaryFloat<DivF>(ftz, false), OpClass::kSpecialFunction, type, 2);
}

template <class F>
void DecodeMinMax(Decoder& d) {
  bool ftz = d.Take("ftz"), nan = d.Take("NaN");
  Type type = d.TakeType();
  if (!IsFloat(type)) return DecodeIntegerArithmetic(d, type);
  using N = WithNan<F>;
  switch (type) {
    case Type::kF32:
      return EmitSameType(d, nan ? BinaryFloat<N>(ftz, false) : BinaryFloat<F>(ftz, false), OpClass::kFloat, type, 2);
    case Type::kF64:
      return EmitSameType(d, nan ? Binary<double, N> : Binary<double, F>, OpClass::kDouble, type, 2);
    case Type::kF16:
      return EmitSameType(d, nan ? Binary<uint16_t, Narrow<HalfFormat, N>> : Binary<uint16_t, Narrow<HalfFormat, F>>,
                          OpClass::kHalf, type, 2);
    case Type::kF16x2:
      return EmitSameType(
          d, nan ? Binary<uint32_t, Pair<Narrow<HalfFormat, N>>> : Binary<uint32_t, Pair<Narrow<HalfFormat, F>>>,
          OpClass::kHalf, type, 2);
    case Type::kBf16:
      return EmitSameType(d, nan ? Binary<uint16_t, Narrow<Bf16Format, N>> : Binary<uint16_t, Narrow<Bf16Format, F>>,
                          OpClass::kHalf, type, 2);
    case Type::kBf16x2:
      return EmitSameType(
          d, nan ? Binary<uint32_t, Pair<Narrow<Bf16Format, N>>> : Binary<uint32_t, Pair<Narrow<Bf16Format, F>>>,
          OpClass::kHalf, type, 2);
    default:
      return d.Fail("no such type for this opcode");
  }
}

struct NegF {
  double operator()(double a) const { return -a; }
  float operator()(float a) const { return Canonical(-a); }  // measured: an H100 keeps no NaN's sign
};
struct AbsF {
  template <class T>
  T operator()(T a) const {
    return std::fabs(a);
  }
};
/// Sign changes keep a NaN's bits.
template <class F, bool ftz>
struct SignOnly {
  float operator()(float a) const { return F{}(ftz ? Flush(a) : a); }
};

template <class F, class NarrowF>
void DecodeSign(Decoder& d) {
  bool ftz = d.Take("ftz");
  Type type = d.TakeType();
  if (!IsFloat(type)) return DecodeIntegerArithmetic(d, type);
  switch (type) {
    case Type::kF32:
      return EmitSameType(d, ftz ? Unary<float, SignOnly<F, true>> : Unary<float, SignOnly<F, false>>, OpClass::kFloat,
                          type, 1);
    case Type::kF64:
      return EmitSameType(d, Unary<double, F>, OpClass::kDouble, type, 1);
    case Type::kF16:
    case Type::kBf16:
      return EmitSameType(d, Unary<uint16_t, NarrowF>, OpClass::kHalf, type, 1);
    case Type::kF16x2:
    case Type::kBf16x2:
      return EmitSameType(d, Unary<uint32_t, Pair<NarrowF>>, OpClass::kHalf, type, 1);
    default:
      return d.Fail("no such type for this opcode");
  }
}

// ---- functions

struct RcpF {
  template <class T>
  T operator()(T a) const {
    return T(1) / a;
  }
};
struct SqrtF {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct RsqrtF {
  float operator()(float a) const { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
  double operator()(double a) const { return 1.0 / std::sqrt(a); }
};
struct Ex2F {
  float operator()(float a) const { return static_cast<float>(std::exp2(static_cast<double>(a))); }
};
struct Lg2F {
  float operator()(float a) const { return static_cast<float>(std::log2(static_cast<double>(a))); }
};
struct SinF {
  float operator()(float a) const { return static_cast<float>(std::sin(static_cast<double>(a))); }
};
struct CosF {
  float operator()(float a) const { return static_cast<float>(std::cos(static_cast<double>(a))); }
};
struct TanhF {
  float operator()(float a) const { return static_cast<float>(std::tanh(static_cast<double>(a))); }
};
template <class Format, class F>
struct NarrowFunction {
  uint16_t operator()(uint16_t a) const { return Format::Down(F{}(Format::Up(a))); }
};

template <class F>
void DecodeFunction(Decoder& d) {
  bool approximate = d.Take("approx"), ftz = d.Take("ftz");
  Rounding mode = TakeRounding(d);
  Type type = d.TakeType();
  constexpr bool kRounds = std::is_same_v<F, RcpF> || std::is_same_v<F, SqrtF>;
  if (mode != Rounding::kNearest && !kRounds) return d.Fail("no rounding mode for this opcode");
  if (!approximate && !kRounds) return d.Fail("the opcode wants .approx");
  switch (type) {
    case Type::kF32:
      if constexpr (kRounds)
        if (mode != Rounding::kNearest)
          return EmitDirected<float, 1, std::conditional_t<std::is_same_v<F, RcpF>, RcpD, SqrtD>>(d, type, mode, ftz,
                                                                                                  false);
      return EmitSameType(d, UnaryFloat<F>(ftz), OpClass::kSpecialFunction, type, 1);
    case Type::kF64:
      if constexpr (kRounds || std::is_same_v<F, RsqrtF>)
        return EmitSameType(d, Unary<double, F>, OpClass::kDouble, type, 1);
      break;
    case Type::kF16:
      return EmitSameType(d, Unary<uint16_t, NarrowFunction<HalfFormat, F>>, OpClass::kSpecialFunction, type, 1);
    case Type::kF16x2:
      return EmitSameType(d, Unary<uint32_t, Pair<NarrowFunction<HalfFormat, F>>>, OpClass::kSpecialFunction, type, 1);
    case Type::kBf16:
      return EmitSameType(d, Unary<uint16_t, NarrowFunction<Bf16Format, F>>, OpClass::kSpecialFunction, type, 1);
    case Type::kBf16x2:
      return EmitSameType(d, Unary<uint32_t, Pair<NarrowFunction<Bf16Format, F>>>, OpClass::kSpecialFunction, type, 1);
    default:
      break;
  }
  d.Fail("no such type for this opcode");
}

struct Copysign {
  // PTX: the sign of the first operand, the rest of the second.
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};
void DecodeCopysign(Decoder& d) {
  Type type = d.TakeType();
  EmitSameType(d, type == Type::kF64 ? Binary<double, Copysign> : Binary<float, Copysign>, OpClass::kFloat, type, 2);
}

template <class T, int kind>
void TestProperty(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  SetPredicate(w, i.refs[0], MaskOf([=](int l) {
                 int c = std::fpclassify(a[l]);
                 switch (kind) {
                   case 0:
                     return c != FP_NAN && c != FP_INFINITE;
                   case 1:
                     return c == FP_INFINITE;
                   case 2:
                     return c != FP_NAN;
                   case 3:
                     return c == FP_NAN;
                   case 4:
                     return c == FP_NORMAL || c == FP_ZERO;  // the ISA counts both zeros in
                   default:
                     return c == FP_SUBNORMAL;
                 }
               }));
}
void DecodeTestp(Decoder& d) {
  int kind = d.TakeOneOf({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  Type type = d.TakeType();
  static constexpr Handler kHandlers[2][6] = {
      {TestProperty<float, 0>, TestProperty<float, 1>, TestProperty<float, 2>, TestProperty<float, 3>,
       TestProperty<float, 4>, TestProperty<float, 5>},
      {TestProperty<double, 0>, TestProperty<double, 1>, TestProperty<double, 2>, TestProperty<double, 3>,
       TestProperty<double, 4>, TestProperty<double, 5>}};
  if (kind < 0 || (type != Type::kF32 && type != Type::kF64)) return d.Fail("no such form of testp");
  if (!d.Expect(2)) return;
  d.Emit(kHandlers[type == Type::kF64][kind], OpClass::kPredicate,
         {d.DestinationPredicate(d.operand(0)), d.Source(d.operand(1), BytesOf(type), type)});
}

// ---- comparisons: setp, set

struct Eq {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct Ne {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b || a > b;
  }
};  // false for NaN
struct Lt {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct Le {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct Gt {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct Ge {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
template <class F>
struct Unordered {
  template <class T>
  bool operator()(T a, T b) const {
    return a != a || b != b || F{}(a, b);
  }
};
struct Num {
  template <class T>
  bool operator()(T a, T b) const {
    return a == a && b == b;
  }
};
struct Nan {
  template <class T>
  bool operator()(T a, T b) const {
    return a != a || b != b;
  }
};

/// How a lane becomes the number that is compared.
template <class T>
struct Plain {
  static T Get(T x) { return x; }
};
struct Flushed {
  static float Get(float x) { return Flush(x); }
};
struct FromHalf {
  static float Get(uint16_t x) { return HalfToFloat(x); }
};
struct FromBf16 {
  static float Get(uint16_t x) { return Bf16ToFloat(x); }
};

template <class T, class View, class F>
uint32_t Compare(const Warp& w, const Instruction& i) {
  const T *a = w.At<T>(i.refs[2]), *b = w.At<T>(i.refs[3]);
  return MaskOf([=](int l) { return F{}(View::Get(a[l]), View::Get(b[l])); });
}
using Comparison = uint32_t (*)(const Warp&, const Instruction&);

constexpr int kComparisons = 18;
template <class T, class View>
Comparison PickComparison(int which) {
  static constexpr Comparison kTable[kComparisons] = {Compare<T, View, Eq>,
                                                      Compare<T, View, Ne>,
                                                      Compare<T, View, Lt>,
                                                      Compare<T, View, Le>,
                                                      Compare<T, View, Gt>,
                                                      Compare<T, View, Ge>,
                                                      Compare<T, View, Lt>,
                                                      Compare<T, View, Le>,
                                                      Compare<T, View, Gt>,
                                                      Compare<T, View, Ge>,  // lo ls hi hs
                                                      Compare<T, View, Unordered<Eq>>,
                                                      Compare<T, View, Unordered<Ne>>,
                                                      Compare<T, View, Unordered<Lt>>,
                                                      Compare<T, View, Unordered<Le>>,
                                                      Compare<T, View, Unordered<Gt>>,
                                                      Compare<T, View, Unordered<Ge>>,
                                                      Compare<T, View, Num>,
                                                      Compare<T, View, Nan>};
  return kTable[which];
}
Comparison ComparisonOf(int which, Type type, bool ftz) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return PickComparison<uint16_t, Plain<uint16_t>>(which);
    case Type::kS16:
      return PickComparison<int16_t, Plain<int16_t>>(which);
    case Type::kB32:
    case Type::kU32:
      return PickComparison<uint32_t, Plain<uint32_t>>(which);
    case Type::kS32:
      return PickComparison<int32_t, Plain<int32_t>>(which);
    case Type::kB64:
    case Type::kU64:
      return PickComparison<uint64_t, Plain<uint64_t>>(which);
    case Type::kS64:
      return PickComparison<int64_t, Plain<int64_t>>(which);
    case Type::kF32:
      return ftz ? PickComparison<float, Flushed>(which) : PickComparison<float, Plain<float>>(which);
    case Type::kF64:
      return PickComparison<double, Plain<double>>(which);
    case Type::kF16:
      return PickComparison<uint16_t, FromHalf>(which);
    case Type::kBf16:
      return PickComparison<uint16_t, FromBf16>(which);
    default:
      return nullptr;
  }
}

struct CompareDetail {
  Comparison compare;
  int combine;  // 0 none, 1 and, 2 or, 3 xor
};
/// refs: p, q (or kNoRef), a, b, c.
void SetPredicateHandler(Warp& w, const Instruction& i) {
  const auto& detail = *static_cast<const CompareDetail*>(i.detail);
  uint32_t t = detail.compare(w, i), p = t, q = ~t;
  if (detail.combine) {
    uint32_t c = w.Predicate(i.refs[4]);
    p = detail.combine == 1 ? t & c : detail.combine == 2 ? t | c : t ^ c;
    q = detail.combine == 1 ? ~t & c : detail.combine == 2 ? ~t | c : ~t ^ c;
  }
  SetPredicate(w, i.refs[0], p);
  SetPredicate(w, i.refs[1], q);
}
int TakeComparison(Decoder& d) {
  return d.TakeOneOf({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
                      "geu", "num", "nan"});
}
void DecodeSetp(Decoder& d) {
  int which = TakeComparison(d);
  int combine = d.TakeOneOf({"and", "or", "xor"}) + 1;
  bool ftz = d.Take("ftz");
  Type type = d.TakeType();
  if (which < 0) return d.Fail("a comparison is missing");
  Comparison compare = ComparisonOf(which, type, ftz);
  if (!compare) return d.Fail("no such type for this opcode");
  if (!d.Expect(combine ? 4 : 3)) return;
  const Operand& out = d.operand(0);
  std::vector<Ref> refs = {d.DestinationPredicate(out), out.pair ? d.DestinationPredicate(*out.pair) : kNoRef,
                           d.Source(d.operand(1), BytesOf(type), type), d.Source(d.operand(2), BytesOf(type), type)};
  if (combine) refs.push_back(d.SourcePredicate(d.operand(3)));
  d.Emit(SetPredicateHandler, OpClass::kPredicate, refs).detail = d.Detail(CompareDetail{compare, combine});
}
/// set: the truth as all ones, or as 1.0f.
void SetRegister(Warp& w, const Instruction& i) {
  const auto& detail = *static_cast<const CompareDetail*>(i.detail);
  uint32_t t = detail.compare(w, i), value = static_cast<uint32_t>(i.immediate);
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) { return t >> l & 1 ? value : 0u; });
}
void DecodeSet(Decoder& d) {
  int which = TakeComparison(d);
  bool ftz = d.Take("ftz");
  Type out = d.TakeType(), type = d.TakeType();
  Comparison compare = which < 0 ? nullptr : ComparisonOf(which, type, ftz);
  if (!compare || BytesOf(out) != 4) return d.Fail("no such form of set");
  if (!d.Expect(3)) return;
  Instruction& instruction =
      d.Emit(SetRegister, OpClass::kPredicate,
             {d.Destination(d.operand(0), 4), kNoRef, d.Source(d.operand(1), BytesOf(type), type),
              d.Source(d.operand(2), BytesOf(type), type)});
  instruction.detail = d.Detail(CompareDetail{compare, 0});
  instruction.immediate = out == Type::kF32 ? std::bit_cast<uint32_t>(1.0f) : ~0u;
}

// ---- selection

template <class T>
void Select(Warp& w, const Instruction& i) {
  const T *a = w.At<T>(i.refs[1]), *b = w.At<T>(i.refs[2]);
  uint32_t p = w.Predicate(i.refs[3]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) { return p >> l & 1 ? a[l] : b[l]; });
}
void DecodeSelp(Decoder& d) {
  Type type = d.TakeType();
  int bytes = BytesOf(type);
  if (!d.Expect(4)) return;
  Ref p = d.SourcePredicate(d.operand(3));
  d.Emit(bytes == 2   ? Select<uint16_t>
         : bytes == 4 ? Select<uint32_t>
                      : Select<uint64_t>,
         OpClass::kPredicate,
         {d.Destination(d.operand(0), bytes), d.Source(d.operand(1), bytes, type), d.Source(d.operand(2), bytes, type),
          p});
}
/// With .ftz a negative subnormal number is -0, which is not below zero.
template <class T, class C, bool kFlush = false>
void SelectBySign(Warp& w, const Instruction& i) {
  static_assert(!kFlush || std::is_same_v<C, float>);
  const T *a = w.At<T>(i.refs[1]), *b = w.At<T>(i.refs[2]);
  const C* c = w.At<C>(i.refs[3]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) {
    return c[l] >= 0 || (kFlush && c[l] > -std::numeric_limits<float>::min()) ? a[l] : b[l];
  });
}
void DecodeSlct(Decoder& d) {
  const bool flush = d.Take("ftz");
  Type type = d.TakeType(), by = d.TakeType();
  int bytes = BytesOf(type);
  if ((by != Type::kS32 && by != Type::kF32) || (flush && by != Type::kF32)) return d.Fail("no such form of slct");
  if (!d.Expect(4)) return;
  const auto pick = [&](auto by16, auto by32, auto by64) -> Handler { return bytes == 2 ? by16 : bytes == 4 ? by32 : by64; };
  Handler handler =
      by == Type::kS32 ? pick(SelectBySign<uint16_t, int32_t>, SelectBySign<uint32_t, int32_t>, SelectBySign<uint64_t, int32_t>)
      : flush          ? pick(SelectBySign<uint16_t, float, true>, SelectBySign<uint32_t, float, true>,
                              SelectBySign<uint64_t, float, true>)
                       : pick(SelectBySign<uint16_t, float>, SelectBySign<uint32_t, float>, SelectBySign<uint64_t, float>);
  d.Emit(handler, OpClass::kPredicate,
         {d.Destination(d.operand(0), bytes), d.Source(d.operand(1), bytes, type), d.Source(d.operand(2), bytes, type),
          d.Source(d.operand(3), 4, by)});
}

}  // namespace

std::span<const Opcode> FloatOpcodes() {
  static constexpr Opcode kTable[] = {
      {"add", DecodeAddLike<AddF, AddD>},
      {"sub", DecodeAddLike<SubF, SubD>},
      {"mul", DecodeAddLike<MulF, MulD>},
      {"fma", DecodeFma},
      {"mad", DecodeFma},
      {"div", DecodeDiv},
      {"min", DecodeMinMax<MinF>},
      {"max", DecodeMinMax<MaxF>},
      {"neg", DecodeSign<NegF, NarrowNeg>},
      {"abs", DecodeSign<AbsF, NarrowAbs>},
      {"rcp", DecodeFunction<RcpF>},
      {"sqrt", DecodeFunction<SqrtF>},
      {"rsqrt", DecodeFunction<RsqrtF>},
      {"ex2", DecodeFunction<Ex2F>},
      {"lg2", DecodeFunction<Lg2F>},
      {"sin", DecodeFunction<SinF>},
      {"cos", DecodeFunction<CosF>},
      {"tanh", DecodeFunction<TanhF>},
      {"copysign", DecodeCopysign},
      {"testp", DecodeTestp},
      {"setp", DecodeSetp},
      {"set", DecodeSet},
      {"selp", DecodeSelp},
      {"slct", DecodeSlct},
  };
  return kTable;
}

}  // namespace qwen::emu
