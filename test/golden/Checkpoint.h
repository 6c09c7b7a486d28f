//===- Checkpoint.h - stored checkpoints and goldens, for tests ------------===//
//
// A small reader of safetensors files and weight maps, written apart from the runtime's: where both find the same bytes,
// neither is likely to have them wrong. Trusts its files, which are this folder's own.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_TEST_GOLDEN_CHECKPOINT_H
#define QWEN_TEST_GOLDEN_CHECKPOINT_H

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compiler/reference/Interpreter.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"

namespace qwen::golden {

struct StoredTensor {
  std::string dtype; // as in the file: "BF16"
  std::vector<int64_t> shape;
  const char *data = nullptr;

  int64_t elements() const;
  /// Element `index` of an F32 or BF16 tensor.
  float at(int64_t index) const;
};

/// The tensors of one or several safetensors files.
class TensorFiles {
public:
  /// Every *.safetensors file of a folder whose name starts with `prefix`.
  static StatusOr<TensorFiles> open(const std::string &dir, const std::string &prefix);

  const StoredTensor *find(const std::string &name) const;
  std::vector<std::string> names() const;

private:
  std::map<std::string, StoredTensor> tensors;
  std::vector<std::shared_ptr<const std::string>> bytes;
};

/// The params of `module` out of a checkpoint: sources, `{P}` and `{e}` resolved, transforms applied, as f32 numbers.
reference::WeightSource checkpointWeights(mlir::ModuleOp module, std::shared_ptr<const TensorFiles> files);

/// One folder of golden_list.txt.
struct Golden {
  std::string name, dir;
  std::vector<std::vector<int32_t>> cases;
  TensorFiles numbers;

  static StatusOr<Golden> open(const std::string &name);
  bool has(const std::string &key) const { return numbers.find(key); }
  /// By key of README.md, as rows: rank 3 becomes [first dimension, the others].
  reference::Tensor<float> tensor(const std::string &key) const;
  std::vector<int32_t> ids(const std::string &key) const;
};

std::vector<std::string> goldenNames();

/// A golden's config imported in f32, with its weights.
struct Model {
  mlir::MLIRContext context;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  reference::WeightSource weights;

  static StatusOr<std::unique_ptr<Model>> open(const Golden &golden);
  bool hasProgram(llvm::StringRef name);
};

} // namespace qwen::golden

#endif
