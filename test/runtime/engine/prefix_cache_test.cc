// The prefix cache alone: what is found, what is saved where, what is evicted first, and that hashes are never trusted.
#include "runtime/engine/prefix_cache.h"

#include <gtest/gtest.h>

#include "test/runtime/engine/serving_world.h"

namespace qwen::engine {
namespace {

constexpr int kState = (1 + kToyTaps) * 8;  // bytes of the toy's snapshot

class PrefixCacheTest : public ::testing::Test {
 protected:
  PrefixCacheTest() { Make({.snapshot_budget = 1 << 20, .secret = 1}); }
  void Make(PrefixCacheOptions options) {
    cache_.reset();
    cache_ = std::make_unique<PrefixCache>(world_.engine->pools(), options);
  }

  /// Feeds `tokens` as a prefill would, saves at `saves`, and lets go of the sequence.
  void Insert(const std::vector<int32_t>& tokens, const std::vector<int>& saves, const std::string& salt = "") {
    PrefixCache::Tip tip;
    StatusOr<Sequence> sequence = cache_->Restore(cache_->Lookup(salt, tokens), tokens, &tip);
    ASSERT_TRUE(sequence.ok());
    std::vector<int> ends = saves;
    ends.push_back(static_cast<int>(tokens.size()));
    for (int end : ends) {
      if (end <= sequence->position()) continue;
      Feed(*sequence, tokens, end);
      cache_->Publish(salt, *sequence, &tip);
      if (end % plan::kStateAlign == 0 && std::ranges::find(saves, end) != saves.end())
        cache_->Save(*sequence, tip, {});
    }
    ExpectSound();
  }
  uint64_t Feed(Sequence& sequence, const std::vector<int32_t>& tokens, int end) {
    const int rows = end - sequence.position();
    const int32_t last = rows - 1;
    StepEntry entry{.sequence = &sequence, .logit_rows = {&last, 1}};
    entry.tokens = std::span(tokens).subspan(static_cast<size_t>(sequence.position()), static_cast<size_t>(rows));
    StatusOr<exec::Outputs> outputs = world_.engine->Step({&entry, 1});
    EXPECT_TRUE(outputs.ok());
    sequence.Commit(rows);
    return static_cast<uint64_t>(outputs->next[0]);
  }
  void ExpectSound() {
    Status status = cache_->Check();
    EXPECT_TRUE(status.ok()) << status.message();
  }

  std::mt19937_64 random_{3};
  ServingWorld world_{ToyPlan(1, 4, 2048, 4096), 256, 4};
  std::unique_ptr<PrefixCache> cache_;
};

TEST_F(PrefixCacheTest, FindsTheDeepestSnapshotAndNoFurther) {
  std::vector<int32_t> text = RandomTokens(random_, 300);
  Insert(text, {64, 192});
  PrefixCache::Hit hit = cache_->Lookup("", Joined(text, {1, 2, 3}));
  EXPECT_EQ(hit.tokens, 192);
  EXPECT_EQ(hit.matched, 288);
  EXPECT_EQ(hit.idle_pages, 6);
  // Somebody wants the last row's logits: a prompt is never all cached.
  EXPECT_EQ(cache_->Lookup("", std::vector(text.begin(), text.begin() + 192)).tokens, 64);
  EXPECT_EQ(cache_->Lookup("", std::vector(text.begin(), text.begin() + 193)).tokens, 192);
  // One other token, and the chain ends before its page.
  std::vector<int32_t> other = text;
  other[70] = (other[70] + 1) % kToyVocab;
  EXPECT_EQ(cache_->Lookup("", other).tokens, 64);
  EXPECT_EQ(cache_->Lookup("", other).matched, 64);
}

TEST_F(PrefixCacheTest, RestoredSequencesSayWhatColdOnesDo) {
  std::vector<int32_t> text = RandomTokens(random_, 260);
  Insert(text, {64, 128, 256});
  for (int shared = 0; shared <= 260; shared += shared < 120 ? 1 : 7) {
    std::vector<int32_t> prompt(text.begin(), text.begin() + shared);
    prompt = Joined(prompt, RandomTokens(random_, 9));
    PrefixCache::Tip tip;
    PrefixCache::Hit hit = cache_->Lookup("", prompt);
    EXPECT_GE(hit.tokens, shared >= 256 ? 256 : shared >= 128 ? 128 : shared / 64 * 64);
    StatusOr<Sequence> sequence = cache_->Restore(hit, prompt, &tip);
    ASSERT_TRUE(sequence.ok());
    EXPECT_EQ(sequence->position(), hit.tokens);
    EXPECT_EQ(Feed(*sequence, prompt, static_cast<int>(prompt.size())), static_cast<uint64_t>(ToyNext(prompt)))
        << shared;
  }
}

TEST_F(PrefixCacheTest, SaltsDoNotMeet) {
  std::vector<int32_t> text = RandomTokens(random_, 100);
  Insert(text, {64}, "a");
  EXPECT_EQ(cache_->Lookup("b", text).matched, 0);
  EXPECT_EQ(cache_->Lookup("", text).matched, 0);
  EXPECT_EQ(cache_->Lookup("a", text).tokens, 64);
  Insert(text, {64}, "b");
  EXPECT_EQ(cache_->Lookup("b", text).tokens, 64);
  EXPECT_EQ(cache_->snapshots(), 2);
}

TEST_F(PrefixCacheTest, CollidingHashesDoNoHarm) {
  Make({.snapshot_budget = 1 << 20, .hash_mask = 0});
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < 6; ++i) {
    texts.push_back(RandomTokens(random_, 130));
    Insert(texts.back(), {64, 128});
  }
  // The same page behind another one is another node.
  std::vector<int32_t> moved = Joined(std::vector(texts[0].begin(), texts[0].begin() + 32),
                                      std::vector(texts[1].begin(), texts[1].begin() + 64));
  EXPECT_EQ(cache_->Lookup("", moved).matched, 32);
  for (const std::vector<int32_t>& text : texts) {
    PrefixCache::Tip tip;
    StatusOr<Sequence> sequence = cache_->Restore(cache_->Lookup("", text), text, &tip);
    ASSERT_TRUE(sequence.ok());
    EXPECT_EQ(sequence->position(), 128);
    EXPECT_EQ(Feed(*sequence, text, 130), static_cast<uint64_t>(ToyNext(text)));
  }
}

TEST_F(PrefixCacheTest, PlansPromptEndBranchTurnsAndGrid) {
  PrefixCache::Hit cold;
  EXPECT_EQ(cache_->PlanSnapshots(cold, 63, {}), std::vector<int>{});
  EXPECT_EQ(cache_->PlanSnapshots(cold, 64, {}), std::vector<int>{64});
  EXPECT_EQ(cache_->PlanSnapshots(cold, 700, std::vector<int>{100, 300, 310, 690}), (std::vector<int>{64, 256, 640}));
  EXPECT_EQ(cache_->PlanSnapshots(cold, 5000, {}), (std::vector<int>{1024, 2048, 4096, 4992}));
  EXPECT_EQ(cache_->PlanSnapshots(cold, 30000, {}), (std::vector<int>{1024, 2048, 4096, 8192, 16384, 24576, 29952}));
  PrefixCache::Hit warm;
  warm.tokens = 1024, warm.matched = 1500;
  EXPECT_EQ(cache_->PlanSnapshots(warm, 2200, {}), (std::vector<int>{1472, 2048, 2176}));
  // At most 2 log2 of the length, one of them the answer's.
  std::vector<int> turns;
  for (int end = 64; end < 4000; end += 64) turns.push_back(end);
  std::vector<int> many = cache_->PlanSnapshots(cold, 4000, turns);
  EXPECT_EQ(many.size(), 23u);
  EXPECT_EQ(many.front(), 64);
  EXPECT_EQ(many.back(), 3968);
  Make({.snapshot_budget = kState - 1});
  EXPECT_EQ(cache_->PlanSnapshots(cold, 5000, {}), std::vector<int>{});
}

TEST_F(PrefixCacheTest, TheSnapshotThatSavesLeastGoesFirst) {
  Make({.snapshot_budget = 3 * kState});
  std::vector<int32_t> text = RandomTokens(random_, 700);
  Insert(text, {256, 320, 640});
  EXPECT_EQ(cache_->snapshot_bytes(), 3 * kState);
  std::vector<int32_t> other = RandomTokens(random_, 200);
  Insert(other, {128});  // takes the place of 320, which saves 64 tokens
  EXPECT_EQ(cache_->snapshots(), 3);
  EXPECT_EQ(cache_->Lookup("", other).tokens, 128);
  EXPECT_EQ(cache_->Lookup("", text).tokens, 640);
  EXPECT_EQ(cache_->Lookup("", std::vector(text.begin(), text.begin() + 600)).tokens, 256);
}

TEST_F(PrefixCacheTest, AnOldSnapshotLosesToOneInUse) {
  Make({.snapshot_budget = 2 * kState});
  std::vector<int32_t> old = RandomTokens(random_, 300), used = RandomTokens(random_, 200);
  Insert(old, {256});
  Insert(used, {128});
  for (int i = 0; i < 5; ++i) Insert(used, {});
  Insert(RandomTokens(random_, 100), {64});
  EXPECT_EQ(cache_->Lookup("", used).tokens, 128);
  EXPECT_EQ(cache_->Lookup("", old).tokens, 0);
}

TEST_F(PrefixCacheTest, PagesGoBackLeafFirstAndTakeTheirSnapshotsAlong) {
  KvPages& pages = world_.engine->pools().pages;
  std::vector<int32_t> first = RandomTokens(random_, 320), second = RandomTokens(random_, 320);
  Insert(first, {128, 320});
  Insert(second, {128, 320});
  EXPECT_EQ(pages.cached_only(), 20);
  Insert(Joined(first, {1}), {});  // a moment ago
  ASSERT_TRUE(cache_->EvictUntilFree(pages.free() + 1));
  ExpectSound();
  // The other one's last page, with the snapshot that ends there; its chain is whole up to it.
  EXPECT_EQ(cache_->Lookup("", Joined(second, {1})).tokens, 128);
  EXPECT_EQ(cache_->Lookup("", Joined(second, {1})).matched, 288);
  ASSERT_TRUE(cache_->EvictUntilFree(pages.free() + 9));
  ExpectSound();
  EXPECT_EQ(cache_->Lookup("", Joined(second, {1})).matched, 0);
  EXPECT_EQ(cache_->Lookup("", Joined(first, {1})).tokens, 320);
  EXPECT_EQ(cache_->snapshots(), 2);
  EXPECT_FALSE(cache_->EvictUntilFree(pages.count() + 1));
  EXPECT_EQ(cache_->Lookup("", Joined(first, {1})).tokens, 320) << "what cannot be had costs nothing";
  ASSERT_TRUE(cache_->EvictUntilFree(pages.count()));
  EXPECT_EQ(cache_->snapshot_bytes(), 0);
}

TEST_F(PrefixCacheTest, PagesInUseStay) {
  KvPages& pages = world_.engine->pools().pages;
  std::vector<int32_t> text = RandomTokens(random_, 200);
  Insert(text, {64, 128});
  PrefixCache::Tip tip;
  StatusOr<Sequence> sequence = cache_->Restore(cache_->Lookup("", text), text, &tip);
  ASSERT_TRUE(sequence.ok());
  EXPECT_EQ(pages.cached_only(), 2);  // behind the hit
  EXPECT_FALSE(cache_->EvictUntilFree(pages.count() - 3));
  ASSERT_TRUE(cache_->EvictUntilFree(pages.count() - 4));
  ExpectSound();
  EXPECT_EQ(Feed(*sequence, text, 200), static_cast<uint64_t>(ToyNext(text)));
  cache_->Publish("", *sequence, &tip);
  ExpectSound();
  EXPECT_EQ(cache_->Lookup("", text).matched, 192);
}

TEST_F(PrefixCacheTest, TheLatestOfAnAnswerTakesThePlaceOfTheOneBefore) {
  std::vector<int32_t> text = RandomTokens(random_, 300);
  PrefixCache::Tip tip;
  StatusOr<Sequence> sequence = cache_->Restore({}, text, &tip);
  ASSERT_TRUE(sequence.ok());
  PrefixCache::Ref last;
  for (int end = 64; end <= 256; end += 64) {
    Feed(*sequence, text, end);
    cache_->Publish("", *sequence, &tip);
    last = cache_->Save(*sequence, tip, last);
    EXPECT_EQ(cache_->snapshots(), 1);
    EXPECT_EQ(cache_->Lookup("", text).tokens, end);
  }
  ExpectSound();
}

}  // namespace
}  // namespace qwen::engine
