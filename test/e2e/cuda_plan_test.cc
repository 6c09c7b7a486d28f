// Plans for sm_89: what ptxas says of every kernel of real models, how many launches a token takes, and that a steady
// token takes no memory.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "compiler/codegen/Nvrtc.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

std::string NoNvrtc() {
  auto opened = compiler::Nvrtc::open();
  return opened.ok() ? "" : opened.status().message();
}

std::string Output(const std::string& command) {
  std::string text;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (size_t n; pipe && (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  if (pipe) pclose(pipe);
  return text;
}

struct Model {
  std::string name;
  int nodes;             // launches of a decode token at most
  std::vector<int> tps;  // whose kernels ptxas sees; QWEN_EVERY_SHARD has it see those of 1, 2 and 3
};
class CudaPlan : public testing::TestWithParam<Model> {};

// Registers: 128 keep two blocks of 256 threads on a multiprocessor, and 255 two blocks of attn_decode's 128, whose sums for
// eight heads alone are 64.
TEST_P(CudaPlan, PtxasSeesNoSpillsAndNoStack) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  if (GetParam().tps.empty() && !std::getenv("QWEN_EVERY_SHARD"))
    GTEST_SKIP() << "two minutes a model: tools/dev accept 6 asks for every shard of it";
  const std::string ptxas = "/usr/local/cuda/bin/ptxas";
  if (!std::filesystem::exists(ptxas)) GTEST_SKIP() << ptxas << " is not there";
  std::set<std::string> seen;
  int most = 0;
  const bool every = std::getenv("QWEN_EVERY_SHARD");
  for (int tp : every ? std::vector<int>{1, 2, 3} : GetParam().tps) {
    TempDir temp;
    const std::string dump = temp / "ir";
    std::filesystem::create_directory(dump);
    const CommandResult compiled =
        RunProgram("qwenc", {"compile", QWEN_SOURCE_DIR "/configs/" + GetParam().name + ".json", "-o", temp / "m.plan",
                             "--target=sm_89", "--tp", std::to_string(tp), "--dump-ir", dump});
    ASSERT_EQ(compiled.exit_code, 0) << compiled.output;
    for (const auto& entry : std::filesystem::directory_iterator(dump + "/kernels")) {
      const std::filesystem::path path = entry.path();
      if (path.extension() != ".ptx" || !seen.insert(path.stem()).second) continue;
      for (const char* arch : every ? std::vector<const char*>{"sm_89", "sm_90"} : std::vector<const char*>{"sm_89"}) {
        const std::string text = Output(fmt::format("{} -arch={} -v {} -o /dev/null", ptxas, arch, path.string()));
        EXPECT_NE(text.find(" 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"), std::string::npos)
            << path.stem() << " " << arch << "\n" << text;
        std::smatch match;
        ASSERT_TRUE(std::regex_search(text, match, std::regex("Used ([0-9]+) registers"))) << text;
        const int registers = std::stoi(match[1]);
        EXPECT_LE(registers, path.stem().string().starts_with("attn_decode") ? 255 : 128) << path.stem() << " " << arch;
        most = std::max(most, registers);
        if (std::regex_search(text, match, std::regex("([0-9]+) bytes smem"))) EXPECT_LE(std::stoi(match[1]), 48 << 10);
      }
    }
  }
  Figure("ptxas " + GetParam().name, fmt::format("{} kernels{}: no spills, no stack, at most {} registers", seen.size(),
                                                 every ? " at tp 1, 2, 3 for sm_89 and sm_90" : "", most));
}

TEST_P(CudaPlan, LaunchesOfAToken) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  TempDir temp;
  const CommandResult compiled =
      RunProgram("qwenc", {"compile", QWEN_SOURCE_DIR "/configs/" + GetParam().name + ".json", "-o", temp / "m.plan",
                           "--target=sm_89"});
  ASSERT_EQ(compiled.exit_code, 0) << compiled.output;
  const json steps = json::parse(RunProgram("qwenrt", {"inspect", temp / "m.plan", "--steps", "--json"}).output);
  for (const json& program : steps["programs"]) {
    if (program["program"] != "step") continue;
    int nodes = 0;
    for (const json& step : program["steps"]) nodes += step["part"] != "long";
    Figure("launches " + GetParam().name, fmt::format("{} a token (allowed {})", nodes, GetParam().nodes));
    EXPECT_LE(nodes, GetParam().nodes);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaPlan,
                         testing::Values(Model{"Qwen3.5-0.8B", 125, {1}}, Model{"Qwen3.5-4B", 165, {}},
                                         Model{"Qwen3.5-27B", 325, {}}, Model{"Qwen3.5-35B-A3B", 250, {3}}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

// Two runs that differ in 32 tokens differ in as many times the plan's launches, and in no allocation.
TEST(CudaSteady, ATokenIsTheGraphAndTakesNoMemory) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  if (std::getenv("QWENRT_CUDA_DRIVER")) GTEST_SKIP() << "asks the emulator, which is not the driver here";
  TempDir temp;
  const std::string golden = GoldenDir("qwen3_5-a");
  ASSERT_EQ(RunProgram("qwenc", {"compile", golden, "-o", temp / "m.plan", "--target=sm_89",
                                 "--max-num-batched-tokens=256"})
                .exit_code,
            0);
  auto run = [&](int tokens) {
    const std::string report = temp / "report.json";
    setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, 1);
    setenv("QWEN_CUDA_EMULATOR_REPORT", report.c_str(), 1);
    WriteCases(temp / "cases.json", {std::vector<int>(tokens, 7)});
    const CommandResult result =
        RunProgram("qwenrt", {"logits", temp / "m.plan", "--weights", golden, "--tokens", temp / "cases.json", "--split", "1",
                              "--device", "cuda", "-o", temp / "out.safetensors", "--force"});
    unsetenv("QWENRT_CUDA_DRIVER");
    unsetenv("QWEN_CUDA_EMULATOR_REPORT");
    EXPECT_EQ(result.exit_code, 0) << result.output;
    std::ifstream file(report);
    return json::parse(file);
  };
  const json few = run(8), more = run(40);
  const json steps = json::parse(RunProgram("qwenrt", {"inspect", temp / "m.plan", "--steps", "--json"}).output);
  int nodes = 0;
  for (const json& program : steps["programs"])
    if (program["program"] == "step")
      for (const json& step : program["steps"]) nodes += step["part"] != "long";
  const int launches = more["launches"].get<int>() - few["launches"].get<int>();
  const auto grown = [&](const char* key) { return more[key].get<int>() - few[key].get<int>(); };
  Figure("steady token",
         fmt::format("{} launches of graphs with {} kernels, {} others, {} allocations in 32 tokens",
                     grown("graph_launches"), launches, grown("direct_launches"), grown("allocations")));
  EXPECT_EQ(grown("graph_launches"), 32);
  EXPECT_EQ(grown("direct_launches"), 0);
  EXPECT_EQ(launches, 32 * nodes);
  EXPECT_EQ(more["allocations"], few["allocations"]);
}

TEST(CudaInspect, KernelsSayWhatACardMakesOfThem) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  TempDir temp;
  ASSERT_EQ(RunProgram("qwenc", {"compile", GoldenDir("qwen3_5_moe-a"), "-o", temp / "m.plan", "--target=cpu,sm_89"}).exit_code, 0);
  auto kernels = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"inspect", temp / "m.plan", "--kernels", "--json"});
    const CommandResult run = RunProgram("qwenc", more);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return json::parse(run.output)["kernels"];
  };
  const bool ptxas = std::filesystem::exists("/usr/local/cuda/bin/ptxas");
  int seen = 0;
  for (const json& k : kernels({})) {
    ASSERT_EQ(k.contains("floor_us"), k["target"] == "sm_89") << k;
    if (k["target"] != "sm_89") continue;
    ++seen;
    // The data sheet: 1,008 GB/s and 165.2 Tflop/s.
    EXPECT_NEAR(k["floor_us"], 1e6 * std::max(k["bytes"].get<double>() / 1008e9, k["flops"].get<double>() / 165.2e12), 1e-9);
    ASSERT_EQ(k.contains("registers"), ptxas);
    if (!ptxas) continue;
    EXPECT_GT(k["registers"], 8);
    EXPECT_EQ(k["spill_bytes"], 0);
    EXPECT_EQ(k["stack_bytes"], 0);
    EXPECT_GE(k["blocks_per_multiprocessor"], 1);
    EXPECT_LE(k["occupancy"], 1.0);
  }
  EXPECT_GT(seen, 10);
  Figure("inspect", fmt::format("{} kernels with {}", seen, ptxas ? "registers, occupancy and floor" : "floors alone"));
  setenv("QWENC_PTXAS", "/nowhere/ptxas", 1);
  for (const json& k : kernels({"--gpu", "h200"})) EXPECT_FALSE(k.contains("registers"));
  unsetenv("QWENC_PTXAS");
}

// The trained checkpoints: what the card writes is what the processor writes.
TEST(CudaDemo, GreedyTextIsTheProcessors) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  if (std::getenv("QWENRT_CUDA_DRIVER")) GTEST_SKIP() << "asks the emulator; on a card test/device/cuda.py does this";
  TempDir temp;
  int same = 0, all = 0;
  for (const char* name : {"qwen3_5-demo", "qwen3_5_moe-demo"}) {
    const std::string folder = std::string(QWEN_SOURCE_DIR "/test/demo/") + name, plan = temp / name;
    ASSERT_EQ(RunProgram("qwenc", {"compile", folder, "-o", plan, "--target=cpu,sm_89"}).exit_code, 0);
    for (const char* prompt : {"The package manager", "A maintainer who finds a bug in"}) {
      auto text = [&](const char* device) {
        setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, 1);
        const CommandResult run = RunProgram("qwenrt", {"run", plan, "--weights", folder, "--prompt", prompt, "--max-tokens",
                                                        "6", "--temperature", "0", "--device", device, "--progress", "none"});
        unsetenv("QWENRT_CUDA_DRIVER");
        EXPECT_EQ(run.exit_code, 0) << run.output;
        return run.output;
      };
      const std::string want = text("cpu"), got = text("cuda");
      EXPECT_EQ(got, want) << name << ": " << prompt;
      EXPECT_GT(want.size(), 10u);
      same += got == want, ++all;
    }
  }
  Figure("demo text on the emulated card", fmt::format("{} of {} as the CPU's", same, all));
}

}  // namespace
}  // namespace qwen::e2e
