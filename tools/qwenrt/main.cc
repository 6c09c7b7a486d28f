// The runtime's command line: flags and exit codes. The commands are in run.cc, logits.cc and inspect.cc.
#include <iterator>

#include "fmt/format.h"
#include "runtime/base/flags.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/plan.h"
#include "tools/qwenrt/commands.h"

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
constexpr FlagTable kTable = {"qwenrt", "runs plans that qwenc made", kCommands, kFlags, kExamples};

struct Row {
  std::string_view name;
  Status (*run)(const Flags&);
};
constexpr Row kBodies[] = {{"run", RunCommand},
                           {"logits", LogitsCommand},
                           {"inspect", InspectCommand},
                           {"verify", VerifyCommand},
                           {"devices", DevicesCommand}};
static_assert(std::size(kBodies) == std::size(kCommands));

Status Dispatch(const Flags& flags) {
  for (const Row& row : kBodies)
    if (row.name == flags.command()) return row.run(flags);
  return InternalError("a command without a body");
}

}  // namespace
}  // namespace qwen::qwenrt

int main(int argc, char** argv) {
  using namespace qwen;
  std::string version = fmt::format("{}\nplan version {}, cpu {}\n", BuildText("qwenrt"), plan::kPlanVersion,
                                    kernels::IsaName(kernels::DetectIsa()));
  return RunTool(qwenrt::kTable, version, argc, argv, qwenrt::Dispatch);
}
