#include "test/cuda_emulator/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace qwen::emu {
namespace {

const Opcode* FindOpcode(std::string_view name) {
  static const auto* opcodes = [] {
    auto* all = new std::unordered_map<std::string_view, const Opcode*>;
    for (std::span<const Opcode> table :
         {IntegerOpcodes(), FloatOpcodes(), ConvertOpcodes(), MoveOpcodes(), MemoryOpcodes(), AtomicOpcodes(),
          AsyncOpcodes(), WarpOpcodes(), BarrierOpcodes(), MatrixOpcodes(), ControlOpcodes()})
      for (const Opcode& opcode : table) (*all)[opcode.name] = &opcode;
    return all;
  }();
  auto it = opcodes->find(name);
  return it == opcodes->end() ? nullptr : it->second;
}

struct SpecialRow {
  std::string_view name;
  Special special;
};
constexpr SpecialRow kSpecials[] = {
    {"%tid.x", Special::kTidX},
    {"%tid.y", Special::kTidY},
    {"%tid.z", Special::kTidZ},
    {"%ntid.x", Special::kNtidX},
    {"%ntid.y", Special::kNtidY},
    {"%ntid.z", Special::kNtidZ},
    {"%ctaid.x", Special::kCtaidX},
    {"%ctaid.y", Special::kCtaidY},
    {"%ctaid.z", Special::kCtaidZ},
    {"%nctaid.x", Special::kNctaidX},
    {"%nctaid.y", Special::kNctaidY},
    {"%nctaid.z", Special::kNctaidZ},
    {"%laneid", Special::kLaneId},
    {"%warpid", Special::kWarpId},
    {"%nwarpid", Special::kNwarpId},
    {"%smid", Special::kSmId},
    {"%nsmid", Special::kNsmId},
    {"%gridid", Special::kGridId},
    {"%lanemask_eq", Special::kLanemaskEq},
    {"%lanemask_le", Special::kLanemaskLe},
    {"%lanemask_lt", Special::kLanemaskLt},
    {"%lanemask_ge", Special::kLanemaskGe},
    {"%lanemask_gt", Special::kLanemaskGt},
    {"%dynamic_smem_size", Special::kDynamicSmemSize},
    {"%total_smem_size", Special::kTotalSmemSize},
};

constexpr uint32_t RoundUp(uint64_t n, uint64_t to) { return static_cast<uint32_t>((n + to - 1) / to * to); }

/// refs: where to put it; immediate: the offset in the frame's local memory.
void LocalAddress(Warp& w, const Instruction& i) {
  uint64_t address = w.local_base() + i.immediate;
  ForLanes(w, w.At<uint64_t>(i.refs[0]), [=](int) { return address; });
}
void NotPredicate(Warp& w, const Instruction& i) { SetPredicate(w, i.refs[0], ~w.Predicate(i.refs[1])); }
void ReturnHandler(Warp& w, const Instruction&) { w.Return(); }

}  // namespace

Decoder::Decoder(Program* program, const ParsedFunction& parsed, Function* function, const AddressOfGlobal& address_of)
    : program_(program), parsed_(parsed), function_(function), address_of_(address_of) {}

void Decoder::Fail(const std::string& why) {
  if (!ok()) return;
  int line = statement_ ? statement_->line : parsed_.line;
  std::string_view text = statement_ ? statement_->text : parsed_.name;
  status_ = DataLossError(fmt::format("ptx line {}: {}: `{}`", line, why, text));
}

const Operand& Decoder::operand(size_t i) {
  static const Operand kNothing;
  if (i < statement_->operands.size()) return statement_->operands[i];
  Fail(fmt::format("operand {} is missing", i + 1));
  return kNothing;
}

bool Decoder::Take(std::string_view modifier) {
  for (size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i] && statement_->modifiers[i] == modifier) return taken_[i] = true;
  return false;
}
int Decoder::TakeOneOf(std::initializer_list<std::string_view> modifiers) {
  int index = 0;
  for (std::string_view modifier : modifiers) {
    if (Take(modifier)) return index;
    ++index;
  }
  return -1;
}
Type Decoder::TakeType(bool required) {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (taken_[i]) continue;
    if (Type type = TypeNamed(statement_->modifiers[i]); type != Type::kNone) {
      taken_[i] = true;
      return type;
    }
  }
  if (required) Fail("a type is missing");
  return Type::kNone;
}
int Decoder::TakeVector() { return Take("v2") ? 2 : Take("v4") ? 4 : 1; }
bool Decoder::Expect(size_t count) {
  if (operands() != count) Fail(fmt::format("{} operands, but the opcode takes {}", operands(), count));
  return ok();
}

int Decoder::RegisterBytes(const Operand& operand) const {
  if (operand.kind != Operand::Kind::kSymbol || !operand.symbol || operand.symbol->space != Space::kRegister) return 0;
  return operand.symbol->type == Type::kPred ? 0 : BytesOf(operand.symbol->type);
}

Ref Decoder::Destination(const Operand& operand, int bytes) {
  if (operand.kind == Operand::Kind::kSink) return Temporary(bytes);
  if (int have = RegisterBytes(operand); have != bytes) {
    Fail(have ? fmt::format("destination {} has {} bytes, not {}", operand.symbol->name, have, bytes)
              : std::string("the destination is no register"));
    return 0;
  }
  return places_.at(operand.symbol);
}

Ref Decoder::DestinationPredicate(const Operand& operand) {
  if (operand.kind == Operand::Kind::kSink) return Temporary(1);
  if (operand.kind != Operand::Kind::kSymbol || !operand.symbol || operand.symbol->type != Type::kPred) {
    Fail("the destination is no predicate");
    return 0;
  }
  return places_.at(operand.symbol);
}

Ref Decoder::Source(const Operand& operand, int bytes, Type type) {
  switch (operand.kind) {
    case Operand::Kind::kSymbol:
      if (operand.symbol->kind == Symbol::Kind::kVariable && operand.symbol->space == Space::kRegister) {
        if (RegisterBytes(operand) != bytes || operand.offset != 0) break;
        return places_.at(operand.symbol);
      }
      if (operand.symbol->kind == Symbol::Kind::kVariable) return AddressOf(*operand.symbol, operand.offset, bytes);
      break;
    case Operand::Kind::kSpecial:
      if (bytes != 4) break;
      for (const SpecialRow& row : kSpecials)
        if (row.name == operand.special) return kSpecialBase | static_cast<Ref>(row.special) * kLanes * 4;
      Fail(fmt::format("unknown special register {}", operand.special));
      return 0;
    case Operand::Kind::kInteger:
      return Constant(operand.bits, bytes);
    case Operand::Kind::kFloat32: {
      if (bytes == 4) return Constant(operand.bits, 4);
      if (bytes != 8) break;
      uint32_t bits = static_cast<uint32_t>(operand.bits);
      return Constant(std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(bits))), 8);
    }
    case Operand::Kind::kFloat64:
      if (bytes == 8) return Constant(operand.bits, 8);
      if (bytes != 4 || type == Type::kB32) break;
      return Constant(std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(operand.bits))), 4);
    default:
      break;
  }
  Fail(fmt::format("a source is not what the opcode takes ({} bytes)", bytes));
  return 0;
}

Ref Decoder::SourcePredicate(const Operand& operand) {
  if (operand.kind == Operand::Kind::kInteger) return Constant(operand.bits ? ~uint64_t{0} : 0, 4);
  if (operand.kind != Operand::Kind::kSymbol || !operand.symbol || operand.symbol->type != Type::kPred) {
    Fail("a source is no predicate");
    return 0;
  }
  Ref ref = places_.at(operand.symbol);
  if (!operand.negated) return ref;
  Ref negated = Temporary(1);
  EmitHidden(NotPredicate, {negated, ref});
  return negated;
}

uint64_t Decoder::Immediate(const Operand& operand) {
  if (operand.kind != Operand::Kind::kInteger) Fail("an operand must be a constant");
  return operand.bits;
}

Ref Decoder::Constant(uint64_t bits, int bytes) {
  if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
  auto [it, fresh] = constants_.try_emplace({bits, bytes}, 0);
  if (fresh) {
    std::vector<uint8_t>& pool = function_->constants;
    it->second = kConstantBase | static_cast<Ref>(pool.size());
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < bytes; ++i) pool.push_back(static_cast<uint8_t>(bits >> (8 * i)));
  }
  return it->second;
}

Ref Decoder::Temporary(int bytes) {
  Ref ref = function_->frame_bytes;
  function_->frame_bytes += RoundUp(static_cast<uint64_t>(bytes) * kLanes, 32);
  return ref;
}

Ref Decoder::AddressOf(const Symbol& symbol, int64_t offset, int bytes) {
  uint64_t value = static_cast<uint64_t>(offset);
  switch (symbol.space) {
    case Space::kGlobal:
    case Space::kConst: {
      uint64_t address = address_of_(symbol.name);
      if (!address) Fail(fmt::format("{} has no definition in this module", symbol.name));
      value += address;
      break;
    }
    case Space::kShared:
      value += SharedOffset(symbol);
      break;
    case Space::kParam: {
      uint32_t at = 0;
      if (!KernelParameter(symbol, &at)) Fail("the address of a function's parameter is not emulated");
      value += at;
      break;
    }
    case Space::kLocal: {
      if (bytes != 8) Fail("a local address has 64 bits");
      Ref ref = Temporary(8);
      EmitHidden(LocalAddress, {ref}).immediate = value + offsets_.at(&symbol);
      return ref;
    }
    default:
      Fail(fmt::format("{} has no address", symbol.name));
  }
  return Constant(value, bytes);
}

bool Decoder::FrameParameter(const Symbol& symbol, Ref* ref, uint32_t* bytes) const {
  auto it = places_.find(&symbol);
  if (symbol.space != Space::kParam || it == places_.end()) return false;
  *ref = it->second;
  *bytes = static_cast<uint32_t>(symbol.bytes);
  return true;
}
bool Decoder::KernelParameter(const Symbol& symbol, uint32_t* offset) const {
  auto it = offsets_.find(&symbol);
  if (symbol.space != Space::kParam || it == offsets_.end()) return false;
  *offset = it->second;
  return true;
}
uint32_t Decoder::SharedOffset(const Symbol& symbol) const {
  auto it = offsets_.find(&symbol);
  return it == offsets_.end() ? 0 : it->second;
}
const Function* Decoder::FunctionNamed(std::string_view name) const {
  for (const auto& function : program_->functions)
    if (function->name == name) return function.get();
  return nullptr;
}

Instruction& Decoder::Emit(Handler run, OpClass op_class, std::vector<Ref> refs) {
  Instruction instruction;
  instruction.run = run;
  instruction.op_class = op_class;
  instruction.line = statement_ ? statement_->line : parsed_.line;
  instruction.refs = program_->refs.emplace_back(std::move(refs)).data();
  if (statement_ && statement_->guard) {
    instruction.guard = places_.at(statement_->guard);
    instruction.guard_negated = statement_->guard_negated;
  }
  function_->text.push_back(statement_ ? statement_->text : std::string_view());
  return function_->code.emplace_back(instruction);
}
Instruction& Decoder::Emit(Handler run, OpClass op_class, std::initializer_list<Ref> refs) {
  return Emit(run, op_class, std::vector<Ref>(refs));
}
Instruction& Decoder::EmitHidden(Handler run, std::initializer_list<Ref> refs) {
  Instruction& instruction = Emit(run, OpClass::kMove, refs);
  instruction.guard = kNoRef;
  function_->text.back() = {};
  return instruction;
}

void Decoder::Branch(Instruction& instruction, const Symbol& label) {
  branches_.emplace_back(static_cast<size_t>(&instruction - function_->code.data()), &label);
}

void Decoder::Place(const Symbol& symbol) {
  uint64_t offset = 0;
  auto take = [&](uint32_t* counter) {
    offset = RoundUp(*counter, symbol.align);
    uint64_t end = 0;
    if (__builtin_add_overflow(offset, symbol.bytes, &end) || end > (1u << 28)) return Fail("a variable too large");
    *counter = static_cast<uint32_t>(end);
    offsets_[&symbol] = static_cast<uint32_t>(offset);
  };
  switch (symbol.space) {
    case Space::kRegister:
      if (symbol.bytes > 8) return Fail(fmt::format("register type .{} is not emulated", TypeName(symbol.type)));
      places_[&symbol] = Temporary(symbol.type == Type::kPred ? 1 : static_cast<int>(symbol.bytes));
      if (symbol.bytes == 8) function_->registers_32 += 2;
      if (symbol.bytes < 8 && symbol.type != Type::kPred) function_->registers_32 += 1;
      break;
    case Space::kLocal:
      take(&function_->local_bytes);
      break;
    case Space::kShared:
      take(&function_->shared_bytes);
      break;
    case Space::kParam:
      if (function_->is_entry && symbol.is_parameter) {
        take(&function_->parameter_bytes);
      } else {
        places_[&symbol] = Temporary(static_cast<int>(std::max<uint64_t>(symbol.bytes, 1)));
      }
      break;
    default:
      Fail(fmt::format("a variable in a function cannot be in this space ({})", symbol.name));
  }
}

void Decoder::LayOut() {
  // Shared variables of the module and of every function this one may call lie in the same block.
  std::vector<const Symbol*> dynamic;
  for (const Symbol* symbol : program_->parsed.globals) {
    if (symbol->space != Space::kShared) continue;
    if (symbol->is_extern && symbol->bytes == 0) {
      dynamic.push_back(symbol);
    } else {
      Place(*symbol);
    }
  }
  for (const Symbol* symbol : parsed_.variables) Place(*symbol);
  for (const Symbol* symbol : dynamic) {
    function_->has_dynamic_shared = true;
    function_->shared_bytes = RoundUp(function_->shared_bytes, std::max<uint64_t>(symbol->align, 16));
    offsets_[symbol] = function_->shared_bytes;
  }
  auto describe = [&](const std::vector<const Symbol*>& symbols, std::vector<Function::Parameter>* out) {
    for (const Symbol* symbol : symbols) {
      Function::Parameter parameter;
      parameter.name = symbol->name;
      parameter.bytes = static_cast<uint32_t>(symbol->bytes);
      parameter.is_register = symbol->space == Space::kRegister;
      if (auto it = places_.find(symbol); it != places_.end()) parameter.ref = it->second;
      if (auto it = offsets_.find(symbol); it != offsets_.end()) parameter.offset = it->second;
      out->push_back(parameter);
    }
  };
  describe(parsed_.parameters, &function_->parameters);
  describe(parsed_.returns, &function_->returns);
}

Status Decoder::Run() {
  function_->max_threads = parsed_.max_threads;
  if (!function_->is_entry)
    for (const Symbol* symbol : parsed_.variables)
      if (symbol->space == Space::kShared) Fail("shared variables of a device function are not emulated");
  if (!ok()) return status_;
  first_instruction_.reserve(parsed_.statements.size() + 1);
  for (const Statement& statement : parsed_.statements) {
    statement_ = &statement;
    taken_.assign(statement.modifiers.size(), false);
    first_instruction_.push_back(static_cast<int>(function_->code.size()));
    const Opcode* opcode = FindOpcode(statement.opcode);
    if (!opcode) Fail(fmt::format("unknown opcode {}", statement.opcode));
    if (ok()) opcode->decode(*this);
    for (size_t i = 0; ok() && i < taken_.size(); ++i)
      if (!taken_[i]) Fail(fmt::format("unknown modifier .{} of {}", statement.modifiers[i], statement.opcode));
    if (!ok()) return status_;
  }
  statement_ = nullptr;
  first_instruction_.push_back(static_cast<int>(function_->code.size()));
  Emit(ReturnHandler, OpClass::kControl, {});
  for (const auto& [at, label] : branches_)
    function_->code[at].target = first_instruction_[static_cast<size_t>(label->label_statement)];
  FindReconvergence();
  return status_;
}

StatusOr<std::unique_ptr<Program>> DecodeProgram(ParsedModule parsed, const AddressOfGlobal& address_of) {
  auto program = std::make_unique<Program>();
  program->parsed = std::move(parsed);
  // Every function has its frame before any call is decoded.
  std::vector<std::pair<std::unique_ptr<Decoder>, Function*>> decoders;
  for (const ParsedFunction& source : program->parsed.functions) {
    if (!source.has_body) continue;
    auto& function = program->functions.emplace_back(std::make_unique<Function>());
    function->name = source.name;
    function->is_entry = source.is_entry;
    function->index = static_cast<int>(program->functions.size()) - 1;
    decoders.emplace_back(std::make_unique<Decoder>(program.get(), source, function.get(), address_of), function.get());
  }
  for (auto& [decoder, function] : decoders) decoder->LayOut();
  for (auto& [decoder, function] : decoders) QWEN_RETURN_IF_ERROR(decoder->Run());
  return program;
}

// ---- control flow graph

/// Sets the reconvergence point of every branch: its immediate post-dominator, by the algorithm of Cooper, Harvey and
/// Kennedy ("A Simple, Fast Dominance Algorithm") on the reversed graph of instructions.
void Decoder::FindReconvergence() {
  std::vector<Instruction>& code = function_->code;
  int count = static_cast<int>(code.size()), exit = count - 1;
  std::vector<std::vector<int>> successors(static_cast<size_t>(count)), predecessors(static_cast<size_t>(count));
  std::vector<bool> is_branch(static_cast<size_t>(count));
  for (const auto& [at, label] : branches_) {
    successors[at].push_back(first_instruction_[static_cast<size_t>(label->label_statement)]);
    is_branch[at] = true;
  }
  for (int i = 0; i < count - 1; ++i) {
    const Instruction& instruction = code[static_cast<size_t>(i)];
    bool ends = instruction.immediate == kEndsPath && instruction.op_class == OpClass::kControl;
    if (ends && instruction.guard == kNoRef) {
      if (!is_branch[static_cast<size_t>(i)]) successors[static_cast<size_t>(i)].push_back(exit);
    } else {
      if (ends && !is_branch[static_cast<size_t>(i)]) successors[static_cast<size_t>(i)].push_back(exit);
      successors[static_cast<size_t>(i)].push_back(i + 1);
    }
  }
  for (int i = 0; i < count; ++i)
    for (int next : successors[static_cast<size_t>(i)]) predecessors[static_cast<size_t>(next)].push_back(i);
  // Post-order of the reversed graph from the exit.
  std::vector<int> number(static_cast<size_t>(count), -1), order;
  std::vector<std::pair<int, size_t>> stack = {{exit, 0}};
  std::vector<bool> seen(static_cast<size_t>(count));
  seen[static_cast<size_t>(exit)] = true;
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    const std::vector<int>& reached = predecessors[static_cast<size_t>(node)];
    if (next < reached.size()) {
      int to = reached[next++];
      if (!seen[static_cast<size_t>(to)]) {
        seen[static_cast<size_t>(to)] = true;
        stack.emplace_back(to, 0);
      }
    } else {
      number[static_cast<size_t>(node)] = static_cast<int>(order.size());
      order.push_back(node);
      stack.pop_back();
    }
  }
  std::vector<int> dominator(static_cast<size_t>(count), -1);
  dominator[static_cast<size_t>(exit)] = exit;
  for (bool changed = true; changed;) {
    changed = false;
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      if (*it == exit) continue;
      int best = -1;
      for (int next : successors[static_cast<size_t>(*it)]) {
        if (dominator[static_cast<size_t>(next)] < 0) continue;
        if (best < 0) {
          best = next;
          continue;
        }
        int a = best, b = next;
        while (a != b) {
          while (number[static_cast<size_t>(a)] < number[static_cast<size_t>(b)]) a = dominator[static_cast<size_t>(a)];
          while (number[static_cast<size_t>(b)] < number[static_cast<size_t>(a)]) b = dominator[static_cast<size_t>(b)];
        }
        best = a;
      }
      if (best >= 0 && dominator[static_cast<size_t>(*it)] != best) {
        dominator[static_cast<size_t>(*it)] = best;
        changed = true;
      }
    }
  }
  for (int i = 0; i < count; ++i) {
    Instruction& instruction = code[static_cast<size_t>(i)];
    if (instruction.op_class != OpClass::kControl) continue;
    int at = dominator[static_cast<size_t>(i)];
    instruction.reconverge = at < 0 ? exit : at;  // a loop without an end meets nowhere before it
  }
}

}  // namespace qwen::emu
