// router: [norm,] expert logits, softmax, top-k. All in f32; ties go to the lowest id.
//
// The logits' rows are divided over threads; whichever arrives last picks the experts, so the phase costs one barrier.
#ifndef QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_H_
#define QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

struct RouterSpec {
  int hidden, experts, top_k, renormalize;
  int norm, round_first;  // norm: x is normalised first; the normed rows are an output where kRouterH is there
  float eps;
  DType x_type, w_type;

  template <class V>
  void Visit(V& v) {
    v("hidden", hidden), v("experts", experts), v("top_k", top_k), v("renormalize", renormalize), v("norm", norm);
    v("round_first", round_first), v("eps", eps), v("x_type", x_type), v("w_type", w_type);
  }
};
enum RouterArg {
  kRouterX,
  kRouterNormWeight,  // f32 [hidden]
  kRouterW,           // [experts, hidden] tile16
  kRouterTemp,        // f32 [tokens, experts]: the logits; arena space of this step
  kRouterH,           // [tokens, hidden] the normed rows
  kRouterWeights,     // f32 [tokens, top_k], descending
  kRouterIds,         // i32 [tokens, top_k]
  kRouterArgs
};

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_ROUTER_ROUTER_H_
