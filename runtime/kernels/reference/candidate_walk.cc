#include "runtime/kernels/reference/ops.h"
#include "runtime/kernels/reference/ranking.h"

namespace qwen::reference {

template <class Real>
void CandidateWalk(const Real* logits, const Real* hidden, int32_t anchor, const Weight& predecessor,
                   const Weight& successor, int32_t* next, int64_t rows, int64_t candidates) {
  int64_t vocab = predecessor.rows, rank = predecessor.cols;
  std::vector<Real> before(rank), after(rank);
  for (int64_t row = 0; row < rows; ++row, logits += vocab, hidden += rank) {
    std::vector<int32_t> order = Ranked(logits, vocab);
    predecessor.Row(anchor, before.data());
    double best = 0;
    for (int64_t i = 0; i < candidates; ++i) {
      successor.Row(order[i], after.data());
      double score = logits[order[i]];
      for (int64_t r = 0; r < rank; ++r) score += double(before[r]) * hidden[r] * after[r];
      if (i == 0 || score > best) best = score, anchor = order[i];
    }
    next[row] = anchor;
  }
}

template void CandidateWalk(const float*, const float*, int32_t, const Weight&, const Weight&, int32_t*, int64_t,
                            int64_t);
template void CandidateWalk(const double*, const double*, int32_t, const Weight&, const Weight&, int32_t*, int64_t,
                            int64_t);

}  // namespace qwen::reference
