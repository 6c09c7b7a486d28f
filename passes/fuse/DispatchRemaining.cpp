//===- DispatchRemaining.cpp - a dispatch for every op that is left -------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_DISPATCHREMAINING
#include "passes/Passes.h.inc"

namespace {

/// The family that names a single op, in the words of contracts section 7.
StringRef familyOf(Operation *op) {
  return llvm::TypeSwitch<Operation *, StringRef>(op)
      .Case<EmbedOp>([](auto) { return "embed"; })
      .Case<RMSNormOp>([](auto) { return "rms_norm"; })
      .Case<LinearOp>([](auto) { return "linear"; })
      .Case<CausalConv1dOp, L2NormOp, DeltaGatesOp, GatedDeltaRuleOp>([](auto) { return "gdn"; })
      .Case<QKNormOp, RopeOp, KvAppendOp, AttentionOp>([](auto) { return "attention"; })
      .Case<RouterOp>([](auto) { return "router"; })
      .Case<ExpertsOp>([](auto) { return "experts"; })
      .Case<LmHeadOp, SampleOp>([](auto) { return "lm_head"; })
      .Case<AllReduceOp, AllGatherOp>([](auto) { return "all_reduce"; })
      .Default([](auto) { return "elementwise"; });
}

struct DispatchRemaining : impl::DispatchRemainingBase<DispatchRemaining> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<Operation *> left;
    for (Operation &op : getOperation().getOps())
      if (isa<ModelDialect>(op.getDialect()) && !isa<WeightOp, StateOp>(op))
        left.push_back(&op);
    PatternRewriter rewriter(&getContext());
    for (Operation *op : left)
      if (failed(formDispatch(rewriter, familyOf(op), {op}, op))) {
        op->emitOpError("cannot be dispatched alone");
        return signalPassFailure();
      }
  }
};

} // namespace
} // namespace qwen::passes
