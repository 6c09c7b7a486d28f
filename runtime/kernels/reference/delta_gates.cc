#include <cmath>

#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void DeltaGates(const Real* b, const Real* a, const Real* a_log, const Real* dt_bias, Real* beta, Real* g,
                int64_t tokens, int64_t heads) {
  for (int64_t i = 0; i < tokens * heads; ++i) {
    Real x = a[i] + dt_bias[i % heads];
    Real softplus = x > 20 ? x : std::log1p(std::exp(x));
    beta[i] = Sigmoid(b[i]);
    g[i] = -std::exp(a_log[i % heads]) * softplus;
  }
}

template void DeltaGates(const float*, const float*, const float*, const float*, float*, float*, int64_t, int64_t);
template void DeltaGates(const double*, const double*, const double*, const double*, double*, double*, int64_t,
                         int64_t);

}  // namespace qwen::reference
