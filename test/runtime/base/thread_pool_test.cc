#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <numeric>
#include <vector>

namespace qwen {
namespace {

// More threads than cores, spinning or not: nothing depends on who sleeps.
class ThreadPoolTest : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  int threads() const { return std::get<0>(GetParam()); }
  int spins() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(All, ThreadPoolTest,
                         testing::Combine(testing::Values(1, 2, 3, 5, 9), testing::Values(0, 100)));

TEST_P(ThreadPoolTest, RunCallsEveryThreadOnce) {
  ThreadPool pool(threads(), spins());
  std::vector<int> calls(threads());
  for (int run = 1; run <= 200; ++run) {
    pool.Run([&](int thread) { ++calls[thread]; });
    EXPECT_EQ(calls, std::vector<int>(threads(), run));
  }
}

// Every thread adds what the others wrote in the phase before: plain ints, so TSan sees a barrier that orders nothing.
TEST_P(ThreadPoolTest, BarrierShowsEveryWriteOfThePhaseBefore) {
  const int count = threads();
  ThreadPool pool(count, spins());
  Barrier barrier(count, spins());
  std::vector<int64_t> even(count, 1), odd(count);
  constexpr int kPhases = 40;
  pool.Run([&](int thread) {
    for (int phase = 0; phase < kPhases; ++phase) {
      std::vector<int64_t>& from = phase % 2 ? odd : even;
      std::vector<int64_t>& to = phase % 2 ? even : odd;
      to[thread] = std::accumulate(from.begin(), from.end(), int64_t{0}) % 1000003;
      barrier.Wait();
    }
  });
  int64_t want = 1;
  for (int phase = 0; phase < kPhases; ++phase) want = want * count % 1000003;
  EXPECT_EQ(even, std::vector<int64_t>(count, want));
}

TEST_P(ThreadPoolTest, EndsWithoutARun) { ThreadPool pool(threads(), spins()); }

TEST(ThreadPool, NobodySpinsWithMoreThreadsThanCores) {
  EXPECT_GT(SpinsFor(1), 0);
  EXPECT_EQ(SpinsFor(AvailableCores() + 1), 0);
}

// No bound: the machine may be shared. The figure is for the reader.
TEST(ThreadPool, CostOfABarrier) {
  for (int threads : {2, 5}) {
    ThreadPool pool(threads, SpinsFor(threads));
    Barrier barrier(threads, SpinsFor(threads));
    constexpr int kPhases = 2000;
    auto start = std::chrono::steady_clock::now();
    pool.Run([&](int) {
      for (int i = 0; i < kPhases; ++i) barrier.Wait();
    });
    double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / kPhases;
    std::printf("barrier of %d threads on %d cores: %.2f us\n", threads, AvailableCores(), us);
    RecordProperty("barrier_us_" + std::to_string(threads), std::to_string(us));
  }
}

}  // namespace
}  // namespace qwen
