// rms_norm: every row to unit root mean square, with the residual sum in front where there is one.
#ifndef QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_H_
#define QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

/// Spec of `add_rms_norm`: [sum = x + residual;] y = norm(sum) * w; model specification, 3.1 to 3.3.
struct RmsNormSpec {
  int channels;
  float eps;
  int round_first, add;
  DType type;  // of x, residual, sum and y

  template <class V>
  void Visit(V& v) {
    v("channels", channels), v("eps", eps), v("round_first", round_first), v("add", add), v("type", type);
  }
};
enum RmsNormArg { kNormX, kNormResidual, kNormWeight /* f32 [channels] */, kNormSum, kNormY, kNormArgs };

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_H_
