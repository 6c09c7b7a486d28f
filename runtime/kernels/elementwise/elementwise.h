// elementwise: one op that no fusion took. Plain loops: none of these is on the path of a decode token of a fused plan.
#ifndef QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
#define QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

enum class ElementwiseOp {
  kAdd,            // x, residual -> y
  kSiluMul,        // gate, up -> y
  kSigmoidGate,    // x, gate -> y
  kSplit,          // x -> parts, head by head
  kConcat,         // parts -> y
  kLogitRows,      // x -> y, the wanted rows
  kAccept,         // next -> accepted, emitted; of short sequences
  kDynamicConv,    // x, coef, base -> y
  kCandidateWalk,  // logits, hidden, predecessor, successor -> next
};
inline constexpr int kMaxElementwise = 8;

struct ElementwiseSpec {
  int op;  // ElementwiseOp
  int inputs, outputs;
  int in_channels[kMaxElementwise], out_channels[kMaxElementwise];
  DType in_type[kMaxElementwise], out_type[kMaxElementwise];
  int heads;                   // kSplit
  int group, index, taps;      // kDynamicConv
  int candidates;              // kCandidateWalk
  int logit_rows;              // rows are the wanted rows, else the batch's

  template <class V>
  void Visit(V& v) {
    v("op", op), v("inputs", inputs), v("outputs", outputs), v("in_channels", in_channels, inputs);
    v("out_channels", out_channels, outputs), v("in_type", in_type, inputs), v("out_type", out_type, outputs);
    v("heads", heads), v("group", group), v("index", index), v("taps", taps), v("candidates", candidates);
    v("logit_rows", logit_rows);
  }
};
// Arguments: the op's tensor operands but the batch and the token ids, then its results. Weights among them (the
// convolution's base, the codebooks) are plain rows.

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
