//===- BindLinear.cpp - @linear: projections with prologue and epilogue ---===//

#include "passes/select/Bind.h"

#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/spec_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

LogicalResult bindLinear(RegionView &view) {
  auto norm = view.find<model::RMSNormOp>();
  auto gated = view.find<model::GatedRMSNormOp>();
  auto linears = view.findAll<model::LinearOp>();
  auto siluMul = view.find<model::SiluMulOp>();
  auto add = view.find<model::AddOp>();
  if (linears.empty() || (norm && gated) ||
      view.size() != linears.size() + bool(norm) + bool(gated) + bool(siluMul) + bool(add))
    return view.dispatch.emitOpError("region is not [norm,] model.linear ... [, model.silu_mul] [, model.add]");
  if (linears.size() > size_t(kernels::kMaxLinearOutputs))
    return view.dispatch.emitOpError() << linears.size() << " projections, at most " << kernels::kMaxLinearOutputs;

  Value x = linears.front().getX();
  for (model::LinearOp linear : linears)
    if (linear.getX() != x)
      return view.dispatch.emitOpError("projections read different inputs");
  // A norm's channels are the projections' columns; without one x is an operand.
  kernels::LinearSpec spec{};
  spec.k = int(model::channelsOf(x));
  std::vector<int32_t> args = {-1, -1, -1, -1};
  if (norm) {
    spec.prologue = kernels::kPrologueRmsNorm;
    spec.eps = float(norm.getEps().convertToDouble());
    spec.round_first = norm.getRoundFirst();
    args[kernels::kLinearX] = view.argument(norm.getX());
    args[kernels::kLinearNormWeight] = view.weight(norm.getWeight(), plan::Layout::kVector);
  } else if (gated) {
    spec.prologue = kernels::kPrologueGatedRmsNorm;
    spec.eps = float(gated.getEps().convertToDouble());
    spec.head_dim = int(model::channelsOf(gated.getWeight()));
    spec.sigmoid = gated.getActivation() == "sigmoid";
    args[kernels::kLinearX] = view.argument(gated.getX());
    args[kernels::kLinearGate] = view.argument(gated.getGate());
    args[kernels::kLinearNormWeight] = view.weight(gated.getWeight(), plan::Layout::kVector);
  } else {
    args[kernels::kLinearX] = view.argument(x);
  }
  spec.x_type = dtypeOf(x);
  spec.w_type = dtypeOf(linears.front().getWeight());

  std::vector<int> widths;
  for (model::LinearOp linear : linears) {
    if (dtypeOf(linear.getWeight()) != spec.w_type)
      return view.dispatch.emitOpError("weights differ in type");
    spec.n[spec.outputs] = int(model::channelsOf(linear.getY()));
    spec.y_type[spec.outputs] = dtypeOf(linear.getY());
    widths.push_back(spec.n[spec.outputs++]);
    args.push_back(view.weight(linear.getWeight(), plan::Layout::kTile16));
  }
  spec.silu_mul = bool(siluMul);
  spec.residual = bool(add);
  if (siluMul && (linears.size() != 2 || siluMul.getGate() != linears[0].getY() || siluMul.getUp() != linears[1].getY()))
    return view.dispatch.emitOpError("model.silu_mul does not join the two projections, gate first");
  if (add) {
    args[kernels::kLinearResidual] = view.argument(add.getResidual());
    spec.y_type[0] = dtypeOf(add.getY());
    args.push_back(view.argument(add.getY()));
  } else if (siluMul) {
    args.push_back(view.argument(siluMul.getY()));
  } else {
    for (model::LinearOp linear : linears)
      args.push_back(view.argument(linear.getY()));
  }
  static constexpr const char *kPrologues[] = {"", "_norm", "_gnorm"};
  view.binding.kernels.push_back({"linear", kernels::ToFields(spec),
                                  fmt::format("k{}_n{}{}{}{}_{}", spec.k, fmt::join(widths, "_"),
                                              kPrologues[spec.prologue], siluMul ? "_silu" : "", add ? "_add" : "",
                                              DTypeName(spec.w_type)),
                                  std::move(args)});
  return success();
}

} // namespace qwen::passes
