//===- FuseRouter.cpp - norm and router -----------------------------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEROUTER
#include "passes/Passes.h.inc"

namespace {

struct NormAndRouter : FusionPattern<RouterOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(RouterOp router, PatternRewriter &rewriter) const override {
    auto norm = router.getX().getDefiningOp<RMSNormOp>();
    if (!norm)
      return rewriter.notifyMatchFailure(router, "x is not a model.rms_norm");
    return formDispatch(rewriter, "router", {norm, router}, router);
  }
};

struct FuseRouter : impl::FuseRouterBase<FuseRouter> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<NormAndRouter>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
