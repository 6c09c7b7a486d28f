//===- Pipeline.cpp - the whole compiler on one screen --------------------===//

#include "compiler/pipeline/Pipeline.h"

#include "passes/Passes.h"

#include "mlir/Transforms/Passes.h"

using namespace mlir;

namespace qwen::compiler {

StringRef stageName(Stage stage) {
  static constexpr StringRef kNames[] = {
#define QWEN_STAGE(name, what) #name,
#include "compiler/pipeline/Stages.def"
  };
  return kNames[static_cast<int>(stage)];
}

void addStage(PassManager &manager, Stage stage, const PipelineOptions &options) {
  switch (stage) {
  case Stage::import:
    break; // the importer has built it
  case Stage::shard:
    // Before any fusion: a rank's share is decided on single ops, and no fusion may cross a collective.
    manager.addPass(passes::createShardTensorParallel(
        {.tp = options.tp, .moe = options.moe, .dropCollective = options.dropCollective}));
    // The CPU computes in f32 whatever the weights are; a region must say what its kernel does.
    manager.addPass(passes::createWidenActivations());
    break;
  case Stage::fuse:
    // Regions keep the ops they replace, so everything after this can still be interpreted.
    passes::buildFusePipeline(manager);
    break;
  case Stage::select:
    manager.addPass(passes::createSelectKernels({llvm::SmallVector<std::string>(options.targets.begin(), options.targets.end())}));
    break;
  case Stage::memory:
    // Last: only now is it known which buffers there are and what each kernel needs beside them.
    manager.addPass(passes::createPlanMemory());
    break;
  }
  manager.addPass(passes::createVerifyStage({stageName(stage).str()}));
}

} // namespace qwen::compiler
