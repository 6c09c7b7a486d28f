// A PTX module as text says it: names resolved to symbols, nothing yet known of what an opcode means.
//
// The parser knows the grammar only (directives, scopes, operands); decode.h knows instructions. Grammar after
// "Parallel Thread Execution ISA", chapters 4 to 6, as far as nvcc 13 and NVRTC write it for compute_89.
#ifndef QWEN_TEST_CUDA_EMULATOR_PTX_H_
#define QWEN_TEST_CUDA_EMULATOR_PTX_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::emu {

enum class Type : uint8_t {
  kNone,
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kF32,
  kF64,
  kTf32,
  kE4m3,
  kE5m2,
  kE4m3x2,
  kE5m2x2,
  kU4,
  kS4,
};

/// kNone when `name` (no dot) is not a type.
Type TypeNamed(std::string_view name);
std::string_view TypeName(Type type);
/// Storage; a predicate and a 4-bit integer count as 1 byte.
int BytesOf(Type type);
bool IsSigned(Type type);
bool IsFloat(Type type);

enum class Space : uint8_t { kNone, kRegister, kParam, kLocal, kShared, kGlobal, kConst, kGeneric };

struct Symbol {
  enum class Kind : uint8_t { kVariable, kLabel, kFunction, kBranchTargets };

  std::string_view name;
  Kind kind = Kind::kVariable;
  Space space = Space::kNone;
  Type type = Type::kNone;
  uint64_t bytes = 0;  // of a variable; 0 for `extern .shared x[]`
  uint64_t align = 1;
  bool is_extern = false;
  bool is_parameter = false;     // of the function itself, not of a call in it
  std::vector<uint8_t> initial;  // of a .global or .const, shorter than `bytes` when the rest is zero
  struct AddressInitial {        // `= {generic(x)}`, `= {x + 8}`
    uint64_t offset;
    const Symbol* target;
    int64_t addend;
  };
  std::vector<AddressInitial> initial_addresses;
  int label_statement = -1;  // of a label: the instruction that follows
  std::vector<const Symbol*> targets;
  int index = -1;  // of a label, register, parameter: its place in ParsedFunction's tables
};

struct Operand {
  enum class Kind : uint8_t { kNone, kSymbol, kSpecial, kInteger, kFloat32, kFloat64, kAddress, kVector, kList, kSink };

  Kind kind = Kind::kNone;
  bool negated = false;            // !%p
  const Symbol* symbol = nullptr;  // kSymbol; the base of a kAddress, or null
  std::string_view special;        // kSpecial: `%tid.x`
  uint64_t bits = 0;               // an integer, two's complement; a float's bits
  int64_t offset = 0;              // of a kAddress, or of `symbol+offset`
  std::vector<Operand> elements;   // {a, b} is a vector, (a, b) a list
  std::unique_ptr<Operand> pair;   // the second half of `%r1|%p1`
};

struct Statement {
  int line = 0;
  const Symbol* guard = nullptr;
  bool guard_negated = false;
  std::string_view text;                    // from the guard to the semicolon
  std::string_view opcode;                  // `ld`
  std::vector<std::string_view> modifiers;  // `global`, `v4`, `f32`
  std::vector<Operand> operands;
};

struct ParsedFunction {
  std::string_view name;
  bool is_entry = false;
  bool has_body = false;
  int line = 0;
  int max_threads = 0;  // of .maxntid or .reqntid, 0 when the text has neither
  std::vector<const Symbol*> parameters, returns;
  std::vector<const Symbol*> variables;  // every register, local, shared and call parameter, in order
  std::vector<Statement> statements;
};

struct ParsedModule {
  std::unique_ptr<const std::string> text;  // what every string_view points into
  std::deque<std::string> interned;         // names that the text only implies: %r7 of `%r<8>`
  int version_major = 0, version_minor = 0;
  std::deque<Symbol> symbols;
  std::vector<const Symbol*> globals;  // .global, .const and module-scope .shared
  std::deque<ParsedFunction> functions;
};

/// kDataLoss names the line and quotes it.
StatusOr<ParsedModule> ParsePtx(std::string_view text);

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_PTX_H_
