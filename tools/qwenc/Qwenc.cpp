//===- Qwenc.cpp - the compiler's command line ----------------------------===//
//
// Flags and exit codes only; the work is a call into Compiler, Verify or runtime/plan.
//
//===----------------------------------------------------------------------===//

#include "compiler/Compiler.h"
#include "compiler/codegen/CardFigures.h"
#include "compiler/codegen/Nvrtc.h"
#include "compiler/codegen/PtxCache.h"
#include "compiler/verify/Verify.h"
#include "runtime/base/file.h"
#include "runtime/base/flags.h"
#include "runtime/base/log.h"
#include "runtime/base/thread_pool.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/dump.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/weight_map.h"
#include "runtime/plan/writer.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>

namespace qwen {
namespace {

using namespace qwen::compiler;


constexpr CommandRow kCommands[] = {
#define COMMAND(...) {__VA_ARGS__},
#define FLAG(commands, name, type, ...)
#define EXAMPLE(...)
#include "tools/qwenc/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr FlagRow kFlags[] = {
#define COMMAND(...)
#define FLAG(commands, name, type, ...) {commands, name, FlagType::type, __VA_ARGS__},
#define EXAMPLE(...)
#include "tools/qwenc/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr ExampleRow kExamples[] = {
#define COMMAND(...)
#define FLAG(commands, name, type, ...)
#define EXAMPLE(...) {__VA_ARGS__},
#include "tools/qwenc/flags.def"
#undef COMMAND
#undef FLAG
#undef EXAMPLE
};
constexpr EnvironmentRow kEnvironment[] = {
    {"QWENC_NVRTC", "library to open as NVRTC instead of the CUDA toolkit's"},
    {"QWENC_PTXAS", "program to run as ptxas instead of the CUDA toolkit's"}};
constexpr FlagTable kTable = {"qwenc", "compiles hybrid Qwen models into plans that qwenrt runs", kCommands, kFlags,
                              kExamples, kEnvironment};

void print(const std::string &text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// Without --target a plan is for everything this machine can make one for. What it cannot is said once, not refused.
StatusOr<CompileResult> compileForAll(CompileOptions options) {
  Status why;
  if (StatusOr<const Nvrtc *> nvrtc = Nvrtc::open(); nvrtc.ok()) {
    options.targets = {"cpu", "sm_89"};
    StatusOr<CompileResult> both = compile(options);
    why = both.status();
    if (both.ok() || why.code() != StatusCode::kUnimplemented)
      return both;
  } else {
    why = nvrtc.status();
  }
  options.targets = {"cpu"};
  StatusOr<CompileResult> alone = compile(options);
  if (alone.ok()) // what no target can run is no matter of sm_89
    PrintWarning("qwenc", fmt::format("the plan is for the CPU alone: {}", why.message()));
  return alone;
}

Status runCompile(const Flags &flags) {
  if (!flags.HasValue("output"))
    return InvalidArgumentError("no output file", "name one with -o model.plan");
  CompileOptions options;
  options.configOrDir = flags.Argument(0);
  options.drafter = flags.Text("drafter");
  options.tokenizer = flags.Text("tokenizer");
  if (flags.Given("target")) {
    QWEN_ASSIGN_OR_RETURN(options.targets, ParseWords(flags.Text("target")));
  }
  if (flags.HasValue("dtype"))
    options.dtype = flags.Choice("dtype");
  options.pipeline.tp = flags.Int("tp");
  options.pipeline.moe = flags.Choice("moe");
  if (flags.HasValue("max-model-len"))
    options.maxModelLen = flags.Int("max-model-len");
  options.maxNumSeqs = flags.Int("max-num-seqs");
  options.maxNumBatchedTokens = flags.Int("max-num-batched-tokens");
  if (flags.HasValue("max-rows"))
    options.maxRows = flags.Int("max-rows");
  options.dumpDir = flags.Text("dump-ir");
  options.cacheDir = flags.Given("cache-dir") ? flags.Text("cache-dir") : PtxCache::defaultFolder();
  if (flags.HasValue("stop-after"))
    for (int stage = 0; stage < kNumStages; ++stage)
      if (flags.Choice("stop-after") == stageName(Stage(stage)))
        options.stopAfter = Stage(stage);

  const std::string &output = flags.Text("output");
  if (output == "-" && !options.stopAfter)
    return InvalidArgumentError("-o -: a plan is no text", "name a file, or stop after a stage with --stop-after");
  if (output != "-" && !flags.Bool("force") && std::filesystem::exists(output))
    return InvalidArgumentError(fmt::format("{}: is already there", output), "use --force to replace it");
  StatusOr<CompileResult> result = flags.Given("target") ? compile(options) : compileForAll(options);
  if (!result.ok())
    return result.status();
  for (const std::string &warning : result->warnings)
    PrintWarning("qwenc", warning);
  if (options.stopAfter) {
    if (output == "-")
      return print(result->ir), Status();
    return WriteFileAtomic(output, result->ir, flags.Bool("force"));
  }
  // The weights are looked for where the config was, seen from where the plan will be.
  std::error_code error;
  std::filesystem::path config = flags.Argument(0);
  if (!std::filesystem::is_directory(config, error))
    config = config.parent_path();
  std::filesystem::path folder = std::filesystem::proximate(
      std::filesystem::absolute(config, error), std::filesystem::absolute(output, error).parent_path(), error);
  result->plan.model.weights_dir = error ? "." : folder.lexically_normal().generic_string();
  return plan::WritePlan(result->plan, output, flags.Bool("force"));
}

plan::MemoryOptions memoryOptions(const plan::Plan &plan, const Flags &flags) {
  plan::MemoryOptions options;
  options.threads = flags.HasValue("threads") ? flags.Int("threads") : std::max(1, AvailableCores() / plan.tp);
  options.snapshot_bytes = flags.Size("state-cache-bytes");
  if (flags.HasValue("gpu-memory"))
    options.memory_bytes = flags.Size("gpu-memory");
  if (flags.HasValue("max-num-seqs"))
    options.max_num_seqs = flags.Int("max-num-seqs");
  if (flags.HasValue("max-model-len"))
    options.max_model_len = flags.Int("max-model-len");
  return options;
}

Status runInspectKernels(const plan::Plan &plan, const Flags &flags) {
  const Card *card = findCard(flags.Choice("gpu"));
  if (!card)
    return InternalError(fmt::format("--gpu: {} is in no table", flags.Choice("gpu")));
  const bool ptx = std::any_of(plan.kernels.begin(), plan.kernels.end(), [](const plan::Kernel &k) { return k.ptx >= 0; });
  CardFigures figures;
  if (ptx) {
    QWEN_ASSIGN_OR_RETURN(figures, figuresOn(*card, plan, PtxCache::defaultFolder()));
  }
  if (flags.Bool("json"))
    return print(plan::DumpKernelsJson(plan, figures.kernels)), Status();
  print(plan::DumpKernels(plan, figures.kernels));
  if (ptx)
    print(fmt::format("{}: {:.0f} GB/s, {:.0f} Tflop/s in bf16; {}\n", card->title, card->bytesPerSecond / 1e9,
                      card->flopsPerSecond / 1e12,
                      figures.ptxas.empty() ? "registers are unknown: no ptxas was found, install the CUDA toolkit 13"
                                            : fmt::format("registers for {} by ptxas {}", card->arch, figures.ptxas)));
  return {};
}

Status runInspect(const Flags &flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  bool json = flags.Bool("json");
  if (flags.Bool("memory")) {
    plan::MemoryOptions options = memoryOptions(plan, flags);
    QWEN_RETURN_IF_ERROR(plan::CheckCapacity(plan, options));
    print(json ? plan::DumpMemoryJson(plan, options) : plan::DumpMemory(plan, options));
    for (const std::string &target : plan.targets)
      QWEN_RETURN_IF_ERROR(plan::CheckFit(plan, target, options));
  } else if (flags.Bool("steps"))
    print(json ? plan::DumpStepsJson(plan) : plan::DumpSteps(plan));
  else if (flags.Bool("kernels"))
    return runInspectKernels(plan, flags);
  else
    print(json ? plan::DumpJson(plan) : plan::DumpSummary(plan));
  return {};
}

Status runVerify(const Flags &flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, plan::ReadPlan(flags.Argument(0)));
  if (flags.HasValue("against")) {
    QWEN_ASSIGN_OR_RETURN(plan::Checkpoint checkpoint, plan::OpenCheckpoint(flags.Text("against")));
    QWEN_ASSIGN_OR_RETURN(plan::WeightMap map, plan::ResolveWeights(plan, checkpoint));
    for (const std::string &warning : map.warnings)
      PrintWarning("qwenc", warning);
    print(fmt::format("{} weights found, {} tensors ignored\n", plan.weights.size(), map.ignored_tensors));
    return {};
  }
  VerifyOptions options{.seed = uint64_t(flags.Int("seed")), .cuda = flags.Choice("device") == "cuda",
                        .promptRows = int(flags.Int("prompt-rows")), .breakFamily = flags.Text("break-family")};
  if (flags.Given("isa"))
    options.isa = flags.Choice("isa");
  QWEN_ASSIGN_OR_RETURN(VerifyReport report, verifyPlan(plan, options));
  print(flags.Bool("json") ? report.json() : report.text());
  return report.status();
}

Status runDiff(const Flags &flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan a, plan::ReadPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(plan::Plan b, plan::ReadPlan(flags.Argument(1)));
  print(flags.Bool("json") ? plan::DiffJson(a, b) : plan::Diff(a, b));
  return {};
}

Status run(const Flags &flags) {
  if (flags.command() == "compile")
    return runCompile(flags);
  if (flags.command() == "inspect")
    return runInspect(flags);
  if (flags.command() == "verify")
    return runVerify(flags);
  return runDiff(flags);
}

std::vector<VersionField> versionFields() {
  std::vector<std::string> isas;
  for (kernels::Isa isa : kernels::kAllIsas)
    if (kernels::IsaSupported(isa))
      isas.emplace_back(kernels::IsaName(isa));
  return {{"plan_version", fmt::format("{}", plan::kPlanVersion), fmt::format("{}", plan::kPlanVersion)},
          {"cpu", fmt::format("{}", fmt::join(isas, " ")), fmt::format("[\"{}\"]", fmt::join(isas, "\", \""))}};
}

} // namespace
} // namespace qwen

int main(int argc, char **argv) {
  return qwen::RunTool({.table = qwen::kTable, .body = qwen::run, .version = qwen::versionFields}, argc, argv);
}
