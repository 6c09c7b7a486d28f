//===- FuseLmHead.cpp - row choice, final norm, logits, next token --------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSELMHEAD
#include "passes/Passes.h.inc"

namespace {

struct Head : FusionPattern<LmHeadOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(LmHeadOp head, PatternRewriter &rewriter) const override {
    SmallVector<Operation *> members{head};
    bool hasNorm = false, hasRows = false;
    for (Operation *op = head.getX().getDefiningOp(); op; op = op->getOperand(0).getDefiningOp()) {
      bool &taken = isa<RMSNormOp>(op) ? hasNorm : hasRows;
      if (!isa<RMSNormOp, LogitRowsOp>(op) || taken)
        break;
      if (!op->hasOneUse()) {
        (void)rewriter.notifyMatchFailure(op, "stays outside the head: something else reads its rows");
        break;
      }
      taken = true;
      members.push_back(op);
    }
    for (Operation *reader : head->getUsers())
      if (isa<SampleOp>(reader))
        members.push_back(reader);
    return formDispatch(rewriter, "lm_head", members, head);
  }
};

struct FuseLmHead : impl::FuseLmHeadBase<FuseLmHead> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<Head>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
