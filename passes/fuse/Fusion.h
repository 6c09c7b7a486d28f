//===- Fusion.h - what all fusions share ----------------------------------===//
//
// A fusion chooses ops; forming the region is the same for all: move the ops into one kernel.dispatch, hand in what
// they read from outside in the order they read it, hand out what others read. A chosen op may itself be a dispatch:
// its region is then poured into the new one, so that fusions extend one another.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_FUSE_FUSION_H
#define QWEN_PASSES_FUSE_FUSION_H

#include "dialects/kernel/KernelDialect.h"
#include "dialects/model/ModelDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/PatternMatch.h"

namespace qwen::passes {

/// Replaces `members` by one dispatch to `family`; `principal`, one of them, names its origin. Refuses, and says why,
/// when no place fits: every input must exist before the first reader of a result, nothing in between may touch a
/// state of a member, and no member may cross a collective.
mlir::FailureOr<ir::kernel::DispatchOp> formDispatch(mlir::PatternRewriter &rewriter, mlir::StringRef family,
                                                     mlir::ArrayRef<mlir::Operation *> members,
                                                     mlir::Operation *principal);

/// `op` belongs to a program's body, not to a dispatch.
inline bool isUndispatched(mlir::Operation *op) { return mlir::isa_and_nonnull<mlir::func::FuncOp>(op->getParentOp()); }

/// The op inside `dispatch` that makes its result `result`.
mlir::Operation *innerProducer(mlir::OpResult result);

/// `dispatch` is one, and to `family`.
bool hasFamily(ir::kernel::DispatchOp dispatch, mlir::StringRef family);

/// Every reader of the results of `op` is in `members`.
bool isReadOnlyBy(mlir::Operation *op, mlir::ArrayRef<mlir::Operation *> members);

/// The name of the state that `handle` stands for; empty when it is not from a model.state.
mlir::StringRef stateNameOf(mlir::Value handle);

/// A pattern rooted at an undispatched op. `fuse` either rewrites or says by notifyMatchFailure why not.
template <class OpT> struct FusionPattern : mlir::OpRewritePattern<OpT> {
  using mlir::OpRewritePattern<OpT>::OpRewritePattern;
  virtual mlir::LogicalResult fuse(OpT op, mlir::PatternRewriter &rewriter) const = 0;
  mlir::LogicalResult matchAndRewrite(OpT op, mlir::PatternRewriter &rewriter) const final {
    return isUndispatched(op) ? fuse(op, rewriter) : mlir::failure();
  }
};

/// Applies `patterns` to a program until none fits. With `explain` every refusal is a remark at the op, once.
mlir::LogicalResult applyFusions(mlir::func::FuncOp program, mlir::RewritePatternSet patterns, bool explain);

template <class... Patterns> mlir::LogicalResult applyFusions(mlir::func::FuncOp program, bool explain) {
  mlir::RewritePatternSet patterns(program.getContext());
  patterns.add<Patterns...>(program.getContext());
  return applyFusions(program, std::move(patterns), explain);
}

} // namespace qwen::passes

#endif
