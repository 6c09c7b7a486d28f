//===- FuseInputProjections.cpp - linears of the same rows ----------------===//

#include "passes/Passes.h"
#include "passes/fuse/Fusion.h"
#include "runtime/kernels/linear/linear.h"

#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace qwen::ir::model;

namespace qwen::passes {
#define GEN_PASS_DEF_FUSEINPUTPROJECTIONS
#include "passes/Passes.h.inc"

namespace {

struct SameRows : FusionPattern<LinearOp> {
  using FusionPattern::FusionPattern;

  LogicalResult fuse(LinearOp linear, PatternRewriter &rewriter) const override {
    llvm::SmallSetVector<Operation *, 4> linears;
    for (Operation *reader : linear.getX().getUsers())
      if (auto other = dyn_cast<LinearOp>(reader); other && other.getX() == linear.getX())
        linears.insert(other);
    if (linears.size() == 1)
      return rewriter.notifyMatchFailure(linear, "no other linear reads its rows");
    SmallVector<Operation *> members(linears.begin(), linears.end());
    llvm::sort(members, [](Operation *a, Operation *b) { return a->isBeforeInBlock(b); });
    // A drafter's context has two projections a layer, all of the same rows: they go in groups the kernel can take.
    if (members.size() > size_t(kernels::kMaxLinearOutputs))
      members.truncate(kernels::kMaxLinearOutputs);
    return formDispatch(rewriter, "linear", members, members.front());
  }
};

struct FuseInputProjections : impl::FuseInputProjectionsBase<FuseInputProjections> {
  using Base::Base;
  void runOnOperation() override {
    if (failed(applyFusions<SameRows>(getOperation(), explain)))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
