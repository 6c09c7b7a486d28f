// State is transactional, on real plans of every model type, to the last bit:
//
// - rows are appended, any number of them kept, the rest dropped; snapshots, restores and forks at any token; and every
//   row's logits are those of a run that never saw the dropped rows;
// - in bf16 too, one call is any split, alone is any company (split_batch_test.cc has f32, through qwenrt).
//
// Through the engine: no command drops rows on purpose.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "runtime/engine/engine.h"
#include "runtime/engine/logits.h"
#include "runtime/exec/weights.h"
#include "runtime/plan/reader.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using engine::Engine;
using engine::Part;
using engine::Sequence;
using engine::Snapshot;
using engine::StepEntry;

using Row = std::vector<float>;

::testing::AssertionResult SameBits(const Row& a, const Row& b) {
  if (a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0)
    return ::testing::AssertionSuccess();
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " values against " << b.size();
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return ::testing::AssertionFailure() << "relative L2 " << std::sqrt(error / norm);
}

// A golden checkpoint's plan, compiled by the qwenc of this build, and its weights.
class GoldenPlan {
 public:
  GoldenPlan(const std::string& name, std::vector<std::string> flags) {
    TempDir temp;
    flags.insert(flags.begin(), {"compile", GoldenDir(name), "-o", temp / "m.plan"});
    CommandResult compile = RunProgram("qwenc", flags);
    EXPECT_EQ(compile.exit_code, 0) << compile.output;
    StatusOr<plan::Plan> read = plan::ReadPlan(temp / "m.plan");
    EXPECT_TRUE(read.ok()) << read.status().message();
    if (!read.ok()) return;
    plan_ = *std::move(read);
    StatusOr<exec::Weights> loaded = exec::LoadWeights(plan_, GoldenDir(name));
    EXPECT_TRUE(loaded.ok()) << loaded.status().message();
    if (!loaded.ok()) return;
    weights_ = *std::move(loaded);
    ok_ = true;
  }

  bool ok() const { return ok_; }
  const plan::Plan& plan() const { return plan_; }
  /// nullptr, and a failure, when there is none.
  std::unique_ptr<Engine> MakeEngine(int num_pages, int num_slots, int threads) const {
    exec::ExecutorOptions options;
    options.threads = threads;
    options.num_pages = num_pages;
    options.num_slots = num_slots;
    auto executor = exec::Executor::Create(plan_, weights_, options);
    EXPECT_TRUE(executor.ok()) << executor.status().message();
    if (!executor.ok()) return nullptr;
    return std::make_unique<Engine>(plan_, *std::move(executor), num_pages, num_slots);
  }

 private:
  plan::Plan plan_;
  exec::Weights weights_;
  bool ok_ = false;
};

// One call that counted: a chunk, or one row.
struct Call {
  std::vector<int32_t> tokens;
  Part part;
};

// What a run that never saw the dropped rows would have been fed, and what was said at every kept row.
struct History {
  std::vector<Call> calls;
  std::vector<Row> logits;
};

struct Tracked {
  std::unique_ptr<Sequence> sequence;
  History history;
};
struct Saved {
  std::unique_ptr<Snapshot> snapshot;
  History history;
};

class World {
 public:
  World(const GoldenPlan& golden, int num_pages, int num_slots)
      : engine_(golden.MakeEngine(num_pages, num_slots, /*threads=*/1)),
        vocab_(static_cast<size_t>(golden.plan().model.vocab)) {}

  Engine* engine() { return engine_.get(); }
  bool NothingTaken() {
    engine::Pools& pools = engine_->pools();
    return pools.pages.free() == pools.pages.count() && pools.slots.free() == pools.slots.count() &&
           pools.table_rows.free() == pools.table_rows.count();
  }

  struct Feed {
    Tracked* tracked;
    Call call;
    int keep;
  };
  // All in one step.
  void Step(std::vector<Feed>& feeds) {
    std::vector<StepEntry> entries;
    std::vector<int32_t> rows(512);
    std::iota(rows.begin(), rows.end(), 0);
    for (Feed& feed : feeds) {
      StepEntry entry;
      entry.sequence = feed.tracked->sequence.get();
      entry.tokens = feed.call.tokens;
      entry.part = feed.call.part;
      entry.logit_rows = std::span(rows).first(feed.call.tokens.size());
      entry.sample = engine::MakeSampleParams({}, /*write_logits=*/true);
      entries.push_back(entry);
    }
    StatusOr<exec::Outputs> outputs = engine_->Step(entries);
    ASSERT_TRUE(outputs.ok()) << outputs.status().message();
    for (size_t i = 0; i < feeds.size(); ++i) {
      History& history = feeds[i].tracked->history;
      for (int row = 0; row < feeds[i].keep; ++row) {
        auto at = outputs->logits.begin() +
                  static_cast<std::ptrdiff_t>(static_cast<size_t>(entries[i].first_logit_row + row) * vocab_);
        history.logits.emplace_back(at, at + static_cast<std::ptrdiff_t>(vocab_));
      }
      if (entries[i].part == Part::kLong) {
        history.calls.push_back(feeds[i].call);
      } else {
        for (int row = 0; row < feeds[i].keep; ++row)
          history.calls.push_back({{feeds[i].call.tokens[static_cast<size_t>(row)]}, Part::kShort});
      }
      feeds[i].tracked->sequence->Commit(feeds[i].keep);
    }
  }

 private:
  std::unique_ptr<Engine> engine_;
  size_t vocab_;
};

constexpr int kSeeds = 50;

class Transactional : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  const std::string& name() const { return std::get<0>(GetParam()); }
  const std::string& dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(Transactional, KeptRowsNeverSawTheDroppedOnes) {
  GoldenPlan golden(name(), {"--max-rows", "16", "--dtype", dtype()});
  ASSERT_TRUE(golden.ok());
  ASSERT_EQ(golden.plan().capacity.max_rows, 16);
  constexpr int kPages = 40, kSlots = 5;
  World world(golden, kPages, kSlots);
  ASSERT_NE(world.engine(), nullptr);
  Engine& engine = *world.engine();
  const int64_t max_len = std::min<int64_t>(200, engine.max_model_len());
  int64_t kept = 0, dropped = 0, copies = 0;

  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    auto draw = [&](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
    };
    auto tokens = [&](int64_t count) {
      std::vector<int32_t> made;
      for (int64_t i = 0; i < count; ++i) made.push_back(static_cast<int32_t>(draw(0, engine.vocab() - 1)));
      return made;
    };
    std::vector<History> finished;
    {
      std::vector<std::unique_ptr<Tracked>> live;
      std::vector<Saved> saved;
      auto add = [&](StatusOr<Sequence> sequence, const History& history) {
        if (!sequence.ok()) {
          ASSERT_EQ(sequence.status().code(), StatusCode::kResourceExhausted) << sequence.status().message();
          return;
        }
        live.push_back(std::make_unique<Tracked>(Tracked{std::make_unique<Sequence>(*std::move(sequence)), history}));
        copies += !history.calls.empty();
      };
      auto finish = [&](size_t index) {
        finished.push_back(std::move(live[index]->history));
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(index));
      };
      for (int step = 0; step < 40; ++step) {
        int64_t verb = draw(0, 9);
        if (live.empty() || verb == 0) {
          if (live.size() == kSlots) finish(static_cast<size_t>(draw(0, kSlots - 1)));
          ASSERT_NO_FATAL_FAILURE(add(engine.Begin(), {}));
        } else if (verb == 1) {
          Tracked& from = *live[static_cast<size_t>(draw(0, static_cast<int64_t>(live.size()) - 1))];
          if (saved.size() == 3) saved.erase(saved.begin());
          saved.push_back({std::make_unique<Snapshot>(from.sequence->TakeSnapshot()), from.history});
        } else if (verb == 2 && !saved.empty()) {
          Saved& from = saved[static_cast<size_t>(draw(0, static_cast<int64_t>(saved.size()) - 1))];
          ASSERT_NO_FATAL_FAILURE(add(engine.Restore(*from.snapshot), from.history));
        } else if (verb == 3) {
          Tracked& from = *live[static_cast<size_t>(draw(0, static_cast<int64_t>(live.size()) - 1))];
          ASSERT_NO_FATAL_FAILURE(add(from.sequence->Fork(), History(from.history)));
        }
        // Some of the sequences in one step, in any order.
        std::vector<size_t> order(live.size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::shuffle(order.begin(), order.end(), random);
        order.resize(static_cast<size_t>(draw(1, static_cast<int64_t>(order.size()))));
        std::vector<World::Feed> feeds;
        for (size_t index : order) {
          int64_t room = max_len - live[index]->sequence->position();
          if (room < 1) continue;
          bool chunk = draw(0, 4) == 0 && room > 1;
          int64_t rows = chunk ? draw(2, std::min<int64_t>(70, room)) : draw(1, std::min<int64_t>(16, room));
          int64_t keep = chunk ? rows : draw(0, rows);
          feeds.push_back(
              {live[index].get(), {tokens(rows), chunk ? Part::kLong : Part::kShort}, static_cast<int>(keep)});
          kept += keep;
          dropped += rows - keep;
        }
        if (feeds.empty()) {
          finish(order[0]);
          continue;
        }
        ASSERT_NO_FATAL_FAILURE(world.Step(feeds));
      }
      // A few more rows for everyone: a wrong copy may show late.
      for (auto& tracked : live) {
        for (int row = 0; row < 3 && tracked->sequence->position() < max_len; ++row) {
          std::vector<World::Feed> feeds = {{tracked.get(), {tokens(1), Part::kShort}, 1}};
          ASSERT_NO_FATAL_FAILURE(world.Step(feeds));
        }
      }
      while (!live.empty()) finish(live.size() - 1);
    }
    ASSERT_TRUE(world.NothingTaken());

    // Each again, alone and without the dropped rows. The pools are left as they are: full of other sequences' remains.
    for (const History& history : finished) {
      StatusOr<Sequence> sequence = engine.Begin();
      ASSERT_TRUE(sequence.ok());
      Tracked again{std::make_unique<Sequence>(*std::move(sequence)), {}};
      for (const Call& call : history.calls) {
        std::vector<World::Feed> feeds = {{&again, call, static_cast<int>(call.tokens.size())}};
        ASSERT_NO_FATAL_FAILURE(world.Step(feeds));
      }
      ASSERT_EQ(again.history.logits.size(), history.logits.size());
      for (size_t row = 0; row < history.logits.size(); ++row)
        ASSERT_TRUE(SameBits(history.logits[row], again.history.logits[row]))
            << "row " << row << " of " << history.logits.size();
    }
    ASSERT_TRUE(world.NothingTaken());
  }
  Figure(fmt::format("transactions {} {}", name(), dtype()),
         fmt::format("{} rows kept, {} dropped, {} copies over {} seeds, bit for bit; no page or slot lost", kept,
                     dropped, copies, kSeeds));
}

// verify: drafts are accepted up to the first that is not what the model says, and the token after them is its own.
TEST_P(Transactional, VerifyAcceptsTheDraftsThatMatch) {
  GoldenPlan golden(name(), {"--max-rows", "16", "--dtype", dtype()});
  ASSERT_TRUE(golden.ok());
  World world(golden, /*num_pages=*/16, /*num_slots=*/2);
  ASSERT_NE(world.engine(), nullptr);
  Engine& engine = *world.engine();
  // What the model says, token by token.
  std::vector<int32_t> prompt = {3, 1, 4, 1, 5}, said;
  {
    StatusOr<Sequence> sequence = engine.Begin();
    ASSERT_TRUE(sequence.ok());
    std::vector<int32_t> tokens = prompt, last = {4};
    for (int i = 0; i < 40; ++i) {
      StepEntry entry;
      entry.sequence = &*sequence;
      entry.tokens = tokens;
      entry.logit_rows = last;
      entry.sample = engine::MakeSampleParams({});
      StatusOr<exec::Outputs> outputs = engine.Step({&entry, 1});
      ASSERT_TRUE(outputs.ok()) << outputs.status().message();
      sequence->Commit(static_cast<int>(tokens.size()));
      said.push_back(outputs->next[0]);
      tokens = {said.back()};
      last = {0};
    }
  }
  for (int right = 0; right <= 15; ++right) {
    // Two in one step, so that their rows must be told apart: all drafts right, and `right` of them.
    StatusOr<Sequence> sequences[2] = {engine.Begin(), engine.Begin()};
    StepEntry entries[2];
    std::vector<int32_t> fed[2], rows(16);
    std::iota(rows.begin(), rows.end(), 0);
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(sequences[i].ok());
      entries[i].sequence = &*sequences[i];
      entries[i].tokens = prompt;
      entries[i].logit_rows = {};
    }
    ASSERT_TRUE(engine.Step(entries).ok());
    for (int i = 0; i < 2; ++i) {
      sequences[i]->Commit(static_cast<int>(prompt.size()));
      fed[i].assign(said.begin(), said.begin() + 16);
      if (i == 1 && right < 15)
        fed[i][static_cast<size_t>(right) + 1] = (fed[i][static_cast<size_t>(right) + 1] + 1) % 50;
      entries[i].tokens = fed[i];
      entries[i].part = Part::kShort;
      entries[i].logit_rows = rows;
      entries[i].sample = engine::MakeSampleParams({});
    }
    StatusOr<exec::Outputs> outputs = engine.Step(entries);
    ASSERT_TRUE(outputs.ok()) << outputs.status().message();
    ASSERT_EQ(outputs->accepted.size(), 2u);
    EXPECT_EQ(outputs->accepted[0], 15);
    EXPECT_EQ(outputs->emitted[0], said[16]);
    EXPECT_EQ(outputs->accepted[1], right);
    EXPECT_EQ(outputs->emitted[1], said[static_cast<size_t>(right) + 1]);
    // Commit what counts, then go on as if the wrong drafts had never been.
    sequences[1]->Commit(right + 1);
    sequences[0]->Commit(16);
    std::vector<int32_t> next = {outputs->emitted[1]}, row = {0};
    StepEntry entry;
    entry.sequence = &*sequences[1];
    entry.tokens = next;
    entry.logit_rows = row;
    entry.sample = engine::MakeSampleParams({});
    outputs = engine.Step({&entry, 1});
    ASSERT_TRUE(outputs.ok()) << outputs.status().message();
    EXPECT_EQ(outputs->next[0], said[static_cast<size_t>(right) + 2]);
  }
}

class Bf16Company : public testing::TestWithParam<std::string> {};

TEST_P(Bf16Company, AnySplitInAnyBatch) {
  GoldenPlan golden(GetParam(), {"--dtype", "bf16"});
  ASSERT_TRUE(golden.ok());
  std::vector<std::vector<int32_t>> cases = Cases(GetParam());
  std::unique_ptr<Engine> engine = golden.MakeEngine(/*num_pages=*/64, /*num_slots=*/8, /*threads=*/2);
  ASSERT_NE(engine, nullptr);
  const size_t vocab = static_cast<size_t>(engine->vocab());

  auto run = [&](const std::vector<std::vector<int32_t>>& prompts, const engine::LogitsOptions& options) {
    std::vector<Row> logits;
    for (const auto& prompt : prompts) logits.emplace_back(prompt.size() * vocab);
    Status status =
        engine::RunLogits(*engine, prompts, options, [&](size_t index, int64_t row, std::span<const float> values) {
          std::copy(values.begin(), values.end(),
                    logits[index].begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * vocab));
        });
    EXPECT_TRUE(status.ok()) << status.message();
    return logits;
  };
  std::vector<Row> whole = run(cases, {});
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    engine::LogitsOptions options;
    options.split.random = true;
    options.split.seed = seed;
    std::vector<Row> split = run(cases, options);
    for (size_t i = 0; i < cases.size(); ++i) ASSERT_TRUE(SameBits(split[i], whole[i])) << "split, case " << i;

    // The same again in company, every seed another order; every second seed with whole cases.
    std::mt19937_64 random(seed);
    std::vector<size_t> order(cases.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    std::vector<std::vector<int32_t>> shuffled;
    for (size_t index : order) shuffled.push_back(cases[index]);
    options.batch = true;
    options.split.random = seed % 2 == 0;
    std::vector<Row> batched = run(shuffled, options);
    for (size_t i = 0; i < order.size(); ++i)
      ASSERT_TRUE(SameBits(batched[i], whole[order[i]])) << "batch, case " << order[i];
  }
}

std::string NameOf(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Types, Transactional,
                         testing::Combine(testing::ValuesIn(OneOfEachType()), testing::Values("f32", "bf16")),
                         [](const auto& info) {
                           return NameOf(std::get<0>(info.param) + "_" + std::get<1>(info.param));
                         });
INSTANTIATE_TEST_SUITE_P(Types, Bf16Company, testing::ValuesIn(OneOfEachType()),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace qwen::e2e
