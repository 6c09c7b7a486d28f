// The trained checkpoints against transformers: greedy text, logits, drafts, bits a byte; and that they talk.
//
// test/demo/goldens is what transformers and, for drafts, our torch writing of the MTP head say
// (tools/demo/make_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "runtime/exec/batch_block.h"
#include "runtime/exec/executor.h"
#include "runtime/exec/weights.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/safetensors.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

constexpr int kPrompts = 20;
constexpr double kNearTie = 1e-3;  // contracts, section 11: f32

std::string DemoDir(const std::string& name) { return std::string(QWEN_SOURCE_DIR) + "/test/demo/" + name; }

/// An integer tensor of a golden file.
std::vector<int> Integers(const std::string& path, const std::string& name) {
  auto header = plan::ReadSafetensorsHeader(path);
  EXPECT_TRUE(header.ok()) << header.status().message();
  if (!header.ok()) return {};
  std::ifstream file(path, std::ios::binary);
  for (const plan::TensorInfo& info : header->tensors) {
    if (info.name != name || info.dtype != "I32") continue;
    std::vector<int> values((info.end - info.begin) / 4);
    file.seekg(info.begin);
    file.read(reinterpret_cast<char*>(values.data()), info.end - info.begin);
    return values;
  }
  ADD_FAILURE() << path << " has no " << name;
  return {};
}

class Demo : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const CommandResult compile =
        RunProgram("qwenc", {"compile", DemoDir(GetParam()), "-o", plan(), "--dtype", "f32", "--max-num-seqs", "2",
                             "--max-num-batched-tokens", "256", "--max-model-len", "2048"});
    ASSERT_EQ(compile.exit_code, 0) << compile.output;
    golden_ = ReadTensors(golden_path());
  }
  std::string plan() const { return temp_ / "m.plan"; }
  std::string golden_path() const { return DemoDir("goldens/" + GetParam() + ".safetensors"); }
  std::vector<int> Golden(int prompt, const std::string& what) const {
    return Integers(golden_path(), fmt::format("{}.{}", prompt, what));
  }

  TempDir temp_;
  std::map<std::string, Tensor> golden_;
};

// Teacher forced: every row's logits, and the token that each of the 64 rows would choose.
TEST_P(Demo, LogitsAndGreedyChoices) {
  std::vector<std::vector<int>> cases;
  std::vector<size_t> prompts;
  for (int n = 0; n < kPrompts; ++n) {
    std::vector<int> tokens = Golden(n, "prompt"), greedy = Golden(n, "greedy");
    ASSERT_EQ(greedy.size(), 64u);
    prompts.push_back(tokens.size());
    tokens.insert(tokens.end(), greedy.begin(), greedy.end() - 1);
    cases.push_back(tokens);
  }
  WriteCases(temp_ / "cases.json", cases);
  const auto got = Logits(plan(), DemoDir(GetParam()), temp_ / "cases.json", temp_ / "out.safetensors");
  const std::vector<int> columns = Integers(golden_path(), "columns");
  double worst = 0, worst_sum = 0;
  int ties = 0, rows = 0;
  for (int n = 0; n < kPrompts; ++n) {
    const Tensor &ours = got.at(std::to_string(n)), &want = golden_.at(fmt::format("{}.rows", n));
    ASSERT_EQ(ours.rows(), want.rows());
    Tensor kept{want.shape, {}};
    for (int64_t row = 0; row < ours.rows(); ++row, ++rows) {
      const float* logits = &ours.values[row * ours.channels()];
      for (int column : columns) kept.values.push_back(logits[column]);
      double sum = 0;
      const double highest = *std::max_element(logits, logits + ours.channels());
      for (int64_t v = 0; v < ours.channels(); ++v) sum += std::exp(logits[v] - highest);
      worst_sum =
          std::max(worst_sum, std::abs(std::log(sum) + highest - golden_.at(fmt::format("{}.lse", n)).values[row]));
      const int64_t at = row - (static_cast<int64_t>(prompts[n]) - 1);
      if (at < 0) continue;
      const int choice = static_cast<int>(std::max_element(logits, logits + ours.channels()) - logits);
      if (choice == Golden(n, "greedy")[at]) continue;
      ++ties;
      EXPECT_LE(golden_.at(fmt::format("{}.margin", n)).values[at], kNearTie)
          << "prompt " << n << ", token " << at << ": " << choice;
    }
    worst = std::max(worst, Worst(RowErrors(kept, want)));
  }
  Figure(
      "demo logits " + GetParam(),
      fmt::format("worst of {} rows {:.1e} (allowed 1e-4), logsumexp {:.1e}; {} of {} greedy choices differ, all near "
                  "ties",
                  rows, worst, worst_sum, ties, kPrompts * 64));
  EXPECT_LE(worst, 1e-4);
  EXPECT_LE(worst_sum, 1e-3);
}

// Free running: what `qwenrt run` generates, up to the end token.
TEST_P(Demo, GreedyTextIsTransformers) {
  int same = 0, ended = 0;
  for (int n = 0; n < kPrompts; ++n) {
    const std::vector<int> greedy = Golden(n, "greedy");
    const CommandResult run =
        RunProgram("qwenrt", {"run", plan(), "--weights", DemoDir(GetParam()), "--prompt-tokens",
                              fmt::format("{}", fmt::join(Golden(n, "prompt"), ",")), "--max-tokens", "64",
                              "--temperature", "0", "--json", "--progress", "none"});
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const auto answer = nlohmann::json::parse(run.output);
    const std::vector<int> ids = answer["ids"];
    ended += answer["finish_reason"] == "stop";
    if (answer["finish_reason"] == "length") EXPECT_EQ(ids.size(), 64u);
    const auto differs = std::mismatch(ids.begin(), ids.end(), greedy.begin()).first;
    same += differs == ids.end();
    if (differs != ids.end()) {
      const float margin = golden_.at(fmt::format("{}.margin", n)).values[differs - ids.begin()];
      EXPECT_LE(margin, kNearTie) << "prompt " << n << " differs at " << differs - ids.begin();
    }
  }
  Figure("demo greedy text " + GetParam(),
         fmt::format("{} of {} prompts token for token, {} ended by themselves", same, kPrompts, ended));
  EXPECT_GE(same, kPrompts - 1);
}

// The plan's draft_mtp program after each prompt: three drafts, chained through its own hidden rows.
TEST_P(Demo, DraftsAreThoseOfTheTorchWriting) {
  StatusOr<plan::Plan> read = plan::ReadPlan(plan());
  ASSERT_TRUE(read.ok()) << read.status().message();
  StatusOr<exec::Weights> weights = exec::LoadWeights(*read, DemoDir(GetParam()));
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  constexpr int kPages = 16;
  auto made = exec::Executor::Create(*read, *std::move(weights), {.num_pages = kPages, .num_slots = 1});
  ASSERT_TRUE(made.ok()) << made.status().message();
  exec::Executor& executor = **made;
  ASSERT_TRUE(executor.HasProgram("draft_mtp"));
  exec::BatchBlock block(read->capacity, kPages);
  for (int page = 0; page < kPages; ++page) block.SetPage(0, page, page);
  kernels::SampleParams greedy{};
  greedy.flags = kernels::kSampleGreedy;

  // Runs `tokens` at `position`; the token drawn behind the last row, and the hidden rows.
  auto run = [&](const char* program, std::span<const int32_t> tokens, int position, std::span<const uint8_t> hidden,
                 std::vector<uint8_t>* hidden_out) {
    const int32_t last = static_cast<int32_t>(tokens.size()) - 1;
    exec::SequenceRows rows{.tokens = tokens, .position = position, .state_slot = 0, .table_row = 0};
    rows.logit_rows = {&last, 1};
    rows.sample = {&greedy, 1};
    block.Clear();
    const Status added = tokens.size() == 1 ? block.AddShort(rows) : block.AddLong(rows);
    EXPECT_TRUE(added.ok()) << added.message();
    auto outputs = executor.Run(program, block.View(), hidden);
    EXPECT_TRUE(outputs.ok()) << outputs.status().message();
    if (!outputs.ok()) return -1;
    hidden_out->assign(outputs->hidden.begin(), outputs->hidden.end());
    return static_cast<int>(outputs->next[0]);
  };

  int same = 0, agreed = 0;
  for (int n = 0; n < kPrompts; ++n) {
    const std::vector<int> prompt = Golden(n, "prompt"), text = Golden(n, "greedy"), want = Golden(n, "drafts");
    std::vector<uint8_t> hidden, next_hidden;
    const int first = run("step", prompt, 0, {}, &hidden);
    EXPECT_EQ(first, text[0]) << n;
    std::vector<int32_t> tokens(prompt.begin() + 1, prompt.end());
    tokens.push_back(first);
    const size_t row_bytes = hidden.size() / prompt.size();
    std::vector<int> drafts;
    for (int position = 0; drafts.size() < want.size();) {
      drafts.push_back(run("draft_mtp", tokens, position, hidden, &next_hidden));
      position += static_cast<int>(tokens.size());
      tokens = {drafts.back()};
      hidden.assign(next_hidden.end() - static_cast<std::ptrdiff_t>(row_bytes), next_hidden.end());
    }
    same += drafts == want;
    agreed += drafts[0] == text[1];
    for (size_t i = 0; i < want.size() && drafts[i] != want[i]; ++i)
      EXPECT_LE(golden_.at(fmt::format("{}.draft_margin", n)).values[i], kNearTie) << n << ", draft " << i;
  }
  Figure("demo drafts " + GetParam(),
         fmt::format("{} of {} chains of three equal; the first draft is the model's choice in {}", same, kPrompts,
                     agreed));
  EXPECT_GE(same, kPrompts - 1);
}

// The first windows of the held-out text: transformers' figure for the same bytes is stored beside the goldens.
TEST_P(Demo, BitsPerByte) {
  std::ifstream file(DemoDir("goldens/bits_per_byte.json"));
  const auto stored = nlohmann::json::parse(file)[GetParam()];
  std::ifstream text(DemoDir("heldout.txt"), std::ios::binary);
  std::string part(stored["bytes"].get<size_t>(), '\0');
  text.read(part.data(), static_cast<std::streamsize>(part.size()));
  std::ofstream(temp_ / "part.txt", std::ios::binary) << part;
  const CommandResult run = RunProgram("qwenrt", {"perplexity", plan(), "--weights", DemoDir(GetParam()), "--text",
                                                  temp_ / "part.txt", "--json", "--progress", "none"});
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const double ours = nlohmann::json::parse(run.output)["bits_per_byte"], theirs = stored["bits_per_byte"];
  Figure("demo bits a byte " + GetParam(),
         fmt::format("{:.4f} through qwenrt, {:.4f} through transformers, {} bytes", ours, theirs, part.size()));
  EXPECT_NEAR(ours / theirs, 1, 0.005);
}

// A question through the template is answered in it and ends by itself; text round trips through the tokenizer.
TEST_P(Demo, TalksAndStops) {
  int stopped = 0;
  for (const char* question : {"What is a file?", "Hello!", "What is 3 plus 4?", "Name three colours."}) {
    const CommandResult run =
        RunProgram("qwenrt", {"run", plan(), "--weights", DemoDir(GetParam()), "--chat", question, "--max-tokens",
                              "400", "--temperature", "0.7", "--seed", "3", "--json", "--progress", "none"});
    ASSERT_EQ(run.exit_code, 0) << run.output;
    const auto answer = nlohmann::json::parse(run.output);
    const std::string text = answer["text"];
    stopped += answer["finish_reason"] == "stop";
    EXPECT_NE(text.find("</think>"), std::string::npos) << text;
    EXPECT_EQ(text.find("<|im_"), std::string::npos) << text;
  }
  Figure("demo chat " + GetParam(), fmt::format("{} of 4 replies ended by themselves within 400 tokens", stopped));
  EXPECT_GE(stopped, 3);

  const std::string text = "Grüße, 世界! 🧑‍💻\n\tx = 3.14";
  const CommandResult ids = RunProgram("qwenrt", {"tokenize", plan(), "--text", text});
  ASSERT_EQ(ids.exit_code, 0) << ids.output;
  const CommandResult back =
      RunProgram("qwenrt", {"detokenize", plan(), "--tokens", ids.output.substr(0, ids.output.size() - 1)});
  EXPECT_EQ(back.output, text);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Demo, testing::Values("qwen3_5-demo", "qwen3_5_moe-demo"), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace qwen::e2e
