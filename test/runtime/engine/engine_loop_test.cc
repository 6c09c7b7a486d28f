// The real thread: requests and cancellations from many others, draining, stopping, a device that dies.
#include "runtime/engine/engine_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "test/runtime/engine/serving_world.h"

namespace qwen::engine {
namespace {

using std::chrono::steady_clock;

/// Says when it is over; the engine's thread waits at a gate from some token on.
class Waiter : public Recorder {
 public:
  explicit Waiter(int choices, int stop_after = 1 << 30) : Recorder(choices, stop_after) {}
  bool OnToken(int choice, const TokenResult& token) override {
    const bool more = Recorder::OnToken(choice, token);
    if (tokens == gate_at) reached.set_value();
    if (gate.valid() && tokens >= gate_at) gate.wait();
    return more;
  }
  void OnFinish(int choice, FinishReason reason, int32_t stop_id, const Status& status) override {
    Recorder::OnFinish(choice, reason, stop_id, status);
    if (over()) done.set_value();
  }
  std::promise<void> reached, done;
  std::shared_future<void> gate;
  int gate_at = 1;  // token
};

struct LoopWorld {
  explicit LoopWorld(EngineLoopOptions options = {}, int num_pages = 40, int max_tokens = 256)
      : plan(ToyPlan(1, 4, max_tokens, 400)) {
    auto owned = std::make_unique<ToyExecutor>(plan, num_pages, 4);
    executor = owned.get();
    engine = std::make_unique<Engine>(plan, std::move(owned), num_pages, 4);
    options.scheduler.cache.snapshot_budget = 4096;
    loop = std::make_unique<EngineLoop>(*engine, options);
  }
  ~LoopWorld() {
    loop.reset();
    EXPECT_EQ(engine->pools().pages.free(), engine->pools().pages.count());
    EXPECT_EQ(engine->pools().slots.free(), engine->pools().slots.count());
    EXPECT_EQ(engine->pools().table_rows.free(), engine->pools().table_rows.count());
  }

  plan::Plan plan;
  ToyExecutor* executor;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<EngineLoop> loop;
};

Request Ask(uint64_t seed, int max_tokens) {
  std::mt19937_64 random(seed);
  Request request;
  request.prompt = RandomTokens(random, 1 + static_cast<int>(seed % 150));
  request.max_tokens = max_tokens;
  return request;
}

TEST(EngineLoop, ManyThreadsEachGetTheirOwnText) {
  LoopWorld world;
  std::vector<std::thread> threads;
  std::atomic<int> finished = 0;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 25; ++i) {
        Request request = Ask(static_cast<uint64_t>(thread * 100 + i), 10);
        request.choices = 1 + i % 2;
        auto sink = std::make_shared<Waiter>(request.choices, i % 5 == 4 ? 3 : 1 << 30);
        StatusOr<RequestId> id = world.loop->Submit(request, sink);
        ASSERT_TRUE(id.ok()) << id.status().message();
        if (i % 3 == 0) world.loop->Cancel(*id);
        if (i % 4 == 0) (void)world.loop->Stats();
        sink->done.get_future().wait();
        for (int choice = 0; choice < request.choices; ++choice) {
          const Answer& got = sink->answers[static_cast<size_t>(choice)];
          if (got.reason == FinishReason::kCancelled) continue;
          ExpectAnswer(got, TrueAnswer(request, choice, 400, i % 5 == 4 ? 3 : 1 << 30));
        }
        ++finished;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(finished, 100);
  EXPECT_TRUE(world.loop->Drain(steady_clock::now() + std::chrono::hours(1)));
  EngineStats stats = world.loop->Stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.slots_free, stats.slots);
  EXPECT_EQ(stats.pages_free, stats.pages);
  EXPECT_GT(world.loop->PromptRate(), 0);
}

TEST(EngineLoop, CancelReachesARunningRequest) {
  LoopWorld world;
  auto sink = std::make_shared<Waiter>(1);
  std::promise<void> gate;
  sink->gate = gate.get_future().share();
  StatusOr<RequestId> id = world.loop->Submit(Ask(7, 300), sink);
  ASSERT_TRUE(id.ok());
  sink->reached.get_future().wait();
  world.loop->Cancel(*id);
  gate.set_value();
  sink->done.get_future().wait();
  EXPECT_EQ(sink->answers[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(sink->tokens, 1) << "the step that was under way is the last";
}

TEST(EngineLoop, TheQueueHasLimits) {
  EngineLoopOptions options;
  options.max_queued_requests = 3;
  options.max_queued_tokens = 200;
  LoopWorld world(options);
  auto busy = std::make_shared<Waiter>(1);
  std::promise<void> gate;
  busy->gate = gate.get_future().share();
  busy->gate_at = 2;  // it no longer waits, by the figures of the step before
  ASSERT_TRUE(world.loop->Submit(Ask(1, 50), busy).ok());
  busy->reached.get_future().wait();  // the engine's thread stands still
  auto later = std::make_shared<Waiter>(1), more = std::make_shared<Waiter>(1);
  ASSERT_TRUE(world.loop->Submit(Ask(149, 1), later).ok());  // 150 tokens
  StatusOr<RequestId> too_many = world.loop->Submit(Ask(60, 1), std::make_shared<Waiter>(1));
  EXPECT_EQ(too_many.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(too_many.status().message(), "queue: 150 prompt tokens are waiting, 61 more are above 200");
  ASSERT_TRUE(world.loop->Submit(Ask(3, 1), more).ok());
  EXPECT_EQ(world.loop->Stats().waiting_tokens, 154);
  auto last = std::make_shared<Waiter>(1);
  ASSERT_TRUE(world.loop->Submit(Ask(4, 1), last).ok());
  StatusOr<RequestId> full = world.loop->Submit(Ask(5, 1), std::make_shared<Waiter>(1));
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(full.status().message(), "queue: 3 requests are waiting");
  gate.set_value();
  EXPECT_TRUE(world.loop->Drain(steady_clock::now() + std::chrono::hours(1)));
  for (auto& sink : {busy, later, more, last}) EXPECT_EQ(sink->answers[0].reason, FinishReason::kLength);
}

TEST(EngineLoop, DrainLetsFinishThenCancels) {
  LoopWorld world;
  auto quick = std::make_shared<Waiter>(1);
  ASSERT_TRUE(world.loop->Submit(Ask(9, 20), quick).ok());
  EXPECT_TRUE(world.loop->Drain(steady_clock::now() + std::chrono::hours(1)));
  EXPECT_EQ(quick->answers[0].reason, FinishReason::kLength);
  EXPECT_EQ(world.loop->Submit(Ask(9, 20), quick).status().code(), StatusCode::kCancelled);

  LoopWorld other;
  auto slow = std::make_shared<Waiter>(1);
  std::promise<void> gate;
  slow->gate = gate.get_future().share();
  ASSERT_TRUE(other.loop->Submit(Ask(9, 300), slow).ok());
  slow->reached.get_future().wait();
  std::thread drain([&] { EXPECT_FALSE(other.loop->Drain(steady_clock::now())); });
  // Until the drain has begun: a queue that is full refuses too.
  while (other.loop->Submit(Ask(1, 1), std::make_shared<Waiter>(1)).status().code() != StatusCode::kCancelled)
    std::this_thread::yield();
  gate.set_value();
  drain.join();
  EXPECT_EQ(slow->answers[0].reason, FinishReason::kCancelled);
}

TEST(EngineLoop, StopUnderLoadFinishesEveryRequest) {
  for (int round = 0; round < 10; ++round) {
    LoopWorld world;
    std::vector<std::shared_ptr<Waiter>> sinks[3];
    std::vector<std::thread> threads;
    for (auto& mine : sinks)
      threads.emplace_back([&] {
        for (uint64_t i = 0;; ++i) {
          auto sink = std::make_shared<Waiter>(2);
          Request request = Ask(i, 60);
          request.choices = 2;
          StatusOr<RequestId> id = world.loop->Submit(std::move(request), sink);
          if (id.status().code() == StatusCode::kCancelled) return;
          if (id.ok()) mine.push_back(sink);
        }
      });
    while (world.loop->Stats().generated_tokens < 50) std::this_thread::yield();
    world.loop->Stop();
    for (std::thread& thread : threads) thread.join();
    for (auto& mine : sinks)
      for (auto& sink : mine) EXPECT_TRUE(sink->over());
  }
}

TEST(EngineLoop, ADeadDeviceEndsRequestsNotTheProcess) {
  class Dead : public ToyExecutor {
   public:
    using ToyExecutor::ToyExecutor;
    StatusOr<exec::Outputs> Run(const std::string&, const kernels::BatchView&, std::span<const uint8_t>) override {
      return InternalError("dead");
    }
  };
  plan::Plan plan = ToyPlan(1);
  Engine engine(plan, std::make_unique<Dead>(plan, 40, 4), 40, 4);
  EngineLoop loop(engine, {});
  auto sink = std::make_shared<Waiter>(2);
  Request request = Ask(20, 5);
  request.choices = 2;
  ASSERT_TRUE(loop.Submit(request, sink).ok());
  sink->done.get_future().wait();
  EXPECT_EQ(sink->answers[0].reason, FinishReason::kFailed);
  EXPECT_EQ(sink->answers[1].reason, FinishReason::kFailed);
  EXPECT_EQ(sink->failure.message(), "the device failed: dead");
  EXPECT_TRUE(loop.Drain(steady_clock::now() + std::chrono::hours(1)));
  EXPECT_TRUE(loop.Stats().failed);
  EXPECT_EQ(loop.Submit(request, sink).status().code(), StatusCode::kInternal);
  EXPECT_EQ(engine.pools().pages.free(), 40);
}

}  // namespace
}  // namespace qwen::engine
