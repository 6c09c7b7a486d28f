//===- QwenOpt.cpp - runs passes on IR from a file: the lit tests' driver -===//

#include "dialects/kernel/KernelDialect.h"
#include "dialects/model/ModelDialect.h"
#include "dialects/plan/PlanDialect.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectRegistry.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  registry.insert<mlir::func::FuncDialect, qwen::ir::model::ModelDialect, qwen::ir::kernel::KernelDialect,
                  qwen::ir::plan::PlanDialect>();
  mlir::registerCanonicalizerPass();
  mlir::registerCSEPass();
  qwen::passes::registerQwenPasses();
  qwen::passes::registerQwenPipelines();
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, "qwenc pass driver\n", registry));
}
