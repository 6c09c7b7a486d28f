// all_reduce and all_gather: every rank ends with the same bits, empty shares included.
#include <fmt/format.h>

#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

class AllReduceTest : public IsaTest {};

TEST_P(AllReduceTest, EveryRankHasTheOraclesSum) {
  for (int ranks : {1, 2, 3, 5})
    for (int channels : {1, 40, 65})
      for (DType type : {kF, kB})
        for (int residual : {0, 1})
          for (int norm : {0, 1})
            for (int tokens : {0, 1, 10}) {
              SCOPED_TRACE(fmt::format("{} ranks, {} channels {}, residual {}, norm {}, {} tokens", ranks, channels,
                                       DTypeName(type), residual, norm, tokens));
              const AllReduceSpec s{channels, residual, norm, type == kB, 1e-6f, type};
              const int64_t count = 1LL * tokens * channels;
              Random random(ranks + channels);
              std::vector<Array> parts;
              std::vector<const void*> peers;
              std::vector<Values> values;
              std::vector<const double*> pointers;
              for (int r = 0; r < ranks; ++r) parts.emplace_back(kF, random.Fill(count));
              for (Array& part : parts) peers.push_back(part.data()), values.push_back(part.Get());
              for (Values& v : values) pointers.push_back(v.data());
              Array rest(type, random.Fill(count)), w(kF, random.Fill(channels, 2));
              Values sum(count), y(count);
              reference::AllReduce(pointers, sum.data(), count);
              if (residual) reference::Add(Values(sum).data(), rest.Get().data(), sum.data(), count);

              Array first_sum, first_y;
              Batch batch = Batch::OfRows(tokens);
              BatchView view = batch.View();
              for (int rank = 0; rank < ranks; ++rank)
                for (int threads : ThreadsOf(GetParam())) {
                  Array out(type, count), normed(type, norm ? count : 0);
                  RunBody(GetParam(),
                          {.entry = "all_reduce",
                           .args = {parts[rank].data(), residual ? rest.data() : nullptr, norm ? w.data() : nullptr,
                                    out.data(), norm ? normed.data() : nullptr},
                           .batch = &view,
                           .peers = peers,
                           .rank = rank},
                          s, threads);
                  if (rank == 0 && threads == 1) first_sum = out, first_y = normed;
                  EXPECT_TRUE(out == first_sum && normed == first_y)
                      << "rank " << rank << ", " << threads << " threads";
                }
              // A sum of numbers of either sign may be small beside them, and is rounded twice with a residual.
              ExpectNear(first_sum.Get(), sum, 2 * Tolerance(type, 4 * ranks), "sum");
              if (norm) {
                reference::RmsNorm(first_sum.Get().data(), w.Get().data(), y.data(), tokens, channels, s.eps,
                                   reference::Type::kF32);
                ExpectNear(first_y.Get(), y, Tolerance(type, channels), "y");
              }
            }
}

TEST_P(AllReduceTest, OrderIsTheRanks) {
  // 1e8 + 1 - 1e8 in f32: 0 in this order, 1 in others.
  const AllReduceSpec s{1, 0, 0, 0, 1e-6f, kF};
  Array a(kF, Values{1e8}), b(kF, Values{1}), c(kF, Values{-1e8}), y(kF, 1);
  Batch batch = Batch::OfRows(1);
  BatchView view = batch.View();
  RunBody(GetParam(),
          {.entry = "all_reduce",
           .args = {b.data(), nullptr, nullptr, y.data(), nullptr},
           .batch = &view,
           .peers = {a.data(), b.data(), c.data()},
           .rank = 1},
          s, 1);
  EXPECT_EQ(y.At(0), 0);
}

class AllGatherTest : public IsaTest {};

TEST_P(AllGatherTest, JoinsRaggedShares) {
  const AllGatherSpec s{4, {64, 0, 37, 5}};
  Batch batch = Batch::OfRows(7);
  batch.logit_rows = {0, 3, 6};
  BatchView view = batch.View();
  Random random(1);
  std::vector<Array> parts;
  std::vector<const void*> peers;
  for (int r = 0; r < 4; ++r) parts.emplace_back(kF, random.Fill(3LL * s.counts[r]));
  for (Array& part : parts) peers.push_back(part.data());
  peers[1] = nullptr;
  for (int threads : ThreadsOf(GetParam())) {
    Array y(kF, 3 * 106);
    RunBody(GetParam(),
            {.entry = "all_gather", .args = {parts[2].data(), y.data()}, .batch = &view, .peers = peers, .rank = 2}, s,
            threads);
    for (int n = 0; n < 3; ++n) {
      Values want;
      for (int r = 0; r < 4; ++r) {
        Values part = parts[r].Get(1LL * n * s.counts[r], s.counts[r]);
        want.insert(want.end(), part.begin(), part.end());
      }
      EXPECT_EQ(y.Get(n * 106, 106), want);
    }
  }
}

QWEN_FOR_EVERY_ISA_AND_CUDA(AllReduceTest);
QWEN_FOR_EVERY_ISA_AND_CUDA(AllGatherTest);

}  // namespace
}  // namespace qwen::kernels::conformance
