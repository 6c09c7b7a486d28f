// A scheduler over the toy model, a sink that writes down what it hears, and what it should have heard.
//
// The truth is computed from the request alone: the toy's outputs are a function of tokens, and logits are adjusted and
// drawn here by plain code and the reference draw, in the order that the serving design states.
#ifndef QWEN_TEST_RUNTIME_ENGINE_SERVING_WORLD_H_
#define QWEN_TEST_RUNTIME_ENGINE_SERVING_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/scheduler.h"
#include "runtime/kernels/reference/ops.h"
#include "test/runtime/engine/toy_executor.h"

namespace qwen::engine {

inline std::vector<int32_t> RandomTokens(std::mt19937_64& random, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % kToyVocab));
  return tokens;
}
inline std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The toy's outputs, one token after another.
class ToyText {
 public:
  uint64_t Add(int32_t token) {
    ToyRow row = ToyCompute(token, state_, taps_, context_);
    state_ = ToyFold(state_, row.record);
    context_ = ToyContext(context_, row.kv);
    taps_[2] = taps_[1], taps_[1] = taps_[0], taps_[0] = row.conv;
    return row.out;
  }

 private:
  uint64_t state_ = 0, context_ = 0, taps_[kToyTaps] = {0, 0, 0};
};

struct Answer {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kCancelled;
  int32_t stop_id = -1;
  std::vector<double> logprobs;
};

inline std::vector<float> ToyLogits(uint64_t out) {
  std::vector<float> logits;
  for (int id = 0; id < kToyVocab; ++id) logits.push_back(ToyLogit(out, id));
  return logits;
}
inline double ToyLogprob(uint64_t out, int32_t token) {
  double sum = 0;
  for (float logit : ToyLogits(out)) sum += std::exp(double{logit});
  return double{ToyLogit(out, token)} - std::log(sum);
}

/// What choice `choice` of the request says. `stop_after`: its sink ends it at that many tokens.
inline Answer TrueAnswer(const Request& request, int choice, int max_len, int stop_after = 1 << 30) {
  constexpr float kOut = -std::numeric_limits<float>::infinity();
  Answer answer{.reason = FinishReason::kLength};
  ToyText text;
  uint64_t out = 0;
  for (int32_t token : request.prompt) out = text.Add(token);
  std::map<int32_t, int> drawn;
  int length = static_cast<int>(request.prompt.size());
  while (static_cast<int>(answer.tokens.size()) < request.max_tokens && length < max_len) {
    std::vector<float> logits = ToyLogits(out);
    if (static_cast<int>(answer.tokens.size()) < request.min_tokens)
      for (int32_t id : request.banned_until_min) logits[static_cast<size_t>(id)] = kOut;
    for (auto [id, bias] : request.logit_bias) logits[static_cast<size_t>(id)] += bias <= -100 ? kOut : bias;
    for (int32_t id = 0; id < kToyVocab; ++id) {
      float& logit = logits[static_cast<size_t>(id)];
      const bool in_prompt = std::ranges::find(request.prompt, id) != request.prompt.end();
      const int times = drawn.contains(id) ? drawn[id] : 0;
      if (request.repetition_penalty != 1 && (in_prompt || times > 0))
        logit = logit > 0 ? logit / request.repetition_penalty : logit * request.repetition_penalty;
      if (times > 0) logit -= request.frequency_penalty * static_cast<float>(times) + request.presence_penalty;
      if (request.vocab_used > 0 && id >= request.vocab_used) logit = kOut;
    }
    reference::SampleParams params;
    params.seed = request.sampling.seed;
    params.choice = choice;
    params.greedy = request.sampling.temperature < 1e-5f;
    params.temperature = request.sampling.temperature;
    params.top_k = request.sampling.top_k;
    params.top_p = request.sampling.top_p;
    params.min_p = request.sampling.min_p;
    const int32_t token = reference::Sample(logits.data(), kToyVocab, params, length);
    if (std::ranges::find(request.stop_ids, token) != request.stop_ids.end()) {
      answer.reason = FinishReason::kStop;
      answer.stop_id = token;
      return answer;
    }
    answer.tokens.push_back(token);
    answer.logprobs.push_back(ToyLogprob(out, token));
    if (static_cast<int>(answer.tokens.size()) >= stop_after) {
      answer.reason = FinishReason::kStop;
      return answer;
    }
    ++drawn[token];
    ++length;
    out = text.Add(token);
  }
  return answer;
}

/// Writes down what it hears, and complains when the order of calls is wrong.
class Recorder : public RequestSink {
 public:
  explicit Recorder(int choices, int stop_after = 1 << 30)
      : answers(static_cast<size_t>(choices)), finishes(static_cast<size_t>(choices)), stop_after_(stop_after) {}

  void OnPrompt(const PromptResult& result, int done) override {
    EXPECT_FALSE(over());
    EXPECT_LE(done, result.prompt_tokens);
    prompt = result;
    prompt_done = done;
  }
  void OnPromptLogprobs(std::span<const TokenLogprobs> logprobs) override {
    EXPECT_FALSE(over());
    for (const TokenLogprobs& each : logprobs) prompt_logprobs.push_back(each.logprob);
  }
  bool OnToken(int choice, const TokenResult& token) override {
    EXPECT_EQ(prompt_done, prompt.prompt_tokens);
    Answer& answer = answers[static_cast<size_t>(choice)];
    EXPECT_EQ(finishes[static_cast<size_t>(choice)], 0);
    answer.tokens.push_back(token.token);
    if (token.logprobs) answer.logprobs.push_back(token.logprobs->logprob);
    ++tokens;
    return static_cast<int>(answer.tokens.size()) < stop_after_;
  }
  void OnTimes(const RequestTimes& /*times*/) override { ++times_heard; }
  void OnFinish(int choice, FinishReason reason, int32_t stop_id, const Status& status) override {
    EXPECT_EQ(++finishes[static_cast<size_t>(choice)], 1);
    EXPECT_EQ(status.ok(), reason == FinishReason::kStop || reason == FinishReason::kLength) << status.message();
    answers[static_cast<size_t>(choice)].reason = reason;
    answers[static_cast<size_t>(choice)].stop_id = stop_id;
    failure = status;
    if (over()) EXPECT_EQ(times_heard, 1);
  }
  bool over() const {
    return std::ranges::all_of(finishes, [](int count) { return count > 0; });
  }

  std::vector<Answer> answers;
  std::vector<int> finishes;
  PromptResult prompt;
  int prompt_done = 0, tokens = 0, times_heard = 0;
  std::vector<double> prompt_logprobs;
  Status failure;

 private:
  int stop_after_;
};

inline void ExpectAnswer(const Answer& got, const Answer& want) {
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.reason, want.reason);
  EXPECT_EQ(got.stop_id, want.stop_id);
}

struct ServingWorld {
  explicit ServingWorld(plan::Plan made, int num_pages, int num_slots, SchedulerOptions asked = {})
      : plan(std::move(made)), options(asked) {
    auto owned = std::make_unique<ToyExecutor>(plan, num_pages, num_slots);
    executor = owned.get();
    engine = std::make_unique<Engine>(plan, std::move(owned), num_pages, num_slots);
    scheduler = std::make_unique<Scheduler>(*engine, options, [this] { return now; });
    max_len = static_cast<int>(std::min<int64_t>(plan.model.max_model_len, num_pages * plan::kPageTokens));
  }

  RequestId Submit(const Request& request, std::shared_ptr<Recorder> sink) {
    scheduler->Submit(++last_id, request, std::move(sink));
    return last_id;
  }
  std::shared_ptr<Recorder> Submit(const Request& request) {
    auto sink = std::make_shared<Recorder>(request.choices);
    Submit(request, sink);
    return sink;
  }
  void Step() {
    now += std::chrono::milliseconds(1);
    scheduler->Step();
    Status status = scheduler->Check();
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void Drain() {
    for (int steps = 0; !scheduler->idle(); ++steps) {
      ASSERT_LT(steps, 100000) << "nothing moves";
      Step();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  void ExpectTruth(const Request& request, const Recorder& sink) {
    for (int choice = 0; choice < request.choices; ++choice) {
      SCOPED_TRACE(choice);
      ExpectAnswer(sink.answers[static_cast<size_t>(choice)], TrueAnswer(request, choice, max_len));
    }
  }
  /// But for what the cache holds, which counts as free.
  void ExpectNothingTaken() {
    EngineStats stats = scheduler->Stats();
    EXPECT_EQ(stats.pages_free, stats.pages);
    EXPECT_EQ(stats.slots_free, stats.slots);
    EXPECT_EQ(stats.running, 0);
    EXPECT_EQ(stats.waiting, 0);
    EXPECT_EQ(stats.waiting_tokens, 0);
    EXPECT_EQ(engine->pools().table_rows.free(), engine->pools().table_rows.count());
  }

  plan::Plan plan;
  SchedulerOptions options;
  ToyExecutor* executor;
  std::unique_ptr<Engine> engine;
  RequestTimes::TimePoint now{};
  std::unique_ptr<Scheduler> scheduler;
  int max_len;
  RequestId last_id = 0;
};

inline SchedulerOptions WithCache(int64_t snapshot_budget = 1 << 20) {
  SchedulerOptions options;
  options.cache.snapshot_budget = snapshot_budget;
  options.cache.secret = 42;
  return options;
}

}  // namespace qwen::engine

#endif  // QWEN_TEST_RUNTIME_ENGINE_SERVING_WORLD_H_
