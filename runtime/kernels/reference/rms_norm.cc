#include <cmath>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void RmsNorm(const Real* x, const Real* weight, Real* y, int64_t rows, int64_t channels, double eps,
             Type before_weight) {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    double sum = 0;
    for (int64_t c = 0; c < channels; ++c) sum += double(x[c]) * x[c];
    Real scale = Real(1 / std::sqrt(sum / double(channels) + eps));
    for (int64_t c = 0; c < channels; ++c) y[c] = Round(x[c] * scale, before_weight) * weight[c];
  }
}

template void RmsNorm(const float*, const float*, float*, int64_t, int64_t, double, Type);
template void RmsNorm(const double*, const double*, double*, int64_t, int64_t, double, Type);

}  // namespace qwen::reference
