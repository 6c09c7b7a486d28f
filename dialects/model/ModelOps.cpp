//===- ModelOps.cpp - verifiers -------------------------------------------===//
//
// Each check carries the number of the constraint in the op's description.
//
//===----------------------------------------------------------------------===//

#include "dialects/model/ModelDialect.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;

#define GET_OP_CLASSES
#include "dialects/model/ModelOps.cpp.inc"

namespace qwen::ir::model {
namespace {

int64_t dim(Value value, unsigned index) { return cast<RankedTensorType>(value.getType()).getDimSize(index); }
Type elementOf(Value value) { return cast<RankedTensorType>(value.getType()).getElementType(); }

LogicalResult verifyEps(Operation *op, const APFloat &eps) {
  if (eps.convertToDouble() > 0)
    return success();
  return op->emitOpError("eps is ") << eps.convertToDouble() << ", must be above 0";
}

/// `value` has `want` channels; `what` names it in the message.
LogicalResult verifyChannels(Operation *op, StringRef what, Value value, int64_t want, StringRef why) {
  if (channelsOf(value) == want)
    return success();
  return op->emitOpError() << what << " has " << channelsOf(value) << " channels, " << why << " needs " << want;
}

} // namespace

LogicalResult ParamOp::verify() {
  auto type = cast<RankedTensorType>(getType());
  if (!type.hasStaticShape() || type.getRank() < 1 || type.getRank() > 3) // param_c1
    return emitOpError("type ") << type << " is not static of rank 1, 2 or 3";
  if (!llvm::is_contained({"model", "mtp", "draft"}, getGroup())) // param_c2
    return emitOpError("group \"") << getGroup() << "\" is none of model, mtp, draft";
  if (!llvm::is_contained({"none", "one_plus", "to_f32"}, getTransform())) // param_c2
    return emitOpError("transform \"") << getTransform() << "\" is none of none, one_plus, to_f32";
  if (getSources().empty() && !getAlias()) // param_c3
    return emitOpError("has neither sources nor an alias");
  return success();
}

LogicalResult WeightOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto param = symbols.lookupNearestSymbolFrom<ParamOp>(*this, getParamAttr());
  if (!param) // weight_c1
    return emitOpError("@") << getParam() << " is not a model.param";
  auto whole = cast<RankedTensorType>(param.getType());
  SmallVector<int64_t> shape(whole.getShape());
  if (ArrayAttr slices = getSlicesAttr()) {
    if (int64_t(slices.size()) != whole.getRank()) // weight_c2
      return emitOpError("has ") << slices.size() << " lists of slices, the param has " << whole.getRank()
                                 << " dimensions";
    for (auto [index, slice] : llvm::enumerate(slices)) {
      auto list = dyn_cast<ArrayAttr>(slice);
      if (!list || list.size() % 2) // weight_c2
        return emitOpError("slices of dimension ") << index << " are not [begin, end) pairs";
      if (list.empty())
        continue;
      shape[index] = 0;
      for (size_t i = 0; i < list.size(); i += 2) {
        auto begin = dyn_cast<IntegerAttr>(list[i]), end = dyn_cast<IntegerAttr>(list[i + 1]);
        if (!begin || !end || begin.getInt() < 0 || begin.getInt() > end.getInt() ||
            end.getInt() > whole.getDimSize(index)) // weight_c2
          return emitOpError("slice ") << i / 2 << " of dimension " << index << " does not lie in [0, "
                                       << whole.getDimSize(index) << ")";
        shape[index] += end.getInt() - begin.getInt();
      }
    }
  }
  auto want = RankedTensorType::get(shape, whole.getElementType(), whole.getEncoding());
  if (getType() != want) // weight_c3
    return emitOpError("result is ") << getType() << ", the slice of @" << getParam() << " is " << want;
  return success();
}

LogicalResult StateOp::verify() {
  if (!isa<KvCacheType, RecurrentStateType>(getType())) // state_c1
    return emitOpError("result ") << getType() << " is not a state type";
  return success();
}

LogicalResult RMSNormOp::verify() {
  if (dim(getWeight(), 0) != channelsOf(getX())) // rms_norm_c2
    return emitOpError("weight has ") << dim(getWeight(), 0) << " channels, x has " << channelsOf(getX());
  return verifyEps(*this, getEps()); // rms_norm_c3
}

LogicalResult QKNormOp::verify() {
  int64_t headDim = dim(getWeight(), 0);
  if (headDim <= 0 || channelsOf(getX()) % headDim) // qk_norm_c2
    return emitOpError("x has ") << channelsOf(getX()) << " channels, not a multiple of the weight's " << headDim;
  return verifyEps(*this, getEps()); // qk_norm_c3
}

LogicalResult GatedRMSNormOp::verify() {
  int64_t valueDim = dim(getWeight(), 0);
  if (valueDim <= 0 || channelsOf(getX()) % valueDim) // gated_rms_norm_c2
    return emitOpError("x has ") << channelsOf(getX()) << " channels, not a multiple of the weight's " << valueDim;
  if (!llvm::is_contained({"silu", "sigmoid"}, getActivation())) // gated_rms_norm_c4
    return emitOpError("activation \"") << getActivation() << "\" is neither silu nor sigmoid";
  return verifyEps(*this, getEps()); // gated_rms_norm_c3
}

LogicalResult L2NormOp::verify() {
  int64_t headDim = getHeadDim();
  if (headDim <= 0 || channelsOf(getX()) % headDim) // l2_norm_c2
    return emitOpError("x has ") << channelsOf(getX()) << " channels, not a multiple of head_dim " << headDim;
  return verifyEps(*this, getEps()); // l2_norm_c3
}

LogicalResult EmbedOp::verify() {
  if (dim(getIds(), 0) != dim(getY(), 0)) // embed_c1
    return emitOpError("ids and y differ in tokens");
  return verifyChannels(*this, "y", getY(), channelsOf(getTable()), "the table"); // embed_c2
}

LogicalResult LinearOp::verify() {
  if (channelsOf(getWeight()) != channelsOf(getX())) // linear_c1
    return emitOpError("weight has ") << channelsOf(getWeight()) << " columns, x has " << channelsOf(getX())
                                      << " channels";
  return verifyChannels(*this, "y", getY(), dim(getWeight(), 0), "the weight"); // linear_c2
}

LogicalResult SplitOp::verify() {
  int64_t heads = getHeads(), sum = 0;
  for (Value part : getParts()) {
    if (heads <= 0 || channelsOf(part) % heads) // split_c1
      return emitOpError("a part has ") << channelsOf(part) << " channels, not a multiple of " << heads << " heads";
    if (elementOf(part) != elementOf(getX())) // split_c2
      return emitOpError("a part and x differ in element type");
    sum += channelsOf(part);
  }
  if (sum != channelsOf(getX())) // split_c2
    return emitOpError("parts have ") << sum << " channels, x has " << channelsOf(getX());
  return success();
}

LogicalResult ConcatOp::verify() {
  int64_t sum = 0;
  for (Value part : getParts()) {
    if (elementOf(part) != elementOf(getY())) // concat_c1
      return emitOpError("a part and y differ in element type");
    sum += channelsOf(part);
  }
  if (sum != channelsOf(getY())) // concat_c1
    return emitOpError("parts have ") << sum << " channels, y has " << channelsOf(getY());
  return success();
}

LogicalResult DynamicConvOp::verify() {
  int64_t channels = channelsOf(getX()), group = getGroup(), taps = dim(getBase(), 1);
  if (dim(getBase(), 0) != 2 || channelsOf(getBase()) != channels) // dynamic_conv_c2
    return emitOpError("base is not [2, taps, ") << channels << "]";
  if (group <= 0 || channels % group) // dynamic_conv_c3
    return emitOpError("group ") << group << " does not divide " << channels << " channels";
  if (getIndex() > 1) // dynamic_conv_c4
    return emitOpError("index ") << getIndex() << " is neither 0 nor 1";
  return verifyChannels(*this, "coef", getCoef(), 2 * taps * (channels / group), "base"); // dynamic_conv_c3
}

LogicalResult RopeOp::verify() {
  int64_t headDim = getHeadDim();
  if (headDim <= 0 || channelsOf(getX()) % headDim) // rope_c2
    return emitOpError("x has ") << channelsOf(getX()) << " channels, not a multiple of head_dim " << headDim;
  if (getInvFreq().empty() || 2 * int64_t(getInvFreq().size()) > headDim) // rope_c3
    return emitOpError("has ") << getInvFreq().size() << " frequencies for a head of " << headDim << " channels";
  return success();
}

LogicalResult KvAppendOp::verify() {
  KvCacheType cache = getCache().getType();
  int64_t want = cache.getKvHeads() * cache.getHeadDim();
  for (Value value : {getK(), getV()}) {
    if (failed(verifyChannels(*this, value == getK() ? "k" : "v", value, want, "the cache"))) // kv_append_c1
      return failure();
  }
  return success();
}

LogicalResult AttentionOp::verify() {
  KvCacheType cache = getCache().getType();
  int64_t want = int64_t(getKvMap().size()) * cache.getHeadDim();
  if (failed(verifyChannels(*this, "q", getQ(), want, "kv_map"))) // attention_c2
    return failure();
  for (int64_t head : getKvMap())
    if (head < 0 || head >= cache.getKvHeads()) // attention_c3
      return emitOpError("kv_map names head ") << head << ", the cache has " << cache.getKvHeads();
  if (!llvm::is_contained({"causal", "block"}, getMask())) // attention_c4
    return emitOpError("mask \"") << getMask() << "\" is neither causal nor block";
  if (int64_t(getWindow()) < 0) // attention_c4
    return emitOpError("window ") << int64_t(getWindow()) << " is negative";
  return success();
}

LogicalResult CausalConv1dOp::verify() {
  RecurrentStateType state = getState().getType();
  if (dim(getWeight(), 0) != channelsOf(getX()) || dim(getWeight(), 1) != state.getWidth()) // causal_conv1d_c2
    return emitOpError("weight is not [") << channelsOf(getX()) << ", " << state.getWidth() << "]";
  return verifyChannels(*this, "x", getX(), state.getConvChannels(), "the state"); // causal_conv1d_c3
}

LogicalResult DeltaGatesOp::verify() {
  int64_t heads = dim(getALog(), 0);
  if (dim(getDtBias(), 0) != heads) // delta_gates_c1
    return emitOpError("dt_bias has ") << dim(getDtBias(), 0) << " heads, a_log has " << heads;
  for (Value value : {Value(getB()), Value(getA()), Value(getBeta()), Value(getG())})
    if (failed(verifyChannels(*this, "an operand or result", value, heads, "a_log"))) // delta_gates_c1
      return failure();
  return success();
}

LogicalResult GatedDeltaRuleOp::verify() {
  RecurrentStateType state = getState().getType();
  if (state.getKeyHeads() ? state.getValueHeads() % state.getKeyHeads() : state.getValueHeads()) // gated_delta_rule_c4
    return emitOpError() << state.getValueHeads() << " value heads are not a multiple of " << state.getKeyHeads()
                         << " key heads";
  int64_t keys = state.getKeyHeads() * state.getKeyDim(), values = state.getValueHeads() * state.getValueDim();
  if (failed(verifyChannels(*this, "q", getQ(), keys, "the state")) || // gated_delta_rule_c1
      failed(verifyChannels(*this, "k", getK(), keys, "the state")) ||
      failed(verifyChannels(*this, "v", getV(), values, "the state")) || // gated_delta_rule_c2
      failed(verifyChannels(*this, "y", getY(), values, "the state")))
    return failure();
  if (failed(verifyChannels(*this, "beta", getBeta(), state.getValueHeads(), "the state"))) // gated_delta_rule_c3
    return failure();
  return verifyChannels(*this, "g", getG(), state.getValueHeads(), "the state"); // gated_delta_rule_c3
}

LogicalResult RouterOp::verify() {
  if (channelsOf(getWeight()) != channelsOf(getX())) // router_c1
    return emitOpError("weight has ") << channelsOf(getWeight()) << " columns, x has " << channelsOf(getX())
                                      << " channels";
  int64_t topK = channelsOf(getWeights()), experts = dim(getWeight(), 0);
  if (topK < 1 || topK > experts || channelsOf(getIds()) != topK) // router_c2
    return emitOpError("picks ") << topK << " of " << experts << " experts, ids has " << channelsOf(getIds())
                                 << " columns";
  return success();
}

LogicalResult ExpertsOp::verify() {
  int64_t inter = channelsOf(getDown());
  if (dim(getGateUp(), 0) != dim(getDown(), 0) || dim(getGateUp(), 1) != 2 * inter ||
      channelsOf(getGateUp()) != channelsOf(getX()) || dim(getDown(), 1) != channelsOf(getY())) // experts_c1
    return emitOpError("gate_up and down do not fit: want [experts, 2 * inter, ")
           << channelsOf(getX()) << "] and [experts, " << channelsOf(getY()) << ", inter]";
  if (channelsOf(getWeights()) != channelsOf(getIds())) // experts_c2
    return emitOpError("weights has ") << channelsOf(getWeights()) << " columns, ids has " << channelsOf(getIds());
  if (int64_t(getFirstExpert()) < 0) // experts_c3
    return emitOpError("first_expert ") << int64_t(getFirstExpert()) << " is negative";
  return success();
}

LogicalResult CombineOp::verify() {
  return verifyChannels(*this, "gate", getGate(), 1, "a scalar gate"); // combine_c2
}

LogicalResult LogitRowsOp::verify() {
  if (elementOf(getX()) != elementOf(getY())) // logit_rows_c1
    return emitOpError("x and y differ in element type");
  return verifyChannels(*this, "y", getY(), channelsOf(getX()), "x"); // logit_rows_c1
}

LogicalResult LmHeadOp::verify() {
  if (channelsOf(getWeight()) != channelsOf(getX())) // lm_head_c1
    return emitOpError("weight has ") << channelsOf(getWeight()) << " columns, x has " << channelsOf(getX())
                                      << " channels";
  return verifyChannels(*this, "y", getY(), dim(getWeight(), 0), "the weight"); // lm_head_c1
}

LogicalResult CandidateWalkOp::verify() {
  int64_t rank = channelsOf(getHidden()), vocab = channelsOf(getLogits());
  for (Value table : {getPredecessor(), getSuccessor()})
    if (dim(table, 0) != vocab || channelsOf(table) != rank) // candidate_walk_c1
      return emitOpError("a codebook is not [") << vocab << ", " << rank << "]";
  if (int64_t(getCandidates()) < 1 || int64_t(getCandidates()) > vocab) // candidate_walk_c2
    return emitOpError() << getCandidates() << " candidates of " << vocab << " tokens";
  return success();
}

LogicalResult AllReduceOp::verify() {
  return verifyChannels(*this, "y", getY(), channelsOf(getX()), "x"); // all_reduce_c1
}

LogicalResult AllGatherOp::verify() {
  int64_t sum = 0;
  for (int64_t count : getCounts())
    sum += count;
  if (sum != channelsOf(getY())) // all_gather_c1
    return emitOpError("counts sum to ") << sum << ", y has " << channelsOf(getY()) << " channels";
  if (!llvm::is_contained(getCounts(), channelsOf(getX()))) // all_gather_c2
    return emitOpError("x has ") << channelsOf(getX()) << " channels, which is none of counts";
  return success();
}

} // namespace qwen::ir::model
