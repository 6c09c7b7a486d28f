// add_rms_norm: a block owns a row. Bound by bytes; the row is read once a pass and the second pass hits L1.
#ifndef QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_CUH_
#define QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/rms_norm/rms_norm.h"

namespace qwen::kernels::cuda {

template <class Spec>
__device__ void AddRmsNorm(const Launch<kNormArgs>& launch) {
  using T = Element<Spec::type>;
  constexpr int kWarps = Spec::kThreads / 32;
  __shared__ float sums[kWarps];
  const int row = blockIdx.x;
  if (row >= *launch.rows) return;
  const long long at = static_cast<long long>(row) * Spec::channels;
  const T* x = static_cast<const T*>(launch.args[kNormX]) + at;
  const float* weight = static_cast<const float*>(launch.args[kNormWeight]);
  T* y = static_cast<T*>(launch.args[kNormY]) + at;
  T* sum = static_cast<T*>(launch.args[kNormSum]) + at;

  float squares = 0;
  for (int c = threadIdx.x; c < Spec::channels; c += Spec::kThreads) {
    float value = ToFloat(x[c]);
    if constexpr (Spec::add) {
      // The norm reads the sum as it was rounded.
      value = Rounded<T>(value + ToFloat(static_cast<const T*>(launch.args[kNormResidual])[at + c]));
      sum[c] = FromFloat<T>(value);
    }
    squares += value * value;
  }
  const float scale = 1 / sqrtf(BlockSum<kWarps>(squares, sums) / Spec::channels + Spec::eps);
  for (int c = threadIdx.x; c < Spec::channels; c += Spec::kThreads) {  // every thread reads what it wrote
    float value = ToFloat(Spec::add ? sum[c] : x[c]) * scale;
    if constexpr (Spec::round_first) value = Rounded<T>(value);
    y[c] = FromFloat<T>(value * weight[c]);
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_RMS_NORM_RMS_NORM_CUH_
