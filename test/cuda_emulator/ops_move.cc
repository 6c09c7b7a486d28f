// mov: registers, immediates, addresses, special registers, and the packing of vectors into one register.
#include <chrono>

#include "test/cuda_emulator/decode.h"

namespace qwen::emu {
namespace {

template <class T>
void Move(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) { return a[l]; });
}
Handler MoveOf(int bytes) {
  return bytes == 1 ? Move<uint8_t> : bytes == 2 ? Move<uint16_t> : bytes == 4 ? Move<uint32_t> : Move<uint64_t>;
}
void MovePredicate(Warp& w, const Instruction& i) { SetPredicate(w, i.refs[0], w.Predicate(i.refs[1])); }

/// refs: the whole, then its parts from the low end.
template <class Whole, class Part>
void Pack(Warp& w, const Instruction& i) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  const Part* parts[kParts];
  for (int n = 0; n < kParts; ++n) parts[n] = w.At<Part>(i.refs[n + 1]);
  ForLanes(w, w.At<Whole>(i.refs[0]), [=](int l) {
    Whole whole = 0;
    for (int n = 0; n < kParts; ++n) whole |= static_cast<Whole>(Whole{parts[n][l]} << (8 * sizeof(Part) * n));
    return whole;
  });
}
template <class Whole, class Part>
void Unpack(Warp& w, const Instruction& i) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole whole[kLanes];
  std::memcpy(whole, w.At<Whole>(i.refs[0]), sizeof whole);
  for (int n = 0; n < kParts; ++n)
    ForLanes(w, w.At<Part>(i.refs[n + 1]),
             [&](int l) { return static_cast<Part>(whole[l] >> (8 * sizeof(Part) * n)); });
}
struct PackRow {
  int whole, parts;
  Handler pack, unpack;
};
constexpr PackRow kPacks[] = {
    {2, 2, Pack<uint16_t, uint8_t>, Unpack<uint16_t, uint8_t>},
    {4, 2, Pack<uint32_t, uint16_t>, Unpack<uint32_t, uint16_t>},
    {4, 4, Pack<uint32_t, uint8_t>, Unpack<uint32_t, uint8_t>},
    {8, 2, Pack<uint64_t, uint32_t>, Unpack<uint64_t, uint32_t>},
    {8, 4, Pack<uint64_t, uint16_t>, Unpack<uint64_t, uint16_t>},
};

void Activemask(Warp& w, const Instruction& i) {
  uint32_t mask = w.mask;
  ForLanes(w, w.At<uint32_t>(i.refs[0]), [=](int) { return mask; });
}
/// A clock ticks once for each instruction the worker runs.
template <class T>
void Clock(Warp& w, const Instruction& i) {
  T now = static_cast<T>(w.block->counters->lane_instructions);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int) { return now; });
}
void GlobalTimer(Warp& w, const Instruction& i) {
  uint64_t now =
      static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
  ForLanes(w, w.At<uint64_t>(i.refs[0]), [=](int) { return now; });
}

void DecodeMov(Decoder& d) {
  Type type = d.TakeType();
  if (!d.Expect(2)) return;
  const Operand &to = d.operand(0), &from = d.operand(1);
  if (type == Type::kPred) {
    Ref source = d.SourcePredicate(from);
    d.Emit(MovePredicate, OpClass::kMove, {d.DestinationPredicate(to), source});
    return;
  }
  int bytes = BytesOf(type);
  if (to.kind == Operand::Kind::kVector || from.kind == Operand::Kind::kVector) {
    bool unpack = to.kind == Operand::Kind::kVector;
    const Operand &whole = unpack ? from : to, &parts = unpack ? to : from;
    int count = static_cast<int>(parts.elements.size());
    for (const PackRow& row : kPacks) {
      if (row.whole != bytes || row.parts != count) continue;
      std::vector<Ref> refs = {unpack ? d.Source(whole, bytes) : d.Destination(whole, bytes)};
      for (const Operand& part : parts.elements)
        refs.push_back(unpack ? d.Destination(part, bytes / count) : d.Source(part, bytes / count));
      d.Emit(unpack ? row.unpack : row.pack, OpClass::kMove, refs);
      return;
    }
    return d.Fail("no such packing");
  }
  if (from.kind == Operand::Kind::kSpecial) {
    struct Row {
      std::string_view name;
      int bytes;
      Handler handler;
    };
    static constexpr Row kRows[] = {
        {"%clock", 4, Clock<uint32_t>}, {"%clock64", 8, Clock<uint64_t>}, {"%globaltimer", 8, GlobalTimer}};
    for (const Row& row : kRows) {
      if (row.name != from.special || row.bytes != bytes) continue;
      d.Emit(row.handler, OpClass::kMove, {d.Destination(to, bytes)});
      return;
    }
  }
  d.Emit(MoveOf(bytes), OpClass::kMove, {d.Destination(to, bytes), d.Source(from, bytes, type)});
}

void DecodeActivemask(Decoder& d) {
  d.TakeType();
  if (!d.Expect(1)) return;
  d.Emit(Activemask, OpClass::kWarp, {d.Destination(d.operand(0), 4)});
}

}  // namespace

std::span<const Opcode> MoveOpcodes() {
  static constexpr Opcode kTable[] = {{"mov", DecodeMov}, {"activemask", DecodeActivemask}};
  return kTable;
}

}  // namespace qwen::emu
