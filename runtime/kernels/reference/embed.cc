#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Embed(const int32_t* ids, const Weight& table, Real* y, int64_t tokens) {
  for (int64_t t = 0; t < tokens; ++t) table.Row(ids[t], y + t * table.cols);
}

template void Embed(const int32_t*, const Weight&, float*, int64_t);
template void Embed(const int32_t*, const Weight&, double*, int64_t);

}  // namespace qwen::reference
