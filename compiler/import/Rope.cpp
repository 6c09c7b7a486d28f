//===- Rope.cpp - rotary frequencies from a config ------------------------===//
//
// Two spellings: `rope_parameters {rope_type, rope_theta, ...}`, and before it `rope_theta`, `rope_scaling` and
// `partial_rotary_factor` beside the other fields. Both may stand in one file; inside `rope_parameters` wins.
//
// The frequencies must be those of transformers, so they are computed as it does, in f32: the exponent, the power and
// the quotient are each rounded. The power itself is taken in f64, because libraries differ in the last bit of powf.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/ModelConfig.h"
#include "llvm/Support/FormatVariadic.h"
#include <algorithm>
#include <cmath>
#include <numbers>

namespace qwen::compiler {
namespace {

/// base^(2j / dim), j = 0 ... dim/2 - 1.
std::vector<float> powers(double base, int64_t dim) {
  std::vector<float> result;
  for (int64_t j = 0; j < dim; j += 2) {
    float exponent = float(j) / float(dim);
    result.push_back(float(std::pow(double(float(base)), double(exponent))));
  }
  return result;
}

struct Yarn {
  double factor, originalPositions, betaFast, betaSlow, attentionFactor;
  bool truncate;
};

/// Dimensions that turn often within the trained context keep their frequency, those that turn less than once are
/// interpolated, those between are blended (Peng et al. 2023, YaRN, section 3.2).
std::vector<float> yarnFrequencies(const Yarn &yarn, double base, int64_t dim) {
  auto correction = [&](double rotations) {
    return dim * std::log(yarn.originalPositions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double low = correction(yarn.betaFast), high = correction(yarn.betaSlow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, double(dim - 1));
  if (low == high)
    high += 0.001; // as transformers: no division by zero

  std::vector<float> result;
  for (float power : powers(base, dim)) {
    float ramp = (float(result.size()) - float(low)) / float(high - low);
    float keep = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    float extrapolated = 1.0f / power, interpolated = 1.0f / (float(yarn.factor) * power);
    result.push_back(interpolated * (1.0f - keep) + extrapolated * keep);
  }
  return result;
}

} // namespace

RopeConfig readRope(ConfigReader &config, int64_t headDim, double defaultPartial, int64_t maxPositions) {
  ConfigValue parameters = config["rope_parameters"], scaling = config["rope_scaling"];
  auto pick = [&](llvm::StringRef key, bool beside) {
    ConfigValue value = config.member(parameters, key);
    if (!value)
      value = config.member(scaling, key);
    if (!value && beside)
      value = config[key];
    return value;
  };
  // Per-layer-type tables would otherwise be taken for a table without a theta, and the default theta be used.
  for (llvm::StringRef key : {"full_attention", "sliding_attention", "linear_attention"})
    if (ConfigValue value = config.member(parameters, key))
      config.unsupported(value, "rope parameters per layer type are not supported");

  double base = config.number(pick("rope_theta", true), 1.0001, 1e15, 10000.0);
  ConfigValue partial = pick("partial_rotary_factor", true);
  double fraction = config.number(partial, 0, 1, defaultPartial);
  int64_t dim = int64_t(double(headDim) * fraction);
  if (dim < 2 || dim % 2)
    config.unsupported(
        partial,
        llvm::formatv("rotates {0} of {1} channels of a head, which is not an even number above 0", dim, headDim));

  ConfigValue type = pick("rope_type", false);
  if (!type)
    type = pick("type", false); // before 2024
  std::string name = config.string(type, "default");
  RopeConfig rope;
  if (!config.ok())
    return rope;

  // "mrope": positions of text are equal in all three rows, so for text it is plain RoPE (model specification, 3.5).
  if (name == "default" || name == "mrope") {
    for (float power : powers(base, dim))
      rope.invFreq.push_back(1.0f / power);
    return rope;
  }
  if (name != "yarn") {
    config.unsupported(type, "rope type " + JsonQuote(name) + " is not supported (default, yarn)");
    return rope;
  }

  Yarn yarn;
  ConfigValue original = pick("original_max_position_embeddings", true), factor = pick("factor", false);
  yarn.originalPositions = double(config.integer(original, 1, limits::positions, maxPositions));
  yarn.factor = config.number(factor, 1, 1e6, std::max(1.0, double(maxPositions) / yarn.originalPositions));
  yarn.betaFast = config.number(pick("beta_fast", false), 1e-3, 1e6, 32.0);
  yarn.betaSlow = config.number(pick("beta_slow", false), 1e-3, 1e6, 1.0);
  if (yarn.betaFast < yarn.betaSlow)
    config.unsupported(pick("beta_fast", false), "is below beta_slow");
  yarn.truncate = config.boolean(pick("truncate", false), true);

  auto mscale = [&](double weight) { return yarn.factor <= 1 ? 1.0 : 0.1 * weight * std::log(yarn.factor) + 1.0; };
  ConfigValue mscaleValue = pick("mscale", false), mscaleAllValue = pick("mscale_all_dim", false);
  double mscaleOne = config.number(mscaleValue, 0, 1e3, 0.0), mscaleAll = config.number(mscaleAllValue, 0, 1e3, 0.0);
  double given = mscaleOne > 0 && mscaleAll > 0 ? mscale(mscaleOne) / mscale(mscaleAll) : mscale(1.0);
  yarn.attentionFactor = config.number(pick("attention_factor", false), 1e-3, 1e3, given);
  if (!config.ok())
    return rope;
  rope.invFreq = yarnFrequencies(yarn, base, dim);
  rope.attentionFactor = yarn.attentionFactor;
  rope.stretchedPositions = int64_t(yarn.factor * yarn.originalPositions);
  return rope;
}

} // namespace qwen::compiler
