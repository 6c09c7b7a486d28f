//===- Fusion.cpp - forming and extending dispatches ----------------------===//

#include "passes/fuse/Fusion.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/SmallPtrSet.h"

#include <set>

using namespace mlir;
using namespace qwen::ir;
using kernel::DispatchOp;

namespace qwen::passes {
namespace {

/// Weights and states compute nothing and read nothing: they may stand anywhere before their readers.
bool isHandle(Operation *op) { return isa<model::WeightOp, model::StateOp>(op); }

bool holdsCollective(Operation &op) {
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    return llvm::any_of(dispatch.block(), holdsCollective);
  return isa<model::AllReduceOp, model::AllGatherOp>(op);
}

/// The first name among the locations that make up `location`.
StringAttr nameIn(Location location) {
  StringAttr name;
  location->walk([&](Location part) {
    if (auto named = dyn_cast<NameLoc>(part)) {
      name = named.getName();
      return WalkResult::interrupt();
    }
    return WalkResult::advance();
  });
  return name;
}

StringAttr originOf(Operation *op) {
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    if (StringAttr origin = dispatch.getOriginAttr())
      return origin;
  if (StringAttr name = nameIn(op->getLoc()))
    return name;
  return StringAttr::get(op->getContext(), op->getName().stripDialect());
}

/// The members of a dispatch to be, in the order of the block, and what they exchange with the rest of it.
struct Cut {
  SmallVector<Operation *> members;
  llvm::SmallPtrSet<Operation *, 16> set;
  llvm::SmallSetVector<Value, 16> inputs; // in the order of first use
  SmallVector<OpResult> outputs;          // results that others read, in the order of their ops

  explicit Cut(ArrayRef<Operation *> ops) : set(ops.begin(), ops.end()) {
    members.assign(set.begin(), set.end());
    llvm::sort(members, [](Operation *a, Operation *b) { return a->isBeforeInBlock(b); });
    for (Operation *op : members)
      for (Value operand : op->getOperands())
        if (!operand.getDefiningOp() || !set.contains(operand.getDefiningOp()))
          inputs.insert(operand);
    for (Operation *op : members)
      for (OpResult result : op->getResults())
        if (llvm::any_of(result.getUsers(), [&](Operation *reader) { return !set.contains(reader); }))
          outputs.push_back(result);
  }

  /// The first op outside that reads a result.
  Operation *firstReader() const {
    Operation *first = nullptr;
    for (OpResult result : outputs)
      for (Operation *reader : result.getUsers())
        if (!set.contains(reader) && (!first || reader->isBeforeInBlock(first)))
          first = reader;
    return first;
  }
};

/// Where the dispatch may stand: in front of the returned op.
FailureOr<Operation *> findPlace(PatternRewriter &rewriter, const Cut &cut) {
  Operation *first = cut.members.front(), *last = cut.members.back(), *reader = cut.firstReader();
  // The last member's place suits all inputs. A reader further up needs the results there already.
  Operation *place = reader && reader->isBeforeInBlock(last) ? reader : last;
  for (Value input : cut.inputs) {
    Operation *producer = input.getDefiningOp();
    if (producer && !isHandle(producer) && !producer->isBeforeInBlock(place))
      return rewriter.notifyMatchFailure(place, [&](Diagnostic &why) {
        why << "reads a result of the fusion before " << producer->getName() << ", which the fusion reads";
      });
  }

  llvm::SmallSetVector<StringRef, 4> states;
  for (Operation *op : cut.members)
    for (Value operand : op->getOperands())
      if (isa<model::KvCacheType, model::RecurrentStateType>(operand.getType()))
        states.insert(stateNameOf(operand));
  for (Operation *op = first; op != last; op = op->getNextNode()) {
    if (cut.set.contains(op) || isHandle(op))
      continue;
    if (holdsCollective(*op))
      return rewriter.notifyMatchFailure(op, "is a collective between the ops to fuse: every rank would cross it");
    for (Value operand : op->getOperands())
      if (isa<model::KvCacheType, model::RecurrentStateType>(operand.getType()) &&
          states.contains(stateNameOf(operand)))
        return rewriter.notifyMatchFailure(op, "uses the same state between the ops to fuse");
  }
  return place;
}

/// Remarks at the ops that patterns refuse. The driver asks again after every rewrite; each answer is told once.
struct Explainer : RewriterBase::Listener {
  std::set<std::pair<const void *, std::string>> told;

  void notifyMatchFailure(Location location, function_ref<void(Diagnostic &)> reason) override {
    Diagnostic why(location, DiagnosticSeverity::Remark);
    reason(why);
    if (told.insert({location.getAsOpaquePointer(), why.str()}).second)
      emitRemark(location) << "not fused: " << why.str();
  }
};

} // namespace

FailureOr<DispatchOp> formDispatch(PatternRewriter &rewriter, StringRef family, ArrayRef<Operation *> members,
                                   Operation *principal) {
  for (Operation *op : members)
    if (op->getBlock() != members.front()->getBlock())
      return rewriter.notifyMatchFailure(op, "is in another block than the ops to fuse it with");
  Cut cut(members);
  FailureOr<Operation *> place = findPlace(rewriter, cut);
  if (failed(place))
    return failure();

  SmallVector<Location> locations;
  for (Operation *op : cut.members)
    locations.push_back(op->getLoc());
  Location location = rewriter.getFusedLoc(locations);
  StringAttr origin = originOf(principal);
  SmallVector<Type> outputTypes;
  for (OpResult output : cut.outputs)
    outputTypes.push_back(output.getType());

  for (Value input : cut.inputs)
    if (Operation *producer = input.getDefiningOp(); producer && !producer->isBeforeInBlock(*place))
      rewriter.moveOpBefore(producer, *place);
  rewriter.setInsertionPoint(*place);
  auto dispatch =
      DispatchOp::create(rewriter, location, outputTypes, cut.inputs.getArrayRef(),
                         {rewriter.getNamedAttr("family", FlatSymbolRefAttr::get(rewriter.getContext(), family)),
                          rewriter.getNamedAttr("origin", origin)});

  Block *body = rewriter.createBlock(&dispatch.getBody());
  IRMapping inner;
  for (Value input : cut.inputs)
    inner.map(input, body->addArgument(input.getType(), input.getLoc()));
  auto take = [&](Operation *op) {
    rewriter.moveOpBefore(op, body, body->end());
    rewriter.modifyOpInPlace(op, [&] {
      for (OpOperand &operand : op->getOpOperands())
        operand.set(inner.lookupOrDefault(operand.get()));
    });
  };
  SmallVector<DispatchOp> poured;
  for (Operation *op : cut.members) {
    auto old = dyn_cast<DispatchOp>(op);
    if (!old) {
      take(op);
      continue;
    }
    for (auto [argument, input] : llvm::zip(old.block().getArguments(), old.getInputs()))
      inner.map(Value(argument), inner.lookupOrDefault(input));
    kernel::YieldOp yield = old.yield();
    for (Operation &inside : llvm::make_early_inc_range(old.block().without_terminator()))
      take(&inside);
    for (auto [result, value] : llvm::zip(old.getResults(), yield.getValues()))
      inner.map(Value(result), inner.lookupOrDefault(value));
    poured.push_back(old);
  }

  SmallVector<Value> yielded;
  for (OpResult output : cut.outputs)
    yielded.push_back(inner.lookupOrDefault(Value(output)));
  rewriter.setInsertionPointToEnd(body);
  kernel::YieldOp::create(rewriter, location, yielded);
  for (auto [output, result] : llvm::zip(cut.outputs, dispatch.getResults()))
    rewriter.replaceUsesWithIf(output, result, [&](OpOperand &use) { return use.getOwner()->getBlock() != body; });
  for (DispatchOp old : llvm::reverse(poured))
    rewriter.eraseOp(old);
  return dispatch;
}

Operation *innerProducer(OpResult result) {
  auto dispatch = cast<DispatchOp>(result.getOwner());
  return dispatch.yield().getValues()[result.getResultNumber()].getDefiningOp();
}

bool hasFamily(DispatchOp dispatch, StringRef family) { return dispatch && dispatch.getFamily() == family; }

bool isReadOnlyBy(Operation *op, ArrayRef<Operation *> members) {
  return llvm::all_of(op->getUsers(), [&](Operation *reader) { return llvm::is_contained(members, reader); });
}

StringRef stateNameOf(Value handle) {
  auto state = handle.getDefiningOp<model::StateOp>();
  return state ? state.getName() : StringRef();
}

LogicalResult applyFusions(func::FuncOp program, RewritePatternSet patterns, bool explain) {
  Explainer explainer;
  GreedyRewriteConfig config;
  config.setUseTopDownTraversal()
      .setRegionSimplificationLevel(GreedySimplifyRegionLevel::Disabled)
      .enableFolding(false)
      .enableConstantCSE(false);
  if (explain)
    config.setListener(&explainer);
  return applyPatternsGreedily(program, std::move(patterns), config);
}

} // namespace qwen::passes
