//===- FuseGateUp.cpp - gate and up projections, silu_mul -----------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEGATEUP
#include "passes/Passes.h.inc"

namespace {

struct GateAndUp : FusionPattern<SiluMulOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(SiluMulOp product, PatternRewriter &rewriter) const override {
    auto gate = product.getGate().getDefiningOp<LinearOp>();
    auto up = product.getUp().getDefiningOp<LinearOp>();
    if (!gate || !up)
      return rewriter.notifyMatchFailure(product, "gate and up are not both from a model.linear");
    if (gate.getX() != up.getX())
      return rewriter.notifyMatchFailure(product, "gate and up read different rows");
    for (LinearOp linear : {gate, up})
      if (!isReadOnlyBy(linear, {product}))
        return rewriter.notifyMatchFailure(linear, "something else than the product reads the projection");
    return formDispatch(rewriter, "linear", {gate, up, product}, gate);
  }
};

struct FuseGateUp : impl::FuseGateUpBase<FuseGateUp> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<GateAndUp>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
