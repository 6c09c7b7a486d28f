//===- Programs.h - the programs of a plan --------------------------------===//
//
// A program is one function of the module: the target's `step` and `verify`, the MTP head's `draft_mtp`, a drafter's
// two. They share params and caches by name, and nothing else.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_PROGRAMS_H
#define QWEN_COMPILER_IMPORT_PROGRAMS_H

#include "compiler/import/DecoderLayer.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace qwen::compiler {

/// What the module is built from, complete and checked.
struct ImportedModel {
  ModelConfig target;
  std::optional<DrafterConfig> drafter;
  mlir::Type element;
  int64_t maxRows = 1;
};

/// Appends every program to `module`, whose params are declared.
void buildPrograms(mlir::ModuleOp module, const ImportedModel &model);

/// One program: a function with the attributes that say which. `inputs` and `outputs` are named values in order.
class Program {
public:
  Program(mlir::ModuleOp module, mlir::SymbolTable &params, mlir::Type element, llvm::StringRef name, int64_t maxRows);

  Graph &graph() { return ops; }
  mlir::Value input(llvm::StringRef name, mlir::Type type);
  void output(llvm::StringRef name, mlir::Value value);
  /// Writes the return and the function's type and names.
  void finish();

private:
  mlir::OpBuilder builder;
  mlir::func::FuncOp function;
  Graph ops;
  llvm::SmallVector<mlir::Attribute> inputNames, outputNames;
  llvm::SmallVector<mlir::Value> results;
  int64_t maxRows;
};

/// The two programs of a drafter (DFlash.cpp).
void buildDFlash(mlir::ModuleOp module, mlir::SymbolTable &params, const ImportedModel &model);

} // namespace qwen::compiler

#endif
