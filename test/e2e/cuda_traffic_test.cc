// What a decode kernel moves, counted by the emulated card, beside the operand bytes that the catalogue says it must.
//
// Layers of real configs: their widths and heads, but one layer of each kind, a part of the vocabulary and of the experts, since a
// launch does not know how many there are. Two runs that differ in some tokens differ in as many decode steps. What reads the
// past, attention and the delta rule, is measured behind a prompt and over a full turn of the ring, in layers of the same
// heads that are narrow otherwise.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "compiler/codegen/Nvrtc.h"
#include "runtime/base/file.h"
#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/attention/attention_shape.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/reader.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

constexpr int kPrompt = 504;      // tokens behind which the past is measured
constexpr int kTurn = 8;          // tokens from one fold of the ring to the next (contracts, section 5)
constexpr double kSector = 32;    // bytes
constexpr double kLeast = 256e3;  // bytes of a launch: below, what is not counted (norms' weights, tables, tickets) is seen

struct Row {
  std::string kernel;
  double operands, sums;  // bytes of a launch: the catalogue's, and attention's partial sums
  double moved, requested;
  double conflicts;  // wavefronts beyond the first, a wavefront
};

/// Bytes of the sums that the blocks of attn_decode hand to the one that merges them, at `position`.
double PartialSums(const kernels::AttentionSpec& s, int position) {
  const auto up = [](int a, int b) { return (a + b - 1) / b; };
  const int pages = up(position, kernels::cuda::kAttnPageTokens);
  const int each = std::max(up(pages, kernels::cuda::AttnSplits(s.kv_heads)), kernels::cuda::kAttnLeastPages);
  return 4.0 * (up(pages, each) + 1) * s.q_heads * kernels::cuda::AttnPartFloats(s.head_dim);
}

class CudaTraffic : public testing::TestWithParam<const char*> {
 protected:
  /// The config, cut. `wide`: of its own widths; else narrow but for attention.
  static void WriteConfig(const std::string& name, bool wide, const std::string& path) {
    json config = json::parse(std::ifstream(QWEN_SOURCE_DIR "/configs/" + name + ".json"));
    json& text = config.contains("text_config") ? config["text_config"] : config;
    text["num_hidden_layers"] = 2;
    text["layer_types"] = {"linear_attention", "full_attention"};
    text["full_attention_interval"] = 2;
    text["mtp_num_hidden_layers"] = 0;
    text["vocab_size"] = wide ? 16384 : 512;
    if (text.contains("num_experts")) text["num_experts"] = wide ? 32 : 8;
    if (!wide)
      for (const char* key : {"hidden_size", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"})
        if (text.contains(key)) text[key] = 64;
    for (json* object : {&config, &text})
      for (const char* key : {"eos_token_id", "bos_token_id", "pad_token_id", "image_token_id", "video_token_id",
                              "vision_start_token_id", "vision_end_token_id"})
        object->erase(key);
    std::ofstream(path) << config;
  }

  /// The emulator's report of a prompt of `prompt` tokens and `steps` decode steps behind it.
  static json Report(const TempDir& temp, int prompt, int steps) {
    const std::string report = temp / "report.json";
    WriteCases(temp / "cases.json", {std::vector<int>(prompt + steps, 7)});
    setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, 1);
    setenv("QWEN_CUDA_EMULATOR_REPORT", report.c_str(), 1);
    setenv("QWEN_CUDA_EMULATOR_RACES", "off", 1);  // looked for elsewhere
    setenv("QWEN_CUDA_EMULATOR_THREADS", "2", 1);
    const CommandResult run =
        RunProgram("qwenrt", {"logits", temp / "m.plan", "--weights", "random:1", "--tokens", temp / "cases.json", "--split",
                              std::to_string(prompt) + ",1,1,1,1,1,1,1,1,1", "--device", "cuda", "-o", temp / "out.safetensors", "--force"});
    for (const char* name : {"QWENRT_CUDA_DRIVER", "QWEN_CUDA_EMULATOR_REPORT", "QWEN_CUDA_EMULATOR_RACES",
                             "QWEN_CUDA_EMULATOR_THREADS"})
      unsetenv(name);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return json::parse(std::ifstream(report));
  }

  static std::vector<Row> Measure(const std::string& name, bool wide, int prompt, int warm, int steps) {
    TempDir temp;
    WriteConfig(name, wide, temp / "config.json");
    const CommandResult compiled =
        RunProgram("qwenc", {"compile", temp / "config.json", "-o", temp / "m.plan", "--target=sm_89", "--max-num-seqs=2",
                             "--max-num-batched-tokens=1024", "--max-model-len=2048"});
    EXPECT_EQ(compiled.exit_code, 0) << compiled.output;
    StatusOr<plan::Plan> plan = plan::ReadPlan(temp / "m.plan");
    if (!plan.ok()) ADD_FAILURE() << plan.status().message();
    if (testing::Test::HasFailure()) return {};
    const json few = Report(temp, prompt, warm), more = Report(temp, prompt, warm + steps);
    if (testing::Test::HasFailure()) return {};
    std::vector<Row> rows;
    for (const auto& [kernel, counts] : more["kernels"].items()) {
      const auto grown = [&](std::initializer_list<const char*> keys) {
        double sum = 0;
        for (const char* key : keys)
          sum += counts[key].get<double>() -
                 (few["kernels"].contains(kernel) ? few["kernels"][kernel][key].get<double>() : 0.0);
        return sum;
      };
      const double launches = grown({"launches"});
      if (launches == 0) continue;
      for (const plan::Kernel& record : plan->kernels) {
        if (record.name != kernel) continue;
        const kernels::KernelInfo* info = kernels::FindKernel(record.entry);
        const StatusOr<kernels::SpecPtr> spec = info->decode(record.spec);
        EXPECT_TRUE(spec.ok());
        double operands = 0, sums = 0;
        for (int t = 0; t < steps; ++t) {
          const int position = prompt + warm + t;
          operands += info->work(spec->get(), 1, position + 1).bytes / steps;
          if (record.entry == "attn_decode")
            sums += PartialSums(*static_cast<const kernels::AttentionSpec*>(spec->get()), position) / steps;
        }
        const double wavefronts = grown({"shared_wavefronts"});
        rows.push_back({kernel, operands, sums, kSector * grown({"read_sectors_unique", "write_sectors_unique"}) / launches,
                        kSector * grown({"read_sectors_requested", "write_sectors_requested"}) / launches,
                        wavefronts > 0 ? grown({"bank_conflicts"}) / wavefronts : 0});
      }
    }
    return rows;
  }
};

TEST_P(CudaTraffic, ALaunchMovesItsOperands) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  if (std::getenv("QWENRT_CUDA_DRIVER")) GTEST_SKIP() << "asks the emulator, which is not the driver here";
  const std::string name = GetParam();
  if (name != "Qwen3.5-0.8B" && !std::getenv("QWEN_EVERY_SHARD")) GTEST_SKIP() << "minutes: tools/dev accept 6 has it";
  std::vector<Row> rows;
  const auto of_the_past = [](const Row& row) { return row.kernel.starts_with("attn") || row.kernel.starts_with("gdn"); };
  for (Row& row : Measure(name, true, 1, 0, 1))
    if (!of_the_past(row)) rows.push_back(std::move(row));
  for (Row& row : Measure(name, false, kPrompt, 1, kTurn))
    if (of_the_past(row)) rows.push_back(std::move(row));
  ASSERT_FALSE(HasFailure());
  ASSERT_GE(rows.size(), 8u);

  std::string page = fmt::format("\n## {}\n\n| kernel | operands | sums | moved | | requested | conflicts |\n|---|---|---|---|---|---|---|\n", name);
  double worst = 0;
  int judged = 0;
  for (const Row& row : rows) {
    const double off = row.moved / (row.operands + row.sums) - 1;
    page += fmt::format("| `{}` | {:.1f} kB | {} | {:.1f} kB | {:+.1f} % | {:.2f} x | {:.1f} % |\n", row.kernel, row.operands / 1e3,
                        row.sums > 0 ? fmt::format("{:.1f} kB", row.sums / 1e3) : "", row.moved / 1e3, 100 * off, row.requested / row.moved, 100 * row.conflicts);
    if (row.operands < kLeast) continue;
    ++judged;
    worst = std::max(worst, std::abs(off));
    EXPECT_LE(std::abs(off), 0.05) << row.kernel << ": " << row.moved << " bytes moved, " << row.operands << " are operands";
  }
  EXPECT_GE(judged, 5);
  Figure("traffic of " + name, fmt::format("{} kernels of {} B a launch and more within {:.1f} % of their operands (5 allowed)",
                                           judged, kLeast, 100 * worst));
  if (const char* folder = std::getenv("QWEN_TRAFFIC_DIR")) std::ofstream(std::string(folder) + "/" + name) << page;
  else std::printf("%s", page.c_str());
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaTraffic, testing::Values("Qwen3.5-0.8B", "Qwen3.5-4B", "Qwen3.5-27B", "Qwen3.5-35B-A3B"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

}  // namespace
}  // namespace qwen::e2e
