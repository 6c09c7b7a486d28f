// elementwise: every op against the oracle.
#include "runtime/kernels/elementwise/elementwise.h"

#include <fmt/format.h>

#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16, kI = DType::kI32;

ElementwiseSpec SpecOf(ElementwiseOp op, std::vector<int> in, std::vector<int> out, DType type) {
  ElementwiseSpec s{};
  s.op = static_cast<int>(op), s.inputs = static_cast<int>(in.size()), s.outputs = static_cast<int>(out.size());
  for (int i = 0; i < s.inputs; ++i) s.in_channels[i] = in[i], s.in_type[i] = type;
  for (int o = 0; o < s.outputs; ++o) s.out_channels[o] = out[o], s.out_type[o] = type;
  return s;
}

class ElementwiseTest : public IsaTest {
 protected:
  /// Runs on every number of threads; the results of one.
  std::vector<Array> RunAll(const ElementwiseSpec& s, std::vector<Array>& in, const Batch& batch,
                            std::vector<int64_t> rows) {
    std::vector<Array> first;
    for (int threads : ThreadsOf(GetParam())) {
      std::vector<Array> out;
      for (int o = 0; o < s.outputs; ++o) out.emplace_back(s.out_type[o], rows[o] * s.out_channels[o]);
      BatchView view = batch.View();
      BodyCall run{.entry = "elementwise", .batch = &view};
      for (Array& array : in) run.args.push_back(array.data());
      for (Array& array : out) run.args.push_back(array.data());
      RunBody(GetParam(), run, s, threads);
      if (threads == 1) first = out;
      EXPECT_TRUE(out == first) << threads << " threads";
    }
    return first;
  }
};

TEST_P(ElementwiseTest, Pairs) {
  for (ElementwiseOp op : {ElementwiseOp::kAdd, ElementwiseOp::kSiluMul, ElementwiseOp::kSigmoidGate})
    for (DType type : {kF, kB})
      for (int tokens : {0, 1, 20}) {
        SCOPED_TRACE(fmt::format("op {} {} {} tokens", static_cast<int>(op), DTypeName(type), tokens));
        Random random(tokens);
        const int64_t count = 33LL * tokens;
        std::vector<Array> in = {Array(type, random.Fill(count, 30)), Array(type, random.Fill(count, 3))};
        Values x = in[0].Get(), z = in[1].Get(), want(count);
        if (op == ElementwiseOp::kAdd) reference::Add(x.data(), z.data(), want.data(), count);
        if (op == ElementwiseOp::kSiluMul) reference::SiluMul(x.data(), z.data(), want.data(), count);
        if (op == ElementwiseOp::kSigmoidGate) reference::SigmoidGate(x.data(), z.data(), want.data(), count);
        auto out = RunAll(SpecOf(op, {33, 33}, {33}, type), in, Batch::OfRows(tokens), {tokens});
        ExpectNear(out[0].Get(), want, Tolerance(type, 4), "y");
      }
}

TEST_P(ElementwiseTest, SplitAndConcat) {
  Random random(2);
  for (DType type : {kF, kB}) {
    std::vector<Array> x = {Array(type, random.Fill(5 * 60))};
    for (int heads : {1, 3}) {
      Values a(5 * 30), b(5 * 12), c(5 * 18);
      reference::Split(x[0].Get().data(), {30, 12, 18}, {a.data(), b.data(), c.data()}, 5, heads);
      ElementwiseSpec s = SpecOf(ElementwiseOp::kSplit, {60}, {30, 12, 18}, type);
      s.heads = heads;
      auto parts = RunAll(s, x, Batch::OfRows(5), {5, 5, 5});
      EXPECT_EQ(parts[0].Get(), a);
      EXPECT_EQ(parts[1].Get(), b);
      EXPECT_EQ(parts[2].Get(), c);
    }
    std::vector<Array> in = {Array(type, random.Fill(5 * 8)), Array(type, random.Fill(5 * 3))};
    Values want(5 * 11);
    Values first = in[0].Get(), second = in[1].Get();
    reference::Concat<double>({first.data(), second.data()}, {8, 3}, want.data(), 5);
    EXPECT_EQ(RunAll(SpecOf(ElementwiseOp::kConcat, {8, 3}, {11}, type), in, Batch::OfRows(5), {5})[0].Get(), want);
  }
}

TEST_P(ElementwiseTest, LogitRows) {
  Random random(3);
  std::vector<Array> x = {Array(kB, random.Fill(9 * 20))};
  Batch batch = Batch::OfRows(9);
  batch.logit_rows = {0, 4, 8};
  ElementwiseSpec s = SpecOf(ElementwiseOp::kLogitRows, {20}, {20}, kB);
  s.logit_rows = 1;
  Values want(3 * 20);
  reference::LogitRows(x[0].Get().data(), {0, 4, 8}, want.data(), 20);
  EXPECT_EQ(RunAll(s, x, batch, {3})[0].Get(), want);
}

TEST_P(ElementwiseTest, AcceptCountsThePrefixThatAgrees) {
  // Short: all agree; none; two of three; a row without a draft; one whose last row alone is wanted; padding. Then a
  // prompt.
  Batch batch;
  batch.Add(3), batch.Add(2), batch.Add(4), batch.Add(1), batch.Add(2), batch.Add(1, 0, -1, -1), batch.Add(6);
  batch.num_short = 6;
  batch.token_ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 20, 21, 22, 23, 24, 25};
  batch.logit_rows = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 18};
  std::vector<Array> next = {Array(kI, Values{2, 3, 30, 99, 31, 7, 8, 98, 32, 33, 97, 34})};
  ElementwiseSpec s = SpecOf(ElementwiseOp::kAccept, {1}, {1, 1}, kI);
  auto out = RunAll(s, next, batch, {6, 6});
  EXPECT_EQ(out[0].Get(0, 5), (Values{2, 0, 2, 0, 0}));
  EXPECT_EQ(out[1].Get(0, 5), (Values{30, 99, 98, 33, -1}));
  EXPECT_EQ(out[0].At(5), -1) << "padding was written";  // as the array began
  const int32_t drawn[] = {7, 8, 98, 32}, ids[] = {6, 7, 8, 9};
  EXPECT_EQ(reference::Accept(drawn, ids, 4), 2);
}

TEST_P(ElementwiseTest, DynamicConvStartsAtEachBlock) {
  const int channels = 24, taps = 3, group = 8;
  for (int index : {0, 1})
    for (DType type : {kF, kB}) {
      ElementwiseSpec s =
          SpecOf(ElementwiseOp::kDynamicConv, {channels, 2 * taps * channels / group, channels}, {channels}, type);
      s.group = group, s.taps = taps, s.index = index;
      Random random(index);
      const int rows[] = {1, 5, 2}, tokens = 8;
      Batch batch;
      for (int n : rows) batch.Add(n);
      std::vector<Array> in = {Array(type, random.Fill(tokens * channels)),
                               Array(type, random.Fill(tokens * s.in_channels[1])),
                               Array(type, random.Fill(2 * taps * channels))};
      Values x = in[0].Get(), coef = in[1].Get(), base = in[2].Get(), want(tokens * channels);
      int first = 0;
      for (int n : rows) {
        reference::DynamicConv(x.data() + first * channels, coef.data() + first * s.in_channels[1], base.data(),
                               want.data() + first * channels, n, channels, taps, group, index);
        first += n;
      }
      ExpectNear(RunAll(s, in, batch, {tokens})[0].Get(), want, Tolerance(type, 4 * taps),
                 fmt::format("index {}", index));
    }
}

TEST_P(ElementwiseTest, CandidateWalkFollowsItsOwnChoices) {
  const int vocab = 50, rank = 6;
  for (int candidates : {1, 4, 50}) {
    ElementwiseSpec s = SpecOf(ElementwiseOp::kCandidateWalk, {vocab, rank, rank, rank}, {1}, kF);
    s.out_type[0] = kI, s.candidates = candidates, s.logit_rows = 1;
    Random random(candidates);
    Batch batch;
    batch.Add(4), batch.Add(3);
    for (int& id : batch.token_ids) id = random.Int(0, vocab - 1);
    batch.logit_rows = {1, 2, 3, 5, 6};  // the anchor's own row is not asked
    std::vector<Array> in = {Array(kF, random.Fill(5 * vocab, 2)), Array(kF, random.Fill(5 * rank)),
                             Array(kF, random.Fill(vocab * rank, 2)), Array(kF, random.Fill(vocab * rank, 2))};
    Values logits = in[0].Get(), hidden = in[1].Get();
    const reference::Weight pred{in[2].data(), reference::Type::kF32, vocab, rank},
        succ{in[3].data(), reference::Type::kF32, vocab, rank};
    int32_t want[5];
    reference::CandidateWalk(logits.data(), hidden.data(), batch.token_ids[0], pred, succ, want, 3, candidates);
    reference::CandidateWalk(logits.data() + 3 * vocab, hidden.data() + 3 * rank, batch.token_ids[4], pred, succ,
                             want + 3, 2, candidates);
    EXPECT_EQ(RunAll(s, in, batch, {5})[0].Get(), Values(want, want + 5)) << candidates;
  }
}

QWEN_FOR_EVERY_ISA_AND_CUDA(ElementwiseTest);

}  // namespace
}  // namespace qwen::kernels::conformance
