// Tensor-core instructions: mma.sync, ldmatrix, movmatrix.
//
// Where an element lies is a table of the PTX ISA's fragment figures, written as a formula over g = lane / 4 and
// t = lane % 4. Accumulation: products are exact, their sum over k in ascending order is a double, C is added last, and
// the result is rounded once to the accumulator's type. Hardware sums in an order and a width of its own (fp8: some 14
// bits); a test that compares with it allows for that. Integers are exact and wrap.
#include <fmt/format.h>

#include <bit>

#include "test/cuda_emulator/numeric.h"
#include "test/cuda_emulator/ops_memory.h"

namespace qwen::emu {
namespace {

int ElementsPerRegister(Type type) {
  switch (type) {
    case Type::kTf32:
      return 1;
    case Type::kF16:
    case Type::kBf16:
      return 2;
    case Type::kU4:
    case Type::kS4:
      return 8;
    default:
      return 4;
  }
}

/// The elements of a register of every lane, as doubles, exact.
void Unpack(const uint32_t* words, Type type, double out[kLanes][8]) {
  auto each = [&](auto element_of) {
    int count = ElementsPerRegister(type);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int e = 0; e < count; ++e) out[lane][e] = element_of(words[lane], e);
  };
  switch (type) {
    case Type::kTf32:
      return each([](uint32_t w, int) { return std::bit_cast<float>(w & 0xffffe000u); });
    case Type::kF16:
      return each([](uint32_t w, int e) { return HalfToFloat(static_cast<uint16_t>(w >> 16 * e)); });
    case Type::kBf16:
      return each([](uint32_t w, int e) { return Bf16ToFloat(static_cast<uint16_t>(w >> 16 * e)); });
    case Type::kE4m3: {
      static const auto* table = [] {
        auto* t = new std::array<float, 256>;
        for (int i = 0; i < 256; ++i) (*t)[static_cast<size_t>(i)] = ByteToFloat<E4m3>(static_cast<uint8_t>(i));
        return t;
      }();
      return each([](uint32_t w, int e) { return (*table)[w >> 8 * e & 255]; });
    }
    // The high byte of a half.
    case Type::kE5m2:
      return each([](uint32_t w, int e) { return HalfToFloat(static_cast<uint16_t>((w >> 8 * e & 255) << 8)); });
    case Type::kU8:
      return each([](uint32_t w, int e) { return static_cast<uint8_t>(w >> 8 * e); });
    case Type::kS8:
      return each([](uint32_t w, int e) { return static_cast<int8_t>(w >> 8 * e); });
    case Type::kU4:
      return each([](uint32_t w, int e) { return w >> 4 * e & 15; });
    default:
      return each([](uint32_t w, int e) { return static_cast<int>(w << (28 - 4 * e)) >> 28; });
  }
}

struct Mma {
  Type a, b, accumulator;
  int k;
  int a_registers, b_registers;
};

/// refs: D registers, A, B, C. M = 16, N = 8 in every shape.
///
/// A's register r holds row g + 8 * (r % 2) and, of a k-half r / 2, the elements e + n * t; B's register r holds column
/// g and of k-part r the same. n is the number of elements in a register.
template <class Accumulate>
void MmaHandler(Warp& w, const Instruction& i) {
  const auto& m = *static_cast<const Mma*>(i.detail);
  if (!w.full())
    return w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(w.mask), "mma.sync without the whole warp");
  constexpr bool kHalf = std::is_same_v<Accumulate, uint16_t>;
  constexpr int kOut = kHalf ? 2 : 4;
  const Ref* refs = i.refs;
  const Ref *a_refs = refs + kOut, *b_refs = a_refs + m.a_registers, *c_refs = b_refs + m.b_registers;
  int n = ElementsPerRegister(m.a);
  alignas(32) double a[16][64], b[64][8];
  double elements[kLanes][8];
  for (int r = 0; r < m.a_registers; ++r) {
    Unpack(w.At<uint32_t>(a_refs[r]), m.a, elements);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int e = 0; e < n; ++e) a[lane / 4 + 8 * (r % 2)][r / 2 * 4 * n + lane % 4 * n + e] = elements[lane][e];
  }
  for (int r = 0; r < m.b_registers; ++r) {
    Unpack(w.At<uint32_t>(b_refs[r]), m.b, elements);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int e = 0; e < n; ++e) b[r * 4 * n + lane % 4 * n + e][lane / 4] = elements[lane][e];
  }
  double sums[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < m.k; ++k)
      for (int column = 0; column < 8; ++column) sums[row][column] += a[row][k] * b[k][column];

  for (int r = 0; r < kOut; ++r) {
    uint32_t out[kLanes];
    const uint32_t* c = w.At<uint32_t>(c_refs[r]);
    for (int lane = 0; lane < kLanes; ++lane) {
      if constexpr (kHalf) {
        const double* sum = &sums[lane / 4 + 8 * r][lane % 4 * 2];
        uint32_t low = FloatToHalf(ToFloatOdd(AddToOdd(sum[0], HalfToFloat(static_cast<uint16_t>(c[lane])))));
        uint32_t high = FloatToHalf(ToFloatOdd(AddToOdd(sum[1], HalfToFloat(static_cast<uint16_t>(c[lane] >> 16)))));
        out[lane] = high << 16 | low;
      } else {
        double sum = sums[lane / 4 + 8 * (r / 2)][lane % 4 * 2 + r % 2];
        if constexpr (std::is_same_v<Accumulate, float>)
          out[lane] = std::bit_cast<uint32_t>(Canonical(static_cast<float>(sum + std::bit_cast<float>(c[lane]))));
        else
          out[lane] = static_cast<uint32_t>(static_cast<int64_t>(sum)) + c[lane];
      }
    }
    std::memcpy(w.At<uint32_t>(refs[r]), out, sizeof out);
  }
}

void DecodeMma(Decoder& d) {
  if (!d.Take("sync") || !d.Take("aligned")) return d.Fail("mma wants .sync.aligned");
  static constexpr struct {
    std::string_view name;
    int k;
  } kShapes[] = {{"m16n8k4", 4}, {"m16n8k8", 8}, {"m16n8k16", 16}, {"m16n8k32", 32}, {"m16n8k64", 64}};
  Mma m{};
  for (const auto& shape : kShapes)
    if (d.Take(shape.name)) m.k = shape.k;
  if (!m.k) return d.Fail("this shape is not emulated");
  if (!d.Take("row") || !d.Take("col")) return d.Fail("mma wants .row.col");
  if (d.Take("satfinite")) return d.Fail("mma .satfinite is not emulated");
  Type result = d.TakeType();
  m.a = d.TakeType();
  m.b = d.TakeType();
  m.accumulator = d.TakeType();
  if (!d.ok()) return;
  if (result != m.accumulator) return d.Fail("C and D of different types");
  struct Row {
    std::initializer_list<Type> operands;
    std::initializer_list<int> k;
    std::initializer_list<Type> accumulators;
    bool mixed;
  };
  static const Row kRows[] = {
      {{Type::kF16}, {8, 16}, {Type::kF32, Type::kF16}, false},
      {{Type::kBf16}, {8, 16}, {Type::kF32}, false},
      {{Type::kTf32}, {4, 8}, {Type::kF32}, false},
      {{Type::kE4m3, Type::kE5m2}, {16, 32}, {Type::kF32, Type::kF16}, true},
      {{Type::kS8, Type::kU8}, {16, 32}, {Type::kS32}, true},
      {{Type::kS4, Type::kU4}, {32, 64}, {Type::kS32}, true},
  };
  auto has = [](const auto& list, auto value) { return std::find(list.begin(), list.end(), value) != list.end(); };
  bool known = false;
  for (const Row& row : kRows)
    known |= has(row.operands, m.a) && has(row.operands, m.b) && (row.mixed || m.a == m.b) && has(row.k, m.k) &&
             has(row.accumulators, m.accumulator);
  if (!known) return d.Fail("no such mma on sm_89");
  int per_register = ElementsPerRegister(m.a);
  m.a_registers = 16 * m.k / kLanes / per_register;
  m.b_registers = 8 * m.k / kLanes / per_register;
  size_t out = m.accumulator == Type::kF16 ? 2 : 4;
  if (!d.Expect(4)) return;
  std::vector<Ref> refs;
  size_t counts[] = {out, static_cast<size_t>(m.a_registers), static_cast<size_t>(m.b_registers), out};
  for (size_t o = 0; o < 4; ++o) {
    const Operand& vector = d.operand(o);
    bool single = counts[o] == 1 && vector.kind == Operand::Kind::kSymbol;
    if (!single && (vector.kind != Operand::Kind::kVector || vector.elements.size() != counts[o]))
      return d.Fail(fmt::format("operand {} wants {} registers", o + 1, counts[o]));
    for (size_t e = 0; e < counts[o]; ++e) {
      const Operand& element = single ? vector : vector.elements[e];
      refs.push_back(o == 0 ? d.Destination(element, 4) : d.Source(element, 4, Type::kF32));
    }
  }
  Handler handler = m.accumulator == Type::kF32   ? MmaHandler<float>
                    : m.accumulator == Type::kF16 ? MmaHandler<uint16_t>
                                                  : MmaHandler<int32_t>;
  d.Emit(handler, OpClass::kMma, refs).detail = d.Detail(m);
}

struct LoadMatrix {
  MemoryAccess access;
  int matrices;
  bool transposed;
};
/// refs: address, then one destination a matrix. Lane l names the row l % 8 of matrix l / 8.
void LdmatrixHandler(Warp& w, const Instruction& i) {
  const auto& m = *static_cast<const LoadMatrix*>(i.detail);
  if (!w.full())
    return w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(w.mask), "ldmatrix.sync without the whole warp");
  uint64_t addresses[kLanes];
  Addresses(w, m.access, i.refs[0], addresses);
  if (m.access.space == Space::kGeneric)
    for (uint64_t& address : addresses) address -= kSharedWindow;
  uint32_t lanes = m.matrices == 4 ? kFullMask : (1u << 8 * m.matrices) - 1;
  if (!AccessShared(w, lanes, addresses, 16, {.read = true, .write = false})) return;
  const uint8_t* shared = w.block->shared.data();
  for (int matrix = 0; matrix < m.matrices; ++matrix) {
    uint16_t rows[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(rows[row], shared + addresses[8 * matrix + row], 16);
    uint32_t* out = w.At<uint32_t>(i.refs[matrix + 1]);
    for (int lane = 0; lane < kLanes; ++lane) {
      int g = lane / 4, t = lane % 4;
      uint32_t low = m.transposed ? rows[2 * t][g] : rows[g][2 * t];
      uint32_t high = m.transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      out[lane] = high << 16 | low;
    }
  }
}
void DecodeLdmatrix(Decoder& d) {
  if (!d.Take("sync") || !d.Take("aligned") || !d.Take("m8n8"))
    return d.Fail("only ldmatrix.sync.aligned.m8n8 is there");
  LoadMatrix m{};
  int count = d.TakeOneOf({"x1", "x2", "x4"});
  m.transposed = d.Take("trans");
  m.access.space = TakeSpace(d);
  if (d.TakeType() != Type::kB16 || count < 0) return d.Fail("no such form of ldmatrix on sm_89");
  m.matrices = 1 << count;
  if (!d.Expect(2)) return;
  const Operand& out = d.operand(0);
  size_t registers = out.kind == Operand::Kind::kVector ? out.elements.size() : 1;
  if (registers != static_cast<size_t>(m.matrices)) return d.Fail("one register a matrix");
  std::vector<Ref> refs = {AddressOperand(d, d.operand(1), &m.access)};
  for (size_t r = 0; r < registers; ++r)
    refs.push_back(d.Destination(out.kind == Operand::Kind::kVector ? out.elements[r] : out, 4));
  d.Emit(LdmatrixHandler, OpClass::kMatrixMove, refs).detail = d.Detail(m);
}

void MovmatrixHandler(Warp& w, const Instruction& i) {
  if (!w.full())
    return w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(w.mask), "movmatrix.sync without the whole warp");
  const uint32_t* in = w.At<uint32_t>(i.refs[1]);
  uint16_t m[8][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    m[lane / 4][lane % 4 * 2] = static_cast<uint16_t>(in[lane]);
    m[lane / 4][lane % 4 * 2 + 1] = static_cast<uint16_t>(in[lane] >> 16);
  }
  uint32_t* out = w.At<uint32_t>(i.refs[0]);
  for (int lane = 0; lane < kLanes; ++lane) {
    int g = lane / 4, t = lane % 4;
    out[lane] = uint32_t{m[2 * t + 1][g]} << 16 | m[2 * t][g];
  }
}
void DecodeMovmatrix(Decoder& d) {
  if (!d.Take("sync") || !d.Take("aligned") || !d.Take("m8n8") || !d.Take("trans") || d.TakeType() != Type::kB16)
    return d.Fail("only movmatrix.sync.aligned.m8n8.trans.b16 is there");
  if (!d.Expect(2)) return;
  d.Emit(MovmatrixHandler, OpClass::kMatrixMove, {d.Destination(d.operand(0), 4), d.Source(d.operand(1), 4)});
}

}  // namespace

std::span<const Opcode> MatrixOpcodes() {
  static constexpr Opcode kTable[] = {{"mma", DecodeMma}, {"ldmatrix", DecodeLdmatrix}, {"movmatrix", DecodeMovmatrix}};
  return kTable;
}

}  // namespace qwen::emu
