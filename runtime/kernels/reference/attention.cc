#include <algorithm>
#include <cmath>

#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

template <class Real>
void Attention(const Real* q, const Real* keys, const Real* values, Real* y, int64_t rows, int64_t first,
               const AttentionShape& shape) {
  int64_t heads = int64_t(shape.kv_map.size()), dim = shape.head_dim, row_size = shape.kv_heads * dim;
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t h = 0; h < heads; ++h, q += dim, y += dim) {
      int64_t last = shape.block ? first + rows - 1 : first + t;
      int64_t begin = shape.window ? std::max<int64_t>(0, first + t - shape.window + 1) : 0;
      std::vector<Real> p;
      Real top = -INFINITY;
      double sum = 0;
      for (int64_t j = begin; j <= last; ++j) {
        const Real* key = keys + j * row_size + shape.kv_map[h] * dim;
        double score = 0;
        for (int64_t c = 0; c < dim; ++c) score += double(q[c]) * key[c];
        p.push_back(Real(score * shape.scale));
        top = std::max(top, p.back());
      }
      for (Real& score : p) sum += score = std::exp(score - top);
      for (int64_t c = 0; c < dim; ++c) {
        const Real* value = values + shape.kv_map[h] * dim + c;
        double out = 0;
        for (int64_t j = begin; j <= last; ++j) out += p[j - begin] / sum * value[j * row_size];
        y[c] = Real(out);
      }
    }
}

template void Attention(const float*, const float*, const float*, float*, int64_t, int64_t, const AttentionShape&);
template void Attention(const double*, const double*, const double*, double*, int64_t, int64_t, const AttentionShape&);

}  // namespace qwen::reference
