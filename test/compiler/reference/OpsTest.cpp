//===- OpsTest.cpp - the oracle's functions, one by one --------------------===//
//
// Expected numbers are worked out by hand or are closed forms; the delta rule's are the test vector of the model
// specification (6.6), Philox's the known answers of its authors.
//
//===----------------------------------------------------------------------===//

#include "runtime/kernels/reference/ops.h"

#include <cmath>

#include "gtest/gtest.h"
#include "runtime/kernels/reference/philox.h"

namespace qwen::reference {
namespace {

using Numbers = std::vector<double>;
const double kLn2 = std::log(2.0), kLn3 = std::log(3.0);

void expectNear(const Numbers &got, const Numbers &want, double tolerance = 1e-12) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], tolerance) << "element " << i;
}

Weight f32(const std::vector<float> &numbers, int64_t cols) {
  return {numbers.data(), Type::kF32, cols ? int64_t(numbers.size()) / cols : 0, cols};
}

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(Round(1.0f + 0x1p-8f, Type::kBf16), 1.0f);                 // a tie: the even neighbour is below
  EXPECT_EQ(Round(1.0f + 3 * 0x1p-8f, Type::kBf16), 1.0f + 0x1p-6f);   // a tie: the even neighbour is above
  EXPECT_EQ(Round(1.0f + 0x1p-8f + 0x1p-20f, Type::kBf16), 1 + 0x1p-7f);
  EXPECT_EQ(Round(-0.0f, Type::kBf16), -0.0f);
  EXPECT_EQ(Round(3.4e38f, Type::kBf16), INFINITY);
  uint32_t bits = 0x7f800001; // a NaN whose payload is all in the lost half
  float nan;
  std::memcpy(&nan, &bits, 4);
  EXPECT_TRUE(std::isnan(Round(nan, Type::kBf16)));
}

TEST(Bf16, LeavesF32AndDoubleAlone) {
  EXPECT_EQ(Round(0.1f, Type::kF32), 0.1f);
  EXPECT_EQ(Round(0.1, Type::kBf16), 0.1);
}

TEST(Add, Sums) {
  Numbers x{1, 2}, r{10, 20}, y(2);
  Add(x.data(), r.data(), y.data(), 2);
  expectNear(y, {11, 22});
}

TEST(RmsNorm, ScalesRowsThenWeighs) {
  Numbers x{3, 4, 0, 0}, w{2, 0.5}, y(4);
  RmsNorm(x.data(), w.data(), y.data(), 2, 2, 1e-300, Type::kF32);
  double rms = std::sqrt(12.5);
  expectNear(y, {6 / rms, 2 / rms, 0, 0});
}

TEST(RmsNorm, EpsIsAddedToTheMean) {
  Numbers x{1, 1}, w{1, 1}, y(2);
  RmsNorm(x.data(), w.data(), y.data(), 1, 2, 3.0, Type::kF32);
  expectNear(y, {0.5, 0.5});
}

// 3 / sqrt(12.5) = 0.84853 lies at 217.2 of 256, 4 / sqrt(12.5) = 1.13137 at 144.8 of 128.
TEST(RmsNorm, RoundsBeforeTheWeightWhereAsked) {
  std::vector<float> x{3, 4}, w{3, 3}, y(2);
  RmsNorm(x.data(), w.data(), y.data(), 1, 2, 1e-12, Type::kBf16);
  EXPECT_EQ(y[0], 3 * 217.0f / 256);
  EXPECT_EQ(y[1], 3 * 145.0f / 128);
}

TEST(GatedRmsNorm, NormsFirstAndGatesSecond) {
  Numbers x{3, 4}, gate{0, kLn3}, w{1, 2}, y(2); // silu(ln 3) = 0.75 ln 3
  GatedRmsNorm(x.data(), gate.data(), w.data(), y.data(), 1, 2, 1e-300, Activation::kSilu);
  expectNear(y, {0, 8 / std::sqrt(12.5) * 0.75 * kLn3});
  GatedRmsNorm(x.data(), gate.data(), w.data(), y.data(), 1, 2, 1e-300, Activation::kSigmoid);
  expectNear(y, {1.5 / std::sqrt(12.5), 6 / std::sqrt(12.5)});
}

TEST(L2Norm, DividesByTheLength) {
  Numbers x{3, 4, 0, 0}, y(4);
  L2Norm(x.data(), y.data(), 2, 2, 1e-300, 10);
  expectNear(y, {6, 8, 0, 0});
  L2Norm(x.data(), y.data(), 1, 2, 11, 1); // eps joins the sum, inside the root: sqrt(25 + 11) = 6
  EXPECT_NEAR(y[0], 0.5, 1e-12);
}

TEST(L2Norm, LeavesAZeroRowZero) {
  Numbers x{0, 0}, y{1, 1};
  L2Norm(x.data(), y.data(), 1, 2, 1e-6, 1);
  expectNear(y, {0, 0});
}

TEST(Embed, GathersRowsOfEitherType) {
  std::vector<uint16_t> bits{ToBf16(1), ToBf16(2), ToBf16(3), ToBf16(-0.5f)};
  std::vector<int32_t> ids{1, 0, 1};
  Numbers y(6);
  Embed(ids.data(), {bits.data(), Type::kBf16, 2, 2}, y.data(), 3);
  expectNear(y, {3, -0.5, 1, 2, 3, -0.5});
}

TEST(Linear, MultipliesByTheTransposedWeight) {
  std::vector<float> w{1, 2, 3, 4, 5, 6}; // [3, 2]
  Numbers x{1, 10, 2, 0}, y(6);
  Linear(x.data(), f32(w, 2), y.data(), 2);
  expectNear(y, {21, 43, 65, 2, 6, 10});
}

// sum of k^2 below 37 = 16206: past two vectors and a remainder. The bytes need no alignment.
TEST(Linear, SumsLongRowsOfUnalignedBf16) {
  std::vector<char> bytes(1 + 2 * 37);
  std::vector<float> x(37), y(1);
  for (int k = 0; k < 37; ++k) {
    uint16_t bits = ToBf16(float(k));
    std::memcpy(bytes.data() + 1 + 2 * k, &bits, 2);
    x[k] = float(k);
  }
  Linear(x.data(), {bytes.data() + 1, Type::kBf16, 1, 37}, y.data(), 1);
  EXPECT_EQ(y[0], 16206);
}

TEST(Linear, AnEmptyShareGivesZeros) {
  Numbers y{7, 7};
  Linear<double>(nullptr, {nullptr, Type::kF32, 2, 0}, y.data(), 1);
  expectNear(y, {0, 0});
}

TEST(SiluMul, ActivatesTheGateOnly) {
  Numbers gate{kLn3, 0}, up{4, 5}, y(2);
  SiluMul(gate.data(), up.data(), y.data(), 2);
  expectNear(y, {3 * kLn3, 0});
}

TEST(SigmoidGate, Multiplies) {
  Numbers x{4, 4}, gate{kLn3, -kLn3}, y(2);
  SigmoidGate(x.data(), gate.data(), y.data(), 2);
  expectNear(y, {3, 1});
}

TEST(Split, CutsEveryHead) {
  Numbers x{0, 1, 2, 3, 4, 5}, a(4), b(2);
  Split(x.data(), {4, 2}, {a.data(), b.data()}, 1, 2);
  expectNear(a, {0, 1, 3, 4});
  expectNear(b, {2, 5});
}

TEST(Concat, JoinsRows) {
  Numbers a{1, 2}, b{3, 4, 5, 6}, y(6);
  Concat<double>({a.data(), b.data()}, {1, 2}, y.data(), 2);
  expectNear(y, {1, 3, 4, 2, 5, 6});
}

// Two channels in one group, two taps: y_t = (base_0 + coef_t0) x_t + (base_1 + coef_t1) x_{t-1}.
TEST(DynamicConv, AddsTheTokensTapsToTheBase) {
  Numbers x{1, 2, 3, 4}, base{0, 0, 0, 0, 1, 2, 10, 20}, y(4); // index 1: taps (1, 2) and (10, 20)
  Numbers coef{0, 0, 5, 0, 0, 0, 6, 7};                        // index 1: (5, 0) then (6, 7)
  DynamicConv(x.data(), coef.data(), base.data(), y.data(), 2, 2, 2, 2, 1);
  expectNear(y, {6, 14, 7 * 3 + 17 * 1, 8 * 4 + 27 * 2});
}

TEST(Rope, QuarterTurnOfSplitHalves) {
  float quarter = float(M_PI / 2);
  Numbers x{1, 2, 3, 4, 9}, y(5);
  int64_t position = 1;
  Rope(x.data(), &position, y.data(), 1, 1, 5, {quarter, 0.0f}, 1.0);
  expectNear(y, {-3, 2, 1, 4, 9}, 1e-6); // channel 0 pairs with 2, 1 with 3; 4 passes through
  Rope(x.data(), &position, y.data(), 1, 1, 5, {quarter, 0.0f}, 2.0);
  expectNear(y, {-6, 4, 2, 8, 9}, 1e-6);
}

TEST(Rope, ScoresDependOnTheDistanceAlone) {
  Numbers q{0.3, -1.2, 0.7, 2.0}, k{1.1, 0.4, -0.6, 0.9};
  auto score = [&](int64_t p, int64_t j) {
    Numbers a(4), b(4);
    Rope(q.data(), &p, a.data(), 1, 1, 4, {0.5f, 0.125f}, 1.0);
    Rope(k.data(), &j, b.data(), 1, 1, 4, {0.5f, 0.125f}, 1.0);
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  };
  EXPECT_NEAR(score(7, 3), score(104, 100), 1e-12);
  EXPECT_GT(std::abs(score(7, 3) - score(3, 7)), 0.1);
}

// The angle is one f32 product in double too.
TEST(Rope, TheAngleIsF32) {
  Numbers x{1, 0}, y(2);
  int64_t position = 262143;
  float frequency = 0.7f;
  Rope(x.data(), &position, y.data(), 1, 1, 2, {frequency}, 1.0);
  EXPECT_EQ(y[0], std::cos(double(262143.0f * frequency)));
}

AttentionShape heads(std::vector<int64_t> kvMap, int64_t kvHeads, int64_t dim) {
  AttentionShape shape;
  shape.kv_map = std::move(kvMap);
  shape.kv_heads = kvHeads;
  shape.head_dim = dim;
  return shape;
}

// Scores 0 and ln 3 give weights 1/4 and 3/4.
TEST(Attention, SoftmaxOfScaledScores) {
  Numbers q{0, 2 * kLn3}, keys{0, 0.5}, values{8, 4}, y(2);
  Attention(q.data(), keys.data(), values.data(), y.data(), 2, 0, heads({0}, 1, 1));
  expectNear(y, {8, 5});
  AttentionShape halved = heads({0}, 1, 1);
  halved.scale = 0;
  Attention(q.data(), keys.data(), values.data(), y.data(), 2, 0, halved);
  expectNear(y, {8, 6});
}

TEST(Attention, MasksAndWindows) {
  Numbers q(2, 0.0), keys(5, 0.0), values{1, 2, 4, 8, 16}, y(2); // rows at positions 2 and 3, then 4 unseen
  AttentionShape shape = heads({0}, 1, 1);
  Attention(q.data(), keys.data(), values.data(), y.data(), 2, 2, shape);
  expectNear(y, {7.0 / 3, 15.0 / 4});
  shape.window = 2;
  Attention(q.data(), keys.data(), values.data(), y.data(), 2, 2, shape);
  expectNear(y, {3, 6});
  shape.block = true;
  Attention(q.data(), keys.data(), values.data(), y.data(), 2, 2, shape);
  expectNear(y, {14.0 / 3, 6});
}

TEST(Attention, QueryHeadsFollowTheMap) {
  Numbers q{0, 0, 0}, keys{0, 0}, values{5, 7}, y(3);
  Attention(q.data(), keys.data(), values.data(), y.data(), 1, 0, heads({1, 0, 1}, 2, 1));
  expectNear(y, {7, 5, 7});
}

TEST(Attention, LargeScoresDoNotOverflow) {
  std::vector<float> q{1000}, keys{1000, -1000}, values{3, 5}, y(1);
  AttentionShape shape = heads({0}, 1, 1);
  Attention(q.data(), keys.data(), values.data(), y.data(), 1, 1, shape);
  EXPECT_EQ(y[0], 3);
}

double silu(double x) { return x / (1 + std::exp(-x)); }

TEST(CausalConv1d, LastTapIsTheCurrentToken) {
  Numbers x{1, 0, 0, 0}, w{1, 2, 3, 4}, history{0, 0, 0}, y(4);
  CausalConv1d(x.data(), w.data(), history.data(), y.data(), 4, 1, 4);
  expectNear(y, {silu(4), silu(3), silu(2), silu(1)});
  expectNear(history, {0, 0, 0});
}

TEST(CausalConv1d, HistoryKeepsTheLastInputsOfShortCallsToo) {
  Numbers x{5, 6}, w{1, 2, 3, 4, 0, 0, 0, 1}, history{1, 10, 2, 20, 3, 30}, y(2); // two channels, one row
  CausalConv1d(x.data(), w.data(), history.data(), y.data(), 1, 2, 4);
  expectNear(y, {silu(1 + 4 + 9 + 20), silu(6)});
  expectNear(history, {2, 20, 3, 30, 5, 6});
}

TEST(DeltaGates, ClosedForms) {
  Numbers b{kLn3, 0}, a{-1, 30}, aLog{kLn2, 0}, dt{1, 0}, beta(2), g(2);
  DeltaGates(b.data(), a.data(), aLog.data(), dt.data(), beta.data(), g.data(), 1, 2);
  expectNear(beta, {0.75, 0.5});
  expectNear(g, {-2 * kLn2, -30}); // softplus(0) = ln 2; above 20 it is the identity
}

// The test vector of the model specification, 6.6: one head, dk = 3, dv = 2, five tokens.
struct DeltaVector {
  static double f(int i) { return ((37 * i + 11) % 19 - 9) / 7.0; }
  Numbers q = Numbers(15), k = Numbers(15), v = Numbers(10), beta = Numbers(5), g = Numbers(5);
  DeltaVector() {
    Numbers rawQ(15), rawK(15), a(5), b(5), aLog{0.3}, dt{-0.5};
    for (int i = 0; i < 15; ++i) {
      rawQ[i] = f(i);
      rawK[i] = f(50 + i);
    }
    for (int i = 0; i < 10; ++i)
      v[i] = f(90 + i);
    for (int t = 0; t < 5; ++t) {
      a[t] = f(130 + t);
      b[t] = f(150 + t);
    }
    L2Norm(rawQ.data(), q.data(), 5, 3, 1e-6, 1 / std::sqrt(3.0));
    L2Norm(rawK.data(), k.data(), 5, 3, 1e-6, 1);
    DeltaGates(b.data(), a.data(), aLog.data(), dt.data(), beta.data(), g.data(), 5, 1);
  }
};

TEST(GatedDeltaRule, TestVectorOfTheSpecification) {
  DeltaVector in;
  expectNear(in.g, {-1.088012, -0.984721, -0.888302, -0.798756, -0.716013}, 1e-6);
  expectNear(in.beta, {.639093, .605532, .570947, .535654, .5}, 1e-6);
  Numbers state(6), y(10);
  GatedDeltaRule(in.q.data(), in.k.data(), in.v.data(), in.beta.data(), in.g.data(), state.data(), y.data(), 5,
                 {1, 1, 3, 2});
  expectNear(y, {.308027, .264023, -.263570, -.213748, -.181143, -.129538, -.022355, -.041892, .053243, .092743}, 1e-6);
  expectNear(state, {.081333, .091029, .050991, .093424, .020649, .095819}, 1e-6);
}

TEST(GatedDeltaRule, TwoCallsAreOne) {
  DeltaVector in;
  Numbers whole(6), split(6), y(10), z(10);
  DeltaShape shape{1, 1, 3, 2};
  GatedDeltaRule(in.q.data(), in.k.data(), in.v.data(), in.beta.data(), in.g.data(), whole.data(), y.data(), 5, shape);
  GatedDeltaRule(in.q.data(), in.k.data(), in.v.data(), in.beta.data(), in.g.data(), split.data(), z.data(), 2, shape);
  GatedDeltaRule(&in.q[6], &in.k[6], &in.v[4], &in.beta[2], &in.g[2], split.data(), &z[4], 3, shape);
  EXPECT_EQ(whole, split);
  EXPECT_EQ(y, z);
}

// With beta = 1, g = 0 and k of unit length the state then maps k to v, whatever it held: the rule's name.
TEST(GatedDeltaRule, WritesWhatItIsToldAndMapsHeadsInGroups) {
  Numbers q{1, 0, 0, 1}, k = q, v{3, 5, 7, 9}, ones(4, 1.0), zeros(4, 0.0), y(4); // 2 key heads, 4 value heads
  Numbers state(8, 0.25);
  GatedDeltaRule(q.data(), k.data(), v.data(), ones.data(), zeros.data(), state.data(), y.data(), 1, {2, 4, 2, 1});
  expectNear(y, v);
  expectNear(state, {3, 0.25, 5, 0.25, 0.25, 7, 0.25, 9}); // heads 0, 1 write channel 0; heads 2, 3 channel 1
}

TEST(GatedDeltaRule, AnEmptyShareDoesNothing) {
  Numbers nothing;
  GatedDeltaRule(nothing.data(), nothing.data(), nothing.data(), nothing.data(), nothing.data(), nothing.data(),
                 nothing.data(), 3, {0, 0, 8, 8});
}

// Logits ln 1, ln 2, ln 5 and ln 2 over experts: probabilities 1, 2, 5, 2 tenths; the tie goes to expert 1.
TEST(Router, SoftmaxThenTopKTiesToTheLowestId) {
  std::vector<float> w{0, float(kLn2), float(std::log(5.0)), float(kLn2)};
  Numbers x{1}, weights(2);
  std::vector<int32_t> ids(2);
  Router(x.data(), f32(w, 1), weights.data(), ids.data(), 1, 2, false);
  EXPECT_EQ(ids, (std::vector<int32_t>{2, 1}));
  expectNear(weights, {0.5, 0.2}, 1e-7);
  Router(x.data(), f32(w, 1), weights.data(), ids.data(), 1, 2, true);
  expectNear(weights, {5.0 / 7, 2.0 / 7}, 1e-7);
}

// One channel, one inner channel: expert e has gate 1, up u_e, down d_e, so that it gives silu(x) u_e x d_e.
TEST(Experts, WeighsItsOwnShareOnly) {
  std::vector<float> gateUp{1, 2, 1, 3}, down{10, 100}; // experts 1 and 2 of some four
  Numbers x{kLn3}, weights{0.5, 0.25, 0.25}, y(1);
  std::vector<int32_t> ids{2, 0, 1};
  Experts(x.data(), weights.data(), ids.data(), f32(gateUp, 1), f32(down, 1), y.data(), 1, 3, 1, 2);
  double s = 0.75 * kLn3 * kLn3;
  expectNear(y, {0.25 * s * 2 * 10 + 0.5 * s * 3 * 100}, 1e-9);
}

TEST(Experts, NoExpertAddsNothing) {
  Numbers x{1}, weights{1}, y{0};
  std::vector<int32_t> ids{0};
  Experts(x.data(), weights.data(), ids.data(), {nullptr, Type::kF32, 0, 1}, {nullptr, Type::kF32, 0, 1}, y.data(), 1,
          1, 0, 0);
  expectNear(y, {0});
}

TEST(Combine, OneGateAToken) {
  Numbers routed{1, 2, 3, 4}, shared{4, 8, 4, 8}, gate{kLn3, -kLn3}, y(4);
  Combine(routed.data(), shared.data(), gate.data(), y.data(), 2, 2);
  expectNear(y, {4, 8, 4, 6});
}

TEST(LogitRows, KeepsTheRowsAskedFor) {
  Numbers x{1, 2, 3, 4, 5, 6}, y(4);
  LogitRows(x.data(), {2, 0}, y.data(), 2);
  expectNear(y, {5, 6, 1, 2});
}

// Known answers of Random123, kat_vectors, philox 4x32 10.
TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  uint32_t all = 0xffffffff;
  EXPECT_EQ(Philox({all, all, all, all}, {all, all}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

SampleParams drawn(uint64_t seed) {
  SampleParams params;
  params.seed = seed;
  params.greedy = false;
  return params;
}

TEST(Sample, GreedyTiesTakeTheLowestId) {
  Numbers z{1, 3, 3, 2};
  EXPECT_EQ(Sample(z.data(), 4, SampleParams(), 0), 1);
  SampleParams cold = drawn(1);
  cold.temperature = 1e-6;
  EXPECT_EQ(Sample(z.data(), 4, cold, 0), 1);
}

TEST(Sample, MaskAndBiasComeFirst) {
  Numbers z{1, 3, 3, 2};
  SampleParams params;
  params.allowed = {1, 0, 0, 1};
  EXPECT_EQ(Sample(z.data(), 4, params, 0), 3);
  params.bias = {{0, 5.0f}};
  EXPECT_EQ(Sample(z.data(), 4, params, 0), 0);
}

/// Shares of `draws` positions that each id gets.
Numbers shares(const Numbers &z, const SampleParams &params, int draws) {
  Numbers counts(z.size());
  for (int position = 0; position < draws; ++position)
    counts[Sample(z.data(), int64_t(z.size()), params, position)] += 1.0 / draws;
  return counts;
}

// Probabilities 1, 2, 3, 4 tenths. Five standard deviations of 40 000 draws are at most 0.0125.
TEST(Sample, GumbelDrawsTheSoftmax) {
  Numbers z{0, kLn2, kLn3, 2 * kLn2};
  expectNear(shares(z, drawn(7), 40000), {0.1, 0.2, 0.3, 0.4}, 0.0125);
  SampleParams sharp = drawn(8);
  sharp.temperature = 0.5; // squares the odds: 1, 4, 9, 16 of 30
  expectNear(shares(z, sharp, 40000), {1.0 / 30, 4.0 / 30, 9.0 / 30, 16.0 / 30}, 0.0125);
}

TEST(Sample, TopKTopPAndMinPCutTheTail) {
  Numbers z{0, kLn2, kLn3, 2 * kLn2};
  SampleParams params = drawn(9);
  params.top_k = 2;
  expectNear(shares(z, params, 40000), {0, 0, 3.0 / 7, 4.0 / 7}, 0.0125);
  params = drawn(9);
  params.top_p = 0.65; // 0.4 + 0.3 is the smallest sum that reaches it
  expectNear(shares(z, params, 40000), {0, 0, 3.0 / 7, 4.0 / 7}, 0.0125);
  params = drawn(9);
  params.min_p = 0.49; // of 0.4
  expectNear(shares(z, params, 40000), {0, 2.0 / 9, 3.0 / 9, 4.0 / 9}, 0.0125);
  params = drawn(9);
  params.top_p = 1e-9; // one is always left
  expectNear(shares(z, params, 100), {0, 0, 0, 1});
}

TEST(Sample, DependsOnSeedPositionAndChoiceAlone) {
  Numbers z(64, 0.0);
  SampleParams params = drawn(0x123456789abcdef0), other = params;
  other.choice = 1;
  int samePosition = 0, sameChoice = 0;
  for (int position = 0; position < 64; ++position) {
    int32_t id = Sample(z.data(), 64, params, position);
    EXPECT_EQ(id, Sample(z.data(), 64, params, position));
    samePosition += id == Sample(z.data(), 64, params, position + 1);
    sameChoice += id == Sample(z.data(), 64, other, position);
  }
  EXPECT_LT(samePosition, 8);
  EXPECT_LT(sameChoice, 8);
}

TEST(Accept, CountsAgreeingDrafts) {
  std::vector<int32_t> ids{9, 4, 5, 6};
  EXPECT_EQ(Accept(std::vector<int32_t>{4, 5, 7, 8}.data(), ids.data(), 4), 2);
  EXPECT_EQ(Accept(std::vector<int32_t>{3, 5, 6, 8}.data(), ids.data(), 4), 0);
  EXPECT_EQ(Accept(std::vector<int32_t>{4, 5, 6, 8}.data(), ids.data(), 4), 3);
  EXPECT_EQ(Accept(std::vector<int32_t>{4}.data(), ids.data(), 1), 0);
}

// Three ids, rank 1. From id 0 (pred 1) the edge favours id 2 by 10 * hidden; from id 2 (pred -1) it counts against.
TEST(CandidateWalk, EachStepStartsFromTheLast) {
  std::vector<float> predecessor{1, 0, -1}, successor{0, 0, 10};
  Numbers logits{5, 6, 0, 5, 6, 7}, hidden{1, 1};
  std::vector<int32_t> next(2);
  CandidateWalk(logits.data(), hidden.data(), 0, f32(predecessor, 1), f32(successor, 1), next.data(), 2, 3);
  EXPECT_EQ(next, (std::vector<int32_t>{2, 1}));
  CandidateWalk(logits.data(), hidden.data(), 0, f32(predecessor, 1), f32(successor, 1), next.data(), 2, 2);
  EXPECT_EQ(next, (std::vector<int32_t>{1, 2})); // id 2 is no candidate of row 0; from id 1 the edges are 0
}

TEST(AllReduce, AddsInRankOrder) {
  std::vector<float> a{1e8f}, b{-1e8f}, c{1}, y(1);
  AllReduce<float>({a.data(), b.data(), c.data()}, y.data(), 1);
  EXPECT_EQ(y[0], 1);
  AllReduce<float>({a.data(), c.data(), b.data()}, y.data(), 1);
  EXPECT_EQ(y[0], 0);
}

} // namespace
} // namespace qwen::reference
