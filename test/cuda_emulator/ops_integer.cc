// Integer arithmetic, logic, bit fields, comparisons and selection.
#include <bit>

#include "test/cuda_emulator/decode.h"
#include "test/cuda_emulator/numeric.h"

namespace qwen::emu {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

// Wrap-around is defined for unsigned types only; both give the same bits.
template <class T>
struct Add {
  T operator()(T a, T b) const { return T(Unsigned<T>(a) + Unsigned<T>(b)); }
};
template <class T>
struct Sub {
  T operator()(T a, T b) const { return T(Unsigned<T>(a) - Unsigned<T>(b)); }
};
template <class T>
struct MulLo {
  T operator()(T a, T b) const { return T(uint64_t(Unsigned<T>(a)) * uint64_t(Unsigned<T>(b))); }
};
template <class T>
struct MulHi {
  T operator()(T a, T b) const {
    if constexpr (std::is_signed_v<T>)
      return T(__int128(a) * b >> (8 * sizeof(T)));
    else
      return T((unsigned __int128)(a)*b >> (8 * sizeof(T)));
  }
};
template <class T>
struct MadLo {
  T operator()(T a, T b, T c) const { return Add<T>{}(MulLo<T>{}(a, b), c); }
};
template <class T>
struct MadHi {
  T operator()(T a, T b, T c) const { return Add<T>{}(MulHi<T>{}(a, b), c); }
};
// A division by zero gives all ones, as the hardware does; the lowest number by -1 wraps.
template <class T>
struct Div {
  T operator()(T a, T b) const {
    if (b == 0) return T(-1);
    if constexpr (std::is_signed_v<T>)
      if (b == T(-1)) return T(Unsigned<T>(0) - Unsigned<T>(a));
    return a / b;
  }
};
template <class T>
struct Rem {
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
      if (b == T(-1)) return 0;
    return a % b;
  }
};
template <class T>
struct Min {
  T operator()(T a, T b) const { return b < a ? b : a; }
};
template <class T>
struct Max {
  T operator()(T a, T b) const { return a < b ? b : a; }
};
template <class T>
struct Abs {
  T operator()(T a) const { return a < 0 ? T(Unsigned<T>(0) - Unsigned<T>(a)) : a; }
};
template <class T>
struct Neg {
  T operator()(T a) const { return T(Unsigned<T>(0) - Unsigned<T>(a)); }
};
template <class T>
struct And {
  T operator()(T a, T b) const { return a & b; }
};
template <class T>
struct Or {
  T operator()(T a, T b) const { return a | b; }
};
template <class T>
struct Xor {
  T operator()(T a, T b) const { return a ^ b; }
};
template <class T>
struct Not {
  T operator()(T a) const { return T(~a); }
};
template <class T>
struct Cnot {
  T operator()(T a) const { return a == 0; }
};
struct AddSaturated {
  int32_t operator()(int32_t a, int32_t b) const {
    int64_t sum = int64_t{a} + b;
    return static_cast<int32_t>(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
  }
};
struct SubSaturated {
  int32_t operator()(int32_t a, int32_t b) const {
    int64_t sum = int64_t{a} - b;
    return static_cast<int32_t>(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
  }
};

#define QWEN_PICK(name, Form)               \
  template <template <class> class F>       \
  Handler name(Type type) {                 \
    switch (type) {                         \
      case Type::kB16:                      \
      case Type::kU16:                      \
        return Form<uint16_t, F<uint16_t>>; \
      case Type::kS16:                      \
        return Form<int16_t, F<int16_t>>;   \
      case Type::kB32:                      \
      case Type::kU32:                      \
        return Form<uint32_t, F<uint32_t>>; \
      case Type::kS32:                      \
        return Form<int32_t, F<int32_t>>;   \
      case Type::kB64:                      \
      case Type::kU64:                      \
        return Form<uint64_t, F<uint64_t>>; \
      case Type::kS64:                      \
        return Form<int64_t, F<int64_t>>;   \
      default:                              \
        return nullptr;                     \
    }                                       \
  }
QWEN_PICK(PickUnary, Unary)
QWEN_PICK(PickBinary, Binary)
QWEN_PICK(PickTernary, Ternary)
#undef QWEN_PICK

}  // namespace

/// d, a [, b [, c]], all of one type.
void EmitSameType(Decoder& d, Handler handler, OpClass op_class, Type type, size_t sources) {
  if (!handler) return d.Fail("no such type for this opcode");
  if (!d.Expect(sources + 1)) return;
  std::vector<Ref> refs = {d.Destination(d.operand(0), BytesOf(type))};
  for (size_t i = 1; i <= sources; ++i) refs.push_back(d.Source(d.operand(i), BytesOf(type), type));
  d.Emit(handler, op_class, refs);
}

namespace {

template <template <class> class F>
void DecodeBinary(Decoder& d) {
  Type type = d.TakeType();
  EmitSameType(d, PickBinary<F>(type), OpClass::kInteger, type, 2);
}
template <template <class> class F>
void DecodeUnary(Decoder& d) {
  Type type = d.TakeType();
  EmitSameType(d, PickUnary<F>(type), OpClass::kInteger, type, 1);
}

// ---- mul, mad: the wide forms have a result of twice the width

template <class N, class W>
void MulWide(Warp& w, const Instruction& i) {
  const N *a = w.At<N>(i.refs[1]), *b = w.At<N>(i.refs[2]);
  ForLanes(w, w.At<W>(i.refs[0]), [=](int l) { return W(W(a[l]) * W(b[l])); });
}
template <class N, class W>
void MadWide(Warp& w, const Instruction& i) {
  const N *a = w.At<N>(i.refs[1]), *b = w.At<N>(i.refs[2]);
  const W* c = w.At<W>(i.refs[3]);
  using U = Unsigned<W>;
  ForLanes(w, w.At<W>(i.refs[0]), [=](int l) { return W(U(W(a[l]) * W(b[l])) + U(c[l])); });
}

template <bool mad>
void EmitWide(Decoder& d, Type type) {
  Handler handler = nullptr;
  switch (type) {
    case Type::kU16:
      handler = mad ? MadWide<uint16_t, uint32_t> : MulWide<uint16_t, uint32_t>;
      break;
    case Type::kS16:
      handler = mad ? MadWide<int16_t, int32_t> : MulWide<int16_t, int32_t>;
      break;
    case Type::kU32:
      handler = mad ? MadWide<uint32_t, uint64_t> : MulWide<uint32_t, uint64_t>;
      break;
    case Type::kS32:
      handler = mad ? MadWide<int32_t, int64_t> : MulWide<int32_t, int64_t>;
      break;
    default:
      return d.Fail("no such type for .wide");
  }
  if (!d.Expect(mad ? 4 : 3)) return;
  int bytes = BytesOf(type);
  std::vector<Ref> refs = {d.Destination(d.operand(0), 2 * bytes), d.Source(d.operand(1), bytes),
                           d.Source(d.operand(2), bytes)};
  if (mad) refs.push_back(d.Source(d.operand(3), 2 * bytes));
  d.Emit(handler, OpClass::kInteger, refs);
}

// ---- shifts: amounts beyond the width are the width

template <class T>
void ShiftLeft(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  const uint32_t* n = w.At<uint32_t>(i.refs[2]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) {
    T shifted = T(a[l] << (n[l] & (kBits - 1)));
    return n[l] < kBits ? shifted : T(0);
  });
}
template <class T>
void ShiftRight(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  const uint32_t* n = w.At<uint32_t>(i.refs[2]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) {
    T shifted = T(a[l] >> (n[l] & (kBits - 1)));
    return n[l] < kBits ? shifted : T(std::is_signed_v<T> && a[l] < 0 ? -1 : 0);
  });
}
void EmitShift(Decoder& d, Handler handler, Type type) {
  if (!handler) return d.Fail("no such type for this opcode");
  if (!d.Expect(3)) return;
  d.Emit(
      handler, OpClass::kInteger,
      {d.Destination(d.operand(0), BytesOf(type)), d.Source(d.operand(1), BytesOf(type)), d.Source(d.operand(2), 4)});
}
void DecodeShl(Decoder& d) {
  Type type = d.TakeType();
  int bytes = BytesOf(type);
  EmitShift(d, bytes == 2 ? ShiftLeft<uint16_t> : bytes == 4 ? ShiftLeft<uint32_t> : ShiftLeft<uint64_t>, type);
}
void DecodeShr(Decoder& d) {
  Type type = d.TakeType();
  Handler handler = nullptr;
  switch (type) {
    case Type::kS16:
      handler = ShiftRight<int16_t>;
      break;
    case Type::kS32:
      handler = ShiftRight<int32_t>;
      break;
    case Type::kS64:
      handler = ShiftRight<int64_t>;
      break;
    case Type::kB16:
    case Type::kU16:
      handler = ShiftRight<uint16_t>;
      break;
    case Type::kB32:
    case Type::kU32:
      handler = ShiftRight<uint32_t>;
      break;
    case Type::kB64:
    case Type::kU64:
      handler = ShiftRight<uint64_t>;
      break;
    default:
      break;
  }
  EmitShift(d, handler, type);
}

template <bool left, bool clamp>
struct Funnel {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
    n = clamp ? (n > 32 ? 32 : n) : n & 31;
    uint64_t both = uint64_t{high} << 32 | low;
    return static_cast<uint32_t>(left ? both << n >> 32 : both >> n);
  }
};
void DecodeShf(Decoder& d) {
  int direction = d.TakeOneOf({"l", "r"}), mode = d.TakeOneOf({"wrap", "clamp"});
  d.TakeType();
  if (direction < 0 || mode < 0) return d.Fail("shf wants .l or .r, and .wrap or .clamp");
  static constexpr Handler kHandlers[2][2] = {
      {Ternary<uint32_t, Funnel<true, false>>, Ternary<uint32_t, Funnel<true, true>>},
      {Ternary<uint32_t, Funnel<false, false>>, Ternary<uint32_t, Funnel<false, true>>}};
  EmitSameType(d, kHandlers[direction][mode], OpClass::kInteger, Type::kB32, 3);
}

// ---- bits

template <class T>
struct Popc {
  uint32_t operator()(T a) const { return static_cast<uint32_t>(std::popcount(a)); }
};
template <class T>
struct Clz {
  uint32_t operator()(T a) const { return static_cast<uint32_t>(std::countl_zero(a)); }
};
template <class T, class F>
void Count(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) { return F{}(a[l]); });
}
template <template <class> class F>
void DecodeCount(Decoder& d) {
  int bytes = BytesOf(d.TakeType());
  if (!d.Expect(2)) return;
  d.Emit(bytes == 8 ? Count<uint64_t, F<uint64_t>> : Count<uint32_t, F<uint32_t>>, OpClass::kInteger,
         {d.Destination(d.operand(0), 4), d.Source(d.operand(1), bytes)});
}
template <class T>
struct Reverse {
  T operator()(T a) const {
    T r = 0;
    for (size_t i = 0; i < 8 * sizeof(T); ++i) r |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
    return r;
  }
};
void DecodeBrev(Decoder& d) {
  Type type = d.TakeType();
  EmitSameType(d, BytesOf(type) == 8 ? Unary<uint64_t, Reverse<uint64_t>> : Unary<uint32_t, Reverse<uint32_t>>,
               OpClass::kInteger, type, 1);
}
/// The highest bit that differs from the sign; ~0 without one. With shift_amount, how far it is from the top.
template <class T, bool shift>
struct FindHigh {
  uint32_t operator()(T a) const {
    using U = Unsigned<T>;
    U bits = std::is_signed_v<T> && a < 0 ? U(~U(a)) : U(a);
    if (bits == 0) return ~0u;
    uint32_t zeros = static_cast<uint32_t>(std::countl_zero(bits));
    return shift ? zeros : 8 * sizeof(T) - 1 - zeros;
  }
};
void DecodeBfind(Decoder& d) {
  bool shift = d.Take("shiftamt");
  Type type = d.TakeType();
  Handler handler = nullptr;
  switch (type) {
    case Type::kU32:
      handler = shift ? Count<uint32_t, FindHigh<uint32_t, true>> : Count<uint32_t, FindHigh<uint32_t, false>>;
      break;
    case Type::kS32:
      handler = shift ? Count<int32_t, FindHigh<int32_t, true>> : Count<int32_t, FindHigh<int32_t, false>>;
      break;
    case Type::kU64:
      handler = shift ? Count<uint64_t, FindHigh<uint64_t, true>> : Count<uint64_t, FindHigh<uint64_t, false>>;
      break;
    case Type::kS64:
      handler = shift ? Count<int64_t, FindHigh<int64_t, true>> : Count<int64_t, FindHigh<int64_t, false>>;
      break;
    default:
      return d.Fail("no such type for this opcode");
  }
  if (!d.Expect(2)) return;
  d.Emit(handler, OpClass::kInteger, {d.Destination(d.operand(0), 4), d.Source(d.operand(1), BytesOf(type))});
}

/// bfe after the pseudo code of the PTX ISA.
template <class T>
void ExtractField(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  const uint32_t *p = w.At<uint32_t>(i.refs[2]), *n = w.At<uint32_t>(i.refs[3]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) -> T {
    uint32_t position = p[l] & 255, length = n[l] & 255;
    using U = Unsigned<T>;
    U bits = U(a[l]);
    uint32_t sign_at = position + length - 1 < kBits - 1 ? position + length - 1 : kBits - 1;
    bool sign = std::is_signed_v<T> && length != 0 && (bits >> sign_at & 1);
    U field = position < kBits ? U(bits >> position) : U(0);
    uint32_t kept = position < kBits ? kBits - position : 0;
    kept = length < kept ? length : kept;
    U mask = kept >= kBits ? U(-1) : U((U(1) << kept) - 1);
    return T((field & mask) | (sign ? U(~mask) : U(0)));
  });
}
void DecodeBfe(Decoder& d) {
  Type type = d.TakeType();
  Handler handler = type == Type::kU32   ? ExtractField<uint32_t>
                    : type == Type::kS32 ? ExtractField<int32_t>
                    : type == Type::kU64 ? ExtractField<uint64_t>
                    : type == Type::kS64 ? ExtractField<int64_t>
                                         : nullptr;
  if (!handler) return d.Fail("no such type for this opcode");
  if (!d.Expect(4)) return;
  int bytes = BytesOf(type);
  d.Emit(handler, OpClass::kInteger,
         {d.Destination(d.operand(0), bytes), d.Source(d.operand(1), bytes), d.Source(d.operand(2), 4),
          d.Source(d.operand(3), 4)});
}
template <class T>
void InsertField(Warp& w, const Instruction& i) {
  const T *a = w.At<T>(i.refs[1]), *b = w.At<T>(i.refs[2]);
  const uint32_t *p = w.At<uint32_t>(i.refs[3]), *n = w.At<uint32_t>(i.refs[4]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) -> T {
    uint32_t position = p[l] & 255, length = n[l] & 255;
    if (position >= kBits) return b[l];
    T mask = length >= kBits ? T(-1) : T((T(1) << length) - 1);
    mask = T(mask << position);
    return T((b[l] & ~mask) | (T(a[l] << position) & mask));
  });
}
void DecodeBfi(Decoder& d) {
  int bytes = BytesOf(d.TakeType());
  if (!d.Expect(5)) return;
  d.Emit(bytes == 8 ? InsertField<uint64_t> : InsertField<uint32_t>, OpClass::kInteger,
         {d.Destination(d.operand(0), bytes), d.Source(d.operand(1), bytes), d.Source(d.operand(2), bytes),
          d.Source(d.operand(3), 4), d.Source(d.operand(4), 4)});
}

/// Any function of three bits, by its truth table.
void Lop3(Warp& w, const Instruction& i) {
  const uint32_t *a = w.At<uint32_t>(i.refs[1]), *b = w.At<uint32_t>(i.refs[2]), *c = w.At<uint32_t>(i.refs[3]);
  uint32_t rows[8];
  for (int r = 0; r < 8; ++r) rows[r] = i.immediate >> r & 1 ? ~0u : 0u;
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) {
    uint32_t x = a[l], y = b[l], z = c[l];
    return (rows[0] & ~x & ~y & ~z) | (rows[1] & ~x & ~y & z) | (rows[2] & ~x & y & ~z) | (rows[3] & ~x & y & z) |
           (rows[4] & x & ~y & ~z) | (rows[5] & x & ~y & z) | (rows[6] & x & y & ~z) | (rows[7] & x & y & z);
  });
}
void DecodeLop3(Decoder& d) {
  d.TakeType();
  if (!d.Expect(5)) return;
  if (d.operand(0).pair) return d.Fail("lop3 with a predicate is not emulated");
  uint64_t table = d.Immediate(d.operand(4));
  d.Emit(Lop3, OpClass::kInteger,
         {d.Destination(d.operand(0), 4), d.Source(d.operand(1), 4), d.Source(d.operand(2), 4),
          d.Source(d.operand(3), 4)})
      .immediate = table & 255;
}

/// prmt: the four selectors that a mode makes of its low bits, or the operand's own (mode 0).
uint32_t Selectors(int mode, uint32_t s) {
  uint32_t n = s & 3;
  static constexpr uint16_t kTable[7][4] = {
      {},
      {0x3210, 0x4321, 0x5432, 0x6543},  // f4e
      {0x5670, 0x6701, 0x7012, 0x0123},  // b4e
      {0x0000, 0x1111, 0x2222, 0x3333},  // rc8
      {0x3210, 0x3211, 0x3222, 0x3333},  // ecl
      {0x0000, 0x1110, 0x2210, 0x3210},  // ecr
      {0x1010, 0x3232, 0x1010, 0x3232},  // rc16
  };
  return mode == 0 ? s : kTable[mode][n];
}
void Permute(Warp& w, const Instruction& i) {
  const uint32_t *a = w.At<uint32_t>(i.refs[1]), *b = w.At<uint32_t>(i.refs[2]), *c = w.At<uint32_t>(i.refs[3]);
  int mode = static_cast<int>(i.immediate);
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int l) {
    uint64_t bytes = uint64_t{b[l]} << 32 | a[l];
    uint32_t selectors = Selectors(mode, c[l]), r = 0;
    for (int n = 0; n < 4; ++n) {
      uint32_t selector = selectors >> (4 * n) & 15;
      uint32_t byte = bytes >> (8 * (selector & 7)) & 255;
      if (mode == 0 && (selector & 8)) byte = byte & 128 ? 255 : 0;
      r |= byte << (8 * n);
    }
    return r;
  });
}
void DecodePrmt(Decoder& d) {
  d.TakeType();
  int mode = d.TakeOneOf({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1;
  if (!d.Expect(4)) return;
  d.Emit(Permute, OpClass::kInteger,
         {d.Destination(d.operand(0), 4), d.Source(d.operand(1), 4), d.Source(d.operand(2), 4),
          d.Source(d.operand(3), 4)})
      .immediate = static_cast<uint64_t>(mode);
}

template <bool a_signed, bool b_signed>
struct Dot4 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int n = 0; n < 4; ++n) {
      int32_t x = a >> (8 * n) & 255, y = b >> (8 * n) & 255;
      if (a_signed) x = static_cast<int8_t>(x);
      if (b_signed) y = static_cast<int8_t>(y);
      c += static_cast<uint32_t>(x * y);
    }
    return c;
  }
};
void DecodeDp4a(Decoder& d) {
  bool a = d.TakeType() == Type::kS32, b = d.TakeType() == Type::kS32;
  EmitSameType(d,
               a ? (b ? Ternary<uint32_t, Dot4<true, true>> : Ternary<uint32_t, Dot4<true, false>>)
                 : (b ? Ternary<uint32_t, Dot4<false, true>> : Ternary<uint32_t, Dot4<false, false>>),
               OpClass::kInteger, Type::kU32, 3);
}
template <bool a_signed, bool b_signed, bool high>
struct Dot2 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int n = 0; n < 2; ++n) {
      int32_t x = a >> (16 * n) & 65535, y = b >> (8 * n + (high ? 16 : 0)) & 255;
      if (a_signed) x = static_cast<int16_t>(x);
      if (b_signed) y = static_cast<int8_t>(y);
      c += static_cast<uint32_t>(x * y);
    }
    return c;
  }
};
void DecodeDp2a(Decoder& d) {
  int half = d.TakeOneOf({"lo", "hi"});
  bool a = d.TakeType() == Type::kS32, b = d.TakeType() == Type::kS32;
  if (half < 0) return d.Fail("dp2a wants .lo or .hi");
  static constexpr Handler kHandlers[2][2][2] = {
      {{Ternary<uint32_t, Dot2<false, false, false>>, Ternary<uint32_t, Dot2<false, true, false>>},
       {Ternary<uint32_t, Dot2<true, false, false>>, Ternary<uint32_t, Dot2<true, true, false>>}},
      {{Ternary<uint32_t, Dot2<false, false, true>>, Ternary<uint32_t, Dot2<false, true, true>>},
       {Ternary<uint32_t, Dot2<true, false, true>>, Ternary<uint32_t, Dot2<true, true, true>>}}};
  EmitSameType(d, kHandlers[half][a][b], OpClass::kInteger, Type::kU32, 3);
}
template <class T>
struct Sad {
  T operator()(T a, T b, T c) const { return Add<T>{}(c, a < b ? Sub<T>{}(b, a) : Sub<T>{}(a, b)); }
};
void DecodeSad(Decoder& d) {
  Type type = d.TakeType();
  EmitSameType(d, PickTernary<Sad>(type), OpClass::kInteger, type, 3);
}

// ---- predicates

void AndPredicates(Warp& w, const Instruction& i) {
  SetPredicate(w, i.refs[0], w.Predicate(i.refs[1]) & w.Predicate(i.refs[2]));
}
void OrPredicates(Warp& w, const Instruction& i) {
  SetPredicate(w, i.refs[0], w.Predicate(i.refs[1]) | w.Predicate(i.refs[2]));
}
void XorPredicates(Warp& w, const Instruction& i) {
  SetPredicate(w, i.refs[0], w.Predicate(i.refs[1]) ^ w.Predicate(i.refs[2]));
}
void NotPredicate(Warp& w, const Instruction& i) { SetPredicate(w, i.refs[0], ~w.Predicate(i.refs[1])); }

template <template <class> class F>
void DecodeLogic(Decoder& d, Handler predicates) {
  Type type = d.TakeType();
  if (type != Type::kPred) return EmitSameType(d, PickBinary<F>(type), OpClass::kInteger, type, 2);
  if (!d.Expect(3)) return;
  Ref a = d.SourcePredicate(d.operand(1)), b = d.SourcePredicate(d.operand(2));
  d.Emit(predicates, OpClass::kPredicate, {d.DestinationPredicate(d.operand(0)), a, b});
}

}  // namespace

std::span<const Opcode> IntegerOpcodes() {
  // add, sub, mul, mad, min, max, abs, neg, div and rem of floats are in ops_float.cc, which calls back here.
  static constexpr Opcode kTable[] = {
      {"rem", DecodeBinary<Rem>},
      {"cnot", DecodeUnary<Cnot>},
      {"and", [](Decoder& d) { DecodeLogic<And>(d, AndPredicates); }},
      {"or", [](Decoder& d) { DecodeLogic<Or>(d, OrPredicates); }},
      {"xor", [](Decoder& d) { DecodeLogic<Xor>(d, XorPredicates); }},
      {"not",
       [](Decoder& d) {
         Type type = d.TakeType();
         if (type != Type::kPred) return EmitSameType(d, PickUnary<Not>(type), OpClass::kInteger, type, 1);
         Ref source = d.SourcePredicate(d.operand(1));
         d.Emit(NotPredicate, OpClass::kPredicate, {d.DestinationPredicate(d.operand(0)), source});
       }},
      {"shl", DecodeShl},
      {"shr", DecodeShr},
      {"shf", DecodeShf},
      {"popc", DecodeCount<Popc>},
      {"clz", DecodeCount<Clz>},
      {"brev", DecodeBrev},
      {"bfind", DecodeBfind},
      {"bfe", DecodeBfe},
      {"bfi", DecodeBfi},
      {"lop3", DecodeLop3},
      {"prmt", DecodePrmt},
      {"dp4a", DecodeDp4a},
      {"dp2a", DecodeDp2a},
      {"sad", DecodeSad},
  };
  return kTable;
}

/// The integer forms of opcodes that floats have too: the modifiers that are left, and `type`, decide.
void DecodeIntegerArithmetic(Decoder& d, Type type) {
  std::string_view opcode = d.statement().opcode;
  auto emit = [&](Handler handler, size_t sources) { EmitSameType(d, handler, OpClass::kInteger, type, sources); };
  if (opcode == "add" || opcode == "sub") {
    bool add = opcode == "add";
    if (d.Take("sat"))
      return emit(type != Type::kS32 ? nullptr
                  : add              ? Binary<int32_t, AddSaturated>
                                     : Binary<int32_t, SubSaturated>,
                  2);
    return emit(add ? PickBinary<Add>(type) : PickBinary<Sub>(type), 2);
  }
  if (opcode == "mul" || opcode == "mad") {
    bool mad = opcode == "mad";
    switch (d.TakeOneOf({"lo", "hi", "wide"})) {
      case 0:
        return mad ? emit(PickTernary<MadLo>(type), 3) : emit(PickBinary<MulLo>(type), 2);
      case 1:
        return mad ? emit(PickTernary<MadHi>(type), 3) : emit(PickBinary<MulHi>(type), 2);
      case 2:
        return mad ? EmitWide<true>(d, type) : EmitWide<false>(d, type);
      default:
        return d.Fail("an integer product wants .lo, .hi or .wide");
    }
  }
  if (opcode == "div") return emit(PickBinary<Div>(type), 2);
  if (opcode == "min") return emit(PickBinary<Min>(type), 2);
  if (opcode == "max") return emit(PickBinary<Max>(type), 2);
  if (opcode == "abs") {
    return emit(type == Type::kS16   ? Unary<int16_t, Abs<int16_t>>
                : type == Type::kS32 ? Unary<int32_t, Abs<int32_t>>
                : type == Type::kS64 ? Unary<int64_t, Abs<int64_t>>
                                     : nullptr,
                1);
  }
  if (opcode == "neg") return emit(PickUnary<Neg>(type), 1);
  d.Fail("no such type for this opcode");
}

}  // namespace qwen::emu
