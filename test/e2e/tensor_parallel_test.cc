// Ragged tensor parallelism: the same rows on any number of ranks, and no bytes that are not accounted for.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "compiler/Compiler.h"
#include "runtime/plan/layout.h"
#include "runtime/plan/writer.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

class TensorParallel : public testing::TestWithParam<std::string> {
 protected:
  /// Compiles with `tp` ranks into "tp<N>.plan"; drops a collective of every program when asked to.
  plan::Plan Compile(int tp, int64_t drop = 0, const std::string& moe = "tp") {
    compiler::CompileOptions options;
    options.configOrDir = GoldenDir(GetParam());
    options.dtype = "f32";
    options.pipeline.tp = tp;
    options.pipeline.moe = moe;
    options.pipeline.dropCollective = drop;
    auto result = compiler::compile(options);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (!result.ok()) return {};
    Status written = plan::WritePlan(result->plan, PlanPath(tp), true);
    EXPECT_TRUE(written.ok()) << written.message();
    return std::move(result->plan);
  }
  std::string PlanPath(int tp) { return temp_ / fmt::format("tp{}.plan", tp); }
  std::map<std::string, Tensor> Run(int tp) {
    std::string dir = GoldenDir(GetParam());
    return Logits(PlanPath(tp), dir, dir + "/cases.json", temp_ / "out.safetensors", {"--threads", "1"});
  }
  TempDir temp_;
};

double WorstOf(std::map<std::string, Tensor>& got, std::map<std::string, Tensor>& want) {
  if (got.size() != want.size() || got.empty()) return INFINITY;
  double worst = 0;
  for (auto& [name, tensor] : want) worst = std::max(worst, Worst(RowErrors(got[name], tensor)));
  return worst;
}

TEST_P(TensorParallel, AnyNumberOfRanksGivesTheSameRows) {
  Compile(1);
  auto one = Run(1);
  ASSERT_FALSE(one.empty());
  for (int tp : {2, 3, 5}) {
    Compile(tp);
    auto many = Run(tp);
    double worst = WorstOf(many, one);
    Figure(fmt::format("tp {} {}", tp, GetParam()), fmt::format("worst row {:.2e} (allowed 1e-5)", worst));
    EXPECT_LE(worst, 1e-5) << "tp " << tp;
  }
}

TEST_P(TensorParallel, WholeExpertsGiveTheSameRows) {
  if (GetParam().find("moe") == std::string::npos && GetParam().find("next") == std::string::npos)
    GTEST_SKIP() << "no experts";
  Compile(1);
  auto one = Run(1);
  Compile(3, 0, "ep");
  auto many = Run(3);
  EXPECT_LE(WorstOf(many, one), 1e-5);
}

// Without one of its sums a rank goes on with its own part: the comparison must notice each single one.
TEST_P(TensorParallel, ADroppedCollectiveIsNoticed) {
  Compile(1);
  auto one = Run(1);
  plan::Plan whole = Compile(2);
  int collectives = 0;
  for (const plan::Step& step : whole.programs.front().steps)
    collectives += step.kind == plan::StepKind::kCollective &&
                   whole.kernels[step.kernel].entry == "all_reduce";
  ASSERT_GT(collectives, 0);
  double least = INFINITY;
  for (int drop : {1, (collectives + 1) / 2, collectives}) {
    Compile(2, drop);
    auto many = Run(2);
    double worst = WorstOf(many, one);
    least = std::min(least, worst);
    EXPECT_GT(worst, 1e-3) << "collective " << drop << " of " << collectives;
  }
  Figure("dropped collective " + GetParam(), fmt::format("least error {:.2e}", least));
}

// Weight bytes without tile padding: what the ranks hold together, against what one rank holds alone and the weights
// that every rank needs whole.
TEST_P(TensorParallel, WeightBytesAddUp) {
  plan::Plan one = Compile(1);
  int64_t alone = 0;
  for (const plan::Packed& packed : one.packed) alone += packed.net_bytes;
  for (int tp : {2, 3, 5}) {
    plan::Plan many = Compile(tp);
    int64_t sum = 0, replicated = 0;
    std::map<int, std::vector<const plan::Packed*>> by_weight;
    std::vector<bool> empty(tp, false);
    for (const plan::Packed& packed : many.packed) {
      sum += packed.net_bytes;
      by_weight[packed.weight].push_back(&packed);
      if (packed.net_bytes == 0) empty[packed.rank] = true;
    }
    std::set<std::string> names;
    for (auto& [weight, list] : by_weight) {
      int64_t total = 0, whole = plan::PackedBytes(many.weights[weight], {.layout = list[0]->layout,
                                     .slices = std::vector<std::vector<plan::Range>>(many.weights[weight].shape.size())})
                                     ->net_bytes;
      for (const plan::Packed* packed : list) total += packed->net_bytes;
      if (total > whole) {
        replicated += total - whole;
        std::string name = many.weights[weight].name;
        names.insert(name.substr(name.find('.', name.find('.') + 1) + 1));
      }
    }
    // Tied heads are one copy on one rank and two weights on several: the embedding whole, lm_head cut.
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : " ") + name;
    Figure(fmt::format("weight bytes tp {} {}", tp, GetParam()),
           fmt::format("{} together, {} alone, {} replicated: {}; {} ranks with an empty share", sum, alone, replicated,
                       list, std::count(empty.begin(), empty.end(), true)));
    EXPECT_LE(double(sum), 1.03 * double(alone) + double(replicated));
  }
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, TensorParallel, testing::ValuesIn(Goldens()), NameOf);

}  // namespace
}  // namespace qwen::e2e
