//===- SpecAttr.h - Specs as attributes, and the names IR gives to plan values ===//

#ifndef QWEN_PASSES_SELECT_SPECATTR_H
#define QWEN_PASSES_SELECT_SPECATTR_H

#include "runtime/plan/plan.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinOps.h"

namespace qwen::passes {

/// A Spec's fields to and from the dictionary of a `kernel.kernel`.
plan::Fields fieldsOf(mlir::DictionaryAttr dictionary);
mlir::DictionaryAttr dictionaryOf(mlir::Builder &builder, const plan::Fields &fields);

llvm::StringRef partName(plan::Part part);
llvm::StringRef layoutName(plan::Layout layout);

/// Whether the embedding is gathered from the packed lm_head: heads tied, and one rank.
bool embeddingIsTied(mlir::ModuleOp module);

} // namespace qwen::passes

#endif
