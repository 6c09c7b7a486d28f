// atom, red, fences.
//
// The lanes of a warp update in ascending order; real hardware takes any, so a kernel whose result depends on it (a sum
// of floats) is not tested by these bits.
#include <bit>

#include "test/cuda_emulator/numeric.h"
#include "test/cuda_emulator/ops_memory.h"

namespace qwen::emu {
namespace {

enum class Update : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor, kExch, kCas, kInc, kDec };

template <class T>
T Apply(Update op, T old, T b, T c) {
  switch (op) {
    case Update::kAdd:
      return old + b;
    case Update::kMin:
      return b < old ? b : old;
    case Update::kMax:
      return old < b ? b : old;
    case Update::kExch:
      return b;
    case Update::kCas:
      return old == b ? c : old;
    default:
      break;
  }
  if constexpr (std::is_unsigned_v<T>) {
    switch (op) {
      case Update::kAnd:
        return old & b;
      case Update::kOr:
        return old | b;
      case Update::kXor:
        return old ^ b;
      case Update::kInc:
        return old >= b ? 0 : old + 1;
      case Update::kDec:
        return old == 0 || old > b ? b : old - 1;
      default:
        break;
    }
  }
  return old;
}
uint64_t ApplyBits(Update op, Type type, uint64_t old, uint64_t b, uint64_t c) {
  auto pairs = [&](auto up, auto down) {
    uint64_t r = 0;
    for (int h = 0; h < (BytesOf(type) == 4 ? 2 : 1); ++h) {
      float x = up(static_cast<uint16_t>(old >> 16 * h)), y = up(static_cast<uint16_t>(b >> 16 * h));
      r |= uint64_t{down(x + y)} << 16 * h;
    }
    return r;
  };
  switch (type) {
    case Type::kS32:
      if (op == Update::kAdd) break;
      return static_cast<uint32_t>(
          Apply<int32_t>(op, static_cast<int32_t>(old), static_cast<int32_t>(b), static_cast<int32_t>(c)));
    case Type::kS64:
      return static_cast<uint64_t>(
          Apply<int64_t>(op, static_cast<int64_t>(old), static_cast<int64_t>(b), static_cast<int64_t>(c)));
    case Type::kF32:
      return std::bit_cast<uint32_t>(Canonical(Apply<float>(op, std::bit_cast<float>(static_cast<uint32_t>(old)),
                                                            std::bit_cast<float>(static_cast<uint32_t>(b)), 0)));
    case Type::kF64:
      return std::bit_cast<uint64_t>(Apply<double>(op, std::bit_cast<double>(old), std::bit_cast<double>(b), 0));
    case Type::kF16:
    case Type::kF16x2:
      return pairs(HalfToFloat, FloatToHalf);
    case Type::kBf16:
    case Type::kBf16x2:
      return pairs(Bf16ToFloat, FloatToBf16);
    default:
      break;
  }
  if (BytesOf(type) == 8) return Apply<uint64_t>(op, old, b, c);
  return Apply<uint32_t>(op, static_cast<uint32_t>(old), static_cast<uint32_t>(b), static_cast<uint32_t>(c));
}

struct Atomic {
  MemoryAccess access;
  Update op;
};

template <class T>
uint64_t UpdateMemory(uint64_t address, const Atomic& atomic, uint64_t b, uint64_t c, bool* changed) {
  T* at = reinterpret_cast<T*>(address);
  T old = __atomic_load_n(at, __ATOMIC_ACQUIRE), next;
  do next = static_cast<T>(ApplyBits(atomic.op, atomic.access.type, old, b, c));
  while (!__atomic_compare_exchange_n(at, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  *changed = next != old;
  return old;
}

/// refs: address, result (or kNoRef), b, c (or kNoRef).
void AtomicHandler(Warp& w, const Instruction& i) {
  const auto& atomic = *static_cast<const Atomic*>(i.detail);
  const MemoryAccess& access = atomic.access;
  uint64_t addresses[kLanes];
  Addresses(w, access, i.refs[0], addresses);
  unsigned bytes = access.element_bytes;
  AccessKind kind{.read = true, .write = true, .strong = true};
  auto lane_bits = [&](Ref ref, int lane) {
    uint64_t bits = 0;
    if (ref != kNoRef) std::memcpy(&bits, w.At<uint8_t>(ref) + static_cast<unsigned>(lane) * bytes, bytes);
    return bits;
  };
  BySpace(w, access, addresses, [&](Space space, uint32_t mask) {
    if (w.failed()) return;
    bool shared = space == Space::kShared;
    if (!shared && space != Space::kGlobal)
      return w.Fail(FaultKind::kOutOfBounds, std::countr_zero(mask), "an atomic outside global and shared memory");
    if (!(shared ? AccessShared(w, mask, addresses, bytes, kind) : AccessGlobal(w, mask, addresses, bytes, kind)))
      return;
    bool any_change = false;
    for (int l = 0; l < kLanes; ++l) {
      if (!(mask >> l & 1)) continue;
      uint64_t address = shared ? reinterpret_cast<uint64_t>(w.block->shared.data()) + addresses[l] : addresses[l];
      StrongAccess step(w, addresses[l], access);
      bool changed = false;
      uint64_t b = lane_bits(i.refs[2], l), c = lane_bits(i.refs[3], l), old;
      if (!shared) step.Read();
      old = bytes == 8   ? UpdateMemory<uint64_t>(address, atomic, b, c, &changed)
            : bytes == 4 ? UpdateMemory<uint32_t>(address, atomic, b, c, &changed)
                         : UpdateMemory<uint16_t>(address, atomic, b, c, &changed);
      // A compare-and-swap that failed wrote nothing.
      if (!shared && (changed || atomic.op != Update::kCas)) step.Wrote(changed);
      if (!shared && !w.block->launch->memory->Contains(address)) w.block->launch->polls_host = true;
      if (shared && changed) ++w.block->launch->progress;
      any_change |= changed;
      if (i.refs[1] != kNoRef) std::memcpy(w.At<uint8_t>(i.refs[1]) + static_cast<unsigned>(l) * bytes, &old, bytes);
    }
    if (!any_change) ++w.polls;
  });
}

void DecodeAtomic(Decoder& d, bool reduce) {
  Atomic atomic;
  MemoryAccess& access = atomic.access;
  access.order = MemoryAccess::Order::kRelaxed;
  TakeOrder(d, &access);
  access.space = TakeSpace(d);
  bool hint = d.Take("L2::cache_hint");
  d.Take("noftz");
  int op = d.TakeOneOf({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
  access.type = d.TakeType();
  if (op < 0) return d.Fail("the operation is missing");
  atomic.op = static_cast<Update>(op);
  access.element_bytes = static_cast<uint8_t>(BytesOf(access.type));
  int bytes = access.element_bytes;
  bool cas = atomic.op == Update::kCas;
  if (bytes > 8 || bytes < 2 || (bytes == 2 && !IsFloat(access.type) && !cas))
    return d.Fail("no such type for an atomic");
  if (IsFloat(access.type) && atomic.op != Update::kAdd) return d.Fail("floats can only be added");
  if (reduce && access.type == Type::kBf16x2) return d.Fail("red.bf16x2 needs sm_90");
  if (!d.Expect((reduce ? 2 : 3) + cas + hint)) return;
  size_t at = reduce ? 0 : 1;
  Ref result = reduce ? kNoRef : d.Destination(d.operand(0), bytes);
  Ref address = AddressOperand(d, d.operand(at), &access);
  Ref b = d.Source(d.operand(at + 1), bytes, access.type);
  Ref c = cas ? d.Source(d.operand(at + 2), bytes, access.type) : kNoRef;
  d.Emit(AtomicHandler, OpClass::kAtomic, {address, result, b, c}).detail = d.Detail(atomic);
}

void Fence(Warp& w, const Instruction&) { w.clock.Fence(); }
/// A fence of cta scope orders nothing between blocks; inside a block barriers and atomics are what is modelled.
void FenceCta(Warp&, const Instruction&) {}
void DecodeFence(Decoder& d) {
  d.TakeOneOf({"sc", "acq_rel"});
  int scope = d.TakeOneOf({"cta", "gl", "gpu", "sys"});
  if (scope < 0) return d.Fail("the scope is missing");
  d.Emit(scope == 0 ? FenceCta : Fence, OpClass::kFence, {});
}
void Nanosleep(Warp& w, const Instruction&) {
  ++w.polls;
  w.Yield();
}

}  // namespace

std::span<const Opcode> AtomicOpcodes() {
  static constexpr Opcode kTable[] = {
      {"atom", [](Decoder& d) { DecodeAtomic(d, false); }},
      {"red", [](Decoder& d) { DecodeAtomic(d, true); }},
      {"fence", DecodeFence},
      {"membar", DecodeFence},
      {"nanosleep",
       [](Decoder& d) {
         d.TakeType();
         d.Emit(Nanosleep, OpClass::kControl, {});
       }},
  };
  return kTable;
}

}  // namespace qwen::emu
