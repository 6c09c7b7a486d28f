#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Combine(const Real* routed, const Real* shared, const Real* gate, Real* y, int64_t tokens, int64_t channels) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = t * channels; i < (t + 1) * channels; ++i) y[i] = routed[i] + Sigmoid(gate[t]) * shared[i];
}

template void Combine(const float*, const float*, const float*, float*, int64_t, int64_t);
template void Combine(const double*, const double*, const double*, double*, int64_t, int64_t);

}  // namespace qwen::reference
