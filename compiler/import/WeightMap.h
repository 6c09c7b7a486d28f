//===- WeightMap.h - where a checkpoint keeps each weight -----------------===//
//
// Declares a `model.param` for every weight: its canonical name and shape, and as `sources` the rectangles of named
// tensors that make it up. No weight file is opened; whoever loads one checks the map against its headers.
//
// A tensor or a weight is seen as a matrix: its last dimension is the columns, all others are rows, a vector is one
// row. Fused and per-expert experts are two alternatives; the interleaved rows of Qwen3-Next are many pieces of one
// tensor; tied heads are an alias.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_WEIGHTMAP_H
#define QWEN_COMPILER_IMPORT_WEIGHTMAP_H

#include "compiler/import/ModelConfig.h"
#include "dialects/model/ModelDialect.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

namespace qwen::compiler {

class WeightMap {
public:
  /// Params are appended to `module`; `element` is the type that plain weights are computed in.
  WeightMap(mlir::ModuleOp module, mlir::Type element);

  void declareModel(const ModelConfig &model);
  void declareDrafter(const DrafterConfig &drafter, const ModelConfig &target);

private:
  struct Piece {
    std::string tensor;
    int64_t eCount = 1;
    llvm::SmallVector<llvm::StringRef> dtypes;
    llvm::SmallVector<int64_t> shape;
    int64_t viewRows = 0, viewCols = 0, srcRow = 0, srcCol = 0, rows = 0, cols = 0;
    int64_t dstRow = 0, dstCol = 0, dstRowStep = 0;
    std::string packing;
  };
  using Alternative = std::vector<Piece>;
  struct Run {
    int64_t srcRow, rows, dstRow;
  };
  /// Where the weights of one decoder layer live.
  struct LayerNames {
    std::string name;   // "layers.3."
    std::string tensor; // "{P}layers.3."
    std::string group;
  };

  void declareLayer(const ModelConfig &model, const LayerConfig &layer, const LayerNames &names);
  void declareAttention(const ModelConfig &model, const LayerNames &names);
  void declareDeltaNet(const ModelConfig &model, const LayerNames &names);
  void declareExperts(const ModelConfig &model, const LayerNames &names);

  void param(const std::string &name, const std::string &group, llvm::StringRef transform, mlir::RankedTensorType type,
             const std::vector<Alternative> &sources);
  /// A norm: f32, of 1 + w when the model centres them on zero.
  void norm(const std::string &name, const std::string &group, const std::string &tensor, int64_t channels,
            bool centred);
  void vector(const std::string &name, const std::string &group, const std::string &tensor, int64_t channels);
  /// A linear that may be quantised. `module` is the tensor's name without `.weight`; `runs` are the rows of it, all of
  /// them when empty; `storedRows` is how many it has.
  void linear(const ModelConfig &model, const std::string &name, const std::string &group, const std::string &module,
              int64_t rows, int64_t cols, bool mayBeQuantised = true, llvm::ArrayRef<Run> runs = {},
              int64_t storedRows = 0);

  std::optional<StoredScheme> schemeOf(const ModelConfig &model, llvm::ArrayRef<std::string> modules,
                                       const std::string &group, bool lmHead);
  Piece wholeTensor(const std::string &tensor, llvm::ArrayRef<int64_t> shape) const;
  Piece storedMatrix(const std::string &module, const std::optional<StoredScheme> &scheme, int64_t rows,
                     int64_t cols) const;
  mlir::RankedTensorType weightType(llvm::ArrayRef<int64_t> shape, const std::optional<StoredScheme> &scheme) const;
  mlir::Attribute attribute(const Piece &piece);

  mlir::OpBuilder builder;
  mlir::Type element;
};

} // namespace qwen::compiler

#endif
