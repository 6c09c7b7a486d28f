// Random traffic over tiny pools: whatever happens, every request says what it says alone, ends once, and nothing
// leaks.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fmt/format.h"
#include "test/runtime/engine/serving_world.h"

namespace qwen::engine {
namespace {

struct Sent {
  Request request;
  std::shared_ptr<Recorder> sink;
  int stop_after;
  bool cancelled = false, judged = false;
};

class Traffic {
 public:
  explicit Traffic(uint64_t seed)
      : random_(seed),
        world_(ToyPlan(seed % 4 == 1 ? 4 : 1, 5, 96 + static_cast<int>(seed % 3) * 64, 400), seed % 2 == 0 ? 26 : 14, 4,
               Options(seed)) {
    // Prefixes that many prompts share.
    for (int i = 0; i < 6; ++i) texts_.push_back(RandomTokens(random_, 40 + static_cast<int>(random_() % 200)));
  }

  // One arrival, cancel, fault or step.
  void Event() {
    const uint64_t kind = random_() % 100;
    if (kind < 14 && open_.size() < 30)
      Arrive();
    else if (kind < 16 && !open_.empty())
      Cancel();
    else if (kind < 18 && !failed_last_)
      world_.executor->fail_next = true;
    else
      Step();
  }

  void Finish() {
    world_.executor->fail_next = false;
    world_.Drain();
    Judge();
    EXPECT_TRUE(open_.empty());
    world_.ExpectNothingTaken();
    trace += fmt::format("steps {} preempted {} hits {}", world_.scheduler->Stats().steps,
                         world_.scheduler->Stats().preemptions, world_.scheduler->Stats().cache_hits);
  }
  EngineStats Stats() const { return world_.scheduler->Stats(); }

  std::string trace;

 private:
  static SchedulerOptions Options(uint64_t seed) {
    SchedulerOptions options = WithCache(32 * static_cast<int64_t>(seed % 4) * 3);
    options.cache.snapshot_interval = 128;
    if (seed % 2 == 0) options.cache.hash_mask = 3;  // collisions all over
    if (seed % 3 == 0) options.max_prefill_rows_beside_decode = 64;
    if (seed % 4 < 2) options.deterministic = true;
    options.long_prefill_tokens = 150;
    return options;
  }

  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint64_t>(limit)); }
  bool OneIn(int count) { return Below(count) == 0; }

  void Arrive() {
    Request request;
    const std::vector<int32_t>& text = texts_[static_cast<size_t>(Below(static_cast<int>(texts_.size())))];
    request.prompt.assign(text.begin(), text.begin() + Below(static_cast<int>(text.size())));
    request.prompt = Joined(request.prompt, RandomTokens(random_, 1 + Below(OneIn(3) ? 140 : 20)));
    for (int end = 10 + Below(90); end < static_cast<int>(request.prompt.size()); end += 30 + Below(90))
      request.turn_ends.push_back(end);
    request.max_tokens = OneIn(12) ? 0 : 1 + Below(OneIn(3) ? 150 : 20);
    request.priority = OneIn(4) ? Below(3) - 1 : 0;
    request.flow = std::string(1, static_cast<char>('a' + Below(3)));
    if (OneIn(5)) request.cache_salt = "salt";
    request.use_cache = !OneIn(8);
    if (OneIn(5)) request.choices = 2 + Below(3);
    if (OneIn(3)) {
      request.sampling.temperature = 0.5f + static_cast<float>(Below(8));
      request.sampling.seed = random_();
      if (OneIn(2)) request.sampling.top_k = 1 + Below(30);
    }
    if (OneIn(6)) request.repetition_penalty = 1.25f;
    if (OneIn(6)) request.frequency_penalty = 0.5f, request.presence_penalty = 1.5f;
    if (OneIn(6)) request.logit_bias = {{Below(kToyVocab / 2), 4.0f}, {kToyVocab / 2 + Below(40), -100.0f}};
    if (OneIn(3)) request.vocab_used = 90;
    if (OneIn(3)) request.stop_ids = {Below(kToyVocab), Below(kToyVocab)};
    if (OneIn(6)) request.banned_until_min = request.stop_ids, request.min_tokens = Below(10);
    if (OneIn(6)) request.logprobs = Below(3);
    if (OneIn(12)) request.prompt_logprobs = Below(3);
    const int stop_after = OneIn(6) ? 1 + Below(12) : 1 << 30;
    Sent sent{request, std::make_shared<Recorder>(request.choices, stop_after), stop_after};
    const RequestId id = world_.Submit(request, sent.sink);
    open_.emplace(id, std::move(sent));
  }

  void Cancel() {
    auto it = open_.begin();
    std::advance(it, Below(static_cast<int>(open_.size())));
    it->second.cancelled = true;
    world_.scheduler->Cancel(it->first, CancelledError("the client left"));
    EXPECT_TRUE(it->second.sink->over());
    Judge();
  }

  void Step() {
    const bool fails = world_.executor->fail_next;
    world_.Step();
    failed_last_ = fails && !world_.executor->fail_next;
    Judge();
  }

  void Judge() {
    for (auto it = open_.begin(); it != open_.end();) {
      if (!it->second.sink->over()) {
        ++it;
        continue;
      }
      JudgeOne(it->first, it->second);
      it = open_.erase(it);
    }
  }

  void JudgeOne(RequestId id, const Sent& sent) {
    SCOPED_TRACE(id);
    const Request& request = sent.request;
    for (int choice = 0; choice < request.choices; ++choice) {
      const Answer& got = sent.sink->answers[static_cast<size_t>(choice)];
      const Answer want = TrueAnswer(request, choice, world_.max_len, sent.stop_after);
      trace += fmt::format("{}.{}:{}:{} ", id, choice, got.tokens.size(), FinishReasonName(got.reason));
      if (got.reason == FinishReason::kCancelled) {
        // What was out by then is a beginning of the truth.
        EXPECT_TRUE(sent.cancelled);
        ASSERT_LE(got.tokens.size(), want.tokens.size());
        EXPECT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), want.tokens.begin()));
        continue;
      }
      ExpectAnswer(got, want);
      if (request.logprobs < 0) continue;
      ASSERT_EQ(got.logprobs.size(), want.logprobs.size());
      for (size_t i = 0; i < want.logprobs.size(); ++i) EXPECT_NEAR(got.logprobs[i], want.logprobs[i], 1e-5);
    }
    if (request.prompt_logprobs < 0 || sent.cancelled) return;
    ASSERT_EQ(sent.sink->prompt_logprobs.size(), request.prompt.size() - 1);
    ToyText text;
    for (size_t i = 0; i + 1 < request.prompt.size(); ++i)
      EXPECT_NEAR(sent.sink->prompt_logprobs[i], ToyLogprob(text.Add(request.prompt[i]), request.prompt[i + 1]), 1e-5);
  }

  std::mt19937_64 random_;
  ServingWorld world_;
  std::vector<std::vector<int32_t>> texts_;
  std::map<RequestId, Sent> open_;
  bool failed_last_ = false;
};

TEST(SchedulerProperty, RandomTraffic) {
  EngineStats total;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    Traffic traffic(seed);
    for (int event = 0; event < 9000 && !HasFailure(); ++event) traffic.Event();
    if (HasFailure()) return;
    traffic.Finish();
    if (HasFailure()) return;
    const EngineStats stats = traffic.Stats();
    total.preemptions += stats.preemptions;
    total.cache_hits += stats.cache_hits;
    for (int i = 0; i < 4; ++i) total.finished[i] += stats.finished[i];
  }
  // The traffic is worth its name: everything that it is to stir did happen.
  EXPECT_GT(total.preemptions, 100u);
  EXPECT_GT(total.cache_hits, 10000u);
  for (FinishReason reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled})
    EXPECT_GT(total.finished[static_cast<size_t>(reason)], 100u) << FinishReasonName(reason);
}

TEST(SchedulerProperty, SameSeedSameTrace) {
  std::string traces[2];
  for (std::string& trace : traces) {
    Traffic traffic(99);
    for (int event = 0; event < 2000; ++event) traffic.Event();
    traffic.Finish();
    trace = traffic.trace;
  }
  EXPECT_EQ(traces[0], traces[1]);
}

}  // namespace
}  // namespace qwen::engine
