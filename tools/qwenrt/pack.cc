// qwenrt pack: a checkpoint's weights in their kernels' layouts, in one file that later starts map.
#include "runtime/exec/pack.h"

#include <filesystem>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/plan/memory.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"

namespace qwen::qwenrt {

Status PackCommand(const Flags& flags) {
  if (!flags.HasValue("output")) return InvalidArgumentError("--output is missing");
  const std::string& output = flags.Text("output");
  QWEN_RETURN_IF_ERROR(CheckOutput(output, flags.Bool("force")));
  QWEN_ASSIGN_OR_RETURN(const plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(const WeightSource source,
                        ParseWeights(flags.Text("weights"), flags.Argument(0), plan.model.weights_dir));
  if (source.seed) return InvalidArgumentError("--weights: made-up weights are not packed", "name a folder");

  exec::CheckpointFacts facts;
  QWEN_RETURN_IF_ERROR(WithProgress(flags, "weights", [&](const exec::LoadOptions& options) -> Status {
    QWEN_ASSIGN_OR_RETURN(facts, exec::WritePack(plan, source.dir, output, flags.Bool("force"), options));
    return {};
  }));
  for (const std::string& warning : facts.warnings) PrintWarning("qwenrt", warning);

  std::error_code error;
  const int64_t bytes = static_cast<int64_t>(std::filesystem::file_size(output, error));
  if (flags.Bool("json"))
    fmt::print("{{\"pack\": {}, \"bytes\": {}, \"weights\": {}, \"ignored_tensors\": {}}}\n", JsonQuote(output), bytes,
               plan.packed.size(), facts.ignored_tensors);
  else
    fmt::print("{}: {} packed weights, {}\n", output, plan.packed.size(), plan::HumanBytes(bytes));
  return {};
}

}  // namespace qwen::qwenrt
