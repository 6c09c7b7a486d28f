// Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), written from the paper, apart from
// the one that kernels use: two writings that agree are worth more than one.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_PHILOX_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_PHILOX_H_

#include <array>
#include <cstdint>

namespace qwen::reference {

inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1],
               uint32_t(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_PHILOX_H_
