// Block sizes of the CPU bodies, and the scratch that follows from them: the catalogue sizes it, the bodies cut it.
//
// Floats a thread. The functions are for the catalogue alone: called from a file built for an ISA, an inline function
// might become the copy that the linker keeps for all.
#ifndef QWEN_RUNTIME_KERNELS_CPU_SCRATCH_H_
#define QWEN_RUNTIME_KERNELS_CPU_SCRATCH_H_

#include "runtime/base/dtype.h"

namespace qwen::kernels::cpu {

inline constexpr int kRowChunk = 48;    // rows that share one pass over a weight tile from memory
inline constexpr int kMostRows = 128;   // the same of linear, where matrix tiles would wait for the weights' next pass
inline constexpr int kGdnBlock = 32;    // rows prepared at once
inline constexpr int kGdnRows = 4;      // rows of S at once
inline constexpr int kPageTokens = 32;  // a page of the KV cache
inline constexpr int kAttnRows = 8;     // query rows that share a page while it is in cache
inline constexpr int kDownTiles = 4;    // output tiles of experts_down that share one pass over the activations

constexpr long long PadTo16(long long n) { return (n + 15) / 16 * 16; }

/// Rows of a chunk of linear on matrix tiles: as many as leave their three planes 1.5 MB of a core's second-level
/// cache. Inlined always, so that no file built for an ISA leaves a copy.
__attribute__((always_inline)) constexpr int TileChunk(int channels) {
  const int rows = channels > 0 ? (3 << 19) / (6 * channels) / 32 * 32 : 0;
  return rows < kRowChunk ? kRowChunk : rows > kMostRows ? kMostRows : rows;
}

/// linear, lm_head, router, experts_gate_up: a chunk of prepared rows.
constexpr long long RowScratch(int channels, int rows = kRowChunk) { return rows * PadTo16(channels); }
/// Behind it and behind experts_down's: the chunk as three planes of bf16, in whole tiles of 32 channels, for ISAs with
/// matrix tiles. Part of every plan, so that a plan does not know the ISA.
constexpr long long PlaneScratch(DType weight_type, int channels, int rows = kRowChunk) {
  return weight_type == DType::kBF16 ? rows * ((channels + 31) / 32 * 32) * 3LL / 2 : 0;
}

constexpr long long GdnScratch(int key_heads, int value_heads, int key_dim, int value_dim, int width) {
  if (key_heads == 0) return 0;
  long long ratio = value_heads / key_heads, dk16 = PadTo16(key_dim), dv16 = PadTo16(value_dim),
            rv16 = PadTo16(ratio * value_dim);
  long long row = 2 * dk16 + rv16;
  return width * row + (width - 1 + kGdnBlock) * row   // taps, inputs
         + kGdnBlock * (3 * dk16 + rv16 + dv16)        // q, k, k of the records, v, o
         + kGdnRows * dk16 + ratio * value_dim * dk16  // rows of S, S between passes
         + 3 * ratio * kGdnBlock;                      // gates
}

/// `group`: the most query heads that share a KV head.
constexpr long long AttentionScratch(int head_dim, int freqs, int group) {
  return PadTo16(head_dim) + 2 * PadTo16(freqs) + kAttnRows * group * (2 * PadTo16(head_dim) + 2);
}

/// Pairs (token, pick) sorted by expert, and an accumulator a token.
constexpr long long ExpertsDownScratch(int experts, int top_k, long long tokens) {
  return PadTo16(experts + 2) + PadTo16(tokens * top_k) + tokens * 16 * kDownTiles;
}
constexpr long long ExpertsUpScratch(int experts, int top_k, long long tokens, int hidden) {
  return PadTo16(experts + 2) + PadTo16(tokens * top_k) + RowScratch(hidden);
}

}  // namespace qwen::kernels::cpu

#endif  // QWEN_RUNTIME_KERNELS_CPU_SCRATCH_H_
