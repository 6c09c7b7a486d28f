//===- ModelConfig.h - what a config.json says, in our words --------------===//
//
// The names of Hugging Face files end here: a family reads its config into this description, and the layer recipe
// (DecoderLayer.h) and the weight map (WeightMap.h) work from it alone.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_MODELCONFIG_H
#define QWEN_COMPILER_IMPORT_MODELCONFIG_H

#include "compiler/import/ConfigReader.h"
#include "compiler/import/quant/Scheme.h"
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

/// What a dimension may be. Far above every release, and low enough that no product of them leaves int64 and that a
/// hostile file costs no more than a large model does.
namespace limits {
inline constexpr int64_t hidden = int64_t{1} << 17;
inline constexpr int64_t intermediate = int64_t{1} << 20;
inline constexpr int64_t vocab = int64_t{1} << 24;
inline constexpr int64_t layers = 256;
inline constexpr int64_t heads = 1024;
inline constexpr int64_t keyHeads = 128;
inline constexpr int64_t headDim = 1024;
inline constexpr int64_t convWidth = 16;
inline constexpr int64_t experts = 8192;
inline constexpr int64_t topK = 256;
inline constexpr int64_t positions = int64_t{1} << 30;
inline constexpr int64_t eosIds = 64;
inline constexpr int64_t blockSize = 256;
} // namespace limits

/// Rotary positions: the importer writes the frequencies, so that a scaled RoPE is other numbers and not another op.
struct RopeConfig {
  std::vector<float> invFreq;
  double attentionFactor = 1;
  int64_t stretchedPositions = 0; // YaRN: how far factor * original reaches; 0 otherwise
};

struct AttentionConfig {
  int64_t qHeads = 0, kvHeads = 0, headDim = 0;
  bool outputGate = false;
  RopeConfig rope;
};

struct DeltaNetConfig {
  int64_t keyHeads = 0, valueHeads = 0, keyDim = 0, valueDim = 0, width = 0;
  /// Qwen3-Next stores q, k, v, z (and b, a) interleaved by key head in one tensor.
  bool interleaved = false;

  int64_t keyChannels() const { return keyHeads * keyDim; }
  int64_t valueChannels() const { return valueHeads * valueDim; }
  int64_t convChannels() const { return 2 * keyChannels() + valueChannels(); }
};

struct MoEConfig {
  int64_t experts = 0, topK = 0, intermediate = 0, sharedIntermediate = 0; // 0: no shared expert
  bool renormalize = true;
};

struct LayerConfig {
  bool deltaNet = false;
  bool moe = false;
  int64_t window = 0; // sliding attention; 0 sees everything
  bool causal = true; // false: rows of one draft block see each other
};

/// A decoder: the target model, or a drafter's own layers.
struct ModelConfig {
  std::string family; // "qwen3_5"
  std::string dtype;  // of the file: "bf16", "f32"
  int64_t hidden = 0, vocab = 0, intermediate = 0, maxPositions = 0;
  double eps = 0;
  /// Stored norm weights are w of 1 + w (model specification, 3.2); otherwise plain and rounded first (3.1).
  bool zeroCentredNorms = false;
  bool tiedEmbeddings = false;
  AttentionConfig attention;
  std::optional<DeltaNetConfig> deltaNet;
  std::optional<MoEConfig> moe;
  std::vector<LayerConfig> layers;
  /// The MTP head's one layer; its mixer is full attention.
  std::optional<LayerConfig> mtp;
  std::vector<int64_t> eosIds;
  std::vector<std::string> prefixes;
  std::unique_ptr<SchemeRules> schemes; // null: nothing is quantised
};

/// A DFlash or DFlash2 drafter (model specification, 12).
struct DrafterConfig {
  ModelConfig model; // dense layers; no embedding and no head of its own
  int64_t blockSize = 0, maskTokenId = 0;
  std::vector<int64_t> targetLayers; // whose outputs are the features, in order
  struct Selector {
    int64_t taps = 0, group = 0, rank = 0, candidates = 0;
  };
  std::optional<Selector> selector; // DFlash2
};

/// What differs between families in the fields they share.
struct FamilyDefaults {
  int64_t vocab;
  double partialRotaryFactor;
};

/// Reads the fields that every family has: sizes, attention heads, rope, dtype, ids, tied embeddings. Leaves layers,
/// delta-rule and expert fields to the family.
void readCommon(ConfigReader &config, const FamilyDefaults &defaults, ModelConfig &model);

/// `layer_types`, checked against the number of layers and the `allowed` kinds; empty when the file has none.
std::vector<std::string> readLayerTypes(ConfigReader &config, size_t layers, llvm::ArrayRef<llvm::StringRef> allowed);

/// The delta-rule fields of Qwen3-Next and Qwen3.5.
DeltaNetConfig readDeltaNet(ConfigReader &config);

/// Mixers of a hybrid model: `layer_types`, else every `full_attention_interval`-th layer is attention.
void readHybridLayers(ConfigReader &config, ModelConfig &model);

/// Expert fields, with the class defaults of the family. `moe` stays empty when the file has no experts.
void readMoE(ConfigReader &config, const MoEConfig &defaults, ModelConfig &model);

/// Which layers route (`decoder_sparse_step`, `mlp_only_layers`), and the width of the dense ones.
void readSparseLayers(ConfigReader &config, ModelConfig &model);

/// Whether the file has an MTP head, which it has by default.
bool readHasMtp(ConfigReader &config);

// One family, one file.
void readQwen3(ConfigReader &config, ModelConfig &model);
void readQwen3MoE(ConfigReader &config, ModelConfig &model);
void readQwen3Next(ConfigReader &config, ModelConfig &model);
void readQwen35(ConfigReader &config, ModelConfig &model);
void readQwen35MoE(ConfigReader &config, ModelConfig &model);
/// `target` is complete; the drafter must fit it.
void readDFlash(ConfigReader &config, const ModelConfig &target, DrafterConfig &drafter);
/// Whether a config is a drafter's, which needs a target beside it.
bool isDrafter(ConfigReader &config);

/// `rope_parameters`, or the older `rope_theta` and `rope_scaling` beside the other fields.
RopeConfig readRope(ConfigReader &config, int64_t headDim, double defaultPartial, int64_t maxPositions);

} // namespace qwen::compiler

#endif
