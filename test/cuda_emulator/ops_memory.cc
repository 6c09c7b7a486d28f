// ld, st, and the hints about memory that change no result.
#include "test/cuda_emulator/ops_memory.h"

#include <fmt/format.h>

#include <bit>

namespace qwen::emu {

void TakeOrder(Decoder& d, MemoryAccess* access) {
  using Order = MemoryAccess::Order;
  if (d.Take("volatile")) {
    access->order = Order::kRelaxed;
    access->scope = MemoryAccess::Scope::kSys;
  }
  static constexpr Order kOrders[] = {Order::kWeak, Order::kRelaxed, Order::kAcquire, Order::kRelease,
                                      Order::kAcquireRelease};
  if (int order = d.TakeOneOf({"weak", "relaxed", "acquire", "release", "acq_rel"}); order >= 0)
    access->order = kOrders[order];
  if (int scope = d.TakeOneOf({"cta", "gpu", "sys"}); scope >= 0)
    access->scope = static_cast<MemoryAccess::Scope>(scope);
}

Space TakeSpace(Decoder& d) {
  static constexpr Space kSpaces[] = {Space::kGlobal, Space::kShared, Space::kShared, Space::kLocal,
                                      Space::kConst,  Space::kParam,  Space::kParam,  Space::kParam};
  int space =
      d.TakeOneOf({"global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func"});
  return space < 0 ? Space::kGeneric : kSpaces[space];
}

bool TakeCacheHints(Decoder& d) {
  d.TakeOneOf({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  d.TakeOneOf({"L1::no_allocate", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last"});
  d.TakeOneOf({"L2::64B", "L2::128B", "L2::256B"});
  return d.Take("L2::cache_hint");
}

Ref AddressOperand(Decoder& d, const Operand& operand, MemoryAccess* access) {
  if (operand.kind != Operand::Kind::kAddress) {
    d.Fail("an address is missing");
    return 0;
  }
  if (!operand.symbol) {
    access->offset = operand.offset;
    return d.Constant(0, 8);
  }
  if (operand.symbol->kind == Symbol::Kind::kVariable && operand.symbol->space == Space::kRegister) {
    Operand base;
    base.kind = Operand::Kind::kSymbol;
    base.symbol = operand.symbol;
    int bytes = d.RegisterBytes(base);
    if (bytes != 4 && bytes != 8) d.Fail("an address register has 32 or 64 bits");
    if (bytes == 4 && access->space != Space::kShared) d.Fail("a 32-bit address outside shared memory");
    access->address_is_32_bits = bytes == 4;
    access->offset = operand.offset;
    return d.Source(base, bytes);
  }
  if (operand.symbol->kind != Symbol::Kind::kVariable) {
    d.Fail("not an address");
    return 0;
  }
  Space space = operand.symbol->space;
  if (access->space == Space::kGeneric && space != Space::kGlobal && space != Space::kConst)
    d.Fail("a generic access to a variable of another space");
  return d.AddressOf(*operand.symbol, operand.offset, 8);
}

void Addresses(const Warp& w, const MemoryAccess& access, Ref ref, uint64_t out[kLanes]) {
  uint64_t offset = static_cast<uint64_t>(access.offset);
  if (access.address_is_32_bits) {
    const uint32_t* base = w.At<uint32_t>(ref);
    for (int l = 0; l < kLanes; ++l) out[l] = uint32_t(base[l] + static_cast<uint32_t>(offset));
  } else {
    const uint64_t* base = w.At<uint64_t>(ref);
    for (int l = 0; l < kLanes; ++l) out[l] = base[l] + offset;
  }
}

namespace {

/// One element of every lane, between memory and registers: loads widen with sign or zeros, stores narrow.
template <class InMemory, class InRegister>
void LoadElement(uint32_t mask, const uint8_t* const* from, size_t offset, void* to) {
  InRegister* out = static_cast<InRegister*>(to);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    InMemory value;
    std::memcpy(&value, from[l] + offset, sizeof value);
    out[l] = static_cast<InRegister>(value);
  }
}
using Loader = void (*)(uint32_t, const uint8_t* const*, size_t, void*);
template <class InMemory>
Loader LoaderTo(int register_bytes) {
  return register_bytes == 2   ? LoadElement<InMemory, uint16_t>
         : register_bytes == 4 ? LoadElement<InMemory, uint32_t>
         : register_bytes == 8 ? LoadElement<InMemory, uint64_t>
                               : LoadElement<InMemory, uint8_t>;
}
Loader LoaderOf(Type type, int register_bytes) {
  bool sign = IsSigned(type) && !IsFloat(type);
  switch (BytesOf(type)) {
    case 1:
      return sign ? LoaderTo<int8_t>(register_bytes) : LoaderTo<uint8_t>(register_bytes);
    case 2:
      return sign ? LoaderTo<int16_t>(register_bytes) : LoaderTo<uint16_t>(register_bytes);
    case 4:
      return sign ? LoaderTo<int32_t>(register_bytes) : LoaderTo<uint32_t>(register_bytes);
    default:
      return LoaderTo<uint64_t>(register_bytes);
  }
}

struct Transfer {
  MemoryAccess access;
  Loader loaders[4] = {};
};

/// Copies between a lane's local memory, whose words are 128 bytes apart, and a plain buffer.
void CopyLocal(Warp& w, int lane, uint64_t address, uint8_t* buffer, unsigned bytes, bool to_buffer) {
  for (unsigned i = 0; i < bytes;) {
    unsigned n = std::min<unsigned>(4 - (address + i) % 4, bytes - i);
    uint8_t* at = w.Local(address + i, lane);
    to_buffer ? std::memcpy(buffer + i, at, n) : std::memcpy(at, buffer + i, n);
    i += n;
  }
}

/// A load or store that the host or another thread may race with: one access of the machine.
void AtomicCopy(uint8_t* to, const uint8_t* from, unsigned bytes, bool load) {
  auto copy = [&]<class T>(T) {
    T value;
    if (load) {
      value = __atomic_load_n(reinterpret_cast<const T*>(from), __ATOMIC_ACQUIRE);
      std::memcpy(to, &value, sizeof value);
    } else {
      std::memcpy(&value, from, sizeof value);
      __atomic_store_n(reinterpret_cast<T*>(to), value, __ATOMIC_RELEASE);
    }
  };
  switch (bytes) {
    case 1:
      return copy(uint8_t{});
    case 2:
      return copy(uint16_t{});
    case 4:
      return copy(uint32_t{});
    case 8:
      return copy(uint64_t{});
    default:
      for (unsigned i = 0; i < bytes; i += 8) AtomicCopy(to + i, from + i, 8, load);
  }
}

bool IsStrong(const MemoryAccess& access) { return access.order != MemoryAccess::Order::kWeak; }

/// refs: address, destinations.
void Load(Warp& w, const Instruction& i) {
  const auto& transfer = *static_cast<const Transfer*>(i.detail);
  const MemoryAccess& access = transfer.access;
  uint64_t addresses[kLanes];
  Addresses(w, access, i.refs[0], addresses);
  unsigned bytes = unsigned{access.element_bytes} * access.vector;
  bool strong = IsStrong(access);
  AccessKind kind{.read = true, .write = false, .strong = strong, .read_only = access.read_only};
  const uint8_t* from[kLanes];
  alignas(16) uint8_t buffer[kLanes][16];
  BySpace(w, access, addresses, [&](Space space, uint32_t mask) {
    if (w.failed()) return;
    switch (space) {
      case Space::kShared:
        if (!AccessShared(w, mask, addresses, bytes, kind)) return;
        if (strong) ++w.polls;
        for (int l = 0; l < kLanes; ++l) from[l] = w.block->shared.data() + (mask >> l & 1 ? addresses[l] : 0);
        break;
      case Space::kLocal:
        if (!AccessLocal(w, mask, addresses, bytes)) return;
        for (int l = 0; l < kLanes; ++l) {
          if (!(mask >> l & 1)) continue;
          CopyLocal(w, l, addresses[l], buffer[l], bytes, true);
          from[l] = buffer[l];
        }
        break;
      case Space::kParam: {
        const std::vector<uint8_t>& parameters = w.block->launch->parameters;
        for (int l = 0; l < kLanes; ++l) {
          if (!(mask >> l & 1)) continue;
          if (addresses[l] >= parameters.size() || bytes > parameters.size() - addresses[l])
            return w.Fail(FaultKind::kOutOfBounds, l,
                          fmt::format("reads parameter byte {}, the kernel has {}", addresses[l], parameters.size()));
          if (addresses[l] % bytes != 0) return w.Fail(FaultKind::kMisaligned, l, "a parameter");
          from[l] = parameters.data() + addresses[l];
        }
        break;
      }
      default:
        if (!AccessGlobal(w, mask, addresses, bytes, kind)) return;
        for (int l = 0; l < kLanes; ++l) {
          if (!(mask >> l & 1)) continue;
          from[l] = reinterpret_cast<const uint8_t*>(addresses[l]);
          if (!strong) continue;
          StrongAccess step(w, addresses[l], access);
          AtomicCopy(buffer[l], from[l], bytes, true);
          step.Read();
          if (!w.block->launch->memory->Contains(addresses[l])) w.block->launch->polls_host = true;
          from[l] = buffer[l];
        }
        if (strong) ++w.polls;
    }
    for (int n = 0; n < access.vector; ++n)
      transfer.loaders[n](mask, from, static_cast<size_t>(n) * access.element_bytes, w.At<void*>(i.refs[n + 1]));
  });
}

/// refs: address, sources.
void Store(Warp& w, const Instruction& i) {
  const auto& transfer = *static_cast<const Transfer*>(i.detail);
  const MemoryAccess& access = transfer.access;
  uint64_t addresses[kLanes];
  Addresses(w, access, i.refs[0], addresses);
  unsigned element = access.element_bytes, bytes = element * access.vector;
  bool strong = IsStrong(access);
  AccessKind kind{.read = false, .write = true, .strong = strong};
  alignas(16) uint8_t buffer[kLanes][16];
  for (int n = 0; n < access.vector; ++n) {
    const uint8_t* from = w.At<uint8_t>(i.refs[n + 1]);
    for (int l = 0; l < kLanes; ++l)
      std::memcpy(buffer[l] + static_cast<unsigned>(n) * element, from + l * access.register_bytes[n], element);
  }
  BySpace(w, access, addresses, [&](Space space, uint32_t mask) {
    if (w.failed()) return;
    switch (space) {
      case Space::kShared:
        if (!AccessShared(w, mask, addresses, bytes, kind)) return;
        for (int l = 0; l < kLanes; ++l)
          if (mask >> l & 1) std::memcpy(w.block->shared.data() + addresses[l], buffer[l], bytes);
        if (strong) ++w.block->launch->progress;
        break;
      case Space::kLocal:
        if (!AccessLocal(w, mask, addresses, bytes)) return;
        for (int l = 0; l < kLanes; ++l)
          if (mask >> l & 1) CopyLocal(w, l, addresses[l], buffer[l], bytes, false);
        break;
      case Space::kParam:
      case Space::kConst:
        return w.Fail(FaultKind::kUnsupported, std::countr_zero(mask), "a store to constant memory");
      default:
        if (!AccessGlobal(w, mask, addresses, bytes, kind)) return;
        for (int l = 0; l < kLanes; ++l) {
          if (!(mask >> l & 1)) continue;
          uint8_t* to = reinterpret_cast<uint8_t*>(addresses[l]);
          if (!strong) {
            std::memcpy(to, buffer[l], bytes);
            continue;
          }
          StrongAccess step(w, addresses[l], access);
          step.Wrote(true);
          AtomicCopy(to, buffer[l], bytes, false);
        }
    }
  });
}

// A parameter of a call, or of a device function: `bytes` of each lane in turn, in the frame.
struct FrameSlot {
  uint32_t bytes, offset, element_bytes;
  uint8_t vector;
  uint8_t register_bytes[4];
  Loader loaders[4];
};
void LoadFrame(Warp& w, const Instruction& i) {
  const auto& slot = *static_cast<const FrameSlot*>(i.detail);
  const uint8_t* from[kLanes];
  for (int l = 0; l < kLanes; ++l)
    from[l] = w.At<uint8_t>(i.refs[0]) + static_cast<uint32_t>(l) * slot.bytes + slot.offset;
  for (int n = 0; n < slot.vector; ++n)
    slot.loaders[n](w.mask, from, size_t{slot.element_bytes} * static_cast<size_t>(n), w.At<void*>(i.refs[n + 1]));
}
void StoreFrame(Warp& w, const Instruction& i) {
  const auto& slot = *static_cast<const FrameSlot*>(i.detail);
  for (int l = 0; l < kLanes; ++l) {
    if (!(w.mask >> l & 1)) continue;
    uint8_t* to = w.At<uint8_t>(i.refs[0]) + static_cast<uint32_t>(l) * slot.bytes + slot.offset;
    for (int n = 0; n < slot.vector; ++n)
      std::memcpy(to + static_cast<uint32_t>(n) * slot.element_bytes,
                  w.At<uint8_t>(i.refs[n + 1]) + l * slot.register_bytes[n], slot.element_bytes);
  }
}

void DecodeTransfer(Decoder& d, bool load) {
  Transfer transfer;
  MemoryAccess& access = transfer.access;
  TakeOrder(d, &access);
  access.space = TakeSpace(d);
  access.read_only = d.Take("nc");
  bool hint = TakeCacheHints(d);
  access.vector = static_cast<uint8_t>(d.TakeVector());
  access.type = d.TakeType();
  if (!d.Expect(hint ? 3 : 2)) return;
  access.element_bytes = static_cast<uint8_t>(BytesOf(access.type));
  if (access.element_bytes > 8 || access.element_bytes * access.vector > 16)
    return d.Fail("sm_89 moves at most 16 bytes a lane");
  const Operand &address = d.operand(load ? 1 : 0), &data = d.operand(load ? 0 : 1);
  size_t count = data.kind == Operand::Kind::kVector ? data.elements.size() : 1;
  if (count != access.vector) return d.Fail(fmt::format("{} registers for a vector of {}", count, access.vector));
  std::vector<Ref> refs = {0};
  for (size_t n = 0; n < count; ++n) {
    const Operand& element = data.kind == Operand::Kind::kVector ? data.elements[n] : data;
    int bytes = d.RegisterBytes(element) ? d.RegisterBytes(element) : access.element_bytes;
    if (bytes < access.element_bytes) return d.Fail("a register is narrower than the type");
    refs.push_back(load ? d.Destination(element, bytes) : d.Source(element, bytes, access.type));
    access.register_bytes[n] = static_cast<uint8_t>(bytes);
    transfer.loaders[n] = LoaderOf(access.type, bytes);
  }
  Ref frame = 0;
  uint32_t frame_bytes = 0;
  if (address.kind == Operand::Kind::kAddress && address.symbol && access.space == Space::kParam &&
      d.FrameParameter(*address.symbol, &frame, &frame_bytes)) {
    FrameSlot slot{frame_bytes, static_cast<uint32_t>(address.offset), access.element_bytes, access.vector, {}, {}};
    if (address.offset < 0 || slot.offset + uint32_t{access.element_bytes} * access.vector > frame_bytes)
      return d.Fail("outside the parameter");
    std::copy(std::begin(access.register_bytes), std::end(access.register_bytes), slot.register_bytes);
    std::copy(std::begin(transfer.loaders), std::end(transfer.loaders), slot.loaders);
    refs[0] = frame;
    d.Emit(load ? LoadFrame : StoreFrame, load ? OpClass::kLoadOther : OpClass::kStoreOther, refs).detail =
        d.Detail(slot);
    return;
  }
  refs[0] = AddressOperand(d, address, &access);
  OpClass op_class = access.space == Space::kShared ? (load ? OpClass::kLoadShared : OpClass::kStoreShared)
                     : access.space == Space::kGlobal || access.space == Space::kGeneric
                         ? (load ? OpClass::kLoadGlobal : OpClass::kStoreGlobal)
                         : (load ? OpClass::kLoadOther : OpClass::kStoreOther);
  if (access.space == Space::kConst) access.read_only = true;
  d.Emit(load ? Load : Store, op_class, refs).detail = d.Detail(transfer);
}

void Nothing(Warp&, const Instruction&) {}
void DecodePrefetch(Decoder& d) {
  TakeSpace(d);
  d.TakeOneOf({"L1", "L2"});
  d.TakeOneOf({"L2::evict_last", "L2::evict_normal"});
  if (d.Expect(1)) d.Emit(Nothing, OpClass::kMove, {});
}
void DecodePriority(Decoder& d) {
  TakeSpace(d);
  d.TakeOneOf({"L2::evict_normal", "L2"});
  if (d.Expect(2)) d.Emit(Nothing, OpClass::kMove, {});
}
/// A cache policy is a number that only hints read.
void DecodeCreatepolicy(Decoder& d) {
  if (d.TakeOneOf({"fractional", "range", "cvt"}) < 0) return d.Fail("no such form of createpolicy");
  d.TakeOneOf({"L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged", "L2"});
  d.TakeOneOf({"L2::evict_first", "L2::evict_unchanged"});
  d.TakeType();
  d.Emit([](Warp& w, const Instruction& i) { ForLanes(w, w.At<uint64_t>(i.refs[0]), [](int) { return uint64_t{0}; }); },
         OpClass::kMove, {d.Destination(d.operand(0), 8)});
}

}  // namespace

std::span<const Opcode> MemoryOpcodes() {
  static constexpr Opcode kTable[] = {
      {"ld", [](Decoder& d) { DecodeTransfer(d, true); }},
      {"ldu", [](Decoder& d) { DecodeTransfer(d, true); }},
      {"st", [](Decoder& d) { DecodeTransfer(d, false); }},
      {"prefetch", DecodePrefetch},
      {"prefetchu", DecodePrefetch},
      {"applypriority", DecodePriority},
      {"createpolicy", DecodeCreatepolicy},
  };
  return kTable;
}

}  // namespace qwen::emu
