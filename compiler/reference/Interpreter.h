//===- Interpreter.h - the oracle: runs model IR on the CPU, one op at a time --===//
//
// Runs a program of a module at any stage up to `select`, or a single dispatch region on given operands, through the
// plain functions of runtime/kernels/reference. With Real = float a result is rounded to its type where the op's
// description says so; with Real = double nothing is rounded.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_REFERENCE_INTERPRETER_H
#define QWEN_COMPILER_REFERENCE_INTERPRETER_H

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "compiler/reference/Faults.h"
#include "compiler/reference/State.h"
#include "dialects/kernel/KernelDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/base/status.h"
#include "runtime/kernels/reference/batch.h"
#include "runtime/kernels/reference/types.h"

namespace qwen::reference {

/// Activations `[tokens, channels]` in `values`, or token ids, expert ids and the like in `ids`.
template <class Real> struct Tensor {
  Type type = Type::kF32;
  std::vector<int64_t> shape;
  std::vector<Real> values;
  std::vector<int32_t> ids;

  int64_t rows() const { return shape.front(); }
  int64_t channels() const { return shape.size() > 1 ? shape.back() : 1; }
  const Real *row(int64_t index) const { return values.data() + index * channels(); }
};

/// A weight and whatever keeps its bytes alive. Rank 3 is seen as a matrix, see reference::Weight.
struct OwnedWeight {
  Weight view;
  std::shared_ptr<const void> owner;

  /// Copies f32 numbers; for tests and small weights.
  static OwnedWeight copyOf(std::vector<float> numbers, int64_t rows, int64_t cols);
};

/// The whole weight of a `model.param`, transform applied, in f32 or bf16; a vector is one row.
using WeightSource = std::function<StatusOr<OwnedWeight>(const std::string &name)>;

/// Names the cache of one layer, as `model.state` does.
struct StateName {
  std::string name;
};
struct BatchHandle {};

/// What an SSA value is while a program runs.
template <class Real>
using Operand = std::variant<BatchHandle, std::shared_ptr<const Tensor<Real>>, OwnedWeight, StateName>;

/// A program's results by the names of `model.outputs`.
template <class Real> using Outputs = std::map<std::string, Tensor<Real>>;

template <class Real> struct InterpreterOptions {
  /// Called after every op that yields tensors, inside dispatch regions too.
  std::function<void(int rank, mlir::Operation *op, mlir::Value result, const Tensor<Real> &tensor)> observer;
  /// Test hook: one thing computed wrongly.
  Fault fault = Fault::None;
  /// Test hook: the collective of this number (from 0, in program order) leaves every rank with its own share.
  int64_t dropCollective = -1;
};

template <class Real> class Interpreter {
public:
  using Options = InterpreterOptions<Real>;

  Interpreter(mlir::ModuleOp module, WeightSource weights, Options options = {});
  ~Interpreter();

  /// Runs every rank's function of a program ("step", "verify", "draft_mtp" ...) in lock-step: a rank waits at each
  /// collective for the others. `extra` gives the inputs that are neither `batch` nor `token_ids`, to every rank the
  /// same. -> the outputs of each rank
  StatusOr<std::vector<Outputs<Real>>> runRanks(const std::string &program, const Batch &batch, State<Real> &state,
                                                const std::map<std::string, Tensor<Real>> &extra = {});
  /// The same; -> rank 0's outputs.
  StatusOr<Outputs<Real>> run(const std::string &program, const Batch &batch, State<Real> &state,
                              const std::map<std::string, Tensor<Real>> &extra = {});

  /// Runs one dispatch region on operand values. A collective in it sums over the one rank there is.
  StatusOr<std::vector<Tensor<Real>>> runRegion(ir::kernel::DispatchOp dispatch, std::vector<Operand<Real>> operands,
                                                const Batch &batch, State<Real> &state);
  /// The same for all ranks of a region with a collective: `operands` has one list a rank.
  StatusOr<std::vector<std::vector<Tensor<Real>>>>
  runRegions(const std::vector<ir::kernel::DispatchOp> &ranks, std::vector<std::vector<Operand<Real>>> operands,
             const Batch &batch, State<Real> &state);

  /// How often the fault changed what an op was given or gave, since construction.
  int64_t faultHits() const;
  /// Collectives of the last run.
  int64_t collectives() const;

private:
  class Impl;
  std::unique_ptr<Impl> impl;
};

/// The name that an op's location carries ("layers.3", "layers.3.attn.mixer"), through fused locations; else empty.
std::string locationName(mlir::Location location);

extern template class Interpreter<float>;
extern template class Interpreter<double>;

} // namespace qwen::reference

#endif
