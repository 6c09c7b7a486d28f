//===- Import.h - config.json to model IR ---------------------------------===//
//
// The compiler's front door. A config.json (or the folder that holds one) becomes a module: a `model.param` for every
// weight, and one function a program: `step`, `verify`, `draft_mtp` when the checkpoint has an MTP head,
// `draft_dflash_context` and `draft_dflash` when a drafter is given. No weight file is opened, so the same config gives
// the same module wherever it lies.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_IMPORT_H
#define QWEN_COMPILER_IMPORT_IMPORT_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "runtime/base/status.h"
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

struct ImportOptions {
  /// "f32" or "bf16": what the model computes in, whatever its file says.
  std::optional<std::string> dtype;
  /// Tokens a sequence may have; 0: the config's max_position_embeddings.
  int64_t maxModelLen = 0;
  /// Rows a short sequence may bring to `verify`; 0: 8 with experts or 16 without when something can draft, else 1.
  int64_t maxRows = 0;
  /// Config, or folder, of a DFlash drafter; empty: none.
  std::string drafterPath;
};

/// Reads the config at `configOrDir` and builds its module; `warnings` gets a line for whatever the plan will do
/// differently from what the file asks. kDataLoss: not JSON, or a wrong type. kUnimplemented: a contradiction or an
/// unsupported value. kResourceExhausted: no such file. kInvalidArgument: an option that does not fit the model.
StatusOr<mlir::OwningOpRef<mlir::ModuleOp>> importModel(mlir::MLIRContext &context, const std::string &configOrDir,
                                                        const ImportOptions &options,
                                                        std::vector<std::string> &warnings);

/// The config.json that `path` names: itself, or the one in the folder.
StatusOr<std::string> resolveConfigPath(const std::string &path);

} // namespace qwen::compiler

#endif
