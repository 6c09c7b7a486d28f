// cvt between every pair of formats the target has, and cvta between address spaces.
#include <algorithm>

#include "test/cuda_emulator/decode.h"
#include "test/cuda_emulator/numeric.h"

namespace qwen::emu {
namespace {

struct Conversion {
  Type to, from;
  Rounding mode = Rounding::kNearest;
  bool to_integer_rounding = false;  // rni and its kin
  bool sat = false, ftz = false, relu = false;
  int register_bytes = 4;  // of the destination, which may be wider than its type
  int source_bytes = 4;
};

double LimitLow(Type type) { return !IsSigned(type) ? 0.0 : -std::ldexp(1.0, 8 * BytesOf(type) - 1); }
/// The first value above the type's range.
double LimitHigh(Type type) { return std::ldexp(1.0, 8 * BytesOf(type) - (IsSigned(type) ? 1 : 0)); }

int64_t SignExtend(uint64_t bits, Type type) {
  int shift = 64 - 8 * BytesOf(type);
  return IsSigned(type) ? static_cast<int64_t>(bits << shift) >> shift : static_cast<int64_t>(bits << shift >> shift);
}

uint64_t DoubleToInteger(double x, const Conversion& c) {
  if (x != x) return c.to == Type::kS64 || c.to == Type::kU64 ? uint64_t{1} << 63 : 0;  // as the hardware does
  x = RoundToInteger(x, c.mode);
  // A float's conversion always clamps.
  if (x < LimitLow(c.to)) x = LimitLow(c.to);
  if (x >= LimitHigh(c.to)) {
    uint64_t all = BytesOf(c.to) == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * BytesOf(c.to))) - 1;
    return IsSigned(c.to) ? all >> 1 : all;
  }
  return IsSigned(c.to) ? static_cast<uint64_t>(static_cast<int64_t>(x)) : static_cast<uint64_t>(x);
}

double FloatOf(uint64_t bits, const Conversion& c) {
  switch (c.from) {
    case Type::kF16:
      return HalfToFloat(static_cast<uint16_t>(bits));
    case Type::kBf16:
      return Bf16ToFloat(static_cast<uint16_t>(bits));
    case Type::kF32: {
      float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
      return c.ftz ? Flush(x) : x;
    }
    default:
      return std::bit_cast<double>(bits);
  }
}

/// A float as f16 or bf16, from a value whose own rounding to float was to odd or exact.
uint16_t NarrowTo(Type to, float x, Rounding mode) {
  if (to == Type::kF16) return mode == Rounding::kZero ? FloatToHalfZero(x) : FloatToHalf(x);
  return mode == Rounding::kZero ? FloatToBf16Zero(x) : FloatToBf16(x);
}

uint64_t FloatBits(double x, const Conversion& c) {
  if (c.to_integer_rounding) x = std::copysign(RoundToInteger(x, c.mode), x);
  if (c.sat) x = x > 0 ? std::min(x, 1.0) : 0.0;
  if (c.relu && x < 0) x = 0;
  Rounding mode = c.to_integer_rounding ? Rounding::kNearest : c.mode;
  switch (c.to) {
    case Type::kF64:
      return std::bit_cast<uint64_t>(x);
    case Type::kF32: {
      float r = Canonical(mode == Rounding::kNearest ? static_cast<float>(x) : DoubleToFloat(x, mode));
      if (c.ftz) r = Flush(r);
      return std::bit_cast<uint32_t>(r);
    }
    case Type::kTf32: {
      // rna: ties away from zero, at bit 13
      uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(x));
      if (x != x || std::isinf(x)) return x != x ? 0x7fffffff : bits;
      return (bits + 0x1000) & 0xffffe000u;
    }
    default:
      return NarrowTo(c.to, x != x ? CanonicalNan() : ToFloatOdd(x), mode);
  }
}

uint64_t Convert(uint64_t bits, const Conversion& c) {
  if (IsFloat(c.from)) {
    double x = FloatOf(bits, c);
    return IsFloat(c.to) ? FloatBits(x, c) : DoubleToInteger(x, c);
  }
  int64_t value = SignExtend(bits, c.from);
  if (IsFloat(c.to)) {
    bool wide_unsigned = c.from == Type::kU64;
    if (c.to == Type::kF64) {
      double r = wide_unsigned ? static_cast<double>(static_cast<uint64_t>(value)) : static_cast<double>(value);
      return std::bit_cast<uint64_t>(r);
    }
    if (c.to == Type::kF32) {
      float r = wide_unsigned ? UnsignedToFloat(static_cast<uint64_t>(value), c.mode) : IntegerToFloat(value, c.mode);
      if (c.sat) r = r > 0 ? std::min(r, 1.0f) : 0.0f;
      return std::bit_cast<uint32_t>(r);
    }
    // To 16 bits through float rounded to odd: once to zero, the last bit set when that was inexact.
    float r = wide_unsigned ? UnsignedToFloat(static_cast<uint64_t>(value), Rounding::kZero)
                            : IntegerToFloat(value, Rounding::kZero);
    bool exact = wide_unsigned ? static_cast<unsigned __int128>(r) == static_cast<uint64_t>(value)
                               : static_cast<__int128>(r) == value;
    if (!exact) r = std::bit_cast<float>(std::bit_cast<uint32_t>(r) | 1);
    return NarrowTo(c.to, r, c.mode);
  }
  if (c.sat) {
    __int128 low = 0, high = 0, x = IsSigned(c.from) ? __int128{value} : __int128{static_cast<uint64_t>(value)};
    int width = 8 * BytesOf(c.to);
    if (IsSigned(c.to))
      low = -(__int128{1} << (width - 1)), high = (__int128{1} << (width - 1)) - 1;
    else
      high = (__int128{1} << width) - 1;
    value = static_cast<int64_t>(std::clamp(x, low, high));
  }
  return static_cast<uint64_t>(value);
}

uint64_t ReadLane(const uint8_t* base, int bytes, int lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, base + static_cast<size_t>(lane) * static_cast<size_t>(bytes), static_cast<size_t>(bytes));
  return bits;
}
void WriteLane(uint8_t* base, int bytes, int lane, uint64_t bits) {
  std::memcpy(base + static_cast<size_t>(lane) * static_cast<size_t>(bytes), &bits, static_cast<size_t>(bytes));
}

void ConvertHandler(Warp& w, const Instruction& i) {
  const auto& c = *static_cast<const Conversion*>(i.detail);
  uint8_t* out = w.At<uint8_t>(i.refs[0]);
  const uint8_t* in = w.At<uint8_t>(i.refs[1]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(w.mask >> l & 1)) continue;
    uint64_t bits = Convert(ReadLane(in, c.source_bytes, l), c);
    // A destination wider than its type is filled with the sign, or zeros.
    if (!IsFloat(c.to) && c.register_bytes > BytesOf(c.to)) bits = static_cast<uint64_t>(SignExtend(bits, c.to));
    WriteLane(out, c.register_bytes, l, bits);
  }
}

// The common ones, in vector code.
template <class To, class From>
void ConvertInteger(Warp& w, const Instruction& i) {
  const From* a = w.At<From>(i.refs[1]);
  ForLanes(w, w.At<To>(i.refs[0]), [=](int l) { return static_cast<To>(a[l]); });
}
void HalfToFloatLanes(Warp& w, const Instruction& i) {
  const uint16_t* a = w.At<uint16_t>(i.refs[1]);
  ForLanes(w, w.At<float>(i.refs[0]), [=](int l) { return Canonical(HalfToFloat(a[l])); });
}
void Bf16ToFloatLanes(Warp& w, const Instruction& i) {
  const uint16_t* a = w.At<uint16_t>(i.refs[1]);
  ForLanes(w, w.At<float>(i.refs[0]), [=](int l) { return Canonical(Bf16ToFloat(a[l])); });
}
Handler FastConversion(const Conversion& c) {
  if (c.sat || c.ftz || c.relu || c.register_bytes != BytesOf(c.to) || c.source_bytes != BytesOf(c.from))
    return nullptr;
  struct Row {
    Type to, from;
    Handler handler;
  };
  static constexpr Row kRows[] = {
      {Type::kS64, Type::kS32, ConvertInteger<int64_t, int32_t>},
      {Type::kU64, Type::kS32, ConvertInteger<int64_t, int32_t>},
      {Type::kU64, Type::kU32, ConvertInteger<uint64_t, uint32_t>},
      {Type::kS64, Type::kU32, ConvertInteger<uint64_t, uint32_t>},
      {Type::kU32, Type::kU64, ConvertInteger<uint32_t, uint64_t>},
      {Type::kU32, Type::kU16, ConvertInteger<uint32_t, uint16_t>},
      {Type::kU16, Type::kU32, ConvertInteger<uint16_t, uint32_t>},
      {Type::kF32, Type::kF16, HalfToFloatLanes},
      {Type::kF32, Type::kBf16, Bf16ToFloatLanes},
  };
  for (const Row& row : kRows)
    if (row.to == c.to && row.from == c.from) return row.handler;
  if (c.to == Type::kF32 && c.mode == Rounding::kNearest) {
    if (c.from == Type::kS32)
      return [](Warp& w, const Instruction& i) {
        const int32_t* a = w.At<int32_t>(i.refs[1]);
        ForLanes(w, w.At<float>(i.refs[0]), [=](int l) { return static_cast<float>(a[l]); });
      };
  }
  return nullptr;
}

// ---- pairs: cvt.rn.f16x2.f32 d, a, b: a becomes the high half

template <class Format>
void PackBytes(Warp& w, const Instruction& i) {
  const float *a = w.At<float>(i.refs[1]), *b = w.At<float>(i.refs[2]);
  bool relu = i.immediate;
  ForLanes(w, w.At<uint16_t>(i.refs[0]), [=](int l) {
    float high = relu && a[l] < 0 ? 0.0f : a[l], low = relu && b[l] < 0 ? 0.0f : b[l];
    return static_cast<uint16_t>(FloatToByte<Format>(high) << 8 | FloatToByte<Format>(low));
  });
}
template <class Format>
void PackBytesFromHalves(Warp& w, const Instruction& i) {
  const uint32_t* a = w.At<uint32_t>(i.refs[1]);
  bool relu = i.immediate;
  ForLanes(w, w.At<uint16_t>(i.refs[0]), [=](int l) {
    float high = HalfToFloat(static_cast<uint16_t>(a[l] >> 16)), low = HalfToFloat(static_cast<uint16_t>(a[l]));
    if (relu) high = high < 0 ? 0.0f : high, low = low < 0 ? 0.0f : low;
    return static_cast<uint16_t>(FloatToByte<Format>(high) << 8 | FloatToByte<Format>(low));
  });
}
template <class Format>
void UnpackBytes(Warp& w, const Instruction& i) {
  const uint16_t* a = w.At<uint16_t>(i.refs[1]);
  bool relu = i.immediate;
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) {
    uint32_t low = FloatToHalf(ByteToFloat<Format>(static_cast<uint8_t>(a[l])));
    uint32_t high = FloatToHalf(ByteToFloat<Format>(static_cast<uint8_t>(a[l] >> 8)));
    if (relu) low = low & 0x8000 ? 0 : low, high = high & 0x8000 ? 0 : high;
    return high << 16 | low;
  });
}
struct PackMode {
  Type to;
  Rounding mode;
  bool relu;
};
void PackPair(Warp& w, const Instruction& i) {
  const auto& c = *static_cast<const PackMode*>(i.detail);
  const float *a = w.At<float>(i.refs[1]), *b = w.At<float>(i.refs[2]);
  Type to = c.to == Type::kF16x2 ? Type::kF16 : Type::kBf16;
  Rounding mode = c.mode;
  bool relu = c.relu;
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) {
    float high = relu && a[l] < 0 ? 0.0f : a[l], low = relu && b[l] < 0 ? 0.0f : b[l];
    return uint32_t{NarrowTo(to, high, mode)} << 16 | NarrowTo(to, low, mode);
  });
}

void DecodeCvt(Decoder& d) {
  Conversion c;
  int integer_mode = d.TakeOneOf({"rni", "rzi", "rmi", "rpi"});
  int mode = d.TakeOneOf({"rn", "rz", "rm", "rp", "rna"});
  c.relu = d.Take("relu");
  c.sat = d.Take("sat");
  bool satfinite = d.Take("satfinite");
  c.ftz = d.Take("ftz");
  c.to = d.TakeType();
  c.from = d.TakeType();
  if (integer_mode >= 0) c.mode = static_cast<Rounding>(integer_mode), c.to_integer_rounding = IsFloat(c.to);
  if (mode >= 0) c.mode = static_cast<Rounding>(mode);
  if (!d.ok()) return;

  auto pair = [&](Handler handler, int out_bytes, int in_bytes, size_t sources) {
    if (!d.Expect(sources + 1)) return;
    std::vector<Ref> refs = {d.Destination(d.operand(0), out_bytes)};
    for (size_t i = 1; i <= sources; ++i) refs.push_back(d.Source(d.operand(i), in_bytes, Type::kF32));
    Instruction& instruction = d.Emit(handler, OpClass::kConvert, refs);
    instruction.immediate = c.relu;
    instruction.detail = d.Detail(PackMode{c.to, c.mode, c.relu});
  };
  bool bytes_out = c.to == Type::kE4m3x2 || c.to == Type::kE5m2x2,
       e4m3 = c.to == Type::kE4m3x2 || c.from == Type::kE4m3x2;
  if (bytes_out) {
    if (!satfinite || mode != 0) return d.Fail("a conversion to 8-bit floats wants .rn.satfinite");
    if (c.from == Type::kF32) return pair(e4m3 ? PackBytes<E4m3> : PackBytes<E5m2>, 2, 4, 2);
    if (c.from == Type::kF16x2) return pair(e4m3 ? PackBytesFromHalves<E4m3> : PackBytesFromHalves<E5m2>, 2, 4, 1);
    return d.Fail("no such conversion");
  }
  if (satfinite) return d.Fail("unknown modifier .satfinite of this cvt");
  if (c.from == Type::kE4m3x2 || c.from == Type::kE5m2x2) {
    if (c.to != Type::kF16x2) return d.Fail("no such conversion");
    return pair(e4m3 ? UnpackBytes<E4m3> : UnpackBytes<E5m2>, 4, 2, 1);
  }
  if (c.to == Type::kF16x2 || c.to == Type::kBf16x2) {
    if (c.from != Type::kF32 || mode < 0 || mode > 1) return d.Fail("no such conversion");
    return pair(PackPair, 4, 4, 2);
  }
  if (c.to == Type::kTf32 && (c.from != Type::kF32 || mode != 4)) return d.Fail("only cvt.rna.tf32.f32 is there");
  if (c.from == Type::kTf32 || BytesOf(c.to) > 8 || BytesOf(c.from) > 8) return d.Fail("no such conversion");
  if (!IsFloat(c.to) && IsFloat(c.from) && integer_mode < 0) return d.Fail("the rounding mode is missing");
  if (!d.Expect(2)) return;
  c.register_bytes = d.RegisterBytes(d.operand(0));
  int source_register = d.RegisterBytes(d.operand(1));
  c.source_bytes = source_register ? source_register : BytesOf(c.from);
  if (c.register_bytes < BytesOf(c.to) || c.source_bytes < BytesOf(c.from))
    return d.Fail("a register is narrower than its type");
  Handler fast = FastConversion(c);
  if (!fast && !IsFloat(c.to) && !IsFloat(c.from) && !c.sat && c.register_bytes == 4 && c.source_bytes == 4) {
    if (c.from == Type::kU8 || c.to == Type::kU8) fast = nullptr;
  }
  d.Emit(fast ? fast : ConvertHandler, OpClass::kConvert,
         {d.Destination(d.operand(0), c.register_bytes), d.Source(d.operand(1), c.source_bytes, c.from)})
      .detail = d.Detail(c);
}

// ---- cvta: generic addresses are global ones, or lie in a window

template <class T>
void AddWindow(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  uint64_t window = i.immediate;
  ForLanes(w, w.At<uint64_t>(i.refs[0]), [=](int l) { return uint64_t{a[l]} + window; });
}
void SubtractWindow(Warp& w, const Instruction& i) {
  const uint64_t* a = w.At<uint64_t>(i.refs[1]);
  uint64_t window = i.immediate;
  ForLanes(w, w.At<uint64_t>(i.refs[0]), [=](int l) { return a[l] - window; });
}
void DecodeCvta(Decoder& d) {
  bool to = d.Take("to");
  int space = d.TakeOneOf({"global", "const", "shared", "shared::cta", "local", "param"});
  if (d.TakeType() != Type::kU64 || space < 0) return d.Fail("no such form of cvta");
  static constexpr uint64_t kWindows[] = {0, 0, kSharedWindow, kSharedWindow, kLocalWindow, kParamWindow};
  if (!d.Expect(2)) return;
  d.Emit(to ? SubtractWindow : AddWindow<uint64_t>, OpClass::kMove,
         {d.Destination(d.operand(0), 8), d.Source(d.operand(1), 8)})
      .immediate = kWindows[space];
}

void IsSpace(Warp& w, const Instruction& i) {
  const uint64_t* a = w.At<uint64_t>(i.refs[1]);
  uint64_t window = i.immediate;
  SetPredicate(w, i.refs[0], MaskOf([=](int l) {
                 auto in = [&](uint64_t begin) { return a[l] - begin < kWindowBytes; };
                 return window ? in(window) : !in(kSharedWindow) && !in(kLocalWindow) && !in(kParamWindow);
               }));
}
void DecodeIsspacep(Decoder& d) {
  int space = d.TakeOneOf({"global", "const", "shared", "shared::cta", "local", "param"});
  if (space < 0 || space == 1) return d.Fail("no such form of isspacep");
  static constexpr uint64_t kWindows[] = {0, 0, kSharedWindow, kSharedWindow, kLocalWindow, kParamWindow};
  if (!d.Expect(2)) return;
  d.Emit(IsSpace, OpClass::kPredicate, {d.DestinationPredicate(d.operand(0)), d.Source(d.operand(1), 8)}).immediate =
      kWindows[space];
}

}  // namespace

std::span<const Opcode> ConvertOpcodes() {
  static constexpr Opcode kTable[] = {{"cvt", DecodeCvt}, {"cvta", DecodeCvta}, {"isspacep", DecodeIsspacep}};
  return kTable;
}

}  // namespace qwen::emu
