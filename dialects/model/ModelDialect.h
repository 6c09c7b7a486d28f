//===- ModelDialect.h - the model dialect --------------------------------===//
//
// What a model computes; see ModelOps.td, whose descriptions are the specification of every op.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_DIALECTS_MODEL_MODELDIALECT_H
#define QWEN_DIALECTS_MODEL_MODELDIALECT_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dialects/model/ModelDialect.h.inc"
#define GET_ATTRDEF_CLASSES
#include "dialects/model/ModelAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/model/ModelTypes.h.inc"
#define GET_OP_CLASSES
#include "dialects/model/ModelOps.h.inc"

namespace qwen::ir::model {

/// Static size of the last dimension: the channels of `[tokens, channels]`, the columns of a weight.
inline int64_t channelsOf(mlir::Value value) {
  return mlir::cast<mlir::RankedTensorType>(value.getType()).getShape().back();
}

/// Names of the attributes by which a program says what it is; on every `func.func` of the module.
inline constexpr llvm::StringLiteral kProgramAttr = "model.program"; // step, verify, draft_mtp, ...
inline constexpr llvm::StringLiteral kOutputsAttr = "model.outputs"; // a name per result
inline constexpr llvm::StringLiteral kInputsAttr = "model.inputs";   // a name per argument
inline constexpr llvm::StringLiteral kRankAttr = "model.rank";       // set by shard; 0 before
inline constexpr llvm::StringLiteral kTargetAttr = "model.target";   // set by select: cpu, sm_89
inline constexpr llvm::StringLiteral kMaxRowsAttr = "model.max_rows";
/// On the module, set by shard: how many ranks its programs are written for.
inline constexpr llvm::StringLiteral kRanksAttr = "model.tp";

} // namespace qwen::ir::model

#endif
