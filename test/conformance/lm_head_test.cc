// lm_head and sample. The oracle draws in f64 with libm's logarithms, the kernel in f32 with its own: they may differ
// where two tokens come within a rounding of each other, which the seeds below do not meet.
#include "runtime/kernels/lm_head/lm_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

class LmHeadTest : public IsaTest {};

TEST_P(LmHeadTest, AgreesWithTheOracle) {
  int index = 0;
  for (int hidden : {8, 40, 65})
    for (int vocab : {1, 37, 101, 0})
      for (auto [type, w_type] : {std::pair{kF, kF}, {kB, kB}, {kF, kB}})
        for (int norm : {0, 1})
          for (int gather : {0, 1}) {
            if (!Tries(GetParam(), index++)) continue;
            SCOPED_TRACE(fmt::format("hidden {} vocab {} {} {} norm {} gather {}", hidden, vocab, DTypeName(type),
                                     DTypeName(w_type), norm, gather));
            const LmHeadSpec s{.hidden = hidden,
                               .vocab = vocab,
                               .norm = norm,
                               .round_first = gather,
                               .eps = 1e-6f,
                               .gather = gather,
                               .x_type = type,
                               .w_type = w_type};
            Random random(hidden + vocab);
            for (int wanted : {0, 1, 3, 50}) {
              const int tokens = gather ? 60 : wanted;
              Array x(type, random.Fill(1LL * tokens * hidden, 3)), w(kF, random.Fill(hidden, 2));
              Array weight(w_type, random.Fill(1LL * vocab * hidden, 1 / std::sqrt(hidden)));
              Array tiled = Tile16(w_type, vocab, hidden, weight.Get());
              Batch batch = Batch::OfRows(gather ? tokens : std::max(tokens, 1));
              for (int n = 0; n < wanted; ++n) batch.logit_rows.push_back(gather ? 59 - n : n);
              BatchView view = batch.View();
              Values rows;
              for (int n = 0; n < wanted; ++n) {
                Values row = x.Get(1LL * (gather ? batch.logit_rows[n] : n) * hidden, hidden);
                rows.insert(rows.end(), row.begin(), row.end());
              }
              if (norm)
                reference::RmsNorm(Values(rows).data(), w.Get().data(), rows.data(), wanted, hidden, s.eps,
                                   reference::Type::kF32);
              Values want(1LL * wanted * vocab);
              reference::Linear(
                  rows.data(),
                  {weight.data(), w_type == kB ? reference::Type::kBf16 : reference::Type::kF32, vocab, hidden},
                  want.data(), wanted);
              Array first;
              for (int threads : ThreadsOf(GetParam())) {
                Array logits(kF, 1LL * wanted * vocab);
                RunBody(GetParam(),
                        {.entry = "lm_head",
                         .args = {x.data(), norm ? w.data() : nullptr, tiled.data(), logits.data()},
                         .batch = &view},
                        s, threads);
                if (threads == 1) {
                  // The norm is rounded to the model's type, so logits of bf16 are as exact as bf16; one alone may be
                  // the small difference of larger terms.
                  ExpectNear(logits.Get(), want, Tolerance(norm ? type : kF, hidden) * (vocab == 1 ? 4 : 1),
                             fmt::format("{} rows", wanted));
                  first = logits;
                }
                EXPECT_TRUE(logits == first) << threads << " threads";
              }
            }
          }
}

SampleParams Params(uint64_t seed, float temperature, int top_k, float top_p, float min_p, int choice = 0) {
  SampleParams p{};
  p.seed = seed, p.choice = choice, p.top_k = top_k, p.temperature = temperature, p.top_p = top_p, p.min_p = min_p;
  return p;
}
reference::SampleParams Same(const SampleParams& p) {
  return {.seed = p.seed,
          .choice = p.choice,
          .greedy = (p.flags & kSampleGreedy) != 0,
          .temperature = p.temperature,
          .top_k = p.top_k,
          .top_p = p.top_p,
          .min_p = p.min_p};
}

std::vector<int> Draw(Isa isa, const Batch& batch, Array& logits, int vocab, int threads) {
  BatchView view = batch.View();
  Array next(DType::kI32, view.num_logit_rows);
  RunBody(isa, {.entry = "sample", .args = {logits.data(), next.data()}, .batch = &view}, SampleSpec{vocab}, threads);
  std::vector<int> ids;
  for (double id : next.Get()) ids.push_back(static_cast<int>(id));
  return ids;
}

class SampleTest : public IsaTest {};

TEST_P(SampleTest, DrawsWhatTheOracleDraws) {
  const int vocab = 203;
  struct Setting {
    const char* name;
    float temperature;
    int top_k;
    float top_p, min_p;
  };
  for (const Setting& set : {Setting{"plain", 1, 0, 1, 0},
                             {"hot", 3, 0, 1, 0},
                             {"cold", 0.2f, 0, 1, 0},
                             {"top_k 1", 1, 1, 1, 0},
                             {"top_k 5", 1, 5, 1, 0},
                             {"top_k above vocab", 1, 1000, 1, 0},
                             {"top_p", 1, 0, 0.7f, 0},
                             {"top_p 0", 1, 0, 0, 0},
                             {"top_p all but", 1, 0, 0.9999f, 0},
                             {"min_p", 1, 0, 1, 0.1f},
                             {"min_p 1", 1, 0, 1, 1},
                             {"all three", 0.7f, 20, 0.8f, 0.02f},
                             {"greedy by temperature", 1e-6f, 0, 1, 0}}) {
    Random random(11);
    Batch batch;
    // 40 sequences of up to three rows at any position; all rows wanted.
    for (int seq = 0; seq < 40; ++seq) {
      const int rows = random.Int(1, 3);
      for (int i = 0; i < rows; ++i) {
        batch.logit_rows.push_back(batch.cu_tokens.back() + i);
        batch.sample.push_back(
            Params(random.Int(0, 1 << 30) * 0x100000001ull, set.temperature, set.top_k, set.top_p, set.min_p, seq % 3));
      }
      batch.Add(rows, random.Int(0, 100000));
    }
    const int wanted = static_cast<int>(batch.logit_rows.size());
    Array logits(kF, random.Fill(1LL * wanted * vocab, 4));
    std::vector<int> next = Draw(GetParam(), batch, logits, vocab, 1);
    int differ = 0;
    for (int n = 0; n < wanted; ++n) {
      int seq = 0;
      while (batch.cu_tokens[seq + 1] <= batch.logit_rows[n]) ++seq;
      const int position = batch.position[seq] + batch.logit_rows[n] - batch.cu_tokens[seq] + 1;
      differ += next[n] !=
                reference::Sample(logits.Get(1LL * n * vocab, vocab).data(), vocab, Same(batch.sample[n]), position);
    }
    EXPECT_EQ(differ, 0) << set.name;
    for (int threads : ThreadsOf(GetParam())) EXPECT_EQ(Draw(GetParam(), batch, logits, vocab, threads), next) << set.name;
  }
}

TEST_P(SampleTest, TiesGoToTheLowestIdAndNanToNobody) {
  const float inf = INFINITY;
  struct Row {
    std::vector<double> logits;
    int want;
  };
  for (const Row& row : {Row{{1, 3, 3, 2}, 1},
                         {{NAN, -5, NAN, -5}, 1},
                         {{-inf, -inf, 0, NAN}, 2},
                         {{NAN, NAN, NAN, NAN}, -1},
                         {{-inf, -inf, -inf, -inf}, -1},
                         {{-0.0, 0.0, -1, -1}, 0}}) {
    for (float temperature : {0.0f, 1.0f}) {
      Batch batch = Batch::OfRows(1);
      batch.logit_rows = {0};
      // Drawn: top_k 1 leaves one token, the same.
      batch.sample = {Params(1, temperature, 1, 1, 0)};
      Array logits(kF, row.logits);
      EXPECT_EQ(Draw(GetParam(), batch, logits, 4, 1)[0], row.want) << temperature;
    }
  }
}

// Of the draw's own numbers, which every target shares bit for bit: twenty thousand rows would be minutes of emulation.
class SampleNoiseTest : public SampleTest {};

TEST_P(SampleNoiseTest, DrawsFollowTheDistribution) {
  // Chi-squared over 8 tokens and 20,000 positions of one row each.
  const Values z = {0, 0.5, 1, 1.5, 2, 2.5, 3, -3};
  const int rows = 20000, vocab = 8;
  Batch batch = Batch::OfRows(rows);
  Values all;
  for (int n = 0; n < rows; ++n) {
    batch.position[n] = n;
    batch.logit_rows.push_back(n);
    batch.sample.push_back(Params(42, 1, 0, 1, 0));
    all.insert(all.end(), z.begin(), z.end());
  }
  Array logits(kF, all);
  std::vector<int> count(vocab);
  for (int id : Draw(GetParam(), batch, logits, vocab, 3)) ++count[id];
  double sum = 0, chi = 0;
  for (double v : z) sum += std::exp(v);
  for (int v = 0; v < vocab; ++v) {
    const double want = rows * std::exp(z[v]) / sum;
    chi += (count[v] - want) * (count[v] - want) / want;
  }
  EXPECT_LT(chi, 24.3) << "7 degrees of freedom, p = 0.001";
}

QWEN_FOR_EVERY_ISA_AND_CUDA(LmHeadTest);
QWEN_FOR_EVERY_ISA_AND_CUDA(SampleTest);
QWEN_FOR_EVERY_ISA(SampleNoiseTest);

}  // namespace
}  // namespace qwen::kernels::conformance
