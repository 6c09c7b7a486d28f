//===- FuseGatedDeltaNet.cpp - convolution to recurrence ------------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEGATEDDELTANET
#include "passes/Passes.h.inc"

namespace {

struct Mixer : FusionPattern<GatedDeltaRuleOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(GatedDeltaRuleOp rule, PatternRewriter &rewriter) const override {
    auto queries = rule.getQ().getDefiningOp<L2NormOp>();
    auto keys = rule.getK().getDefiningOp<L2NormOp>();
    if (!queries || !keys)
      return rewriter.notifyMatchFailure(rule, "q and k are not both from a model.l2_norm");
    auto split = rule.getV().getDefiningOp<SplitOp>();
    if (!split || queries.getX().getDefiningOp() != split || keys.getX().getDefiningOp() != split)
      return rewriter.notifyMatchFailure(rule, "q, k and v are not parts of one model.split");
    auto conv = split.getX().getDefiningOp<CausalConv1dOp>();
    if (!conv)
      return rewriter.notifyMatchFailure(split, "cuts something else than the rows of a model.causal_conv1d");
    if (stateNameOf(conv.getState()) != stateNameOf(rule.getState()))
      return rewriter.notifyMatchFailure(conv, "has another state than the rule");
    auto gates = rule.getBeta().getDefiningOp<DeltaGatesOp>();
    if (!gates || rule.getG().getDefiningOp() != gates)
      return rewriter.notifyMatchFailure(rule, "beta and g are not from one model.delta_gates");
    SmallVector<Operation *> members{conv, split, queries, keys, gates, rule};
    for (Operation *op : ArrayRef(members).drop_back())
      if (!isReadOnlyBy(op, members))
        return rewriter.notifyMatchFailure(op, "is read from outside the mixer");
    return formDispatch(rewriter, "gdn", members, rule);
  }
};

struct FuseGatedDeltaNet : impl::FuseGatedDeltaNetBase<FuseGatedDeltaNet> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<Mixer>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
