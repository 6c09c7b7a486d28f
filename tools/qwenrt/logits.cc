// qwenrt logits: raw logits of every row of the given cases, for tests and measurements.
#include "runtime/engine/logits.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/safetensors.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"

namespace qwen::qwenrt {
namespace {

constexpr size_t kMaxCasesBytes = size_t{256} << 20;

}  // namespace

Status LogitsCommand(const Flags& flags) {
  for (const char* name : {"tokens", "output"})
    if (!flags.HasValue(name)) return InvalidArgumentError(fmt::format("--{} is missing", name));
  const std::string& output = flags.Text("output");
  QWEN_RETURN_IF_ERROR(CheckOutput(output, flags.Bool("force")));
  engine::LogitsOptions options;
  StatusOr<engine::SplitRule> split = engine::SplitRule::Parse(flags.Text("split"));
  if (!split.ok()) return split.status().Annotate("--split");
  options.split = *std::move(split);
  options.batch = flags.Bool("batch");
  const std::string& path = flags.Text("tokens");
  QWEN_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxCasesBytes));
  QWEN_ASSIGN_OR_RETURN(auto cases, ParseCases(text, path));

  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  for (size_t i = 0; i < cases.size(); ++i)
    QWEN_RETURN_IF_ERROR(engine::CheckPrompt(plan, cases[i]).Annotate(fmt::format("{}: case {}", path, i)));
  // Pages for the longest cases that can run at once.
  int at_once = static_cast<int>(std::min<size_t>(options.batch ? static_cast<size_t>(plan.capacity.max_num_seqs) : 1,
                                                  std::max<size_t>(cases.size(), 1)));
  std::vector<int> pages;
  for (const auto& tokens : cases) pages.push_back(engine::PagesFor(static_cast<int64_t>(tokens.size())));
  std::sort(pages.begin(), pages.end(), std::greater<>());
  pages.resize(static_cast<size_t>(at_once));
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine,
                        LoadEngine(plan, flags, std::accumulate(pages.begin(), pages.end(), 0), at_once));

  GracefulStop stop;
  options.stop = stop.flag();
  const size_t vocab = static_cast<size_t>(plan.model.vocab);
  std::vector<std::vector<float>> logits(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) logits[i].resize(cases[i].size() * vocab);
  auto keep = [&](size_t index, int64_t row, std::span<const float> values) {
    std::memcpy(&logits[index][static_cast<size_t>(row) * vocab], values.data(), values.size_bytes());
  };
  Status status = engine::RunLogits(*engine, cases, options, keep);
  if (status.code() == StatusCode::kCancelled) return CancelledError("stopped by Ctrl-C, nothing was written");
  QWEN_RETURN_IF_ERROR(status);
  std::vector<plan::TensorToWrite> tensors;
  for (size_t i = 0; i < cases.size(); ++i)
    tensors.push_back(
        {.name = fmt::format("{}", i),
         .dtype = DType::kF32,
         .shape = {static_cast<int64_t>(cases[i].size()), plan.model.vocab},
         .bytes = {reinterpret_cast<const uint8_t*>(logits[i].data()), logits[i].size() * sizeof(float)}});
  return plan::WriteSafetensors(output, tensors, {}, flags.Bool("force"));
}

}  // namespace qwen::qwenrt
