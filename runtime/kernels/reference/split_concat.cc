#include <algorithm>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Split(const Real* x, const std::vector<int64_t>& widths, const std::vector<Real*>& parts, int64_t tokens,
           int64_t heads) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (size_t i = 0; i < parts.size(); ++i) {
        int64_t width = widths[i] / heads;
        std::copy(x, x + width, parts[i] + (t * heads + h) * width);
        x += width;
      }
}

template <class Real>
void Concat(const std::vector<const Real*>& parts, const std::vector<int64_t>& widths, Real* y, int64_t tokens) {
  for (int64_t t = 0; t < tokens; ++t)
    for (size_t i = 0; i < parts.size(); ++i)
      y = std::copy(parts[i] + t * widths[i], parts[i] + (t + 1) * widths[i], y);
}

template void Split(const float*, const std::vector<int64_t>&, const std::vector<float*>&, int64_t, int64_t);
template void Split(const double*, const std::vector<int64_t>&, const std::vector<double*>&, int64_t, int64_t);
template void Concat(const std::vector<const float*>&, const std::vector<int64_t>&, float*, int64_t);
template void Concat(const std::vector<const double*>&, const std::vector<int64_t>&, double*, int64_t);

}  // namespace qwen::reference
