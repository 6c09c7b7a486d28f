// `qwenc verify --device cuda` on the emulated card: every kernel holds, whatever the order of blocks and whenever
// cp.async completes, with the same bits; and nearly every instruction has run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compiler/codegen/Nvrtc.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

class CudaVerify : public testing::Test {
protected:
  void SetUp() override {
    if (auto opened = compiler::Nvrtc::open(); !opened.ok())
      GTEST_SKIP() << opened.status().message();
    if (std::getenv("QWENRT_CUDA_DRIVER"))
      GTEST_SKIP() << "asks the emulator, which is not the driver here";
    Set("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR);
  }
  void TearDown() override {
    for (const std::string &name : set_)
      unsetenv(name.c_str());
  }
  void Set(const std::string &name, const std::string &value) {
    setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }
  std::string Compile(const std::string &config, const std::string &tp) {
    CommandResult compile = RunProgram("qwenc", {"compile", config, "--target", "cpu,sm_89", "--dtype", "bf16", "--tp",
                                                 tp, "-o", temp_ / "m.plan", "--force"});
    EXPECT_EQ(compile.exit_code, 0) << compile.output;
    return temp_ / "m.plan";
  }
  json Verify(const std::string &plan, const std::vector<std::string> &more = {}) {
    std::vector<std::string> arguments = {"verify", plan, "--device", "cuda", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    CommandResult verify = RunProgram("qwenc", arguments);
    EXPECT_EQ(verify.exit_code, 0) << verify.output;
    return json::parse(verify.output.substr(0, verify.output.rfind("]}") + 2), nullptr, false);
  }
  TempDir temp_;

private:
  std::vector<std::string> set_;
};

TEST_F(CudaVerify, OrdersOfBlocksAndCopiesGiveTheSameBits) {
  for (const auto &[golden, tp] : {std::pair("qwen3_5-a", "1"), {"qwen3_5_moe-b", "3"}}) {

    const std::string plan = Compile(GoldenDir(golden), tp);
    Set("QWEN_CUDA_EMULATOR_ORDER", "forward");
    Set("QWEN_CUDA_EMULATOR_CP_ASYNC", "latest");
    const json want = Verify(plan);
    ASSERT_TRUE(want.contains("kernels"));
    for (const auto &[order, copies] : {std::pair("reversed", "latest"), {"shuffled", "earliest"}}) {
      Set("QWEN_CUDA_EMULATOR_ORDER", order);
      Set("QWEN_CUDA_EMULATOR_CP_ASYNC", copies);
      const json got = Verify(plan);
      ASSERT_EQ(got["kernels"].size(), want["kernels"].size());
      for (size_t i = 0; i < want["kernels"].size(); ++i)
        EXPECT_EQ(got["kernels"][i]["bits"], want["kernels"][i]["bits"])
            << golden << " tp " << tp << " " << order << " " << copies << ": " << want["kernels"][i]["kernel"];
    }
    Figure(fmt::format("verify {} tp {} on the emulated card", golden, tp),
           fmt::format("{} kernels, same bits in three orders", want["kernels"].size()));
  }
}

TEST_F(CudaVerify, OtherSeedsGiveOtherBits) {
  const std::string plan = Compile(GoldenDir("qwen3_5-a"), "1");
  const json a = Verify(plan), b = Verify(plan, {"--seed", "2"});
  EXPECT_NE(a["kernels"][1]["bits"], b["kernels"][1]["bits"]);
}

TEST_F(CudaVerify, ASpoiltKernelIsNamed) {
  const std::string plan = Compile(GoldenDir("qwen3_5-a"), "1");
  CommandResult verify = RunProgram("qwenc", {"verify", plan, "--device", "cuda", "--break-family", "rms_norm"});
  EXPECT_EQ(verify.exit_code, 6) << verify.output;
  EXPECT_NE(verify.output.find("add_rms_norm__"), std::string::npos) << verify.output;
}

TEST_F(CudaVerify, APlanWithoutTheTargetSaysSo) {
  CommandResult compile =
      RunProgram("qwenc", {"compile", GoldenDir("qwen3-a"), "--target", "cpu", "-o", temp_ / "m.plan"});
  ASSERT_EQ(compile.exit_code, 0) << compile.output;
  CommandResult verify = RunProgram("qwenc", {"verify", temp_ / "m.plan", "--device", "cuda"});
  EXPECT_EQ(verify.exit_code, 4) << verify.output;
  EXPECT_NE(verify.output.find("no program for sm_89, only for cpu"), std::string::npos) << verify.output;
}

TEST_F(CudaVerify, ACardThatIsNotThereSaysSo) {
  const std::string plan = Compile(GoldenDir("qwen3-a"), "1");
  Set("QWEN_CUDA_EMULATOR_DEVICES", "0");
  CommandResult verify = RunProgram("qwenc", {"verify", plan, "--device", "cuda"});
  EXPECT_EQ(verify.exit_code, 4) << verify.output;
}

} // namespace
} // namespace qwen::e2e
