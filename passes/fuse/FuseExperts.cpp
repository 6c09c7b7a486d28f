//===- FuseExperts.cpp - routed experts, shared expert, combine -----------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEEXPERTS
#include "passes/Passes.h.inc"

namespace {

struct SharedExpert : FusionPattern<CombineOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(CombineOp combine, PatternRewriter &rewriter) const override {
    auto experts = combine.getRouted().getDefiningOp<ExpertsOp>();
    if (!experts)
      return rewriter.notifyMatchFailure(combine, "the routed rows are not from model.experts");
    auto down = combine.getShared().getDefiningOp<LinearOp>();
    auto scalar = combine.getGate().getDefiningOp<LinearOp>();
    auto product = down ? down.getX().getDefiningOp<SiluMulOp>() : SiluMulOp();
    auto gate = product ? product.getGate().getDefiningOp<LinearOp>() : LinearOp();
    auto up = product ? product.getUp().getDefiningOp<LinearOp>() : LinearOp();
    if (!gate || !up || !scalar)
      return rewriter.notifyMatchFailure(combine,
                                         "the shared rows are not linear, silu_mul, linear with a linear gate");
    for (LinearOp linear : {gate, up, scalar})
      if (linear.getX() != experts.getX())
        return rewriter.notifyMatchFailure(linear, "reads other rows than the routed experts");
    SmallVector<Operation *> members{experts, gate, up, product, down, scalar, combine};
    for (Operation *op : ArrayRef(members).drop_back())
      if (!isReadOnlyBy(op, members))
        return rewriter.notifyMatchFailure(op, "is read from outside the experts");
    return formDispatch(rewriter, "experts", members, experts);
  }
};

struct FuseExperts : impl::FuseExpertsBase<FuseExperts> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<SharedExpert>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
