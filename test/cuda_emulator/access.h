// Checked access to memory, a warp at a time: what ld, st, atom, cp.async and ldmatrix have in common.
//
// Each function checks every lane of `mask` (alignment, bounds, life, whether the bytes were ever written, races),
// counts sectors or wavefronts, and records the access in the shadows. False means that the launch has failed.
#ifndef QWEN_TEST_CUDA_EMULATOR_ACCESS_H_
#define QWEN_TEST_CUDA_EMULATOR_ACCESS_H_

#include "test/cuda_emulator/warp.h"

namespace qwen::emu {

struct AccessKind {
  bool read = true, write = false;
  bool strong = false;     // volatile, relaxed and above: no race with another strong access
  bool read_only = false;  // .nc
  unsigned alignment = 0;  // 0: the access's own size
};

/// `addresses` are global ones, of device or host memory.
bool AccessGlobal(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes, const AccessKind& kind);
/// Whether an address is host memory that kernels may see.
bool IsHostMemory(const Warp& w, uint64_t address, unsigned bytes);

/// `addresses` are offsets in the block's shared memory. Counts wavefronts unless `count` is false.
bool AccessShared(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes, const AccessKind& kind,
                  bool count = true);

/// Wavefronts of one access: lanes in `mask` touch `bytes` each (report.h).
void CountWavefronts(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes);

/// Local memory has no shadow; only alignment and bounds.
bool AccessLocal(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes);

/// Around a strong access of one lane to global memory, which is not a plain load or store: takes the lock that makes
/// it one step with its synchronisation, and afterwards publishes or observes.
class StrongAccess {
 public:
  StrongAccess(Warp& w, uint64_t address, const MemoryAccess& access);
  ~StrongAccess();
  void Read();
  void Wrote(bool changed);

 private:
  Warp& w_;
  uint64_t address_;
  const MemoryAccess& access_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_ACCESS_H_
