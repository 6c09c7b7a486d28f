//===- FuseAllReduce.cpp - sum over the ranks, residual add, next norm ----===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEALLREDUCE
#include "passes/Passes.h.inc"

namespace {

struct AddAndNorm : FusionPattern<AllReduceOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(AllReduceOp sum, PatternRewriter &rewriter) const override {
    if (!sum->hasOneUse())
      return rewriter.notifyMatchFailure(sum, "something else than one residual add reads the sum");
    auto add = dyn_cast<AddOp>(*sum->user_begin());
    if (!add || add.getX() != sum.getY())
      return rewriter.notifyMatchFailure(sum, "no residual add reads the sum");
    SmallVector<Operation *> members{sum, add};
    for (Operation *reader : add->getUsers()) // the last of them is the first in the block
      if (auto norm = dyn_cast<RMSNormOp>(reader); norm && norm.getX() == add.getY())
        if (members.size() == 2 || norm->isBeforeInBlock(members.back())) {
          members.truncate(2);
          members.push_back(norm);
        }
    return formDispatch(rewriter, "all_reduce", members, sum);
  }
};

struct FuseAllReduce : impl::FuseAllReduceBase<FuseAllReduce> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<AddAndNorm>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
