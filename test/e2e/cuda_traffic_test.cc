// What a decode kernel moves, counted by the emulated card, beside three accounts of what it must: the config's
// dimensions, the table of floors that the kernels were designed to (kernels-sm89.md, 2.4), and the catalogue's
// operands.
//
// Layers of real configs: their widths and heads, but one layer of each kind, a part of the vocabulary and of the
// experts, since a launch does not know how many there are. Two runs that differ in some tokens differ in as many
// decode steps. What reads the past, attention and the delta rule, is measured behind a prompt and over a full turn of
// the ring, in layers of the same heads that are narrow otherwise; the router before all of its experts, which are
// narrow then.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "compiler/codegen/Nvrtc.h"
#include "runtime/base/file.h"
#include "runtime/kernels/catalog.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/plan/reader.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

using nlohmann::json;

constexpr int kPrompt = 504;     // tokens behind which the past is measured
constexpr int kTurn = 8;         // tokens from one fold of the ring to the next (contracts, section 5)
constexpr double kSector = 32;   // bytes
constexpr double kLeast = 64e3;  // bytes of a launch: below, what no account has (tables, tickets) is seen
constexpr double kNear = 0.05;
constexpr double kMicrosecond = 1008e9 / 1e6;  // bytes that a 4090 moves in one

enum class Cut { kWide, kPast, kRouter };  // what is left of a config as it is

struct Row {
  std::string kernel, entry, role;
  double floor, operands;  // bytes of a launch: by the config, by the catalogue
  double moved, requested;
  double sums;       // of `moved`: what attention's blocks write for the one that merges them
  double designed;   // moved, at the size of the design's table
  double conflicts;  // wavefronts beyond the first, a wavefront
};

/// The dimensions of a config, and what they ask of a decode step of one sequence: weights and cache in bf16, rows and
/// state in f32.
struct Dimensions {
  explicit Dimensions(const json& config) {
    const json& text = config.contains("text_config") ? config["text_config"] : config;
    const auto of = [&](const char* key) { return text.value(key, 0.0); };
    hidden = of("hidden_size"), inter = of("intermediate_size"), vocab = of("vocab_size");
    experts = of("num_experts"), top_k = of("num_experts_per_tok");
    expert = of("moe_intermediate_size"), shared = of("shared_expert_intermediate_size");
    head_dim = of("head_dim"), q_heads = of("num_attention_heads"), kv_heads = of("num_key_value_heads");
    keys = of("linear_num_key_heads") * of("linear_key_head_dim"), value_heads = of("linear_num_value_heads");
    values = value_heads * of("linear_value_head_dim"), key_dim = of("linear_key_head_dim");
    width = of("linear_conv_kernel_dim");
  }

  /// Bytes of a launch at `position`, that of the step's token; 0 for what there is no floor of.
  double Floor(const std::string& role, double position) const {
    if (role == "in_proj") return 2 * hidden * (2 * keys + 2 * values + 2 * value_heads);  // q, k, v, z, b, a
    if (role == "out_proj") return 2 * hidden * values;
    if (role == "attention in") return 2 * hidden * head_dim * (2 * q_heads + 2 * kv_heads);  // q, gate, k, v
    if (role == "attention out") return 2 * hidden * head_dim * q_heads;
    if (role == "MLP up") return 2 * hidden * 2 * inter;
    if (role == "MLP down") return 2 * hidden * inter;
    if (role == "experts up") return 2 * hidden * 2 * (top_k * expert + shared);
    if (role == "experts down") return 2 * hidden * (top_k * expert + shared);
    if (role == "router") return 2 * hidden * experts;
    if (role == "lm_head") return 2 * hidden * vocab;
    if (role == "sample") return 4 * vocab;
    if (role == "KV") return CacheBytes() * (position + 1) + AttentionRows();
    if (role == "state") {
      // S0 is read in every step and written in one of kTurn (lazy flush, kernels-sm89.md, 4.3); a step reads the
      // records since, (kTurn + 1) / 2 in the mean, and writes one. Beside it the convolution: filter, three rows of
      // the past, a row in and kept; o, b and a.
      const double record = keys + values + value_heads, channels = 2 * keys + values;
      return 4 * (values * key_dim * (1 + 1.0 / kTurn) + record * ((kTurn + 1) / 2.0 + 1) +
                  channels * (width + width - 1 + 2) + values + 2 * value_heads);
    }
    return 0;
  }
  double CacheBytes() const { return 2 * 2 * kv_heads * head_dim; }                     // of a token
  double AttentionRows() const { return 4 * head_dim * (3 * q_heads + 2 * kv_heads); }  // q, gate, o, k, v
  /// The most that blocks leave to be merged: channels, norm and highest logit of a query head, for every 128 tokens of
  /// the past begun and for the step's own.
  double Sums(double position) const { return 4 * q_heads * (head_dim + 2) * (std::ceil(position / 128) + 1); }

  double hidden, inter, vocab, experts, top_k, expert, shared, head_dim, q_heads, kv_heads, keys, value_heads, values,
      key_dim, width;
};

/// What a kernel is in the design's table, of which a family may have several.
std::string Role(const std::string& entry, const void* spec, const Dimensions& d) {
  static const std::map<std::string, std::string> one_each = {{"attn_decode", "KV"},
                                                              {"gdn_decode", "state"},
                                                              {"experts_gate_up", "experts up"},
                                                              {"router", "router"},
                                                              {"experts_down", "experts down"},
                                                              {"lm_head", "lm_head"},
                                                              {"embed_rows", "embed"},
                                                              {"sample", "sample"}};
  if (const auto it = one_each.find(entry); it != one_each.end()) return it->second;
  if (entry != "linear") return entry;
  const auto& s = *static_cast<const kernels::LinearSpec*>(spec);
  if (s.silu_mul) return "MLP up";
  if (s.prologue == kernels::kPrologueGatedRmsNorm) return "out_proj";
  if (s.residual) return s.k == d.inter ? "MLP down" : "attention out";
  return s.outputs == 3 ? "attention in" : "in_proj";
}

/// Sectors asked for, of those moved, at most: what blocks read again from L2. A product's blocks each read the rows
/// they multiply and norm, with out_proj's gate, and a lane's eight floats are two loads of one sector; the router has
/// sixteen blocks for a mebibyte. The blocks of a key head read its records, convolution rows and filter; attention's
/// last block the others' sums, and each the query. 1 for what shares nothing.
double MostRequested(const Row& row) {
  static const std::map<std::string, double> most = {
      {"linear", 1.55},    {"lm_head", 1.4},     {"experts_gate_up", 1.3}, {"experts_down", 1.3}, {"router", 1.8},
      {"gdn_decode", 2.7}, {"attn_decode", 1.5}, {"embed_rows", 1.1},      {"sample", 1.2}};
  const auto it = most.find(row.entry);
  return it == most.end() ? 1 : it->second;
}

/// Passes over the banks beyond the first, of all. Attention's are outside its loop over keys: where a head's query
/// changes to the order of the lanes that read it, two lanes a bank, and where a warp adds up the sums of two heads.
double MostConflicts(const Row& row) { return row.entry == "attn_decode" ? 0.015 : 0; }

/// The design's table of floors, in microseconds of a 4090, bf16, one sequence: 0.8B, 4B, 35B-A3B.
struct Designed {
  const char* what;
  std::vector<std::string> roles;
  std::map<std::string, double> us;
};
Designed Line(const char* what, std::vector<std::string> roles, double small, double middle, double sparse) {
  return {what, std::move(roles), {{"Qwen3.5-0.8B", small}, {"Qwen3.5-4B", middle}, {"Qwen3.5-35B-A3B", sparse}}};
}
const std::vector<Designed>& DesignedFloors() {
  static const std::vector<Designed> lines = {
      Line("D1 in_proj", {"in_proj"}, 16.6, 62.4, 49.9),
      Line("D3 out_proj", {"out_proj"}, 4.2, 20.8, 16.6),
      Line("D4a attention in", {"attention in"}, 10.4, 52.0, 37.5),
      Line("D4b KV of 8192 tokens", {"KV"}, 16.6, 33.3, 16.6),
      Line("attention out", {"attention out"}, 4.2, 20.8, 16.6),
      Line("MLP or experts", {"MLP up", "MLP down", "experts up", "experts down"}, 21.9, 140, 56.2),
      Line("router", {"router"}, 0, 0, 1.04),
      Line("D8 lm_head", {"lm_head"}, 505, 1261, 1009)};
  return lines;
}
/// D2 has the state read and written in every step, which the lazy flush does not: a limit, not a floor.
const Designed& DesignedState() {
  static const Designed line = Line("D2 state, read and written", {"state"}, 2.1, 4.2, 4.2);
  return line;
}

class CudaTraffic : public testing::TestWithParam<const char*> {
 protected:
  static json Config(const std::string& name) {
    return json::parse(std::ifstream(QWEN_SOURCE_DIR "/configs/" + name + ".json"));
  }
  static json CutConfig(const std::string& name, Cut cut) {
    json config = Config(name);
    json& text = config.contains("text_config") ? config["text_config"] : config;
    text["num_hidden_layers"] = 2;
    text["layer_types"] = {"linear_attention", "full_attention"};
    text["full_attention_interval"] = 2;
    text["mtp_num_hidden_layers"] = 0;
    text["vocab_size"] = cut == Cut::kWide ? 16384 : 512;
    if (text.contains("num_experts") && cut != Cut::kRouter) text["num_experts"] = cut == Cut::kWide ? 32 : 8;
    if (cut == Cut::kPast) text["hidden_size"] = 64;
    if (cut != Cut::kWide)
      for (const char* key : {"intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"})
        if (text.contains(key)) text[key] = 64;
    for (json* object : {&config, &text})
      for (const char* key : {"eos_token_id", "bos_token_id", "pad_token_id", "image_token_id", "video_token_id",
                              "vision_start_token_id", "vision_end_token_id"})
        object->erase(key);
    return config;
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
        RunProgram("qwenrt", {"logits", temp / "m.plan", "--weights", "random:1", "--tokens", temp / "cases.json",
                              "--split", std::to_string(prompt) + ",1,1,1,1,1,1,1,1,1", "--device", "cuda", "-o",
                              temp / "out.safetensors", "--force"});
    for (const char* name :
         {"QWENRT_CUDA_DRIVER", "QWEN_CUDA_EMULATOR_REPORT", "QWEN_CUDA_EMULATOR_RACES", "QWEN_CUDA_EMULATOR_THREADS"})
      unsetenv(name);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return json::parse(std::ifstream(report));
  }

  static std::vector<Row> Measure(const std::string& name, Cut cut, int prompt, int warm, int steps) {
    TempDir temp;
    const json config = CutConfig(name, cut);
    std::ofstream(temp / "config.json") << config;
    const CommandResult compiled =
        RunProgram("qwenc", {"compile", temp / "config.json", "-o", temp / "m.plan", "--target=sm_89",
                             "--max-num-seqs=2", "--max-num-batched-tokens=1024", "--max-model-len=2048"});
    EXPECT_EQ(compiled.exit_code, 0) << compiled.output;
    StatusOr<plan::Plan> plan = plan::ReadPlan(temp / "m.plan");
    if (!plan.ok()) ADD_FAILURE() << plan.status().message();
    if (testing::Test::HasFailure()) return {};
    const json few = Report(temp, prompt, warm), more = Report(temp, prompt, warm + steps);
    if (testing::Test::HasFailure()) return {};
    const Dimensions d(config);
    const double whole_vocab = Dimensions(Config(name)).vocab, position = prompt + warm + (steps - 1) / 2.0;
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
        const double wavefronts = grown({"shared_wavefronts"});
        Row row = {.kernel = kernel, .entry = record.entry, .role = Role(record.entry, spec->get(), d)};
        row.floor = d.Floor(row.role, position);
        row.operands = info->work(spec->get(), 1, position + 1).bytes;
        row.moved = kSector * grown({"read_sectors_unique", "write_sectors_unique"}) / launches;
        row.requested = kSector * grown({"read_sectors_requested", "write_sectors_requested"}) / launches;
        row.conflicts = wavefronts > 0 ? grown({"bank_conflicts"}) / wavefronts : 0;
        row.designed = row.moved;
        if (row.role == "lm_head") row.designed *= whole_vocab / d.vocab;
        if (row.role == "KV") {
          // Beside them a block writes o and the token's key and value.
          row.sums = kSector * grown({"write_sectors_unique"}) / launches - 4 * d.q_heads * d.head_dim - d.CacheBytes();
          EXPECT_LE(row.sums, 1.02 * d.Sums(position)) << "in sectors, whose ends may be others'";
          row.designed = (row.moved - row.sums - d.AttentionRows()) / (position + 1) * 8192;
        }
        rows.push_back(row);
      }
    }
    return rows;
  }
};

TEST_P(CudaTraffic, ALaunchMovesWhatItMust) {
  if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
  if (std::getenv("QWENRT_CUDA_DRIVER")) GTEST_SKIP() << "asks the emulator, which is not the driver here";
  const std::string name = GetParam();
  if (name != "Qwen3.5-0.8B" && !std::getenv("QWEN_EVERY_SHARD")) GTEST_SKIP() << "minutes: tools/dev accept 6 has it";
  std::vector<Row> rows;
  const auto of_the_past = [](const Row& row) { return row.role == "KV" || row.role == "state"; };
  for (Row& row : Measure(name, Cut::kWide, 1, 0, 1))
    if (!of_the_past(row) && row.role != "router") rows.push_back(std::move(row));
  if (Dimensions(Config(name)).experts > 0)
    for (Row& row : Measure(name, Cut::kRouter, 1, 0, 1))
      if (row.role == "router") rows.push_back(std::move(row));
  for (Row& row : Measure(name, Cut::kPast, kPrompt, 1, kTurn))
    if (of_the_past(row)) rows.push_back(std::move(row));
  ASSERT_FALSE(HasFailure());

  std::string page = fmt::format(
      "\n## {}\n\n| kernel | | floor | operands | sums | moved | of floor | of operands | requested | "
      "conflicts |\n|---|---|---|---|---|---|---|---|---|---|\n",
      name);
  double worst = 0, most_requested = 0, most_conflicts = 0;
  int judged = 0;
  for (const Row& row : rows) {
    const double moved = row.moved - row.sums, of_floor = moved / row.floor - 1, of_operands = moved / row.operands - 1;
    page += fmt::format("| `{}` | {} | {} | {:.1f} kB | {} | {:.1f} kB | {} | {:+.1f} % | {:.2f} x | {:.1f} % |\n",
                        row.kernel, row.role, row.floor > 0 ? fmt::format("{:.1f} kB", row.floor / 1e3) : "",
                        row.operands / 1e3, row.sums > 0 ? fmt::format("{:.1f} kB", row.sums / 1e3) : "",
                        row.moved / 1e3, row.floor > 0 ? fmt::format("{:+.1f} %", 100 * of_floor) : "",
                        100 * of_operands, row.requested / row.moved, 100 * row.conflicts);
    EXPECT_LE(row.requested / row.moved, MostRequested(row)) << row.kernel;
    EXPECT_LE(row.conflicts, MostConflicts(row)) << row.kernel;
    most_requested = std::max(most_requested, row.requested / row.moved);
    most_conflicts = std::max(most_conflicts, row.conflicts);
    if (std::max(row.floor, row.operands) < kLeast) continue;
    ++judged;
    worst = std::max({worst, std::abs(of_floor), std::abs(of_operands)});
    EXPECT_LE(std::abs(of_floor), kNear) << row.kernel << ": " << moved << " bytes moved, the config asks for "
                                         << row.floor;
    EXPECT_LE(std::abs(of_operands), kNear)
        << row.kernel << ": " << moved << " bytes moved, " << row.operands << " are operands";
  }
  EXPECT_EQ(judged, static_cast<int>(rows.size()) - 1) << "all but the embedding's row";
  Figure("traffic of " + name, fmt::format("{} kernels of {:.0f} kB a launch and more within {:.1f} % of floor and "
                                           "operands (5 allowed); at most {:.2f} x "
                                           "requested, {:.1f} % conflicts",
                                           judged, kLeast / 1e3, 100 * worst, most_requested, 100 * most_conflicts));

  double far = 0;
  int lines = 0;
  const auto moved_by = [&](const Designed& line) {
    double bytes = 0;
    for (const Row& row : rows)
      if (std::count(line.roles.begin(), line.roles.end(), row.role)) bytes += row.designed;
    return bytes;
  };
  for (const Designed& line : DesignedFloors()) {
    const auto us = line.us.find(name);
    if (us == line.us.end() || us->second == 0) continue;
    const double off = moved_by(line) / (us->second * kMicrosecond) - 1;
    EXPECT_LE(std::abs(off), kNear) << line.what << ": " << moved_by(line) << " bytes, designed for " << us->second
                                    << " us";
    far = std::max(far, std::abs(off));
    ++lines;
  }
  if (const auto us = DesignedState().us.find(name); us != DesignedState().us.end()) {
    const double share = moved_by(DesignedState()) / (us->second * kMicrosecond);
    EXPECT_LE(share, 1);
    Figure("design's table, " + name,
           fmt::format("{} lines within {:.1f} % (5 allowed); the state {:.0f} % of read and written", lines, 100 * far,
                       100 * share));
  }
  if (const char* folder = std::getenv("QWEN_TRAFFIC_DIR"))
    std::ofstream(std::string(folder) + "/" + name) << page;
  else
    std::printf("%s", page.c_str());
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaTraffic,
                         testing::Values("Qwen3.5-0.8B", "Qwen3.5-4B", "Qwen3.5-27B", "Qwen3.5-35B-A3B"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

}  // namespace
}  // namespace qwen::e2e
