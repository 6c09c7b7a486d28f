//===- VerifyStage.cpp - what may be left behind a stage ------------------===//
//
// IR only moves down. This pass is the gate behind every stage: an op of an earlier level that is still there is an
// error at that op, which names the pass that should have removed it.
//
//===----------------------------------------------------------------------===//

#include "passes/Passes.h"

#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace qwen::ir;

namespace qwen::passes {
#define GEN_PASS_DEF_VERIFYSTAGE
#include "passes/Passes.h.inc"

namespace {

enum class Stage { Import, Shard, Fuse, Select, Memory };

std::optional<Stage> stageNamed(StringRef name) {
  return StringSwitch<std::optional<Stage>>(name)
      .Case("import", Stage::Import)
      .Case("shard", Stage::Shard)
      .Case("fuse", Stage::Fuse)
      .Case("select", Stage::Select)
      .Case("memory", Stage::Memory)
      .Default(std::nullopt);
}

struct StageChecker {
  ModuleOp module;
  Stage stage;
  StringRef stageName;

  InFlightDiagnostic refuse(Operation *op) { return op->emitOpError("may not exist after ") << stageName << ": "; }

  LogicalResult checkImported(Operation *op) {
    if (isa<model::AllReduceOp, model::AllGatherOp>(op))
      return refuse(op) << "only shard-tensor-parallel adds collectives";
    if (auto weight = dyn_cast<model::WeightOp>(op); weight && weight.getSlicesAttr())
      return refuse(op) << "a program reads whole weights until shard-tensor-parallel slices them";
    return success();
  }

  LogicalResult checkSelected(kernel::DispatchOp dispatch) {
    if (!dispatch.getKernelsAttr() || !dispatch.getArgsAttr())
      return dispatch.emitOpError("names no kernels after select: run select-kernels, which gives every dispatch "
                                  "`kernels` and `args`");
    for (Attribute name : dispatch.getKernelsAttr()) {
      auto symbol = dyn_cast<FlatSymbolRefAttr>(name);
      if (!symbol || !module.lookupSymbol<kernel::KernelOp>(symbol.getAttr()))
        return dispatch.emitOpError("names kernel ") << name << ", which is no kernel.kernel of the module: "
                                                     << "select-kernels adds the record with the name";
    }
    return success();
  }

  /// An op directly in a program.
  LogicalResult checkInProgram(Operation *op) {
    bool isModel = isa<model::ModelDialect>(op->getDialect()), isHandle = isa<model::WeightOp, model::StateOp>(op);
    auto dispatch = dyn_cast<kernel::DispatchOp>(op);
    if (!isModel && !dispatch && !isa<func::ReturnOp>(op))
      return refuse(op) << "a program holds model ops, dispatches and a return";
    if (stage == Stage::Import || stage == Stage::Shard) {
      if (dispatch)
        return refuse(op) << "dispatches are formed by the fusions, which run later";
      return stage == Stage::Import ? checkImported(op) : success();
    }
    if (isModel && !isHandle)
      return refuse(op) << "no dispatch holds it; run dispatch-remaining behind the fusions";
    if (dispatch && stage == Stage::Fuse && dispatch.getKernelsAttr())
      return refuse(op) << "it names kernels, which only select-kernels may choose";
    return dispatch && stage == Stage::Select ? checkSelected(dispatch) : success();
  }

  LogicalResult checkProgram(func::FuncOp program) {
    if (stage == Stage::Memory)
      return refuse(program) << "plan-memory replaces every program by a plan.program";
    if (!program->hasAttr(model::kProgramAttr))
      return program.emitOpError("has no ") << model::kProgramAttr << ": the importer names every program";
    if (program.isExternal() || !llvm::hasSingleElement(program.getBody()))
      return program.emitOpError("is not one block of ops: programs have no control flow");
    if (stage != Stage::Import && !program->hasAttr(model::kRankAttr))
      return program.emitOpError("has no ") << model::kRankAttr << ": run shard-tensor-parallel, also with tp=1";
    for (Operation &op : program.front())
      if (failed(checkInProgram(&op)))
        return failure();
    return success();
  }

  LogicalResult run() {
    for (Operation &op : *module.getBody()) {
      if (auto program = dyn_cast<func::FuncOp>(op)) {
        if (failed(checkProgram(program)))
          return failure();
        continue;
      }
      bool isRecord = isa<kernel::KernelOp>(op), isPlan = isa<plan::PlanDialect>(op.getDialect());
      if (!isa<model::ParamOp>(op) && !isRecord && !isPlan)
        return refuse(&op) << "a module holds params, programs, kernels and plan ops";
      if (isRecord && stage < Stage::Select)
        return refuse(&op) << "kernel records are added by select-kernels";
      if (isPlan && stage < Stage::Memory)
        return refuse(&op) << "plan ops are made by plan-memory";
    }
    return success();
  }
};

struct VerifyStage : impl::VerifyStageBase<VerifyStage> {
  using Base::Base;

  void runOnOperation() override {
    std::optional<Stage> known = stageNamed(stage);
    if (!known) {
      getOperation().emitError("stage \"") << stage.getValue() << "\" is none of import, shard, fuse, select, memory";
      return signalPassFailure();
    }
    if (failed(StageChecker{getOperation(), *known, stage}.run()))
      signalPassFailure();
  }
};

} // namespace
} // namespace qwen::passes
