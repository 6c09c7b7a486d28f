#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "runtime/base/thread_pool.h"
#include "runtime/comm/comm.h"

namespace qwen::comm {
namespace {

class ShmTest : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  int ranks() const { return std::get<0>(GetParam()); }
  int threads() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(All, ShmTest, testing::Combine(testing::Values(1, 2, 3, 5), testing::Values(1, 2, 3)));

// An all-reduce as the kernels do one: each thread sums its columns over the peers in rank order. Every rank ends with
// the bits of the plain loop, round after round over the same buffers: a rank that overwrote its own before the others
// had read it, or read a peer's before it was written, would differ.
TEST_P(ShmTest, OrderedSumsHaveTheSameBitsOnEveryRank) {
  constexpr int kColumns = 100, kRounds = 50;
  const int count = ranks(), per_rank = threads();
  auto value = [](int round, int rank, int column) {
    std::minstd_rand random(round * 1000003 + rank * 1009 + column * 7 + 1);
    random.discard(3);
    return static_cast<float>(random()) * 1e-6f - 1000.0f;
  };
  auto comm = MakeShm(count, per_rank, 0);
  EXPECT_EQ(comm->ranks(), count);
  ThreadPool pool(count * per_rank, 0);
  std::vector<std::vector<float>> mine(count, std::vector<float>(kColumns)), sums = mine;
  std::vector<int> wrong(count * per_rank);
  std::vector<std::unique_ptr<Barrier>> in_rank;
  for (int r = 0; r < count; ++r) in_rank.push_back(std::make_unique<Barrier>(per_rank, 0));

  pool.Run([&](int index) {
    const int rank = index / per_rank, thread = index % per_rank;
    for (int round = 0; round < kRounds; ++round) {
      for (int c = thread; c < kColumns; c += per_rank) mine[rank][c] = value(round, rank, c);
      const void* const* peers = comm->Enter(rank, thread, mine[rank].data());
      for (int c = thread; c < kColumns; c += per_rank) {
        float sum = 0;
        for (int r = 0; r < count; ++r) sum += static_cast<const float*>(peers[r])[c];
        sums[rank][c] = sum;
      }
      comm->Leave();
      for (int c = thread; c < kColumns; c += per_rank) {
        float want = 0;
        for (int r = 0; r < count; ++r) want += value(round, r, c);
        wrong[index] += sums[rank][c] != want;
      }
      in_rank[rank]->Wait();
    }
  });
  EXPECT_EQ(wrong, std::vector<int>(count * per_rank, 0));
}

}  // namespace
}  // namespace qwen::comm
