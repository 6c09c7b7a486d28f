// Weight rows outermost: each is converted once and serves all tokens. The sum runs in 16 lanes, which the compiler may
// put into vector registers without changing it; that is the one liberty, as `qwenc verify` takes 35 000 x 5 120 here.
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {
namespace {

template <class Real>
double Dot(const Real* a, const Real* b, int64_t count) {
  constexpr int kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lanes[l] += double(a[i + l]) * b[i + l];
  double sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += lanes[l];
  for (; i < count; ++i) sum += double(a[i]) * b[i];
  return sum;
}

}  // namespace

template <class Real>
void Linear(const Real* x, const Weight& weight, Real* y, int64_t tokens) {
  std::vector<Real> row(weight.cols);
  for (int64_t n = 0; n < weight.rows; ++n) {
    weight.Row(n, row.data());
    for (int64_t t = 0; t < tokens; ++t) y[t * weight.rows + n] = Real(Dot(x + t * weight.cols, row.data(), weight.cols));
  }
}

template void Linear(const float*, const Weight&, float*, int64_t);
template void Linear(const double*, const Weight&, double*, int64_t);

}  // namespace qwen::reference
