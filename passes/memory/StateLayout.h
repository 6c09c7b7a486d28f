//===- StateLayout.h - what a rank keeps between steps, laid out ----------===//

#ifndef QWEN_PASSES_MEMORY_STATELAYOUT_H
#define QWEN_PASSES_MEMORY_STATELAYOUT_H

#include "dialects/model/ModelDialect.h"
#include "runtime/plan/plan.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

namespace qwen::passes {

/// Lays out every cache that the rank's programs name, in order of first use: attention layers in a page, delta-rule
/// layers in a slot, all 64-byte aligned (contracts, section 5).
plan::State layoutStates(llvm::ArrayRef<mlir::func::FuncOp> programs, int64_t maxRows);

/// To and from the `plan.states` attribute of the module, one dictionary a rank.
mlir::DictionaryAttr stateAttr(mlir::Builder &builder, const plan::State &state);
plan::State stateOf(mlir::DictionaryAttr attr);

} // namespace qwen::passes

#endif
