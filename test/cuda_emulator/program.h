// A module ready to run: every instruction decoded once into a handler and the places of its operands.
//
// A warp's registers lie as arrays of 32 lanes (a predicate: one word of 32 bits), so a handler is a loop over lanes
// that the compiler turns into vector code. An operand is a Ref: which of a warp's four bases, and the byte offset from
// it. Immediates are 32 equal lanes in the function's constants and special registers 32 lanes in the warp's specials,
// so handlers do not tell them from registers.
#ifndef QWEN_TEST_CUDA_EMULATOR_PROGRAM_H_
#define QWEN_TEST_CUDA_EMULATOR_PROGRAM_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "test/cuda_emulator/ptx.h"

namespace qwen::emu {

constexpr int kLanes = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

class Warp;
struct Instruction;
/// Runs one instruction for the lanes in `warp.mask`, of which there is at least one.
using Handler = void (*)(Warp& warp, const Instruction& instruction);

using Ref = uint32_t;
constexpr Ref kFrameBase = 0, kConstantBase = 1u << 30, kSpecialBase = 2u << 30, kOffsetBits = kConstantBase - 1;
constexpr Ref kNoRef = ~0u;

/// What the counters call an instruction.
enum class OpClass : uint8_t {
  kInteger,
  kFloat,
  kHalf,
  kDouble,
  kConvert,
  kSpecialFunction,
  kMove,
  kPredicate,
  kMma,
  kMatrixMove,
  kLoadGlobal,
  kStoreGlobal,
  kLoadShared,
  kStoreShared,
  kLoadOther,
  kStoreOther,
  kAtomic,
  kAsyncCopy,
  kWarp,
  kBarrier,
  kFence,
  kControl,
  kCount,
};
const char* OpClassName(OpClass op_class);

/// Of a memory instruction; what Instruction::detail points to there.
struct MemoryAccess {
  enum class Order : uint8_t { kWeak, kRelaxed, kAcquire, kRelease, kAcquireRelease };
  enum class Scope : uint8_t { kCta, kGpu, kSys };

  Space space = Space::kGeneric;
  Type type = Type::kB32;
  uint8_t element_bytes = 4;  // of one element in memory
  uint8_t vector = 1;
  Order order = Order::kWeak;  // volatile counts as relaxed at system scope
  Scope scope = Scope::kGpu;
  bool read_only = false;  // .nc: nothing may write there during the launch
  bool address_is_32_bits = false;
  uint8_t register_bytes[4] = {4, 4, 4, 4};  // of each element's register: loads widen, stores narrow
  int64_t offset = 0;                        // added to the address
  int atomic_op = 0;
};

struct Instruction {
  Handler run = nullptr;
  const Ref* refs = nullptr;     // destinations, then sources, as the handler wants them
  const void* detail = nullptr;  // a MemoryAccess or another struct of the handler's own
  uint64_t immediate = 0;
  Ref guard = kNoRef;  // a predicate
  bool guard_negated = false;
  OpClass op_class = OpClass::kInteger;
  int32_t target = -1;      // of a branch
  int32_t reconverge = -1;  // of a branch: where its two sides meet again
  int32_t line = 0;
};

struct Function {
  struct Parameter {
    std::string_view name;
    uint32_t offset = 0;  // kernel: in the parameter buffer; otherwise in the frame, `bytes` for each lane in turn
    uint32_t bytes = 0;
    bool is_register = false;
    Ref ref = kNoRef;
  };

  std::string name;
  bool is_entry = false;
  int max_threads = 0;
  std::vector<Instruction> code;       // ends with the return that every path reaches
  std::vector<std::string_view> text;  // of each instruction
  std::vector<uint8_t> constants;
  uint32_t frame_bytes = 0, local_bytes = 0, shared_bytes = 0, parameter_bytes = 0;
  bool has_dynamic_shared = false;
  int registers_32 = 0;  // an upper bound of what ptxas would take, for cuFuncGetAttribute
  std::vector<Parameter> parameters, returns;
  int index = 0;  // in Program::functions
};

struct Global {
  uint64_t address = 0, bytes = 0;
  bool is_const = false;
};

struct Program {
  ParsedModule parsed;
  std::vector<std::unique_ptr<Function>> functions;
  std::map<std::string, Global, std::less<>> globals;
  // What instructions point to.
  std::deque<std::vector<Ref>> refs;
  std::deque<std::shared_ptr<const void>> details;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_PROGRAM_H_
