//===- Qwen35.cpp - qwen3_5 and qwen3_5_moe -------------------------------===//
//
// Qwen3.5, 3.6 and 3.8: the layers of Qwen3-Next with split projections, dense or with experts in every layer (model
// specification, 8). Releases nest the language model in a multimodal config; text-only re-exports do not.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/ModelConfig.h"

namespace qwen::compiler {

static void readHybrid(ConfigReader &config, ModelConfig &model) {
  model.zeroCentredNorms = true;
  readCommon(config, {248320, 0.25}, model);
  model.attention.outputGate = config.boolean(config["attn_output_gate"], true);
  model.deltaNet = readDeltaNet(config);
  readHybridLayers(config, model);
}

void readQwen35(ConfigReader &config, ModelConfig &model) {
  model.family = "qwen3_5";
  readHybrid(config, model);
  model.intermediate = config.integer(config["intermediate_size"], 1, limits::intermediate);
  if (readHasMtp(config))
    model.mtp = LayerConfig{};
}

void readQwen35MoE(ConfigReader &config, ModelConfig &model) {
  model.family = "qwen3_5_moe";
  readHybrid(config, model);
  readMoE(config, {/*experts=*/256, /*topK=*/8, /*intermediate=*/512, /*shared=*/512, /*renormalize=*/true}, model);
  if (config.ok() && !model.moe)
    config.unsupported(config["num_experts"], "is 0, but every layer of qwen3_5_moe routes");
  for (LayerConfig &layer : model.layers)
    layer.moe = true;
  // The model type has no such field: its router always renormalises.
  if (ConfigValue value = config["norm_topk_prob"]; !config.boolean(value, true)) {
    config.warn(value, "qwen3_5_moe renormalises the weights of its experts all the same");
    if (model.moe)
      model.moe->renormalize = true;
  }
  if (readHasMtp(config))
    model.mtp = LayerConfig{.moe = true};
}

} // namespace qwen::compiler
