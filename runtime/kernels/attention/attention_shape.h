// How the CUDA kernels of attention divide their work: what the launch and the body must agree on. No includes: device
// code reads this header too.
#ifndef QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_SHAPE_H_
#define QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_SHAPE_H_

namespace qwen::kernels::cuda {

inline constexpr int kAttnPageTokens = 32;

// --- attn_decode ---

inline constexpr int kAttnWarps = 4, kAttnThreads = 32 * kAttnWarps;
/// A part has at least so many pages: 128 tokens keep its merge cheaper than its keys.
inline constexpr int kAttnLeastPages = 4;
/// Parts of a sequence and KV head: one sequence fills the 128 multiprocessors of a 4090.
constexpr int AttnSplits(int kv_heads) { return kv_heads <= 2 ? 64 : kv_heads >= 128 ? 1 : 128 / kv_heads; }
/// Query heads that pass over a key at once; their sums are registers, 64 of them for eight heads of 256 channels.
constexpr int AttnHeadsAtOnce(int group) { return group < 1 ? 1 : group > 8 ? 8 : group; }
/// Sums of head_dim channels, their norm and the highest logit.
constexpr int AttnPartFloats(int head_dim) { return head_dim + 2; }
constexpr int AttnDecodeShared(int head_dim, int group) {
  const int row = (head_dim + 31) / 32 * 32, heads = AttnHeadsAtOnce(group);
  const int merge = heads * row + kAttnWarps * heads * (row + 4), append = kAttnWarps * head_dim;
  return 4 * (merge > append ? merge : append);
}

// --- attn_prefill ---

inline constexpr int kAttnPrefillWarps = 8, kAttnPrefillThreads = 32 * kAttnPrefillWarps;
/// Pairs of a row and a query head in a block: their queries are 32 KiB of shared memory at 256 channels.
inline constexpr int kAttnPairs = 32;
constexpr int AttnTileRows(int group) { return group < 1 || group > kAttnPairs ? 1 : kAttnPairs / group; }
/// Elements from key to key: an odd number of words, so that 32 lanes that read 32 keys hit 32 banks.
constexpr int AttnKeyStride(int head_dim, int bytes) {
  return bytes == 2 ? (head_dim + 1) / 2 * 2 + ((head_dim + 1) / 2 % 2 ? 0 : 2) : head_dim + 1 - head_dim % 2;
}
/// Elements from the first key to the first value: a multiple of 16 bytes.
constexpr int AttnValueOffset(int head_dim, int bytes) {
  return (kAttnPageTokens * AttnKeyStride(head_dim, bytes) + 7) / 8 * 8;
}
constexpr int AttnPrefillShared(int head_dim, int bytes) {
  const int row = (head_dim + 31) / 32 * 32;
  return 4 * kAttnPairs * row + bytes * (AttnValueOffset(head_dim, bytes) + kAttnPageTokens * head_dim) +
         4 * kAttnPrefillWarps * row + 16;
}

/// The most query heads of a KV head; heads(i) is the KV head of query head i.
template <class Map>
constexpr int AttnLargestGroup(int q_heads, int kv_heads, Map kv_map) {
  int most = 0;
  for (int kv = 0; kv < kv_heads; ++kv) {
    int heads = 0;
    for (int h = 0; h < q_heads; ++h) heads += kv_map(h) == kv;
    most = heads > most ? heads : most;
  }
  return most;
}
template <class Spec>
constexpr int AttnGroup() {
  return AttnLargestGroup(Spec::q_heads, Spec::kv_heads, [](int h) { return Spec::kv_map(h); });
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_SHAPE_H_
