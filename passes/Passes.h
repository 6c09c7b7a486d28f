//===- Passes.h - every pass, and the pipelines they form -----------------===//
//
// Passes.td is the table of contents: one entry a pass, in pipeline order, with before and after.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_PASSES_H
#define QWEN_PASSES_PASSES_H

#include "dialects/kernel/KernelDialect.h"
#include "dialects/model/ModelDialect.h"
#include "dialects/plan/PlanDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassManager.h"

#include <memory>

namespace qwen::passes {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"

/// The fusions in their order (see Passes.td), then `dispatch-remaining`. Runs on a module. `explain` makes every
/// refusal a remark at the op.
void buildFusePipeline(mlir::OpPassManager &manager, bool explain = false);

/// Makes the pipelines known to qwen-opt by name: `fuse`.
void registerQwenPipelines();

} // namespace qwen::passes

#endif
