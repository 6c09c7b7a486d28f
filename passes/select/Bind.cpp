//===- Bind.cpp - the binders' common part, and the small families --------===//

#include "passes/select/Bind.h"

#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/spec_fields.h"

#include "llvm/ADT/StringSwitch.h"
#include "llvm/ADT/TypeSwitch.h"

#include <fmt/format.h>

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

DType dtypeOf(Type element) {
  if (element.isBF16())
    return DType::kBF16;
  if (element.isF16())
    return DType::kF16;
  if (element.isInteger(32))
    return DType::kI32;
  return DType::kF32;
}
DType dtypeOf(Value tensor) { return dtypeOf(cast<RankedTensorType>(tensor.getType()).getElementType()); }

RegionView::RegionView(kernel::DispatchOp op) : dispatch(op) { binding.layouts.resize(op.getNumOperands()); }

int32_t RegionView::argument(Value inner) const {
  kernel::DispatchOp op = dispatch;
  if (auto argument = dyn_cast<BlockArgument>(inner))
    return argument.getArgNumber();
  for (auto [index, value] : llvm::enumerate(op.yield().getValues()))
    if (value == inner)
      return op.getNumOperands() + index;
  return -1;
}

int32_t RegionView::weight(Value inner, plan::Layout layout) {
  int32_t index = argument(inner);
  if (index >= 0 && index < int32_t(binding.layouts.size()))
    binding.layouts[index] = layout;
  return index;
}

int32_t RegionView::temp() const {
  kernel::DispatchOp op = dispatch;
  return op.getNumOperands() + op.getNumResults();
}

size_t RegionView::size() const {
  kernel::DispatchOp op = dispatch;
  return op.block().getOperations().size() - 1;
}

LogicalResult bindEmbed(RegionView &view, bool tied) {
  auto op = view.find<model::EmbedOp>();
  if (!op || view.size() != 1)
    return view.dispatch.emitOpError("region is not one model.embed");
  auto table = cast<RankedTensorType>(op.getTable().getType());
  kernels::EmbedSpec spec{.hidden = int(table.getDimSize(1)), .vocab = int(table.getDimSize(0)),
                          .w_type = dtypeOf(op.getTable()), .y_type = dtypeOf(op.getY()), .tiled = tied};
  view.binding.kernels.push_back(
      {"embed_rows", kernels::ToFields(spec), fmt::format("v{}_c{}_{}", spec.vocab, spec.hidden, DTypeName(spec.y_type)),
       {view.weight(op.getTable(), tied ? plan::Layout::kTile16 : plan::Layout::kRows), view.argument(op.getY())}});
  return success();
}

LogicalResult bindRmsNorm(RegionView &view) {
  auto norm = view.find<model::RMSNormOp>();
  auto add = view.find<model::AddOp>();
  if (!norm || view.size() != (add ? 2 : 1))
    return view.dispatch.emitOpError("region is not [model.add and] one model.rms_norm");
  kernels::RmsNormSpec spec{.channels = int(model::channelsOf(norm.getX())), .eps = float(norm.getEps().convertToDouble()),
                            .round_first = norm.getRoundFirst(), .add = bool(add), .type = dtypeOf(norm.getX())};
  view.binding.kernels.push_back(
      {"add_rms_norm", kernels::ToFields(spec),
       fmt::format("c{}{}_{}", spec.channels, add ? "_add" : "", DTypeName(spec.type)),
       {view.argument(add ? add.getX() : norm.getX()), add ? view.argument(add.getResidual()) : -1,
        view.weight(norm.getWeight(), plan::Layout::kVector), add ? view.argument(add.getY()) : -1,
        view.argument(norm.getY())}});
  return success();
}

LogicalResult bindLmHead(RegionView &view) {
  auto norm = view.find<model::RMSNormOp>();
  auto rows = view.find<model::LogitRowsOp>();
  auto head = view.find<model::LmHeadOp>();
  auto sample = view.find<model::SampleOp>();
  if (view.size() != size_t(bool(norm)) + bool(rows) + bool(head) + bool(sample) || (!head && (norm || rows)) ||
      (!head && !sample))
    return view.dispatch.emitOpError("region is not [model.rms_norm,] [model.logit_rows,] model.lm_head, [model.sample]");
  if (head) {
    Value x = head.getX();
    // The norm and the choice of rows commute; either may stand in front.
    for (Operation *def = x.getDefiningOp(); def && isa<model::RMSNormOp, model::LogitRowsOp>(def);
         def = x.getDefiningOp())
      x = def->getOperand(0);
    kernels::LmHeadSpec spec{.hidden = int(model::channelsOf(x)), .vocab = int(model::channelsOf(head.getY())),
                             .norm = bool(norm), .round_first = norm && norm.getRoundFirst(),
                             .eps = norm ? float(norm.getEps().convertToDouble()) : 0, .gather = bool(rows),
                             .x_type = dtypeOf(x), .w_type = dtypeOf(head.getWeight())};
    int32_t logits = view.argument(head.getY());
    if (logits < 0)
      return view.dispatch.emitOpError("does not yield its logits, which the draw reads");
    view.binding.kernels.push_back(
        {"lm_head", kernels::ToFields(spec),
         fmt::format("v{}_c{}{}_{}", spec.vocab, spec.hidden, norm ? "_norm" : "", DTypeName(spec.w_type)),
         {view.argument(x), norm ? view.weight(norm.getWeight(), plan::Layout::kVector) : -1,
          view.weight(head.getWeight(), plan::Layout::kTile16), logits}});
  }
  if (sample) {
    kernels::SampleSpec spec{.vocab = int(model::channelsOf(sample.getLogits()))};
    view.binding.kernels.push_back({"sample", kernels::ToFields(spec), fmt::format("v{}", spec.vocab),
                                    {view.argument(sample.getLogits()), view.argument(sample.getNext())}});
  }
  return success();
}

LogicalResult bindAllReduce(RegionView &view) {
  if (auto gather = view.find<model::AllGatherOp>(); gather && view.size() == 1) {
    kernels::AllGatherSpec spec{.ranks = int(gather.getCounts().size())};
    if (spec.ranks > kernels::kMaxRanks)
      return view.dispatch.emitOpError() << spec.ranks << " ranks, at most " << kernels::kMaxRanks;
    for (auto [rank, count] : llvm::enumerate(gather.getCounts()))
      spec.counts[rank] = int(count);
    view.binding.kernels.push_back({"all_gather", kernels::ToFields(spec),
                                    fmt::format("c{}", model::channelsOf(gather.getY())),
                                    {view.argument(gather.getX()), view.argument(gather.getY())}});
    return success();
  }
  auto reduce = view.find<model::AllReduceOp>();
  auto add = view.find<model::AddOp>();
  auto norm = view.find<model::RMSNormOp>();
  if (!reduce || view.size() != 1u + bool(add) + bool(norm))
    return view.dispatch.emitOpError("region is not model.all_reduce [, model.add] [, model.rms_norm]");
  Value sum = add ? add.getY() : reduce.getY();
  kernels::AllReduceSpec spec{.channels = int(model::channelsOf(reduce.getX())), .residual = bool(add),
                              .norm = bool(norm), .round_first = norm && norm.getRoundFirst(),
                              .eps = norm ? float(norm.getEps().convertToDouble()) : 0, .y_type = dtypeOf(sum)};
  view.binding.kernels.push_back(
      {"all_reduce", kernels::ToFields(spec),
       fmt::format("c{}{}{}_{}", spec.channels, add ? "_add" : "", norm ? "_norm" : "", DTypeName(spec.y_type)),
       {view.argument(reduce.getX()), add ? view.argument(add.getResidual()) : -1,
        norm ? view.weight(norm.getWeight(), plan::Layout::kVector) : -1, view.argument(sum),
        norm ? view.argument(norm.getY()) : -1}});
  return success();
}

LogicalResult bindElementwise(RegionView &view) {
  using kernels::ElementwiseOp;
  if (view.size() != 1)
    return view.dispatch.emitOpError("region is not a single op");
  Operation *op = &view.dispatch.block().front();
  kernels::ElementwiseSpec spec{};
  std::optional<ElementwiseOp> kind =
      llvm::TypeSwitch<Operation *, std::optional<ElementwiseOp>>(op)
          .Case<model::AddOp>([](auto) { return ElementwiseOp::kAdd; })
          .Case<model::SiluMulOp>([](auto) { return ElementwiseOp::kSiluMul; })
          .Case<model::SigmoidGateOp>([](auto) { return ElementwiseOp::kSigmoidGate; })
          .Case<model::SplitOp>([&](model::SplitOp split) {
            spec.heads = int(split.getHeads());
            return ElementwiseOp::kSplit;
          })
          .Case<model::ConcatOp>([](auto) { return ElementwiseOp::kConcat; })
          .Case<model::LogitRowsOp>([](auto) { return ElementwiseOp::kLogitRows; })
          .Case<model::AcceptOp>([](auto) { return ElementwiseOp::kAccept; })
          .Case<model::DynamicConvOp>([&](model::DynamicConvOp conv) {
            spec.group = int(conv.getGroup());
            spec.index = int(conv.getIndex());
            spec.taps = int(cast<RankedTensorType>(conv.getBase().getType()).getDimSize(1));
            return ElementwiseOp::kDynamicConv;
          })
          .Case<model::CandidateWalkOp>([&](model::CandidateWalkOp walk) {
            spec.candidates = int(walk.getCandidates());
            return ElementwiseOp::kCandidateWalk;
          })
          .Default([](Operation *) { return std::nullopt; });
  if (!kind)
    return op->emitOpError("is left over from the fusions, and no cpu kernel runs it alone");
  spec.op = int(*kind);
  spec.logit_rows = *kind == ElementwiseOp::kLogitRows || *kind == ElementwiseOp::kCandidateWalk;
  BoundKernel bound{"elementwise", {}, op->getName().stripDialect().str(), {}};
  for (Value operand : op->getOperands()) {
    // The batch and the token ids reach every kernel with the launch.
    if (isa<model::BatchType>(operand.getType()) ||
        (isa<model::AcceptOp, model::CandidateWalkOp>(op) && dtypeOf(operand) == DType::kI32 &&
         operand != op->getOperand(0)))
      continue;
    if (spec.inputs == kernels::kMaxElementwise)
      return op->emitOpError("has more than ") << kernels::kMaxElementwise << " operands";
    bool isWeight = cast<RankedTensorType>(operand.getType()).hasStaticShape();
    bound.args.push_back(isWeight ? view.weight(operand, plan::Layout::kRows) : view.argument(operand));
    spec.in_channels[spec.inputs] = int(cast<RankedTensorType>(operand.getType()).getRank() == 1 ? 1 : model::channelsOf(operand));
    spec.in_type[spec.inputs++] = dtypeOf(operand);
  }
  for (Value result : op->getResults()) {
    bool ids = cast<RankedTensorType>(result.getType()).getRank() == 1;
    spec.out_channels[spec.outputs] = ids ? 1 : int(model::channelsOf(result));
    spec.out_type[spec.outputs++] = dtypeOf(result);
    bound.args.push_back(view.argument(result));
    if (!ids)
      bound.label += fmt::format("_c{}", model::channelsOf(result));
  }
  bound.spec = kernels::ToFields(spec);
  view.binding.kernels.push_back(std::move(bound));
  return success();
}

FailureOr<Binding> bindDispatch(kernel::DispatchOp dispatch, bool tiedEmbedding) {
  RegionView view(dispatch);
  using Binder = LogicalResult (*)(RegionView &);
  auto binder = llvm::StringSwitch<Binder>(dispatch.getFamily())
                    .Case("rms_norm", bindRmsNorm)
                    .Case("linear", bindLinear)
                    .Case("gdn", bindGdn)
                    .Case("attention", bindAttention)
                    .Case("router", bindRouter)
                    .Case("experts", bindExperts)
                    .Case("lm_head", bindLmHead)
                    .Case("all_reduce", bindAllReduce)
                    .Case("elementwise", bindElementwise)
                    .Default(nullptr);
  LogicalResult bound = dispatch.getFamily() == "embed" ? bindEmbed(view, tiedEmbedding)
                        : binder                        ? binder(view)
                                                        : failure();
  if (failed(bound))
    return failure();
  return std::move(view.binding);
}

} // namespace qwen::passes
