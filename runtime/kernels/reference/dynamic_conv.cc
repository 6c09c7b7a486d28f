#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void DynamicConv(const Real* x, const Real* coef, const Real* base, Real* y, int64_t rows, int64_t channels,
                 int64_t taps, int64_t group, int64_t index) {
  int64_t groups = channels / group;
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t tau = 0; tau < taps && tau <= t; ++tau)
        sum += double(base[(index * taps + tau) * channels + c] + coef[((t * 2 + index) * taps + tau) * groups + c / group]) *
               x[(t - tau) * channels + c];
      y[t * channels + c] = Real(sum);
    }
}

template void DynamicConv(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t,
                          int64_t);
template void DynamicConv(const double*, const double*, const double*, double*, int64_t, int64_t, int64_t, int64_t,
                          int64_t);

}  // namespace qwen::reference
