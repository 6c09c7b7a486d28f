//===- Qwen3Next.cpp - qwen3_next -----------------------------------------===//
//
// Three delta-rule layers for one of gated attention, experts with a shared one, zero-centred norms (model
// specification, 7). Its input projections are interleaved by key head (6.1); the weight map undoes that, so that from
// here on it is Qwen3.5. The config never mentions the MTP head that the checkpoint has.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/ModelConfig.h"

namespace qwen::compiler {

void readQwen3Next(ConfigReader &config, ModelConfig &model) {
  model.family = "qwen3_next";
  model.zeroCentredNorms = true;
  readCommon(config, {151936, 0.25}, model);
  model.attention.outputGate = config.boolean(config["attn_output_gate"], true);
  model.deltaNet = readDeltaNet(config);
  model.deltaNet->interleaved = true;
  readHybridLayers(config, model);
  readMoE(config, {/*experts=*/512, /*topK=*/10, /*intermediate=*/512, /*shared=*/512, /*renormalize=*/true}, model);
  readSparseLayers(config, model);
  if (readHasMtp(config))
    model.mtp = LayerConfig{.moe = model.moe.has_value()};
}

} // namespace qwen::compiler
