// Machines without a card that can be used, and machines without NVRTC: who asked for CUDA is refused with the reason, who
// did not gets the CPU and a note.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "compiler/codegen/Nvrtc.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

/// Variables of the environment while it lives.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<std::string, std::string>> variables) : variables_(std::move(variables)) {
    for (auto& [name, value] : variables_) {
      const char* before = std::getenv(name.c_str());
      before_.push_back(before ? std::optional<std::string>(before) : std::nullopt);
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  ~Environment() {
    for (size_t i = 0; i < variables_.size(); ++i) {
      if (before_[i])
        setenv(variables_[i].first.c_str(), before_[i]->c_str(), 1);
      else
        unsetenv(variables_[i].first.c_str());
    }
  }

 private:
  std::vector<std::pair<std::string, std::string>> variables_;
  std::vector<std::optional<std::string>> before_;
};

struct Case {
  const char* name;
  std::vector<std::pair<std::string, std::string>> environment;
  std::vector<std::string> says;  // of the reason
};
class CudaDriverCase : public testing::TestWithParam<Case> {
 protected:
  static std::string Plan() {
    // One for all cases: NVRTC takes seconds.
    static TempDir temp;
    static const std::string plan = [] {
      const CommandResult made = RunProgram(
          "qwenc", {"compile", GoldenDir("qwen3_5-a"), "-o", temp / "m.plan", "--target=cpu,sm_89", "--max-num-seqs=2"});
      EXPECT_EQ(made.exit_code, 0) << made.output;
      return temp / "m.plan";
    }();
    return plan;
  }
  static CommandResult Logits(std::vector<std::string> more, const std::string& plan = Plan()) {
    TempDir temp;
    WriteCases(temp / "cases.json", {{7, 8, 9}});
    std::vector<std::string> arguments = {"logits", plan, "--weights", GoldenDir("qwen3_5-a"), "--tokens",
                                          temp / "cases.json", "-o", temp / "out.safetensors"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram("qwenrt", arguments);
  }
};

TEST_P(CudaDriverCase, IsRefusedWhereAskedForAndLeftAloneWhereNot) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  const std::string plan = Plan();
  const Environment environment(GetParam().environment);

  const CommandResult asked = Logits({"--device", "cuda"});
  EXPECT_EQ(asked.exit_code, 4) << asked.output;
  for (const std::string& words : GetParam().says) EXPECT_NE(asked.output.find(words), std::string::npos) << asked.output;

  const CommandResult open = Logits({});
  EXPECT_EQ(open.exit_code, 0) << open.output;
  EXPECT_NE(open.output.find("runs on the CPU"), std::string::npos) << open.output;
  for (const std::string& words : GetParam().says) EXPECT_NE(open.output.find(words), std::string::npos) << open.output;

  const CommandResult cpu = Logits({"--device", "cpu"});
  EXPECT_EQ(cpu.exit_code, 0) << cpu.output;
  EXPECT_EQ(cpu.output.find("CUDA"), std::string::npos) << cpu.output;

  const CommandResult devices = RunProgram("qwenrt", {"devices", "--json"});
  ASSERT_EQ(devices.exit_code, 0) << devices.output;
  const std::string reason = json::parse(devices.output)["no_cuda"];
  for (const std::string& words : GetParam().says) EXPECT_NE(reason.find(words), std::string::npos) << reason;
}

const std::pair<std::string, std::string> kEmulated = {"QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR};

INSTANTIATE_TEST_SUITE_P(
    Machines, CudaDriverCase,
    testing::Values(Case{"Absent", {{"QWENRT_CUDA_DRIVER", "/nowhere/libcuda.so.1"}}, {"no CUDA driver", "/nowhere/libcuda.so.1"}},
                    Case{"TooOld", {kEmulated, {"QWEN_CUDA_EMULATOR_VERSION", "12040"}}, {"CUDA 12.4", "want at least 13.0"}},
                    Case{"NotADriver", {{"QWENRT_CUDA_DRIVER", "libm.so.6"}}, {"libm.so.6", "has no cu"}},
                    Case{"Stub", {kEmulated, {"QWEN_CUDA_EMULATOR_INIT", "34"}}, {"stub"}},
                    Case{"Failing", {kEmulated, {"QWEN_CUDA_EMULATOR_INIT", "999"}}, {"cuInit", "UNKNOWN"}},
                    Case{"NoCard", {kEmulated, {"QWEN_CUDA_EMULATOR_DEVICES", "0"}}, {"NO_DEVICE"}},
                    Case{"OldCard",
                         {kEmulated, {"QWEN_CUDA_EMULATOR_CAPABILITY", "86"}},
                         {"compute capability 8.6", "want at least 8.9"}}),
    [](const auto& info) { return std::string(info.param.name); });

int Count(const std::string& text, std::string_view words) {
  int count = 0;
  for (size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++count;
  return count;
}

TEST_F(CudaDriverCase, TooSmallACardSaysBothNumbers) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  const std::string plan = Plan();
  const Environment environment({kEmulated, {"QWEN_CUDA_EMULATOR_MEMORY", "1048576"}});
  const CommandResult asked = Logits({"--device", "cuda"});
  EXPECT_NE(asked.exit_code, 0);
  EXPECT_LT(asked.exit_code, 100) << "no crash";
  EXPECT_NE(asked.output.find("--device=cuda: sm_89: weights, buffers and 1 slots take"), std::string::npos)
      << asked.output;
  EXPECT_NE(asked.output.find("1.00 MiB"), std::string::npos) << asked.output;

  const CommandResult open = Logits({});
  EXPECT_EQ(open.exit_code, 0) << open.output;
  EXPECT_EQ(Count(open.output, "runs on the CPU: sm_89: weights"), 1) << open.output;
  EXPECT_NE(open.output.find("1.00 MiB"), std::string::npos) << open.output;
  EXPECT_EQ(Count(Logits({"--device", "cpu"}).output, "sm_89"), 0);

  // A command that needs the device before it makes its pools.
  const CommandResult bench =
      RunProgram("qwenrt", {"bench", plan, "--weights", "random:1", "--prefill", "3", "--repeat", "1", "--context", "2",
                            "--steps", "2", "--ceiling-bytes", "16MiB", "--json", "--progress", "none"});
  EXPECT_EQ(bench.exit_code, 0) << bench.output;
  EXPECT_EQ(Count(bench.output, "runs on the CPU"), 1) << bench.output;
  EXPECT_NE(bench.output.find("\"isa\""), std::string::npos) << bench.output;
}

TEST_F(CudaDriverCase, MoreRanksThanCardsRunOnTheCpuUnlessAsked) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  TempDir temp;
  const std::string plan = temp / "two.plan";
  const CommandResult made = RunProgram("qwenc", {"compile", GoldenDir("qwen3_5-a"), "-o", plan, "--target=cpu,sm_89",
                                                  "--max-num-seqs=2", "--tp", "2"});
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const Environment environment({kEmulated});
  constexpr const char* kWhy = "the plan is for 2 ranks, this build runs one on CUDA cards";
  const CommandResult asked = Logits({"--device", "cuda"}, plan);
  EXPECT_EQ(asked.exit_code, 4) << asked.output;
  EXPECT_EQ(Count(asked.output, fmt::format("--device=cuda: {}", kWhy)), 1) << asked.output;
  const CommandResult open = Logits({}, plan);
  EXPECT_EQ(open.exit_code, 0) << open.output;
  EXPECT_EQ(Count(open.output, fmt::format("runs on the CPU: {}", kWhy)), 1) << open.output;
  EXPECT_EQ(Count(Logits({"--device", "cpu"}, plan).output, "CUDA"), 0);
}

TEST_F(CudaDriverCase, CeilingsAreTheDataSheets) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  const std::string plan = Plan();
  const Environment environment({kEmulated});  // an RTX 4090: 1,008 GB/s, 165.2 Tflop/s in bf16 with f32 sums
  const json devices = json::parse(RunProgram("qwenrt", {"devices", "--json"}).output)["devices"];
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_NEAR(devices[1]["bytes_per_s"], 1008e9, 1e9);
  EXPECT_NEAR(devices[1]["flops_per_s"], 165.2e12, 0.1e12);
  const CommandResult bench =
      RunProgram("qwenrt", {"bench", plan, "--weights", "random:1", "--device", "cuda", "--prefill", "3", "--repeat", "1",
                            "--context", "2", "--steps", "2", "--json", "--progress", "none"});
  ASSERT_EQ(bench.exit_code, 0) << bench.output;
  EXPECT_EQ(json::parse(bench.output)["ceilings"]["bytes_per_s"], devices[1]["bytes_per_s"]);
  EXPECT_EQ(json::parse(bench.output)["machine"]["card"], devices[1]["name"]);
}

TEST(FailingNvrtc, SaysTheOpAndTheLogAndLeavesNoPlan) {
  TempDir temp;
  const Environment environment({{"QWENC_NVRTC", QWEN_FAILING_NVRTC}});
  const CommandResult made = RunProgram(
      "qwenc", {"compile", GoldenDir("qwen3-a"), "-o", temp / "m.plan", "--target=cpu,sm_89", "--cache-dir", temp / "ptx"});
  EXPECT_NE(made.exit_code, 0);
  EXPECT_LT(made.exit_code, 100) << "no crash";
  for (const char* words : {"program step, embed", "kernel embed_rows", "NVRTC_ERROR_COMPILATION",
                            "linear.cuh(7): error: no such fragment"})
    EXPECT_NE(made.output.find(words), std::string::npos) << made.output;
  EXPECT_NE(access((temp / "m.plan").c_str(), F_OK), 0);
}

TEST(DefaultTargets, EverythingThatNvrtcAllows) {
  TempDir temp;
  const std::string golden = GoldenDir("qwen3-a");
  const Environment unset({{"QWENC_TARGET", ""}});
  unsetenv("QWENC_TARGET");
  auto targets = [&] {
    return json::parse(RunProgram("qwenc", {"inspect", temp / "m.plan", "--json"}).output)["targets"];
  };
  if (compiler::Nvrtc::open().ok()) {
    const CommandResult made = RunProgram("qwenc", {"compile", golden, "-o", temp / "m.plan"});
    ASSERT_EQ(made.exit_code, 0) << made.output;
    EXPECT_EQ(targets(), json({"cpu", "sm_89"}));
    EXPECT_EQ(made.output, "");
  }
  const Environment environment({{"QWENC_NVRTC", "/nowhere/libnvrtc.so"}});
  const CommandResult made = RunProgram("qwenc", {"compile", golden, "-o", temp / "m.plan", "--force"});
  ASSERT_EQ(made.exit_code, 0) << made.output;
  EXPECT_EQ(targets(), json({"cpu"}));
  EXPECT_NE(made.output.find("the plan is for the CPU alone"), std::string::npos) << made.output;
  EXPECT_EQ(std::count(made.output.begin(), made.output.end(), '\n'), 1) << made.output;

  const CommandResult asked = RunProgram("qwenc", {"compile", golden, "-o", temp / "m.plan", "--force", "--target=sm_89"});
  EXPECT_EQ(asked.exit_code, 4) << asked.output;
  EXPECT_NE(asked.output.find("--target=cpu"), std::string::npos) << asked.output;
}

}  // namespace
}  // namespace qwen::e2e
