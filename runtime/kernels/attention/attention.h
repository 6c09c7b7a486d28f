// attention: QK norm, RoPE, cache write and paged softmax attention with its output gate, in one region.
//
// Page: [layer][K, V][kv_heads][32][head_dim] of the cache's type, K after norm and RoPE (contracts, section 5). Keys are
// visited in order of position, in whole pages, so a row's bits do not depend on how its prompt was cut or on its batch.
// Decode is bound by the cache's bytes: 2 * kv_heads * head_dim * bytes a visible token.
#ifndef QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_H_
#define QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

inline constexpr int kMaxQHeads = 256, kMaxRopeFreqs = 256;

/// Spec of `attn_decode` (short part) and `attn_prefill` (long part).
struct AttentionSpec {
  int q_heads, kv_heads, head_dim;
  int kv_map[kMaxQHeads];  // KV head of every query head
  int gate;                // q holds query | gate per head, 2 * head_dim wide; the output is times sigmoid(gate)
  int qk_norm, round_first;
  float eps;
  int freqs;  // 0: no RoPE
  float inv_freq[kMaxRopeFreqs];
  float attention_factor;
  float scale;
  int window;  // 0: none
  int block;   // a row sees the later rows of its own step too
  int append;  // writes k and v to the cache
  int attend;  // reads q, writes o; 0 for a context that is only cached
  DType type;        // of q, k, v and o
  DType cache_type;  // of the page: keys and values are rounded to it once, as they are written

  template <class V>
  void Visit(V& v) {
    v("q_heads", q_heads), v("kv_heads", kv_heads), v("head_dim", head_dim), v("kv_map", kv_map, q_heads);
    v("gate", gate), v("qk_norm", qk_norm), v("round_first", round_first), v("eps", eps), v("freqs", freqs);
    v("inv_freq", inv_freq, freqs), v("attention_factor", attention_factor), v("scale", scale);
    v("window", window), v("block", block), v("append", append), v("attend", attend), v("type", type), v("cache_type", cache_type);
  }
};
enum AttentionArg {
  kAttnQ,      // [tokens, q_heads * head_dim (* 2 with gate)]
  kAttnK,      // [tokens, kv_heads * head_dim]
  kAttnV,      // [tokens, kv_heads * head_dim]
  kAttnQNorm,  // f32 [head_dim]
  kAttnKNorm,  // f32 [head_dim]
  kAttnCache,  // the layer's part of page 0
  kAttnO,      // [tokens, q_heads * head_dim]
  kAttnArgs
};

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_ATTENTION_ATTENTION_H_
