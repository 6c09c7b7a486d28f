#include <algorithm>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void LogitRows(const Real* x, const std::vector<int32_t>& logit_rows, Real* y, int64_t channels) {
  for (int32_t row : logit_rows) y = std::copy(x + row * channels, x + (row + 1) * channels, y);
}

template void LogitRows(const float*, const std::vector<int32_t>&, float*, int64_t);
template void LogitRows(const double*, const std::vector<int32_t>&, double*, int64_t);

}  // namespace qwen::reference
