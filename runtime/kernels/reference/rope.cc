#include <algorithm>
#include <cmath>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Rope(const Real* x, const int64_t* positions, Real* y, int64_t tokens, int64_t heads, int64_t head_dim,
          const std::vector<float>& inv_freq, double factor) {
  std::copy(x, x + tokens * heads * head_dim, y);
  int64_t n = int64_t(inv_freq.size());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h, x += head_dim, y += head_dim)
      for (int64_t j = 0; j < n; ++j) {
        Real angle = float(positions[t]) * inv_freq[j];
        Real cos = std::cos(angle) * Real(factor), sin = std::sin(angle) * Real(factor);
        y[j] = x[j] * cos - x[j + n] * sin;
        y[j + n] = x[j + n] * cos + x[j] * sin;
      }
}

template void Rope(const float*, const int64_t*, float*, int64_t, int64_t, int64_t, const std::vector<float>&, double);
template void Rope(const double*, const int64_t*, double*, int64_t, int64_t, int64_t, const std::vector<float>&,
                   double);

}  // namespace qwen::reference
