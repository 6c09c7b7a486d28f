//===- DFlash.cpp - DFlash and DFlash2 drafters ---------------------------===//
//
// A drafter is a small dense transformer that fills a whole block of masked tokens in one pass (model specification,
// 12). It has no embedding and no head: both are the target's. What it knows of the text are the target's hidden
// states, tapped after a few layers (`features`). Two programs: `draft_dflash_context` turns the features of committed
// tokens into keys and values of every drafter layer; `draft_dflash` runs one block over them.
//
// DFlash2 wraps every sublayer in short convolutions along the block and picks tokens by a walk over each slot's best
// candidates.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/Programs.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include <cmath>

using namespace mlir;
namespace model_ir = qwen::ir::model;

namespace qwen::compiler {

//===----------------------------------------------------------------------===//
// Config
//===----------------------------------------------------------------------===//

static bool names(ConfigReader &config, StringRef architecture) {
  for (const ConfigValue &item : config.items(config.member(config.root(), "architectures")))
    if (config.string(item) == architecture)
      return true;
  return false;
}

bool isDrafter(ConfigReader &config) {
  return names(config, "DFlashDraftModel") || names(config, "DFlash2DraftModel") ||
         config.member(config.root(), "dflash_config");
}

/// The layers whose outputs a drafter reads when its config does not say, spread over the target.
static std::vector<int64_t> defaultTargetLayers(int64_t draftLayers, int64_t targetLayers) {
  if (draftLayers == 1)
    return {targetLayers / 2};
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < draftLayers; ++i)
    ids.push_back(std::llrint(1 + double(i) * double(targetLayers - 4) / double(draftLayers - 1)));
  return ids;
}

static void readTargetLayers(ConfigReader &config, const ConfigValue &dflash, const ModelConfig &target,
                             DrafterConfig &drafter) {
  ConfigValue value = config.member(dflash, "target_layer_ids");
  int64_t count = int64_t(target.layers.size());
  if (!value) {
    drafter.targetLayers = defaultTargetLayers(int64_t(drafter.model.layers.size()), count);
    for (int64_t id : drafter.targetLayers)
      if (id < 0 || id >= count)
        config.unsupported(value, llvm::formatv("is missing, and its default names layer {0} of {1}", id, count));
    return;
  }
  for (const ConfigValue &item : config.items(value)) {
    int64_t id = config.integer(item, 0, INT32_MAX);
    if (id >= count)
      config.unsupported(item, llvm::formatv("{0} is not a layer of the target, which has {1}", id, count));
    if (llvm::is_contained(drafter.targetLayers, id))
      config.unsupported(item, llvm::formatv("layer {0} stands twice", id));
    if (!config.ok())
      return;
    drafter.targetLayers.push_back(id);
  }
  if (drafter.targetLayers.empty())
    config.unsupported(value, "is empty: the drafter would see nothing of the text");
}

/// The token whose embedding stands for "not drafted yet".
static int64_t readMaskToken(ConfigReader &config, const ConfigValue &dflash, const ModelConfig &target) {
  ConfigValue value = config.member(dflash, "mask_token_id");
  if (value)
    return config.integer(value, 0, target.vocab - 1);
  // Training recipes leave it to be found at training time. Drafts are verified, so a wrong one costs speed only.
  int64_t guess = target.vocab == 248320 ? 248070 : target.vocab == 151936 ? 151669 : -1;
  if (guess < 0)
    config.unsupported(value, "is missing");
  else
    config.warn(value, llvm::formatv("is missing; {0} is taken, as in the releases with this vocabulary", guess));
  return guess;
}

/// Whether the rows of a block hide later ones from each other. Without a flag the sliding layers do (model
/// specification, 12.1).
static std::optional<bool> readCausal(ConfigReader &config, const ConfigValue &dflash) {
  for (const ConfigValue &value : {config["is_causal"], config.member(dflash, "causal")})
    if (value)
      return config.boolean(value);
  return std::nullopt;
}

void readDFlash(ConfigReader &config, const ModelConfig &target, DrafterConfig &drafter) {
  ModelConfig &model = drafter.model;
  model.family = "dflash";
  if (ConfigValue type = config.member(config.root(), "model_type"); config.string(type, "qwen3") != "qwen3")
    config.unsupported(type,
                       "model type " + JsonQuote(config.string(type)) + " is not supported for a drafter (qwen3)");
  if (config.ok() && !isDrafter(config))
    config.unsupported(config.member(config.root(), "architectures"),
                       "is not a drafter (DFlashDraftModel, DFlash2DraftModel)");
  readCommon(config, {target.vocab, 1.0}, model);
  model.intermediate = config.integer(config["intermediate_size"], 1, limits::intermediate);
  ConfigValue dflash = config["dflash_config"];

  // The embedding and the head are the target's, so the sizes must be.
  auto fits = [&](const ConfigValue &value, int64_t own, int64_t others, const char *what) {
    if (own != others)
      config.unsupported(value, llvm::formatv("{0}, but the target's {1} is {2}", own, what, others));
  };
  fits(config["hidden_size"], model.hidden, target.hidden, "hidden_size");
  fits(config["vocab_size"], model.vocab, target.vocab, "vocab_size");
  for (const char *key : {"target_hidden_size", "draft_vocab_size", "num_target_layers"}) {
    ConfigValue value = config[key];
    if (!value)
      value = config.member(dflash, key);
    bool layers = StringRef(key).ends_with("layers"), hidden = StringRef(key).ends_with("hidden_size");
    int64_t want = layers ? int64_t(target.layers.size()) : hidden ? target.hidden : target.vocab;
    fits(value, config.integer(value, 0, INT32_MAX, want), want,
         layers   ? "num_hidden_layers"
         : hidden ? "hidden_size"
                  : "vocab_size");
  }
  auto refuse = [&](const char *key, const char *what) {
    for (const ConfigValue &value : {config[key], config.member(dflash, key)})
      if (config.boolean(value, false))
        config.unsupported(value, std::string(what) + " is not supported");
  };
  auto require = [&](const char *key, const char *what) {
    for (const ConfigValue &value : {config[key], config.member(dflash, key)})
      if (!config.boolean(value, true))
        config.unsupported(value, std::string(what) + " is not supported");
  };
  refuse("attention_sink_bias", "a bias for attention sinks");
  require("is_neox_style", "rotation of interleaved pairs");
  require("use_aux_hidden_state", "a drafter that does not read the target's hidden states");
  for (const char *key : {"logit_scale", "input_embedding_scale", "output_multiplier"})
    for (const ConfigValue &value : {config[key], config.member(dflash, key)})
      if (config.number(value, -1e9, 1e9, 1.0) != 1.0)
        config.unsupported(value, "a factor other than 1 is not supported");
  for (const ConfigValue &value : {config["final_logit_softcapping"], config.member(dflash, "final_logit_softcapping")})
    if (value)
      config.unsupported(value, "capped logits are not supported");

  ConfigValue block = config["block_size"];
  if (!block)
    block = config.member(dflash, "block_size");
  drafter.blockSize = config.integer(block, 2, limits::blockSize);
  drafter.maskTokenId = readMaskToken(config, dflash, target);
  if (config.ok())
    readTargetLayers(config, dflash, target, drafter);

  std::vector<std::string> types = readLayerTypes(config, model.layers.size(), {"full_attention", "sliding_attention"});
  ConfigValue window = config["sliding_window"];
  if (!window)
    window = config.member(dflash, "swa_window_size");
  if (ConfigValue value = config.member(dflash, "use_swa"); config.boolean(value, false) && types.empty())
    config.unsupported(value, "needs layer_types to say which layers slide");
  std::optional<bool> causal = readCausal(config, dflash);
  for (auto [index, layer] : llvm::enumerate(model.layers)) {
    bool sliding = !types.empty() && types[index] == "sliding_attention";
    layer.window = sliding ? config.integer(window, 1, limits::positions) : 0;
    layer.causal = causal.value_or(sliding);
  }

  if (names(config, "DFlash2DraftModel")) {
    DrafterConfig::Selector selector;
    selector.taps = config.integer(config.member(dflash, "conv_kernel_size"), 1, limits::convWidth);
    ConfigValue group = config.member(dflash, "conv_group_size");
    selector.group = config.integer(group, 1, limits::hidden);
    if (model.hidden % selector.group)
      config.unsupported(group, llvm::formatv("{0} does not divide hidden_size ({1})", selector.group, model.hidden));
    selector.rank = config.integer(config.member(dflash, "selector_rank"), 1, limits::headDim);
    selector.candidates =
        config.integer(config.member(dflash, "selector_top_k"), 1, std::min<int64_t>(target.vocab, 256));
    drafter.selector = selector;
  }
  if (config.ok())
    model.schemes = readSchemes(config);
}

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

static std::string layerName(size_t index) { return "draft.layers." + std::to_string(index); }

static void buildContext(ModuleOp module, SymbolTable &params, const ImportedModel &model) {
  const DrafterConfig &drafter = *model.drafter;
  Program program(module, params, model.element, "draft_dflash_context", model.maxRows);
  Graph &graph = program.graph();
  Value features = program.input("features", graph.rows(int64_t(drafter.targetLayers.size()) * model.target.hidden));
  graph.at("draft.fc");
  Value context = graph.linear(features, "draft.fc");
  graph.at("draft.hidden_norm");
  context = graph.rmsNorm(context, "draft.hidden_norm", drafter.model);
  // Every layer reads the same context; a layer's own norm is not applied to it.
  for (size_t index = 0; index < drafter.model.layers.size(); ++index)
    buildKeysAndValues(graph, context, layerName(index), drafter.model);
  program.finish();
}

/// `sublayer` of the rows `h`, between the two convolutions of DFlash2 when the drafter has them; both take their
/// taps from `h`.
static Value between(Graph &graph, const DrafterConfig &drafter, const std::string &name, const std::string &conv,
                     Value h, llvm::function_ref<Value(Value)> sublayer) {
  if (!drafter.selector)
    return sublayer(h);
  OpBuilder &builder = graph.builder;
  graph.at(name + "." + conv);
  Value coef = graph.linear(h, name + "." + conv + ".coef");
  auto convolve = [&](Value x, int64_t index) -> Value {
    graph.at(name + "." + conv);
    return model_ir::DynamicConvOp::create(
        builder, graph.loc, x.getType(), x, coef, graph.weight(name + "." + conv + ".base"), graph.batch,
        builder.getI64IntegerAttr(drafter.selector->group), builder.getI64IntegerAttr(index));
  };
  return convolve(sublayer(convolve(h, 0)), 1);
}

static void buildBlock(ModuleOp module, SymbolTable &params, const ImportedModel &model) {
  const DrafterConfig &drafter = *model.drafter;
  Program program(module, params, model.element, "draft_dflash", drafter.blockSize);
  Graph &graph = program.graph();
  Value ids = program.input("token_ids", graph.ids());
  graph.at("draft.embed");
  Value x = graph.embed(ids, "embed");
  for (auto [index, layer] : llvm::enumerate(drafter.model.layers)) {
    std::string name = layerName(index);
    graph.at(name + ".norm1");
    Value h = graph.rmsNorm(x, name + ".norm1", drafter.model);
    Value mixed = between(graph, drafter, name, "attn_conv", h, [&, &layer = layer](Value rows) {
      return buildAttention(graph, rows, name, drafter.model, layer);
    });
    graph.at(name + ".attn.out");
    x = graph.add(mixed, x);
    graph.at(name + ".norm2");
    h = graph.rmsNorm(x, name + ".norm2", drafter.model);
    Value fed = between(graph, drafter, name, "mlp_conv", h, [&](Value rows) { return buildDense(graph, rows, name); });
    graph.at(name);
    x = graph.add(fed, x);
  }
  // The rows that want a token are the masked ones.
  graph.at("draft.norm");
  Value hidden = graph.rmsNorm(graph.logitRows(x), "draft.norm", drafter.model);
  graph.at("draft.lm_head");
  Value logits = graph.lmHead(hidden), next;
  if (drafter.selector) {
    graph.at("draft.selector");
    Value projected = graph.linear(hidden, "draft.selector.hidden");
    next = model_ir::CandidateWalkOp::create(graph.builder, graph.loc, graph.ids(), logits, projected, ids,
                                             graph.weight("draft.selector.predecessor"),
                                             graph.weight("draft.selector.successor"), graph.batch,
                                             graph.builder.getI64IntegerAttr(drafter.selector->candidates));
  } else {
    graph.at("draft.sample");
    next = graph.sample(logits);
  }
  program.output("next", next);
  program.output("logits", logits);
  program.finish();
}

void buildDFlash(ModuleOp module, SymbolTable &params, const ImportedModel &model) {
  buildContext(module, params, model);
  buildBlock(module, params, model);
}

} // namespace qwen::compiler
