//===- ModelConfig.cpp - fields that every family shares ------------------===//

#include "compiler/import/ModelConfig.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

namespace qwen::compiler {

static std::string readDtype(ConfigReader &config) {
  // Newer files say dtype, older ones torch_dtype; nested ones may say it on either level.
  ConfigValue value = config["dtype"];
  for (const ConfigValue &other : {config["torch_dtype"], config.inherited("dtype"), config.inherited("torch_dtype")})
    if (!value)
      value = other;
  std::string name = config.string(value, "bfloat16");
  if (name == "bfloat16")
    return "bf16";
  if (name == "float32")
    return "f32";
  if (name == "float16")
    return "f16"; // Import.cpp refuses it unless --dtype says what to compute in
  config.unsupported(value, "element type " + JsonQuote(name) + " is not supported (bfloat16, float16, float32)");
  return "bf16";
}

static std::vector<int64_t> readEosIds(ConfigReader &config, int64_t vocab) {
  ConfigValue value = config.inherited("eos_token_id");
  std::vector<ConfigValue> values{value};
  if (value && value.json->IsArray())
    values = config.items(value);
  if (int64_t(values.size()) > limits::eosIds)
    config.unsupported(value, llvm::formatv("lists {0} ids, at most {1} are supported", values.size(), limits::eosIds));
  std::vector<int64_t> ids;
  for (const ConfigValue &item : values) {
    if (!item || !config.ok())
      continue;
    int64_t id = config.integer(item, INT64_MIN, INT64_MAX);
    if (id < 0 || id >= vocab)
      config.warn(item, llvm::formatv("{0} is outside the vocabulary of {1} and ends nothing", id, vocab));
    else if (!llvm::is_contained(ids, id))
      ids.push_back(id);
  }
  return ids;
}

void readCommon(ConfigReader &config, const FamilyDefaults &defaults, ModelConfig &model) {
  model.dtype = readDtype(config);
  model.hidden = config.integer(config["hidden_size"], 1, limits::hidden);
  model.vocab = config.integer(config["vocab_size"], 2, limits::vocab, defaults.vocab);
  model.maxPositions = config.integer(config["max_position_embeddings"], 1, limits::positions, 32768);
  model.eps = config.number(config["rms_norm_eps"], 1e-12, 1, 1e-6);
  ConfigValue tied = config.inherited("tie_word_embeddings");
  model.tiedEmbeddings = config.boolean(tied, false);
  if (ConfigValue outer = config.member(config.root(), "tie_word_embeddings");
      outer && config.boolean(outer) != model.tiedEmbeddings)
    config.warn(tied, llvm::formatv("contradicts {0} and is taken", outer.pointer));
  model.eosIds = readEosIds(config, model.vocab);

  int64_t layers = config.integer(config["num_hidden_layers"], 1, limits::layers);
  model.layers.resize(layers);

  AttentionConfig &attention = model.attention;
  attention.qHeads = config.integer(config["num_attention_heads"], 1, limits::heads);
  ConfigValue kvHeads = config["num_key_value_heads"];
  attention.kvHeads = config.integer(kvHeads, 1, limits::heads, attention.qHeads);
  if (attention.qHeads % attention.kvHeads)
    config.unsupported(
        config["num_attention_heads"],
        llvm::formatv("{0} is not a multiple of num_key_value_heads ({1})", attention.qHeads, attention.kvHeads));
  ConfigValue headDim = config["head_dim"];
  if (!headDim && model.hidden % attention.qHeads)
    config.unsupported(config["hidden_size"],
                       llvm::formatv("{0} is not a multiple of num_attention_heads ({1}), and head_dim is not given",
                                     model.hidden, attention.qHeads));
  attention.headDim = config.integer(headDim, 1, limits::headDim, model.hidden / attention.qHeads);
  // Without head_dim the quotient has not passed the limit yet.
  if (!headDim && (attention.headDim < 1 || attention.headDim > limits::headDim))
    config.unsupported(headDim, llvm::formatv("hidden_size / num_attention_heads is {0}, not in [1, {1}]",
                                              attention.headDim, limits::headDim));
  if (config.ok())
    attention.rope = readRope(config, attention.headDim, defaults.partialRotaryFactor, model.maxPositions);

  if (ConfigValue value = config["attention_bias"]; config.boolean(value, false))
    config.unsupported(value, "biases on q, k, v and o are not supported");
  if (ConfigValue value = config["hidden_act"]; config.string(value, "silu") != "silu")
    config.unsupported(value, "activation " + JsonQuote(config.string(value)) + " is not supported (silu)");
  if (ConfigValue value = config["layer_scale"]; config.boolean(value, false))
    config.unsupported(value, "scaled layers are not supported");
  if (ConfigValue value = config.inherited("dual_chunk_attention_config"))
    config.unsupported(value, "dual chunk attention is not supported",
                       "remove the key to serve up to original_max_position_embeddings tokens with plain attention");
}

std::vector<std::string> readLayerTypes(ConfigReader &config, size_t layers, llvm::ArrayRef<llvm::StringRef> allowed) {
  ConfigValue value = config["layer_types"];
  std::vector<std::string> types;
  if (!value)
    return types;
  std::vector<ConfigValue> items = config.items(value);
  if (items.size() != layers) {
    config.unsupported(value, llvm::formatv("lists {0} layers, but num_hidden_layers is {1}", items.size(), layers));
    return types;
  }
  for (const ConfigValue &item : items) {
    std::string type = config.string(item);
    if (!config.ok())
      return {};
    if (!llvm::is_contained(allowed, type)) {
      config.unsupported(item,
                         "layer type " + JsonQuote(type) + " is not supported (" + llvm::join(allowed, ", ") + ")");
      return {};
    }
    types.push_back(std::move(type));
  }
  return types;
}

DeltaNetConfig readDeltaNet(ConfigReader &config) {
  DeltaNetConfig delta;
  ConfigValue valueHeads = config["linear_num_value_heads"];
  delta.keyHeads = config.integer(config["linear_num_key_heads"], 1, limits::keyHeads, 16);
  delta.valueHeads = config.integer(valueHeads, 1, limits::heads, 32);
  delta.keyDim = config.integer(config["linear_key_head_dim"], 1, limits::headDim, 128);
  delta.valueDim = config.integer(config["linear_value_head_dim"], 1, limits::headDim, 128);
  delta.width = config.integer(config["linear_conv_kernel_dim"], 2, limits::convWidth, 4);
  if (delta.valueHeads % delta.keyHeads)
    config.unsupported(valueHeads, llvm::formatv("{0} is not a multiple of linear_num_key_heads ({1})",
                                                 delta.valueHeads, delta.keyHeads));
  if (ConfigValue value = config["output_gate_type"]) {
    std::string type = config.string(value);
    if (config.ok() && type != "silu" && type != "swish")
      config.unsupported(value, "output gate " + JsonQuote(type) + " is not supported (silu, swish)");
  }
  if (ConfigValue value = config["mamba_ssm_dtype"]; value && config.string(value) != "float32")
    config.warn(value, "the recurrent state is kept in float32 all the same");
  return delta;
}

void readHybridLayers(ConfigReader &config, ModelConfig &model) {
  std::vector<std::string> types = readLayerTypes(config, model.layers.size(), {"linear_attention", "full_attention"});
  int64_t interval = config.integer(config["full_attention_interval"], 1, limits::layers, 4);
  for (auto [index, layer] : llvm::enumerate(model.layers))
    layer.deltaNet = types.empty() ? (index + 1) % interval != 0 : types[index] == "linear_attention";
  if (ConfigValue value = config["use_sliding_window"]; config.boolean(value, false))
    config.unsupported(value, "sliding attention is not supported in " + model.family);
}

void readMoE(ConfigReader &config, const MoEConfig &defaults, ModelConfig &model) {
  ConfigValue experts = config["num_experts"], alias = config["num_local_experts"];
  if (experts && alias && config.integer(experts, 0, limits::experts) != config.integer(alias, 0, limits::experts))
    config.unsupported(
        alias, llvm::formatv("{0} contradicts num_experts ({1})", alias.json->AsInteger(), experts.json->AsInteger()));
  if (!experts)
    experts = alias;
  MoEConfig moe;
  moe.experts = config.integer(experts, 0, limits::experts, defaults.experts);
  if (moe.experts == 0)
    return;
  ConfigValue topK = config["num_experts_per_tok"];
  moe.topK = config.integer(topK, 1, limits::topK, defaults.topK);
  if (moe.topK > moe.experts)
    config.unsupported(topK, llvm::formatv("{0} is more than num_experts ({1})", moe.topK, moe.experts));
  moe.intermediate = config.integer(config["moe_intermediate_size"], 1, limits::intermediate, defaults.intermediate);
  if (defaults.sharedIntermediate)
    moe.sharedIntermediate =
        config.integer(config["shared_expert_intermediate_size"], 1, limits::intermediate, defaults.sharedIntermediate);
  moe.renormalize = config.boolean(config["norm_topk_prob"], defaults.renormalize);
  model.moe = moe;
}

void readSparseLayers(ConfigReader &config, ModelConfig &model) {
  int64_t step = config.integer(config["decoder_sparse_step"], 1, limits::layers, 1);
  for (auto [index, layer] : llvm::enumerate(model.layers))
    layer.moe = model.moe && (index + 1) % step == 0;
  for (const ConfigValue &item : config.items(config["mlp_only_layers"])) {
    int64_t index = config.integer(item, 0, int64_t(model.layers.size()) - 1);
    if (config.ok())
      model.layers[index].moe = false;
  }
  bool dense = llvm::any_of(model.layers, [](const LayerConfig &layer) { return !layer.moe; }) || !model.moe;
  if (dense)
    model.intermediate = config.integer(config["intermediate_size"], 1, limits::intermediate);
}

bool readHasMtp(ConfigReader &config) {
  if (ConfigValue value = config["mtp_use_dedicated_embeddings"]; config.boolean(value, false))
    config.unsupported(value, "an MTP head with an embedding of its own is not supported");
  ConfigValue layers = config["mtp_num_hidden_layers"];
  int64_t count = config.integer(layers, 0, limits::layers, 1);
  if (count > 1)
    config.unsupported(layers, llvm::formatv("{0} MTP layers are not supported (0, 1)", count));
  return count == 1;
}

} // namespace qwen::compiler
