//===- FuseGatedNormOut.cpp - gated norm and output projection ------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEGATEDNORMOUT
#include "passes/Passes.h.inc"

namespace {

struct GatedNormAndLinear : FusionPattern<GatedRMSNormOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(GatedRMSNormOp norm, PatternRewriter &rewriter) const override {
    if (!norm->hasOneUse())
      return rewriter.notifyMatchFailure(norm, "has not one reader: its rows must exist anyway");
    auto linear = dyn_cast<LinearOp>(*norm->user_begin());
    if (!linear)
      return rewriter.notifyMatchFailure(norm, "its reader is no model.linear");
    return formDispatch(rewriter, "linear", {norm, linear}, linear);
  }
};

struct FuseGatedNormOut : impl::FuseGatedNormOutBase<FuseGatedNormOut> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<GatedNormAndLinear>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
