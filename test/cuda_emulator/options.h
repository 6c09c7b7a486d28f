// What the environment asks of the emulator. Every variable starts with QWEN_CUDA_EMULATOR_; README.md lists them.
#ifndef QWEN_TEST_CUDA_EMULATOR_OPTIONS_H_
#define QWEN_TEST_CUDA_EMULATOR_OPTIONS_H_

#include <cstdint>
#include <string>

#include "runtime/base/status.h"

namespace qwen::emu {

enum class BlockOrder { kForward, kReversed, kShuffled };
enum class RaceCheck { kOff, kShared, kAll };

struct Options {
  int version = 13000;                            // VERSION: of the driver's API
  int init = 0;                                   // INIT: what cuInit answers instead of success
  int devices = 1;                                // DEVICES
  uint64_t memory_bytes = 24ull << 30;            // MEMORY, in bytes: of one device
  int capability = 89;                            // CAPABILITY: compute capability, 10 * major + minor
  int threads = 1;                                // THREADS: of one launch
  BlockOrder block_order = BlockOrder::kForward;  // ORDER=forward, reversed, shuffled
  uint64_t seed = 1;                              // SEED: of the shuffle
  bool async_copies_late = true;                  // CP_ASYNC=earliest, latest
  RaceCheck races = RaceCheck::kAll;              // RACES=off, shared, all
  bool check_unwritten = true;                    // UNWRITTEN=0, 1: reads of memory that nobody wrote
  int warp_quantum = 512;                         // QUANTUM: instructions before the next warp of a block has its turn
  int64_t spin_limit = int64_t{1} << 24;          // SPIN_LIMIT: warp instructions without progress before `deadlock`
  int64_t host_wait_ms = 60000;                   // HOST_WAIT_MS: the same for a launch that waits for host memory
  std::string report;                             // REPORT: the JSON report goes to this file when the process ends

  /// kInvalidArgument names the variable and its value.
  static StatusOr<Options> FromEnvironment();
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_OPTIONS_H_
