// From a parsed function to instructions. The Decoder resolves names to places and hands each statement to the function
// that its opcode's table names; that function takes the modifiers it knows, picks a handler, and emits. A modifier
// that nobody took, an operand of the wrong width, an opcode in no table: each refuses the module, naming the line.
//
// To add an opcode: write its handler and its decode function in the ops_*.cc of its group, and add a row to the table
// at the end of that file.
#ifndef QWEN_TEST_CUDA_EMULATOR_DECODE_H_
#define QWEN_TEST_CUDA_EMULATOR_DECODE_H_

#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <unordered_map>

#include "test/cuda_emulator/program.h"
#include "test/cuda_emulator/warp.h"

namespace qwen::emu {

class Decoder;

struct Opcode {
  std::string_view name;
  void (*decode)(Decoder& d);
};
// One table for each ops_*.cc.
std::span<const Opcode> IntegerOpcodes();
std::span<const Opcode> FloatOpcodes();
std::span<const Opcode> ConvertOpcodes();
std::span<const Opcode> MoveOpcodes();
std::span<const Opcode> MemoryOpcodes();
std::span<const Opcode> AtomicOpcodes();
std::span<const Opcode> AsyncOpcodes();
std::span<const Opcode> WarpOpcodes();
std::span<const Opcode> BarrierOpcodes();
std::span<const Opcode> MatrixOpcodes();
std::span<const Opcode> ControlOpcodes();

/// Resolves a global's name to its device address.
using AddressOfGlobal = std::function<uint64_t(std::string_view name)>;

/// Decodes every function of `parsed`. The globals' addresses are known already.
StatusOr<std::unique_ptr<Program>> DecodeProgram(ParsedModule parsed, const AddressOfGlobal& address_of);

/// Instruction::immediate of a control instruction behind which its lanes do not go on.
constexpr uint64_t kEndsPath = 1;

class Decoder {
 public:
  Decoder(Program* program, const ParsedFunction& parsed, Function* function, const AddressOfGlobal& address_of);
  Status Run();

  // ---- the present statement

  const Statement& statement() const { return *statement_; }
  size_t operands() const { return statement_->operands.size(); }
  const Operand& operand(size_t i);
  bool ok() const { return status_.ok(); }
  void Fail(const std::string& why);

  /// Takes a modifier that may be anywhere among those left.
  bool Take(std::string_view modifier);
  /// Takes the first of `modifiers` that is there; its index, or -1.
  int TakeOneOf(std::initializer_list<std::string_view> modifiers);
  /// Takes the first modifier that is a type. kNone, and a failure, when `required` and there is none.
  Type TakeType(bool required = true);
  /// Takes `v2` or `v4`; 1 without.
  int TakeVector();
  bool Expect(size_t count);

  // ---- operands as places

  /// A register to write, of `bytes`; kNoRef for `_`.
  Ref Destination(const Operand& operand, int bytes);
  Ref DestinationPredicate(const Operand& operand);
  /// A register, immediate, special register or a variable's address, as lanes of `bytes`.
  Ref Source(const Operand& operand, int bytes, Type type = Type::kNone);
  /// A predicate register; `!p` and the constants 0 and 1 become one too.
  Ref SourcePredicate(const Operand& operand);
  /// An integer that must be known now.
  uint64_t Immediate(const Operand& operand);
  bool IsImmediate(const Operand& operand) const { return operand.kind == Operand::Kind::kInteger; }
  /// Bytes of the register that `operand` names; 0 when it names none.
  int RegisterBytes(const Operand& operand) const;
  Ref Constant(uint64_t bits, int bytes);
  Ref Temporary(int bytes);
  /// The offset or address of a variable in its space; for a generic access, in the generic space.
  Ref AddressOf(const Symbol& symbol, int64_t offset, int bytes);

  /// Of a .param variable that lies in the frame (not a kernel's).
  bool FrameParameter(const Symbol& symbol, Ref* ref, uint32_t* bytes) const;
  /// A kernel parameter's offset in the buffer.
  bool KernelParameter(const Symbol& symbol, uint32_t* offset) const;
  uint32_t SharedOffset(const Symbol& symbol) const;
  const Function* FunctionNamed(std::string_view name) const;

  // ---- the result

  Instruction& Emit(Handler run, OpClass op_class, std::initializer_list<Ref> refs);
  Instruction& Emit(Handler run, OpClass op_class, std::vector<Ref> refs);
  /// An instruction that runs in front of the statement's, unguarded, and is no instruction of the text.
  Instruction& EmitHidden(Handler run, std::initializer_list<Ref> refs);
  template <class T>
  const T* Detail(T detail) {
    auto shared = std::make_shared<const T>(std::move(detail));
    program_->details.push_back(shared);
    return shared.get();
  }
  /// The instruction a label stands at; patched in when the function is complete.
  void Branch(Instruction& instruction, const Symbol& label);
  int LabelIndex(const Symbol& label) const { return label.index; }

  Program& program() { return *program_; }
  Function& function() { return *function_; }

  /// Gives every variable its place. Before Run, for all functions: a call needs its callee's.
  void LayOut();

 private:
  void Place(const Symbol& symbol);
  void FindReconvergence();

  Program* program_;
  const ParsedFunction& parsed_;
  Function* function_;
  const AddressOfGlobal& address_of_;
  Status status_;
  const Statement* statement_ = nullptr;
  std::vector<bool> taken_;
  std::unordered_map<const Symbol*, Ref> places_;
  std::unordered_map<const Symbol*, uint32_t> offsets_;  // shared, local, kernel parameters
  std::map<std::pair<uint64_t, int>, Ref> constants_;
  std::vector<int> first_instruction_;  // of each statement
  std::vector<std::pair<size_t, const Symbol*>> branches_;
};

// ---- for handlers

// Lanes write only their own elements, so a destination that is also a source is no dependence between iterations.
#if defined(__clang__)
#define QWEN_EMU_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define QWEN_EMU_LANES _Pragma("GCC ivdep")
#endif

/// out[lane] = f(lane) for the lanes that run. `f` must be harmless for the others.
template <class T, class F>
inline void ForLanes(const Warp& warp, T* out, F f) {
  if (warp.full()) {
    QWEN_EMU_LANES
    for (int lane = 0; lane < kLanes; ++lane) out[lane] = f(lane);
  } else {
    for (int lane = 0; lane < kLanes; ++lane)
      if (warp.mask >> lane & 1) out[lane] = f(lane);
  }
}

/// A predicate from a condition of each lane.
template <class F>
inline uint32_t MaskOf(F f) {
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= uint32_t{static_cast<bool>(f(lane))} << lane;
  return bits;
}
inline void SetPredicate(const Warp& warp, Ref ref, uint32_t value) {
  if (ref == kNoRef) return;
  uint32_t& p = warp.Predicate(ref);
  p = (p & ~warp.mask) | (value & warp.mask);
}

/// d = F(a, b, c) in lanes of T, for a function object F without state.
template <class T, class F>
void Unary(Warp& w, const Instruction& i) {
  const T* a = w.At<T>(i.refs[1]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) { return F{}(a[l]); });
}
template <class T, class F>
void Binary(Warp& w, const Instruction& i) {
  const T *a = w.At<T>(i.refs[1]), *b = w.At<T>(i.refs[2]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) { return F{}(a[l], b[l]); });
}
template <class T, class F>
void Ternary(Warp& w, const Instruction& i) {
  const T *a = w.At<T>(i.refs[1]), *b = w.At<T>(i.refs[2]), *c = w.At<T>(i.refs[3]);
  ForLanes(w, w.At<T>(i.refs[0]), [=](int l) { return F{}(a[l], b[l], c[l]); });
}

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_DECODE_H_
