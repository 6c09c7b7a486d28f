//===- Modelopt.cpp - quant_method "modelopt" -----------------------------===//
//
// NVIDIA's exports: one algorithm for every linear but the ignored ones (globs), or MIXED_PRECISION with an algorithm
// for each module by name (quantisation design, section 7). The MTP head stays plain: the files leave mtp.fc out of the
// list and in bf16 all the same.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/quant/ModulePatterns.h"
#include "compiler/import/quant/Scheme.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/FormatVariadic.h"

namespace qwen::compiler {
namespace {

struct ModeloptRules : SchemeRules {
  std::optional<StoredScheme> all;
  llvm::StringMap<StoredScheme> byName;
  ModulePatterns ignore, exclude;

  std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const override {
    if (query.mtp || ignore.matchesAny(query.names) || exclude.matchesAny(query.names))
      return std::nullopt;
    for (const std::string &name : query.names)
      if (auto found = byName.find(name); found != byName.end())
        return found->second;
    return all;
  }
};

std::optional<StoredScheme> readAlgorithm(ConfigReader &config, const ConfigValue &value) {
  std::string name = config.string(value);
  if (!config.ok())
    return std::nullopt;
  if (name == "FP8")
    return fp8Scheme("fp8_tensor", 0, 0);
  if (name == "FP8_PER_CHANNEL_PER_TOKEN")
    return fp8Scheme("fp8_channel", 1, 0);
  if (name == "MXFP8")
    return fp8Scheme("mxfp8", 1, 32);
  if (name == "NVFP4" || name == "W4A16_NVFP4")
    return nvfp4Scheme("weight");
  config.unsupported(value, "algorithm " + JsonQuote(name) +
                                " is not supported (FP8, FP8_PER_CHANNEL_PER_TOKEN, MXFP8, NVFP4, W4A16_NVFP4, "
                                "MIXED_PRECISION)");
  return std::nullopt;
}

} // namespace

std::unique_ptr<SchemeRules> readModelopt(ConfigReader &config, const ConfigValue &quantization) {
  auto rules = std::make_unique<ModeloptRules>();
  ConfigValue algorithm = config.member(quantization, "quant_algo");
  if (config.string(algorithm) != "MIXED_PRECISION") {
    rules->all = readAlgorithm(config, algorithm);
  } else {
    ConfigValue layers = config.member(quantization, "quantized_layers");
    if (!layers || !layers.json->IsObject()) {
      config.malformed(layers, "is missing or not an object");
      return rules;
    }
    for (const Json::Member &member : layers.json->members()) {
      ConfigValue where{&member.second, JsonPointer(layers.pointer, member.first)};
      ConfigValue group = config.member(where, "group_size");
      std::optional<StoredScheme> scheme = readAlgorithm(config, config.member(where, "quant_algo"));
      if (!scheme)
        return rules;
      if (int64_t size = config.integer(group, 1, 65536, scheme->groupK); size != scheme->groupK)
        config.unsupported(group,
                           llvm::formatv("{0} is not the group of {1} ({2})", size, scheme->format, scheme->groupK));
      rules->byName[member.first] = std::move(*scheme);
    }
  }
  rules->ignore = ModulePatterns::read(config, config.member(quantization, "ignore"), ModulePatterns::Plain::Exact);
  rules->exclude =
      ModulePatterns::read(config, config.member(quantization, "exclude_modules"), ModulePatterns::Plain::Exact);
  warnAboutCache(config, quantization);
  return rules;
}

} // namespace qwen::compiler
