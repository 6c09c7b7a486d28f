//===- Pipeline.h - the whole compiler between import and emit ------------===//

#ifndef QWEN_COMPILER_PIPELINE_PIPELINE_H
#define QWEN_COMPILER_PIPELINE_PIPELINE_H

#include "mlir/Pass/PassManager.h"

#include <cstdint>
#include <string>

namespace qwen::compiler {

enum class Stage {
#define QWEN_STAGE(name, what) name,
#include "compiler/pipeline/Stages.def"
};
inline constexpr int kNumStages = 0
#define QWEN_STAGE(name, what) +1
#include "compiler/pipeline/Stages.def"
    ;
llvm::StringRef stageName(Stage stage);

struct PipelineOptions {
  int64_t tp = 1;
  std::string moe = "tp";       // tp: every rank holds a part of each expert; ep: whole experts
  std::vector<std::string> targets = {"cpu"};
  int64_t dropCollective = 0;   // test hook of the shard pass
};

/// Adds the passes that lead to `stage` from the one before it, and the check that the stage is reached.
void addStage(mlir::PassManager &manager, Stage stage, const PipelineOptions &options);

} // namespace qwen::compiler

#endif
