//===- DecoderLayer.h - the layer recipe ----------------------------------===//
//
// One decoder layer as model ops, for every family: norm, mixer (attention or the gated delta rule), residual, norm,
// feed-forward (dense or experts), residual. What families differ in is in the ModelConfig.
//
// Every op carries a name location: `layers.3.attn.in` for its part, `layers.3` alone for the op that yields the
// layer's output, so that later stages and messages can say where they are.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_DECODERLAYER_H
#define QWEN_COMPILER_IMPORT_DECODERLAYER_H

#include "compiler/import/ModelConfig.h"
#include "dialects/model/ModelDialect.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

namespace qwen::compiler {

/// Writes the ops of one program. `at` names where the next ones are.
class Graph {
public:
  Graph(mlir::OpBuilder &builder, mlir::SymbolTable &params, mlir::Type element)
      : builder(builder), params(params), element(element), loc(builder.getUnknownLoc()) {}

  mlir::OpBuilder &builder;
  mlir::SymbolTable &params;
  mlir::Type element; // of the residual stream
  mlir::Value batch;
  mlir::Location loc;

  void at(const std::string &name) { loc = mlir::NameLoc::get(builder.getStringAttr(name)); }
  mlir::RankedTensorType rows(int64_t channels, mlir::Type type = {}) const;
  mlir::RankedTensorType ids() const;

  mlir::Value weight(llvm::StringRef name);
  mlir::Value state(const std::string &name, mlir::Type type);
  mlir::Value embed(mlir::Value tokenIds, llvm::StringRef table);
  mlir::Value linear(mlir::Value x, const std::string &weightName, mlir::Type result = {});
  mlir::Value rmsNorm(mlir::Value x, const std::string &weightName, const ModelConfig &model);
  mlir::Value add(mlir::Value x, mlir::Value residual);
  mlir::Value concat(mlir::ValueRange parts);
  mlir::Value siluMul(mlir::Value gate, mlir::Value up);
  llvm::SmallVector<mlir::Value> split(mlir::Value x, int64_t heads, llvm::ArrayRef<int64_t> channels);

  mlir::Value logitRows(mlir::Value x);
  mlir::Value lmHead(mlir::Value x);
  mlir::Value sample(mlir::Value logits);
};

/// The attention of layer `name` ("layers.3") on the normed rows `h`: projections, norms, rotation, cache write,
/// attention, output gate and projection.
mlir::Value buildAttention(Graph &graph, mlir::Value h, const std::string &name, const ModelConfig &model,
                           const LayerConfig &layer);

/// Only what attention leaves behind: keys and values of the rows `h`, into the cache of layer `name`.
void buildKeysAndValues(Graph &graph, mlir::Value h, const std::string &name, const ModelConfig &model);

/// The dense feed-forward of layer `name` on the normed rows `h`.
mlir::Value buildDense(Graph &graph, mlir::Value h, const std::string &name);

/// A whole decoder layer: the residual stream in and out.
mlir::Value buildDecoderLayer(Graph &graph, mlir::Value x, const std::string &name, const ModelConfig &model,
                              const LayerConfig &layer);

} // namespace qwen::compiler

#endif
