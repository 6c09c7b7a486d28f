#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void SigmoidGate(const Real* x, const Real* gate, Real* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * Sigmoid(gate[i]);
}

template void SigmoidGate(const float*, const float*, float*, int64_t);
template void SigmoidGate(const double*, const double*, double*, int64_t);

}  // namespace qwen::reference
