#include "runtime/exec/batch_block.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace qwen::exec {
namespace {

constexpr plan::Capacity kCapacity{.max_num_seqs = 3, .max_num_batched_tokens = 8, .max_rows = 2, .max_logit_rows = 4};
constexpr kernels::SampleParams kGreedy{0x123456789abcdef0, 0, 0, kernels::kSampleGreedy, 1, 1, 0.5f, -1, 0, 0, 0};

const std::vector<int32_t> kTokens = {10, 11, 12, 13, 14, 15, 16, 17, 18};

SequenceRows Rows(int count, std::span<const int32_t> logit_rows = {},
                  std::span<const kernels::SampleParams> sample = {}) {
  SequenceRows rows;
  rows.tokens = std::span(kTokens).first(count);
  rows.logit_rows = logit_rows, rows.sample = sample;
  rows.state_slot = rows.table_row = 0;
  return rows;
}

TEST(BatchBlock, HoldsWhatWasAdded) {
  BatchBlock block(kCapacity, /*max_pages=*/5);
  const std::vector<int32_t> both = {0, 1}, last = {2};
  const std::vector<kernels::SampleParams> two(2, kGreedy), one(1, kGreedy);

  SequenceRows shorter = Rows(2, both, two);
  shorter.position = 40, shorter.state_slot = 7, shorter.table_row = 2, shorter.ring_fill = 3, shorter.fold = true;
  SequenceRows longer = Rows(3, last, one);
  longer.position = 64, longer.state_slot = 1, longer.table_row = 1;
  block.SetPage(2, 4, 99);
  ASSERT_TRUE(block.AddShort(shorter).ok());
  ASSERT_TRUE(block.AddLong(longer).ok());

  kernels::BatchView view = block.View();
  auto ints = [](const int* p, int count) { return std::vector<int>(p, p + count); };
  EXPECT_EQ(view.num_seqs, 2);
  EXPECT_EQ(view.num_short, 1);
  EXPECT_EQ(view.num_tokens, 5);
  EXPECT_EQ(view.num_logit_rows, 3);
  EXPECT_EQ(ints(view.cu_tokens, 3), (std::vector<int>{0, 2, 5}));
  EXPECT_EQ(ints(view.token_ids, 5), (std::vector<int>{10, 11, 10, 11, 12}));
  EXPECT_EQ(ints(view.position, 2), (std::vector<int>{40, 64}));
  EXPECT_EQ(ints(view.state_slot, 2), (std::vector<int>{7, 1}));
  EXPECT_EQ(ints(view.table_row, 2), (std::vector<int>{2, 1}));
  EXPECT_EQ(ints(view.ring_fill, 2), (std::vector<int>{3, 0}));
  EXPECT_EQ(ints(view.fold, 2), (std::vector<int>{1, 0}));
  EXPECT_EQ(ints(view.logit_rows, 3), (std::vector<int>{0, 1, 4}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(view.sample[i].seed, kGreedy.seed);
    EXPECT_EQ(view.sample[i].min_p, 0.5f);
  }
  EXPECT_EQ(view.max_pages, 5);
  EXPECT_EQ(view.page_table[2 * 5 + 4], 99);
}

TEST(BatchBlock, ClearForgetsTheBatchAndKeepsThePages) {
  BatchBlock block(kCapacity, 5);
  block.SetPage(1, 0, 12);
  ASSERT_TRUE(block.AddLong(Rows(3)).ok());
  block.Clear();
  EXPECT_EQ(block.num_tokens(), 0);
  EXPECT_EQ(block.num_seqs(), 0);
  EXPECT_EQ(block.View().page_table[5], 12);
  ASSERT_TRUE(block.AddShort(Rows(1)).ok());  // short after a long one that is gone
  EXPECT_EQ(block.View().num_short, 1);
  EXPECT_EQ(block.View().cu_tokens[1], 1);
}

TEST(BatchBlock, SeedsAreAligned) {
  BatchBlock block({.max_num_seqs = 1, .max_num_batched_tokens = 1, .max_rows = 1, .max_logit_rows = 1}, 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block.View().sample) % 8, 0u);
}

// A plan without a bound of its own on logit rows takes one a row.
TEST(BatchBlock, NoLogitBoundMeansEveryRow) {
  BatchBlock block({.max_num_seqs = 1, .max_num_batched_tokens = 2, .max_rows = 1, .max_logit_rows = 0}, 1);
  const std::vector<int32_t> both = {0, 1};
  const std::vector<kernels::SampleParams> two(2, kGreedy);
  EXPECT_TRUE(block.AddLong(Rows(2, both, two)).ok());
}

// Every refusal names both numbers and leaves the batch as it was.
TEST(BatchBlock, RefusesWhatDoesNotFit) {
  BatchBlock block(kCapacity, 5);
  ASSERT_TRUE(block.AddLong(Rows(3)).ok());
  auto refused = [&](const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(block.num_seqs(), 1);
    EXPECT_EQ(block.num_tokens(), 3);
    EXPECT_EQ(block.num_logit_rows(), 0);
    EXPECT_EQ(block.View().cu_tokens[1], 3);
    return status.message();
  };
  EXPECT_EQ(refused(block.AddShort(Rows(1))), "batch: a short sequence after 1 long ones: short ones go first");
  EXPECT_EQ(refused(block.AddLong(Rows(6))), "batch: 9 rows, the plan takes 8");
  EXPECT_EQ(refused(block.AddLong(Rows(0))), "batch: a sequence of 0 rows, want at least 1");

  const std::vector<int32_t> five = {0, 1, 2, 3, 4}, backwards = {1, 0}, beyond = {3};
  const std::vector<kernels::SampleParams> sample(5, kGreedy);
  EXPECT_EQ(refused(block.AddLong(Rows(5, five, sample))), "batch: 5 logit rows, the plan takes 4");
  EXPECT_EQ(refused(block.AddLong(Rows(3, backwards, sample))), "batch: 2 logit rows with 5 sampling settings");
  EXPECT_EQ(refused(block.AddLong(Rows(3, backwards, std::span(sample).first(2)))),
            "batch: logit row 0 after 1 in a sequence of 3 rows");
  EXPECT_EQ(refused(block.AddLong(Rows(3, beyond, std::span(sample).first(1)))),
            "batch: logit row 3 after -1 in a sequence of 3 rows");
  SequenceRows ring = Rows(1);
  ring.position = 2, ring.ring_fill = 3;
  EXPECT_EQ(refused(block.AddLong(ring)), "batch: slot 0, table row 0 of 3, position 2 with 3 ring rows");

  ASSERT_TRUE(block.AddLong(Rows(1)).ok());
  ASSERT_TRUE(block.AddLong(Rows(1)).ok());
  EXPECT_EQ(block.AddLong(Rows(1)).message(), "batch: 4 sequences, the plan takes 3");
  block.Clear();
  EXPECT_EQ(block.AddShort(Rows(3)).message(), "batch: a short sequence of 3 rows, the plan takes 2");
}

}  // namespace
}  // namespace qwen::exec
