// gdn: causal convolution, SiLU, L2 norm, gates and the gated delta rule, over the transactional recurrent state.
//
// One row at position p (contracts, section 5):
//   c = silu(conv(qkv rows p-3 .. p));  q, k, v = split(c);  q^ = l2(q) * q_scale;  k^ = l2(k)
//   beta = sigmoid(b);  g = -exp(a_log) * softplus(a + dt_bias)
//   S = fold(S0, records p-R .. p-1);  S <- e^g S;  u = beta (v - S k^);  S <- S + u k^T;  o = S q^
// A short row writes its record (k^, u, g) to the ring and leaves S0 alone, unless the step folds: then the committed
// records go into S0 first. The long part folds, runs and writes S0 in place. Fold and row use the same arithmetic,
// element by element, so when a fold happens changes no bit. S is kept V-first: [value_heads][value_dim][key_dim].
#ifndef QWEN_RUNTIME_KERNELS_GDN_GDN_H_
#define QWEN_RUNTIME_KERNELS_GDN_GDN_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

/// Spec of `gdn_decode` (short part) and `gdn_scan` (long part).
struct GdnSpec {
  int key_heads, value_heads, key_dim, value_dim, width;  // value head h reads key head h / (value_heads / key_heads)
  float l2_eps, q_scale;
  DType x_type;   // of qkv, o and the conv rows
  DType ba_type;  // of b and a

  template <class V>
  void Visit(V& v) {
    v("key_heads", key_heads), v("value_heads", value_heads), v("key_dim", key_dim), v("value_dim", value_dim);
    v("width", width), v("l2_eps", l2_eps), v("q_scale", q_scale), v("x_type", x_type), v("ba_type", ba_type);
  }
  int conv_channels() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
};
enum GdnArg {
  kGdnQkv,     // [tokens, conv_channels]: q | k | v
  kGdnB,       // [tokens, value_heads]
  kGdnA,       // [tokens, value_heads]
  kGdnConv,    // f32 [conv_channels, width]
  kGdnALog,    // f32 [value_heads]
  kGdnDtBias,  // f32 [value_heads]
  kGdnState,   // the layer's part of slot 0
  kGdnO,       // [tokens, value_heads * value_dim]
  kGdnArgs
};
/// Arguments of `gdn_fold`, which no program launches: it makes the state part of a snapshot. fold(S0, ring) of slot
/// state_slot[0] at position[0] with ring_fill[0] records, with the arithmetic of decode; the slot stays as it is.
enum GdnFoldArg {
  kGdnFoldState,  // the layer's part of slot 0
  kGdnFoldBase,   // f32 [value_heads][value_dim][key_dim]
  kGdnFoldArgs
};

/// Byte offsets inside a layer's part of a slot; `bytes` is a multiple of 64.
///   base  f32 [value_heads][value_dim][key_dim]
///   ring  ring_rows records of f32 k^ [key_heads][key_dim], u [value_heads][value_dim], g [value_heads]
///   conv  conv_rows rows of [conv_channels] in the model's type; position p in row p mod conv_rows
struct SlotLayout {
  long long base, ring, record_bytes, conv, conv_row_bytes, bytes;
};
constexpr SlotLayout MakeSlotLayout(int key_heads, int value_heads, int key_dim, int value_dim, DType type, int ring_rows,
                                    int conv_rows) {
  constexpr long long kAlign = 63;
  SlotLayout l{};
  long long base_bytes = 4LL * value_heads * value_dim * key_dim;
  l.ring = (base_bytes + kAlign) & ~kAlign;
  l.record_bytes = 4LL * (1LL * key_heads * key_dim + 1LL * value_heads * value_dim + value_heads);
  l.conv = (l.ring + l.record_bytes * ring_rows + kAlign) & ~kAlign;
  l.conv_row_bytes = DTypeBytes(type) * (2LL * key_heads * key_dim + 1LL * value_heads * value_dim);
  l.bytes = (l.conv + l.conv_row_bytes * conv_rows + kAlign) & ~kAlign;
  return l;
}

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_GDN_GDN_H_
