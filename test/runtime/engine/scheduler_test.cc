// The scheduler step by step: who gets which rows, what is reused, and that text never depends on any of it.
#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "test/runtime/engine/serving_world.h"

namespace qwen::engine {
namespace {

constexpr int kState = (1 + kToyTaps) * 8;  // bytes of the toy's snapshot

Request Prompt(std::vector<int32_t> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

class SchedulerTest : public ::testing::Test {
 protected:
  std::mt19937_64 random_{11};
};

// --- Reuse -----------------------------------------------------------------------------------------------------------

// 64 prompts of 1,500 shared and 700 own tokens, one after another; what they say is what they say cold.
int BranchHits(int64_t budget, int together) {
  std::mt19937_64 random(5);
  ServingWorld world(ToyPlan(1, 8, 2048, 4096), 400, 8, WithCache(budget));
  std::vector<int32_t> shared = RandomTokens(random, 1500);
  int hits = 0;
  for (int first = 0; first < 64; first += together) {
    std::vector<Request> requests;
    std::vector<std::shared_ptr<Recorder>> sinks;
    for (int i = 0; i < together; ++i) {
      requests.push_back(Prompt(Joined(shared, RandomTokens(random, 700)), 3));
      sinks.push_back(world.Submit(requests.back()));
    }
    world.Drain();
    for (int i = 0; i < together; ++i) {
      world.ExpectTruth(requests[static_cast<size_t>(i)], *sinks[static_cast<size_t>(i)]);
      hits += sinks[static_cast<size_t>(i)]->prompt.cached_tokens >= 1024;
    }
  }
  world.ExpectNothingTaken();
  return hits;
}

TEST_F(SchedulerTest, ABranchedWorkloadHits) {
  EXPECT_GE(BranchHits(1 << 20, 1), 62);
  EXPECT_GE(BranchHits(1 << 20, 4), 60) << "four at a time start cold together";
}

TEST_F(SchedulerTest, ABranchedWorkloadHitsWithRoomForTwentySnapshots) { EXPECT_GE(BranchHits(20 * kState, 1), 62); }

TEST_F(SchedulerTest, TheThirdOfABranchHitsAtTheBranch) {
  ServingWorld world(ToyPlan(1, 4, 2048, 4096), 400, 4, WithCache());
  std::vector<int32_t> shared = RandomTokens(random_, 500);
  std::vector<PromptResult> seen;
  for (int i = 0; i < 3; ++i) {
    Request request = Prompt(Joined(shared, RandomTokens(random_, 300)), 2);
    auto sink = world.Submit(request);
    world.Drain();
    world.ExpectTruth(request, *sink);
    seen.push_back(sink->prompt);
  }
  EXPECT_EQ(seen[0].cached_tokens, 0);
  EXPECT_EQ(seen[0].miss, MissReason::kCold);
  EXPECT_EQ(seen[1].cached_tokens, 0);
  EXPECT_EQ(seen[1].miss, MissReason::kNoSnapshot) << "pages, but no state";
  EXPECT_EQ(seen[2].cached_tokens, 448);
  EXPECT_EQ(seen[2].miss, MissReason::kNone);
  EngineStats stats = world.scheduler->Stats();
  EXPECT_EQ(stats.cache_queries, 2400u);
  EXPECT_EQ(stats.cache_hits, 448u);
  EXPECT_EQ(stats.miss_no_snapshot, 480u + 480 - 448);
  EXPECT_EQ(stats.cache_hits + stats.miss_no_snapshot + stats.miss_cold, stats.cache_queries);
}

// The template drops what was thought before from the history: the next prompt leaves the last sequence right behind
// the border of the answer.
TEST_F(SchedulerTest, AChatThatForgetsItsReasoningReusesAllButItsLastPage) {
  const std::vector<int32_t> opening = {1, 2, 3}, thinking = {4, 5};
  for (int trial = 0; trial < 40; ++trial) {
    ServingWorld world(ToyPlan(1, 4, 512, 4096), 400, 4, WithCache());
    std::vector<int32_t> history = RandomTokens(random_, 20 + static_cast<int>(random_() % 300));
    std::vector<std::vector<int32_t>> before;
    for (int turn = 0; turn < 4; ++turn) {
      history = Joined(history, RandomTokens(random_, 5 + static_cast<int>(random_() % 150)));
      Request request = Prompt(Joined(Joined(history, opening), thinking), 70 + static_cast<int>(random_() % 60));
      request.turn_ends = {static_cast<int32_t>(history.size())};
      auto sink = world.Submit(request);
      world.Drain();
      world.ExpectTruth(request, *sink);
      int common = 0;
      for (const std::vector<int32_t>& old : before) {
        auto [mine, theirs] = std::ranges::mismatch(request.prompt, old);
        common = std::max(common, static_cast<int>(mine - request.prompt.begin()));
      }
      EXPECT_GE(sink->prompt.cached_tokens, common - 64) << trial << " " << turn;
      before.push_back(Joined(request.prompt, sink->answers[0].tokens));
      // What is kept of the answer: without its reasoning, and without what opened it.
      std::vector<int32_t> answer(sink->answers[0].tokens.begin() + 40, sink->answers[0].tokens.end());
      history = Joined(Joined(history, opening), answer);
    }
  }
}

TEST_F(SchedulerTest, AChatThatKeepsEverythingReusesTheAnswerToo) {
  ServingWorld world(ToyPlan(1, 4, 512, 4096), 400, 4, WithCache());
  std::vector<int32_t> history = RandomTokens(random_, 100);
  int common = 0;
  for (int turn = 0; turn < 6; ++turn) {
    Request request = Prompt(Joined(history, RandomTokens(random_, 30)), 150);
    auto sink = world.Submit(request);
    world.Drain();
    world.ExpectTruth(request, *sink);
    EXPECT_GE(sink->prompt.cached_tokens, common - 64);
    history = Joined(request.prompt, sink->answers[0].tokens);
    common = static_cast<int>(history.size());
  }
}

TEST_F(SchedulerTest, WhoeverDoesNotWantTheCacheNeitherReadsNorWritesIt) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  Request request = Prompt(RandomTokens(random_, 200), 4);
  Request apart = request;
  apart.use_cache = false;
  auto first = world.Submit(apart);
  world.Drain();
  EXPECT_EQ(world.engine->pools().pages.cached_only(), 0);
  EXPECT_EQ(first->prompt.miss, MissReason::kDisabled);
  auto second = world.Submit(request);
  world.Drain();
  EXPECT_EQ(second->prompt.miss, MissReason::kCold);
  auto third = world.Submit(apart);
  world.Drain();
  EXPECT_EQ(third->prompt.cached_tokens, 0);
  Request salted = request;
  salted.cache_salt = "other";
  auto fourth = world.Submit(salted);
  world.Drain();
  EXPECT_EQ(fourth->prompt.cached_tokens, 0);
  auto fifth = world.Submit(request);
  world.Drain();
  EXPECT_EQ(fifth->prompt.cached_tokens, 192);
  for (auto& sink : {first, second, third, fourth, fifth}) world.ExpectTruth(request, *sink);
}

// --- Rows of a step --------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, ARunningTextWaitsForOneBoundedChunkAtMost) {
  SchedulerOptions options;
  options.max_prefill_rows_beside_decode = 128;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 4, 512, 4096), 400, 4, options);
  Request talk = Prompt(RandomTokens(random_, 10), 40), read = Prompt(RandomTokens(random_, 1500), 4);
  auto talker = world.Submit(talk);
  world.Step();
  auto reader = world.Submit(read);
  int most = 0;
  while (!talker->over()) {
    const int before = talker->tokens;
    world.Step();
    EXPECT_EQ(talker->tokens, before + 1) << "a token every step";
    for (int rows : world.executor->chunks.back()) most = std::max(most, rows);
  }
  EXPECT_EQ(most, 128);
  world.Drain();
  world.ExpectTruth(talk, *talker);
  world.ExpectTruth(read, *reader);
  // Alone it has the whole budget.
  auto again = world.Submit(read);
  world.Step();
  EXPECT_EQ(world.executor->chunks.back(), std::vector<int>{512});
}

TEST_F(SchedulerTest, ChunksEndAtMultiplesOf64) {
  ServingWorld world(ToyPlan(1, 4, 300, 4096), 400, 4, WithCache());
  std::vector<std::pair<Request, std::shared_ptr<Recorder>>> all;
  for (int i = 0; i < 6; ++i) {
    Request request = Prompt(RandomTokens(random_, 100 + 230 * i), 20);
    all.emplace_back(request, world.Submit(request));
  }
  std::map<Recorder*, int> before;
  while (!world.scheduler->idle()) {
    world.Step();
    for (auto& [request, sink] : all) {
      const int total = static_cast<int>(request.prompt.size());
      EXPECT_TRUE(sink->prompt_done % plan::kStateAlign == 0 || sink->prompt_done == total) << sink->prompt_done;
    }
  }
  for (auto& [request, sink] : all) world.ExpectTruth(request, *sink);
}

TEST_F(SchedulerTest, ShortPromptsPassALongOneButDoNotStarveIt) {
  SchedulerOptions options;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 4, 512, 16384), 2000, 4, options);
  Request big = Prompt(RandomTokens(random_, 6000), 2);
  auto slow = world.Submit(big);
  world.Step();
  EXPECT_EQ(slow->prompt_done, 512);
  Request small = Prompt(RandomTokens(random_, 50), 1);
  // One after another, never an end of them.
  int steps = 0;
  for (auto quick = world.Submit(small); slow->prompt_done < 6000; ++steps) {
    world.Step();
    EXPECT_TRUE(quick->over()) << "a short prompt is read beside the long one";
    ASSERT_LT(steps, 30);
    quick = world.Submit(small);
  }
  EXPECT_GE(steps, 12);
  world.Drain();
}

TEST_F(SchedulerTest, OneLongPromptAtATime) {
  SchedulerOptions options;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 4, 512, 16384), 2000, 4, options);
  auto first = world.Submit(Prompt(RandomTokens(random_, 4000), 1));
  auto second = world.Submit(Prompt(RandomTokens(random_, 4000), 1));
  auto third = world.Submit(Prompt(RandomTokens(random_, 100), 1));
  while (!first->over()) {
    EXPECT_EQ(second->prompt_done, 0);
    world.Step();
  }
  EXPECT_TRUE(third->over());
  world.Drain();
  EXPECT_TRUE(second->over());
}

TEST_F(SchedulerTest, NobodyIsOvertakenWithoutEnd) {
  SchedulerOptions options;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 4, 512, 16384), 2000, 4, options);
  world.Submit(Prompt(RandomTokens(random_, 16000), 1));
  world.Step();
  auto waits = world.Submit(Prompt(RandomTokens(random_, 3000), 1));
  // A second long one waits for the first; short ones pass it, four of them.
  std::vector<std::shared_ptr<Recorder>> later;
  for (int i = 0; i < 12; ++i) later.push_back(world.Submit(Prompt(RandomTokens(random_, 20), 1)));
  int64_t passed = 0, steps = 0;
  for (; waits->prompt_done == 0; ++steps) {
    passed = std::ranges::count_if(later, [](const auto& sink) { return sink->over(); });
    world.Step();
  }
  EXPECT_EQ(passed, 4);
  EXPECT_GT(steps, 20);
  world.Drain();
}

// --- Pools -----------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, PreemptionChangesNoText) {
  for (bool cache : {false, true}) {
    SchedulerOptions options = WithCache();
    options.prefix_cache = cache;
    ServingWorld world(ToyPlan(1, 4, 256, 400), 14, 4, options);
    std::vector<Request> requests;
    std::vector<std::shared_ptr<Recorder>> sinks;
    for (int i = 0; i < 4; ++i) {
      requests.push_back(Prompt(RandomTokens(random_, 70), 200));
      requests.back().priority = i == 3 ? 1 : 0;
      sinks.push_back(world.Submit(requests.back()));
    }
    world.Drain();
    for (size_t i = 0; i < requests.size(); ++i) world.ExpectTruth(requests[i], *sinks[i]);
    EXPECT_GT(world.scheduler->Stats().preemptions, 0u);
    EXPECT_EQ(world.scheduler->Stats().generated_tokens, 800u) << "nothing is counted twice";
    EXPECT_EQ(world.scheduler->Stats().prompt_tokens, 280u);
    world.ExpectNothingTaken();
  }
}

TEST_F(SchedulerTest, DeterministicallyDrawnTokensAreFedAgainInShortRows) {
  for (bool deterministic : {false, true}) {
    SchedulerOptions options = WithCache();
    options.deterministic = deterministic;
    ServingWorld world(ToyPlan(4, 4, 256, 400), 14, 4, options);
    std::vector<Request> requests;
    std::vector<std::shared_ptr<Recorder>> sinks;
    for (int i = 0; i < 4; ++i) {
      requests.push_back(Prompt(RandomTokens(random_, 70), 200));
      sinks.push_back(world.Submit(requests.back()));
    }
    world.Drain();
    for (size_t i = 0; i < requests.size(); ++i) world.ExpectTruth(requests[i], *sinks[i]);
    EXPECT_GT(world.scheduler->Stats().preemptions, 0u);
    // A long part is a prompt's, and no snapshot was made by decoding: the deepest is where the prompts end.
    int longest = 0;
    for (const std::vector<int>& chunks : world.executor->chunks)
      for (int rows : chunks) longest = std::max(longest, rows);
    EXPECT_EQ(longest <= 70 && std::ranges::count(world.executor->programs, "verify") > 0, deterministic);
    Request next = Prompt(Joined(Joined(requests[0].prompt, sinks[0]->answers[0].tokens), {1}), 1);
    auto sink = world.Submit(next);
    world.Drain();
    if (deterministic) EXPECT_LE(sink->prompt.cached_tokens, 64);
    world.ExpectTruth(next, *sink);
  }
}

TEST_F(SchedulerTest, TheNewestOfTheLowestPriorityIsPreempted) {
  SchedulerOptions options;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 4, 256, 400), 12, 4, options);
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (int priority : {1, 0, 0, 1}) {
    Request request = Prompt(RandomTokens(random_, 60), 100);
    request.priority = priority;
    sinks.push_back(world.Submit(request));
  }
  while (world.scheduler->Stats().preemptions == 0) world.Step();
  std::vector<int> before, after;
  for (auto& sink : sinks) before.push_back(sink->tokens);
  world.Step();
  for (auto& sink : sinks) after.push_back(sink->tokens);
  EXPECT_EQ(after[2], before[2]);
  for (size_t i : {0u, 1u, 3u}) EXPECT_EQ(after[i], before[i] + 1);
  world.Drain();
}

TEST_F(SchedulerTest, HigherPrioritiesGoFirst) {
  SchedulerOptions options;
  options.prefix_cache = false;
  ServingWorld world(ToyPlan(1, 1, 256, 400), 64, 1, options);
  Request low = Prompt(RandomTokens(random_, 20), 3), high = low;
  high.priority = 2;
  auto running = world.Submit(low);
  world.Step();
  auto waiting = world.Submit(low), urgent = world.Submit(high);
  while (!urgent->over()) world.Step();
  EXPECT_TRUE(running->over()) << "nobody is stopped for it";
  EXPECT_EQ(waiting->tokens, 0);
  world.Drain();
}

TEST_F(SchedulerTest, TextEndsWhereThePoolDoes) {
  ServingWorld world(ToyPlan(1, 2, 256, 4000), 8, 2);
  Request request = Prompt(RandomTokens(random_, 50), 4000);
  auto sink = world.Submit(request);
  auto too_long = world.Submit(Prompt(RandomTokens(random_, 256), 1));
  EXPECT_EQ(too_long->answers[0].reason, FinishReason::kFailed);
  EXPECT_EQ(too_long->failure.message(), "the prompt has 256 tokens, the cache and the model take 255");
  world.Drain();
  EXPECT_EQ(sink->answers[0].tokens.size(), 256u - 50);
  EXPECT_EQ(sink->answers[0].reason, FinishReason::kLength);
  world.ExpectTruth(request, *sink);
}

TEST_F(SchedulerTest, CachedPagesMakeRoomForPrompts) {
  ServingWorld world(ToyPlan(1, 2, 256, 400), 13, 2, WithCache());
  for (int i = 0; i < 20; ++i) {
    Request request = Prompt(RandomTokens(random_, 300), 5);
    auto sink = world.Submit(request);
    world.Drain();
    world.ExpectTruth(request, *sink);
  }
  EXPECT_EQ(world.scheduler->Stats().preemptions, 0u);
  world.ExpectNothingTaken();
}

// --- Choices ---------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, ChoicesShareOnePrefillAndSayWhatTheySayAlone) {
  for (int slots : {1, 2, 4}) {
    for (float temperature : {0.0f, 4.0f}) {
      ServingWorld world(ToyPlan(1, slots, 256, 400), 64, slots, WithCache());
      Request request = Prompt(RandomTokens(random_, 150), 12);
      request.choices = 4;
      request.sampling.temperature = temperature;
      request.sampling.seed = 77;
      auto sink = world.Submit(request);
      world.Drain();
      world.ExpectTruth(request, *sink);
      EXPECT_EQ(world.scheduler->Stats().prompt_tokens, 150u);
      // Rows: the prompt once, then of every choice all drawn tokens but the last.
      EXPECT_EQ(world.scheduler->Stats().step_rows, 150u + 4 * 11);
      if (temperature > 0) EXPECT_NE(sink->answers[0].tokens, sink->answers[1].tokens);
      world.ExpectNothingTaken();
    }
  }
}

TEST_F(SchedulerTest, NoTokensAskedForNoneDrawn) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  Request request = Prompt(RandomTokens(random_, 300), 0);
  request.choices = 2;
  auto sink = world.Submit(request);
  world.Drain();
  EXPECT_EQ(sink->prompt_done, 300);
  EXPECT_EQ(sink->tokens, 0);
  for (const Answer& answer : sink->answers) EXPECT_EQ(answer.reason, FinishReason::kLength);
  EXPECT_EQ(world.scheduler->Stats().generated_tokens, 0u);
  Request warm = Prompt(Joined(request.prompt, {5}), 2);
  auto next = world.Submit(warm);
  world.Drain();
  EXPECT_EQ(next->prompt.cached_tokens, 256);
}

TEST_F(SchedulerTest, StopIdsAreReportedNotSaid) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  Request request = Prompt(RandomTokens(random_, 30), 50);
  const Answer free = TrueAnswer(request, 0, world.max_len);
  request.stop_ids = {free.tokens[5]};
  auto sink = world.Submit(request);
  world.Drain();
  EXPECT_EQ(sink->answers[0].reason, FinishReason::kStop);
  EXPECT_EQ(sink->answers[0].stop_id, free.tokens[5]);
  EXPECT_LE(sink->answers[0].tokens.size(), 5u);
  world.ExpectTruth(request, *sink);
}

TEST_F(SchedulerTest, ARequestWithoutATokenLeftFailsAlone) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  Request banned = Prompt(RandomTokens(random_, 30), 5), other = Prompt(RandomTokens(random_, 30), 5);
  for (int32_t id = 0; id < kToyVocab; ++id) banned.logit_bias.emplace_back(id, -100.0f);
  auto fails = world.Submit(banned), fine = world.Submit(other);
  world.Drain();
  EXPECT_EQ(fails->answers[0].reason, FinishReason::kFailed);
  EXPECT_EQ(fails->failure.message(), "every token is ruled out");
  world.ExpectTruth(other, *fine);
  EXPECT_FALSE(world.scheduler->failed());
}

TEST_F(SchedulerTest, PromptLogprobsWithFewLogitRows) {
  for (int logit_rows : {4, 20, 100, 0}) {
    plan::Plan plan = ToyPlan(1, 4, 256, 1000);
    plan.capacity.max_logit_rows = logit_rows;
    ServingWorld world(plan, 100, 4, WithCache());
    Request request = Prompt(RandomTokens(random_, 333), 3);
    request.prompt_logprobs = 2;
    Request other = Prompt(RandomTokens(random_, 200), 30);
    auto beside = world.Submit(other), sink = world.Submit(request), twin = world.Submit(request);
    world.Drain();
    ASSERT_EQ(sink->prompt_logprobs.size(), 332u);
    ToyText text;
    for (size_t i = 0; i + 1 < request.prompt.size(); ++i)
      EXPECT_NEAR(sink->prompt_logprobs[i], ToyLogprob(text.Add(request.prompt[i]), request.prompt[i + 1]), 1e-5);
    EXPECT_EQ(twin->prompt_logprobs, sink->prompt_logprobs);
    world.ExpectTruth(request, *sink);
    world.ExpectTruth(other, *beside);
  }
}

// --- Faults ----------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, AFailedStepIsDoneAgain) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  std::vector<Request> requests;
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (int i = 0; i < 3; ++i) {
    requests.push_back(Prompt(RandomTokens(random_, 100 + 60 * i), 30));
    requests.back().choices = 1 + i % 2;
    sinks.push_back(world.Submit(requests.back()));
  }
  for (int steps = 0; !world.scheduler->idle(); ++steps) {
    world.executor->fail_next = steps % 5 == 2;
    world.Step();
  }
  for (size_t i = 0; i < requests.size(); ++i) world.ExpectTruth(requests[i], *sinks[i]);
  world.ExpectNothingTaken();
}

TEST_F(SchedulerTest, TwoFailuresInARowAreTheEnd) {
  ServingWorld world(ToyPlan(1, 4, 256, 400), 64, 4, WithCache());
  Request request = Prompt(RandomTokens(random_, 100), 30);
  request.choices = 2;
  auto first = world.Submit(request), second = world.Submit(request);
  for (int i = 0; i < 4; ++i) world.Step();
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(world.scheduler->failed());
    world.executor->fail_next = true;
    world.Step();
  }
  EXPECT_TRUE(world.scheduler->failed());
  auto later = world.Submit(request);
  for (auto& sink : {first, second, later}) {
    ASSERT_TRUE(sink->over());
    EXPECT_EQ(sink->answers[1].reason, FinishReason::kFailed);
    EXPECT_EQ(sink->failure.code(), StatusCode::kInternal);
  }
  EXPECT_TRUE(world.scheduler->idle());
  world.ExpectNothingTaken();
}

TEST_F(SchedulerTest, CancelGivesEverythingBackAtOnce) {
  ServingWorld world(ToyPlan(1, 2, 256, 400), 64, 2, WithCache());
  Request request = Prompt(RandomTokens(random_, 200), 100);
  request.choices = 3;
  auto sink = std::make_shared<Recorder>(3);
  const RequestId id = world.Submit(request, sink);
  for (int i = 0; i < 6; ++i) world.Step();
  EXPECT_GT(sink->tokens, 3);
  world.scheduler->Cancel(id, CancelledError("gone"));
  EXPECT_TRUE(sink->over());
  EXPECT_EQ(sink->failure.message(), "gone");
  world.scheduler->Cancel(id, CancelledError("again"));
  EXPECT_TRUE(world.scheduler->idle());
  world.ExpectNothingTaken();
}

}  // namespace
}  // namespace qwen::engine
