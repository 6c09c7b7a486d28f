//===- FuseAddRMSNorm.cpp - residual add and norm -------------------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEADDRMSNORM
#include "passes/Passes.h.inc"

namespace {

struct AddAndNorm : FusionPattern<RMSNormOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(RMSNormOp norm, PatternRewriter &rewriter) const override {
    auto add = norm.getX().getDefiningOp<AddOp>();
    if (!add)
      return rewriter.notifyMatchFailure(norm, "x is not a model.add");
    return formDispatch(rewriter, "rms_norm", {add, norm}, norm);
  }
};

struct FuseAddRMSNorm : impl::FuseAddRMSNormBase<FuseAddRMSNorm> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<AddAndNorm>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
