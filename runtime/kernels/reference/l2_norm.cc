#include <cmath>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void L2Norm(const Real* x, Real* y, int64_t rows, int64_t head_dim, double eps, double scale) {
  for (int64_t r = 0; r < rows; ++r, x += head_dim, y += head_dim) {
    double sum = 0;
    for (int64_t c = 0; c < head_dim; ++c) sum += double(x[c]) * x[c];
    Real factor = Real(scale / std::sqrt(sum + eps));
    for (int64_t c = 0; c < head_dim; ++c) y[c] = x[c] * factor;
  }
}

template void L2Norm(const float*, float*, int64_t, int64_t, double, double);
template void L2Norm(const double*, double*, int64_t, int64_t, double, double);

}  // namespace qwen::reference
