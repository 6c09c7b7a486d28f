//===- BindMixers.cpp - @gdn and @attention -------------------------------===//

#include "passes/select/Bind.h"

#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/spec_fields.h"

#include <fmt/format.h>

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

LogicalResult bindGdn(RegionView &view) {
  auto conv = view.find<model::CausalConv1dOp>();
  auto gates = view.find<model::DeltaGatesOp>();
  auto rule = view.find<model::GatedDeltaRuleOp>();
  auto norms = view.findAll<model::L2NormOp>();
  if (!conv || !gates || !rule || norms.size() != 2 || !view.find<model::SplitOp>() || view.size() != 6)
    return view.dispatch.emitOpError(
        "region is not conv, split, two l2_norms, gates and delta rule: no cpu kernel runs a part of it");
  auto q = rule.getQ().getDefiningOp<model::L2NormOp>(), k = rule.getK().getDefiningOp<model::L2NormOp>();
  if (!q || !k || k.getScale().convertToDouble() != 1.0 ||
      q.getEps().convertToDouble() != k.getEps().convertToDouble())
    return view.dispatch.emitOpError("queries and keys are not normalised alike, or keys are scaled");
  model::RecurrentStateType state = rule.getState().getType();
  kernels::GdnSpec spec{.key_heads = int(state.getKeyHeads()), .value_heads = int(state.getValueHeads()),
                        .key_dim = int(state.getKeyDim()), .value_dim = int(state.getValueDim()),
                        .width = int(state.getWidth()), .l2_eps = float(q.getEps().convertToDouble()),
                        .q_scale = float(q.getScale().convertToDouble()), .x_type = dtypeOf(conv.getX()),
                        .ba_type = dtypeOf(gates.getB())};
  std::vector<int32_t> args = {view.argument(conv.getX()),
                               view.argument(gates.getB()),
                               view.argument(gates.getA()),
                               view.weight(conv.getWeight(), plan::Layout::kVector),
                               view.weight(gates.getALog(), plan::Layout::kVector),
                               view.weight(gates.getDtBias(), plan::Layout::kVector),
                               view.argument(rule.getState()),
                               view.argument(rule.getY())};
  std::string label = fmt::format("k{}x{}_v{}x{}_{}", spec.key_heads, spec.key_dim, spec.value_heads, spec.value_dim,
                                  DTypeName(spec.x_type));
  for (const char *entry : {"gdn_decode", "gdn_scan"})
    view.binding.kernels.push_back({entry, kernels::ToFields(spec), label, args});
  return success();
}

LogicalResult bindAttention(RegionView &view) {
  auto append = view.find<model::KvAppendOp>();
  auto attention = view.find<model::AttentionOp>();
  auto gate = view.find<model::SigmoidGateOp>();
  auto split = view.find<model::SplitOp>();
  auto norms = view.findAll<model::QKNormOp>();
  auto ropes = view.findAll<model::RopeOp>();
  if ((!append && !attention) || bool(gate) != bool(split) ||
      view.size() != size_t(bool(append)) + bool(attention) + bool(gate) + bool(split) + norms.size() + ropes.size())
    return view.dispatch.emitOpError("region is not [split,] [qk_norm] [rope] kv_append, attention [, sigmoid_gate]");
  model::KvCacheType cache = append ? append.getCache().getType() : attention.getCache().getType();
  kernels::AttentionSpec spec{};
  spec.kv_heads = int(cache.getKvHeads());
  spec.head_dim = int(cache.getHeadDim());
  spec.cache_type = dtypeOf(cache.getElementType());
  spec.type = dtypeOf(attention ? attention.getY() : append.getV());
  spec.append = bool(append);
  spec.attend = bool(attention);
  spec.gate = bool(gate);
  spec.attention_factor = 1;
  if (attention) {
    if (attention.getKvMap().size() > size_t(kernels::kMaxQHeads))
      return view.dispatch.emitOpError() << attention.getKvMap().size() << " query heads, at most "
                                         << kernels::kMaxQHeads;
    spec.q_heads = int(attention.getKvMap().size());
    for (auto [head, kv] : llvm::enumerate(attention.getKvMap()))
      spec.kv_map[head] = int(kv);
    spec.scale = float(attention.getScale().convertToDouble());
    spec.window = int(attention.getWindow());
    spec.block = attention.getMask() == "block";
  }
  // Walk both inputs back through RoPE and norm to what the projections wrote. Queries and keys must be treated alike:
  // the kernel has one of each.
  auto trace = [&](Value value, model::RopeOp &rope, model::QKNormOp &norm) {
    if ((rope = value.getDefiningOp<model::RopeOp>()))
      value = rope.getX();
    if ((norm = value.getDefiningOp<model::QKNormOp>()))
      value = norm.getX();
    return value;
  };
  model::RopeOp qRope, kRope;
  model::QKNormOp qNorm, kNorm;
  Value q = attention ? trace(attention.getQ(), qRope, qNorm) : Value();
  Value k = append ? trace(append.getK(), kRope, kNorm) : Value();
  if (q && split && q == split.getParts()[0])
    q = split.getX();
  if (q && k && (bool(qRope) != bool(kRope) || bool(qNorm) != bool(kNorm)))
    return view.dispatch.emitOpError("queries and keys are not normed and rotated alike");
  if (model::RopeOp rope = kRope ? kRope : qRope) {
    if (rope.getInvFreq().size() > size_t(kernels::kMaxRopeFreqs))
      return view.dispatch.emitOpError() << rope.getInvFreq().size() << " rotary frequencies, at most "
                                         << kernels::kMaxRopeFreqs;
    spec.freqs = int(rope.getInvFreq().size());
    llvm::copy(rope.getInvFreq(), spec.inv_freq);
    spec.attention_factor = float(rope.getAttentionFactor().convertToDouble());
  }
  if (model::QKNormOp norm = kNorm ? kNorm : qNorm) {
    spec.qk_norm = 1;
    spec.eps = float(norm.getEps().convertToDouble());
    spec.round_first = norm.getRoundFirst();
  }
  Value state = append ? append.getCache() : attention.getCache();
  Value out = gate ? Value(gate.getY()) : attention ? Value(attention.getY()) : Value();
  std::vector<int32_t> args = {q ? view.argument(q) : -1,
                               k ? view.argument(k) : -1,
                               append ? view.argument(append.getV()) : -1,
                               qNorm ? view.weight(qNorm.getWeight(), plan::Layout::kVector) : -1,
                               kNorm ? view.weight(kNorm.getWeight(), plan::Layout::kVector) : -1,
                               view.argument(state),
                               out ? view.argument(out) : -1};
  std::string label =
      fmt::format("q{}_kv{}_d{}{}{}{}_{}", spec.q_heads, spec.kv_heads, spec.head_dim, gate ? "_gate" : "",
                  spec.window ? fmt::format("_w{}", spec.window) : "", spec.block ? "_block" : "", DTypeName(spec.cache_type));
  for (const char *entry : {"attn_decode", "attn_prefill"})
    view.binding.kernels.push_back({entry, kernels::ToFields(spec), label, args});
  return success();
}

} // namespace qwen::passes
