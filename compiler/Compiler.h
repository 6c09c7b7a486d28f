//===- Compiler.h - the facade qwenc and the tests call -------------------===//

#ifndef QWEN_COMPILER_COMPILER_H
#define QWEN_COMPILER_COMPILER_H

#include "compiler/pipeline/Pipeline.h"
#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

struct CompileOptions {
  std::string configOrDir;           // config.json, or the checkpoint folder that holds it
  std::string drafter;               // the same for a drafter; "" none
  std::string tokenizer;             // folder of tokenizer.json and the chat template; "": the config's
  std::vector<std::string> targets = {"cpu"}; // cpu, sm_89
  std::optional<std::string> dtype;  // f32 or bf16; the config's when absent
  PipelineOptions pipeline;          // ranks; its targets are set from those above
  int64_t maxModelLen = 0;           // tokens; 0: the config's
  int64_t maxNumSeqs = 16;
  int64_t maxNumBatchedTokens = 2048;
  int64_t maxRows = 0;               // rows of a short sequence; 0: by the model (contracts, section 3)
  std::optional<Stage> stopAfter;
  std::string dumpDir;               // "": none; else 01-import.mlir, 02-shard.mlir, ..., kernels/NAME.cu
  std::string cacheDir;              // of PTX; "": none
};

struct CompileResult {
  plan::Plan plan;                    // complete when no --stop-after was given
  std::string ir;                     // the module as text after --stop-after
  std::vector<std::string> warnings;  // each one line
  int compiledKernels = 0, cachedKernels = 0; // of PTX
};

/// Options in, plan or status out. Opens the config (and the drafter's) and no weight file. The same options and files
/// give the same plan, whatever folder, locale or number of threads.
StatusOr<CompileResult> compile(const CompileOptions &options);

} // namespace qwen::compiler

#endif
