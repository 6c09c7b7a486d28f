// router and experts: odd numbers of experts, ties, empty shares, ranks that add up, the same bits in any batch.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <thread>

#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/reference/ops.h"
#include "runtime/kernels/router/router.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

reference::Weight WeightOf(Array& w, int64_t rows, int64_t cols) {
  return {w.data(), w.type() == kB ? reference::Type::kBf16 : reference::Type::kF32, rows, cols};
}

struct RouterCase {
  int hidden, experts, top_k;
  bool renormalize, norm;
  DType type, w;
};
const RouterCase kRouterCases[] = {
    {40, 7, 2, true, false, kF, kF},    {40, 7, 2, false, true, kF, kF}, {33, 1, 1, true, true, kF, kF},
    {24, 16, 16, false, false, kF, kF}, {64, 40, 8, true, true, kB, kB}, {65, 256, 10, true, false, kB, kB},
    {50, 20, 4, true, true, kF, kB},
};

struct Routed {
  Array h, weights, ids;
  bool operator==(const Routed&) const = default;
};

class RouterTest : public IsaTest {
 protected:
  RouterSpec SpecOf(const RouterCase& c) {
    return {c.hidden, c.experts, c.top_k, c.renormalize, c.norm, c.type == kB, 1e-6f, c.type, c.w};
  }
  Routed RunRouter(const RouterSpec& s, Array& x, Array& norm, Array& tiled, int tokens, int threads,
                   bool backwards = false) {
    Batch batch = Batch::OfRows(tokens);
    BatchView view = batch.View();
    Array temp(kF, 1LL * tokens * s.experts);
    Routed out{Array(s.x_type, s.norm ? 1LL * tokens * s.hidden : 0), Array(kF, 1LL * tokens * s.top_k),
               Array(DType::kI32, 1LL * tokens * s.top_k)};
    RunBody(GetParam(),
            {.entry = "router",
             .args = {x.data(), s.norm ? norm.data() : nullptr, tiled.data(), temp.data(),
                      s.norm ? out.h.data() : nullptr, out.weights.data(), out.ids.data()},
             .batch = &view},
            s, threads, backwards);
    return out;
  }
};

TEST_P(RouterTest, AgreesWithTheOracle) {
  for (const RouterCase& c : kRouterCases)
    for (int tokens : {0, 1, 3, 9, 60}) {
      SCOPED_TRACE(fmt::format("{} of {} experts, hidden {}, {} tokens", c.top_k, c.experts, c.hidden, tokens));
      const RouterSpec s = SpecOf(c);
      Random random(c.experts + tokens);
      Array x(c.type, random.Fill(1LL * tokens * c.hidden, 3)), norm(kF, random.Fill(c.hidden, 2));
      Array w(c.w, random.Fill(1LL * c.experts * c.hidden, 3 / std::sqrt(c.hidden)));
      Array tiled = Tile16(c.w, c.experts, c.hidden, w.Get());
      const Routed one = RunRouter(s, x, norm, tiled, tokens, 1);
      for (int threads : ThreadsOf(GetParam()))
        for (bool backwards : {false, true})
          EXPECT_TRUE(RunRouter(s, x, norm, tiled, tokens, threads, backwards) == one) << threads << " threads";

      Values h = x.Get();
      if (c.norm) {
        reference::RmsNorm(x.Get().data(), norm.Get().data(), h.data(), tokens, c.hidden, s.eps, reference::Type::kF32);
        ExpectNear(one.h.Get(), h, Tolerance(c.type, c.hidden), "h");
        h = one.h.Get();  // the logits read the rounded rows
      }
      Values weights(1LL * tokens * c.top_k);
      std::vector<int32_t> ids(weights.size());
      reference::Router(h.data(), WeightOf(w, c.experts, c.hidden), weights.data(), ids.data(), tokens, c.top_k,
                        c.renormalize);
      EXPECT_EQ(one.ids.Get(), Values(ids.begin(), ids.end()));
      // Logits reach 10: their error times that is a probability's.
      ExpectNear(one.weights.Get(), weights, Tolerance(kF, 100.0 * c.hidden), "weights");
    }
}

TEST_P(RouterTest, TiesGoToTheLowestIdAndNanPicksSomeDistinctIds) {
  const RouterSpec s = SpecOf({4, 9, 3, true, false, kF, kF});
  Values w(9 * 4, 0.0);
  for (int e : {2, 5, 7, 8}) w[e * 4] = 1;  // four experts with one logit
  Array weight(kF, w), tiled = Tile16(kF, 9, 4, w), norm(kF, Values(4, 1.0));
  Array x(kF, Values{1, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, NAN, 0, 0, 0});
  const Routed out = RunRouter(s, x, norm, tiled, 4, 2);
  EXPECT_EQ(out.ids.Get(0, 3), (Values{2, 5, 7}));
  EXPECT_EQ(out.ids.Get(3, 3), (Values{0, 1, 3}));
  EXPECT_EQ(out.ids.Get(6, 3), (Values{0, 1, 2}));
  const Values nan = out.ids.Get(9, 3);
  EXPECT_EQ(std::set<double>(nan.begin(), nan.end()).size(), 3u);
  for (double id : nan) EXPECT_TRUE(id >= 0 && id < 9);
}

TEST_P(RouterTest, ARowAloneHasTheBitsItHasInABatch) {
  for (const RouterCase& c : kRouterCases) {
    const RouterSpec s = SpecOf(c);
    const int tokens = 50;
    Random random(1);
    Array x(c.type, random.Fill(1LL * tokens * c.hidden, 3)), norm(kF, random.Fill(c.hidden, 2));
    Array tiled = Tile16(c.w, c.experts, c.hidden, random.Fill(1LL * c.experts * c.hidden));
    const Routed all = RunRouter(s, x, norm, tiled, tokens, 2);
    for (int t = 0; t < tokens; ++t) {
      Array row(c.type, x.Get(1LL * t * c.hidden, c.hidden));
      const Routed alone = RunRouter(s, row, norm, tiled, 1, 3);
      ASSERT_EQ(alone.ids.Get(), all.ids.Get(t * c.top_k, c.top_k)) << t;
      ASSERT_EQ(alone.weights.Get(), all.weights.Get(t * c.top_k, c.top_k)) << t;
    }
  }
}

class RouterThreadsTest : public RouterTest {};

TEST_P(RouterThreadsTest, TheLastOfRealThreadsPicks) {
  const RouterSpec s = SpecOf(kRouterCases[4]);
  Random random(5);
  Array x(kB, random.Fill(3LL * s.hidden, 3)), norm(kF, random.Fill(s.hidden, 2));
  Array tiled = Tile16(kB, s.experts, s.hidden, random.Fill(1LL * s.experts * s.hidden));
  const Routed want = RunRouter(s, x, norm, tiled, 3, 1);
  Batch batch = Batch::OfRows(3);
  BatchView view = batch.View();
  const KernelInfo* info = FindKernel("router");
  auto spec = info->decode(ToFields(s));
  const int64_t scratch = info->workspace(spec->get(), 3).scratch;
  for (int round = 0; round < 50; ++round) {
    Array temp(kF, 3LL * s.experts);
    Routed out{Array(kB, 3LL * s.hidden), Array(kF, 3LL * s.top_k), Array(DType::kI32, 3LL * s.top_k)};
    std::vector<void*> args = {x.data(),     norm.data(),        tiled.data(),  temp.data(),
                               out.h.data(), out.weights.data(), out.ids.data()};
    alignas(64) unsigned char shared[64] = {};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i)
      threads.emplace_back([&, i] {
        std::vector<unsigned char> own(scratch);
        Launch launch{};
        launch.batch = &view, launch.args = args.data(), launch.thread = i, launch.threads = 3;
        launch.scratch = own.data(), launch.shared = shared;
        BodyOf(*info, GetParam())(spec->get(), launch);
      });
    for (std::thread& thread : threads) thread.join();
    ASSERT_TRUE(out == want) << round;
    ASSERT_EQ(shared[0], 0);
  }
}

struct ExpertsCase {
  const char* name;
  int hidden, experts, top_k, inter;
  bool shared;
  int shared_inter;
  bool residual;
  DType type, w, y;
};
const ExpertsCase kExpertsCases[] = {
    {"tiles exactly", 32, 8, 2, 16, false, 0, false, kF, kF, kF},
    {"odd", 40, 7, 2, 24, false, 0, true, kF, kF, kF},
    {"up rows inside a tile", 33, 5, 3, 9, true, 13, true, kF, kF, kF},
    {"up rows across tiles", 20, 4, 4, 29, true, 40, false, kF, kF, kF},
    {"bf16", 48, 6, 2, 32, true, 16, true, kB, kB, kB},
    {"bf16, odd, partial sums", 45, 6, 2, 20, true, 20, false, kB, kB, kF},
    {"no routed channels", 40, 7, 2, 0, true, 24, true, kF, kF, kF},
    {"no shared channels", 40, 7, 2, 24, true, 0, true, kF, kF, kF},
    {"one expert", 40, 1, 1, 24, false, 0, false, kF, kF, kF},
    {"f32 rows, bf16 weights", 40, 7, 2, 24, true, 24, true, kF, kB, kF},
    {"many output tiles", 150, 3, 2, 17, true, 5, true, kF, kF, kF},
};

struct Experts {
  ExpertsSpec spec;
  int tokens;
  Array x, weights, ids, gate_up, down, shared_gate, shared_up, shared_down, scalar, residual;
  Array gate_up_tiled, down_tiled, shared_gate_tiled, shared_up_tiled, shared_down_tiled, scalar_tiled;

  Experts(const ExpertsCase& c, int count, uint64_t seed)
      : spec{c.hidden, c.experts, 0, c.top_k, c.inter, c.shared, c.shared_inter, c.residual, c.type, c.w, c.y},
        tokens(count) {
    Random random(seed);
    const double in = 2 / std::sqrt(c.hidden), out = c.inter > 0 ? 2 / std::sqrt(c.inter) : 0;
    x = Array(c.type, random.Fill(1LL * tokens * c.hidden, 2));
    Values w, e;
    for (int t = 0; t < tokens; ++t) {
      std::vector<int> order(c.experts);
      std::iota(order.begin(), order.end(), 0);
      for (int k = 0; k < c.top_k; ++k) {
        std::swap(order[k], order[random.Int(k, c.experts - 1)]);
        e.push_back(order[k]), w.push_back(random.Uniform(0, 1));
      }
    }
    weights = Array(kF, w), ids = Array(DType::kI32, e);
    auto matrix = [&](int64_t rows, int64_t cols, double scale, Array* plain, Array* tiled, int64_t experts = 1) {
      *plain = Array(c.w, random.Fill(experts * rows * cols, scale));
      *tiled = Tile16(c.w, rows, cols, plain->Get(), experts);
    };
    matrix(2LL * c.inter, c.hidden, in, &gate_up, &gate_up_tiled, c.experts);
    matrix(c.hidden, c.inter, out, &down, &down_tiled, c.experts);
    matrix(c.shared_inter, c.hidden, in, &shared_gate, &shared_gate_tiled);
    matrix(c.shared_inter, c.hidden, in, &shared_up, &shared_up_tiled);
    matrix(c.hidden, c.shared_inter, out, &shared_down, &shared_down_tiled);
    matrix(1, c.hidden, in, &scalar, &scalar_tiled);
    residual = Array(c.y, random.Fill(1LL * tokens * c.hidden));
  }

  Array Run(Isa isa, int threads, bool backwards = false) {
    Batch batch = Batch::OfRows(tokens);
    BatchView view = batch.View();
    Array temp(kF, tokens * spec.temp_row()), y(spec.y_type, 1LL * tokens * spec.hidden);
    std::vector<void*> args(kExpertsArgs);
    args[kExpertsX] = x.data(), args[kExpertsWeights] = weights.data(), args[kExpertsIds] = ids.data();
    args[kExpertsGateUp] = gate_up_tiled.data(), args[kExpertsDown] = down_tiled.data();
    if (spec.shared) {
      args[kExpertsSharedGate] = shared_gate_tiled.data(), args[kExpertsSharedUp] = shared_up_tiled.data();
      args[kExpertsSharedDown] = shared_down_tiled.data(), args[kExpertsScalarGate] = scalar_tiled.data();
    }
    if (spec.residual) args[kExpertsResidual] = residual.data();
    args[kExpertsTemp] = temp.data(), args[kExpertsY] = y.data();
    for (const char* entry : {"experts_gate_up", "experts_down"})
      RunBody(isa, {.entry = entry, .args = args, .batch = &view}, spec, threads, backwards);
    return y;
  }

  Values Want() {
    const int hidden = spec.hidden, inter = spec.inter, shared_inter = spec.shared_inter;
    std::vector<int32_t> picks;
    for (double id : ids.Get()) picks.push_back(static_cast<int32_t>(id));
    Values y(1LL * tokens * hidden, 0.0), in = x.Get();
    if (inter > 0)
      reference::Experts(in.data(), weights.Get().data(), picks.data(),
                         WeightOf(gate_up, 2LL * spec.experts * inter, hidden),
                         WeightOf(down, 1LL * spec.experts * hidden, inter), y.data(), tokens, spec.top_k,
                         spec.first_expert, spec.experts);
    if (spec.shared) {
      Values gate(1LL * tokens * shared_inter), up(gate.size()), act(gate.size()), s(y.size()), scalars(tokens);
      reference::Linear(in.data(), WeightOf(shared_gate, shared_inter, hidden), gate.data(), tokens);
      reference::Linear(in.data(), WeightOf(shared_up, shared_inter, hidden), up.data(), tokens);
      reference::SiluMul(gate.data(), up.data(), act.data(), static_cast<int64_t>(act.size()));
      reference::Linear(act.data(), WeightOf(shared_down, hidden, shared_inter), s.data(), tokens);
      reference::Linear(in.data(), WeightOf(scalar, 1, hidden), scalars.data(), tokens);
      reference::Combine(Values(y).data(), s.data(), scalars.data(), y.data(), tokens, hidden);
    }
    if (spec.residual)
      reference::Add(Values(y).data(), residual.Get().data(), y.data(), static_cast<int64_t>(y.size()));
    return y;
  }
};

class ExpertsTest : public IsaTest {};

TEST_P(ExpertsTest, AgreesWithTheOracleOnEveryNumberOfThreads) {
  for (const ExpertsCase& c : kExpertsCases)
    for (int tokens : {0, 1, 2, 7, 65}) {
      SCOPED_TRACE(fmt::format("{}, {} tokens", c.name, tokens));
      Experts e(c, tokens, tokens);
      const Array y = e.Run(GetParam(), 1);
      ExpectNear(y.Get(), e.Want(), Tolerance(c.y, 16.0 * (c.hidden + c.inter)), "y");
      for (int threads : ThreadsOf(GetParam()))
        for (bool backwards : {false, true})
          EXPECT_TRUE(e.Run(GetParam(), threads, backwards) == y) << threads << " threads";
    }
}

TEST_P(ExpertsTest, ARowAloneHasTheBitsItHasInABatch) {
  for (const ExpertsCase& c : kExpertsCases) {
    SCOPED_TRACE(c.name);
    Experts all(c, 120, 4);
    const Array y = all.Run(GetParam(), 2);
    Experts one = all;
    one.tokens = 1;
    for (int t = 0; t < all.tokens; ++t) {
      one.x = Array(c.type, all.x.Get(1LL * t * c.hidden, c.hidden));
      one.weights = Array(kF, all.weights.Get(t * c.top_k, c.top_k));
      one.ids = Array(DType::kI32, all.ids.Get(t * c.top_k, c.top_k));
      one.residual = Array(c.y, all.residual.Get(1LL * t * c.hidden, c.hidden));
      ASSERT_EQ(one.Run(GetParam(), 1).Get(), y.Get(1LL * t * c.hidden, c.hidden)) << "row " << t;
    }
  }
}

TEST_P(ExpertsTest, OneExpertTakesAllTokensAndAnotherHasNone) {
  const ExpertsCase cases[] = {
      {"it alone", 40, 7, 1, 24, false, 0, true, kF, kF, kF},
      {"it and others in turn", 40, 7, 3, 24, true, 9, false, kF, kF, kF},
      {"bf16, it and others in turn", 48, 6, 2, 32, false, 0, true, kB, kB, kB},
  };
  constexpr int kAll = 3, kNone = 1;
  for (const ExpertsCase& c : cases)
    for (int tokens : {1, 15, 16, 17, 65}) {
      SCOPED_TRACE(fmt::format("{}, {} tokens", c.name, tokens));
      Experts e(c, tokens, tokens);
      std::vector<int> others;
      for (int expert = 0; expert < c.experts; ++expert)
        if (expert != kAll && expert != kNone) others.push_back(expert);
      Values ids;
      for (int t = 0; t < tokens; ++t)
        for (int k = 0; k < c.top_k; ++k)
          ids.push_back(k == t % c.top_k ? kAll : others[(t * c.top_k + k) % others.size()]);
      e.ids = Array(DType::kI32, ids);
      std::vector<int> taken(c.experts);
      for (double id : e.ids.Get()) ++taken[static_cast<int>(id)];
      ASSERT_EQ(taken[kAll], tokens);
      ASSERT_EQ(taken[kNone], 0);
      const Array y = e.Run(GetParam(), 1);
      ExpectNear(y.Get(), e.Want(), Tolerance(c.y, 16.0 * (c.hidden + c.inter)), "y");
      for (int threads : ThreadsOf(GetParam())) EXPECT_TRUE(e.Run(GetParam(), threads) == y) << threads << " threads";
    }
}

TEST_P(ExpertsTest, TheOrderOfPicksIsNotTheOrderOfTheSum) {
  Experts e(kExpertsCases[3], 5, 2);
  const Array y = e.Run(GetParam(), 1);
  Values weights = e.weights.Get(), ids = e.ids.Get();
  for (int t = 0; t < 5; ++t) {
    std::reverse(weights.begin() + 4 * t, weights.begin() + 4 * t + 4);
    std::reverse(ids.begin() + 4 * t, ids.begin() + 4 * t + 4);
  }
  e.weights = Array(kF, weights), e.ids = Array(DType::kI32, ids);
  EXPECT_TRUE(e.Run(GetParam(), 1) == y);
}

TEST_P(ExpertsTest, RanksOfExpertsAddUp) {
  // Experts 0-2, none, 3-6: what the ranks return sums to the whole.
  const ExpertsCase c{"whole", 40, 7, 3, 24, false, 0, false, kF, kF, kF};
  Experts whole(c, 9, 3);
  Values sum(9 * 40, 0.0);
  for (auto [first, count] : {std::pair{0, 3}, {3, 0}, {3, 4}}) {
    Experts rank = whole;
    rank.spec.first_expert = first, rank.spec.experts = count;
    Values gate_up = whole.gate_up.Get(first * 48LL * 40, count * 48LL * 40),
           down = whole.down.Get(first * 40LL * 24, count * 40LL * 24);
    rank.gate_up_tiled = Tile16(kF, 48, 40, gate_up, count);
    rank.down_tiled = Tile16(kF, 40, 24, down, count);
    Values part = rank.Run(GetParam(), 2).Get();
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  ExpectNear(sum, whole.Want(), Tolerance(kF, 16.0 * 64), "sum");
}

QWEN_FOR_EVERY_ISA_AND_CUDA(RouterTest);
QWEN_FOR_EVERY_ISA(RouterThreadsTest);
QWEN_FOR_EVERY_ISA_AND_CUDA(ExpertsTest);

}  // namespace
}  // namespace qwen::kernels::conformance
