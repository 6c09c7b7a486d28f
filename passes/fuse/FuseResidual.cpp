//===- FuseResidual.cpp - the residual add as an epilogue -----------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSERESIDUAL
#include "passes/Passes.h.inc"

namespace {

struct Epilogue : FusionPattern<AddOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(AddOp add, PatternRewriter &rewriter) const override {
    Operation *producer = add.getX().getDefiningOp();
    if (isa_and_nonnull<AllReduceOp>(producer))
      return rewriter.notifyMatchFailure(add, "x is summed over the ranks after its projection");
    if (!isa_and_nonnull<LinearOp, ExpertsOp, kernel::DispatchOp>(producer))
      return rewriter.notifyMatchFailure(add, "x is from neither a linear nor experts");
    Operation *last = producer;
    StringRef family = isa<ExpertsOp>(producer) ? "experts" : "linear";
    if (auto dispatch = dyn_cast<kernel::DispatchOp>(producer)) {
      family = dispatch.getFamily();
      if (family != "linear" && family != "experts")
        return rewriter.notifyMatchFailure(add, "x is from neither a linear nor experts");
      if (dispatch->getNumResults() != 1)
        return rewriter.notifyMatchFailure(dispatch, "gives several results: an epilogue takes one");
      last = innerProducer(dispatch->getResult(0));
      if (!isa_and_nonnull<LinearOp, ExpertsOp, CombineOp>(last))
        return rewriter.notifyMatchFailure(dispatch, "ends in an epilogue already");
    }
    if (!producer->hasOneUse())
      return rewriter.notifyMatchFailure(producer, "something else than the residual add reads the projection");
    return formDispatch(rewriter, family, {producer, add}, producer);
  }
};

struct FuseResidual : impl::FuseResidualBase<FuseResidual> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<Epilogue>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
