// The memory statement against what a process really takes: peak resident bytes after all reserved memory was touched.
//
// The statement is made first, of the plan alone; no weights are there yet.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "test/e2e/support.h"
#include "test/sanitizers.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

constexpr int64_t kVocab = 16384;

// A real config with fewer layers, and what else makes it run in seconds.
void WriteCut(const std::string& name, int layers, const json& changes, const std::string& to) {
  std::ifstream file(std::string(QWEN_SOURCE_DIR) + "/configs/" + name + ".json");
  json config = json::parse(file);
  json& text = config["text_config"];
  text["num_hidden_layers"] = layers;
  text["layer_types"].erase(text["layer_types"].begin() + layers, text["layer_types"].end());
  text["vocab_size"] = kVocab;
  text["eos_token_id"] = kVocab - 1;
  text.update(changes);
  std::ofstream(to) << config;
}

struct Shape {
  std::string name, config;
  int layers;
  json changes;
};

class Memory : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    WriteCut(GetParam().config, GetParam().layers, GetParam().changes, temp_ / "config.json");
    const CommandResult compile =
        RunProgram("qwenc", {"compile", temp_ / "config.json", "-o", temp_ / "m.plan", "--max-model-len", "8192"});
    ASSERT_EQ(compile.exit_code, 0) << compile.output;
  }

  json Statement(const std::vector<std::string>& sizes) {
    std::vector<std::string> arguments = {"inspect", temp_ / "m.plan", "--memory", "--json", "--threads", "2"};
    arguments.insert(arguments.end(), sizes.begin(), sizes.end());
    const CommandResult run = RunProgram("qwenrt", arguments);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return json::parse(run.output)["targets"][0];
  }
  CommandResult Run(std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "run", temp_ / "m.plan", "--prompt-tokens", "1,2,3", "--threads", "2", "--max-tokens", "4", "--progress",
        "none"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram("qwenrt", arguments);
  }
  TempDir temp_;
};

// Goal: within 3 % or 8 MB. Both: what is taken beside the statement does not grow with the model.
TEST_P(Memory, PeakIsTheStatement) {
  if (QWEN_SANITIZED) GTEST_SKIP() << "a sanitizer's shadow is resident too";
  for (const auto& [seqs, tokens] : {std::pair{1, 64}, {1, 8192}, {4, 2048}, {16, 1024}}) {
    const std::vector<std::string> sizes = {"--max-num-seqs", std::to_string(seqs), "--max-model-len",
                                            std::to_string(tokens)};
    const int64_t stated = Statement(sizes)["total_bytes"];
    std::vector<std::string> arguments = {"--weights", "random:1", "--preallocate"};
    arguments.insert(arguments.end(), sizes.begin(), sizes.end());
    const CommandResult run = Run(arguments);
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const double off = static_cast<double>(run.peak_bytes - stated);
    constexpr double kAllowed = 8e6;
    Figure(fmt::format("memory {} {} x {}", GetParam().name, seqs, tokens),
           fmt::format("stated {:.1f} MB, peak {:.1f} MB, off by {:+.1f} MB, {:+.2f} % (allowed 8 MB)",
                       static_cast<double>(stated) / 1e6, static_cast<double>(run.peak_bytes) / 1e6, off / 1e6,
                       100 * off / static_cast<double>(stated)));
    EXPECT_LE(std::abs(off), kAllowed);
    EXPECT_LE(std::abs(off), 0.03 * static_cast<double>(stated));
  }
}

// What is not touched is not taken: the same process without --preallocate stays below by what the flag touches.
TEST_P(Memory, PreallocateTouchesThePools) {
  if (QWEN_SANITIZED) GTEST_SKIP() << "a sanitizer's shadow is resident too";
  const std::vector<std::string> sizes = {"--max-num-seqs", "16", "--max-model-len", "1024"};
  const json s = Statement(sizes);
  const json& rank = s["ranks"][0];
  const int64_t pools = s["num_slots"].get<int64_t>() * rank["slot_bytes"].get<int64_t>() +
                        s["num_pages"].get<int64_t>() * rank["page_bytes"].get<int64_t>();
  std::vector<std::string> arguments = {"--weights", "random:1"};
  arguments.insert(arguments.end(), sizes.begin(), sizes.end());
  const CommandResult lazy = Run(arguments);
  ASSERT_EQ(lazy.exit_code, 0) << lazy.output;
  EXPECT_LT(lazy.peak_bytes, s["total_bytes"].get<int64_t>() - pools / 2);
}

// Before a weight is made or read, with both numbers.
TEST_P(Memory, WhatDoesNotFitIsRefused) {
  const int64_t total = Statement({"--max-num-seqs", "2", "--max-model-len", "64"})["total_bytes"];
  const CommandResult fits =
      RunProgram("qwenrt", {"inspect", temp_ / "m.plan", "--memory", "--threads", "2", "--max-num-seqs", "2",
                            "--max-model-len", "64", "--gpu-memory", std::to_string(total)});
  EXPECT_EQ(fits.exit_code, 0) << fits.output;
  const CommandResult refused =
      RunProgram("qwenrt", {"inspect", temp_ / "m.plan", "--memory", "--threads", "2", "--max-num-seqs", "2",
                            "--max-model-len", "64", "--gpu-memory", std::to_string(total - 1)});
  EXPECT_EQ(refused.exit_code, 5);
  EXPECT_NE(refused.output.find(fmt::format("({} bytes), there are ", total)), std::string::npos) << refused.output;
  EXPECT_NE(refused.output.find(fmt::format("({} bytes)\n", total - 1)), std::string::npos) << refused.output;

  const CommandResult much = Run({"--weights", "nowhere", "--max-num-seqs", "17"});
  EXPECT_EQ(much.exit_code, 2);
  EXPECT_NE(much.output.find("--max-num-seqs: is 17, the plan takes 16"), std::string::npos) << much.output;
  const CommandResult few = Run({"--weights", "nowhere", "--max-model-len", "5"});
  EXPECT_EQ(few.exit_code, 2);
  EXPECT_NE(few.output.find("--max-model-len: is 5, the prompt and --max-tokens take 6"), std::string::npos)
      << few.output;
}

// All programs write their logits to one place: as many rows as verification can want at once, or few enough to be
// cheap, and not a step's every token.
TEST(MemoryOfOutputs, LogitsAreThereOnce) {
  for (const int seqs : {1, 16}) {
    TempDir temp;
    const CommandResult compile =
        RunProgram("qwenc", {"compile", std::string(QWEN_SOURCE_DIR) + "/configs/Qwen3.5-0.8B.json", "-o",
                             temp / "m.plan", "--max-num-seqs", std::to_string(seqs)});
    ASSERT_EQ(compile.exit_code, 0) << compile.output;
    const json plan = json::parse(RunProgram("qwenrt", {"inspect", temp / "m.plan", "--json"}).output);
    const json memory = json::parse(RunProgram("qwenrt", {"inspect", temp / "m.plan", "--memory", "--json"}).output);
    const int64_t rows = plan["capacity"]["max_logit_rows"], row_bytes = plan["model"]["vocab"].get<int64_t>() * 4;
    const int64_t bytes = memory["targets"][0]["ranks"][0]["output_bytes"];
    Figure(fmt::format("memory of outputs, Qwen3.5-0.8B, {} sequences", seqs),
           fmt::format("{:.0f} MB with {} rows of logits", static_cast<double>(bytes) / 1e6, rows));
    constexpr int64_t kMiB = 1 << 20;
    EXPECT_LT(bytes, rows * row_bytes + 32 * kMiB);  // beside them hidden rows, of some MiB a program
    const int64_t wanted = seqs * plan["capacity"]["max_rows"].get<int64_t>();
    EXPECT_GE(rows, wanted);
    EXPECT_LE(rows * row_bytes, std::max(64 * kMiB, wanted * row_bytes));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Memory,
    testing::Values(Shape{"dense", "Qwen3.5-0.8B", 4, json::object()},
                    Shape{"moe", "Qwen3.5-35B-A3B", 4, {{"hidden_size", 1024}, {"num_experts", 16}}}),
    [](const testing::TestParamInfo<Shape>& info) { return info.param.name; });

}  // namespace
}  // namespace qwen::e2e
