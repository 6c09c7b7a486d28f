//===- Pipelines.cpp - the order of the fusions ---------------------------===//

#include "passes/Passes.h"

#include "mlir/Pass/PassRegistry.h"

using namespace mlir;

namespace qwen::passes {

void buildFusePipeline(OpPassManager &manager, bool explain) {
  OpPassManager &program = manager.nest<func::FuncOp>();

  // What a collective can take goes first: a norm behind a sum is computed where the sum arrives.
  program.addPass(createFuseAllReduce({explain}));

  // The mixture of experts, before anything that only sees linears which share an input.
  program.addPass(createFuseExperts({explain}));
  program.addPass(createFuseRouter({explain}));

  // The mixers.
  program.addPass(createFuseGatedDeltaNet({explain}));
  program.addPass(createFuseAttention({explain}));

  // Linears: merge those of one input, then grow in front and behind.
  program.addPass(createFuseGateUp({explain}));
  program.addPass(createFuseInputProjections({explain}));
  program.addPass(createFuseGatedNormOut({explain}));
  program.addPass(createFuseNormLinear({explain}));
  program.addPass(createFuseResidual({explain}));

  // The end of the program, and the norms that found nothing better.
  program.addPass(createFuseLmHead({explain}));
  program.addPass(createFuseAddRMSNorm({explain}));
  program.addPass(createDispatchRemaining());
}

void registerQwenPipelines() {
  struct Options : PassPipelineOptions<Options> {
    Option<bool> explain{*this, "explain", llvm::cl::desc("make every refusal a remark"), llvm::cl::init(false)};
  };
  PassPipelineRegistration<Options>(
      "fuse", "Every fusion in order, then dispatch-remaining",
      [](OpPassManager &manager, const Options &options) { buildFusePipeline(manager, options.explain); });
}

} // namespace qwen::passes
