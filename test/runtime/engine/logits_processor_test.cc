// Bans, bias, penalties in their order, and that the host's draw is the plan's, bit for bit.
#include "runtime/engine/logits_processor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace qwen::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(LogitsProcessor, AsksForTheRowsThatItChanges) {
  Request request;
  EXPECT_FALSE(LogitsProcessor(request).Needed(0, -1));
  request.min_tokens = 2;
  EXPECT_FALSE(LogitsProcessor(request).Needed(0, -1)) << "nothing is banned";
  request.banned_until_min = {3};
  EXPECT_TRUE(LogitsProcessor(request).Needed(1, -1));
  EXPECT_FALSE(LogitsProcessor(request).Needed(2, -1));
  request.presence_penalty = 1;
  EXPECT_TRUE(LogitsProcessor(request).Needed(2, -1));
  Request biased;
  biased.logit_bias = {{1, 0.5f}};
  EXPECT_TRUE(LogitsProcessor(biased).Needed(9, -1));
}

// A draw from the logits as they are stands unless it was banned: it is the draw from what the bans leave.
TEST(LogitsProcessor, BansThatWereNotHitChangeNothing) {
  constexpr int kVocab = 60;
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal(0, 2);
  RowSampler sampler(kVocab, kernels::DetectIsa());
  int stood = 0, hit = 0;
  for (int row = 0; row < 400; ++row) {
    Request request;
    request.sampling.temperature = row % 2 == 0 ? 0 : 0.5f * static_cast<float>(row % 5 + 1);
    request.sampling.seed = random();
    if (row % 2 == 0) request.sampling.top_k = 4;  // greedy looks at none of them
    for (int32_t id = 0; id < 12; ++id) request.logit_bias.emplace_back(id * 5, -100.0f);
    if (row % 3 == 0) request.banned_until_min = {1, 2, 3}, request.min_tokens = 9;
    LogitsProcessor processor(request);
    std::vector<float> logits(kVocab);
    for (float& logit : logits) logit = normal(random);
    const kernels::SampleParams params = MakeSampleParams(request.sampling);
    const int32_t plain = sampler.Draw(params, logits, row);
    processor.Apply(logits, /*drawn=*/2);
    const int32_t adjusted = sampler.Draw(params, logits, row);
    if (processor.Needed(2, plain)) {
      EXPECT_NE(adjusted, plain);
      ++hit;
    } else {
      EXPECT_EQ(adjusted, plain) << row;
      ++stood;
    }
  }
  EXPECT_GT(stood, 100);
  EXPECT_GT(hit, 50);

  Request truncated;
  truncated.sampling = {.temperature = 1, .top_k = 4};
  truncated.logit_bias = {{0, -100.0f}};
  EXPECT_TRUE(LogitsProcessor(truncated).Needed(0, 1)) << "another id takes the banned one's place among the four";
  truncated.sampling.top_k = 0;
  truncated.logit_bias.emplace_back(5, 1.0f);
  EXPECT_TRUE(LogitsProcessor(truncated).Needed(0, 1)) << "a bias is not a ban";
}

TEST(LogitsProcessor, BansThenBiasThenPenalties) {
  Request request;
  request.banned_until_min = {0};
  request.min_tokens = 3;
  request.logit_bias = {{1, 2.0f}, {2, -100.0f}, {3, -99.0f}};
  request.repetition_penalty = 2;
  request.frequency_penalty = 0.25f;
  request.presence_penalty = 0.5f;
  LogitsProcessor processor(request);
  processor.AddPrompt(std::vector<int32_t>{1, 4, 4}, 8);
  processor.AddDrawn(5);
  processor.AddDrawn(5);
  processor.AddDrawn(6);
  std::vector<float> logits = {9, 2, 3, 4, -1, 8, -3, 7};
  processor.Apply(logits, /*drawn=*/2);
  // 1: (2 + 2) / 2, in the prompt only; 4: the prompt's, negative, so times 2; 5: 8 / 2 - 2 * 0.25 - 0.5;
  // 6: -3 * 2 - 0.25 - 0.5.
  EXPECT_EQ(logits, (std::vector<float>{-kInf, 2, -kInf, -95, -2, 3, -6.75f, 7}));
  std::vector<float> later = {9, 2, 3, 4, -1, 8, -3, 7};
  processor.Apply(later, /*drawn=*/3);
  EXPECT_EQ(later[0], 9);
}

TEST(Logits, NanAndInfinityAreRefusedMinusInfinityIsNot) {
  EXPECT_TRUE(CheckLogits(std::vector<float>{1, -kInf, 0}).ok());
  EXPECT_EQ(CheckLogits(std::vector<float>{1, std::nanf(""), 0}).message(), "logit 1 of 3 is nan");
  EXPECT_FALSE(CheckLogits(std::vector<float>{1, 2, kInf}).ok());
}

TEST(Logprobs, AreTheSoftmaxOfTheRawLogits) {
  // Logits log 1, log 2, log 4, log 1: probabilities 1/8, 1/4, 1/2, 1/8.
  std::vector<float> logits = {0, std::log(2.0f), std::log(4.0f), 0};
  TokenLogprobs result;
  ComputeLogprobs(logits, 1, 3, 0, &result);
  EXPECT_NEAR(result.logprob, std::log(0.25), 1e-6);
  ASSERT_EQ(result.top.size(), 3u);
  EXPECT_EQ(result.top[0].first, 2);
  EXPECT_EQ(result.top[1].first, 1);
  EXPECT_EQ(result.top[2].first, 0) << "ties go to the lower id";
  EXPECT_NEAR(result.top[2].second, std::log(0.125), 1e-6);
  // Ids past the vocabulary weigh in but are not named.
  ComputeLogprobs(logits, 0, 9, 2, &result);
  ASSERT_EQ(result.top.size(), 2u);
  EXPECT_EQ(result.top[0].first, 1);
  EXPECT_NEAR(result.logprob, std::log(0.125), 1e-6);
  ComputeLogprobs(logits, 3, 0, 0, &result);
  EXPECT_TRUE(result.top.empty());
  logits[0] = -kInf;
  ComputeLogprobs(logits, 0, 0, 0, &result);
  EXPECT_EQ(result.logprob, -kInf);
}

TEST(Logprobs, SumInDouble) {
  // 2^20 equal logits: an f32 sum of exps would be as good, were it not for the one large term in front.
  std::vector<float> logits((1 << 20) + 1, 0.0f);
  logits[0] = std::log(16777216.0f);
  TokenLogprobs result;
  ComputeLogprobs(logits, 1, 0, 0, &result);
  EXPECT_NEAR(result.logprob, -std::log(16777216.0 + (1 << 20)), 1e-5);
}

// The plan's launch: many rows, several sequences, all threads' shares.
TEST(RowSampler, DrawsAsThePlanDoes) {
  constexpr int kVocab = 1000, kRows = 60;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kRows * kVocab);
  for (float& logit : logits) logit = normal(random);
  std::vector<int> cu_tokens = {0, 1, 21, 60}, position = {17, 0, 300}, logit_rows;
  std::vector<kernels::SampleParams> params;
  for (int row = 0; row < kRows; ++row) {
    logit_rows.push_back(row);
    SamplingOptions options;
    options.temperature = row % 4 == 0 ? 0 : 0.3f * static_cast<float>(row % 7 + 1);
    options.top_k = row % 3 == 0 ? 40 : 0;
    options.top_p = row % 5 == 0 ? 0.9f : 1;
    options.min_p = row % 6 == 0 ? 0.05f : 0;
    options.seed = random();
    options.choice = row % 3;
    params.push_back(MakeSampleParams(options, false, row % 2 == 0 ? 700 : 0));
  }
  kernels::SampleSpec spec{kVocab};
  std::vector<int> next(kRows, -2);
  void* args[kernels::kSampleArgs] = {};
  args[kernels::kSampleLogits] = logits.data();
  args[kernels::kSampleNext] = next.data();
  kernels::BatchView batch{};
  batch.num_seqs = 3, batch.num_short = 1, batch.num_tokens = batch.num_logit_rows = kRows;
  batch.cu_tokens = cu_tokens.data(), batch.position = position.data(), batch.logit_rows = logit_rows.data();
  batch.sample = params.data();
  kernels::Launch launch{};
  std::vector<uint64_t> scratch(
      static_cast<size_t>(kernels::FindKernel("sample")->workspace(&spec, kRows).scratch / 8 + 1));
  launch.batch = &batch, launch.args = args, launch.ranks = 1, launch.threads = 2;
  launch.scratch = reinterpret_cast<unsigned char*>(scratch.data());
  for (launch.thread = 0; launch.thread < 2; ++launch.thread)
    kernels::FindBody("sample", kernels::Isa::kBase)(&spec, launch);

  int distinct = 0;
  for (kernels::Isa isa : kernels::kAllIsas) {
    if (!kernels::IsaSupported(isa)) continue;
    RowSampler sampler(kVocab, isa);
    for (int row = 0; row < kRows; ++row) {
      const int s = row < 1 ? 0 : row < 21 ? 1 : 2;
      EXPECT_EQ(sampler.Draw(params[static_cast<size_t>(row)],
                             std::span<const float>(logits).subspan(static_cast<size_t>(row) * kVocab, kVocab),
                             position[static_cast<size_t>(s)] + row - cu_tokens[static_cast<size_t>(s)]),
                next[static_cast<size_t>(row)])
          << row << " " << kernels::IsaName(isa);
      if (row % 2 == 0) EXPECT_LT(next[static_cast<size_t>(row)], 700);
      distinct += row % 2 == 1 && next[static_cast<size_t>(row)] >= 700;
    }
  }
  EXPECT_GT(distinct, 0) << "ids from 700 on are drawn where they may be";
  RowSampler sampler(kVocab, kernels::Isa::kBase);
  std::vector<float> none(kVocab, -kInf);
  EXPECT_EQ(sampler.Draw(params[0], none, 0), -1);
  EXPECT_EQ(sampler.Draw(params[1], none, 0), -1);
}

}  // namespace
}  // namespace qwen::engine
