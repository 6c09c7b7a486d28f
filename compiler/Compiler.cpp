//===- Compiler.cpp - import, five stages, emit ---------------------------===//

#include "compiler/Compiler.h"

#include "compiler/codegen/CompileKernels.h"
#include "compiler/emit/EmitPlan.h"
#include "compiler/import/Import.h"
#include "compiler/import/Text.h"
#include "passes/Passes.h"
#include "runtime/base/file.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/IR/Diagnostics.h"

#include <filesystem>
#include <fmt/format.h>

using namespace mlir;
namespace model = qwen::ir::model;

namespace qwen::compiler {
namespace {

// Keeps the first error of a run of passes; its first note is what the user can do.
class FirstError {
public:
  explicit FirstError(MLIRContext *context) : handler(context, [this](Diagnostic &diagnostic) {
    if (diagnostic.getSeverity() == DiagnosticSeverity::Error && message.empty()) {
      message = diagnostic.str();
      for (Diagnostic &note : diagnostic.getNotes())
        hint = hint.empty() ? note.str() : hint;
    }
    return success();
  }) {}
  std::string message, hint;

private:
  ScopedDiagnosticHandler handler;
};

std::string printed(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream, OpPrintingFlags().useLocalScope());
  stream << '\n';
  return text;
}

// Logits are kept for every row of a step where that is cheap, and for every row a full verify batch can want always.
// Who wants more rows (perplexity, logits) feeds smaller chunks: at some 64 rows a chunk costs arithmetic, not reading.
int64_t logitRows(const CompileOptions &options, int64_t maxRows, int64_t vocab) {
  constexpr int64_t kCheapBytes = int64_t{64} << 20;
  int64_t cheap = kCheapBytes / (vocab * 4);
  return std::min(options.maxNumBatchedTokens, std::max(options.maxNumSeqs * maxRows, cheap));
}

// Where a kernel of the plan is used: the op it stands for first.
std::string placesOf(const plan::Plan &plan, size_t kernel) {
  std::string first;
  int others = -1;
  for (const plan::Program &program : plan.programs)
    for (const plan::Step &step : program.steps)
      if (size_t(step.kernel) == kernel && ++others == 0)
        first = fmt::format("program {}, {}", program.name, step.origin);
  return others > 0 ? fmt::format("{} and {} more", first, others) : first;
}

// The targets, and NVRTC where one of them needs it.
StatusOr<std::vector<std::string>> chooseTargets(const CompileOptions &options, const Nvrtc **nvrtc) {
  *nvrtc = nullptr;
  std::vector<std::string> targets;
  for (const std::string &target : options.targets) {
    if (target != "cpu" && target != "sm_89")
      return InvalidArgumentError(fmt::format("--target={}: is neither cpu nor sm_89", target));
    if (llvm::is_contained(targets, target))
      return InvalidArgumentError(fmt::format("--target: {} is there twice", target));
    targets.push_back(target);
    if (target == "sm_89") {
      StatusOr<const Nvrtc *> opened = Nvrtc::open();
      if (!opened.ok())
        return Status(opened.status()).Annotate("--target=sm_89");
      *nvrtc = *opened;
    }
  }
  return targets;
}

} // namespace

StatusOr<CompileResult> compile(const CompileOptions &options) {
  CompileResult result;
  const Nvrtc *nvrtc = nullptr;
  PipelineOptions pipeline = options.pipeline;
  QWEN_ASSIGN_OR_RETURN(pipeline.targets, chooseTargets(options, &nvrtc));

  MLIRContext context(MLIRContext::Threading::DISABLED); // one order of everything, and no pool to start
  context.loadDialect<func::FuncDialect, model::ModelDialect, ir::kernel::KernelDialect, ir::plan::PlanDialect>();
  context.printOpOnDiagnostic(false); // one line for the user; qwen-opt prints the op
  QWEN_ASSIGN_OR_RETURN(std::string configPath, resolveConfigPath(options.configOrDir));
  ImportOptions importOptions{.dtype = options.dtype, .maxModelLen = options.maxModelLen, .maxRows = options.maxRows,
                              .drafterPath = options.drafter};
  QWEN_ASSIGN_OR_RETURN(OwningOpRef<ModuleOp> module,
                        importModel(context, options.configOrDir, importOptions, result.warnings));

  // A drafter's block is as long as it likes: only what may be rolled back needs room in the recurrent state.
  int64_t maxRows = 1;
  for (auto program : module->getOps<func::FuncOp>())
    if (program->getAttrOfType<StringAttr>(model::kProgramAttr).getValue() == "verify")
      maxRows = program->getAttrOfType<IntegerAttr>(model::kMaxRowsAttr).getInt();
  int64_t vocab = (*module)->getAttrOfType<DictionaryAttr>("model.dims").getAs<IntegerAttr>("vocab").getInt();
  if (options.maxNumBatchedTokens < options.maxNumSeqs * maxRows)
    return InvalidArgumentError(
        fmt::format("--max-num-batched-tokens={}: {} sequences of {} rows need {}", options.maxNumBatchedTokens,
                    options.maxNumSeqs, maxRows, options.maxNumSeqs * maxRows),
        "lower --max-num-seqs or --max-rows");
  Builder builder(&context);
  auto number = [&](StringRef name, int64_t value) {
    return builder.getNamedAttr(name, builder.getI64IntegerAttr(value));
  };
  (*module)->setAttr("plan.capacity",
                     builder.getDictionaryAttr({number("max_num_seqs", options.maxNumSeqs),
                                                number("max_num_batched_tokens", options.maxNumBatchedTokens),
                                                number("max_rows", maxRows),
                                                number("max_logit_rows", logitRows(options, maxRows, vocab))}));

  std::vector<uint8_t> bytecode;
  for (int index = 0; index < kNumStages; ++index) {
    Stage stage = static_cast<Stage>(index);
    PassManager manager(&context);
    addStage(manager, stage, pipeline);
    FirstError error(&context);
    if (failed(manager.run(*module))) {
      // A config the importer took and a pass refuses is a model we do not run, unless the check between stages spoke.
      if (error.message.empty())
        return InternalError(fmt::format("stage {} failed without a word", stageName(stage).str()));
      return UnimplementedError(fmt::format("{}: {}", configPath, error.message), error.hint);
    }
    if (!options.dumpDir.empty())
      QWEN_RETURN_IF_ERROR(WriteFileAtomic(
          fmt::format("{}/{:02}-{}.mlir", options.dumpDir, index + 1, stageName(stage).str()), printed(*module), true));
    if (options.stopAfter == stage) {
      result.ir = printed(*module);
      return result;
    }
    if (stage == Stage::select) {
      // What `qwenc verify` interprets. Locations name files of this machine, so they stay behind.
      OwningOpRef<ModuleOp> copy(module->clone());
      copy->walk([&](Operation *op) { op->setLoc(UnknownLoc::get(&context)); });
      std::string bytes;
      llvm::raw_string_ostream stream(bytes);
      if (failed(writeBytecodeToFile(*copy, stream, BytecodeWriterConfig("qwenc"))))
        return InternalError("the module could not be written as bytecode");
      bytecode.assign(bytes.begin(), bytes.end());
    }
  }

  QWEN_ASSIGN_OR_RETURN(result.plan, emitPlan(*module));
  if (nvrtc) {
    size_t failed = 0;
    StatusOr<KernelFigures> figures = compileKernels(
        result.plan, *nvrtc,
        {.cacheDir = options.cacheDir, .dumpDir = options.dumpDir.empty() ? "" : options.dumpDir + "/kernels"}, &failed);
    if (!figures.ok())
      return Status(figures.status()).Annotate(placesOf(result.plan, failed));
    result.compiledKernels = figures->compiled;
    result.cachedKernels = figures->cached;
  }
  constexpr size_t kMaxConfigBytes = 16 << 20; // the importer has read it within its own limit
  QWEN_ASSIGN_OR_RETURN(std::string config, ReadFile(configPath, kMaxConfigBytes));
  result.plan.blobs.push_back({plan::BlobKind::kIr, std::move(bytecode)});
  result.plan.blobs.push_back({plan::BlobKind::kConfig, {config.begin(), config.end()}});
  QWEN_RETURN_IF_ERROR(readText(
      options.tokenizer.empty() ? std::filesystem::path(configPath).parent_path().string() : options.tokenizer,
      result.plan));
  return result;
}

} // namespace qwen::compiler
