// Barriers of the block: bar, barrier, and mbarrier objects in shared memory.
#include <fmt/format.h>

#include <bit>

#include "test/cuda_emulator/ops_memory.h"

namespace qwen::emu {

void WarpBarrier(Warp& w, const Instruction& i);
void CompleteAsyncCopies(Warp& w, uint32_t lanes, uint32_t all_but);

namespace {

enum class Action : uint8_t { kSync, kArrive, kReduce };
struct BarrierDetail {
  Action action;
  bool has_count;
  int reduction = 0;  // 0 popc, 1 and, 2 or; as Block::TryRelease reads it
};
/// refs: barrier number, thread count, destination of a reduction, its predicate.
void Barrier(Warp& w, const Instruction& i) {
  const auto& detail = *static_cast<const BarrierDetail*>(i.detail);
  int first = std::countr_zero(w.mask);
  if (w.mask != w.live)
    return w.Fail(
        FaultKind::kDivergentBarrier, std::countr_zero(w.live & ~w.mask),
        fmt::format("lanes {:#x} are at the barrier, lanes {:#x} of the warp are not", w.mask, w.live & ~w.mask));
  uint32_t number = w.At<uint32_t>(i.refs[0])[first];
  if (number >= 16) return w.Fail(FaultKind::kOutOfBounds, first, fmt::format("barrier {} of 16", number));
  NamedBarrier& barrier = w.block->barriers[number];
  uint32_t count = detail.has_count ? w.At<uint32_t>(i.refs[1])[first] : 0;
  if (detail.has_count && (count == 0 || count % kLanes != 0))
    return w.Fail(FaultKind::kDeadlock, first, fmt::format("a barrier of {} threads, not a multiple of 32", count));
  if (barrier.in_use && barrier.expected != count)
    return w.Fail(
        FaultKind::kDeadlock, first,
        fmt::format("barrier {} for {} threads, but others wait at it for {}", number, count, barrier.expected));
  barrier.in_use = true;
  barrier.expected = count;
  barrier.arrived += kLanes;
  w.clock.Arrive(&barrier.meeting);
  if (detail.action == Action::kReduce) {
    uint32_t p = w.Predicate(i.refs[3]) & w.mask;
    barrier.count += static_cast<uint32_t>(std::popcount(p));
    barrier.all &= p == w.mask;
    barrier.any |= p != 0;
    w.barrier_result = i.refs[2];
    w.barrier_reduction = detail.reduction;
    w.barrier_mask = w.mask;
  }
  if (detail.action != Action::kArrive) {
    w.barrier = static_cast<int>(number);
    w.Wait();
  }
  w.block->TryRelease(static_cast<int>(number));
}

void DecodeBar(Decoder& d) {
  d.Take("cta");
  d.Take("aligned");  // both forms want the whole warp here
  if (d.Take("warp")) {
    if (!d.Take("sync")) return d.Fail("no such form of bar.warp");
    if (!d.Expect(1)) return;
    d.Emit(WarpBarrier, OpClass::kBarrier, {d.Source(d.operand(0), 4)});
    return;
  }
  int action = d.TakeOneOf({"sync", "arrive", "red"});
  if (action < 0) return d.Fail("no such form of a barrier");
  BarrierDetail detail{static_cast<Action>(action), false};
  size_t first = 0;
  Ref out = kNoRef, p = kNoRef;
  if (detail.action == Action::kReduce) {
    detail.reduction = d.TakeOneOf({"popc", "and", "or"});
    Type type = d.TakeType();
    if (detail.reduction < 0 || (detail.reduction == 0) != (type == Type::kU32)) return d.Fail("no such reduction");
    out = detail.reduction == 0 ? d.Destination(d.operand(0), 4) : d.DestinationPredicate(d.operand(0));
    p = d.SourcePredicate(d.operand(d.operands() - 1));
    first = 1;
  }
  size_t numbers = d.operands() - first - (detail.action == Action::kReduce);
  if (numbers < 1 || numbers > 2) return d.Fail("a barrier has a number and may have a count");
  detail.has_count = numbers == 2;
  if (detail.action == Action::kArrive && !detail.has_count) return d.Fail("bar.arrive wants a count");
  Ref count = detail.has_count ? d.Source(d.operand(first + 1), 4) : kNoRef;
  d.Emit(Barrier, OpClass::kBarrier, {d.Source(d.operand(first), 4), count, out, p}).detail = d.Detail(detail);
}

// ---- mbarrier: our own layout of the opaque 64 bits, all counts in one word

struct Object {
  uint64_t bits;
  // expected arrivals, those still pending, the phase
  uint32_t expected() const { return bits & 0xfffff; }
  uint32_t pending() const { return bits >> 20 & 0xfffff; }
  uint32_t phase() const { return static_cast<uint32_t>(bits >> 40); }
  static Object Make(uint32_t expected, uint32_t pending, uint32_t phase) {
    return {uint64_t{phase} << 40 | uint64_t{pending} << 20 | expected};
  }
};

struct Mbarrier {
  enum class Verb { kInit, kInval, kArrive, kArriveDrop, kTestWait, kCopyArrive } verb;
  MemoryAccess access;
  bool parity = false, increments = false;
};

/// refs: address, destination (or kNoRef), source (or kNoRef).
void MbarrierHandler(Warp& w, const Instruction& i) {
  const auto& m = *static_cast<const Mbarrier*>(i.detail);
  uint64_t addresses[kLanes];
  Addresses(w, m.access, i.refs[0], addresses);
  bool init = m.verb == Mbarrier::Verb::kInit;
  AccessKind kind{.read = !init, .write = true, .strong = !init};
  BySpace(w, m.access, addresses, [&](Space space, uint32_t mask) {
    if (w.failed()) return;
    if (space != Space::kShared)
      return w.Fail(FaultKind::kOutOfBounds, std::countr_zero(mask), "an mbarrier outside shared memory");
    if (!AccessShared(w, mask, addresses, 8, kind)) return;
    for (int l = 0; l < kLanes; ++l) {
      if (!(mask >> l & 1)) continue;
      uint32_t at = static_cast<uint32_t>(addresses[l]);
      Object object;
      std::memcpy(&object, w.block->shared.data() + at, 8);
      uint32_t arrivals = 0, drops = 0;
      switch (m.verb) {
        case Mbarrier::Verb::kInit: {
          uint32_t expected = w.At<uint32_t>(i.refs[2])[l];
          object = Object::Make(expected, expected, 0);
          w.block->mbarriers[at] = {};
          break;
        }
        case Mbarrier::Verb::kInval:
          w.block->mbarriers.erase(at);
          break;
        case Mbarrier::Verb::kArriveDrop:
          drops = 1;
          [[fallthrough]];
        case Mbarrier::Verb::kArrive:
          arrivals = i.refs[2] == kNoRef ? 1 : w.At<uint32_t>(i.refs[2])[l];
          break;
        case Mbarrier::Verb::kCopyArrive:
          CompleteAsyncCopies(w, 1u << l, 0);
          if (m.increments) object = Object::Make(object.expected(), object.pending() + 1, object.phase());
          arrivals = 1;
          break;
        case Mbarrier::Verb::kTestWait: {
          uint64_t token = m.parity ? w.At<uint32_t>(i.refs[2])[l] : w.At<uint64_t>(i.refs[2])[l] >> 40;
          bool done = m.parity ? (object.phase() & 1) != (token & 1) : object.phase() != token;
          uint32_t& p = w.Predicate(i.refs[1]);
          p = (p & ~(1u << l)) | uint32_t{done} << l;
          if (done)
            w.clock.Leave(w.block->mbarriers[at]);
          else
            ++w.polls;
          continue;
        }
      }
      if (arrivals) {
        if (i.refs[1] != kNoRef) w.At<uint64_t>(i.refs[1])[l] = object.bits;
        if (arrivals > object.pending())
          return w.Fail(FaultKind::kDeadlock, l,
                        fmt::format("{} arrivals at an mbarrier that waits for {}", arrivals, object.pending()));
        w.clock.Arrive(&w.block->mbarriers[at]);
        uint32_t expected = object.expected() - drops, pending = object.pending() - arrivals;
        object = pending ? Object::Make(expected, pending, object.phase())
                         : Object::Make(expected, expected, (object.phase() + 1) & 0xffffff);
        ++w.block->launch->progress;
      }
      std::memcpy(w.block->shared.data() + at, &object, 8);
    }
  });
}

void DecodeMbarrier(Decoder& d) {
  Mbarrier m;
  static constexpr Mbarrier::Verb kVerbs[] = {Mbarrier::Verb::kInit, Mbarrier::Verb::kInval, Mbarrier::Verb::kArrive,
                                              Mbarrier::Verb::kArriveDrop, Mbarrier::Verb::kTestWait};
  int verb = d.TakeOneOf({"init", "inval", "arrive", "arrive_drop", "test_wait"});
  if (verb < 0 || d.Take("noComplete") || d.Take("expect_tx")) return d.Fail("no such form of mbarrier on sm_89");
  m.verb = kVerbs[verb];
  d.TakeOneOf({"release", "acquire"});
  d.TakeOneOf({"cta"});
  m.parity = d.Take("parity");
  m.access.space = TakeSpace(d);
  if (d.TakeType() != Type::kB64) return d.Fail("an mbarrier is a .b64");
  bool has_result = m.verb >= Mbarrier::Verb::kArrive;
  if (d.operands() < (has_result ? 2u : 1u)) return d.Fail("operands are missing");
  Ref out = kNoRef, source = kNoRef;
  size_t at = has_result ? 1 : 0;
  if (m.verb == Mbarrier::Verb::kTestWait) {
    out = d.DestinationPredicate(d.operand(0));
    source = d.Source(d.operand(2), m.parity ? 4 : 8);
  } else {
    if (has_result) out = d.Destination(d.operand(0), 8);
    if (d.operands() > at + 1) source = d.Source(d.operand(at + 1), 4);
  }
  Ref address = AddressOperand(d, d.operand(at), &m.access);
  d.Emit(MbarrierHandler, OpClass::kBarrier, {address, out, source}).detail = d.Detail(m);
}

}  // namespace

/// cp.async.mbarrier.arrive, decoded with the other cp.async; `noinc` says that the count allows for it already.
void DecodeCopyArrive(Decoder& d) {
  Mbarrier m{Mbarrier::Verb::kCopyArrive, {}, false, false};
  if (!d.Take("arrive")) return d.Fail("no such form of cp.async.mbarrier");
  m.increments = !d.Take("noinc");
  m.access.space = TakeSpace(d);
  if (d.TakeType() != Type::kB64) return d.Fail("an mbarrier is a .b64");
  if (!d.Expect(1)) return;
  Ref address = AddressOperand(d, d.operand(0), &m.access);
  d.Emit(MbarrierHandler, OpClass::kBarrier, {address, kNoRef, kNoRef}).detail = d.Detail(m);
}

std::span<const Opcode> BarrierOpcodes() {
  static constexpr Opcode kTable[] = {{"bar", DecodeBar}, {"barrier", DecodeBar}, {"mbarrier", DecodeMbarrier}};
  return kTable;
}

}  // namespace qwen::emu
