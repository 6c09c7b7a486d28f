// The arithmetic of ragged shares: whatever the sizes, the shares cover everything once, at unit borders.
#include "passes/shard/ShardPlan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace qwen::shard {
namespace {

std::vector<int64_t> sizes(const std::vector<Range> &shares) {
  std::vector<int64_t> result;
  for (Range share : shares)
    result.push_back(share.size());
  return result;
}

using Sizes = std::vector<int64_t>;

TEST(SplitUnits, IsCeilFirst) {
  EXPECT_EQ(sizes(splitUnits(16, 3)), (Sizes{6, 5, 5}));
  EXPECT_EQ(sizes(splitUnits(256, 3)), (Sizes{86, 85, 85}));
  EXPECT_EQ(sizes(splitUnits(8, 3)), (Sizes{3, 3, 2}));
  EXPECT_EQ(sizes(splitUnits(24, 3)), (Sizes{8, 8, 8}));
  EXPECT_EQ(sizes(splitUnits(32, 3)), (Sizes{11, 11, 10}));
}

TEST(SplitUnits, GivesEmptySharesWhenUnitsRunOut) {
  EXPECT_EQ(sizes(splitUnits(3, 5)), (Sizes{1, 1, 1, 0, 0}));
  EXPECT_EQ(sizes(splitUnits(0, 2)), (Sizes{0, 0}));
}

TEST(SplitChannels, KeepsThePartialUnitWhole) {
  EXPECT_EQ(sizes(splitChannels(512, 16, 3)), (Sizes{176, 176, 160}));
  EXPECT_EQ(sizes(splitChannels(40, 16, 3)), (Sizes{16, 16, 8}));
  EXPECT_EQ(sizes(splitChannels(40, 16, 5)), (Sizes{16, 16, 8, 0, 0}));
  EXPECT_EQ(sizes(splitChannels(101, 64, 2)), (Sizes{64, 37}));
  EXPECT_EQ(sizes(splitChannels(7, 64, 3)), (Sizes{7, 0, 0}));
}

// Cover, disjoint, aligned and even, for every small size.
TEST(SplitChannels, CoversOnceAtUnitBorders) {
  for (int64_t unit : {1, 3, 16, 64})
    for (int64_t channels = 0; channels <= 300; ++channels)
      for (int64_t ranks = 1; ranks <= 8; ++ranks) {
        std::vector<Range> shares = splitChannels(channels, unit, ranks);
        ASSERT_EQ(int64_t(shares.size()), ranks);
        int64_t at = 0, smallest = channels, largest = 0;
        for (Range share : shares) {
          ASSERT_EQ(share.begin, at) << channels << " in " << unit << " over " << ranks;
          ASSERT_GE(share.size(), 0);
          ASSERT_TRUE(share.end == channels || share.end % unit == 0);
          int64_t units = (share.size() + unit - 1) / unit;
          smallest = std::min(smallest, units);
          largest = std::max(largest, units);
          at = share.end;
        }
        ASSERT_EQ(at, channels);
        if (channels)
          ASSERT_LE(largest - smallest, 1) << channels << " in " << unit << " over " << ranks;
      }
}

TEST(RotatedShare, DealsEveryShareOnceALayerAndMovesOn) {
  for (int64_t ranks = 1; ranks <= 8; ++ranks)
    for (int64_t layer = 0; layer < 20; ++layer) {
      std::vector<bool> dealt(ranks);
      for (int64_t rank = 0; rank < ranks; ++rank)
        dealt[rotatedShare(rank, layer, ranks)] = true;
      EXPECT_TRUE(std::all_of(dealt.begin(), dealt.end(), [](bool taken) { return taken; }));
      EXPECT_EQ(rotatedShare(layer % ranks, layer, ranks), 0); // the larger share
    }
}

std::vector<int64_t> groupedMap(int64_t queryHeads, int64_t kvHeads) {
  std::vector<int64_t> map(queryHeads);
  for (int64_t head = 0; head < queryHeads; ++head)
    map[head] = head / (queryHeads / kvHeads);
  return map;
}

TEST(KvHeads, AreWhatTheQueriesRead) {
  std::vector<int64_t> map = groupedMap(16, 2);
  EXPECT_EQ(kvHeadsOf({0, 6}, map), (Ranges{{0, 1}}));
  EXPECT_EQ(kvHeadsOf({6, 11}, map), (Ranges{{0, 2}})); // straddles both groups
  EXPECT_EQ(kvHeadsOf({11, 16}, map), (Ranges{{1, 2}}));
  EXPECT_EQ(kvHeadsOf({5, 5}, map), Ranges{});
  EXPECT_EQ(localKvMap({6, 11}, map), (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_EQ(localKvMap({11, 16}, map), (std::vector<int64_t>{0, 0, 0, 0, 0}));
}

TEST(KvHeads, NeedNotBeNeighbours) {
  std::vector<int64_t> map{3, 0, 3, 1};
  EXPECT_EQ(kvHeadsOf({0, 4}, map), (Ranges{{0, 2}, {3, 4}}));
  EXPECT_EQ(localKvMap({0, 4}, map), (std::vector<int64_t>{2, 0, 2, 1}));
}

// The local map names the same head of the cache as the whole one, for any map and any range.
TEST(KvHeads, LocalMapFindsTheSameHead) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 500; ++trial) {
    int64_t queries = 1 + random() % 12, heads = 1 + random() % 6;
    std::vector<int64_t> map(queries);
    for (int64_t &head : map)
      head = random() % heads;
    int64_t begin = random() % (queries + 1), end = begin + random() % (queries + 1 - begin);
    Ranges kept = kvHeadsOf({begin, end}, map);
    std::vector<int64_t> flat, local = localKvMap({begin, end}, map);
    for (Range range : kept)
      for (int64_t head = range.begin; head < range.end; ++head)
        flat.push_back(head);
    ASSERT_EQ(int64_t(local.size()), end - begin);
    for (int64_t query = begin; query < end; ++query)
      ASSERT_EQ(flat[local[query - begin]], map[query]);
    std::vector<bool> read(heads);
    for (int64_t query = begin; query < end; ++query)
      read[map[query]] = true;
    ASSERT_EQ(int64_t(flat.size()), std::count(read.begin(), read.end(), true)); // no head is kept for nothing
  }
}

// The shares of q | k | v channels cover all channels once, and hold what the heads say.
TEST(DeltaNetChannels, CoverQKAndVOnce) {
  for (int64_t keyHeads : {1, 2, 3, 16})
    for (int64_t ratio : {1, 2, 3, 4})
      for (int64_t ranks = 1; ranks <= 5; ++ranks) {
        const int64_t keyDim = 8, valueDim = 4, valueHeads = keyHeads * ratio;
        std::vector<int> seen(2 * keyHeads * keyDim + valueHeads * valueDim);
        for (Range keys : splitUnits(keyHeads, ranks)) {
          Ranges channels = deltaNetChannels(keys, keyHeads, valueHeads, keyDim, valueDim);
          ASSERT_EQ(channels.size(), 3u);
          EXPECT_EQ(totalSize(channels), 2 * keys.size() * keyDim + keys.size() * ratio * valueDim);
          EXPECT_EQ(channels[1].begin - channels[0].begin, keyHeads * keyDim);
          for (Range range : channels)
            for (int64_t channel = range.begin; channel < range.end; ++channel)
              ++seen[channel];
        }
        EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
      }
}

TEST(DeltaNetChannels, FollowTheGroupsOfValueHeads) {
  // 16 key heads with 2 value heads each on 3 ranks: the second has key heads 6 to 10, value heads 12 to 21.
  Ranges channels = deltaNetChannels({6, 11}, 16, 32, 128, 128);
  EXPECT_EQ(channels, (Ranges{{768, 1408}, {2048 + 768, 2048 + 1408}, {4096 + 1536, 4096 + 2816}}));
  EXPECT_EQ(valueHeadsOf({6, 11}, 16, 32), (Range{12, 22}));
  EXPECT_EQ(valueHeadsOf({0, 0}, 0, 0), (Range{0, 0}));
}

TEST(GateUpRows, AreTheSameChannelsOfBothHalves) {
  EXPECT_EQ(gateUpRows({16, 24}, 24), (Ranges{{16, 24}, {40, 48}}));
  EXPECT_EQ(totalSize(gateUpRows({0, 0}, 24)), 0);
}

} // namespace
} // namespace qwen::shard
