// `qwenc verify` lists every kernel record of a plan, and names the ones that are wrong.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "runtime/plan/reader.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

std::string Compile(const TempDir& temp, const std::string& config, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"compile", config, "-o", temp / "m.plan", "--force"});
  CommandResult compile = RunProgram("qwenc", more);
  EXPECT_EQ(compile.exit_code, 0) << compile.output;
  return temp / "m.plan";
}

/// The kernels of the report; fails the test unless they are exactly the plan's, each once.
nlohmann::json VerifyAll(const std::string& path, int want_exit, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = {"verify", path, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  CommandResult verify = RunProgram("qwenc", arguments);
  EXPECT_EQ(verify.exit_code, want_exit) << verify.output;
  nlohmann::json report = nlohmann::json::parse(verify.output.substr(0, verify.output.rfind("]}") + 2), nullptr, false);
  EXPECT_FALSE(report.is_discarded()) << verify.output;
  if (report.is_discarded()) return {};
  auto plan = plan::ReadPlan(path);
  EXPECT_TRUE(plan.ok());
  std::multiset<std::string> want, got;
  for (const plan::Kernel& kernel : plan->kernels) want.insert(kernel.name);
  for (auto& kernel : report["kernels"]) got.insert(kernel["kernel"].get<std::string>());
  EXPECT_EQ(got, want);
  return report["kernels"];
}

class VerifyGolden : public testing::TestWithParam<std::string> {};

TEST_P(VerifyGolden, EveryKernelHolds) {
  TempDir temp;
  for (const char* dtype : {"f32", "bf16"})
    for (const char* tp : {"1", "3"}) {
      auto kernels = VerifyAll(Compile(temp, GoldenDir(GetParam()), {"--dtype", dtype, "--tp", tp, "--max-rows", "16"}), 0);
      Figure(fmt::format("verify {} {} tp {}", GetParam(), dtype, tp), fmt::format("{} kernels", kernels.size()));
    }
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, VerifyGolden, testing::ValuesIn(Goldens()), NameOf);

// Every family that these plans have, spoilt in turn, is named, and nothing else is.
TEST(VerifyBroken, EveryFamilyIsNamed) {
  TempDir temp;
  std::set<std::string> seen;
  for (const char* golden : {"qwen3_5_moe-a", "qwen3_5-b"})
    for (const char* tp : {"1", "2"}) {
      std::string path = Compile(temp, GoldenDir(golden), {"--dtype", "f32", "--tp", tp});
      std::set<std::string> families;
      auto plan = plan::ReadPlan(path);
      ASSERT_TRUE(plan.ok());
      for (const plan::Kernel& kernel : plan->kernels) families.insert(kernel.family);
      for (const std::string& family : families) {
        if (!seen.insert(family).second) continue;
        auto kernels = VerifyAll(path, 6, {"--break-family", family});
        int bad = 0;
        for (auto& kernel : kernels) {
          if (!kernel["ok"].get<bool>()) ++bad;
          EXPECT_EQ(kernel["ok"].get<bool>(), kernel["family"] != family) << kernel.dump();
        }
        EXPECT_GT(bad, 0) << family;
        Figure("broken family " + family, fmt::format("{} kernels named, exit 6", bad));
      }
    }
  EXPECT_EQ(seen, (std::set<std::string>{"embed", "rms_norm", "linear", "gdn", "attention", "router", "experts", "lm_head",
                                         "all_reduce", "elementwise"}));
}

class VerifyReal : public testing::TestWithParam<std::string> {};

TEST_P(VerifyReal, EveryKernelHolds) {
  TempDir temp;
  std::string path = Compile(temp, std::string(QWEN_SOURCE_DIR) + "/configs/" + GetParam() + ".json");
  auto kernels = VerifyAll(path, 0);
  double worst = 0;  // share of what is allowed
  for (auto& kernel : kernels)
    if (kernel["tolerance"].get<double>() > 0)
      worst = std::max(worst, kernel["error"].get<double>() / kernel["tolerance"].get<double>());
  Figure("verify " + GetParam(), fmt::format("{} kernels, worst at {:.2f} of its tolerance", kernels.size(), worst));
}
INSTANTIATE_TEST_SUITE_P(Sizes, VerifyReal, testing::Values("Qwen3.5-0.8B", "Qwen3.5-27B", "Qwen3.5-35B-A3B"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!isalnum(c)) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace qwen::e2e
