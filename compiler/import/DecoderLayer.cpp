//===- DecoderLayer.cpp - the layer recipe --------------------------------===//

#include "compiler/import/DecoderLayer.h"
#include <cmath>

using namespace mlir;
namespace model_ir = qwen::ir::model;

namespace qwen::compiler {

RankedTensorType Graph::rows(int64_t channels, Type type) const {
  return RankedTensorType::get({ShapedType::kDynamic, channels}, type ? type : element);
}

RankedTensorType Graph::ids() const { return RankedTensorType::get({ShapedType::kDynamic}, builder.getI32Type()); }

Value Graph::weight(StringRef name) {
  auto param = params.lookup<model_ir::ParamOp>(name);
  assert(param && "the weight map declares every weight the recipe reads");
  return model_ir::WeightOp::create(builder, loc, param.getType(), FlatSymbolRefAttr::get(param.getSymNameAttr()),
                                    ArrayAttr());
}

Value Graph::state(const std::string &name, Type type) {
  return model_ir::StateOp::create(builder, loc, type, builder.getStringAttr(name));
}

Value Graph::embed(Value tokenIds, StringRef table) {
  Value weights = weight(table);
  return model_ir::EmbedOp::create(builder, loc, rows(model_ir::channelsOf(weights)), tokenIds, weights);
}

Value Graph::linear(Value x, const std::string &weightName, Type result) {
  Value weights = weight(weightName);
  int64_t channels = cast<RankedTensorType>(weights.getType()).getDimSize(0);
  return model_ir::LinearOp::create(builder, loc, rows(channels, result), x, weights);
}

/// Plain norms round before their weight, zero-centred ones once (model specification, 3.1 and 3.2).
static UnitAttr roundFirst(OpBuilder &builder, const ModelConfig &model) {
  return model.zeroCentredNorms ? UnitAttr() : builder.getUnitAttr();
}

Value Graph::rmsNorm(Value x, const std::string &weightName, const ModelConfig &model) {
  return model_ir::RMSNormOp::create(builder, loc, x.getType(), x, weight(weightName),
                                     builder.getF64FloatAttr(model.eps), roundFirst(builder, model));
}

Value Graph::add(Value x, Value residual) { return model_ir::AddOp::create(builder, loc, x.getType(), x, residual); }

Value Graph::concat(ValueRange parts) {
  int64_t channels = 0;
  for (Value part : parts)
    channels += model_ir::channelsOf(part);
  return model_ir::ConcatOp::create(builder, loc, rows(channels), parts);
}

Value Graph::siluMul(Value gate, Value up) {
  return model_ir::SiluMulOp::create(builder, loc, gate.getType(), gate, up);
}

SmallVector<Value> Graph::split(Value x, int64_t heads, ArrayRef<int64_t> channels) {
  SmallVector<Type> types;
  for (int64_t count : channels)
    types.push_back(rows(count));
  auto op = model_ir::SplitOp::create(builder, loc, types, x, builder.getI64IntegerAttr(heads));
  return SmallVector<Value>(op.getParts());
}

Value Graph::logitRows(Value x) { return model_ir::LogitRowsOp::create(builder, loc, x.getType(), x, batch); }

Value Graph::lmHead(Value x) {
  Value weights = weight("lm_head");
  int64_t vocab = cast<RankedTensorType>(weights.getType()).getDimSize(0);
  return model_ir::LmHeadOp::create(builder, loc, rows(vocab, builder.getF32Type()), x, weights);
}

Value Graph::sample(Value logits) { return model_ir::SampleOp::create(builder, loc, ids(), logits, batch); }

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

static Value qkNorm(Graph &graph, Value x, const std::string &weightName, const ModelConfig &model) {
  return model_ir::QKNormOp::create(graph.builder, graph.loc, x.getType(), x, graph.weight(weightName),
                                    graph.builder.getF64FloatAttr(model.eps), roundFirst(graph.builder, model));
}

static Value rope(Graph &graph, Value x, const AttentionConfig &attention) {
  return model_ir::RopeOp::create(graph.builder, graph.loc, x.getType(), x, graph.batch,
                                  graph.builder.getI64IntegerAttr(attention.headDim),
                                  graph.builder.getDenseF32ArrayAttr(attention.rope.invFreq),
                                  graph.builder.getF64FloatAttr(attention.rope.attentionFactor));
}

static Value kvCache(Graph &graph, const std::string &name, const AttentionConfig &attention) {
  return graph.state(name + ".attn", model_ir::KvCacheType::get(graph.builder.getContext(), attention.kvHeads,
                                                                attention.headDim, graph.element));
}

void buildKeysAndValues(Graph &graph, Value h, const std::string &name, const ModelConfig &model) {
  const AttentionConfig &attention = model.attention;
  graph.at(name + ".attn.in");
  Value k = graph.linear(h, name + ".attn.k"), v = graph.linear(h, name + ".attn.v");
  graph.at(name + ".attn.mixer");
  Value cache = kvCache(graph, name, attention);
  k = rope(graph, qkNorm(graph, k, name + ".attn.k_norm", model), attention);
  model_ir::KvAppendOp::create(graph.builder, graph.loc, k, v, cache, graph.batch);
}

Value buildAttention(Graph &graph, Value h, const std::string &name, const ModelConfig &model,
                     const LayerConfig &layer) {
  const AttentionConfig &attention = model.attention;
  OpBuilder &builder = graph.builder;
  int64_t queries = attention.qHeads * attention.headDim;

  graph.at(name + ".attn.in");
  Value q = graph.linear(h, name + ".attn.q"), gate;
  if (attention.outputGate) {
    SmallVector<Value> parts = graph.split(q, attention.qHeads, {queries, queries});
    q = parts[0];
    gate = parts[1];
  }
  Value k = graph.linear(h, name + ".attn.k"), v = graph.linear(h, name + ".attn.v");

  graph.at(name + ".attn.mixer");
  Value cache = kvCache(graph, name, attention);
  q = qkNorm(graph, q, name + ".attn.q_norm", model);
  k = qkNorm(graph, k, name + ".attn.k_norm", model);
  q = rope(graph, q, attention);
  k = rope(graph, k, attention);
  model_ir::KvAppendOp::create(builder, graph.loc, k, v, cache, graph.batch);
  SmallVector<int64_t> kvMap;
  for (int64_t head = 0; head < attention.qHeads; ++head)
    kvMap.push_back(head / (attention.qHeads / attention.kvHeads));
  Value o = model_ir::AttentionOp::create(
      builder, graph.loc, q.getType(), q, cache, graph.batch, builder.getDenseI64ArrayAttr(kvMap),
      builder.getF64FloatAttr(1.0 / std::sqrt(double(attention.headDim))),
      builder.getStringAttr(layer.causal ? "causal" : "block"), builder.getI64IntegerAttr(layer.window));
  if (gate)
    o = model_ir::SigmoidGateOp::create(builder, graph.loc, o.getType(), o, gate);

  graph.at(name + ".attn.out");
  return graph.linear(o, name + ".attn.o");
}

//===----------------------------------------------------------------------===//
// Gated delta rule
//===----------------------------------------------------------------------===//

static Value l2Norm(Graph &graph, Value x, int64_t headDim, double scale) {
  // The eps is a constant of the model, not rms_norm_eps (model specification, 6.4).
  return model_ir::L2NormOp::create(graph.builder, graph.loc, x.getType(), x, graph.builder.getI64IntegerAttr(headDim),
                                    graph.builder.getF64FloatAttr(1e-6), graph.builder.getF64FloatAttr(scale));
}

static Value buildDeltaNet(Graph &graph, Value h, const std::string &name, const ModelConfig &model) {
  const DeltaNetConfig &delta = *model.deltaNet;
  OpBuilder &builder = graph.builder;
  Type f32 = builder.getF32Type();
  std::string gdn = name + ".gdn.";

  graph.at(gdn + "in");
  Value qkv = graph.linear(h, gdn + "qkv"), z = graph.linear(h, gdn + "z");
  // b and a feed a sigmoid and an exponential of an exponential: they stay f32.
  Value b = graph.linear(h, gdn + "b", f32), a = graph.linear(h, gdn + "a", f32);

  graph.at(gdn + "mixer");
  Value state = graph.state(
      name + ".gdn", model_ir::RecurrentStateType::get(builder.getContext(), delta.keyHeads, delta.valueHeads,
                                                       delta.keyDim, delta.valueDim, delta.width, graph.element));
  Value c = model_ir::CausalConv1dOp::create(builder, graph.loc, qkv.getType(), qkv, graph.weight(gdn + "conv"), state,
                                             graph.batch);
  SmallVector<Value> parts = graph.split(c, 1, {delta.keyChannels(), delta.keyChannels(), delta.valueChannels()});
  Value q = l2Norm(graph, parts[0], delta.keyDim, 1.0 / std::sqrt(double(delta.keyDim)));
  Value k = l2Norm(graph, parts[1], delta.keyDim, 1.0);
  RankedTensorType gates = graph.rows(delta.valueHeads, f32);
  auto gate =
      model_ir::DeltaGatesOp::create(builder, graph.loc, TypeRange{gates, gates},
                                     ValueRange{b, a, graph.weight(gdn + "a_log"), graph.weight(gdn + "dt_bias")});
  Value o = model_ir::GatedDeltaRuleOp::create(builder, graph.loc, graph.rows(delta.valueChannels()), q, k, parts[2],
                                               gate.getBeta(), gate.getG(), state, graph.batch);

  graph.at(gdn + "out");
  Value y = model_ir::GatedRMSNormOp::create(builder, graph.loc, o.getType(), o, z, graph.weight(gdn + "gated_norm"),
                                             builder.getF64FloatAttr(model.eps), builder.getStringAttr("silu"));
  return graph.linear(y, gdn + "out");
}

//===----------------------------------------------------------------------===//
// Feed-forward
//===----------------------------------------------------------------------===//

Value buildDense(Graph &graph, Value h, const std::string &name) {
  graph.at(name + ".mlp.in");
  Value gate = graph.linear(h, name + ".mlp.gate"), up = graph.linear(h, name + ".mlp.up");
  Value product = graph.siluMul(gate, up);
  graph.at(name + ".mlp.out");
  return graph.linear(product, name + ".mlp.down");
}

static Value buildExperts(Graph &graph, Value h, const std::string &name, const ModelConfig &model) {
  const MoEConfig &moe = *model.moe;
  OpBuilder &builder = graph.builder;
  std::string prefix = name + ".moe.";

  graph.at(name + ".router");
  auto router = model_ir::RouterOp::create(
      builder, graph.loc,
      TypeRange{graph.rows(moe.topK, builder.getF32Type()), graph.rows(moe.topK, builder.getI32Type())}, h,
      graph.weight(prefix + "router"), moe.renormalize ? builder.getUnitAttr() : UnitAttr());

  graph.at(name + ".moe");
  Value routed = model_ir::ExpertsOp::create(builder, graph.loc, h.getType(), h, router.getWeights(), router.getIds(),
                                             graph.weight(prefix + "gate_up"), graph.weight(prefix + "down"),
                                             builder.getI64IntegerAttr(0));
  if (!moe.sharedIntermediate)
    return routed;

  graph.at(name + ".shared");
  Value gate = graph.linear(h, prefix + "shared.gate"), up = graph.linear(h, prefix + "shared.up");
  Value shared = graph.linear(graph.siluMul(gate, up), prefix + "shared.down");
  Value scalar = graph.linear(h, prefix + "shared_gate", builder.getF32Type());
  graph.at(name + ".moe");
  return model_ir::CombineOp::create(builder, graph.loc, routed.getType(), routed, shared, scalar);
}

Value buildDecoderLayer(Graph &graph, Value x, const std::string &name, const ModelConfig &model,
                        const LayerConfig &layer) {
  graph.at(name + ".norm1");
  Value h = graph.rmsNorm(x, name + ".norm1", model);
  Value mixed = layer.deltaNet ? buildDeltaNet(graph, h, name, model) : buildAttention(graph, h, name, model, layer);
  x = graph.add(mixed, x);

  graph.at(name + ".norm2");
  h = graph.rmsNorm(x, name + ".norm2", model);
  Value fed = layer.moe ? buildExperts(graph, h, name, model) : buildDense(graph, h, name);
  graph.at(name);
  return graph.add(fed, x);
}

} // namespace qwen::compiler
