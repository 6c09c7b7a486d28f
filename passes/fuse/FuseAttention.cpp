//===- FuseAttention.cpp - query split to output gate, with the cache write ===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEATTENTION
#include "passes/Passes.h.inc"

namespace {

/// Adds the norm and the rotation that lie before `heads` to `members`, as far as nothing else reads them. Gives what
/// they start from.
Value takeNormAndRope(Value heads, SmallVectorImpl<Operation *> &members) {
  if (auto rope = heads.getDefiningOp<RopeOp>(); rope && rope->hasOneUse()) {
    members.push_back(rope);
    heads = rope.getX();
  }
  if (auto norm = heads.getDefiningOp<QKNormOp>(); norm && norm->hasOneUse()) {
    members.push_back(norm);
    heads = norm.getX();
  }
  return heads;
}

/// The ops of `OpT` in the block of `op` whose cache is the state `name`.
template <class OpT> SmallVector<OpT> usersOfState(Operation *op, StringRef name) {
  SmallVector<OpT> users;
  for (auto user : op->getBlock()->getOps<OpT>())
    if (stateNameOf(user.getCache()) == name)
      users.push_back(user);
  return users;
}

struct Mixer : FusionPattern<AttentionOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(AttentionOp attention, PatternRewriter &rewriter) const override {
    auto appends = usersOfState<KvAppendOp>(attention, stateNameOf(attention.getCache()));
    if (appends.size() != 1)
      return rewriter.notifyMatchFailure(
          attention, [&](Diagnostic &why) { why << appends.size() << " ops append to its cache, a region takes one"; });
    if (!appends.front()->isBeforeInBlock(attention))
      return rewriter.notifyMatchFailure(appends.front(), "appends to the cache only after the attention");
    SmallVector<Operation *> members{attention, appends.front()};
    takeNormAndRope(appends.front().getK(), members);
    Value queries = takeNormAndRope(attention.getQ(), members);

    SigmoidGateOp gated;
    if (attention->hasOneUse())
      gated = dyn_cast<SigmoidGateOp>(*attention->user_begin());
    if (gated && gated.getX() == attention.getY())
      members.push_back(gated);
    if (auto split = queries.getDefiningOp<SplitOp>(); split && isReadOnlyBy(split, members))
      members.push_back(split);
    return formDispatch(rewriter, "attention", members, attention);
  }
};

/// A drafter's context program writes keys and values that another program attends to.
struct CacheWrite : FusionPattern<KvAppendOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(KvAppendOp append, PatternRewriter &rewriter) const override {
    if (!usersOfState<AttentionOp>(append, stateNameOf(append.getCache())).empty())
      return rewriter.notifyMatchFailure(append, "belongs to the attention that reads its cache");
    SmallVector<Operation *> members{append};
    takeNormAndRope(append.getK(), members);
    return formDispatch(rewriter, "attention", members, append);
  }
};

struct FuseAttention : impl::FuseAttentionBase<FuseAttention> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<Mixer, CacheWrite>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
