// Branches, calls, the ends of threads.
#include <fmt/format.h>

#include <bit>

#include "test/cuda_emulator/decode.h"

namespace qwen::emu {
namespace {

void Branch(Warp& w, const Instruction& i) { w.Diverge(w.mask, i.target, i.reconverge); }
void BranchUniform(Warp& w, const Instruction& i) {
  if (w.mask != w.active())
    return w.Fail(FaultKind::kDivergentBarrier, std::countr_zero(w.mask), "bra.uni, but the warp's lanes disagree");
  w.Jump(i.target);
}
void DecodeBra(Decoder& d) {
  bool uniform = d.Take("uni");
  if (!d.Expect(1)) return;
  const Operand& target = d.operand(0);
  if (target.kind != Operand::Kind::kSymbol || target.symbol->kind != Symbol::Kind::kLabel)
    return d.Fail("the target is no label");
  Instruction& instruction = d.Emit(uniform ? BranchUniform : Branch, OpClass::kControl, {});
  instruction.immediate = kEndsPath;
  d.Branch(instruction, *target.symbol);
}

/// brx.idx: the targets lie in the hidden branches behind this instruction, which nothing ever falls into.
void BranchIndexed(Warp& w, const Instruction& i) {
  const uint32_t* index = w.At<uint32_t>(i.refs[0]);
  uint32_t count = i.refs[1];
  std::vector<std::pair<uint32_t, int>> groups;
  for (uint32_t n = 0; n < count; ++n) {
    uint32_t lanes = 0;
    for (int l = 0; l < kLanes; ++l)
      if ((w.mask >> l & 1) && index[l] == n) lanes |= 1u << l;
    if (lanes) groups.emplace_back(lanes, (&i)[n + 1].target);
  }
  for (int l = 0; l < kLanes; ++l)
    if ((w.mask >> l & 1) && index[l] >= count)
      return w.Fail(FaultKind::kOutOfBounds, l,
                    fmt::format("brx.idx has {} targets, the index is {}", count, index[l]));
  if (uint32_t rest = w.active() & ~w.mask) groups.emplace_back(rest, w.pc() + static_cast<int>(count));
  w.DivergeMany(groups, i.reconverge);
}
void DecodeBrx(Decoder& d) {
  if (!d.Take("idx")) return d.Fail("only brx.idx is there");
  d.Take("uni");
  if (!d.Expect(2)) return;
  const Operand& list = d.operand(1);
  if (list.kind != Operand::Kind::kSymbol || list.symbol->kind != Symbol::Kind::kBranchTargets)
    return d.Fail("the target list is no .branchtargets");
  uint32_t count = static_cast<uint32_t>(list.symbol->targets.size());
  d.Emit(BranchIndexed, OpClass::kControl, {d.Source(d.operand(0), 4), count}).immediate = kEndsPath;
  size_t at = d.function().code.size() - 1;
  for (const Symbol* target : list.symbol->targets) d.Branch(d.function().code[at], *target);
  for (const Symbol* target : list.symbol->targets) {
    Instruction& hidden = d.Emit(Branch, OpClass::kControl, {});
    hidden.immediate = kEndsPath;
    // Guarded like the instruction itself, so that the graph shows the way past it.
    d.function().text.back() = {};
    d.Branch(hidden, *target);
  }
}

void ReturnStatement(Warp& w, const Instruction& i) {
  w.Diverge(w.mask, static_cast<int>(w.function()->code.size()) - 1, i.reconverge);
}
void ExitStatement(Warp& w, const Instruction&) { w.Exit(); }
void Trap(Warp& w, const Instruction&) { w.Fail(FaultKind::kTrap, std::countr_zero(w.mask), "the kernel trapped"); }
template <void (*handler)(Warp&, const Instruction&)>
void DecodeEnd(Decoder& d) {
  d.Take("uni");
  if (!d.Expect(0)) return;
  d.Emit(handler, OpClass::kControl, {}).immediate = kEndsPath;
}

void CallHandler(Warp& w, const Instruction& i) { w.Call(*static_cast<const CallSite*>(i.detail)); }
/// A function without a body: what it would have done cannot be emulated.
void CallMissing(Warp& w, const Instruction& i) {
  const auto& name = *static_cast<const std::string*>(i.detail);
  bool assertion = name == "__assertfail";
  w.Fail(assertion ? FaultKind::kAssertion : FaultKind::kUnsupported, std::countr_zero(w.mask),
         assertion ? "the kernel's assert" : fmt::format("call of {}, which has no body in the module", name));
}
void DecodeCall(Decoder& d) {
  d.Take("uni");
  if (d.operands() == 0) return d.Fail("a call of nothing");
  bool has_results = d.operand(0).kind == Operand::Kind::kList;
  size_t at = has_results ? 1 : 0;
  const Operand& target = d.operand(at);
  if (target.kind != Operand::Kind::kSymbol || target.symbol->kind != Symbol::Kind::kFunction)
    return d.Fail("indirect calls are not emulated");
  const Function* callee = d.FunctionNamed(target.symbol->name);
  if (!callee) {
    d.Emit(CallMissing, OpClass::kControl, {}).detail = d.Detail(std::string(target.symbol->name));
    return;
  }
  CallSite site;
  site.callee = callee;
  auto places = [&](const std::vector<Operand>& actual, const std::vector<Function::Parameter>& formal, bool results) {
    std::vector<Ref> refs;
    if (actual.size() != formal.size()) {
      d.Fail(fmt::format("{} parameters, but the function has {}", actual.size(), formal.size()));
      return refs;
    }
    for (size_t n = 0; n < actual.size(); ++n) {
      Ref ref = 0;
      uint32_t bytes = 0;
      if (actual[n].kind == Operand::Kind::kSymbol && d.FrameParameter(*actual[n].symbol, &ref, &bytes)) {
        if (bytes != formal[n].bytes) d.Fail("a parameter's size differs from the function's");
        refs.push_back(ref);
      } else {
        int size = static_cast<int>(formal[n].bytes);
        refs.push_back(results ? d.Destination(actual[n], size) : d.Source(actual[n], size));
        if (!results && refs.back() >> 30 != kFrameBase >> 30) {
          d.Fail("a constant as a call's parameter is not emulated");
        }
      }
    }
    return refs;
  };
  static const std::vector<Operand> kNone;
  site.results = places(has_results ? d.operand(0).elements : kNone, callee->returns, true);
  bool has_arguments = d.operands() > at + 1 && d.operand(at + 1).kind == Operand::Kind::kList;
  site.arguments = places(has_arguments ? d.operand(at + 1).elements : kNone, callee->parameters, false);
  if (!d.ok()) return;
  d.Emit(CallHandler, OpClass::kControl, {}).detail = d.Detail(std::move(site));
}

}  // namespace

std::span<const Opcode> ControlOpcodes() {
  static constexpr Opcode kTable[] = {
      {"bra", DecodeBra},
      {"brx", DecodeBrx},
      {"call", DecodeCall},
      {"ret", DecodeEnd<ReturnStatement>},
      {"exit", DecodeEnd<ExitStatement>},
      {"trap", DecodeEnd<Trap>},
  };
  return kTable;
}

}  // namespace qwen::emu
