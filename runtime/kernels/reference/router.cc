#include <algorithm>
#include <cmath>

#include "runtime/kernels/reference/ops.h"
#include "runtime/kernels/reference/ranking.h"

namespace qwen::reference {

template <class Real>
void Router(const Real* x, const Weight& weight, Real* weights, int32_t* ids, int64_t tokens, int64_t top_k,
            bool renormalize) {
  int64_t experts = weight.rows;
  std::vector<Real> logits(tokens * experts);
  Linear(x, weight, logits.data(), tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    Real* p = logits.data() + t * experts;
    Real top = *std::max_element(p, p + experts);
    double sum = 0, picked = 0;
    for (int64_t e = 0; e < experts; ++e) sum += p[e] = std::exp(p[e] - top);
    std::vector<int32_t> order = Ranked(p, experts);
    for (int64_t i = 0; i < top_k; ++i) picked += p[order[i]];
    for (int64_t i = 0; i < top_k; ++i) {
      ids[t * top_k + i] = order[i];
      weights[t * top_k + i] = Real(p[order[i]] / (renormalize ? picked : sum));
    }
  }
}

template void Router(const float*, const Weight&, float*, int32_t*, int64_t, int64_t, bool);
template void Router(const double*, const Weight&, double*, int32_t*, int64_t, int64_t, bool);

}  // namespace qwen::reference
