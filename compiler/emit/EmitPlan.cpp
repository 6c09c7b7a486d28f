//===- EmitPlan.cpp - plan dialect to plan file ---------------------------===//
//
// No decision is left to make here: whatever this file would like to choose belongs in a pass, where it can be seen.
//
//===----------------------------------------------------------------------===//

#include "compiler/emit/EmitPlan.h"

#include "dialects/kernel/KernelDialect.h"
#include "dialects/model/ModelDialect.h"
#include "dialects/plan/PlanDialect.h"
#include "passes/memory/StateLayout.h"
#include "passes/select/Bind.h"
#include "passes/select/SpecAttr.h"

#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::compiler {
namespace {

int64_t integer(DictionaryAttr from, StringRef name) { return from.getAs<IntegerAttr>(name).getInt(); }

std::vector<int64_t> integers(ArrayRef<int64_t> list) { return {list.begin(), list.end()}; }

plan::Piece pieceOf(DictionaryAttr attr) {
  plan::Piece piece;
  piece.tensor = attr.getAs<StringAttr>("tensor").str();
  piece.e_count = integer(attr, "e_count");
  for (auto dtype : attr.getAs<ArrayAttr>("dtypes").getAsRange<StringAttr>())
    piece.dtypes.push_back(dtype.str());
  piece.shape = integers(attr.getAs<DenseI64ArrayAttr>("shape").asArrayRef());
  piece.view_rows = integer(attr, "view_rows");
  piece.view_cols = integer(attr, "view_cols");
  piece.src_row = integer(attr, "src_row");
  piece.src_col = integer(attr, "src_col");
  piece.rows = integer(attr, "rows");
  piece.cols = integer(attr, "cols");
  piece.dst_row = integer(attr, "dst_row");
  piece.dst_col = integer(attr, "dst_col");
  piece.dst_row_step = integer(attr, "dst_row_step");
  return piece;
}

plan::Packed packedOf(ir::plan::PackedOp op, int32_t weight) {
  plan::Packed packed{.weight = weight, .rank = int32_t(op.getRank()), .bytes = int64_t(op.getBytes()),
                      .net_bytes = int64_t(op.getNetBytes())};
  packed.layout = llvm::StringSwitch<plan::Layout>(op.getLayout())
                      .Case("rows", plan::Layout::kRows)
                      .Case("vector", plan::Layout::kVector)
                      .Default(plan::Layout::kTile16);
  for (auto list : op.getSlices().getAsRange<ArrayAttr>()) {
    auto &ranges = packed.slices.emplace_back();
    for (size_t i = 0; i < list.size(); i += 2)
      ranges.push_back({cast<IntegerAttr>(list[i]).getInt(), cast<IntegerAttr>(list[i + 1]).getInt()});
  }
  return packed;
}

plan::LaunchShape launchOf(DictionaryAttr attr) {
  plan::LaunchShape shape;
  if (!attr)
    return shape; // built in
  shape.threads = int32_t(integer(attr, "threads"));
  shape.shared_bytes = int32_t(integer(attr, "shared_bytes"));
  for (auto [name, dim] : llvm::zip(ArrayRef<StringRef>{"x", "y", "z"}, shape.grid)) {
    ArrayRef<int64_t> numbers = attr.getAs<DenseI64ArrayAttr>(name).asArrayRef();
    dim = {plan::Count(numbers[0]), int32_t(numbers[1]), int32_t(numbers[2]), int32_t(numbers[3])};
  }
  return shape;
}

plan::Part partOf(StringRef name) {
  return llvm::StringSwitch<plan::Part>(name)
      .Case("short", plan::Part::kShort)
      .Case("long", plan::Part::kLong)
      .Case("logit_rows", plan::Part::kLogitRows)
      .Default(plan::Part::kAll);
}

class ProgramEmitter {
public:
  ProgramEmitter(const llvm::StringMap<int32_t> &kernels, const llvm::StringMap<int32_t> &packed)
      : kernels(kernels), packed(packed) {}

  plan::Program emit(ir::plan::ProgramOp op) {
    auto number = [&](StringRef name) { return op->getAttrOfType<IntegerAttr>(name).getInt(); };
    program.name = op.getName().str();
    program.target = op.getTarget().str();
    program.rank = int32_t(op.getRank());
    program.arena_bytes = op.getArenaBytes();
    program.max_rows = int32_t(number("max_rows"));
    program.scratch_bytes = number("scratch_bytes");
    program.shared_bytes = number("shared_bytes");
    for (auto name : op->getAttrOfType<ArrayAttr>("inputs").getAsRange<StringAttr>())
      program.inputs.push_back({name.str(), -1});
    for (auto name : op->getAttrOfType<ArrayAttr>("outputs").getAsRange<StringAttr>())
      program.outputs.push_back({name.str(), -1});
    for (Operation &step : op.getBody().front()) {
      if (auto buffer = dyn_cast<ir::plan::BufferOp>(step))
        addBuffer(buffer);
      else if (auto launch = dyn_cast<ir::plan::LaunchOp>(step))
        program.steps.push_back({.kind = plan::StepKind::kLaunch,
                                 .kernel = kernels.lookup(launch.getKernel()),
                                 .args = argsOf(launch.getBuffers(), launch.getArgs()),
                                 .part = partOf(launch.getPart()),
                                 .waits = launch.getWaits(),
                                 .bytes = int64_t(launch.getBytes()),
                                 .flops = int64_t(launch.getFlops()),
                                 .origin = launch.getOrigin().str()});
      else if (auto collective = dyn_cast<ir::plan::CollectiveOp>(step))
        program.steps.push_back({.kind = plan::StepKind::kCollective,
                                 .kernel = kernels.lookup(collective.getKernel()),
                                 .args = argsOf(collective.getBuffers(), collective.getArgs()),
                                 .waits = true,
                                 .bytes = int64_t(collective.getBytes()),
                                 .flops = int64_t(collective.getFlops()),
                                 .origin = collective.getOrigin().str()});
    }
    return std::move(program);
  }

private:
  void addBuffer(ir::plan::BufferOp op) {
    plan::Buffer buffer{.name = op.getSymbol().str(), .offset = int64_t(op.getOffset()),
                        .bytes = int64_t(op.getBytes())};
    auto type = cast<RankedTensorType>(op.getType());
    buffer.dtype = type.getElementType().isInteger(8) ? DType::kU8 : passes::dtypeOf(type.getElementType());
    for (int64_t size : type.getShape())
      buffer.shape.push_back(ShapedType::isDynamic(size) ? -1 : size);
    int32_t index = int32_t(program.buffers.size());
    auto port = [&](std::vector<plan::Port> &ports) {
      for (size_t i = 0; i < ports.size(); ++i)
        if (ports[i].name == buffer.name) {
          ports[i].buffer = index;
          return int32_t(i);
        }
      return int32_t(-1);
    };
    buffer.kind = llvm::StringSwitch<plan::BufferKind>(op.getKind())
                      .Case("arena", plan::BufferKind::kArena)
                      .Case("cache", plan::BufferKind::kCache)
                      .Case("weight", plan::BufferKind::kWeight)
                      .Case("input", plan::BufferKind::kInput)
                      .Default(plan::BufferKind::kOutput);
    if (buffer.kind == plan::BufferKind::kWeight)
      buffer.index = packed.lookup(buffer.name);
    else if (buffer.kind == plan::BufferKind::kInput)
      buffer.index = port(program.inputs);
    else if (buffer.kind == plan::BufferKind::kOutput)
      buffer.index = port(program.outputs);
    buffers[op] = index;
    program.buffers.push_back(std::move(buffer));
  }

  std::vector<int32_t> argsOf(OperandRange operands, ArrayRef<int32_t> args) {
    std::vector<int32_t> list;
    for (int32_t arg : args)
      list.push_back(arg < 0 ? -1 : buffers.lookup(operands[arg]));
    return list;
  }

  const llvm::StringMap<int32_t> &kernels, &packed;
  plan::Program program;
  DenseMap<Value, int32_t> buffers;
};

} // namespace

plan::Weight weightOf(Operation *op) {
  auto param = cast<model::ParamOp>(op);
  auto type = cast<RankedTensorType>(param.getType());
  plan::Weight weight{.name = param.getSymName().str(), .dtype = passes::dtypeOf(type.getElementType()),
                      .shape = integers(type.getShape())};
  if (auto scheme = dyn_cast_or_null<model::SchemeAttr>(type.getEncoding()))
    weight.scheme = scheme.getFormat().str();
  weight.group = llvm::StringSwitch<plan::Group>(param.getGroup())
                     .Case("mtp", plan::Group::kMtp)
                     .Case("draft", plan::Group::kDraft)
                     .Default(plan::Group::kModel);
  weight.transform = llvm::StringSwitch<plan::Transform>(param.getTransform())
                         .Case("one_plus", plan::Transform::kOnePlus)
                         .Case("to_f32", plan::Transform::kToF32)
                         .Default(plan::Transform::kNone);
  for (auto pieces : param.getSources().getAsRange<ArrayAttr>()) {
    plan::Alternative &alternative = weight.alternatives.emplace_back();
    for (auto piece : pieces.getAsRange<DictionaryAttr>())
      alternative.pieces.push_back(pieceOf(piece));
  }
  return weight;
}

StatusOr<plan::Plan> emitPlan(ModuleOp module) {
  plan::Plan plan;
  plan.producer = "qwenc " QWEN_VERSION;
  auto tp = module->getAttrOfType<IntegerAttr>("model.tp");
  plan.tp = tp ? int32_t(tp.getInt()) : 1;

  auto dims = module->getAttrOfType<DictionaryAttr>("model.dims");
  plan.model.family = module->getAttrOfType<StringAttr>("model.family").str();
  plan.model.dtype = passes::dtypeOf(module->getAttrOfType<TypeAttr>("model.dtype").getValue());
  plan.model.hidden = integer(dims, "hidden");
  plan.model.layers = integer(dims, "layers");
  plan.model.vocab = integer(dims, "vocab");
  plan.model.max_model_len = integer(dims, "max_model_len");
  plan.model.eos_ids = integers(module->getAttrOfType<DenseI64ArrayAttr>("model.eos_ids").asArrayRef());
  for (auto prefix : module->getAttrOfType<ArrayAttr>("model.prefixes").getAsRange<StringAttr>())
    plan.model.prefixes.push_back(prefix.str());

  auto capacity = module->getAttrOfType<DictionaryAttr>("plan.capacity");
  plan.capacity = {.max_num_seqs = int32_t(integer(capacity, "max_num_seqs")),
                   .max_num_batched_tokens = int32_t(integer(capacity, "max_num_batched_tokens")),
                   .max_rows = int32_t(integer(capacity, "max_rows")),
                   .max_logit_rows = int32_t(integer(capacity, "max_logit_rows"))};
  for (auto state : module->getAttrOfType<ArrayAttr>("plan.states").getAsRange<DictionaryAttr>())
    plan.states.push_back(passes::stateOf(state));

  llvm::StringMap<int32_t> weights, packed, kernels;
  for (auto param : module.getOps<model::ParamOp>()) {
    weights[param.getSymName()] = int32_t(plan.weights.size());
    plan.weights.push_back(weightOf(param));
  }
  for (auto param : module.getOps<model::ParamOp>())
    if (auto alias = param.getAlias())
      plan.weights[weights[param.getSymName()]].alias = weights.lookup(*alias);
  for (auto op : module.getOps<ir::plan::PackedOp>()) {
    packed[op.getSymName()] = int32_t(plan.packed.size());
    plan.packed.push_back(packedOf(op, weights.lookup(op.getParam())));
  }
  for (auto op : module.getOps<kernel::KernelOp>()) {
    kernels[op.getSymName()] = int32_t(plan.kernels.size());
    plan.kernels.push_back({op.getSymName().str(), op.getFamily().str(), op.getEntry().str(), op.getTarget().str(),
                            passes::fieldsOf(op.getSpec()), launchOf(op->getAttrOfType<DictionaryAttr>("launch"))});
  }
  for (auto op : module.getOps<ir::plan::ProgramOp>()) {
    plan.programs.push_back(ProgramEmitter(kernels, packed).emit(op));
    if (!llvm::is_contained(plan.targets, plan.programs.back().target))
      plan.targets.push_back(plan.programs.back().target);
  }
  return plan;
}

} // namespace qwen::compiler
