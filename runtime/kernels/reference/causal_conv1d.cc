#include <algorithm>

#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void CausalConv1d(const Real* x, const Real* weight, Real* history, Real* y, int64_t rows, int64_t channels,
                  int64_t width) {
  std::vector<Real> u(history, history + (width - 1) * channels);
  u.insert(u.end(), x, x + rows * channels);
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t j = 0; j < width; ++j) sum += double(weight[c * width + j]) * u[(t + j) * channels + c];
      y[t * channels + c] = Silu(Real(sum));
    }
  std::copy(u.end() - (width - 1) * channels, u.end(), history);
}

template void CausalConv1d(const float*, const float*, float*, float*, int64_t, int64_t, int64_t);
template void CausalConv1d(const double*, const double*, double*, double*, int64_t, int64_t, int64_t);

}  // namespace qwen::reference
