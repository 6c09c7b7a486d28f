// cp.async: copies to shared memory that complete at a wait.
//
// `latest` moves the bytes when their group is waited for, `earliest` at once; either way the target counts as under
// way until then, and whoever touches it has a race. A kernel is right when both give the same bytes.
#include <fmt/format.h>

#include <bit>

#include "test/cuda_emulator/ops_memory.h"

namespace qwen::emu {
namespace {

void Move(Block& block, const Warp::AsyncCopy& copy) {
  uint8_t* to = block.shared.data() + copy.target;
  std::memcpy(to, reinterpret_cast<const void*>(copy.source), copy.source_bytes);
  std::memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

struct CopyDetail {
  MemoryAccess target, source;
  uint8_t bytes;
};
/// refs: target, source, source size (or kNoRef), ignore-source predicate (or kNoRef).
void Copy(Warp& w, const Instruction& i) {
  const auto& detail = *static_cast<const CopyDetail*>(i.detail);
  Block& block = *w.block;
  uint64_t to[kLanes], from[kLanes];
  Addresses(w, detail.target, i.refs[0], to);
  Addresses(w, detail.source, i.refs[1], from);
  if (detail.target.space == Space::kGeneric)
    for (int l = 0; l < kLanes; ++l) to[l] -= kSharedWindow;
  uint32_t sizes[kLanes], reads = 0;
  for (int l = 0; l < kLanes; ++l) {
    sizes[l] = i.refs[2] == kNoRef ? detail.bytes : w.At<uint32_t>(i.refs[2])[l];
    if (i.refs[3] != kNoRef && (w.Predicate(i.refs[3]) >> l & 1)) sizes[l] = 0;
    if (!(w.mask >> l & 1)) continue;
    if (sizes[l] > detail.bytes)
      return w.Fail(FaultKind::kOutOfBounds, l,
                    fmt::format("a source of {} bytes for a copy of {}", sizes[l], detail.bytes));
    if (sizes[l] == detail.bytes) reads |= 1u << l;
  }
  if (reads && !AccessGlobal(w, reads, from, detail.bytes, {.read = true, .write = false, .read_only = false})) return;
  // Lanes with a part of the source, or none.
  for (int l = 0; l < kLanes; ++l) {
    if (!((w.mask & ~reads) >> l & 1) || sizes[l] == 0) continue;
    if (!AccessGlobal(w, 1u << l, from, sizes[l], {.read = true, .write = false, .alignment = detail.bytes})) return;
  }
  if (!AccessShared(w, w.mask, to, detail.bytes, {.read = false, .write = true})) return;
  for (int l = 0; l < kLanes; ++l) {
    if (!(w.mask >> l & 1)) continue;
    Warp::AsyncCopy copy{from[l],      static_cast<uint32_t>(to[l]),   w.async_groups[static_cast<size_t>(l)],
                         detail.bytes, static_cast<uint8_t>(sizes[l]), static_cast<uint8_t>(l),
                         false};
    if (!block.launch->options->async_copies_late) {
      Move(block, copy);
      copy.done = true;
    }
    for (uint32_t word = copy.target / 4; word < (copy.target + detail.bytes) / 4; ++word)
      block.shared_words[word].pending = 15;
    w.async_copies.push_back(copy);
    block.counters->async_copy_bytes += sizes[l];
  }
}

void Commit(Warp& w, const Instruction&) {
  for (int l = 0; l < kLanes; ++l) w.async_groups[static_cast<size_t>(l)] += w.mask >> l & 1;
}

}  // namespace

/// Completes the copies of `lanes` that belong to none of the newest `all_but` committed groups; with ~0u also those
/// not committed yet.
void CompleteAsyncCopies(Warp& w, uint32_t lanes, uint32_t all_but) {
  Block& block = *w.block;
  const WarpClock& clock = w.clock;
  std::erase_if(w.async_copies, [&](const Warp::AsyncCopy& copy) {
    if (!(lanes >> copy.lane & 1)) return false;
    uint32_t committed = w.async_groups[copy.lane];
    if (all_but != ~0u && (copy.group >= committed || committed - copy.group <= all_but)) return false;
    if (!copy.done) Move(block, copy);
    // From here on the copy is a write of the thread that waited.
    for (uint32_t word = copy.target / 4; word < (copy.target + copy.bytes) / 4u; ++word) {
      block.shared_words[word].pending = 0;
      block.shared_words[word].write = Access::Make(block.id, clock.now(), w.index, copy.lane, 15, false);
    }
    return true;
  });
}

namespace {

void WaitGroup(Warp& w, const Instruction& i) { CompleteAsyncCopies(w, w.mask, static_cast<uint32_t>(i.immediate)); }

}  // namespace

void DecodeCopyArrive(Decoder& d);

namespace {

void DecodeCp(Decoder& d) {
  if (!d.Take("async")) return d.Fail("no such form of cp");
  if (d.Take("bulk")) return d.Fail("cp.async.bulk needs sm_90");
  if (d.Take("commit_group")) {
    if (d.Expect(0)) d.Emit(Commit, OpClass::kAsyncCopy, {});
    return;
  }
  if (d.Take("wait_all")) {
    if (d.Expect(0)) d.Emit(WaitGroup, OpClass::kAsyncCopy, {}).immediate = ~0u;
    return;
  }
  if (d.Take("wait_group")) {
    if (!d.Expect(1)) return;
    uint64_t all_but = d.Immediate(d.operand(0));
    d.Emit(WaitGroup, OpClass::kAsyncCopy, {}).immediate = all_but;
    return;
  }
  if (d.Take("mbarrier")) return DecodeCopyArrive(d);
  CopyDetail detail{};
  int cache = d.TakeOneOf({"ca", "cg"});
  if (!d.Take("shared") && !d.Take("shared::cta")) return d.Fail("the target is shared memory");
  if (!d.Take("global")) return d.Fail("the source is global memory");
  detail.target.space = Space::kShared;
  detail.source.space = Space::kGlobal;
  d.TakeOneOf({"L2::64B", "L2::128B", "L2::256B"});
  bool hint = d.Take("L2::cache_hint");
  size_t count = d.operands() - (hint ? 1 : 0);
  if (count < 3 || count > 4) return d.Fail("cp.async takes 3 or 4 operands");
  uint64_t bytes = d.Immediate(d.operand(2));
  if (!(bytes == 16 || (cache == 0 && (bytes == 4 || bytes == 8))))
    return d.Fail(".ca copies 4, 8 or 16 bytes, .cg 16");
  detail.bytes = static_cast<uint8_t>(bytes);
  Ref to = AddressOperand(d, d.operand(0), &detail.target), from = AddressOperand(d, d.operand(1), &detail.source);
  Ref size = kNoRef, ignore = kNoRef;
  if (count == 4) {
    const Operand& last = d.operand(3);
    bool predicate = last.kind == Operand::Kind::kSymbol && last.symbol && last.symbol->type == Type::kPred;
    (predicate ? ignore : size) = predicate ? d.SourcePredicate(last) : d.Source(last, 4);
  }
  d.Emit(Copy, OpClass::kAsyncCopy, {to, from, size, ignore}).detail = d.Detail(detail);
}

}  // namespace

std::span<const Opcode> AsyncOpcodes() {
  static constexpr Opcode kTable[] = {{"cp", DecodeCp}};
  return kTable;
}

}  // namespace qwen::emu
