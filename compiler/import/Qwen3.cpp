//===- Qwen3.cpp - qwen3 and qwen3_moe ------------------------------------===//
//
// Full attention everywhere, plain norms, rotation of the whole head (model specification, 4 and 5). qwen3 may slide
// its attention in some layers; qwen3_moe routes its feed-forward in most.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/ModelConfig.h"
#include "llvm/ADT/STLExtras.h"

namespace qwen::compiler {

static constexpr FamilyDefaults kDefaults{151936, 1.0};

void readQwen3(ConfigReader &config, ModelConfig &model) {
  model.family = "qwen3";
  readCommon(config, kDefaults, model);
  model.intermediate = config.integer(config["intermediate_size"], 1, limits::intermediate);

  std::vector<std::string> types = readLayerTypes(config, model.layers.size(), {"full_attention", "sliding_attention"});
  bool sliding = config.boolean(config["use_sliding_window"], false);
  ConfigValue window = config["sliding_window"];
  int64_t size = sliding ? config.integer(window, 1, limits::positions) : 0;
  int64_t firstSliding = config.integer(config["max_window_layers"], 0, INT32_MAX, 28);
  for (auto [index, layer] : llvm::enumerate(model.layers)) {
    bool slides = types.empty() ? sliding && int64_t(index) >= firstSliding : types[index] == "sliding_attention";
    if (slides && !sliding)
      config.unsupported(config["layer_types"], "has a sliding_attention layer, but use_sliding_window is false");
    layer.window = slides ? size : 0;
  }
}

void readQwen3MoE(ConfigReader &config, ModelConfig &model) {
  model.family = "qwen3_moe";
  readCommon(config, kDefaults, model);
  readMoE(config, {/*experts=*/128, /*topK=*/8, /*intermediate=*/768, /*shared=*/0, /*renormalize=*/false}, model);
  readSparseLayers(config, model);
  // transformers slides every layer of this type and vLLM none; no release decides between them.
  if (ConfigValue value = config["use_sliding_window"]; config.boolean(value, false))
    config.unsupported(value, "sliding attention is not supported in qwen3_moe");
  readLayerTypes(config, model.layers.size(), {"full_attention"});
}

} // namespace qwen::compiler
