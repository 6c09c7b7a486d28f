// linear: projections of one input, with the norm in front and the activation or residual sum behind.
//
//   h = x | rms_norm(x) | gated_rms_norm(x, gate)            rounded to the type of x where the region rounds
//   y_i = h W_i^T                                            weights tile16, f32 sums in order of k
//   silu_mul: y_0 = silu(h W_0^T) * (h W_1^T);  residual: y_0 += residual
//
// Decode is bound by the weights' bytes: sum n_i * k * bytes a weight. The order of the sum over k never depends on how
// many rows there are, so a row's bits do not depend on the batch.
#ifndef QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_H_
#define QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

inline constexpr int kMaxLinearOutputs = 32;  // K and V of every layer of a drafter are one projection of its context
enum LinearPrologue { kPrologueNone, kPrologueRmsNorm, kPrologueGatedRmsNorm };

struct LinearSpec {
  int k, outputs;
  int n[kMaxLinearOutputs];
  DType y_type[kMaxLinearOutputs];
  DType x_type, w_type;
  int prologue;     // LinearPrologue
  float eps;
  int round_first;  // rms_norm: round before the weight
  int head_dim;     // gated_rms_norm: channels a head; 0 otherwise
  int sigmoid;      // gated_rms_norm: the gate's activation is sigmoid, else SiLU
  int silu_mul;     // outputs == 2, n[0] == n[1]: one result
  int residual;     // outputs (results) == 1

  template <class V>
  void Visit(V& v) {
    v("k", k), v("outputs", outputs), v("n", n, outputs), v("y_type", y_type, outputs), v("x_type", x_type);
    v("w_type", w_type), v("prologue", prologue), v("eps", eps), v("round_first", round_first);
    v("head_dim", head_dim), v("sigmoid", sigmoid), v("silu_mul", silu_mul), v("residual", residual);
  }
  int results() const { return silu_mul ? 1 : outputs; }
};
/// Then `outputs` weights [n_i, k] tile16, then `results()` outputs [tokens, n_i].
enum LinearArg { kLinearX, kLinearGate, kLinearNormWeight, kLinearResidual, kLinearFirstWeight };

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_LINEAR_LINEAR_H_
