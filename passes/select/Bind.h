//===- Bind.h - from a dispatch's region to a kernel's Spec and arguments -===//
//
// Fusions compose in any order, so what a dispatch holds is read from its region, not from how it came about. One
// binder a family walks the region and says which catalogued kernels serve it, with which Spec, and which operand or
// result is which argument of the family's contract (runtime/kernels/<family>/<family>.h).
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_SELECT_BIND_H
#define QWEN_PASSES_SELECT_BIND_H

#include "dialects/kernel/KernelDialect.h"
#include "runtime/plan/plan.h"

#include <optional>
#include <string>
#include <vector>

namespace qwen::passes {

/// One kernel that serves a dispatch.
struct BoundKernel {
  std::string entry;       // the catalogue's name
  plan::Fields spec;
  std::string label;       // the readable half of the record's name: "k1024_n3584_bf16"
  std::vector<int32_t> args; // operand, results + operand, or their number for the arena space; -1 absent
};

struct Binding {
  std::vector<BoundKernel> kernels;                   // in launch order
  std::vector<std::optional<plan::Layout>> layouts; // of every operand that is a weight
};

/// A dispatch seen as arguments: what a value inside its region is outside.
class RegionView {
public:
  explicit RegionView(ir::kernel::DispatchOp dispatch);

  ir::kernel::DispatchOp dispatch;

  /// The argument number of a value of the region: an operand, a result (after the operands), or -1.
  int32_t argument(mlir::Value inner) const;
  /// As above; records that the operand is a weight to be packed so.
  int32_t weight(mlir::Value inner, plan::Layout layout);
  /// The dispatch's arena space.
  int32_t temp() const;

  /// The single op of a kind in the region, or none.
  template <class Op> Op find() const {
    for (auto op : const_cast<RegionView *>(this)->dispatch.block().getOps<Op>())
      return op;
    return Op();
  }
  template <class Op> std::vector<Op> findAll() const {
    std::vector<Op> found;
    for (auto op : const_cast<RegionView *>(this)->dispatch.block().getOps<Op>())
      found.push_back(op);
    return found;
  }
  /// Number of ops but the terminator.
  size_t size() const;

  Binding binding;
};

/// Binds a dispatch, or emits at it why no kernel fits. `tiedEmbedding`: the embedding is gathered from the packed
/// lm_head.
mlir::FailureOr<Binding> bindDispatch(ir::kernel::DispatchOp dispatch, bool tiedEmbedding);

// One a family. Each reports its own "no" at the dispatch.
mlir::LogicalResult bindEmbed(RegionView &view, bool tied);
mlir::LogicalResult bindRmsNorm(RegionView &view);
mlir::LogicalResult bindLinear(RegionView &view);
mlir::LogicalResult bindGdn(RegionView &view);
mlir::LogicalResult bindAttention(RegionView &view);
mlir::LogicalResult bindRouter(RegionView &view);
mlir::LogicalResult bindExperts(RegionView &view);
mlir::LogicalResult bindLmHead(RegionView &view);
mlir::LogicalResult bindAllReduce(RegionView &view);
mlir::LogicalResult bindElementwise(RegionView &view);

/// The runtime's name of a tensor's element type.
DType dtypeOf(mlir::Type element);
DType dtypeOf(mlir::Value tensor);

} // namespace qwen::passes

#endif
