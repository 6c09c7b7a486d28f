// The executor over a catalogue of its own: what runs in which order, what is bound, what is refused.
#include "runtime/exec/executor.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>
#include <vector>

#include "test/runtime/exec/fake_catalog.h"
#include "test/runtime/exec/plan_builder.h"

namespace qwen::exec {
namespace {

using plan::Part;
using test::AddKernel, test::FakeSpec, test::kFakeThreads, test::ProgramBuilder;

plan::Plan EmptyPlan(int tp = 1) {
  plan::Plan plan;
  plan.targets = {"cpu"};
  plan.tp = tp;
  plan.capacity = {.max_num_seqs = 4, .max_num_batched_tokens = 8, .max_rows = 2, .max_logit_rows = 8};
  plan.states.resize(tp);
  return plan;
}

int32_t Fake(plan::Plan* plan, const std::string& entry, int64_t add = 0) {
  return AddKernel(plan, entry, "fake", FakeSpec(add));
}

StatusOr<std::unique_ptr<Executor>> Make(const plan::Plan& plan, int threads = 2, Weights weights = {},
                                         int num_pages = 0, int num_slots = 0) {
  ExecutorOptions options;
  options.threads = threads, options.num_pages = num_pages, options.num_slots = num_slots;
  weights.packed.resize(plan.packed.size());
  return Executor::Create(plan, std::move(weights), options);
}

constexpr int32_t kTokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
constexpr int32_t kFirst[] = {0};

BatchBlock Batch(int num_short, int num_long, bool logits = false) {
  static const kernels::SampleParams sample[1] = {};
  BatchBlock block({.max_num_seqs = 16, .max_num_batched_tokens = 64, .max_rows = 8, .max_logit_rows = 64}, 1);
  SequenceRows rows;
  if (logits) rows.logit_rows = kFirst, rows.sample = sample;
  rows.tokens = std::span(kTokens).first(1);
  for (int i = 0; i < num_short; ++i) EXPECT_TRUE(block.AddShort(rows).ok());
  rows.tokens = std::span(kTokens).first(3);
  for (int i = 0; i < num_long; ++i) EXPECT_TRUE(block.AddLong(rows).ok());
  return block;
}

int64_t Cell(std::span<const uint8_t> bytes) { return *reinterpret_cast<const int64_t*>(bytes.data()); }

// --- Order -----------------------------------------------------------------------------------------------------------

// A chain of steps, each reading what every thread wrote in the one before; one that has no rows lies in between. The
// step after it did not ask for a barrier, since the compiler counted on the one in front of the left-out step.
TEST(Executor, ABarrierOwedByALeftOutStepIsPaidByTheNext) {
  for (int threads : {1, 2, 3, 5}) {
    plan::Plan plan = EmptyPlan();
    ProgramBuilder b(&plan, "step", 0);
    int32_t from = -1, to = -1;
    for (int i = 0; i < 20; ++i) {
      to = i == 19 ? b.Output("final_hidden", DType::kI64, kFakeThreads)
                   : b.Arena("x" + std::to_string(i), DType::kI64, kFakeThreads);
      if (i % 3 == 1) {
        int32_t unused = b.Arena("unused", DType::kI64, kFakeThreads);
        b.Launch(Fake(&plan, "relay", 1000), {from, unused}, Part::kLong, /*waits=*/true);
        b.Launch(Fake(&plan, "relay", 1), {from, to}, Part::kAll, /*waits=*/false);
      } else {
        b.Launch(Fake(&plan, "relay", 1), {from, to}, Part::kAll, /*waits=*/i > 0);
      }
      from = to;
    }
    b.Finish();
    auto executor = Make(plan, threads);
    ASSERT_TRUE(executor.ok()) << executor.status().message();
    int64_t want = 0;
    for (int i = 0; i < 20; ++i) want = (want * (i > 0 ? threads : 0) + 1) % (int64_t{1} << 62);
    for (int run = 0; run < 20; ++run) {
      auto outputs = (*executor)->Run("step", Batch(2, 0).View());
      ASSERT_TRUE(outputs.ok());
      for (int t = 0; t < threads; ++t) EXPECT_EQ(reinterpret_cast<const int64_t*>(outputs->hidden.data())[t], want);
    }
  }
}

// Steps run exactly when their part of the batch has rows.
TEST(Executor, StepsWithoutRowsAreLeftOut) {
  plan::Plan plan = EmptyPlan();
  ProgramBuilder b(&plan, "step", 0);
  int32_t x = b.Arena("x", DType::kI64, kFakeThreads), y = b.Output("final_hidden", DType::kI64, kFakeThreads);
  b.Launch(Fake(&plan, "relay", 1), {-1, x});
  b.Launch(Fake(&plan, "relay", 10), {-1, x}, Part::kShort);
  b.Launch(Fake(&plan, "relay", 20), {-1, x}, Part::kLong);
  b.Launch(Fake(&plan, "relay", 30), {-1, x}, Part::kLogitRows);
  b.Launch(Fake(&plan, "relay", 0), {x, y});
  b.Finish();
  auto executor = Make(plan, 2);
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  auto last = [&](const BatchBlock& batch) { return Cell((*executor)->Run("step", batch.View())->hidden) / 2; };
  EXPECT_EQ(last(Batch(1, 0)), 10);
  EXPECT_EQ(last(Batch(1, 1)), 20);
  EXPECT_EQ(last(Batch(0, 2)), 20);
  EXPECT_EQ(last(Batch(0, 1, true)), 30);
  EXPECT_TRUE((*executor)->Run("step", BatchBlock(plan.capacity, 1).View()).ok());  // nothing at all
}

// A row-wise kernel over the wanted rows knows them as its tokens.
TEST(Executor, KernelsOverLogitRowsSeeThemAsTokens) {
  plan::Plan plan = EmptyPlan();
  ProgramBuilder b(&plan, "step", 0);
  b.Launch(Fake(&plan, "rows"), {b.Output("next", DType::kI32, 1)}, Part::kLogitRows);
  b.Launch(Fake(&plan, "rows"), {b.Output("final_hidden", DType::kI32, 1)}, Part::kAll);
  b.Finish();
  auto executor = Make(plan);
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  auto outputs = (*executor)->Run("step", Batch(1, 1, true).View());
  ASSERT_TRUE(outputs.ok());
  ASSERT_EQ(outputs->next.size(), 2u);
  EXPECT_EQ(outputs->next[0], 2);
  EXPECT_EQ(outputs->hidden.size(), 4 * sizeof(int32_t));
  EXPECT_EQ(*reinterpret_cast<const int32_t*>(outputs->hidden.data()), 4);
}

// --- Ranks -----------------------------------------------------------------------------------------------------------

// x <- 1 + rank; then `rounds` times: x <- x + meet(x); every rank must see every other's x of the same round although
// each overwrites it right afterwards.
plan::Plan RankPlan(int tp, int rounds) {
  plan::Plan plan = EmptyPlan(tp);
  for (int rank = 0; rank < tp; ++rank) {
    ProgramBuilder b(&plan, "step", rank);
    int32_t x = b.Arena("x", DType::kI64, kFakeThreads), sum = b.Output("final_hidden", DType::kI64, kFakeThreads);
    b.Launch(Fake(&plan, "relay", 1 + rank), {-1, x});
    for (int i = 0; i < rounds; ++i) {
      b.Collective(Fake(&plan, "meet", i), {x, sum});
      b.Launch(Fake(&plan, "relay", i + rank), {-1, x}, Part::kAll, /*waits=*/true);
    }
    b.Finish();
  }
  return plan;
}

TEST(Executor, RanksMeetInCollectives) {
  constexpr int kRounds = 10;
  for (int tp : {1, 2, 3, 5}) {
    for (int threads : {1, 2}) {
      auto executor = Make(RankPlan(tp, kRounds), threads);
      ASSERT_TRUE(executor.ok()) << executor.status().message();
      int64_t want = kRounds - 1;
      for (int r = 0; r < tp; ++r) want += (r + 1) * threads * (kRounds - 2 + r);
      for (int run = 0; run < 10; ++run) {
        auto outputs = (*executor)->Run("step", Batch(1, 0).View());
        ASSERT_TRUE(outputs.ok());
        EXPECT_EQ(Cell(outputs->hidden), want) << tp << " ranks of " << threads;
      }
    }
  }
}

// Ranks that meet a different number of times would wait for ever: refused before anything runs.
TEST(Executor, DroppedCollectiveIsRefused) {
  plan::Plan plan = RankPlan(3, 2);
  plan.programs[1].steps.pop_back();
  plan.programs[1].steps.pop_back();
  EXPECT_EQ(Make(plan).status().message(), "program step: rank 1 has 1 collectives, rank 0 has 2");

  plan = RankPlan(2, 2);
  plan.programs[1].steps[1].part = Part::kLong;
  EXPECT_EQ(Make(plan).status().message(),
            "program step: collective 0 of rank 1 is meet, of rank 0 meet over other rows");

  plan = RankPlan(2, 1);
  plan.programs[1].name = "verify";
  EXPECT_EQ(Make(plan).status().message(), "program step: rank 1 does not have it");
}

// A run that is refused on the way in leaves every rank ready for the next.
TEST(Executor, RefusedRunsHangNobody) {
  auto executor = Make(RankPlan(3, 2), 1);
  ASSERT_TRUE(executor.ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE((*executor)->Run("step", Batch(5, 0).View()).ok());
    EXPECT_TRUE((*executor)->Run("step", Batch(4, 0).View()).ok());
  }
}

// --- What Create refuses ---------------------------------------------------------------------------------------------

std::string Refusal(const std::function<void(plan::Plan*)>& damage) {
  plan::Plan plan = EmptyPlan();
  ProgramBuilder b(&plan, "step", 0);
  int32_t x = b.Arena("x", DType::kI64, kFakeThreads), y = b.Output("next", DType::kI64, kFakeThreads);
  b.Launch(Fake(&plan, "relay", 1), {-1, x});
  b.Launch(Fake(&plan, "relay", 1), {x, y});
  b.Finish();
  damage(&plan);
  auto executor = Make(plan);
  EXPECT_FALSE(executor.ok());
  return executor.status().message();
}

TEST(Executor, KernelRecordsAreCheckedAgainstTheCatalogue) {
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->kernels[0].entry = "rela"; }),
            "kernel relay__0: this build has no kernel rela");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->kernels[0].family = "linear"; }),
            "kernel relay__0: relay is of family fake, the plan says linear");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->kernels[0].spec.clear(); }),
            "kernel relay__0: spec has 0 fields, the kernel takes 1");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].steps[1].args.pop_back(); }),
            "program step: step 1 (op1): kernel relay__0 takes 2 arguments, the step has 1");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].steps[1].kind = plan::StepKind::kCollective; }),
            "program step: step 1 (op1): kernel relay__0 is not a collective, the step says otherwise");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].scratch_bytes = 100; }),
            "program step: kernel relay__0: needs 256 bytes of scratch and 64 shared, the plan has 100 and 64");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].steps[0].kernel = 7; }),
            "program step: step 0: kernel 7, the plan has 1 for cpu");
}

TEST(Executor, BuffersAreChecked) {
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].buffers[0].offset = 64; }),
            "program step: step 0 (op0): buffer x ends at 576, the arena has 512 bytes");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].steps[0].args[1] = 9; }),
            "program step: step 0 (op0): buffer 9, the program has 2");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].buffers[0].kind = plan::BufferKind::kCache; }),
            "program step: step 0 (op0): cache x ends at 512, a page has 0 bytes");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].outputs[0].buffer = 5; }),
            "program step: output next: buffer 5, the program has 2");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->programs[0].inputs.push_back({.name = "image", .buffer = 0}); }),
            "program step: input image is not one this build can feed");
  auto weight = [](int32_t rank) {
    return [rank](plan::Plan* p) {
      p->weights.push_back({.name = "norm1", .scheme = "", .dtype = DType::kF32, .shape = {4}});
      p->packed.push_back({.weight = 0, .rank = rank, .layout = plan::Layout::kVector, .slices = {}, .bytes = 16});
      p->programs[0].buffers[0].kind = plan::BufferKind::kWeight;
      p->programs[0].buffers[0].index = 0;
    };
  };
  EXPECT_EQ(Refusal(weight(1)), "program step: step 0 (op0): buffer x is a weight of rank 1, the program's is 0");
  EXPECT_EQ(Refusal(weight(0)), "program step: step 0 (op0): weight norm1 was not loaded");
}

TEST(Executor, PlansForOtherTargetsAreRefused) {
  EXPECT_EQ(Refusal([](plan::Plan* p) {
              p->programs[0].target = "sm_89";
              p->targets = {"sm_89"};
            }),
            "the plan has no program for cpu, only for sm_89");
  EXPECT_EQ(Refusal([](plan::Plan* p) { p->states.clear(); }), "the plan is for 1 ranks and has the state of 0");
}

TEST(Executor, OptionsAreChecked) {
  plan::Plan plan = RankPlan(1, 1);
  ExecutorOptions options;
  options.isa = kernels::Isa::kAvx512;
  auto executor = Executor::Create(plan, {}, options);
  EXPECT_EQ(executor.status().code(), StatusCode::kUnimplemented);
  EXPECT_EQ(executor.status().message(), "this machine cannot run avx512, its best is base");
  EXPECT_EQ(Make(plan, 2000).status().message(), "2000 threads, want 0 to 1024");
  EXPECT_EQ(Make(plan, -1).status().message(), "-1 threads, want 0 to 1024");
  EXPECT_TRUE(Make(plan, 0).ok());

  plan.states[0].page_bytes = int64_t{1} << 40;
  auto much = Make(plan, 1, {}, /*num_pages=*/1000);
  EXPECT_EQ(much.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(much.status().message().find("cpu: 0 slots and 1000 pages of 32 tokens take 1000.00 TiB (1099511"),
            std::string::npos)
      << much.status().message();
}

// --- What Run refuses ------------------------------------------------------------------------------------------------

TEST(Executor, BatchesBeyondTheCapacityAreRefused) {
  plan::Plan plan = EmptyPlan();
  plan.states[0].delta_layers.resize(1);  // of no heads: slots count, but have no bytes
  plan.states[0].delta_layers[0].width = 4;
  ProgramBuilder b(&plan, "step", 0);
  b.Launch(Fake(&plan, "rows"), {b.Output("next", DType::kI32, 4)});
  b.Finish();
  auto executor = Make(plan, 1, {}, 0, /*num_slots=*/3);
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  auto refusal = [&](const BatchBlock& batch) { return (*executor)->Run("step", batch.View()).status().message(); };
  EXPECT_EQ(refusal(Batch(5, 0)), "program step: batch: 5 short of 5 sequences, the plan takes 4");
  EXPECT_EQ(refusal(Batch(0, 3)), "program step: batch: 9 rows, the plan takes 8");

  BatchBlock block({.max_num_seqs = 1, .max_num_batched_tokens = 8, .max_rows = 8, .max_logit_rows = 0}, 1);
  SequenceRows rows;
  rows.tokens = std::span(kTokens).first(3);
  ASSERT_TRUE(block.AddShort(rows).ok());
  EXPECT_EQ(refusal(block), "program step: batch: sequence 0: 3 rows, a short one has 1 to 2");
  block.Clear();
  rows.state_slot = 3;
  ASSERT_TRUE(block.AddLong(rows).ok());
  EXPECT_EQ(refusal(block), "program step: batch: sequence 0: slot 3, the pool has 3");

  kernels::BatchView many = Batch(1, 0).View();
  many.num_logit_rows = 9;
  EXPECT_EQ((*executor)->Run("step", many).status().message(), "program step: batch: 9 logit rows, the plan takes 8");
  EXPECT_EQ((*executor)->Run("stop", many).status().message(), "program stop: the plan has step");
}

// `hidden` is bound anew for every run.
TEST(Executor, HiddenFeedsTheProgramThatTakesIt) {
  plan::Plan plan = EmptyPlan(2);
  for (int rank = 0; rank < 2; ++rank) {
    ProgramBuilder b(&plan, "draft_mtp", rank);
    b.Launch(Fake(&plan, "copy"), {b.Input("hidden", DType::kF32, 1), b.Output("hidden_out", DType::kF32, 1)});
    b.Finish();
  }
  auto executor = Make(plan);
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  const BatchBlock batch = Batch(1, 1);  // 4 rows
  for (float start : {1.0f, 5.0f}) {
    const std::vector<float> hidden = {start, start + 1, start + 2, start + 3};
    std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(hidden.data()), 16);
    auto outputs = (*executor)->Run("draft_mtp", batch.View(), bytes);
    ASSERT_TRUE(outputs.ok());
    EXPECT_EQ(std::vector<uint8_t>(outputs->hidden.begin(), outputs->hidden.end()),
              std::vector<uint8_t>(bytes.begin(), bytes.end()));
    EXPECT_EQ((*executor)->Run("draft_mtp", batch.View(), bytes.first(12)).status().message(),
              "program draft_mtp: batch: hidden: 12 bytes, want 16");
    EXPECT_EQ((*executor)->Run("draft_mtp", batch.View(), outputs->hidden).status().message(),
              "program draft_mtp: batch: hidden: lies in output hidden_out, which the program overwrites");
  }
}

// What one program leaves for the next stays while that runs; what the caller has read does not.
TEST(Executor, HiddenRowsOutliveTheNextRun) {
  plan::Plan plan = EmptyPlan();
  plan.states[0].page_bytes = 64, plan.states[0].slot_bytes = 192;
  ProgramBuilder step(&plan, "step", 0);
  step.Launch(Fake(&plan, "rows"), {step.Output("next", DType::kI32, 1)}, Part::kAll);
  step.Launch(Fake(&plan, "relay", 7), {-1, step.Output("final_hidden", DType::kI64, kFakeThreads)});
  step.Finish();
  ProgramBuilder draft(&plan, "draft_mtp", 0);
  const int32_t hidden = draft.Input("hidden", DType::kI64, kFakeThreads);
  draft.Launch(Fake(&plan, "relay", 100), {hidden, draft.Output("hidden_out", DType::kI64, kFakeThreads)});
  draft.Launch(Fake(&plan, "rows"), {draft.Output("next", DType::kI32, 1)}, Part::kAll);
  draft.Finish();
  auto executor = Make(plan, 1, {}, /*num_pages=*/3, /*num_slots=*/2);
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  const BatchBlock batch = Batch(2, 0, true);
  auto first = (*executor)->Run("step", batch.View());
  ASSERT_TRUE(first.ok());
  auto second = (*executor)->Run("draft_mtp", batch.View(), first->hidden);
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ(Cell(first->hidden), 7);
  EXPECT_EQ(Cell(second->hidden), 107);
  EXPECT_EQ(second->next.data(), first->next.data());
  EXPECT_EQ((*executor)->allocated_bytes(), test::StatedBytes(plan, 3, 2, 1));
}

// A checkpoint without an MTP head turns its program off and nothing else.
TEST(Executor, ProgramsWithoutTheirWeightsAreLeftOut) {
  plan::Plan plan = EmptyPlan();
  plan.weights.push_back(
      {.name = "mtp.norm", .scheme = "", .dtype = DType::kF32, .shape = {1}, .group = plan::Group::kMtp});
  plan.packed.push_back({.weight = 0, .rank = 0, .layout = plan::Layout::kVector, .slices = {}, .bytes = 4});
  for (const char* name : {"step", "draft_mtp"}) {
    ProgramBuilder b(&plan, name, 0);
    int32_t y = b.Output("next", DType::kI64, kFakeThreads);
    if (name == std::string("draft_mtp"))
      b.Launch(Fake(&plan, "copy"), {b.Weight(0), y});
    else
      b.Launch(Fake(&plan, "relay"), {-1, y});
    b.Finish();
  }
  Weights weights;
  weights.has_mtp = false;
  auto without = Make(plan, 1, weights);
  ASSERT_TRUE(without.ok()) << without.status().message();
  EXPECT_TRUE((*without)->HasProgram("step"));
  EXPECT_FALSE((*without)->HasProgram("draft_mtp"));
  auto refused = (*without)->Run("draft_mtp", Batch(1, 0).View());
  EXPECT_EQ(refused.status().code(), StatusCode::kUnimplemented);
  EXPECT_EQ(refused.status().message(), "program draft_mtp: the checkpoint does not have its weights");

  weights.has_mtp = true;
  weights.packed = {std::shared_ptr<uint8_t[]>(new uint8_t[4]())};
  auto with = Make(plan, 1, weights);
  ASSERT_TRUE(with.ok()) << with.status().message();
  EXPECT_TRUE((*with)->HasProgram("draft_mtp"));
  EXPECT_TRUE((*with)->Run("draft_mtp", Batch(1, 0).View()).ok());
}

// Pages are the same bytes on the way out and in, rank after rank.
TEST(Executor, PagesAreCopied) {
  plan::Plan plan = RankPlan(2, 1);
  plan.states[0].page_bytes = 64;
  plan.states[1].page_bytes = 128;
  auto executor = Make(plan, 1, {}, /*num_pages=*/3);
  ASSERT_TRUE(executor.ok());
  ASSERT_EQ((*executor)->page_bytes(), 192);
  std::vector<uint8_t> page(192), other(192, 9), back(192);
  for (int i = 0; i < 192; ++i) page[i] = static_cast<uint8_t>(i);
  (*executor)->LoadPage(1, page);
  (*executor)->LoadPage(2, other);
  (*executor)->SavePage(1, back);
  EXPECT_EQ(back, page);
  (*executor)->SavePage(0, back);
  EXPECT_EQ(back, std::vector<uint8_t>(192, 0));
}

}  // namespace
}  // namespace qwen::exec
