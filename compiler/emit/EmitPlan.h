//===- EmitPlan.h - plan dialect to plan file -----------------------------===//

#ifndef QWEN_COMPILER_EMIT_EMITPLAN_H
#define QWEN_COMPILER_EMIT_EMITPLAN_H

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

#include "mlir/IR/BuiltinOps.h"

namespace qwen::compiler {

/// Reads a module after `plan-memory` into the file's structs, one to one. Blobs and the weights' folder are the
/// caller's to add.
StatusOr<plan::Plan> emitPlan(mlir::ModuleOp module);

/// A `model.param`'s name, type and sources as the file keeps them; also what `qwenc verify` makes weights for.
plan::Weight weightOf(mlir::Operation *param);

} // namespace qwen::compiler

#endif
