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
