#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Add(const Real* x, const Real* residual, Real* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] + residual[i];
}

template void Add(const float*, const float*, float*, int64_t);
template void Add(const double*, const double*, double*, int64_t);

}  // namespace qwen::reference
