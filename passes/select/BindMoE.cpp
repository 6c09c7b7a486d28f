//===- BindMoE.cpp - @router and @experts ---------------------------------===//

#include "passes/select/Bind.h"

#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/router/router.h"
#include "runtime/kernels/spec_fields.h"

#include <fmt/format.h>

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

LogicalResult bindRouter(RegionView &view) {
  auto norm = view.find<model::RMSNormOp>();
  auto router = view.find<model::RouterOp>();
  if (!router || view.size() != (norm ? 2 : 1))
    return view.dispatch.emitOpError("region is not [model.rms_norm,] model.router");
  kernels::RouterSpec spec{.hidden = int(model::channelsOf(router.getX())),
                           .experts = int(cast<RankedTensorType>(router.getWeight().getType()).getDimSize(0)),
                           .top_k = int(model::channelsOf(router.getIds())),
                           .renormalize = router.getRenormalize(), .norm = bool(norm),
                           .round_first = norm && norm.getRoundFirst(),
                           .eps = norm ? float(norm.getEps().convertToDouble()) : 0, .x_type = dtypeOf(router.getX()),
                           .w_type = dtypeOf(router.getWeight())};
  view.binding.kernels.push_back(
      {"router", kernels::ToFields(spec),
       fmt::format("c{}_e{}_k{}{}_{}", spec.hidden, spec.experts, spec.top_k, norm ? "_norm" : "",
                   DTypeName(spec.w_type)),
       {view.argument(norm ? norm.getX() : router.getX()),
        norm ? view.weight(norm.getWeight(), plan::Layout::kVector) : -1,
        view.weight(router.getWeight(), plan::Layout::kTile16), view.temp(),
        norm ? view.argument(norm.getY()) : -1, view.argument(router.getWeights()), view.argument(router.getIds())}});
  return success();
}

LogicalResult bindExperts(RegionView &view) {
  auto experts = view.find<model::ExpertsOp>();
  auto combine = view.find<model::CombineOp>();
  auto add = view.find<model::AddOp>();
  auto siluMul = view.find<model::SiluMulOp>();
  auto linears = view.findAll<model::LinearOp>();
  if (!experts || linears.size() != (combine ? 4 : 0) || bool(siluMul) != bool(combine) ||
      view.size() != 1u + linears.size() + bool(siluMul) + bool(combine) + bool(add))
    return view.dispatch.emitOpError(
        "region is not model.experts [with a whole shared expert and model.combine] [, model.add]");
  auto gateUp = cast<RankedTensorType>(experts.getGateUp().getType());
  kernels::ExpertsSpec spec{};
  spec.hidden = int(model::channelsOf(experts.getX()));
  spec.experts = int(gateUp.getDimSize(0));
  spec.first_expert = int(experts.getFirstExpert());
  spec.top_k = int(model::channelsOf(experts.getIds()));
  spec.inter = int(model::channelsOf(experts.getDown()));
  spec.x_type = dtypeOf(experts.getX());
  spec.w_type = dtypeOf(experts.getGateUp());
  std::vector<int32_t> args(kernels::kExpertsArgs, -1);
  Value result = experts.getY();
  if (combine) {
    auto down = combine.getShared().getDefiningOp<model::LinearOp>();
    auto scalar = combine.getGate().getDefiningOp<model::LinearOp>();
    auto gate = siluMul.getGate().getDefiningOp<model::LinearOp>();
    auto up = siluMul.getUp().getDefiningOp<model::LinearOp>();
    if (!down || !scalar || !gate || !up || down.getX() != siluMul.getY() || combine.getRouted() != experts.getY())
      return view.dispatch.emitOpError("shared expert is not gate, up, silu_mul, down and a scalar gate");
    spec.shared = 1;
    spec.shared_inter = int(model::channelsOf(siluMul.getY()));
    args[kernels::kExpertsSharedGate] = view.weight(gate.getWeight(), plan::Layout::kTile16);
    args[kernels::kExpertsSharedUp] = view.weight(up.getWeight(), plan::Layout::kTile16);
    args[kernels::kExpertsSharedDown] = view.weight(down.getWeight(), plan::Layout::kTile16);
    args[kernels::kExpertsScalarGate] = view.weight(scalar.getWeight(), plan::Layout::kTile16);
    result = combine.getY();
  }
  if (add) {
    spec.residual = 1;
    args[kernels::kExpertsResidual] = view.argument(add.getResidual());
    result = add.getY();
  }
  spec.y_type = dtypeOf(result);
  args[kernels::kExpertsX] = view.argument(experts.getX());
  args[kernels::kExpertsWeights] = view.argument(experts.getWeights());
  args[kernels::kExpertsIds] = view.argument(experts.getIds());
  args[kernels::kExpertsGateUp] = view.weight(experts.getGateUp(), plan::Layout::kTile16);
  args[kernels::kExpertsDown] = view.weight(experts.getDown(), plan::Layout::kTile16);
  args[kernels::kExpertsTemp] = view.temp();
  args[kernels::kExpertsY] = view.argument(result);
  std::string label = fmt::format("c{}_e{}_k{}_i{}{}{}_{}", spec.hidden, spec.experts, spec.top_k, spec.inter,
                                  spec.shared ? fmt::format("_s{}", spec.shared_inter) : "", add ? "_add" : "",
                                  DTypeName(spec.w_type));
  // Each phase is given what it reads and writes, and no more.
  std::vector<int32_t> first = args, second = args;
  for (int arg : {kernels::kExpertsDown, kernels::kExpertsSharedDown, kernels::kExpertsResidual, kernels::kExpertsY})
    first[arg] = -1;
  for (int arg : {kernels::kExpertsX, kernels::kExpertsGateUp, kernels::kExpertsSharedGate, kernels::kExpertsSharedUp,
                  kernels::kExpertsScalarGate})
    second[arg] = -1;
  view.binding.kernels.push_back({"experts_gate_up", kernels::ToFields(spec), label, first});
  view.binding.kernels.push_back({"experts_down", kernels::ToFields(spec), label, second});
  return success();
}

} // namespace qwen::passes
