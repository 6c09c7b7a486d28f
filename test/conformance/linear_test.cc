// linear: every prologue and epilogue, odd widths, empty shares, and the same bits for a row in any batch.
#include "runtime/kernels/linear/linear.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

struct Case {
  const char* name;
  int k;
  std::vector<int> n;
  DType x, w;
  std::vector<DType> y;
  int prologue = kPrologueNone;
  bool round_first = false;
  int head_dim = 0;
  bool sigmoid = false, silu_mul = false, residual = false;
};

const Case kCases[] = {
    {"one by one", 1, {1}, kF, kF, {kF}},
    {"odd", 33, {5}, kF, kF, {kF}},
    {"odd bf16", 33, {5}, kB, kB, {kB}},
    {"tiles exactly", 64, {64}, kF, kF, {kF}},
    {"three projections, one empty", 40, {96, 0, 17}, kF, kF, {kF, kF, kF}},
    {"partial sums of bf16", 45, {40}, kB, kB, {kF}},
    {"mixed results", 72, {60, 24, 4, 4}, kB, kB, {kB, kB, kF, kF}},
    {"norm", 40, {96, 24, 4, 4}, kF, kF, {kF, kF, kF, kF}, kPrologueRmsNorm},
    {"norm, round first", 40, {33, 19}, kB, kB, {kB, kB}, kPrologueRmsNorm, true},
    {"gated norm, SiLU", 36, {40}, kF, kF, {kF}, kPrologueGatedRmsNorm, false, 12},
    {"gated norm, sigmoid", 36, {40}, kB, kB, {kB}, kPrologueGatedRmsNorm, false, 12, true},
    {"gate and up", 40, {50, 50}, kF, kF, {kF, kF}, kPrologueRmsNorm, false, 0, false, true},
    {"gate and up bf16", 129, {34, 34}, kB, kB, {kB, kB}, kPrologueNone, false, 0, false, true},
    {"down and residual", 50, {40}, kF, kF, {kF}, kPrologueNone, false, 0, false, false, true},
    {"down and residual bf16", 50, {40}, kB, kB, {kB}, kPrologueGatedRmsNorm, false, 10, false, false, true},
    {"empty input", 0, {40}, kF, kF, {kF}},
    {"empty input and residual", 0, {40}, kB, kB, {kB}, kPrologueGatedRmsNorm, false, 8, false, false, true},
    {"empty gate and up", 24, {0, 0}, kF, kF, {kF, kF}, kPrologueNone, false, 0, false, true},
    {"f32 rows, bf16 weights", 100, {70}, kF, kB, {kF}},
    {"f32 rows, bf16 weights, norm", 45, {30, 17}, kF, kB, {kF, kF}, kPrologueRmsNorm},
    {"f32 rows, bf16 weights, gate and up", 45, {30, 30}, kF, kB, {kF, kF}, kPrologueRmsNorm, false, 0, false, true},
    {"f32 rows, bf16 weights, gated norm",
     36,
     {40},
     kF,
     kB,
     {kF},
     kPrologueGatedRmsNorm,
     false,
     12,
     false,
     false,
     true},
    {"long sum", 2051, {20}, kF, kF, {kF}},
};

LinearSpec SpecOf(const Case& c) {
  LinearSpec s{};
  s.k = c.k, s.outputs = static_cast<int>(c.n.size());
  for (int o = 0; o < s.outputs; ++o) s.n[o] = c.n[o], s.y_type[o] = c.y[o];
  s.x_type = c.x, s.w_type = c.w, s.prologue = c.prologue, s.eps = 1e-6f, s.round_first = c.round_first;
  s.head_dim = c.head_dim, s.sigmoid = c.sigmoid, s.silu_mul = c.silu_mul, s.residual = c.residual;
  return s;
}

struct Inputs {
  Array x, gate, norm, residual;
  std::vector<Array> weights, tiled;
};

Inputs MakeInputs(const LinearSpec& s, int tokens, uint64_t seed) {
  Random random(seed);
  Inputs in;
  const double scale = s.k > 0 ? 1 / std::sqrt(s.k) : 0;
  in.x = Array(s.x_type, random.Fill(1LL * tokens * s.k, 3));
  in.gate = Array(s.x_type, random.Fill(1LL * tokens * s.k, 4));
  in.norm = Array(kF, random.Fill(s.head_dim > 0 ? s.head_dim : s.k, 2));
  in.residual = Array(s.y_type[0], random.Fill(1LL * tokens * s.n[0]));
  for (int o = 0; o < s.outputs; ++o) {
    in.weights.emplace_back(s.w_type, random.Fill(1LL * s.n[o] * s.k, scale));
    in.tiled.push_back(Tile16(s.w_type, s.n[o], s.k, in.weights[o].Get()));
  }
  return in;
}

std::vector<Array> RunLinear(Isa isa, const LinearSpec& s, Inputs& in, int tokens, int threads,
                             bool backwards = false) {
  std::vector<Array> out;
  for (int o = 0; o < s.results(); ++o) out.emplace_back(s.y_type[o], 1LL * tokens * s.n[o]);
  Batch batch = Batch::OfRows(tokens);
  BatchView view = batch.View();
  BodyCall run{.entry = "linear", .args = {in.x.data(), nullptr, nullptr, nullptr}, .batch = &view};
  if (s.prologue == kPrologueGatedRmsNorm) run.args[kLinearGate] = in.gate.data();
  if (s.prologue != kPrologueNone) run.args[kLinearNormWeight] = in.norm.data();
  if (s.residual) run.args[kLinearResidual] = in.residual.data();
  for (Array& w : in.tiled) run.args.push_back(w.data());
  for (Array& y : out) run.args.push_back(y.data());
  RunBody(isa, run, s, threads, backwards);
  return out;
}

std::vector<Values> Want(const LinearSpec& s, const Inputs& in, int tokens) {
  Values h = in.x.Get(), norm = in.norm.Get();
  if (s.prologue == kPrologueRmsNorm)
    reference::RmsNorm(in.x.Get().data(), norm.data(), h.data(), tokens, s.k, s.eps, reference::Type::kF32);
  if (s.prologue == kPrologueGatedRmsNorm)
    reference::GatedRmsNorm(in.x.Get().data(), in.gate.Get().data(), norm.data(), h.data(), tokens * s.k / s.head_dim,
                            s.head_dim, s.eps,
                            s.sigmoid ? reference::Activation::kSigmoid : reference::Activation::kSilu);
  std::vector<Values> out;
  for (int o = 0; o < s.outputs; ++o) {
    Array w = in.weights[o];
    reference::Weight weight{w.data(), s.w_type == kB ? reference::Type::kBf16 : reference::Type::kF32, s.n[o], s.k};
    reference::Linear(h.data(), weight, out.emplace_back(1LL * tokens * s.n[o]).data(), tokens);
  }
  if (s.silu_mul) {
    Values y(out[0].size());
    reference::SiluMul(out[0].data(), out[1].data(), y.data(), static_cast<int64_t>(y.size()));
    out = {y};
  }
  if (s.residual) {
    Values sum(out[0].size());
    reference::Add(out[0].data(), in.residual.Get().data(), sum.data(), static_cast<int64_t>(sum.size()));
    out = {sum};
  }
  return out;
}

class LinearTest : public IsaTest {};

TEST_P(LinearTest, AgreesWithTheOracleOnEveryNumberOfThreads) {
  for (const Case& c : kCases) {
    const LinearSpec s = SpecOf(c);
    for (int tokens : {0, 1, 2, 5, 7, 48, 65}) {
      SCOPED_TRACE(fmt::format("{}, {} tokens", c.name, tokens));
      Inputs in = MakeInputs(s, tokens, 100 * tokens + s.k);
      std::vector<Array> y = RunLinear(GetParam(), s, in, tokens, 1);
      std::vector<Values> want = Want(s, in, tokens);
      for (int o = 0; o < s.results(); ++o)
        ExpectNear(y[o].Get(), want[o], Tolerance(s.y_type[o], s.k), fmt::format("result {}", o));
      for (int threads : ThreadsOf(GetParam())) {
        EXPECT_TRUE(RunLinear(GetParam(), s, in, tokens, threads) == y) << threads << " threads";
        EXPECT_TRUE(RunLinear(GetParam(), s, in, tokens, threads, true) == y) << threads << " threads, backwards";
      }
    }
  }
}

TEST_P(LinearTest, ARowAloneHasTheBitsItHasInABatch) {
  for (const Case& c : kCases) {
    const LinearSpec s = SpecOf(c);
    const int tokens = 133;
    SCOPED_TRACE(c.name);
    Inputs in = MakeInputs(s, tokens, 7);
    std::vector<Array> all = RunLinear(GetParam(), s, in, tokens, 2);
    // One to four rows have ways of their own on some ISAs.
    for (int t = 0, rows = 1; t < tokens; t += rows, rows = std::min(rows % 4 + 1, tokens - t)) {
      Inputs few = in;
      few.x = Array(s.x_type, in.x.Get(1LL * t * s.k, 1LL * rows * s.k));
      few.gate = Array(s.x_type, in.gate.Get(1LL * t * s.k, 1LL * rows * s.k));
      few.residual = Array(s.y_type[0], in.residual.Get(1LL * t * s.n[0], 1LL * rows * s.n[0]));
      std::vector<Array> alone = RunLinear(GetParam(), s, few, rows, 1);
      for (int o = 0; o < s.results(); ++o)
        ASSERT_EQ(alone[o].Get(), all[o].Get(1LL * t * s.n[o], 1LL * rows * s.n[o]))
            << rows << " rows from " << t << ", result " << o;
    }
  }
}

TEST_P(LinearTest, NanStaysInItsRow) {
  LinearSpec s = SpecOf(kCases[7]);
  Inputs in = MakeInputs(s, 9, 3);
  std::vector<Array> clean = RunLinear(GetParam(), s, in, 9, 2);
  Values x = in.x.Get();
  x[4 * s.k + 1] = NAN;
  in.x = Array(s.x_type, x);
  std::vector<Array> y = RunLinear(GetParam(), s, in, 9, 2);
  for (int t = 0; t < 9; ++t)
    for (int i = 0; i < s.n[0]; ++i) {
      const int64_t at = 1LL * t * s.n[0] + i;
      if (t == 4)
        EXPECT_TRUE(std::isnan(y[0].At(at)));
      else
        EXPECT_EQ(y[0].At(at), clean[0].At(at));
    }
}

QWEN_FOR_EVERY_ISA_AND_CUDA(LinearTest);

}  // namespace
}  // namespace qwen::kernels::conformance
