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
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

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

constexpr int kBlockShared = 101376;  // bytes of a block, static and of its launch

/// Global loads of a PTX text, by their whole word: "ld.global.v4.f32".
std::map<std::string, int> GlobalLoads(const std::string& ptx) {
  std::map<std::string, int> count;
  std::istringstream lines(ptx);
  for (std::string line, word; std::getline(lines, line);) {
    std::istringstream words(line);
    while (words >> word && word.starts_with('@')) {}  // a predicate
    if (word.starts_with("ld.") && word.find(".global") != std::string::npos) ++count[word];
  }
  return count;
}

/// What decode waits for comes by 16 bytes a lane: weights, the delta rule's state, keys and values. PTX does not say whose
/// bytes a load has, but widths and types do. Weights carry the hint that no other load has. Weights and cache are bf16 and
/// nothing else is, so no load is of 16 bits; of 32 bits that are no float there are counts and ids, a few, not pairs of
/// weights. The state is f32 as the rows are: a block's part is 16 KiB, eight loads of 16 bytes for each of 128 threads.
/// attn_prefill is not among them: it waits for products, and copies its pages by elements.
bool HasWideLoads(const std::string& kernel, const std::string& ptx) {
  const auto is = [&](std::initializer_list<const char*> families) {
    return std::any_of(families.begin(), families.end(), [&](const char* f) { return kernel.starts_with(f); });
  };
  const bool weights = is({"linear", "experts", "router", "lm_head"}), cache = is({"attn_decode"}), state = is({"gdn"});
  if (!weights && !cache && !state) return false;
  int wide = 0, words = 0;
  for (const auto& [load, count] : GlobalLoads(ptx)) {
    const bool sixteen = load.ends_with(".v4.u32") || load.ends_with(".v4.f32");
    const bool hinted = load.find("no_allocate") != std::string::npos;
    EXPECT_TRUE(sixteen || !hinted) << kernel << ": " << load;
    EXPECT_FALSE(!state && (load.ends_with("16") || load.ends_with("8"))) << kernel << ": " << load;
    if (sixteen && (weights ? hinted : state || load.ends_with("u32"))) wide += count;
    if (!sixteen && !load.ends_with("f32")) words += count;
  }
  EXPECT_GE(wide, 8) << kernel;
  EXPECT_LE(words, 8) << kernel;
  return true;
}

// Registers: 128 keep two blocks of 256 threads on a multiprocessor, and 255 two blocks of attn_decode's 128, whose sums for
// eight heads alone are 64.
TEST_P(CudaPlan, PtxasSeesNoSpillsAndNoStack) {
  if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
  if (GetParam().tps.empty() && !std::getenv("QWEN_EVERY_SHARD"))
    GTEST_SKIP() << "two minutes a model: tools/dev accept 6 asks for every shard of it";
  const std::string ptxas = "/usr/local/cuda/bin/ptxas";
  if (!std::filesystem::exists(ptxas)) GTEST_SKIP() << ptxas << " is not there";
  std::set<std::string> seen;
  int most = 0, most_shared = 0, wide = 0;
  const bool every = std::getenv("QWEN_EVERY_SHARD");
  for (int tp : every ? std::vector<int>{1, 2, 3} : GetParam().tps) {
    TempDir temp;
    const std::string dump = temp / "ir";
    std::filesystem::create_directory(dump);
    const CommandResult compiled =
        RunProgram("qwenc", {"compile", QWEN_SOURCE_DIR "/configs/" + GetParam().name + ".json", "-o", temp / "m.plan",
                             "--target=sm_89", "--tp", std::to_string(tp), "--dump-ir", dump});
    ASSERT_EQ(compiled.exit_code, 0) << compiled.output;
    std::map<std::string, int> launch_shared;
    const json listed = json::parse(RunProgram("qwenrt", {"inspect", temp / "m.plan", "--kernels", "--json"}).output);
    for (const json& k : listed["kernels"]) launch_shared[k["name"]] = k["shared_bytes"];
    for (const auto& entry : std::filesystem::directory_iterator(dump + "/kernels")) {
      const std::filesystem::path path = entry.path();
      if (path.extension() != ".ptx" || !seen.insert(path.stem()).second) continue;
      std::stringstream ptx;
      ptx << std::ifstream(path).rdbuf();
      EXPECT_FALSE(std::regex_search(ptx.str(), std::regex("\\.local\\b"))) << path.stem();
      wide += HasWideLoads(path.stem(), ptx.str());
      ASSERT_TRUE(launch_shared.contains(path.stem())) << path.stem();
      for (const char* arch : every ? std::vector<const char*>{"sm_89", "sm_90"} : std::vector<const char*>{"sm_89"}) {
        const std::string text = Output(fmt::format("{} -arch={} -v {} -o /dev/null", ptxas, arch, path.string()));
        EXPECT_NE(text.find(" 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"), std::string::npos)
            << path.stem() << " " << arch << "\n" << text;
        std::smatch match;
        ASSERT_TRUE(std::regex_search(text, match, std::regex("Used ([0-9]+) registers"))) << text;
        const int registers = std::stoi(match[1]);
        EXPECT_LE(registers, path.stem().string().starts_with("attn_decode") ? 255 : 128) << path.stem() << " " << arch;
        most = std::max(most, registers);
        int shared = launch_shared[path.stem()];
        if (std::regex_search(text, match, std::regex("([0-9]+) bytes smem"))) {
          EXPECT_LE(std::stoi(match[1]), 48 << 10) << path.stem() << " " << arch << ": more is dynamic";
          shared += std::stoi(match[1]);
        }
        EXPECT_LE(shared, kBlockShared) << path.stem() << " " << arch;
        most_shared = std::max(most_shared, shared);
      }
    }
  }
  Figure("ptxas " + GetParam().name, fmt::format("{} kernels{}: no spills, no stack, no local memory, at most {} registers, {} of {} "
                                                 "bytes of shared memory; weights, state and cache by 16 bytes in {}",
                                                 seen.size(), every ? " at tp 1, 2, 3 for sm_89 and sm_90" : "", most,
                                                 most_shared, kBlockShared, wide));
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

/// A plan of a small model, and what the emulator counts in a run of it.
class CudaSteady : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string why = NoNvrtc(); !why.empty()) GTEST_SKIP() << why;
    if (std::getenv("QWENRT_CUDA_DRIVER")) GTEST_SKIP() << "asks the emulator, which is not the driver here";
    ASSERT_EQ(RunProgram("qwenc", {"compile", golden_, "-o", temp_ / "m.plan", "--target=sm_89",
                                   "--max-num-batched-tokens=256"})
                  .exit_code,
              0);
  }
  json Report(const char* command, const std::vector<std::string>& more) {
    const std::string report = temp_ / "report.json";
    setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, 1);
    setenv("QWEN_CUDA_EMULATOR_REPORT", report.c_str(), 1);
    std::vector<std::string> arguments = {command, temp_ / "m.plan", "--weights", golden_, "--device", "cuda"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = RunProgram("qwenrt", arguments);
    unsetenv("QWENRT_CUDA_DRIVER");
    unsetenv("QWEN_CUDA_EMULATOR_REPORT");
    EXPECT_EQ(result.exit_code, 0) << result.output;
    std::ifstream file(report);
    return json::parse(file);
  }

  const TempDir temp_;
  const std::string golden_ = GoldenDir("qwen3_5-a");
};

// Two runs that differ in 32 tokens differ in as many times the plan's launches, in no graph and in no allocation.
TEST_F(CudaSteady, ATokenIsTheGraphAndTakesNoMemory) {
  auto run = [&](int tokens) {
    WriteCases(temp_ / "cases.json", {std::vector<int>(tokens, 7)});
    return Report("logits", {"--tokens", temp_ / "cases.json", "--split", "1", "-o", temp_ / "out.safetensors", "--force"});
  };
  const json few = run(8), more = run(40);
  const json steps = json::parse(RunProgram("qwenrt", {"inspect", temp_ / "m.plan", "--steps", "--json"}).output);
  int nodes = 0;
  for (const json& program : steps["programs"])
    if (program["program"] == "step")
      for (const json& step : program["steps"]) nodes += step["part"] != "long";
  const auto grown = [&](const char* key) { return more[key].get<int>() - few[key].get<int>(); };
  const int launches = grown("launches");
  Figure("steady token",
         fmt::format("{} launches of graphs with {} kernels, {} others, {} graphs made, {} allocations on the card and {} "
                     "of pinned memory in 32 tokens",
                     grown("graph_launches"), launches, grown("direct_launches"), grown("graph_instantiations"),
                     grown("allocations"), grown("host_allocations")));
  EXPECT_EQ(grown("graph_launches"), 32);
  EXPECT_EQ(grown("direct_launches"), 0);
  EXPECT_EQ(launches, 32 * nodes);
  EXPECT_EQ(few["graph_instantiations"], 1);
  EXPECT_EQ(grown("graph_instantiations"), 0);
  EXPECT_EQ(grown("allocations"), 0);
  EXPECT_EQ(grown("host_allocations"), 0);
}

TEST_F(CudaSteady, SequencesOfABucketShareItsGraph) {
  auto graphs = [&](const char* sequences, const char* steps) {
    const json report = Report("bench", {"--decode", sequences, "--steps", steps, "--context", "70", "--prefill", "70",
                                         "--repeat", "1", "--progress", "none"});
    EXPECT_GT(report["graph_launches"], std::atoi(steps));
    return report["graph_instantiations"].get<int>();
  };
  const int four = graphs("4", "2"), both = graphs("3,4", "2"), more = graphs("3,4", "5"), other = graphs("2,4", "2");
  Figure("graphs of a bucket", fmt::format("{} for 3 and then 4 sequences, {} for 2 and then 4", both, other));
  EXPECT_EQ(four, 1);
  EXPECT_EQ(both, 1);
  EXPECT_EQ(more, 1);
  EXPECT_EQ(other, 2);
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
