// The two scalar functions that half of the ops share.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_ACTIVATIONS_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_ACTIVATIONS_H_

#include <cmath>

namespace qwen::reference {

template <class Real>
Real Sigmoid(Real x) {
  return 1 / (1 + std::exp(-x));
}

template <class Real>
Real Silu(Real x) {
  return x * Sigmoid(x);
}

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_ACTIVATIONS_H_
