//===- WidenActivations.cpp - rows in f32 between steps -------------------===//

#include "passes/Passes.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
namespace model = qwen::ir::model;

namespace qwen::passes {

#define GEN_PASS_DEF_WIDENACTIVATIONS
#include "passes/Passes.h.inc"

namespace {

struct WidenActivations : impl::WidenActivationsBase<WidenActivations> {
  // Rows have a dynamic first dimension; weights are static.
  Type widened(Type type) {
    Type f32 = Float32Type::get(&getContext());
    if (auto tensor = dyn_cast<RankedTensorType>(type); tensor && tensor.getRank() == 2 && tensor.isDynamicDim(0) &&
                                                        tensor.getElementType().isBF16())
      return RankedTensorType::get(tensor.getShape(), f32);
    if (auto state = dyn_cast<model::RecurrentStateType>(type))
      return model::RecurrentStateType::get(&getContext(), state.getKeyHeads(), state.getValueHeads(),
                                            state.getKeyDim(), state.getValueDim(), state.getWidth(), f32);
    return type;
  }

  void runOnOperation() override {
    for (auto program : getOperation().getOps<func::FuncOp>()) {
      program.walk([&](Operation *op) {
        for (Value result : op->getResults())
          result.setType(widened(result.getType()));
      });
      for (BlockArgument argument : program.getArguments())
        argument.setType(widened(argument.getType()));
      program.setType(FunctionType::get(&getContext(), program.getBody().front().getArgumentTypes(),
                                        program.getBody().front().getTerminator()->getOperandTypes()));
    }
  }
};

} // namespace
} // namespace qwen::passes
