// What a launch did, counted: the numbers that a test or a cost model can compare with a kernel's floor.
//
// Of every kernel: instructions by class, requested and distinct DRAM sectors, shared-memory wavefronts, MMAs, and
// which PTX instructions never ran. Definitions:
//   sector      32 bytes; `requested` counts the distinct sectors of each warp instruction, `unique` those of a launch,
//               but not what it reads after it wrote it
//   wavefront   a pass over the 32 banks of 4 bytes: an access of up to 4 bytes a lane takes as many as the bank with
//               the most distinct words has; 8 bytes: each half of the warp so, 16 bytes and an 8x8 matrix of ldmatrix:
//               each quarter. `conflicts` are the wavefronts beyond one for each part that has a lane
#ifndef QWEN_TEST_CUDA_EMULATOR_REPORT_H_
#define QWEN_TEST_CUDA_EMULATOR_REPORT_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "test/cuda_emulator/program.h"

namespace qwen::emu {

/// Of one worker during one launch, or of one kernel.
struct Counters {
  std::vector<std::vector<uint64_t>> executed;  // [function][instruction]: warps that ran it
  uint64_t warp_instructions = 0, lane_instructions = 0;
  uint64_t read_sectors_requested = 0, read_sectors_unique = 0;
  uint64_t write_sectors_requested = 0, write_sectors_unique = 0;
  uint64_t shared_wavefronts = 0, bank_conflicts = 0;
  uint64_t async_copy_bytes = 0;

  explicit Counters(const Program& program);
  Counters() = default;
  void Add(const Counters& other);
};

/// All kernels of the process. Any thread.
class Report {
 public:
  void AddLaunch(const Program& program, const Function& kernel, int device, const Counters& counters);
  void CountAllocation(uint64_t bytes);
  void CountHostAllocation();
  void CountGraphInstantiation();
  void CountGraphLaunch();
  void CountDirectLaunch();  // of a kernel by its own call, not as a node of a graph
  std::string Json() const;

 private:
  struct Kernel {
    uint64_t launches = 0;
    Counters counters;
    uint64_t by_class[static_cast<int>(OpClass::kCount)] = {};
    // By function name, then by PTX line: the text, and how often a warp ran it.
    std::map<std::string, std::map<int, std::pair<std::string, uint64_t>>> lines;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Kernel> kernels_;
  uint64_t launches_ = 0, graph_launches_ = 0, direct_launches_ = 0, allocations_ = 0, allocated_bytes_ = 0;
  uint64_t host_allocations_ = 0, graph_instantiations_ = 0;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_REPORT_H_
