#include <cmath>

#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void GatedRmsNorm(const Real* x, const Real* gate, const Real* weight, Real* y, int64_t rows, int64_t value_dim,
                  double eps, Activation activation) {
  RmsNorm(x, weight, y, rows, value_dim, eps, Type::kF32);
  for (int64_t i = 0; i < rows * value_dim; ++i)
    y[i] *= activation == Activation::kSilu ? Silu(gate[i]) : Sigmoid(gate[i]);
}

template void GatedRmsNorm(const float*, const float*, const float*, float*, int64_t, int64_t, double, Activation);
template void GatedRmsNorm(const double*, const double*, const double*, double*, int64_t, int64_t, double, Activation);

}  // namespace qwen::reference
