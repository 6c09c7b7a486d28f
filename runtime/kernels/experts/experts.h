// experts: the picked experts' feed-forward, the shared expert, their sum and the residual, in two phases.
//
//   experts_gate_up: act[t, i, :] = silu(x G_e^T) * (x U_e^T), e = ids[t, i];  shared likewise, and sigmoid(x . w_s)
//   experts_down:    y[t] = sum over the picked experts in ascending id of weights[t, i] * (act[t, i] D_e^T)
//                           + shared_gate[t] * (shared[t] D_s^T) + residual[t], in f32, rounded once
// Decode is bound by bytes: top_k * 3 * inter * hidden weights a token, plus the shared expert's.
#ifndef QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_H_
#define QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

/// Floats of a token between the phases: every pick's channels, the shared expert's and its gate; whole 16 bytes.
constexpr long long ExpertsTempRow(int top_k, int inter, int shared, int shared_inter) {
  return (1LL * top_k * inter + (shared ? shared_inter + 1 : 0) + 3) / 4 * 4;
}

struct ExpertsSpec {
  int hidden, experts, first_expert, top_k, inter;  // ids outside [first_expert, first_expert + experts) add nothing
  int shared, shared_inter;                         // shared: there is a shared expert; its width may be 0 on a rank
  int residual;
  DType x_type, w_type, y_type;

  template <class V>
  void Visit(V& v) {
    v("hidden", hidden), v("experts", experts), v("first_expert", first_expert), v("top_k", top_k), v("inter", inter);
    v("shared", shared), v("shared_inter", shared_inter), v("residual", residual), v("x_type", x_type);
    v("w_type", w_type), v("y_type", y_type);
  }
  long long temp_row() const { return ExpertsTempRow(top_k, inter, shared, shared_inter); }
};
enum ExpertsArg {
  kExpertsX,           // [tokens, hidden]
  kExpertsWeights,     // f32 [tokens, top_k]
  kExpertsIds,         // i32 [tokens, top_k]
  kExpertsGateUp,      // [experts, 2 * inter, hidden] tile16 an expert, gate rows first
  kExpertsDown,        // [experts, hidden, inter] tile16 an expert
  kExpertsSharedGate,  // [shared_inter, hidden] tile16
  kExpertsSharedUp,    // [shared_inter, hidden] tile16
  kExpertsSharedDown,  // [hidden, shared_inter] tile16
  kExpertsScalarGate,  // [1, hidden] tile16
  kExpertsResidual,    // [tokens, hidden]
  kExpertsTemp,        // f32 [tokens, temp_row()]: arena space between the phases
  kExpertsY,           // [tokens, hidden]
  kExpertsArgs
};

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_EXPERTS_EXPERTS_H_
