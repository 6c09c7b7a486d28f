//===- ShardTensorParallel.cpp - one program a rank -----------------------===//
//
// Works in two steps. First every value of a program gets a layout: which of its channels each rank holds. The ops that
// know heads (attention, the delta rule) and the activations of feed-forward blocks set it; from them it spreads, both
// ways, over ops that treat channels alike, and stops at linears: one whose output has a layout is column parallel, one
// whose input has a layout is row parallel and gives a partial sum. Then each rank's program is written, op by op, with
// narrowed types and sliced weights, a sum behind every row parallel op and a gather behind the logits.
//
//===----------------------------------------------------------------------===//

#include "passes/Passes.h"
#include "passes/shard/ShardPlan.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;
using namespace qwen::ir::model;
using namespace qwen::shard;

namespace qwen::passes {
#define GEN_PASS_DEF_SHARDTENSORPARALLEL
#include "passes/Passes.h.inc"

namespace {

/// What each rank holds of a value's channels.
using Layout = std::vector<Ranges>;

Layout layoutOf(const std::vector<Range> &shares, int64_t width) {
  Layout layout;
  for (Range share : shares)
    layout.push_back({scaled(share, width)});
  return layout;
}

Layout scaledLayout(const Layout &layout, int64_t width) {
  Layout result = layout;
  for (Ranges &ranges : result)
    for (Range &range : ranges)
      range = scaled(range, width);
  return result;
}

/// The layer that a weight or a state belongs to, by the number behind "layers."; 0 without one.
int64_t layerOf(StringRef name) {
  static constexpr StringLiteral marker("layers.");
  size_t at = name.find(marker);
  int64_t layer = 0;
  if (at != StringRef::npos)
    name.drop_front(at + marker.size()).consumeInteger(10, layer);
  return layer;
}

StringRef stateName(Value state) {
  auto op = state.getDefiningOp<StateOp>();
  return op ? op.getName() : StringRef();
}

Type withChannels(Type type, int64_t channels, Type elementType = {}) {
  auto tensor = cast<RankedTensorType>(type);
  SmallVector<int64_t> shape(tensor.getShape());
  shape.back() = channels;
  return RankedTensorType::get(shape, elementType ? elementType : tensor.getElementType());
}

/// The values whose channels an op treats alike: cut one and all are cut. Empty for other ops.
SmallVector<Value> alikeValues(Operation *op) {
  if (isa<RopeOp, QKNormOp, L2NormOp, CausalConv1dOp>(op))
    return {op->getOperand(0), op->getResult(0)};
  if (isa<SigmoidGateOp, SiluMulOp, GatedRMSNormOp>(op))
    return {op->getOperand(0), op->getOperand(1), op->getResult(0)};
  if (auto gates = dyn_cast<DeltaGatesOp>(op))
    return {gates.getB(), gates.getA(), gates.getBeta(), gates.getG()};
  return {};
}

struct Settings {
  int64_t ranks;
  bool expertParallel;
  bool rotate;

  /// Gives share `shares[i]` to the rank that takes it in `layer`.
  std::vector<Range> deal(std::vector<Range> shares, int64_t layer) const {
    if (!rotate)
      return shares;
    std::vector<Range> dealt;
    for (int64_t rank = 0; rank < ranks; ++rank)
      dealt.push_back(shares[rotatedShare(rank, layer, ranks)]);
    return dealt;
  }
};

/// How the ranks share one layer's attention. The programs of a module agree on it, as they share the cache.
struct AttentionShares {
  std::vector<int64_t> kvMap;
  std::vector<Range> queries;
  Layout kvHeads;
};
using AttentionByState = llvm::StringMap<AttentionShares>;

LogicalResult collectAttention(ModuleOp module, const Settings &settings, AttentionByState &byState) {
  auto visit = [&](AttentionOp op) -> WalkResult {
    StringRef name = stateName(op.getCache());
    std::vector<int64_t> kvMap = op.getKvMap().vec();
    auto [entry, isFirst] = byState.try_emplace(name);
    AttentionShares &shares = entry->second;
    if (!isFirst) {
      if (shares.kvMap != kvMap)
        return op.emitOpError("reads state \"") << name << "\" with another kv_map than a program before it";
      return WalkResult::advance();
    }
    shares.kvMap = kvMap;
    shares.queries = settings.deal(splitUnits(kvMap.size(), settings.ranks), layerOf(name));
    for (Range queries : shares.queries)
      shares.kvHeads.push_back(kvHeadsOf(queries, kvMap));
    return WalkResult::advance();
  };
  return failure(module.walk(visit).wasInterrupted());
}

//===----------------------------------------------------------------------===//
// Layouts
//===----------------------------------------------------------------------===//

class ProgramLayout {
public:
  ProgramLayout(func::FuncOp program, const Settings &settings, const AttentionByState &attention)
      : program(program), settings(settings), attention(attention) {}

  LogicalResult run();

  const Layout *of(Value value) const {
    auto found = layouts.find(value);
    return found == layouts.end() ? nullptr : &found->second;
  }
  /// What a rank holds of a value's channels; nothing said when it holds them all.
  std::optional<Ranges> ranges(Value value, int64_t rank) const {
    const Layout *layout = of(value);
    return layout ? std::optional<Ranges>((*layout)[rank]) : std::nullopt;
  }
  /// Key heads of a recurrent state by rank.
  std::vector<Range> keyHeads(RecurrentStateType type, StringRef name) const {
    return settings.deal(splitUnits(type.getKeyHeads(), settings.ranks), layerOf(name));
  }
  std::vector<Range> vocab(LmHeadOp op) const {
    return splitChannels(channelsOf(op.getY()), kVocabUnit, settings.ranks);
  }
  /// Experts with `moe=ep`, else intermediate channels of every expert.
  std::vector<Range> experts(ExpertsOp op) const {
    auto weight = op.getDown().getDefiningOp<WeightOp>();
    int64_t layer = weight ? layerOf(weight.getParam()) : 0;
    if (settings.expertParallel)
      return settings.deal(splitUnits(op.getDown().getType().getDimSize(0), settings.ranks), layer);
    return settings.deal(splitChannels(channelsOf(op.getDown()), kFeedForwardUnit, settings.ranks), layer);
  }
  /// A partial sum, which the ranks must add before anything else may read it.
  bool isPartial(Operation *op) const {
    if (auto linear = dyn_cast<LinearOp>(op))
      return of(linear.getX());
    if (auto combine = dyn_cast<CombineOp>(op))
      return isPartialValue(combine.getRouted());
    return isa<ExpertsOp>(op);
  }
  /// A partial sum that `combine` adds to another one: the sum over the ranks comes behind it.
  bool staysPartial(Operation *op) const {
    auto combine = op->getResult(0).hasOneUse() ? dyn_cast<CombineOp>(*op->user_begin()) : CombineOp();
    return combine && isPartialValue(combine.getRouted()) && isPartialValue(combine.getShared());
  }

private:
  bool isPartialValue(Value value) const { return value.getDefiningOp() && isPartial(value.getDefiningOp()); }

  LogicalResult assign(Value value, Layout layout);
  LogicalResult spread(Operation *op);
  LogicalResult spreadSplit(SplitOp op);
  LogicalResult seedHeads(Operation *op);
  LogicalResult seedFeedForward(SiluMulOp op);
  LogicalResult check(Operation *op) const;

  func::FuncOp program;
  const Settings &settings;
  const AttentionByState &attention;
  llvm::DenseMap<Value, Layout> layouts;
};

LogicalResult ProgramLayout::assign(Value value, Layout layout) {
  for (Ranges &ranges : layout) // one way to say "nothing": two ops may come to it from different heads
    std::erase_if(ranges, [](Range range) { return !range.size(); });
  auto [entry, isFirst] = layouts.try_emplace(value, layout);
  if (!isFirst) {
    if (entry->second == layout)
      return success();
    return emitError(value.getLoc(), "channels are cut in two ways: two ops that read them know different heads");
  }
  if (Operation *producer = value.getDefiningOp())
    if (failed(spread(producer)))
      return failure();
  for (Operation *reader : value.getUsers())
    if (failed(spread(reader)))
      return failure();
  return success();
}

LogicalResult ProgramLayout::spread(Operation *op) {
  if (auto split = dyn_cast<SplitOp>(op))
    return spreadSplit(split);
  SmallVector<Value> values = alikeValues(op);
  const Layout *known = nullptr;
  for (Value value : values)
    known = known ? known : of(value);
  if (!known)
    return success();
  Layout layout = *known; // assign() may move the map's entries
  for (Value value : values)
    if (failed(assign(value, layout)))
      return failure();
  return success();
}

/// From the parts to the whole. Parts of whole channels lie one behind the other; parts of a head lie head by head.
LogicalResult ProgramLayout::spreadSplit(SplitOp op) {
  if (!llvm::all_of(op.getParts(), [&](Value part) { return of(part); }))
    return success();
  Layout layout(settings.ranks);
  int64_t heads = op.getHeads(), offset = 0;
  if (heads == 1) {
    for (Value part : op.getParts()) {
      for (int64_t rank = 0; rank < settings.ranks; ++rank)
        for (Range range : of(part)->at(rank))
          layout[rank].push_back({offset + range.begin, offset + range.end});
      offset += channelsOf(part);
    }
    return assign(op.getX(), layout);
  }
  int64_t width = channelsOf(op.getX()) / heads;
  for (int64_t rank = 0; rank < settings.ranks; ++rank) {
    Ranges owned;
    for (Value part : op.getParts()) {
      int64_t partWidth = channelsOf(part) / heads;
      Ranges partHeads = of(part)->at(rank);
      for (Range &range : partHeads) {
        if (range.begin % partWidth || range.end % partWidth)
          return op.emitOpError("is cut inside a head");
        range = {range.begin / partWidth, range.end / partWidth};
      }
      if (part != op.getParts().front() && partHeads != owned)
        return op.emitOpError("has parts that own different heads");
      owned = partHeads;
    }
    for (Range range : owned)
      layout[rank].push_back(scaled(range, width));
  }
  return assign(op.getX(), layout);
}

/// Attention and the delta rule know which channels form a head.
LogicalResult ProgramLayout::seedHeads(Operation *op) {
  if (auto read = dyn_cast<AttentionOp>(op)) {
    const AttentionShares &shares = attention.at(stateName(read.getCache()));
    Layout layout = layoutOf(shares.queries, read.getCache().getType().getHeadDim());
    return success(succeeded(assign(read.getQ(), layout)) && succeeded(assign(read.getY(), layout)));
  }
  if (auto append = dyn_cast<KvAppendOp>(op)) {
    auto found = attention.find(stateName(append.getCache()));
    if (found == attention.end())
      return success();
    Layout layout = scaledLayout(found->second.kvHeads, append.getCache().getType().getHeadDim());
    return success(succeeded(assign(append.getK(), layout)) && succeeded(assign(append.getV(), layout)));
  }
  if (auto conv = dyn_cast<CausalConv1dOp>(op)) {
    RecurrentStateType type = conv.getState().getType();
    Layout layout;
    for (Range keys : keyHeads(type, stateName(conv.getState())))
      layout.push_back(
          deltaNetChannels(keys, type.getKeyHeads(), type.getValueHeads(), type.getKeyDim(), type.getValueDim()));
    return assign(conv.getX(), layout);
  }
  if (auto rule = dyn_cast<GatedDeltaRuleOp>(op)) {
    RecurrentStateType type = rule.getState().getType();
    std::vector<Range> keys = keyHeads(type, stateName(rule.getState())), values;
    for (Range range : keys)
      values.push_back(valueHeadsOf(range, type.getKeyHeads(), type.getValueHeads()));
    Layout keyLayout = layoutOf(keys, type.getKeyDim()), valueLayout = layoutOf(values, type.getValueDim()),
           headLayout = layoutOf(values, 1);
    return success(succeeded(assign(rule.getQ(), keyLayout)) && succeeded(assign(rule.getK(), keyLayout)) &&
                   succeeded(assign(rule.getV(), valueLayout)) && succeeded(assign(rule.getY(), valueLayout)) &&
                   succeeded(assign(rule.getBeta(), headLayout)) && succeeded(assign(rule.getG(), headLayout)));
  }
  return success();
}

LogicalResult ProgramLayout::seedFeedForward(SiluMulOp op) {
  if (of(op.getY()))
    return success();
  auto gate = op.getGate().getDefiningOp<LinearOp>();
  auto weight = gate ? gate.getWeight().getDefiningOp<WeightOp>() : WeightOp();
  std::vector<Range> shares = splitChannels(channelsOf(op.getY()), kFeedForwardUnit, settings.ranks);
  return assign(op.getY(), layoutOf(settings.deal(shares, weight ? layerOf(weight.getParam()) : 0), 1));
}

/// Every reader of a cut value must be one that can work on a part of the channels.
LogicalResult ProgramLayout::check(Operation *op) const {
  if (auto weight = dyn_cast<WeightOp>(op))
    if (weight.getSlicesAttr())
      return weight.emitOpError("is sliced already: shard-tensor-parallel takes whole weights");
  if (auto linear = dyn_cast<LinearOp>(op))
    if (of(linear.getX()) && of(linear.getY()))
      return linear.emitOpError("has both its input and its output cut: there is no sum to put between them");
  if (auto combine = dyn_cast<CombineOp>(op))
    if (isPartialValue(combine.getRouted()) != isPartialValue(combine.getShared()))
      return combine.emitOpError("adds a partial sum to a whole one");
  if (auto split = dyn_cast<SplitOp>(op))
    for (Value part : split.getParts())
      if (!of(part) != !of(split.getX()))
        return split.emitOpError("has a part that no op with heads reads");
  for (Value result : op->getResults())
    if (of(result) && alikeValues(op).empty() && !isa<LinearOp, SplitOp, AttentionOp, GatedDeltaRuleOp>(op))
      return op->emitOpError("gives whole rows, but what reads them knows only a rank's part");
  for (Value operand : op->getOperands())
    if (of(operand) && alikeValues(op).empty() &&
        !isa<LinearOp, SplitOp, AttentionOp, KvAppendOp, GatedDeltaRuleOp>(op))
      return op->emitOpError("needs whole rows, but operand ")
             << std::distance(op->operand_begin(), llvm::find(op->getOperands(), operand))
             << " is cut over the ranks and no projection sums it up before";
  return success();
}

LogicalResult ProgramLayout::run() {
  if (!llvm::hasSingleElement(program.getBody()))
    return program.emitError("is not one block of ops");
  for (Operation &op : program.front())
    if (failed(seedHeads(&op)))
      return failure();
  for (auto op : program.front().getOps<SiluMulOp>())
    if (failed(seedFeedForward(op)))
      return failure();
  for (BlockArgument argument : program.getArguments())
    if (of(argument))
      return program.emitError("argument ") << argument.getArgNumber() << " is whole, but its readers cut it";
  for (Operation &op : program.front())
    if (failed(check(&op)))
      return failure();
  return success();
}

//===----------------------------------------------------------------------===//
// One rank's program
//===----------------------------------------------------------------------===//

class RankWriter {
public:
  RankWriter(func::FuncOp program, const ProgramLayout &layout, const AttentionByState &attention,
             const Settings &settings, int64_t rank)
      : program(program), layout(layout), attention(attention), settings(settings), rank(rank),
        builder(program->getContext()) {}

  func::FuncOp write();

private:
  void writeOp(Operation &op);
  Type stateType(StateOp op);
  SmallVector<std::optional<Ranges>> slicesOf(Operation *op, Value operand);
  Value slicedWeight(WeightOp whole, ArrayRef<std::optional<Ranges>> slices);

  func::FuncOp program;
  const ProgramLayout &layout;
  const AttentionByState &attention;
  const Settings &settings;
  int64_t rank;
  OpBuilder builder;
  IRMapping mapping;
  llvm::DenseMap<std::pair<Operation *, Attribute>, Value> weights;
};

/// What the rank holds of a weight operand: ranges a dimension, nothing for a whole dimension.
SmallVector<std::optional<Ranges>> RankWriter::slicesOf(Operation *op, Value operand) {
  constexpr std::nullopt_t whole = std::nullopt;
  if (auto linear = dyn_cast<LinearOp>(op))
    return {layout.ranges(linear.getY(), rank), layout.ranges(linear.getX(), rank)};
  if (auto conv = dyn_cast<CausalConv1dOp>(op))
    return {layout.ranges(conv.getX(), rank), whole};
  if (auto gates = dyn_cast<DeltaGatesOp>(op))
    return {layout.ranges(gates.getB(), rank)};
  if (auto head = dyn_cast<LmHeadOp>(op))
    return {Ranges{layout.vocab(head)[rank]}, whole};
  if (auto experts = dyn_cast<ExpertsOp>(op)) {
    Range share = layout.experts(experts)[rank];
    if (settings.expertParallel)
      return {Ranges{share}, whole, whole};
    if (operand == experts.getDown())
      return {whole, whole, Ranges{share}};
    return {whole, gateUpRows(share, channelsOf(experts.getDown())), whole};
  }
  return SmallVector<std::optional<Ranges>>(cast<RankedTensorType>(operand.getType()).getRank());
}

/// Reads `slices` of a weight; one op however often the program reads the same slices.
Value RankWriter::slicedWeight(WeightOp whole, ArrayRef<std::optional<Ranges>> slices) {
  RankedTensorType type = cast<RankedTensorType>(whole.getType());
  SmallVector<int64_t> shape(type.getShape());
  SmallVector<Attribute> lists;
  bool isWhole = true;
  for (auto [dimension, ranges] : llvm::enumerate(slices)) {
    SmallVector<int64_t> list;
    if (ranges && totalSize(*ranges) != shape[dimension]) {
      for (Range range : *ranges) {
        if (!range.size()) // gate and up rows of an empty share
          continue;
        if (!list.empty() && list.back() == range.begin) // neighbours are one
          list.back() = range.end;
        else
          list.append({range.begin, range.end});
      }
      if (list.empty())
        list.append({0, 0}); // an empty list would be all of it
      shape[dimension] = totalSize(*ranges);
      isWhole = false;
    }
    lists.push_back(builder.getI64ArrayAttr(list));
  }
  ArrayAttr attr = isWhole ? ArrayAttr() : builder.getArrayAttr(lists);
  Value &weight = weights[{whole, attr}];
  if (!weight)
    weight = WeightOp::create(builder, whole.getLoc(),
                              RankedTensorType::get(shape, type.getElementType(), type.getEncoding()),
                              whole.getParamAttr(), attr);
  return weight;
}

Type RankWriter::stateType(StateOp op) {
  if (auto type = dyn_cast<RecurrentStateType>(op.getType())) {
    Range keys = layout.keyHeads(type, op.getName())[rank];
    return RecurrentStateType::get(type.getContext(), keys.size(),
                                   valueHeadsOf(keys, type.getKeyHeads(), type.getValueHeads()).size(),
                                   type.getKeyDim(), type.getValueDim(), type.getWidth(), type.getElementType());
  }
  auto type = cast<KvCacheType>(op.getType());
  auto found = attention.find(op.getName());
  if (found == attention.end())
    return type;
  return KvCacheType::get(type.getContext(), totalSize(found->second.kvHeads[rank]), type.getHeadDim(),
                          type.getElementType());
}

void RankWriter::writeOp(Operation &op) {
  if (isa<WeightOp>(op))
    return; // written where it is read, in slices
  for (Value operand : op.getOperands())
    if (auto whole = operand.getDefiningOp<WeightOp>())
      mapping.map(operand, slicedWeight(whole, slicesOf(&op, operand)));
  Operation *local = builder.clone(op, mapping);

  for (auto [whole, result] : llvm::zip(op.getResults(), local->getResults()))
    if (layout.of(whole))
      result.setType(withChannels(whole.getType(), totalSize(*layout.ranges(whole, rank))));

  if (auto state = dyn_cast<StateOp>(local)) {
    state.getResult().setType(stateType(state));
  } else if (auto split = dyn_cast<SplitOp>(local)) {
    if (auto whole = cast<SplitOp>(op); layout.of(whole.getX()) && whole.getHeads() > 1) {
      int64_t width = channelsOf(whole.getX()) / whole.getHeads();
      split.setHeads(std::max<int64_t>(1, channelsOf(split.getX()) / width)); // no head: nothing to cut, still legal
    }
  } else if (auto read = dyn_cast<AttentionOp>(local)) {
    const AttentionShares &shares = attention.at(stateName(cast<AttentionOp>(op).getCache()));
    read.setKvMap(localKvMap(shares.queries[rank], shares.kvMap));
  } else if (auto experts = dyn_cast<ExpertsOp>(local); experts && settings.expertParallel) {
    experts.setFirstExpert(layout.experts(cast<ExpertsOp>(op))[rank].begin);
  }

  if (layout.isPartial(&op)) {
    Value whole = op.getResult(0), partial = local->getResult(0);
    partial.setType(withChannels(whole.getType(), channelsOf(whole), builder.getF32Type()));
    if (!layout.staysPartial(&op))
      mapping.map(whole, AllReduceOp::create(builder, op.getLoc(), whole.getType(), partial).getY());
  }
  if (auto head = dyn_cast<LmHeadOp>(op)) {
    SmallVector<int64_t> counts;
    for (Range share : layout.vocab(head))
      counts.push_back(share.size());
    Value part = local->getResult(0);
    part.setType(withChannels(head.getType(), counts[rank]));
    mapping.map(head.getY(), AllGatherOp::create(builder, op.getLoc(), head.getType(), part, counts).getY());
  }
}

func::FuncOp RankWriter::write() {
  builder.setInsertionPoint(program);
  auto copy = cast<func::FuncOp>(builder.cloneWithoutRegions(*program));
  copy.setName((program.getName() + "_r" + Twine(rank)).str());
  copy->setAttr(kRankAttr, builder.getI64IntegerAttr(rank));
  Block *body = copy.addEntryBlock();
  mapping.map(program.getArguments(), body->getArguments());
  builder.setInsertionPointToStart(body);
  for (Operation &op : program.front())
    writeOp(op);
  return copy;
}

//===----------------------------------------------------------------------===//
// The test hook
//===----------------------------------------------------------------------===//

/// Gives a partial sum the type `type`, down to the ops that make it.
void retypePartial(Value value, Type type) {
  if (value.getType() == type)
    return;
  value.setType(type);
  if (auto combine = value.getDefiningOp<CombineOp>()) {
    retypePartial(combine.getRouted(), type);
    retypePartial(combine.getShared(), type);
  }
}

/// Takes the `number`-th sum, from 1, out of a rank's program: its readers get the rank's own part. False when the
/// program has fewer.
bool dropAllReduce(func::FuncOp program, int64_t number) {
  for (auto sum : program.front().getOps<AllReduceOp>()) {
    if (--number)
      continue;
    retypePartial(sum.getX(), sum.getType());
    sum.getY().replaceAllUsesWith(sum.getX());
    sum.erase();
    return true;
  }
  return false;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

struct ShardTensorParallel : impl::ShardTensorParallelBase<ShardTensorParallel> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (failed(shard(module)))
      signalPassFailure();
  }

  LogicalResult shard(ModuleOp module) {
    if (tp < 1 || tp > 8)
      return module.emitError("tp is ") << tp.getValue() << ", must be 1 to 8";
    if (moe != "tp" && moe != "ep")
      return module.emitError("moe is \"") << moe.getValue() << "\", must be tp or ep";
    if (module->hasAttr(kRanksAttr))
      return module.emitError("is sharded already");
    Builder builder(&getContext());
    module->setAttr(kRanksAttr, builder.getI64IntegerAttr(tp));
    SmallVector<func::FuncOp> programs(module.getOps<func::FuncOp>());
    if (tp == 1) {
      for (func::FuncOp program : programs)
        program->setAttr(kRankAttr, builder.getI64IntegerAttr(0));
      return success();
    }
    Settings settings{tp, moe == "ep", rotate};
    AttentionByState attention;
    if (failed(collectAttention(module, settings, attention)))
      return failure();
    bool dropped = false;
    for (func::FuncOp program : programs) {
      ProgramLayout layout(program, settings, attention);
      if (failed(layout.run()))
        return failure();
      for (int64_t rank = 0; rank < tp; ++rank) {
        func::FuncOp local = RankWriter(program, layout, attention, settings, rank).write();
        if (dropCollective > 0)
          dropped |= dropAllReduce(local, dropCollective);
      }
      program.erase();
    }
    if (dropCollective > 0 && !dropped)
      return module.emitError("no program has ") << dropCollective.getValue() << " all_reduce ops to drop the last of";
    return success();
  }
};

} // namespace
} // namespace qwen::passes
