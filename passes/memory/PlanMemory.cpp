//===- PlanMemory.cpp - kernel to plan: places and order ------------------===//
//
// Every program becomes a list of steps over buffers at fixed offsets. A dispatch is one step a kernel. Steps between
// two barriers run at once as far as memory is concerned (a fast thread may be a step ahead), so a buffer lives in
// whole *phases*, the stretches between barriers: two buffers may share bytes only if no phase has both.
//
// A step waits when it reads what a step since the last barrier wrote, or touches the same cache. The short and the
// long kernel of one dispatch work on different sequences and never wait for each other.
//
//===----------------------------------------------------------------------===//

#include "passes/Passes.h"
#include "passes/memory/OffsetPacker.h"
#include "passes/memory/StateLayout.h"
#include "passes/select/Bind.h"
#include "passes/select/SpecAttr.h"

#include "runtime/kernels/cuda/cuda_catalog.h"
#include "runtime/plan/layout.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

#define GEN_PASS_DEF_PLANMEMORY
#include "passes/Passes.h.inc"

namespace {

Value makeBuffer(OpBuilder &builder, Location loc, StringRef kind, StringRef symbol, int64_t offset, int64_t bytes,
                 Type type) {
  return ir::plan::BufferOp::create(builder, loc, ir::plan::BufferType::get(builder.getContext()), kind, symbol, offset,
                                    bytes, type);
}

// What the first dimension of a value counts.
enum class Rows { kTokens, kLogitRows, kSequences };

struct Capacity {
  int64_t tokens, logitRows, sequences, maxRows;
  int64_t of(Rows rows) const {
    return rows == Rows::kTokens ? tokens : rows == Rows::kLogitRows ? logitRows : sequences;
  }
};

// One kernel of one dispatch, before it is written down.
struct StepDraft {
  kernel::DispatchOp dispatch;
  kernel::KernelOp record;
  ArrayRef<int32_t> args;
  bool waits = false;
  int phase = 0;
};

// A tensor between steps, or a dispatch's own space.
struct BufferDraft {
  Value value;        // null: arena space of a dispatch
  std::string name;
  int64_t bytes = 0;
  int first = 0, last = 0;
  int output = -1; // a result of the program: its memory is the caller's, not the arena's
};

class ProgramPlanner {
public:
  ProgramPlanner(func::FuncOp program, const Capacity &capacity, const plan::State &state, SymbolTable &symbols,
                 llvm::MapVector<Attribute, ir::plan::PackedOp> &packed, OpBuilder top)
      : program(program), capacity(capacity), state(state), symbols(symbols), packed(packed), top(top) {}

  FailureOr<ir::plan::ProgramOp> run();

private:
  StringRef target() { return program->getAttrOfType<StringAttr>(model::kTargetAttr).getValue(); }
  LogicalResult draftSteps();
  void draftBuffers();
  void markRows(kernel::DispatchOp dispatch);
  int64_t bytesOf(Value value) const;
  Value bufferFor(Value value, StringRef layout, OpBuilder &builder);
  ir::plan::PackedOp packedFor(model::WeightOp weight, StringRef layout);

  func::FuncOp program;
  const Capacity &capacity;
  const plan::State &state;
  SymbolTable &symbols;
  llvm::MapVector<Attribute, ir::plan::PackedOp> &packed;
  OpBuilder top;

  DenseMap<Value, Rows> rows;
  std::vector<StepDraft> steps;
  std::vector<BufferDraft> drafts;
  DenseMap<Value, size_t> draftOf;
  DenseMap<Operation *, size_t> tempOf;
  std::vector<kernels::Workspace> workspaces;
  int64_t scratchBytes = 0, sharedBytes = 0;

  llvm::MapVector<Attribute, Value> sharedBuffers; // weights, caches and inputs, by what they are
  DenseMap<Value, Value> bufferOf;
};

// A value's rows are those of the first tensor it comes from; the ops that change rows say so.
void ProgramPlanner::markRows(kernel::DispatchOp dispatch) {
  auto rowsOf = [&](Value value) {
    auto known = rows.find(value);
    return known == rows.end() ? Rows::kTokens : known->second;
  };
  for (auto [argument, operand] : llvm::zip(dispatch.block().getArguments(), dispatch.getInputs()))
    if (auto known = rows.find(operand); known != rows.end())
      rows[argument] = known->second;
  for (Operation &op : dispatch.block().without_terminator()) {
    Rows kind = Rows::kTokens;
    if (isa<model::LogitRowsOp>(op))
      kind = Rows::kLogitRows;
    else if (isa<model::AcceptOp>(op))
      kind = Rows::kSequences;
    else
      for (Value operand : op.getOperands())
        if (rowsOf(operand) != Rows::kTokens)
          kind = rowsOf(operand);
    for (Value result : op.getResults())
      rows[result] = kind;
  }
  for (auto [result, inner] : llvm::zip(dispatch.getResults(), dispatch.yield().getValues()))
    rows[result] = rowsOf(inner);
}

int64_t ProgramPlanner::bytesOf(Value value) const {
  auto type = cast<RankedTensorType>(value.getType());
  auto kind = rows.find(value);
  int64_t count = 1;
  for (int64_t size : type.getShape())
    count *= ShapedType::isDynamic(size) ? capacity.of(kind == rows.end() ? Rows::kTokens : kind->second) : size;
  return count * DTypeBytes(dtypeOf(value));
}

LogicalResult ProgramPlanner::draftSteps() {
  DenseSet<Value> dirty;             // written since the last barrier
  llvm::StringMap<Operation *> used; // caches touched since then, by which dispatch
  int phase = 0;
  WalkResult walked = program.walk([&](kernel::DispatchOp dispatch) {
    markRows(dispatch);
    for (auto [index, list] : llvm::enumerate(dispatch.getArgs()->getAsRange<DenseI32ArrayAttr>())) {
      auto symbol = cast<FlatSymbolRefAttr>((*dispatch.getKernels())[index]);
      StepDraft step{dispatch, symbols.lookup<kernel::KernelOp>(symbol.getValue()), list.asArrayRef()};
      const kernels::KernelInfo *info = kernels::FindKernel(step.record.getEntry().str());
      auto spec = info->decode(fieldsOf(step.record.getSpec()));
      if (!spec.ok())
        return dispatch.emitOpError("kernel record ") << symbol << ": " << spec.status().message(),
               WalkResult::interrupt();
      kernels::Workspace space = info->workspace(spec->get(), int(capacity.tokens));
      if (target() != "cpu") {
        // The arena space is the family's on every target, the rest is the device's.
        kernels::CudaWorkspace device =
            kernels::FindCudaKernel(info->entry)
                ->workspace(spec->get(), {.max_num_seqs = int(capacity.sequences),
                                          .max_num_batched_tokens = int(capacity.tokens),
                                          .max_rows = int(capacity.maxRows)});
        space.scratch = device.scratch;
        space.shared = device.shared;
      }
      workspaces.push_back(space);
      scratchBytes = std::max(scratchBytes, space.scratch);
      sharedBytes = std::max(sharedBytes, space.shared);

      if (index == 0) {
        for (Value operand : dispatch.getInputs()) {
          step.waits |= dirty.contains(operand);
          if (auto cache = operand.getDefiningOp<model::StateOp>())
            if (auto user = used.find(cache.getName()); user != used.end())
              step.waits |= user->second != dispatch;
        }
      } else {
        bool otherSequences = steps.back().record.getPart() == "short" && step.record.getPart() == "long";
        step.waits = !otherSequences;
      }
      bool collective = info->collective;
      step.waits |= collective;
      if (step.waits) {
        ++phase;
        dirty.clear();
        used.clear();
      }
      step.phase = phase;
      if (collective)
        ++phase; // every rank leaves it together
      else
        for (Value result : dispatch.getResults())
          dirty.insert(result);
      for (Value operand : dispatch.getInputs())
        if (auto cache = operand.getDefiningOp<model::StateOp>())
          used[cache.getName()] = dispatch;
      steps.push_back(step);
    }
    return WalkResult::advance();
  });
  return failure(walked.wasInterrupted());
}

void ProgramPlanner::draftBuffers() {
  auto results = program.getBody().front().getTerminator()->getOperands();
  for (auto [index, step] : llvm::enumerate(steps)) {
    for (Value result : step.dispatch.getResults()) {
      auto [entry, inserted] = draftOf.insert({result, drafts.size()});
      if (inserted) {
        BufferDraft draft{result, step.dispatch.getOrigin().value_or("").str(), bytesOf(result), step.phase, step.phase};
        auto output = llvm::find(results, result);
        if (output != results.end())
          draft.output = int(output - results.begin());
        drafts.push_back(draft);
      }
      BufferDraft &draft = drafts[entry->second];
      draft.last = std::max(draft.last, step.phase);
    }
    for (Value operand : step.dispatch.getInputs())
      if (auto entry = draftOf.find(operand); entry != draftOf.end())
        drafts[entry->second].last = std::max(drafts[entry->second].last, step.phase);
    if (workspaces[index].temp > 0) {
      auto [entry, inserted] = tempOf.insert({step.dispatch, drafts.size()});
      if (inserted)
        drafts.push_back({Value(), (step.dispatch.getOrigin().value_or("") + ".temp").str(), 0, step.phase, step.phase});
      BufferDraft &draft = drafts[entry->second];
      draft.bytes = std::max(draft.bytes, workspaces[index].temp);
      draft.last = std::max(draft.last, step.phase);
    }
  }
}

ir::plan::PackedOp ProgramPlanner::packedFor(model::WeightOp weight, StringRef layout) {
  auto param = symbols.lookup<model::ParamOp>(weight.getParam());
  if (auto alias = param.getAliasAttr())
    param = symbols.lookup<model::ParamOp>(alias.getValue());
  Builder builder(weight.getContext());
  int64_t rank = program->getAttrOfType<IntegerAttr>(model::kRankAttr).getInt();
  ArrayAttr slices = weight.getSlicesAttr();
  if (!slices) {
    SmallVector<Attribute> whole(cast<RankedTensorType>(param.getType()).getRank(), builder.getArrayAttr({}));
    slices = builder.getArrayAttr(whole);
  }
  Attribute key = builder.getArrayAttr({param.getSymNameAttr(), builder.getI64IntegerAttr(rank),
                                        builder.getStringAttr(layout), slices});
  ir::plan::PackedOp &op = packed[key];
  if (op)
    return op;

  plan::Weight whole{.dtype = dtypeOf(cast<RankedTensorType>(param.getType()).getElementType())};
  llvm::append_range(whole.shape, cast<RankedTensorType>(param.getType()).getShape());
  plan::Packed cut{.layout = layout == "rows"     ? plan::Layout::kRows
                             : layout == "vector" ? plan::Layout::kVector
                                                  : plan::Layout::kTile16};
  for (auto list : slices.getAsRange<ArrayAttr>()) {
    auto &ranges = cut.slices.emplace_back();
    for (size_t i = 0; i < list.size(); i += 2)
      ranges.push_back({cast<IntegerAttr>(list[i]).getInt(), cast<IntegerAttr>(list[i + 1]).getInt()});
  }
  // The verifier of model.weight has checked the slices.
  plan::PackedSize size = *plan::PackedBytes(whole, cut);
  std::string name = (param.getSymName() + "__" + layout + "_r" + Twine(rank)).str();
  op = ir::plan::PackedOp::create(top, param.getLoc(), name, param.getSymName(), rank, layout, slices, size.bytes,
                              size.net_bytes);
  symbols.insert(op); // renames where one layout of a weight is cut in two ways
  return op;
}

// The buffer of a value that is no arena tensor: made at first use, before the steps.
Value ProgramPlanner::bufferFor(Value value, StringRef layout, OpBuilder &builder) {
  if (Value known = bufferOf.lookup(value); known && layout.empty())
    return known;
  Location loc = value.getLoc();
  if (auto weight = value.getDefiningOp<model::WeightOp>()) {
    ir::plan::PackedOp op = packedFor(weight, layout);
    Value &buffer = sharedBuffers[op.getSymNameAttr()];
    if (!buffer)
      buffer = makeBuffer(builder, loc, "weight", op.getSymName(), 0, op.getBytes(), weight.getType());
    return buffer;
  }
  if (auto handle = value.getDefiningOp<model::StateOp>()) {
    Value &buffer = sharedBuffers[handle.getNameAttr()];
    if (buffer)
      return buffer;
    int64_t offset = 0, bytes = 0;
    for (const plan::KvLayer &layer : state.kv_layers)
      if (layer.name == handle.getName()) {
        offset = layer.offset;
        bytes = plan::KvLayerBytes(layer);
      }
    for (const plan::DeltaLayer &layer : state.delta_layers)
      if (layer.name == handle.getName()) {
        offset = layer.offset;
        bytes = plan::DeltaLayerBytes(layer, state.ring_rows, state.conv_rows).bytes();
      }
    buffer = makeBuffer(builder, loc, "cache", handle.getName(), offset, bytes,
                                    RankedTensorType::get({bytes}, builder.getI8Type()));
    return buffer;
  }
  // An input of the program beyond the batch.
  auto argument = cast<BlockArgument>(value);
  auto names = program->getAttrOfType<ArrayAttr>(model::kInputsAttr);
  Value buffer = makeBuffer(builder, loc, "input",
                                        cast<StringAttr>(names[argument.getArgNumber()]).getValue(), 0, bytesOf(value),
                                        value.getType());
  bufferOf[value] = buffer;
  return buffer;
}

FailureOr<ir::plan::ProgramOp> ProgramPlanner::run() {
  if (failed(draftSteps()))
    return failure();
  draftBuffers();

  std::vector<LiveBuffer> live;
  std::vector<size_t> liveDraft;
  for (auto [index, draft] : llvm::enumerate(drafts))
    if (draft.output < 0) {
      live.push_back({draft.bytes, draft.first, draft.last});
      liveDraft.push_back(index);
    }
  Packing packing = packOffsets(live, plan::kAlignment);

  int64_t rank = program->getAttrOfType<IntegerAttr>(model::kRankAttr).getInt();
  StringRef name = program->getAttrOfType<StringAttr>(model::kProgramAttr).getValue();
  OpBuilder builder(program);
  auto op = ir::plan::ProgramOp::create(builder, program.getLoc(), (name + "__" + target() + "_r" + Twine(rank)).str(),
                                          name, target(), rank, packing.bytes);
  auto set = [&](StringRef key, int64_t value) { op->setAttr(key, builder.getI64IntegerAttr(value)); };
  set("max_rows", program->getAttrOfType<IntegerAttr>(model::kMaxRowsAttr).getInt());
  set("scratch_bytes", scratchBytes);
  set("shared_bytes", sharedBytes);
  builder.setInsertionPointToStart(&op.getBody().emplaceBlock());

  auto results = program.getBody().front().getTerminator()->getOperands();
  auto outputs = program->getAttrOfType<ArrayAttr>(model::kOutputsAttr);
  for (auto [index, result] : llvm::enumerate(results))
    if (!draftOf.contains(result))
      return program.emitError("output ") << outputs[index] << " is not computed by a dispatch";

  // Buffers first: weights, caches and inputs at first use, then the arena and the outputs.
  SmallVector<SmallVector<Value>> operands(steps.size());
  DenseMap<Operation *, Value> tempBuffer;
  std::vector<int64_t> offsets(drafts.size(), 0);
  for (auto [index, draft] : llvm::enumerate(liveDraft))
    offsets[draft] = packing.offsets[index];
  for (auto [index, draft] : llvm::enumerate(drafts)) {
    if (!draft.value)
      continue;
    bufferOf[draft.value] = makeBuffer(
        builder, draft.value.getLoc(), draft.output < 0 ? "arena" : "output",
        draft.output < 0 ? StringRef(draft.name) : cast<StringAttr>(outputs[draft.output]).getValue(),
        draft.output < 0 ? offsets[index] : 0, draft.bytes, draft.value.getType());
  }
  for (StepDraft &step : steps) // in program order, which the map does not keep
    if (auto entry = tempOf.find(step.dispatch); entry != tempOf.end() && !tempBuffer.contains(step.dispatch)) {
      const BufferDraft &draft = drafts[entry->second];
      tempBuffer[step.dispatch] =
          makeBuffer(builder, step.dispatch.getLoc(), "arena", draft.name, offsets[entry->second],
                                 draft.bytes, RankedTensorType::get({draft.bytes}, builder.getI8Type()));
    }

  SmallVector<SmallVector<int32_t>> stepArgs(steps.size());
  for (auto [index, step] : llvm::enumerate(steps)) {
    kernel::DispatchOp dispatch = step.dispatch;
    int32_t numInputs = dispatch.getNumOperands(), numValues = numInputs + dispatch.getNumResults();
    for (int32_t arg : step.args) {
      Value buffer;
      if (arg >= 0 && arg < numInputs)
        buffer = bufferFor(dispatch.getInputs()[arg],
                           cast<StringAttr>((*dispatch.getLayouts())[arg]).getValue(), builder);
      else if (arg >= numInputs && arg < numValues)
        buffer = bufferOf[dispatch.getResult(arg - numInputs)];
      else if (arg == numValues)
        buffer = tempBuffer.lookup(dispatch);
      if (!buffer) {
        stepArgs[index].push_back(-1);
        continue;
      }
      auto known = llvm::find(operands[index], buffer);
      stepArgs[index].push_back(int32_t(known - operands[index].begin()));
      if (known == operands[index].end())
        operands[index].push_back(buffer);
    }
  }
  for (auto [index, step] : llvm::enumerate(steps)) {
    // The figures of one decoded token; attention at a context of 1,024.
    const kernels::KernelInfo *info = kernels::FindKernel(step.record.getEntry().str());
    auto spec = info->decode(fieldsOf(step.record.getSpec()));
    kernels::Work work = info->work(spec->get(), 1, 1024);
    auto kernelRef = FlatSymbolRefAttr::get(step.record.getSymNameAttr());
    StringRef origin = step.dispatch.getOrigin().value_or("");
    if (info->collective)
      ir::plan::CollectiveOp::create(builder, step.dispatch.getLoc(), kernelRef, operands[index],
                                 builder.getDenseI32ArrayAttr(stepArgs[index]), builder.getI64IntegerAttr(int64_t(work.bytes)),
                                 builder.getI64IntegerAttr(int64_t(work.flops)), builder.getStringAttr(origin));
    else
      ir::plan::LaunchOp::create(builder, step.dispatch.getLoc(), kernelRef, operands[index],
                             builder.getDenseI32ArrayAttr(stepArgs[index]),
                             builder.getStringAttr(step.record.getPart()),
                             step.waits ? builder.getUnitAttr() : UnitAttr(), builder.getI64IntegerAttr(int64_t(work.bytes)),
                             builder.getI64IntegerAttr(int64_t(work.flops)), builder.getStringAttr(origin));
  }
  op->setAttr("outputs", outputs);
  SmallVector<Attribute> inputs;
  for (Attribute input : program->getAttrOfType<ArrayAttr>(model::kInputsAttr))
    if (!llvm::is_contained({"batch", "token_ids"}, cast<StringAttr>(input).getValue()))
      inputs.push_back(input);
  op->setAttr("inputs", builder.getArrayAttr(inputs));
  return op;
}

struct PlanMemory : impl::PlanMemoryBase<PlanMemory> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto limits = module->getAttrOfType<DictionaryAttr>("plan.capacity");
    if (!limits)
      return module.emitError("has no plan.capacity: how many sequences, tokens and logit rows a step holds"),
             signalPassFailure();
    auto limit = [&](StringRef name) { return limits.getAs<IntegerAttr>(name).getInt(); };
    Capacity capacity{limit("max_num_batched_tokens"), limit("max_logit_rows"), limit("max_num_seqs"),
                      limit("max_rows")};

    SymbolTable symbols(module);
    OpBuilder top(&getContext());
    top.setInsertionPointToEnd(module.getBody());
    llvm::MapVector<Attribute, ir::plan::PackedOp> packed;
    llvm::MapVector<int64_t, SmallVector<func::FuncOp>> byRank;
    for (auto program : llvm::make_early_inc_range(module.getOps<func::FuncOp>()))
      byRank[program->getAttrOfType<IntegerAttr>(model::kRankAttr).getInt()].push_back(program);

    Builder builder(&getContext());
    SmallVector<Attribute> states;
    for (auto &[rank, programs] : byRank) {
      // Every target has the same programs, and keeps the same state.
      auto target = programs.front()->getAttr(model::kTargetAttr);
      auto once = llvm::filter_to_vector(
          programs, [&](func::FuncOp program) { return program->getAttr(model::kTargetAttr) == target; });
      plan::State state = layoutStates(once, limit("max_rows"));
      states.push_back(stateAttr(builder, state));
      for (func::FuncOp program : programs) {
        ProgramPlanner planner(program, capacity, state, symbols, packed, top);
        if (failed(planner.run()))
          return signalPassFailure();
        program.erase();
      }
    }
    module->setAttr("plan.states", builder.getArrayAttr(states));
  }
};

} // namespace
} // namespace qwen::passes
