// Pages and slots under seeded random traffic: none lost, none handed out twice.
#include "runtime/engine/kv_pages.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "runtime/engine/recurrent_state.h"

namespace qwen::engine {
namespace {

TEST(KvPages, TakesAllOrNothing) {
  KvPages pages(5);
  StatusOr<std::vector<int32_t>> taken = pages.Take(3);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(pages.free(), 2);
  StatusOr<std::vector<int32_t>> more = pages.Take(3);
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(more.status().message(), "kv cache: 3 pages are wanted, 2 of 5 are free");
  EXPECT_EQ(pages.free(), 2);
  EXPECT_TRUE(pages.Take(0)->empty());
  for (int32_t page : *taken) pages.Release(page);
  EXPECT_EQ(pages.Take(5)->size(), 5u);
}

TEST(KvPages, SharedPageIsFreeAfterTheLastRelease) {
  KvPages pages(1);
  int32_t page = (*pages.Take(1))[0];
  pages.Share(page);
  pages.Share(page);
  EXPECT_EQ(pages.references(page), 3);
  pages.Release(page);
  pages.Release(page);
  EXPECT_EQ(pages.free(), 0);
  pages.Release(page);
  EXPECT_EQ(pages.free(), 1);
}

TEST(KvPages, CountsThoseThatOnlyTheCacheHolds) {
  KvPages pages(3);
  int32_t page = (*pages.Take(1))[0];
  pages.Cache(page);
  EXPECT_EQ(pages.references(page), 2);
  EXPECT_EQ(pages.cached_only(), 0);
  pages.Release(page);
  EXPECT_EQ(pages.cached_only(), 1);
  pages.Share(page);
  EXPECT_EQ(pages.cached_only(), 0);
  pages.Uncache(page);
  EXPECT_FALSE(pages.cached(page));
  pages.Release(page);
  EXPECT_EQ(pages.cached_only(), 0);
  EXPECT_EQ(pages.free(), 3);
  page = (*pages.Take(1))[0];
  pages.Cache(page);
  pages.Release(page);
  pages.Uncache(page);
  EXPECT_EQ(pages.cached_only(), 0);
  EXPECT_EQ(pages.free(), 3);
}

TEST(KvPages, RandomTrafficLosesNone) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::mt19937_64 random(seed);
    constexpr int kCount = 23;
    KvPages pages(kCount);
    std::vector<int32_t> held;  // one entry a reference
    for (int step = 0; step < 500; ++step) {
      if (uint64_t verb = random() % 3; verb == 0) {
        int count = static_cast<int>(random() % 6);
        int free = pages.free();
        StatusOr<std::vector<int32_t>> taken = pages.Take(count);
        ASSERT_EQ(taken.ok(), count <= free);
        if (taken.ok())
          for (int32_t page : *taken) {
            ASSERT_EQ(std::count(held.begin(), held.end(), page), 0);
            held.push_back(page);
          }
      } else if (verb == 1 && !held.empty()) {
        held.push_back(held[random() % held.size()]);
        pages.Share(held.back());
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        pages.Release(held.back());
        held.pop_back();
      }
      std::map<int32_t, int> references;
      for (int32_t page : held) ++references[page];
      ASSERT_EQ(pages.free() + static_cast<int>(references.size()), kCount);
      for (auto [page, count] : references) ASSERT_EQ(pages.references(page), count);
    }
    for (int32_t page : held) pages.Release(page);
    ASSERT_EQ(pages.free(), kCount);
  }
}

TEST(KvPages, PagesForTokens) {
  EXPECT_EQ(PagesFor(0), 0);
  EXPECT_EQ(PagesFor(1), 1);
  EXPECT_EQ(PagesFor(32), 1);
  EXPECT_EQ(PagesFor(33), 2);
}

TEST(Slots, RandomTrafficLosesNone) {
  std::mt19937_64 random(1);
  Slots slots("state slots", 5);
  std::vector<int32_t> held;
  for (int step = 0; step < 2000; ++step) {
    if (random() % 2) {
      StatusOr<int32_t> slot = slots.Take();
      ASSERT_EQ(slot.ok(), held.size() < 5);
      if (slot.ok()) {
        ASSERT_EQ(std::count(held.begin(), held.end(), *slot), 0);
        held.push_back(*slot);
      } else {
        ASSERT_EQ(slot.status().message(), "state slots: all 5 are taken");
      }
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      slots.Release(held.back());
      held.pop_back();
    }
    ASSERT_EQ(slots.free() + static_cast<int>(held.size()), 5);
  }
}

}  // namespace
}  // namespace qwen::engine
