// The memory statement: sums written out by hand, and what it says when something does not fit.
#include "runtime/plan/memory.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "runtime/plan/dump.h"
#include "runtime/plan/layout.h"
#include "test/runtime/plan/test_plan.h"

namespace qwen::plan {
namespace {

TEST(Memory, StatementAddsUp) {
  Plan plan = MakeTestPlan(2);
  plan.blobs.push_back({BlobKind::kTokenizer, std::vector<uint8_t>(1000)});
  const MemoryStatement s =
      StateMemory(plan, "cpu", {.max_num_seqs = 3, .max_model_len = 33, .snapshot_bytes = 77, .threads = 4});
  ASSERT_EQ(s.ranks.size(), 2u);
  EXPECT_EQ(s.text_bytes, 1000);
  // 16 tokens, 4 logit rows, 2 sequences of 128 tokens: counts, cu_tokens, ids, five fields a sequence, logit rows,
  // their sampling, the page table; each padded to 64.
  EXPECT_EQ(s.batch_bytes, 64 + 64 + 64 + 5 * 64 + 64 + 4 * 48 + 64);
  int64_t sum = s.batch_bytes + s.text_bytes + s.runtime_bytes + 77, page = 0, slot = 0;
  for (const RankMemory& m : s.ranks) {
    int64_t packed = 0;
    for (const Packed& p : plan.packed)
      if (p.rank == m.rank) packed += p.bytes;
    EXPECT_EQ(m.weights_bytes, packed);
    // The embedding, the final norm and the head's fc are whole on both ranks, and the process has them once.
    EXPECT_EQ(m.weights_shared_bytes, m.rank == 0 ? 0 : 80 * 32 * 2 + 32 * 4 + 32 * 64 * 2);
    EXPECT_EQ(m.arena_bytes, 4096);
    EXPECT_EQ(m.workspace_bytes, 4 * 4096 + 64 + 4 * 2 * 16 * 16);  // one layer's f32 state, folded for a snapshot
    EXPECT_EQ(m.output_bytes, 4 * 80 * 4 + 64 + 16 * 32 * 2);       // logits, next padded to 64; hidden_out
    EXPECT_EQ(m.slot_bytes, m.base_bytes + m.ring_bytes + m.conv_bytes);
    EXPECT_EQ(m.snapshot_bytes, m.page_bytes + 4 * 2 * 16 * 16 + 3 * 64 * 2);  // three rows of q, k and v
    sum += m.weights_bytes - m.weights_shared_bytes + m.arena_bytes + m.workspace_bytes + m.output_bytes;
    page += m.page_bytes;
    slot += m.slot_bytes;
  }
  EXPECT_EQ(page, 2 * 2 * (2 * 32 * 16 * 2));  // ranks, layers, K and V of one head
  EXPECT_EQ(s.fixed_bytes, sum);
  EXPECT_EQ(s.num_slots, 3);
  EXPECT_EQ(s.num_pages, 6);  // 33 tokens take two pages
  EXPECT_EQ(s.total_bytes, sum + 3 * slot + 6 * page);
  EXPECT_FALSE(s.fit);

  const MemoryStatement pools = StateMemory(plan, "cpu", {.num_slots = 0, .num_pages = 7, .threads = 4});
  EXPECT_EQ(pools.total_bytes, sum - 77 + 7 * page);
}

TEST(Memory, SaysWhatFits) {
  const Plan plan = MakeTestPlan();
  const MemoryStatement base = StateMemory(plan, "cpu", {.max_num_seqs = 2, .max_model_len = 64});
  const int64_t page = base.ranks[0].page_bytes, slot = base.ranks[0].slot_bytes;
  auto fit = [&](int64_t memory) {
    return *StateMemory(plan, "cpu", {.memory_bytes = memory, .max_num_seqs = 2, .max_model_len = 64}).fit;
  };
  EXPECT_FALSE(fit(base.fixed_bytes + 2 * slot - 1).fits);
  EXPECT_TRUE(fit(base.fixed_bytes + 2 * slot).fits);
  EXPECT_EQ(fit(1).least_bytes, base.fixed_bytes + 2 * slot);
  EXPECT_EQ(fit(1).total_bytes, base.total_bytes);
  EXPECT_EQ(fit(base.fixed_bytes + 2 * slot + page - 1).pages, 0);
  const MemoryFit five = fit(base.fixed_bytes + 2 * slot + 5 * page);
  EXPECT_EQ(five.pages, 5);
  EXPECT_EQ(five.tokens, 160);
  EXPECT_EQ(five.sequences, 2);
  EXPECT_EQ(fit(base.total_bytes).sequences, 2);
  EXPECT_EQ(fit(base.total_bytes + slot + 2 * page).sequences, 3);
}

TEST(Memory, RefusesWithBothNumbers) {
  const Plan plan = MakeTestPlan();
  const MemoryStatement whole = StateMemory(plan, "cpu");
  const int64_t slots = whole.num_slots * whole.ranks[0].slot_bytes;
  auto refusal = [&](MemoryOptions options) { return CheckFit(plan, "cpu", options); };
  EXPECT_TRUE(refusal({}).ok());
  EXPECT_TRUE(refusal({.memory_bytes = whole.fixed_bytes + slots}).ok());  // some pages less, and that is known
  const Status least = refusal({.memory_bytes = 1000});
  EXPECT_EQ(least.ExitCode(), 5);
  EXPECT_EQ(least.message(), "cpu: weights, buffers and 2 slots take " + HumanBytes(whole.fixed_bytes + slots) + " (" +
                                 std::to_string(whole.fixed_bytes + slots) + " bytes), there are 1000 B (1000 bytes)");
  // Who names sequences or their length wants all of them.
  EXPECT_TRUE(refusal({.memory_bytes = whole.total_bytes, .max_model_len = 128}).ok());
  const Status all = refusal({.memory_bytes = whole.total_bytes - 1, .max_model_len = 128});
  EXPECT_EQ(all.message().rfind("cpu: 2 slots and 8 pages of 32 tokens take ", 0), 0u) << all.message();
  EXPECT_EQ(all.hint(), "1 sequences of 128 tokens fit, or 224 tokens in all");

  EXPECT_TRUE(CheckCapacity(plan, {.max_num_seqs = 2, .max_model_len = 128}).ok());
  EXPECT_EQ(CheckCapacity(plan, {.max_num_seqs = 3}).message(), "--max-num-seqs: is 3, the plan takes 2");
  EXPECT_EQ(CheckCapacity(plan, {.max_model_len = 129}).message(), "--max-model-len: is 129, the plan takes 128");
}

// A sm_89 device has its rank's part of everything, and the ranks' copies of a weight are two.
TEST(Memory, DevicesShareNothing) {
  Plan plan = MakeTestPlan(2);
  for (Program& program : plan.programs) program.target = "sm_89";
  plan.targets = {"sm_89"};
  const MemoryStatement s = StateMemory(plan, "sm_89", {.memory_bytes = int64_t{1} << 40});
  for (const RankMemory& m : s.ranks) EXPECT_EQ(m.weights_shared_bytes, 0);
  const int64_t once = s.batch_bytes + s.text_bytes + s.runtime_bytes;
  const RankMemory& m = s.ranks[0];
  EXPECT_EQ(s.fit->least_bytes,
            once + m.weights_bytes + m.arena_bytes + m.workspace_bytes + m.output_bytes + 2 * m.slot_bytes);
}

TEST(Memory, HugeSizesStopAtTheLargest) {
  Plan plan = MakeTestPlan(2);
  for (State& state : plan.states) state.page_bytes = state.slot_bytes = kMaxBytes;
  for (Program& program : plan.programs) program.scratch_bytes = kMaxBytes;
  const MemoryStatement s =
      StateMemory(plan, "cpu", {.max_num_seqs = 2147483647, .max_model_len = 2147483647, .threads = 2147483647});
  EXPECT_EQ(s.total_bytes, std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(DumpMemory(plan, {.memory_bytes = std::numeric_limits<int64_t>::max()}).empty());
}

// --- Outputs ---------------------------------------------------------------------------------------------------------

Buffer Output(int32_t index, int64_t bytes) {
  return {.kind = BufferKind::kOutput, .index = index, .bytes = bytes, .shape = {-1}};
}

// What is read before the next run lies in one place for all programs; what feeds the next run does not.
TEST(PlaceOutputs, SharesWhatIsReadAtOnce) {
  Plan plan;
  plan.programs = {{.name = "step", .target = "cpu"}, {.name = "draft_mtp", .target = "cpu"}};
  plan.programs[0].buffers = {
      Output(0, 1000), {.kind = BufferKind::kArena, .bytes = 5000}, Output(1, 70), Output(2, 300)};
  plan.programs[0].outputs = {{"logits", 0}, {"next", 2}, {"final_hidden", 3}};
  plan.programs[1].buffers = {Output(0, 200), Output(1, 100), Output(2, 64)};
  plan.programs[1].outputs = {{"hidden_out", 0}, {"logits", 1}, {"unheard_of", 2}};
  Program other = plan.programs[0];
  other.rank = 1;
  plan.programs.push_back(other);

  const OutputPlaces places = PlaceOutputs(plan, "cpu", 0);
  EXPECT_EQ(places.offsets[0], (std::vector<int64_t>{0, 0, 1024, 1152}));
  EXPECT_EQ(places.offsets[1], (std::vector<int64_t>{1152 + 320, 0, 1152 + 320 + 256}));
  EXPECT_EQ(places.bytes, 1152 + 320 + 256 + 64);
  EXPECT_TRUE(places.offsets[2].empty());
  EXPECT_EQ(PlaceOutputs(plan, "cpu", 1).bytes, 1152 + 320);
  EXPECT_EQ(PlaceOutputs(plan, "sm_89", 0).bytes, 0);
}

// --- Weights of several ranks ----------------------------------------------------------------------------------------

TEST(FirstWithSameBytes, ComparesWeightLayoutAndSlices) {
  Plan plan;
  plan.weights = {{.name = "embed", .shape = {4, 6}},
                  {.name = "lm_head", .shape = {4, 6}, .alias = 0},
                  {.name = "other", .shape = {4, 6}}};
  auto pack = [&](int32_t weight, Layout layout, std::vector<std::vector<Range>> slices, int32_t rank = 0) {
    plan.packed.push_back({.weight = weight, .rank = rank, .layout = layout, .slices = std::move(slices)});
  };
  pack(0, Layout::kTile16, {});                       // 0
  pack(1, Layout::kTile16, {{{0, 4}}, {}});           // 1: the same by its other name, written out
  pack(0, Layout::kRows, {});                         // 2: another layout
  pack(0, Layout::kTile16, {{{0, 2}}, {}});           // 3: a part
  pack(0, Layout::kTile16, {{{0, 2}}, {{0, 6}}}, 1);  // 4: the same part on another rank
  pack(2, Layout::kTile16, {});                       // 5: another weight
  pack(0, Layout::kTile16, {{}, {{0, 4}}});           // 6: the other dimension
  EXPECT_EQ(FirstWithSameBytes(plan), (std::vector<int32_t>{0, 0, 2, 3, 3, 5, 6}));
}

TEST(Replicated, ListsWhatRanksShare) {
  EXPECT_TRUE(ReplicatedWeights(MakeTestPlan(1)).empty());
  for (int tp : {2, 3, 5}) {
    const Plan plan = MakeTestPlan(tp), whole = MakeTestPlan(1);
    int64_t all = 0, one = 0, extra = 0;
    for (const Packed& packed : plan.packed) all += packed.net_bytes;
    for (const Packed& packed : whole.packed) one += packed.net_bytes;
    std::vector<std::string> names;
    for (const Replicated& r : ReplicatedWeights(plan)) {
      names.push_back(r.weight);
      extra += r.net_bytes - r.distinct_bytes;
      EXPECT_EQ(r.net_bytes, tp * r.distinct_bytes);
      EXPECT_EQ(r.by_rank, std::vector<int64_t>(tp, r.distinct_bytes));
    }
    EXPECT_EQ(names, (std::vector<std::string>{"embed", "final_norm", "mtp.fc"}));
    EXPECT_EQ(all, one + extra);
  }
}

TEST(Replicated, CountsElementsOnce) {
  Plan plan;
  plan.tp = 3;
  plan.weights = {{.name = "kv", .dtype = DType::kBF16, .shape = {4, 6}},
                  {.name = "alias", .dtype = DType::kBF16, .shape = {4, 6}, .alias = 0}};
  auto pack = [&](int32_t weight, int32_t rank, std::vector<std::vector<Range>> slices) {
    Packed packed{.weight = weight, .rank = rank, .layout = Layout::kRows, .slices = std::move(slices)};
    packed.net_bytes = packed.bytes = PackedBytes(plan.weights[weight], packed)->net_bytes;
    plan.packed.push_back(packed);
  };
  pack(0, 0, {{{0, 2}}, {}});        // rows 0 1
  pack(0, 1, {{{1, 4}}, {{0, 3}}});  // half of rows 1 2 3
  pack(1, 2, {{{3, 4}}, {{2, 4}}});  // row 3, columns 2 3, by its other name
  const std::vector<Replicated> replicated = ReplicatedWeights(plan);
  ASSERT_EQ(replicated.size(), 1u);
  EXPECT_EQ(replicated[0].net_bytes, 2 * (12 + 9 + 2));
  EXPECT_EQ(replicated[0].distinct_bytes, 2 * (12 + 6 + 1));
  EXPECT_EQ(replicated[0].by_rank, (std::vector<int64_t>{24, 18, 4}));
}

}  // namespace
}  // namespace qwen::plan
