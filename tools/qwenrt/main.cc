// The runtime's command line: flags and exit codes. The commands are in run.cc, logits.cc and inspect.cc.
#include <iterator>

#include "fmt/format.h"
#include "runtime/base/flags.h"
#include "runtime/base/json.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/reader.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/machine.h"

namespace qwen::qwenrt {
namespace {

constexpr CommandRow kCommands[] = {
#define COMMAND(...) {__VA_ARGS__},
#define FLAG(...)
#define EXAMPLE(...)
#include "tools/qwenrt/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr FlagRow kFlags[] = {
#define COMMAND(...)
#define FLAG(commands, name, type, ...) {commands, name, FlagType::type, __VA_ARGS__},
#define EXAMPLE(...)
#include "tools/qwenrt/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr ExampleRow kExamples[] = {
#define COMMAND(...)
#define FLAG(...)
#define EXAMPLE(...) {__VA_ARGS__},
#include "tools/qwenrt/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr EnvironmentRow kEnvironment[] = {
    {"QWENRT_CUDA_DRIVER", "library to open as the CUDA driver instead of libcuda.so.1"}};
constexpr FlagTable kTable = {"qwenrt", "runs plans that qwenc made", kCommands, kFlags, kExamples, kEnvironment};

struct Row {
  std::string_view name;
  Status (*run)(const Flags&);
};
constexpr Row kBodies[] = {{"run", RunCommand},           {"serve", ServeCommand},       {"chat", ChatCommand},
                           {"tokenize", TokenizeCommand}, {"detokenize", DetokenizeCommand},
                           {"render", RenderCommand},     {"perplexity", PerplexityCommand},
                           {"logits", LogitsCommand},     {"bench", BenchCommand},
                           {"pack", PackCommand},         {"inspect", InspectCommand},
                           {"verify", VerifyCommand},     {"devices", DevicesCommand}};
static_assert(std::size(kBodies) == std::size(kCommands));

Status Dispatch(const Flags& flags) {
  for (const Row& row : kBodies)
    if (row.name == flags.command()) return row.run(flags);
  return InternalError("a command without a body");
}

std::vector<VersionField> VersionFields() {
  std::vector<std::string> isas;
  for (kernels::Isa isa : kernels::kAllIsas)
    if (kernels::IsaSupported(isa)) isas.emplace_back(kernels::IsaName(isa));
  std::string cpu = CpuName();
  return {
      {"plan_versions", fmt::format("{0} to {0}", plan::kPlanVersion), fmt::format("[{0}, {0}]", plan::kPlanVersion)},
      {"cpu", fmt::format("{}", fmt::join(isas, " ")), fmt::format("[\"{}\"]", fmt::join(isas, "\", \""))},
      {"devices", fmt::format("cpu ({})", cpu),
       fmt::format("[{{\"device\": \"cpu\", \"name\": {}}}]", JsonQuote(cpu))}};
}

StatusOr<std::vector<PlanValue>> PlanValues(const Flags& flags) {
  if (FindCommand(kTable, flags.command())->arguments != "PLAN") return std::vector<PlanValue>();
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  return std::vector<PlanValue>{{"max-model-len", std::to_string(plan.model.max_model_len)},
                                {"max-num-seqs", std::to_string(plan.capacity.max_num_seqs)},
                                {"max-num-batched-tokens", std::to_string(plan.capacity.max_num_batched_tokens)}};
}

}  // namespace
}  // namespace qwen::qwenrt

int main(int argc, char** argv) {
  using namespace qwen;
  return RunTool({.table = qwenrt::kTable,
                  .body = qwenrt::Dispatch,
                  .version = qwenrt::VersionFields,
                  .plan_values = qwenrt::PlanValues},
                 argc, argv);
}
