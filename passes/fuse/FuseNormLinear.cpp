//===- FuseNormLinear.cpp - a norm into the linears behind it -------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSENORMLINEAR
#include "passes/Passes.h.inc"

namespace {

struct NormAndLinears : FusionPattern<RMSNormOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(RMSNormOp norm, PatternRewriter &rewriter) const override {
    if (!norm->hasOneUse())
      return rewriter.notifyMatchFailure(norm, "has not one reader: its rows must exist anyway");
    OpOperand &use = *norm->use_begin();
    Operation *reader = use.getOwner();
    if (isa<LinearOp>(reader))
      return formDispatch(rewriter, "linear", {norm, reader}, reader);
    auto dispatch = dyn_cast<kernel::DispatchOp>(reader);
    if (!hasFamily(dispatch, "linear"))
      return rewriter.notifyMatchFailure(norm, "its reader is no linear");
    for (Operation *inside : dispatch.block().getArgument(use.getOperandNumber()).getUsers())
      if (!isa<LinearOp>(inside))
        return rewriter.notifyMatchFailure(norm, "an epilogue reads the norm: the kernel keeps no copy of it");
    return formDispatch(rewriter, "linear", {norm, dispatch}, dispatch);
  }
};

struct FuseNormLinear : impl::FuseNormLinearBase<FuseNormLinear> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<NormAndLinears>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
