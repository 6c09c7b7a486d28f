// The draw of contracts, section 4, step by step as serving lists them: bias, temperature, top-k, top-p, min-p, Gumbel.
#include <algorithm>
#include <cmath>

#include "runtime/kernels/reference/ops.h"
#include "runtime/kernels/reference/philox.h"
#include "runtime/kernels/reference/ranking.h"

namespace qwen::reference {
namespace {

double Gumbel(const SampleParams& params, int32_t id, int64_t position) {
  auto words = Philox({uint32_t(id) >> 2, uint32_t(position), uint32_t(params.choice), 0},
                      {uint32_t(params.seed), uint32_t(params.seed >> 32)});
  // u is an f32 by definition: the largest one below 1 bounds how long the tail is.
  float u = std::min(float((words[id & 3] + 0.5) * 0x1p-32), 1 - 0x1p-24f);
  return -std::log(-std::log1p(-double(u)));
}

}  // namespace

template <class Real>
int32_t Sample(const Real* logits, int64_t vocab, const SampleParams& params, int64_t position) {
  std::vector<double> z(logits, logits + vocab);
  for (int64_t v = 0; v < vocab; ++v)
    if (!params.allowed.empty() && !params.allowed[v]) z[v] = -INFINITY;
  for (auto [id, bias] : params.bias) z[id] += bias;
  if (params.greedy || params.temperature < 1e-5) return int32_t(std::max_element(z.begin(), z.end()) - z.begin());

  std::vector<int32_t> kept = Ranked(z.data(), vocab);
  if (params.top_k > 0 && params.top_k < vocab) kept.resize(params.top_k);
  double top = z[kept[0]], sum = 0, seen = 0;
  std::vector<double> p;
  for (int32_t id : kept) sum += p.emplace_back(std::exp((z[id] - top) / params.temperature));
  size_t count = 0;
  while (count < kept.size() && (count == 0 || seen < params.top_p * sum)) seen += p[count++];
  while (count > 1 && p[count - 1] < params.min_p) --count;  // p[0] = 1 is the highest

  int32_t best = kept[0];
  double best_score = -INFINITY;
  for (size_t i = 0; i < count; ++i) {
    double score = z[kept[i]] / params.temperature + Gumbel(params, kept[i], position);
    if (score > best_score || (score == best_score && kept[i] < best)) best = kept[i], best_score = score;
  }
  return best;
}

template int32_t Sample(const float*, int64_t, const SampleParams&, int64_t);
template int32_t Sample(const double*, int64_t, const SampleParams&, int64_t);

}  // namespace qwen::reference
