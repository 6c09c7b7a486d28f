// Order among scores: the router's experts, a token's candidates.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_RANKING_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_RANKING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace qwen::reference {

/// Ids from the highest score to the lowest, ties by the lowest id. A NaN is last: sorting by it would have no end.
template <class Real>
std::vector<int32_t> Ranked(const Real* scores, int64_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  auto key = [&](int32_t id) { return std::isnan(scores[id]) ? Real(-INFINITY) : scores[id]; };
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return key(a) > key(b) || (key(a) == key(b) && a < b); });
  return ids;
}

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_RANKING_H_
