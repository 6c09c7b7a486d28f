// The verbs of a sequence over the toy model: every way to the same tokens gives the same outputs.
#include "runtime/engine/sequence.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "test/runtime/engine/toy_executor.h"

namespace qwen::engine {
namespace {

std::vector<int32_t> RandomTokens(std::mt19937_64& random, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % kToyVocab));
  return tokens;
}

struct World {
  explicit World(int max_rows, int num_pages = 64, int num_slots = 4)
      : plan(ToyPlan(max_rows)),
        executor(plan, num_pages, num_slots),
        batch(plan.capacity, PagesFor(plan.model.max_model_len)),
        pools(executor, batch, plan, num_pages, num_slots) {}

  /// Runs the sequence's pending rows alone and compares every one with what the tokens alone say.
  void RunAndCheck(Sequence& sequence) {
    std::vector<int32_t> all(sequence.tokens().begin(), sequence.tokens().end());
    exec::SequenceRows rows = sequence.Rows();
    all.insert(all.end(), rows.tokens.begin(), rows.tokens.end());
    std::vector<uint64_t> expected = ToyOutputs(all);
    std::vector<int32_t> logit_rows;
    for (int i = 0; i < sequence.pending_rows(); ++i) logit_rows.push_back(i);
    std::vector<kernels::SampleParams> sample(logit_rows.size());
    rows.logit_rows = logit_rows;
    rows.sample = sample;
    batch.Clear();
    Status status = sequence.part() == Part::kShort ? batch.AddShort(rows) : batch.AddLong(rows);
    ASSERT_TRUE(status.ok()) << status.message();
    bool verify = rows.tokens.size() > 1 && sequence.part() == Part::kShort;
    StatusOr<exec::Outputs> outputs = executor.Run(verify ? "verify" : "step", batch.View(), {});
    ASSERT_TRUE(outputs.ok());
    for (size_t i = 0; i < logit_rows.size(); ++i)
      ASSERT_EQ(outputs->next[i], ToyToken(expected[static_cast<size_t>(sequence.position()) + i]))
          << "row " << i << " at position " << sequence.position() << ", ring fill " << sequence.ring_fill();
  }
  void Feed(Sequence& sequence, const std::vector<int32_t>& tokens, Part part, int keep) {
    Status status = sequence.Append(tokens, part);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_NO_FATAL_FAILURE(RunAndCheck(sequence));
    sequence.Commit(keep);
  }
  bool NothingTaken() const {
    return pools.pages.free() == pools.pages.count() && pools.slots.free() == pools.slots.count() &&
           pools.table_rows.free() == pools.table_rows.count();
  }

  plan::Plan plan;
  ToyExecutor executor;
  exec::BatchBlock batch;
  Pools pools;
};

// Every pair of (rows, rows kept), from every ring fill that earlier commits can leave.
TEST(Sequence, CommitAndFoldBookkeeping) {
  for (int max_rows : {1, 2, 3, 8, 16}) {
    const int fold_rows = std::max(max_rows, 8);
    for (int fill = 0; fill <= fold_rows; ++fill) {
      for (int rows = 1; rows <= max_rows; ++rows) {
        for (int keep = 0; keep <= rows; ++keep) {
          World world(max_rows);
          std::mt19937_64 random(static_cast<uint64_t>(fill * 10000 + rows * 100 + keep));
          Sequence sequence = *Sequence::Begin(world.pools);
          ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 5), Part::kLong, 5));
          EXPECT_EQ(sequence.ring_fill(), 0);
          for (int i = 0; i < fill; ++i)
            ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 1), Part::kShort, 1));
          ASSERT_EQ(sequence.ring_fill(), fill);
          ASSERT_TRUE(sequence.Append(RandomTokens(random, rows), Part::kShort).ok());
          bool fold = fill + rows > fold_rows;
          EXPECT_EQ(sequence.fold(), fold);
          EXPECT_EQ(sequence.Rows().fold, fold);
          EXPECT_EQ(sequence.Rows().ring_fill, fill);
          EXPECT_EQ(sequence.Rows().position, 5 + fill);
          ASSERT_NO_FATAL_FAILURE(world.RunAndCheck(sequence));
          sequence.Commit(keep);
          EXPECT_EQ(sequence.position(), 5 + fill + keep);
          EXPECT_EQ(sequence.ring_fill(), fold ? keep : fill + keep);
          EXPECT_FALSE(sequence.fold());
          // The next row sees the kept rows and no other.
          ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 1), Part::kShort, 1));
          ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 4), Part::kLong, 4));
          EXPECT_EQ(sequence.ring_fill(), 0);
        }
      }
    }
  }
}

TEST(Sequence, PagesFollowThePosition) {
  World world(/*max_rows=*/8);
  std::mt19937_64 random(3);
  Sequence sequence = *Sequence::Begin(world.pools);
  EXPECT_TRUE(sequence.pages().empty());
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 30), Part::kLong, 30));
  EXPECT_EQ(sequence.pages().size(), 1u);
  ASSERT_TRUE(sequence.Append(RandomTokens(random, 8), Part::kShort).ok());
  EXPECT_EQ(sequence.pages().size(), 2u);
  ASSERT_NO_FATAL_FAILURE(world.RunAndCheck(sequence));
  sequence.Commit(2);  // to 32: the second page is wholly past it
  EXPECT_EQ(sequence.pages().size(), 1u);
  EXPECT_EQ(world.pools.pages.free(), world.pools.pages.count() - 1);
  ASSERT_TRUE(sequence.Append(RandomTokens(random, 2), Part::kShort).ok());
  EXPECT_EQ(sequence.pages().size(), 2u);
  sequence.Retract();
  EXPECT_EQ(sequence.pages().size(), 1u);
  EXPECT_FALSE(sequence.pending());
  sequence.Release();
  sequence.Release();
  EXPECT_TRUE(world.NothingTaken());
}

TEST(Sequence, AppendIsAllOrNothing) {
  World world(/*max_rows=*/1, /*num_pages=*/3);
  std::mt19937_64 random(3);
  Sequence sequence = *Sequence::Begin(world.pools);
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 40), Part::kLong, 40));
  Status status = sequence.Append(RandomTokens(random, 60), Part::kLong);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "kv cache: 2 pages are wanted, 1 of 3 are free");
  EXPECT_EQ(sequence.pages().size(), 2u);
  EXPECT_FALSE(sequence.pending());
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 56), Part::kLong, 56));
  EXPECT_EQ(sequence.position(), 96);
}

TEST(Sequence, AppendStopsAtTheModelsLength) {
  World world(/*max_rows=*/1);
  std::mt19937_64 random(3);
  Sequence sequence = *Sequence::Begin(world.pools);
  Status status = sequence.Append(RandomTokens(random, 401), Part::kLong);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "sequence: 401 tokens are more than the model's 400");
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 255), Part::kLong, 255));
}

TEST(Sequence, BeginTakesNothingWhenNoSlotIsFree) {
  World world(/*max_rows=*/1, 8, /*num_slots=*/1);
  Sequence first = *Sequence::Begin(world.pools);
  StatusOr<Sequence> second = Sequence::Begin(world.pools);
  EXPECT_EQ(second.status().message(), "state slots: all 1 are taken");
  EXPECT_EQ(world.pools.table_rows.free(), world.pools.table_rows.count() - 1);
  first.Release();
  EXPECT_TRUE(Sequence::Begin(world.pools).ok());
}

TEST(Sequence, PoisonedSequenceOnlyReleases) {
  World world(/*max_rows=*/4);
  std::mt19937_64 random(3);
  Sequence sequence = *Sequence::Begin(world.pools);
  std::vector<int32_t> prompt = RandomTokens(random, 70);
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, prompt, Part::kLong, 70));
  ASSERT_TRUE(sequence.Append(RandomTokens(random, 3), Part::kShort).ok());
  sequence.Poison();
  // What to prefill again: the committed tokens.
  EXPECT_EQ(std::vector<int32_t>(sequence.tokens().begin(), sequence.tokens().end()), prompt);
  sequence.Release();
  EXPECT_TRUE(world.NothingTaken());
  Sequence again = *Sequence::Begin(world.pools);
  ASSERT_NO_FATAL_FAILURE(world.Feed(again, prompt, Part::kLong, 70));
}

TEST(Sequence, PoisonedSequenceRefusesRows) {
  World world(/*max_rows=*/4);
  Sequence sequence = *Sequence::Begin(world.pools);
  sequence.Poison();
  EXPECT_EQ(sequence.Append(std::vector<int32_t>{1}, Part::kShort).code(), StatusCode::kInternal);
}

// A snapshot at every position of a run that mixes chunks, decode rows and dropped rows: the copy continues as the
// source, and the source does not notice.
TEST(Sequence, SnapshotAtEveryPosition) {
  for (int length = 0; length <= 70; ++length) {
    World world(/*max_rows=*/4);
    std::mt19937_64 random(static_cast<uint64_t>(length));
    Sequence sequence = *Sequence::Begin(world.pools);
    int chunk = length / 2;
    if (chunk > 1) {
      ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, chunk), Part::kLong, chunk));
    }
    while (sequence.position() < length) {
      int rows = 1 + static_cast<int>(random() % 4);
      int keep = std::min(static_cast<int>(random() % static_cast<uint64_t>(rows + 1)), length - sequence.position());
      ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, rows), Part::kShort, keep));
    }
    int ring_fill = sequence.ring_fill();
    {
      Snapshot snapshot = sequence.TakeSnapshot();
      EXPECT_EQ(snapshot.position(), length);
      EXPECT_EQ(sequence.ring_fill(), ring_fill);
      for (int copy = 0; copy < 2; ++copy) {
        Sequence restored = *Sequence::Restore(world.pools, snapshot);
        EXPECT_EQ(restored.position(), length);
        EXPECT_EQ(restored.ring_fill(), 0);
        for (int i = 0; i < 12; ++i)
          ASSERT_NO_FATAL_FAILURE(world.Feed(restored, RandomTokens(random, 1), Part::kShort, 1));
        ASSERT_NO_FATAL_FAILURE(world.Feed(restored, RandomTokens(random, 40), Part::kLong, 40));
        ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 1), Part::kShort, 1));
      }
    }
    sequence.Release();
    EXPECT_TRUE(world.NothingTaken());
  }
}

TEST(Sequence, ForkSharesFullPagesOnly) {
  World world(/*max_rows=*/4, /*num_pages=*/5);
  std::mt19937_64 random(3);
  Sequence sequence = *Sequence::Begin(world.pools);
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 80), Part::kLong, 80));
  Sequence fork = *sequence.Fork();
  EXPECT_EQ(world.pools.pages.free(), 1);
  EXPECT_EQ(fork.pages()[0], sequence.pages()[0]);
  EXPECT_EQ(fork.pages()[1], sequence.pages()[1]);
  EXPECT_NE(fork.pages()[2], sequence.pages()[2]);
  EXPECT_EQ(world.pools.pages.references(fork.pages()[0]), 2);
  ASSERT_NO_FATAL_FAILURE(world.Feed(fork, RandomTokens(random, 4), Part::kShort, 1));
  ASSERT_NO_FATAL_FAILURE(world.Feed(sequence, RandomTokens(random, 4), Part::kShort, 4));
  ASSERT_NO_FATAL_FAILURE(world.Feed(fork, RandomTokens(random, 4), Part::kShort, 4));
  // A page for the third copy's partial page, but none beyond: nothing is taken.
  Sequence third = *fork.Fork();
  StatusOr<Sequence> fourth = fork.Fork();
  EXPECT_EQ(fourth.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(world.pools.slots.free(), 1);
  sequence.Release();
  EXPECT_EQ(world.pools.pages.references(fork.pages()[0]), 2);
  ASSERT_NO_FATAL_FAILURE(world.Feed(third, RandomTokens(random, 4), Part::kShort, 0));
  third.Release();
  fork.Release();
  EXPECT_TRUE(world.NothingTaken());
}

// Everything at once, from many seeds: rows kept and dropped, chunks, snapshots, restores, forks, failures, too few
// pages and slots. Every row's output is compared; in the end nothing is taken.
TEST(Sequence, RandomTraffic) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::mt19937_64 random(seed);
    const int max_rows = 1 + static_cast<int>(random() % 16);
    World world(max_rows, /*num_pages=*/20, /*num_slots=*/4);
    {
      std::vector<std::unique_ptr<Sequence>> sequences;
      std::vector<std::unique_ptr<Snapshot>> snapshots;
      auto add = [&](StatusOr<Sequence> sequence) {
        if (sequence.ok())
          sequences.push_back(std::make_unique<Sequence>(*std::move(sequence)));
        else
          ASSERT_EQ(sequence.status().code(), StatusCode::kResourceExhausted);
      };
      for (int step = 0; step < 300; ++step) {
        int verb = static_cast<int>(random() % 12);
        if (verb == 0 || sequences.empty()) {
          ASSERT_NO_FATAL_FAILURE(add(Sequence::Begin(world.pools)));
          if (sequences.empty()) snapshots.clear();
          continue;
        }
        size_t pick = random() % sequences.size();
        Sequence& sequence = *sequences[pick];
        if (verb == 1) {
          if (snapshots.size() == 3) snapshots.erase(snapshots.begin());
          snapshots.push_back(std::make_unique<Snapshot>(sequence.TakeSnapshot()));
        } else if (verb == 2 && !snapshots.empty()) {
          ASSERT_NO_FATAL_FAILURE(add(Sequence::Restore(world.pools, *snapshots[random() % snapshots.size()])));
        } else if (verb == 3) {
          ASSERT_NO_FATAL_FAILURE(add(sequence.Fork()));
        } else if (verb == 4) {
          sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(pick));
        } else {
          bool is_long = verb >= 10;
          int rows = is_long ? 2 + static_cast<int>(random() % 90)
                             : 1 + static_cast<int>(random() % static_cast<uint64_t>(max_rows));
          int free = world.pools.pages.free();
          Status status = sequence.Append(RandomTokens(random, rows), is_long ? Part::kLong : Part::kShort);
          if (!status.ok()) {
            ASSERT_EQ(world.pools.pages.free(), free);
            ASSERT_FALSE(sequence.pending());
            // Room for the others.
            sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(pick));
            continue;
          }
          if (random() % 20 == 0) {
            sequence.Retract();
            ASSERT_EQ(world.pools.pages.free(), free);
            continue;
          }
          ASSERT_NO_FATAL_FAILURE(world.RunAndCheck(sequence));
          if (random() % 40 == 0) {
            sequence.Poison();
            sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(pick));
            continue;
          }
          sequence.Commit(is_long ? rows : static_cast<int>(random() % static_cast<uint64_t>(rows + 1)));
        }
      }
    }
    ASSERT_TRUE(world.NothingTaken()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace qwen::engine
