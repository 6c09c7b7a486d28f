#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Experts(const Real* x, const Real* weights, const int32_t* ids, const Weight& gate_up, const Weight& down, Real* y,
             int64_t tokens, int64_t top_k, int64_t first, int64_t experts) {
  int64_t inter = down.cols, in = gate_up.cols, out = experts ? down.rows / experts : 0;
  std::vector<Real> gate(inter), up(inter), part(out);
  for (int64_t e = 0; e < experts; ++e)  // outermost: every sum runs in ascending order of the expert
    for (int64_t i = 0; i < tokens * top_k; ++i) {
      if (ids[i] != first + e) continue;
      int64_t t = i / top_k;
      Linear(x + t * in, gate_up.Slice(e * 2 * inter, inter), gate.data(), 1);
      Linear(x + t * in, gate_up.Slice((e * 2 + 1) * inter, inter), up.data(), 1);
      SiluMul(gate.data(), up.data(), gate.data(), inter);
      Linear(gate.data(), down.Slice(e * out, out), part.data(), 1);
      for (int64_t c = 0; c < out; ++c) y[t * out + c] += weights[i] * part[c];
    }
}

template void Experts(const float*, const float*, const int32_t*, const Weight&, const Weight&, float*, int64_t,
                      int64_t, int64_t, int64_t);
template void Experts(const double*, const double*, const int32_t*, const Weight&, const Weight&, double*, int64_t,
                      int64_t, int64_t, int64_t);

}  // namespace qwen::reference
