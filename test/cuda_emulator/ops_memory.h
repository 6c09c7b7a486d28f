// What the opcodes that touch memory share: reading an address operand, taking order and scope, finding the space.
#ifndef QWEN_TEST_CUDA_EMULATOR_OPS_MEMORY_H_
#define QWEN_TEST_CUDA_EMULATOR_OPS_MEMORY_H_

#include "test/cuda_emulator/access.h"
#include "test/cuda_emulator/decode.h"

namespace qwen::emu {

/// Takes .volatile, .weak, .relaxed …, and .cta, .gpu, .sys.
void TakeOrder(Decoder& d, MemoryAccess* access);
/// Takes .global, .shared, .local, .const, .param; kGeneric without.
Space TakeSpace(Decoder& d);
/// Takes cache operators, L2 prefetch sizes and eviction priorities, which change no result.
/// True when .L2::cache_hint asks for one more operand.
bool TakeCacheHints(Decoder& d);
/// The register, or the constant, that an address operand adds its offset to.
Ref AddressOperand(Decoder& d, const Operand& operand, MemoryAccess* access);

/// The addresses of the lanes, offset added.
void Addresses(const Warp& w, const MemoryAccess& access, Ref ref, uint64_t out[kLanes]);
/// Splits the lanes of a generic access by the window their address lies in, and calls f(space, lanes) with the
/// addresses turned into offsets. A space that is known is passed on.
template <class F>
void BySpace(const Warp& w, const MemoryAccess& access, uint64_t addresses[kLanes], F f) {
  if (access.space != Space::kGeneric) return f(access.space, w.mask);
  uint32_t left = w.mask;
  static constexpr struct {
    Space space;
    uint64_t window;
  } kWindows[] = {{Space::kShared, kSharedWindow}, {Space::kLocal, kLocalWindow}, {Space::kParam, kParamWindow}};
  for (const auto& [space, window] : kWindows) {
    uint32_t lanes = 0;
    for (int l = 0; l < kLanes; ++l)
      if ((left >> l & 1) && addresses[l] - window < kWindowBytes) lanes |= 1u << l, addresses[l] -= window;
    if (lanes) f(space, lanes);
    left &= ~lanes;
  }
  if (left) f(Space::kGlobal, left);
}

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_OPS_MEMORY_H_
