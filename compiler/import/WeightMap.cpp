//===- WeightMap.cpp - where a checkpoint keeps each weight ---------------===//

#include "compiler/import/WeightMap.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;

namespace qwen::compiler {

/// What a plain tensor may hold; the loader converts to the weight's type. Rounding down from f32 is the user's choice
/// of --dtype, and releases keep a few f32 tensors (A_log, gated norms) in bf16 files.
static const StringRef kPlainDtypes[] = {"BF16", "F32", "F16"};

WeightMap::WeightMap(ModuleOp module, Type element) : builder(module.getBodyRegion()), element(element) {
  builder.setInsertionPointToEnd(module.getBody());
}

Attribute WeightMap::attribute(const Piece &piece) {
  auto integer = [&](int64_t value) { return builder.getI64IntegerAttr(value); };
  SmallVector<NamedAttribute> entries{
      builder.getNamedAttr("tensor", builder.getStringAttr(piece.tensor)),
      builder.getNamedAttr("e_count", integer(piece.eCount)),
      builder.getNamedAttr("dtypes", builder.getStrArrayAttr(piece.dtypes)),
      builder.getNamedAttr("shape", builder.getDenseI64ArrayAttr(piece.shape)),
      builder.getNamedAttr("view_rows", integer(piece.viewRows)),
      builder.getNamedAttr("view_cols", integer(piece.viewCols)),
      builder.getNamedAttr("src_row", integer(piece.srcRow)),
      builder.getNamedAttr("src_col", integer(piece.srcCol)),
      builder.getNamedAttr("rows", integer(piece.rows)),
      builder.getNamedAttr("cols", integer(piece.cols)),
      builder.getNamedAttr("dst_row", integer(piece.dstRow)),
      builder.getNamedAttr("dst_col", integer(piece.dstCol)),
      builder.getNamedAttr("dst_row_step", integer(piece.dstRowStep)),
  };
  if (!piece.packing.empty())
    entries.push_back(builder.getNamedAttr("packing", builder.getStringAttr(piece.packing)));
  return builder.getDictionaryAttr(entries);
}

void WeightMap::param(const std::string &name, const std::string &group, StringRef transform, RankedTensorType type,
                      const std::vector<Alternative> &sources) {
  SmallVector<Attribute> alternatives;
  for (const Alternative &alternative : sources) {
    SmallVector<Attribute> pieces;
    for (const Piece &piece : alternative)
      pieces.push_back(attribute(piece));
    alternatives.push_back(builder.getArrayAttr(pieces));
  }
  auto loc = NameLoc::get(builder.getStringAttr(name));
  ir::model::ParamOp::create(builder, loc, builder.getStringAttr(name), TypeAttr::get(type),
                             builder.getStringAttr(group), builder.getStringAttr(transform),
                             builder.getArrayAttr(alternatives), FlatSymbolRefAttr());
}

WeightMap::Piece WeightMap::wholeTensor(const std::string &tensor, ArrayRef<int64_t> shape) const {
  Piece piece;
  piece.tensor = tensor;
  piece.dtypes.assign(std::begin(kPlainDtypes), std::end(kPlainDtypes));
  piece.shape.assign(shape.begin(), shape.end());
  piece.viewCols = shape.back();
  piece.viewRows = 1;
  for (int64_t size : shape.drop_back())
    piece.viewRows *= size;
  piece.rows = piece.viewRows;
  piece.cols = piece.viewCols;
  return piece;
}

WeightMap::Piece WeightMap::storedMatrix(const std::string &module, const std::optional<StoredScheme> &scheme,
                                         int64_t rows, int64_t cols) const {
  if (!scheme)
    return wholeTensor(module + ".weight", {rows, cols});
  // The view is that of the weight: a format's decoder turns the stored tensor into it.
  int64_t storedRows = rows, storedCols = cols;
  int64_t &packed = scheme->packsRows ? storedRows : storedCols;
  packed = llvm::divideCeil(packed, scheme->codesPerElement);
  if (scheme->transposed)
    std::swap(storedRows, storedCols);
  Piece piece = wholeTensor(module + "." + scheme->suffix, {storedRows, storedCols});
  piece.dtypes = {StringRef(scheme->dtype)};
  piece.viewRows = piece.rows = rows;
  piece.viewCols = piece.cols = cols;
  piece.packing = scheme->packing;
  return piece;
}

RankedTensorType WeightMap::weightType(ArrayRef<int64_t> shape, const std::optional<StoredScheme> &scheme) const {
  Attribute encoding;
  if (scheme)
    encoding = ir::model::SchemeAttr::get(element.getContext(), scheme->format, scheme->groupN, scheme->groupK);
  return RankedTensorType::get(shape, element, encoding);
}

std::optional<StoredScheme> WeightMap::schemeOf(const ModelConfig &model, ArrayRef<std::string> modules,
                                                const std::string &group, bool lmHead) {
  if (!model.schemes)
    return std::nullopt;
  // A list names modules with the prefix of its own checkpoint, which is known only at load: ask about each.
  std::vector<std::string> names;
  for (const std::string &module : modules) {
    if (!StringRef(module).starts_with("{P}")) {
      names.push_back(module);
      continue;
    }
    for (const std::string &prefix : model.prefixes)
      names.push_back(prefix + module.substr(3));
  }
  return model.schemes->schemeOf({names, lmHead, group == "mtp"});
}

void WeightMap::norm(const std::string &name, const std::string &group, const std::string &tensor, int64_t channels,
                     bool centred) {
  param(name, group, centred ? "one_plus" : "to_f32", RankedTensorType::get({channels}, builder.getF32Type()),
        {{wholeTensor(tensor, {channels})}});
}

void WeightMap::vector(const std::string &name, const std::string &group, const std::string &tensor, int64_t channels) {
  norm(name, group, tensor, channels, /*centred=*/false);
}

void WeightMap::linear(const ModelConfig &model, const std::string &name, const std::string &group,
                       const std::string &module, int64_t rows, int64_t cols, bool mayBeQuantised, ArrayRef<Run> runs,
                       int64_t storedRows) {
  std::optional<StoredScheme> scheme;
  if (mayBeQuantised)
    scheme = schemeOf(model, module, group, name == "lm_head");
  Run all{0, rows, 0};
  if (runs.empty())
    runs = all;
  Alternative pieces;
  for (const Run &run : runs) {
    Piece piece = storedMatrix(module, scheme, storedRows ? storedRows : rows, cols);
    piece.srcRow = run.srcRow;
    piece.rows = run.rows;
    piece.dstRow = run.dstRow;
    pieces.push_back(std::move(piece));
  }
  param(name, group, "none", weightType({rows, cols}, scheme), {pieces});
}

void WeightMap::declareAttention(const ModelConfig &model, const LayerNames &names) {
  const AttentionConfig &attention = model.attention;
  int64_t queries = attention.qHeads * attention.headDim, keys = attention.kvHeads * attention.headDim;
  std::string name = names.name + "attn.", tensor = names.tensor + "self_attn.";
  linear(model, name + "q", names.group, tensor + "q_proj", queries * (attention.outputGate ? 2 : 1), model.hidden);
  linear(model, name + "k", names.group, tensor + "k_proj", keys, model.hidden);
  linear(model, name + "v", names.group, tensor + "v_proj", keys, model.hidden);
  linear(model, name + "o", names.group, tensor + "o_proj", model.hidden, queries);
  norm(name + "q_norm", names.group, tensor + "q_norm.weight", attention.headDim, model.zeroCentredNorms);
  norm(name + "k_norm", names.group, tensor + "k_norm.weight", attention.headDim, model.zeroCentredNorms);
}

void WeightMap::declareDeltaNet(const ModelConfig &model, const LayerNames &names) {
  const DeltaNetConfig &delta = *model.deltaNet;
  std::string name = names.name + "gdn.", tensor = names.tensor + "linear_attn.";
  int64_t keys = delta.keyChannels(), values = delta.valueChannels();
  if (!delta.interleaved) {
    linear(model, name + "qkv", names.group, tensor + "in_proj_qkv", delta.convChannels(), model.hidden);
    linear(model, name + "z", names.group, tensor + "in_proj_z", values, model.hidden);
    linear(model, name + "b", names.group, tensor + "in_proj_b", delta.valueHeads, model.hidden, false);
    linear(model, name + "a", names.group, tensor + "in_proj_a", delta.valueHeads, model.hidden, false);
  } else {
    // Per key head: q | k | v of its value heads | z of them; and b | a of them (model specification, 6.1).
    int64_t ratio = delta.valueHeads / delta.keyHeads, groupValues = ratio * delta.valueDim;
    int64_t stride = 2 * delta.keyDim + 2 * groupValues;
    SmallVector<Run> qkv, z, b, a;
    for (int64_t head = 0; head < delta.keyHeads; ++head) {
      int64_t at = head * stride;
      qkv.push_back({at, delta.keyDim, head * delta.keyDim});
      qkv.push_back({at + delta.keyDim, delta.keyDim, keys + head * delta.keyDim});
      qkv.push_back({at + 2 * delta.keyDim, groupValues, 2 * keys + head * groupValues});
      z.push_back({at + 2 * delta.keyDim + groupValues, groupValues, head * groupValues});
      b.push_back({head * 2 * ratio, ratio, head * ratio});
      a.push_back({head * 2 * ratio + ratio, ratio, head * ratio});
    }
    int64_t rows = 2 * keys + 2 * values;
    linear(model, name + "qkv", names.group, tensor + "in_proj_qkvz", delta.convChannels(), model.hidden, true, qkv,
           rows);
    linear(model, name + "z", names.group, tensor + "in_proj_qkvz", values, model.hidden, true, z, rows);
    int64_t gates = 2 * delta.valueHeads;
    linear(model, name + "b", names.group, tensor + "in_proj_ba", delta.valueHeads, model.hidden, false, b, gates);
    linear(model, name + "a", names.group, tensor + "in_proj_ba", delta.valueHeads, model.hidden, false, a, gates);
  }

  param(name + "conv", names.group, "to_f32",
        RankedTensorType::get({delta.convChannels(), delta.width}, builder.getF32Type()),
        {{wholeTensor(tensor + "conv1d.weight", {delta.convChannels(), 1, delta.width})}});
  vector(name + "a_log", names.group, tensor + "A_log", delta.valueHeads);
  vector(name + "dt_bias", names.group, tensor + "dt_bias", delta.valueHeads);
  // The one norm of these models that is not centred on zero.
  norm(name + "gated_norm", names.group, tensor + "norm.weight", delta.valueDim, /*centred=*/false);
  linear(model, name + "out", names.group, tensor + "out_proj", model.hidden, values);
}

void WeightMap::declareExperts(const ModelConfig &model, const LayerNames &names) {
  const MoEConfig &moe = *model.moe;
  std::string name = names.name + "moe.", tensor = names.tensor + "mlp.";
  linear(model, name + "router", names.group, tensor + "gate", moe.experts, model.hidden, false);

  // One scheme for all experts of a layer: the grouped kernels read them as one weight.
  auto experts = [&](const std::string &param_, const std::string &fused, ArrayRef<StringRef> each, int64_t rows,
                     int64_t cols) {
    std::vector<std::string> modules{tensor + "experts", tensor + "experts." + fused};
    for (StringRef projection : each)
      modules.push_back(tensor + "experts.0." + projection.str());
    std::optional<StoredScheme> scheme = schemeOf(model, modules, names.group, false);
    int64_t all = rows * int64_t(each.size());

    Alternative perExpert;
    for (auto [index, projection] : llvm::enumerate(each)) {
      Piece piece = storedMatrix(tensor + "experts.{e}." + projection.str(), scheme, rows, cols);
      piece.eCount = moe.experts;
      piece.dstRow = int64_t(index) * rows;
      piece.dstRowStep = all;
      perExpert.push_back(std::move(piece));
    }
    std::vector<Alternative> sources;
    if (!scheme) // fused experts have no `.weight` (model specification, 13)
      sources.push_back({wholeTensor(tensor + "experts." + fused, {moe.experts, all, cols})});
    sources.push_back(std::move(perExpert));
    param(name + param_, names.group, "none", weightType({moe.experts, all, cols}, scheme), sources);
  };
  experts("gate_up", "gate_up_proj", {"gate_proj", "up_proj"}, moe.intermediate, model.hidden);
  experts("down", "down_proj", {"down_proj"}, model.hidden, moe.intermediate);

  if (moe.sharedIntermediate) {
    std::string shared = tensor + "shared_expert.";
    linear(model, name + "shared.gate", names.group, shared + "gate_proj", moe.sharedIntermediate, model.hidden);
    linear(model, name + "shared.up", names.group, shared + "up_proj", moe.sharedIntermediate, model.hidden);
    linear(model, name + "shared.down", names.group, shared + "down_proj", model.hidden, moe.sharedIntermediate);
    linear(model, name + "shared_gate", names.group, tensor + "shared_expert_gate", 1, model.hidden, false);
  }
}

void WeightMap::declareLayer(const ModelConfig &model, const LayerConfig &layer, const LayerNames &names) {
  norm(names.name + "norm1", names.group, names.tensor + "input_layernorm.weight", model.hidden,
       model.zeroCentredNorms);
  if (layer.deltaNet)
    declareDeltaNet(model, names);
  else
    declareAttention(model, names);
  norm(names.name + "norm2", names.group, names.tensor + "post_attention_layernorm.weight", model.hidden,
       model.zeroCentredNorms);
  if (layer.moe) {
    declareExperts(model, names);
    return;
  }
  std::string tensor = names.tensor + "mlp.";
  linear(model, names.name + "mlp.gate", names.group, tensor + "gate_proj", model.intermediate, model.hidden);
  linear(model, names.name + "mlp.up", names.group, tensor + "up_proj", model.intermediate, model.hidden);
  linear(model, names.name + "mlp.down", names.group, tensor + "down_proj", model.hidden, model.intermediate);
}

void WeightMap::declareModel(const ModelConfig &model) {
  linear(model, "embed", "model", "{P}embed_tokens", model.vocab, model.hidden, false);
  for (auto [index, layer] : llvm::enumerate(model.layers)) {
    std::string name = "layers." + std::to_string(index) + ".";
    declareLayer(model, layer, {name, "{P}" + name, "model"});
  }
  norm("final_norm", "model", "{P}norm.weight", model.hidden, model.zeroCentredNorms);
  if (model.tiedEmbeddings) {
    auto loc = NameLoc::get(builder.getStringAttr("lm_head"));
    ir::model::ParamOp::create(builder, loc, builder.getStringAttr("lm_head"),
                               TypeAttr::get(weightType({model.vocab, model.hidden}, {})),
                               builder.getStringAttr("model"), builder.getStringAttr("none"), builder.getArrayAttr({}),
                               FlatSymbolRefAttr::get(builder.getContext(), "embed"));
  } else {
    linear(model, "lm_head", "model", "lm_head", model.vocab, model.hidden);
  }

  if (!model.mtp)
    return;
  linear(model, "mtp.fc", "mtp", "mtp.fc", model.hidden, 2 * model.hidden, false);
  norm("mtp.norm_embed", "mtp", "mtp.pre_fc_norm_embedding.weight", model.hidden, model.zeroCentredNorms);
  norm("mtp.norm_hidden", "mtp", "mtp.pre_fc_norm_hidden.weight", model.hidden, model.zeroCentredNorms);
  declareLayer(model, *model.mtp, {"mtp.layers.0.", "mtp.layers.0.", "mtp"});
  norm("mtp.norm", "mtp", "mtp.norm.weight", model.hidden, model.zeroCentredNorms);
}

void WeightMap::declareDrafter(const DrafterConfig &drafter, const ModelConfig &target) {
  const ModelConfig &model = drafter.model;
  linear(model, "draft.fc", "draft", "fc", model.hidden, int64_t(drafter.targetLayers.size()) * target.hidden);
  norm("draft.hidden_norm", "draft", "hidden_norm.weight", model.hidden, false);
  for (auto [index, layer] : llvm::enumerate(model.layers)) {
    std::string tensor = "layers." + std::to_string(index) + ".", name = "draft." + tensor;
    declareLayer(model, layer, {name, tensor, "draft"});
    if (!drafter.selector)
      continue;
    for (StringRef conv : {"attention_conv", "mlp_conv"}) {
      std::string canonical = name + (conv == "mlp_conv" ? "mlp_conv." : "attn_conv.");
      int64_t taps = drafter.selector->taps, groups = model.hidden / drafter.selector->group;
      param(canonical + "base", "draft", "to_f32", RankedTensorType::get({2, taps, model.hidden}, builder.getF32Type()),
            {{wholeTensor(tensor + conv.str() + ".base_kernel", {2, taps, model.hidden})}});
      linear(model, canonical + "coef", "draft", tensor + conv.str() + ".kernel_projection", 2 * taps * groups,
             model.hidden);
    }
  }
  norm("draft.norm", "draft", "norm.weight", model.hidden, false);
  if (!drafter.selector)
    return;
  int64_t rank = drafter.selector->rank;
  for (StringRef side : {"predecessor", "successor"})
    param("draft.selector." + side.str(), "draft", "none", weightType({target.vocab, rank}, {}),
          {{wholeTensor("candidate_selector." + side.str() + "_codebook", {target.vocab, rank})}});
  linear(model, "draft.selector.hidden", "draft", "candidate_selector.hidden_projection", rank, model.hidden);
}

} // namespace qwen::compiler
