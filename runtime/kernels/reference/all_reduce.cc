#include <algorithm>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void AllReduce(const std::vector<const Real*>& parts, Real* y, int64_t count) {
  std::fill(y, y + count, Real(0));
  for (const Real* part : parts)
    for (int64_t i = 0; i < count; ++i) y[i] += part[i];
}

template void AllReduce(const std::vector<const float*>&, float*, int64_t);
template void AllReduce(const std::vector<const double*>&, double*, int64_t);

}  // namespace qwen::reference
