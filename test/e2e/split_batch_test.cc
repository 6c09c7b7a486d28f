// A prompt's logits do not depend on how it was cut into calls, nor on what else ran in the same steps.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

constexpr int kSeeds = 50;

class SplitBatch : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    CommandResult compile =
        RunProgram("qwenc", {"compile", GoldenDir(GetParam()), "-o", temp_ / "m.plan", "--dtype", "f32"});
    ASSERT_EQ(compile.exit_code, 0) << compile.output;
    prompts_ = Cases(GetParam());
    WriteCases(temp_ / "cases.json", prompts_);
    alone_ = Run("cases.json", {});
    ASSERT_EQ(alone_.size(), prompts_.size());
  }
  std::map<std::string, Tensor> Run(const std::string& cases, std::vector<std::string> more) {
    more.push_back("--deterministic");
    return Logits(temp_ / "m.plan", GoldenDir(GetParam()), temp_ / cases, temp_ / "out.safetensors", more);
  }
  TempDir temp_;
  std::vector<std::vector<int>> prompts_;
  std::map<std::string, Tensor> alone_;
};

TEST_P(SplitBatch, AnySplitGivesTheSameRows) {
  double worst = 0;
  int same_bits = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    auto split = Run("cases.json", {"--split", fmt::format("random:{}", seed)});
    ASSERT_EQ(split.size(), prompts_.size());
    bool equal = true;
    for (auto& [name, tensor] : split) {
      worst = std::max(worst, Worst(RowErrors(tensor, alone_[name])));
      equal &= tensor.values == alone_[name].values;
    }
    same_bits += equal;
  }
  Figure("random splits " + GetParam(),
         fmt::format("worst row {:.2e} over {} seeds (allowed 1e-5), {} of them bit for bit", worst, kSeeds, same_bits));
  EXPECT_LE(worst, 1e-5);
}

TEST_P(SplitBatch, SplitAtMultiplesOf64IsBitEqual) {
  for (auto& [name, tensor] : Run("cases.json", {"--split", "64"})) EXPECT_EQ(tensor.values, alone_[name].values) << name;
  for (auto& [name, tensor] : Run("cases.json", {"--split", "128,64"}))
    EXPECT_EQ(tensor.values, alone_[name].values) << name;
}

TEST_P(SplitBatch, AnyRaggedBatchIsBitEqual) {
  int batches = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    std::vector<int> order(prompts_.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    std::vector<std::vector<int>> shuffled;
    for (int index : order) shuffled.push_back(prompts_[index]);
    WriteCases(temp_ / "shuffled.json", shuffled);
    std::vector<std::string> flags = {"--batch"};
    if (seed % 2) flags.insert(flags.end(), {"--split", "64"});
    auto together = Run("shuffled.json", flags);
    ASSERT_EQ(together.size(), prompts_.size());
    for (size_t i = 0; i < order.size(); ++i)
      ASSERT_EQ(together[std::to_string(i)].values, alone_[std::to_string(order[i])].values)
          << "seed " << seed << ", case " << order[i];
    ++batches;
  }
  Figure("ragged batches " + GetParam(), fmt::format("{} shuffled batches bit for bit", batches));
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Types, SplitBatch, testing::ValuesIn(OneOfEachType()), NameOf);

}  // namespace
}  // namespace qwen::e2e
