#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

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

TEST(Cores, MasksAndLists) {
  EXPECT_EQ(*ParseCores("0x5"), (std::vector<int>{0, 2}));
  EXPECT_EQ(*ParseCores("0x100000000"), (std::vector<int>{32}));
  EXPECT_EQ(*ParseCores("3,0-1,1"), (std::vector<int>{0, 1, 3}));
  EXPECT_EQ(ParseCores("0x").status().message(), "'0x' names no core");
  EXPECT_EQ(ParseCores("0xg").status().message(), "'0xg' is no mask of hexadecimal digits");
  EXPECT_EQ(ParseCores("1024").status().message(), "'1024' names a core beyond 1023");
  EXPECT_EQ(ParseCores("0x1" + std::string(256, '0')).status().message(),
            "'0x1" + std::string(256, '0') + "' names a core beyond 1023");
  for (const char* text : {"", ",", "1,", "-1", "2-1", "0-", "1;2", "99999999999"})
    EXPECT_EQ(ParseCores(text).status().message(), "'" + std::string(text) + "' is no list of cores");
}

TEST(Cores, ThreadsStayOnThem) {
  std::thread([] {
    const int before = AvailableCores();
    ASSERT_GE(before, 1);
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    ASSERT_TRUE(UseCores(std::vector<int>{first}).ok());
    EXPECT_EQ(AvailableCores(), 1);
    std::thread([] { EXPECT_EQ(AvailableCores(), 1); }).join();
    EXPECT_EQ(UseCores(std::vector<int>{1023}).message(), "none of these 1 cores is this process's to use");
  }).join();
}

}  // namespace
}  // namespace qwen
