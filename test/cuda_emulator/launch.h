// Runs a launch: hands blocks to workers, keeps as many resident as the device would, and ends with a fault or without.
#ifndef QWEN_TEST_CUDA_EMULATOR_LAUNCH_H_
#define QWEN_TEST_CUDA_EMULATOR_LAUNCH_H_

#include "test/cuda_emulator/warp.h"

namespace qwen::emu {

// An RTX 4090 (kernels design, section 1).
constexpr uint32_t kMultiprocessors = 128, kThreadsPerMultiprocessor = 1536, kBlocksPerMultiprocessor = 24;
constexpr uint32_t kSharedPerMultiprocessor = 100 << 10, kSharedPerBlockOptin = 99 << 10, kSharedPerBlock = 48 << 10;
constexpr uint32_t kSharedReserved = 1 << 10, kRegistersPerMultiprocessor = 65536;

/// Blocks of this shape that one multiprocessor holds, registers aside.
int ResidentBlocks(uint64_t threads, uint64_t shared_bytes);

/// Runs to the end on this thread and `options->threads - 1` others. The counters go to `counters`.
Fault RunLaunch(Launch* launch, Counters* counters);

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_LAUNCH_H_
