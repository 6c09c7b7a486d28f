#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void SiluMul(const Real* gate, const Real* up, Real* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = Silu(gate[i]) * up[i];
}

template void SiluMul(const float*, const float*, float*, int64_t);
template void SiluMul(const double*, const double*, double*, int64_t);

}  // namespace qwen::reference
