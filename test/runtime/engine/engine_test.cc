// Steps, generation and logits over the toy model: whatever shares a step, every prompt gets what it gets alone.
#include "runtime/engine/engine.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>

#include "runtime/engine/generate.h"
#include "runtime/engine/logits.h"
#include "test/runtime/engine/toy_executor.h"

namespace qwen::engine {
namespace {

std::vector<int32_t> RandomTokens(std::mt19937_64& random, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % kToyVocab));
  return tokens;
}

struct World {
  explicit World(plan::Plan made, int num_pages = 64, int num_slots = 4) : plan(std::move(made)) {
    auto owned = std::make_unique<ToyExecutor>(plan, num_pages, num_slots);
    executor = owned.get();
    engine = std::make_unique<Engine>(plan, std::move(owned), num_pages, num_slots);
  }
  bool NothingTaken() const {
    Pools& pools = engine->pools();
    return pools.pages.free() == pools.pages.count() && pools.slots.free() == pools.slots.count() &&
           pools.table_rows.free() == pools.table_rows.count();
  }

  plan::Plan plan;
  ToyExecutor* executor;
  std::unique_ptr<Engine> engine;
};

std::vector<int32_t> Continue(std::vector<int32_t> tokens, int count) {
  std::vector<int32_t> drawn;
  for (int i = 0; i < count; ++i) {
    drawn.push_back(ToyNext(tokens));
    tokens.push_back(drawn.back());
  }
  return drawn;
}

// --- Step ------------------------------------------------------------------------------------------------------------

TEST(Engine, ShortRowsGoFirstAndOutputsAreFound) {
  World world(ToyPlan(/*max_rows=*/4));
  Sequence a = *world.engine->Begin(), b = *world.engine->Begin(), c = *world.engine->Begin();
  std::vector<int32_t> ta = {5, 6, 7}, tb = {9}, tc = {1, 2};
  std::vector<int32_t> last = {2}, first = {0}, both = {0, 1};
  StepEntry entries[3];
  entries[0].sequence = &a, entries[0].tokens = ta, entries[0].logit_rows = last;
  entries[1].sequence = &b, entries[1].tokens = tb, entries[1].logit_rows = first;
  entries[2].sequence = &c, entries[2].tokens = tc, entries[2].logit_rows = both;
  StatusOr<exec::Outputs> outputs = world.engine->Step(entries);
  ASSERT_TRUE(outputs.ok()) << outputs.status().message();
  EXPECT_EQ(world.executor->programs, std::vector<std::string>{"step"});
  EXPECT_EQ(entries[0].first_row, 1);
  EXPECT_EQ(entries[1].first_row, 0);
  EXPECT_EQ(entries[1].short_index, 0);
  EXPECT_EQ(entries[2].first_logit_row, 2);
  EXPECT_EQ(outputs->next[1], ToyNext(ta));
  EXPECT_EQ(outputs->next[0], ToyNext(tb));
  EXPECT_EQ(outputs->next[2], ToyNext(std::vector<int32_t>{1}));
  EXPECT_EQ(outputs->next[3], ToyNext(tc));
  a.Commit(3), b.Commit(1), c.Commit(2);

  // Two rows that may be dropped again: the verify program.
  entries[2].part = Part::kShort;
  ASSERT_TRUE(world.engine->Step({entries + 2, 1}).ok());
  EXPECT_EQ(world.executor->programs.back(), "verify");
  c.Commit(1);
  EXPECT_EQ(c.position(), 3);
}

TEST(Engine, RefusedStepLeavesSequencesAsTheyWere) {
  World world(ToyPlan(1), /*num_pages=*/2);
  std::mt19937_64 random(1);
  Sequence a = *world.engine->Begin(), b = *world.engine->Begin();
  std::vector<int32_t> prompt = RandomTokens(random, 40), bad = {1, 2, 97};
  StepEntry entries[2];
  entries[0].sequence = &a, entries[0].tokens = prompt;
  entries[1].sequence = &b, entries[1].tokens = prompt;
  StatusOr<exec::Outputs> outputs = world.engine->Step(entries);
  EXPECT_EQ(outputs.status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(a.pending() || b.pending() || a.poisoned() || b.poisoned());
  EXPECT_EQ(world.engine->pools().pages.free(), 2);
  entries[0].tokens = bad;
  outputs = world.engine->Step({entries, 1});
  EXPECT_EQ(outputs.status().message(), "step: token 97, the vocabulary has 97");
  EXPECT_FALSE(a.pending());
  // More rows than the block takes: refused after the append.
  std::vector<int32_t> more = RandomTokens(random, 30);
  std::vector<int32_t> rows = {0, 1, 30};
  entries[0].tokens = more, entries[0].logit_rows = rows;
  outputs = world.engine->Step({entries, 1});
  EXPECT_EQ(outputs.status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(a.pending() || a.poisoned());
  EXPECT_EQ(world.engine->pools().pages.free(), 2);
  entries[0].logit_rows = {};
  EXPECT_TRUE(world.engine->Step({entries, 1}).ok());
}

TEST(Engine, FailedStepPoisonsItsSequences) {
  World world(ToyPlan(1));
  Sequence a = *world.engine->Begin(), b = *world.engine->Begin(), other = *world.engine->Begin();
  std::vector<int32_t> prompt = {1, 2, 3};
  StepEntry entries[2];
  entries[0].sequence = &a, entries[0].tokens = prompt;
  entries[1].sequence = &b, entries[1].tokens = prompt;
  world.executor->fail_next = true;
  EXPECT_EQ(world.engine->Step(entries).status().message(), "toy: told to fail");
  EXPECT_TRUE(a.poisoned() && b.poisoned());
  EXPECT_FALSE(other.poisoned());
  a.Release(), b.Release(), other.Release();
  EXPECT_TRUE(world.NothingTaken());
}

TEST(Engine, Prompts) {
  plan::Plan plan = ToyPlan(1);
  EXPECT_EQ(CheckPrompt(plan, {}).message(), "the prompt has no tokens");
  EXPECT_EQ(CheckPrompt(plan, std::vector<int32_t>{1, 97}).message(), "token 1 is 97, the vocabulary has 97");
  EXPECT_EQ(CheckPrompt(plan, std::vector<int32_t>{-1}).message(), "token 0 is -1, the vocabulary has 97");
  EXPECT_EQ(CheckPrompt(plan, std::vector<int32_t>(401)).message(), "the prompt has 401 tokens, the plan takes 400");
  EXPECT_TRUE(CheckPrompt(plan, std::vector<int32_t>(400)).ok());
}

// --- Generate --------------------------------------------------------------------------------------------------------

TEST(Generate, ManyPromptsFewSlots) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    std::mt19937_64 random(seed);
    int budget = seed % 2 ? 256 : 70 + static_cast<int>(random() % 30);
    World world(ToyPlan(1, 4, budget), /*num_pages=*/16 + static_cast<int>(random() % 10),
                1 + static_cast<int>(random() % 4));
    std::vector<std::vector<int32_t>> prompts;
    for (int i = 0; i < 12; ++i)
      prompts.push_back(RandomTokens(random, 1 + static_cast<int>(random() % (i % 3 ? 5 : 300))));
    GenerateOptions options;
    options.max_tokens = 1 + static_cast<int>(random() % 20);
    StatusOr<std::vector<Generated>> results = Generate(*world.engine, prompts, options);
    ASSERT_TRUE(results.ok()) << results.status().message();
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ((*results)[i].tokens, Continue(prompts[i], options.max_tokens)) << "seed " << seed << " prompt " << i;
      EXPECT_EQ((*results)[i].reason, FinishReason::kLength);
    }
    EXPECT_LE(world.executor->max_tokens_seen, budget);
    EXPECT_TRUE(world.NothingTaken());
  }
}

TEST(Generate, ChunksEndAtMultiplesOfTheAlignment) {
  EXPECT_EQ(ChunkRows(0, 300, 256, true), 256);
  EXPECT_EQ(ChunkRows(0, 300, 255, true), 192);
  EXPECT_EQ(ChunkRows(0, 300, 63, false), 0);
  EXPECT_EQ(ChunkRows(0, 300, 63, true), 63);
  EXPECT_EQ(ChunkRows(63, 237, 63, true), 1);
  EXPECT_EQ(ChunkRows(64, 10, 63, false), 10);
  World world(ToyPlan(1, 4, 150));
  std::mt19937_64 random(5);
  std::vector<std::vector<int32_t>> prompts = {RandomTokens(random, 300), RandomTokens(random, 65)};
  GenerateOptions options;
  options.max_tokens = 3;
  StatusOr<std::vector<Generated>> results = Generate(*world.engine, prompts, options);
  ASSERT_TRUE(results.ok());
  // 128 and no room for a border of the second; 128 again; the rest of both; decode rows alone.
  EXPECT_EQ(world.executor->chunks, (std::vector<std::vector<int>>{{128}, {128}, {44, 65}, {}, {}}));
  EXPECT_EQ((*results)[0].tokens, Continue(prompts[0], 3));
  EXPECT_EQ((*results)[1].tokens, Continue(prompts[1], 3));
}

TEST(Generate, StopsAtEndOfSequence) {
  World world(ToyPlan(1));
  std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}};
  std::vector<int32_t> expected = Continue(prompts[0], 10);
  GenerateOptions options;
  options.max_tokens = 10;
  options.eos_ids = {expected[4], 5000};
  StatusOr<std::vector<Generated>> results = Generate(*world.engine, prompts, options);
  ASSERT_TRUE(results.ok());
  size_t first = static_cast<size_t>(std::find(expected.begin(), expected.end(), expected[4]) - expected.begin());
  expected.resize(first + 1);
  EXPECT_EQ((*results)[0].tokens, expected);
  EXPECT_EQ((*results)[0].reason, FinishReason::kStop);
  EXPECT_TRUE(world.NothingTaken());
}

TEST(Generate, StopsAtTheModelsLength) {
  World world(ToyPlan(1, 4, 256, /*max_model_len=*/40));
  std::mt19937_64 random(1);
  std::vector<std::vector<int32_t>> prompts = {RandomTokens(random, 37), RandomTokens(random, 40)};
  GenerateOptions options;
  options.max_tokens = 100;
  StatusOr<std::vector<Generated>> results = Generate(*world.engine, prompts, options);
  ASSERT_TRUE(results.ok()) << results.status().message();
  EXPECT_EQ((*results)[0].tokens, Continue(prompts[0], 3));
  EXPECT_EQ((*results)[1].tokens, Continue(prompts[1], 1));
  EXPECT_EQ((*results)[0].reason, FinishReason::kLength);
}

TEST(Generate, CancelGivesEverythingBack) {
  World world(ToyPlan(1));
  std::atomic<bool> stop = false;
  GenerateOptions options;
  options.max_tokens = 100;
  options.stop = &stop;
  int heard = 0;
  options.on_token = [&](size_t, int32_t) { stop = ++heard == 5; };
  std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}};
  StatusOr<std::vector<Generated>> results = Generate(*world.engine, prompts, options);
  ASSERT_TRUE(results.ok());
  EXPECT_EQ((*results)[0].tokens, Continue(prompts[0], 5));
  EXPECT_EQ((*results)[0].reason, FinishReason::kCancelled);
  EXPECT_TRUE(world.NothingTaken());
}

TEST(Generate, FailureGivesEverythingBack) {
  World world(ToyPlan(1));
  std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {4}};
  world.executor->fail_next = true;
  EXPECT_FALSE(Generate(*world.engine, prompts, {}).ok());
  EXPECT_TRUE(world.NothingTaken());
}

TEST(Generate, Refusals) {
  World world(ToyPlan(1), /*num_pages=*/2);
  auto refusal = [&](std::vector<std::vector<int32_t>> prompts, GenerateOptions options) {
    return Generate(*world.engine, prompts, options).status().message();
  };
  EXPECT_EQ(refusal({{100}}, {}), "prompt: token 0 is 100, the vocabulary has 97");
  EXPECT_EQ(refusal({{1}, {}}, {}), "prompt 1: the prompt has no tokens");
  EXPECT_EQ(refusal({std::vector<int32_t>(60)}, {}), "prompt 0: 3 pages of KV cache are needed, there are 2");
  GenerateOptions options;
  options.sampling.top_p = 0;
  EXPECT_EQ(refusal({{1}}, options), "top_p: 0 is not above 0 and at most 1");
}

TEST(Sampler, Params) {
  kernels::SampleParams greedy = MakeSampleParams({});
  EXPECT_EQ(greedy.flags, kernels::kSampleGreedy);
  SamplingOptions options;
  options.temperature = 0.7f, options.top_k = 20, options.top_p = 0.8f, options.min_p = 0.1f, options.seed = 1ull << 40;
  kernels::SampleParams params = MakeSampleParams(options, /*write_logits=*/true);
  EXPECT_EQ(params.flags, kernels::kSampleWriteLogits);
  EXPECT_EQ(params.seed, 1ull << 40);
  EXPECT_EQ(params.top_k, 20);
  EXPECT_EQ(params.temperature, 0.7f);
  EXPECT_EQ(params.top_p, 0.8f);
  EXPECT_EQ(params.min_p, 0.1f);
  options.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(CheckSampling(options).ok());
  options.temperature = -1;
  EXPECT_EQ(CheckSampling(options).message(), "temperature: -1 is outside 0..100");
}

// --- Logits ----------------------------------------------------------------------------------------------------------

TEST(Logits, SplitRules) {
  EXPECT_EQ(SplitRule::Parse("")->Calls(0, 300), std::vector<int>{300});
  EXPECT_EQ(SplitRule::Parse("5,1,64")->Calls(0, 150), (std::vector<int>{5, 1, 64, 5, 1, 64, 5, 1, 4}));
  EXPECT_EQ(SplitRule::Parse("1")->Calls(3, 3), (std::vector<int>{1, 1, 1}));
  SplitRule random = *SplitRule::Parse("random:7");
  std::vector<int> calls = random.Calls(2, 3000);
  EXPECT_EQ(std::accumulate(calls.begin(), calls.end(), 0), 3000);
  EXPECT_EQ(*std::max_element(calls.begin(), calls.end()), 64);
  EXPECT_EQ(*std::min_element(calls.begin(), calls.end() - 1), 1);
  EXPECT_EQ(calls, random.Calls(2, 3000));
  EXPECT_NE(calls, random.Calls(3, 3000));
  EXPECT_NE(calls, SplitRule::Parse("random:8")->Calls(2, 3000));
  for (const char* bad : {"0", "-1", "5,", ",5", "a", "5 1", "random", "random:", "random:x", "1,random:2"})
    EXPECT_FALSE(SplitRule::Parse(bad).ok()) << bad;
}

TEST(Logits, AnySplitAnyBatch) {
  std::mt19937_64 random(11);
  std::vector<std::vector<int32_t>> cases;
  for (int length : {1, 2, 3, 63, 64, 65, 129, 300}) cases.push_back(RandomTokens(random, length));
  for (const char* split : {"", "1", "5,1,64", "64", "random:1", "random:2", "1000"}) {
    for (bool batch : {false, true}) {
      for (int max_logit_rows : {0, 40}) {
        plan::Plan plan = ToyPlan(1, 4, 256);
        plan.capacity.max_logit_rows = max_logit_rows;
        World world(plan, /*num_pages=*/24);
        std::vector<std::vector<bool>> seen;
        for (const auto& tokens : cases) seen.emplace_back(tokens.size());
        LogitsOptions options;
        options.split = *SplitRule::Parse(split);
        options.batch = batch;
        std::vector<std::vector<uint64_t>> expected;
        for (const auto& tokens : cases) expected.push_back(ToyOutputs(tokens));
        Status status =
            RunLogits(*world.engine, cases, options, [&](size_t index, int64_t row, std::span<const float> logits) {
              ASSERT_EQ(logits.size(), static_cast<size_t>(kToyVocab));
              size_t r = static_cast<size_t>(row);
              EXPECT_FALSE(seen[index][r]);
              seen[index][r] = true;
              for (int id = 0; id < kToyVocab; id += 31)
                ASSERT_EQ(logits[static_cast<size_t>(id)], ToyLogit(expected[index][r], id)) << index << " " << row;
            });
        ASSERT_TRUE(status.ok()) << status.message();
        for (const auto& rows : seen) EXPECT_EQ(std::count(rows.begin(), rows.end(), false), 0);
        EXPECT_LE(world.executor->max_tokens_seen, max_logit_rows ? 40 : 256);
        EXPECT_TRUE(world.NothingTaken());
      }
    }
  }
}

// Without a split a case is one call where the step takes it, else the largest chunks.
TEST(Logits, WholeCasesAreOneCall) {
  std::mt19937_64 random(11);
  std::vector<std::vector<int32_t>> cases = {RandomTokens(random, 100), RandomTokens(random, 300)};
  auto sink = [](size_t, int64_t, std::span<const float>) {};
  World world(ToyPlan(1, 4, 256));
  ASSERT_TRUE(RunLogits(*world.engine, cases, {}, sink).ok());
  EXPECT_EQ(world.executor->chunks, (std::vector<std::vector<int>>{{100}, {256}, {44}}));
  World batched(ToyPlan(1, 4, 256));
  LogitsOptions options;
  options.batch = true;
  options.split.sizes = {60, 40};
  ASSERT_TRUE(RunLogits(*batched.engine, cases, options, sink).ok());
  EXPECT_EQ(batched.executor->chunks, (std::vector<std::vector<int>>{{60, 60}, {40, 40}, {60}, {40}, {60}, {40}}));
}

TEST(Logits, CancelAndRefusals) {
  World world(ToyPlan(1), /*num_pages=*/2);
  auto sink = [](size_t, int64_t, std::span<const float>) {};
  std::vector<std::vector<int32_t>> cases = {{1}, {2, 200}};
  EXPECT_EQ(RunLogits(*world.engine, cases, {}, sink).message(), "case 1: token 1 is 200, the vocabulary has 97");
  cases = {std::vector<int32_t>(65)};
  EXPECT_EQ(RunLogits(*world.engine, cases, {}, sink).message(), "case 0: 3 pages of KV cache are needed, there are 2");
  std::atomic<bool> stop = true;
  LogitsOptions options;
  options.stop = &stop;
  cases = {{1}};
  EXPECT_EQ(RunLogits(*world.engine, cases, options, sink).code(), StatusCode::kCancelled);
  EXPECT_TRUE(world.NothingTaken());
}

}  // namespace
}  // namespace qwen::engine
