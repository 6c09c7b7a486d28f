//===- Scheme.cpp - picks the format of a quantised checkpoint ------------===//

#include "compiler/import/quant/Scheme.h"

using llvm::StringRef;

namespace qwen::compiler {

using Reader = std::unique_ptr<SchemeRules> (*)(ConfigReader &, const ConfigValue &);
static constexpr struct {
  StringRef method;
  Reader read;
} kFormats[] = {
    {"awq", readAwq},           {"compressed-tensors", readCompressedTensors}, {"fp8", readFp8}, {"gptq", readGptq},
    {"modelopt", readModelopt},
};

std::unique_ptr<SchemeRules> readSchemes(ConfigReader &config) {
  ConfigValue quantization = config.inherited("quantization_config");
  if (!quantization)
    return nullptr;
  ConfigValue method = config.member(quantization, "quant_method");
  // Early modelopt exports name themselves by their producer only.
  ConfigValue producer = config.member(config.member(quantization, "producer"), "name");
  std::string name = config.string(method ? method : producer, std::nullopt);
  if (!config.ok())
    return nullptr;
  std::string list;
  for (const auto &format : kFormats) {
    if (name == format.method) {
      std::unique_ptr<SchemeRules> rules = format.read(config, quantization);
      return config.ok() ? std::move(rules) : nullptr;
    }
    list += (list.empty() ? "" : ", ") + format.method.str();
  }
  config.unsupported(method ? method : producer,
                     "quantisation method " + JsonQuote(name) + " is not supported (" + list + ")");
  return nullptr;
}

StoredScheme fp8Scheme(StringRef format, int64_t groupN, int64_t groupK) {
  StoredScheme scheme;
  scheme.format = format.str();
  scheme.groupN = groupN;
  scheme.groupK = groupK;
  scheme.dtype = "F8_E4M3";
  return scheme;
}

StoredScheme nvfp4Scheme(StringRef suffix) {
  StoredScheme scheme;
  scheme.format = "nvfp4";
  scheme.groupN = 1;
  scheme.groupK = 16;
  scheme.suffix = suffix.str();
  scheme.dtype = "U8";
  scheme.codesPerElement = 2;
  scheme.packing = "nvfp4";
  return scheme;
}

void warnAboutCache(ConfigReader &config, const ConfigValue &quantization) {
  for (StringRef key : {"kv_cache_scheme", "kv_cache_quant_algo"})
    if (ConfigValue value = config.member(quantization, key))
      config.warn(value, "keys and values are cached in the model's type all the same");
}

} // namespace qwen::compiler
