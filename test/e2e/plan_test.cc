// The plan file stands alone and depends on nothing but its inputs; barriers a layer.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "runtime/plan/dump.h"
#include "runtime/plan/reader.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

namespace fs = std::filesystem;

std::string Config(const std::string& name) { return std::string(QWEN_SOURCE_DIR) + "/configs/" + name + ".json"; }

std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Plan, RunsWithTheConfigMovedAway) {
  TempDir temp;
  fs::copy(GoldenDir("qwen3_5-b"), temp / "model", fs::copy_options::recursive);
  ASSERT_EQ(RunProgram("qwenc", {"compile", temp / "model", "-o", temp / "m.plan"}).exit_code, 0);
  CommandResult before = RunProgram("qwenrt", {"run", temp / "m.plan", "--prompt-tokens", "5,6,7", "--max-tokens", "4"});
  ASSERT_EQ(before.exit_code, 0) << before.output;
  fs::remove(temp / "model/config.json");
  CommandResult after = RunProgram("qwenrt", {"run", temp / "m.plan", "--prompt-tokens", "5,6,7", "--max-tokens", "4"});
  EXPECT_EQ(after.exit_code, 0) << after.output;
  EXPECT_EQ(after.output, before.output);
}

TEST(Plan, SameInputsGiveTheSameBytes) {
  TempDir temp;
  std::string first, second;
  for (int round = 0; round < 2; ++round) {
    std::string dir = temp / fmt::format("round{}/deep/er", round);
    fs::create_directories(dir + "/model");
    fs::copy(GoldenDir("qwen3_5_moe-a") + "/config.json", dir + "/model/config.json");
    if (round) setenv("LC_ALL", "de_DE.UTF-8", 1);
    ASSERT_EQ(RunProgram("qwenc", {"compile", dir + "/model/config.json", "-o", dir + "/m.plan", "--tp", "3"}).exit_code, 0);
    (round ? second : first) = Slurp(dir + "/m.plan");
  }
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(first == second) << first.size() << " and " << second.size() << " bytes";
}

TEST(Plan, OpensNoWeightFile) {
  TempDir temp;
  fs::create_directories(temp / "model");
  fs::copy(GoldenDir("qwen3_5-b") + "/config.json", temp / "model/config.json");
  fs::create_directories(temp / "model/model.safetensors");  // a folder: opening it as a file would fail
  CommandResult compile = RunProgram("qwenc", {"compile", temp / "model", "-o", temp / "m.plan"});
  EXPECT_EQ(compile.exit_code, 0) << compile.output;
}

// Five barriers a dense layer and six a layer with experts (contracts, section 7).
TEST(Plan, BarriersALayer) {
  TempDir temp;
  for (const char* name : {"Qwen3-8B", "Qwen3-30B-A3B", "Qwen3-Next-80B-A3B-Thinking", "Qwen3.5-0.8B", "Qwen3.5-27B",
                           "Qwen3.5-35B-A3B", "Qwen3.5-397B-A17B"}) {
    ASSERT_EQ(RunProgram("qwenc", {"compile", Config(name), "-o", temp / "m.plan", "--force"}).exit_code, 0);
    auto plan = plan::ReadPlan(temp / "m.plan");
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    bool experts = std::any_of(plan->kernels.begin(), plan->kernels.end(),
                               [](const plan::Kernel& kernel) { return kernel.family == "experts"; });
    int most = 0, layers = 0;
    for (const plan::LayerBarriers& layer : plan::CountBarriers(*plan, plan->programs.front())) {
      if (layer.layer.rfind("layers.", 0) != 0) continue;
      ++layers;
      most = std::max(most, layer.barriers);
    }
    Figure(fmt::format("barriers a layer {}", name), fmt::format("at most {} (allowed {})", most, experts ? 6 : 5));
    EXPECT_EQ(layers, plan->model.layers);
    EXPECT_GT(most, 0);
    EXPECT_LE(most, experts ? 6 : 5);
    // No op outside a family of its own: what no fusion takes would be an `elementwise` step of a layer.
    for (const plan::Step& step : plan->programs.front().steps)
      EXPECT_FALSE(plan->kernels[step.kernel].family == "elementwise" && step.origin.rfind("layers.", 0) == 0)
          << step.origin;
  }
}

}  // namespace
}  // namespace qwen::e2e
