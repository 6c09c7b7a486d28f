// lm_head: [norm,] logits of the wanted rows in f32, and the draw of the next token.
//
// Bound by bytes: vocab * hidden weights a step. `lm_head` writes logits, `sample` draws (contracts, section 4).
#ifndef QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_H_
#define QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

struct LmHeadSpec {
  int hidden, vocab;      // vocab: this rank's rows
  int norm, round_first;  // norm: rows are normalised first
  float eps;
  int gather;             // x has all rows of the batch; take logit_rows. Else x has the wanted rows only
  DType x_type, w_type;

  template <class V>
  void Visit(V& v) {
    v("hidden", hidden), v("vocab", vocab), v("norm", norm), v("round_first", round_first), v("eps", eps);
    v("gather", gather), v("x_type", x_type), v("w_type", w_type);
  }
};
enum LmHeadArg {
  kLmHeadX,
  kLmHeadNormWeight,  // f32 [hidden]
  kLmHeadW,           // [vocab, hidden] tile16
  kLmHeadLogits,      // f32 [logit rows, vocab]
  kLmHeadArgs
};

struct SampleSpec {
  int vocab;

  template <class V>
  void Visit(V& v) {
    v("vocab", vocab);
  }
};
enum SampleArg { kSampleLogits /* f32 [logit rows, vocab] */, kSampleNext /* i32 [logit rows] */, kSampleArgs };

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_LM_HEAD_LM_HEAD_H_
