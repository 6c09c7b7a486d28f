#include <cmath>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void GatedDeltaRule(const Real* q, const Real* k, const Real* v, const Real* beta, const Real* g, Real* state, Real* y,
                    int64_t rows, const DeltaShape& shape) {
  int64_t dk = shape.key_dim, dv = shape.value_dim, heads = shape.value_heads;
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      int64_t key_head = t * shape.key_heads + h / (heads / shape.key_heads), head = t * heads + h;
      const Real *qh = q + key_head * dk, *kh = k + key_head * dk;
      Real* s = state + h * dk * dv;
      Real decay = std::exp(g[head]);
      for (int64_t i = 0; i < dk * dv; ++i) s[i] *= decay;
      for (int64_t j = 0; j < dv; ++j) {
        double read = 0, out = 0;
        for (int64_t i = 0; i < dk; ++i) read += double(s[i * dv + j]) * kh[i];
        Real u = Real(beta[head] * (v[head * dv + j] - read));
        for (int64_t i = 0; i < dk; ++i) s[i * dv + j] += kh[i] * u;
        for (int64_t i = 0; i < dk; ++i) out += double(s[i * dv + j]) * qh[i];
        y[head * dv + j] = Real(out);
      }
    }
}

template void GatedDeltaRule(const float*, const float*, const float*, const float*, const float*, float*, float*,
                             int64_t, const DeltaShape&);
template void GatedDeltaRule(const double*, const double*, const double*, const double*, const double*, double*,
                             double*, int64_t, const DeltaShape&);

}  // namespace qwen::reference
