// The state of a launch while it runs: Launch, its blocks, their warps.
//
// A warp is a resumable machine: registers, a program counter, a stack of divergent paths, a stack of calls. Nothing of
// it lives on the host's stack between instructions, so a block can be put aside at any of them and taken up by another
// thread; blocks that wait for one another through memory therefore never block a worker.
#ifndef QWEN_TEST_CUDA_EMULATOR_WARP_H_
#define QWEN_TEST_CUDA_EMULATOR_WARP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "test/cuda_emulator/fault.h"
#include "test/cuda_emulator/memory.h"
#include "test/cuda_emulator/options.h"
#include "test/cuda_emulator/program.h"
#include "test/cuda_emulator/races.h"
#include "test/cuda_emulator/report.h"

namespace qwen::emu {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

/// What all blocks of one launch share. Read-only while they run, but for the atomics.
struct Launch {
  const Program* program = nullptr;
  const Function* kernel = nullptr;
  const Options* options = nullptr;
  DeviceMemory* memory = nullptr;
  const HostRanges* host = nullptr;
  Dim3 grid, block;
  uint32_t shared_bytes = 0;  // static and dynamic
  std::vector<uint8_t> parameters;
  uint32_t id = 0;  // of this launch among all of the device; tags counted sectors
  int device = 0;
  std::unique_ptr<GlobalShadow> shadow;  // null without race checks

  std::atomic<bool> stopped = false;
  std::atomic<uint64_t> progress = 0;  // advances whenever something other than waiting happens
  std::atomic<bool> polls_host = false;
};

enum class WarpState : uint8_t { kReady, kAtBarrier, kExited };

struct Block;

class Warp {
 public:
  // ---- what handlers use

  uint32_t mask = 0;  // the lanes that run the present instruction
  Block* block = nullptr;
  int index = 0;      // in its block
  uint32_t live = 0;  // lanes that exist and have not exited
  WarpClock clock;

  template <class T>
  T* At(Ref ref) const {
    return reinterpret_cast<T*>(bases_[ref >> 30] + (ref & kOffsetBits));
  }
  uint32_t& Predicate(Ref ref) const { return *At<uint32_t>(ref); }
  bool full() const { return mask == kFullMask; }

  /// Stops the launch with a sentence that starts with the kind and ends with the place.
  void Fail(FaultKind kind, int lane, const std::string& what);
  bool failed() const { return failed_; }

  // Control flow (control.cc).
  void Jump(int target) { pc_ = target; }
  /// `taken` of the active lanes go to `target`; the others fall through; all meet at `reconverge`.
  void Diverge(uint32_t taken, int target, int reconverge);
  /// Sends groups of the active lanes to several targets (brx.idx).
  void DivergeMany(const std::vector<std::pair<uint32_t, int>>& groups, int reconverge);
  void Call(const struct CallSite& site);
  void Return();
  void Exit();
  /// Waits at a block barrier; the block's Release makes it ready again.
  void Wait() { state = WarpState::kAtBarrier, stop_ = true; }
  /// Gives the other warps and blocks a turn after this instruction.
  void Yield() { stop_ = true; }

  uint32_t active() const { return active_; }
  const Function* function() const { return function_; }
  int pc() const { return pc_; }

  // Local memory: the 32 lanes' words lie side by side.
  uint8_t* Local(uint64_t offset, int lane) {
    return local_.data() + offset / 4 * 4 * kLanes + static_cast<size_t>(lane) * 4 + offset % 4;
  }
  uint64_t local_base() const { return local_base_; }  // of the present frame
  uint64_t local_end() const { return local_.size() / kLanes; }

  // cp.async
  struct AsyncCopy {
    uint64_t source;
    uint32_t target;
    uint32_t group;
    uint8_t bytes, source_bytes, lane;
    bool done = false;  // the data is there already (earliest); only its completion is outstanding
  };
  std::vector<AsyncCopy> async_copies;
  std::array<uint32_t, kLanes> async_groups{};  // committed so far

  WarpState state = WarpState::kReady;
  int barrier = -1;             // that it waits at
  Ref barrier_result = kNoRef;  // of bar.red
  int barrier_reduction = 0;    // 0 popc, 1 and, 2 or
  uint32_t barrier_mask = 0;    // lanes that get the result
  uint64_t polls = 0;           // strong reads and failed waits since the block's turn began
  bool waits_for_host = false;

  // ---- what the scheduler uses

  void Start(Block* block, int index, uint32_t lanes);
  /// Runs until it waits, exits, fails or has used up `budget` instructions. Returns how many it ran.
  int Run(int budget);
  std::string Where(int lane) const;

 private:
  struct Path {
    uint32_t mask;
    int pc, reconverge;
    int depth;  // of the call stack
  };
  struct Frame {
    const Function* function;
    size_t base;  // in registers_
    uint64_t local_base;
    const struct CallSite* site;
  };

  void Enter(const Function* function);
  void PopPath();
  void SetBases();

  uint8_t* bases_[4] = {};
  const Function* function_ = nullptr;
  uint32_t active_ = 0;
  int pc_ = 0, reconverge_ = -1, current_ = 0;
  bool stop_ = false, failed_ = false;
  std::vector<Path> paths_;
  std::vector<Frame> frames_;
  std::vector<uint8_t> registers_, local_;
  std::vector<uint32_t> specials_;
  uint64_t local_base_ = 0;
};

/// A call's actual parameters, in the caller's frame.
struct CallSite {
  const Function* callee = nullptr;
  std::vector<Ref> arguments, results;
};

struct NamedBarrier {
  uint32_t arrived = 0, expected = 0;  // threads; expected 0: all of the block
  bool in_use = false;
  WarpClock::Meeting meeting;
  // bar.red
  uint32_t count = 0;
  bool all = true, any = false;
};

struct Block {
  Launch* launch = nullptr;
  Counters* counters = nullptr;  // of the worker that runs the block now
  uint32_t id = 0;               // linear, by %ctaid
  Dim3 position;
  std::vector<Warp> warps;
  std::vector<uint8_t> shared;
  std::vector<SharedWord> shared_words;
  std::array<NamedBarrier, 16> barriers;
  std::map<uint32_t, WarpClock::Meeting> mbarriers;  // by address
  int exited = 0;
  Fault fault;

  void Start(Launch* launch, uint32_t id);
  enum class Turn { kDone, kFailed, kWaits, kRuns };
  /// Gives every warp turns until `budget` warp instructions are used up, the block ends, or all its warps only poll.
  Turn Run(int64_t budget);
  /// Lets a barrier's warps go when the last has arrived.
  void TryRelease(int barrier);
  uint32_t LiveThreads() const;
};

// Special registers, as places in a warp's specials (32 lanes of 4 bytes each).
enum class Special : int {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kSmId,
  kNsmId,
  kGridId,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kDynamicSmemSize,
  kTotalSmemSize,
  kCount,
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_WARP_H_
