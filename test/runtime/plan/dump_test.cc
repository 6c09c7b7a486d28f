// What `inspect` and `diff` print. The expected files under golden/ are ours and named regression: they show a change,
// they do not prove a figure. QWEN_UPDATE=1 writes them anew.
#include "runtime/plan/dump.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/plan/check.h"
#include "runtime/plan/memory.h"
#include "test/runtime/plan/test_plan.h"

namespace qwen::plan {
namespace {

void Regression(const std::string& name, const std::string& text) {
  const std::string path = std::string(QWEN_SOURCE_DIR "/test/runtime/plan/golden/") + name;
  if (getenv("QWEN_UPDATE")) {
    ASSERT_TRUE(WriteFileAtomic(path, text, true).ok());
    return;
  }
  StatusOr<std::string> want = ReadFile(path, 1 << 20);
  ASSERT_TRUE(want.ok()) << want.status().message();
  EXPECT_EQ(text, *want) << "QWEN_UPDATE=1 writes " << path << " anew";
}

TEST(DumpRegression, Plan) { Regression("plan.json", DumpJson(MakeTestPlan())); }
TEST(DumpRegression, Summary) { Regression("summary.txt", DumpSummary(MakeTestPlan(2))); }
TEST(DumpRegression, Steps) { Regression("steps.txt", DumpSteps(MakeTestPlan(2), {.rank = 1})); }
TEST(DumpRegression, Kernels) { Regression("kernels.txt", DumpKernels(MakeTestPlan())); }
TEST(DumpRegression, Memory) { Regression("memory.txt", DumpMemory(MakeTestPlan(2), {.memory_bytes = 1 << 26})); }

TEST(Dump, EveryJsonIsJson) {
  const Plan a = MakeTestPlan(2), b = MakeTestPlan(3);
  for (const std::string& text : {DumpJson(a), DumpStepsJson(a, {.rank = -1}), DumpKernelsJson(a),
                                  DumpMemoryJson(a, {.memory_bytes = 1 << 30}), DiffJson(a, b), DiffJson(a, a)}) {
    EXPECT_TRUE(ParseJson(text, "dump").ok()) << text;
    EXPECT_EQ(text.back(), '\n');
  }
}

TEST(Dump, StringsCannotBreakOut) {
  Plan plan = MakeTestPlan();
  plan.programs[0].steps[0].origin = "a\"b\\c, d: \xff";
  StatusOr<Json> json = ParseJson(DumpStepsJson(plan), "dump");
  ASSERT_TRUE(json.ok()) << json.status().message();
  EXPECT_EQ(json->Find("programs")->items()[0].Find("steps")->items()[0].Find("origin")->AsString(),
            "a\"b\\c, d: \xEF\xBF\xBD");
}

TEST(Barriers, CountsWhatADecodeTokenMeets) {
  Plan plan = MakeTestPlan(2);
  Program& program = plan.programs[0];
  auto barriers = [&] {
    std::map<std::string, int> count;
    for (const LayerBarriers& b : CountBarriers(plan, program)) count[b.layer] = b.barriers;
    return count;
  };
  // in, mixer (its long part beside it), experts, all-reduce; the attention layer; the head.
  EXPECT_EQ(barriers(), (std::map<std::string, int>{{"embed", 0}, {"layers.0", 4}, {"layers.1", 1}, {"lm_head", 1}}));
  // One in front of the long part, which comes second: not met.
  program.steps[3].waits = true;
  program.steps[4].waits = false;
  EXPECT_EQ(barriers()["layers.0"], 4);  // the step behind it cannot start before that barrier
  program.steps[3].waits = program.steps[4].waits = false;
  EXPECT_EQ(barriers()["layers.0"], 3);
  // A collective is one whatever its flag says.
  program.steps[5].waits = false;
  EXPECT_EQ(barriers()["layers.0"], 3);
  program.steps[6].origin = "mtp.layers.0.attn.in";
  EXPECT_EQ(barriers()["mtp.layers.0"], 1);
  program.steps[6].origin = "layers.12";
  EXPECT_EQ(barriers()["layers.12"], 1);
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

TEST(Memory, StatementAddsUp) {
  Plan plan = MakeTestPlan(2);
  plan.blobs.push_back({BlobKind::kTokenizer, std::vector<uint8_t>(1000)});
  const MemoryStatement s = StateMemory(plan, "cpu", {.max_num_seqs = 3, .max_model_len = 33, .threads = 4});
  ASSERT_EQ(s.ranks.size(), 2u);
  EXPECT_EQ(s.text_bytes, 1000);
  int64_t sum = s.batch_bytes + s.text_bytes + s.runtime_bytes, page = 0, slot = 0;
  for (const RankMemory& m : s.ranks) {
    int64_t packed = 0;
    for (const Packed& p : plan.packed)
      if (p.rank == m.rank) packed += p.bytes;
    EXPECT_EQ(m.weights_bytes, packed);
    EXPECT_EQ(m.arena_bytes, 4096);
    EXPECT_EQ(m.workspace_bytes, 4 * 256 + 64 + 4 * 2 * 16 * 16);  // one layer's f32 state, folded for a snapshot
    EXPECT_EQ(m.output_bytes, 4 * 80 * 4 + 64 + 16 * 32 * 2);      // logits, next padded to 64; hidden_out
    EXPECT_EQ(m.slot_bytes, m.base_bytes + m.ring_bytes + m.conv_bytes);
    sum += m.weights_bytes + m.arena_bytes + m.workspace_bytes + m.output_bytes;
    page += m.page_bytes;
    slot += m.slot_bytes;
  }
  EXPECT_EQ(page, 2 * 2 * (2 * 32 * 16 * 2));  // ranks, layers, K and V of one head
  EXPECT_EQ(s.fixed_bytes, sum);
  EXPECT_EQ(s.total_bytes, sum + 3 * (slot + 2 * page));  // 33 tokens take two pages
  EXPECT_FALSE(s.fit);
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
  EXPECT_EQ(fit(base.fixed_bytes + 2 * slot + page - 1).pages, 0);
  const MemoryFit five = fit(base.fixed_bytes + 2 * slot + 5 * page);
  EXPECT_EQ(five.pages, 5);
  EXPECT_EQ(five.tokens, 160);
  EXPECT_EQ(five.sequences, 2);
  EXPECT_EQ(fit(base.total_bytes).sequences, 2);
  EXPECT_EQ(fit(base.total_bytes + slot + 2 * page).sequences, 3);
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

TEST(Diff, SamePlansDoNotDiffer) {
  EXPECT_EQ(Diff(MakeTestPlan(2), MakeTestPlan(2)), "no difference\n");
  Plan other = MakeTestPlan();
  other.digest = 5;  // says that something differs, not what
  EXPECT_EQ(Diff(MakeTestPlan(), other), "no difference\n");
}

TEST(Diff, OneChangeIsOneLine) {
  const Plan plan = MakeTestPlan();
  auto diff = [&](auto change) {
    Plan other = plan;
    change(other);
    return Diff(plan, other);
  };
  EXPECT_EQ(diff([](Plan& p) { p.model.max_model_len = 256; }), "model/max_model_len: 128 -> 256\n");
  EXPECT_EQ(diff([](Plan& p) { p.programs[0].steps.erase(p.programs[0].steps.begin() + 2); }),
            "programs/step cpu rank 0/steps/layers.0.gdn.mixer gdn_decode: only in the first\n");
  EXPECT_EQ(diff([](Plan& p) { p.programs[0].steps[1].args[0] = 2; }),
            "programs/step cpu rank 0/steps/layers.0.gdn.in linear/args: "
            "[\"x\",\"layers.0.gdn.qkv\",\"layers.0.gdn.in\",null] "
            "-> [\"layers.0.gdn.in\",\"layers.0.gdn.qkv\",\"layers.0.gdn.in\",null]\n");
  EXPECT_EQ(diff([](Plan& p) { std::swap(p.programs[0].steps[0], p.programs[0].steps[6]); }),
            "programs/step cpu rank 0/steps: in another order\n");
  EXPECT_EQ(diff([](Plan& p) { p.blobs[1].bytes = {'[', ']'}; }).rfind("blobs/config/xxh3: ", 0), 0u);
  // A kernel more in front changes every index, and no line but its own.
  EXPECT_EQ(diff([](Plan& p) {
              p.kernels.insert(p.kernels.begin(), Kernel{"new__k", "elementwise", "new", "cpu", {}});
              for (Program& program : p.programs)
                for (Step& step : program.steps) ++step.kernel;
            }),
            "kernels/new__k: only in the second\n");
}

}  // namespace
}  // namespace qwen::plan
