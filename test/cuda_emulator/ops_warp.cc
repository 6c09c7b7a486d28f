// What lanes of a warp tell one another: shfl, vote, match, redux, bar.warp.sync.
//
// Such an instruction needs every lane of its member mask. A lane that is on another path at this moment cannot come
// (paths of a warp do not interleave here), so its absence is a fault; on real hardware it may be a deadlock or
// garbage.
#include <fmt/format.h>

#include <bit>

#include "test/cuda_emulator/decode.h"

namespace qwen::emu {
namespace {

/// Lanes of `members` that have not exited must be here, and those here must be members.
bool CheckMembers(Warp& w, uint32_t members) {
  uint32_t missing = members & w.live & ~w.mask, strangers = w.mask & ~members;
  if (missing)
    w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(w.mask),
           fmt::format("member mask {:#x}, but lane {} is not here", members, std::countr_zero(missing)));
  else if (strangers)
    w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(strangers),
           fmt::format("lane {} is not in its own member mask {:#x}", std::countr_zero(strangers), members));
  return !missing && !strangers;
}
/// Of the lanes that run; they must agree.
bool Members(Warp& w, Ref ref, uint32_t* members) {
  const uint32_t* masks = w.At<uint32_t>(ref);
  *members = masks[std::countr_zero(w.mask)];
  for (int l = 0; l < kLanes; ++l)
    if ((w.mask >> l & 1) && masks[l] != *members && !(masks[l] & ~w.mask)) {
      // Groups of lanes with masks of their own run side by side.
      *members |= masks[l];
    }
  return CheckMembers(w, *members);
}

enum class Shuffle : uint64_t { kUp, kDown, kBfly, kIdx };
/// refs: d, p (or kNoRef), a, b, c, members. After the pseudo code of the PTX ISA.
void Shfl(Warp& w, const Instruction& i) {
  uint32_t members;
  if (!Members(w, i.refs[5], &members)) return;
  const uint32_t *a = w.At<uint32_t>(i.refs[2]), *b = w.At<uint32_t>(i.refs[3]), *c = w.At<uint32_t>(i.refs[4]);
  uint32_t result[kLanes], inside = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(w.mask >> lane & 1)) continue;
    int offset = static_cast<int>(b[lane] & 31), clamp = static_cast<int>(c[lane] & 31);
    int segment = static_cast<int>(c[lane] >> 8 & 31);
    int last = (lane & segment) | (clamp & ~segment), first = lane & segment, from = lane;
    bool p = false;
    switch (static_cast<Shuffle>(i.immediate)) {
      case Shuffle::kUp:
        from = lane - offset, p = from >= last;
        break;
      case Shuffle::kDown:
        from = lane + offset, p = from <= last;
        break;
      case Shuffle::kBfly:
        from = lane ^ offset, p = from <= last;
        break;
      case Shuffle::kIdx:
        from = first | (offset & ~segment), p = from <= last;
        break;
    }
    if (!p) from = lane;
    if (!(w.mask >> from & 1))
      return w.Fail(FaultKind::kUnwritten, lane, fmt::format("shfl reads lane {}, which does not take part", from));
    result[lane] = a[from];
    inside |= uint32_t{p} << lane;
  }
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [&](int l) { return result[l]; });
  SetPredicate(w, i.refs[1], inside);
}
void DecodeShfl(Decoder& d) {
  if (!d.Take("sync")) return d.Fail("only shfl.sync is there");
  int mode = d.TakeOneOf({"up", "down", "bfly", "idx"});
  d.TakeType();
  if (mode < 0) return d.Fail("the mode is missing");
  if (!d.Expect(5)) return;
  const Operand& out = d.operand(0);
  d.Emit(Shfl, OpClass::kWarp,
         {d.Destination(out, 4), out.pair ? d.DestinationPredicate(*out.pair) : kNoRef, d.Source(d.operand(1), 4),
          d.Source(d.operand(2), 4), d.Source(d.operand(3), 4), d.Source(d.operand(4), 4)})
      .immediate = static_cast<uint64_t>(mode);
}

enum class Vote : uint64_t { kAll, kAny, kUni, kBallot };
void VoteHandler(Warp& w, const Instruction& i) {
  uint32_t members;
  if (!Members(w, i.refs[2], &members)) return;
  uint32_t here = w.mask, p = w.Predicate(i.refs[1]) & here;
  switch (static_cast<Vote>(i.immediate)) {
    case Vote::kAll:
      return SetPredicate(w, i.refs[0], p == here ? kFullMask : 0);
    case Vote::kAny:
      return SetPredicate(w, i.refs[0], p ? kFullMask : 0);
    case Vote::kUni:
      return SetPredicate(w, i.refs[0], p == here || !p ? kFullMask : 0);
    case Vote::kBallot:
      ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int) { return p; });
  }
}
void DecodeVote(Decoder& d) {
  if (!d.Take("sync")) return d.Fail("only vote.sync is there");
  int mode = d.TakeOneOf({"all", "any", "uni", "ballot"});
  d.TakeType();
  if (mode < 0) return d.Fail("the mode is missing");
  if (!d.Expect(3)) return;
  Ref p = d.SourcePredicate(d.operand(1));
  Ref out = mode == 3 ? d.Destination(d.operand(0), 4) : d.DestinationPredicate(d.operand(0));
  d.Emit(VoteHandler, OpClass::kWarp, {out, p, d.Source(d.operand(2), 4)}).immediate = static_cast<uint64_t>(mode);
}

/// refs: d, p (or kNoRef), a, members.
template <class T, bool all>
void Match(Warp& w, const Instruction& i) {
  uint32_t members;
  if (!Members(w, i.refs[3], &members)) return;
  const T* a = w.At<T>(i.refs[2]);
  uint32_t result[kLanes] = {}, here = w.mask, p = 0;
  for (int l = 0; l < kLanes; ++l) {
    if (!(here >> l & 1)) continue;
    for (int m = 0; m < kLanes; ++m)
      if ((here >> m & 1) && a[m] == a[l]) result[l] |= 1u << m;
    if (all) {
      p |= uint32_t{result[l] == here} << l;
      if (result[l] != here) result[l] = 0;
    }
  }
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [&](int l) { return result[l]; });
  SetPredicate(w, i.refs[1], p);
}
void DecodeMatch(Decoder& d) {
  int mode = d.TakeOneOf({"any", "all"});
  if (!d.Take("sync") || mode < 0) return d.Fail("no such form of match");
  int bytes = BytesOf(d.TakeType());
  if (!d.Expect(3)) return;
  const Operand& out = d.operand(0);
  Handler handler = bytes == 8 ? (mode ? Match<uint64_t, true> : Match<uint64_t, false>)
                               : (mode ? Match<uint32_t, true> : Match<uint32_t, false>);
  d.Emit(handler, OpClass::kWarp,
         {d.Destination(out, 4), out.pair ? d.DestinationPredicate(*out.pair) : kNoRef, d.Source(d.operand(1), bytes),
          d.Source(d.operand(2), 4)});
}

enum class Reduction : uint64_t { kAdd, kMin, kMax, kAnd, kOr, kXor };
template <class T>
void Redux(Warp& w, const Instruction& i) {
  uint32_t members;
  if (!Members(w, i.refs[2], &members)) return;
  const T* a = w.At<T>(i.refs[1]);
  T sum = a[std::countr_zero(w.mask)];
  for (int l = std::countr_zero(w.mask) + 1; l < kLanes; ++l) {
    if (!(w.mask >> l & 1)) continue;
    switch (static_cast<Reduction>(i.immediate)) {
      case Reduction::kAdd:
        sum = static_cast<T>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(a[l]));
        break;
      case Reduction::kMin:
        sum = std::min(sum, a[l]);
        break;
      case Reduction::kMax:
        sum = std::max(sum, a[l]);
        break;
      case Reduction::kAnd:
        sum &= a[l];
        break;
      case Reduction::kOr:
        sum |= a[l];
        break;
      case Reduction::kXor:
        sum ^= a[l];
        break;
    }
  }
  ForLanes(w, w.At<T>(i.refs[0]), [=](int) { return sum; });
}
void DecodeRedux(Decoder& d) {
  d.Take("sync");
  int mode = d.TakeOneOf({"add", "min", "max", "and", "or", "xor"});
  Type type = d.TakeType();
  if (mode < 0 || BytesOf(type) != 4 || IsFloat(type)) return d.Fail("no such form of redux on sm_89");
  if (!d.Expect(3)) return;
  d.Emit(type == Type::kS32 ? Redux<int32_t> : Redux<uint32_t>, OpClass::kWarp,
         {d.Destination(d.operand(0), 4), d.Source(d.operand(1), 4), d.Source(d.operand(2), 4)})
      .immediate = static_cast<uint64_t>(mode);
}

}  // namespace

/// bar.warp.sync; decoded with the other barriers. refs: members.
void WarpBarrier(Warp& w, const Instruction& i) {
  const uint32_t* masks = w.At<uint32_t>(i.refs[0]);
  uint32_t members;
  if (!Members(w, i.refs[0], &members)) return;
  if (masks[std::countr_zero(w.mask)] == members) return w.clock.SyncLanes(w.mask, w.live);
  for (uint32_t left = w.mask; left;) {
    uint32_t group = masks[std::countr_zero(left)] & w.mask;
    w.clock.SyncLanes(group, w.live);
    left &= ~group;
  }
}

std::span<const Opcode> WarpOpcodes() {
  static constexpr Opcode kTable[] = {
      {"shfl", DecodeShfl}, {"vote", DecodeVote}, {"match", DecodeMatch}, {"redux", DecodeRedux}};
  return kTable;
}

}  // namespace qwen::emu
