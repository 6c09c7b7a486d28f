//===- CompressedTensors.cpp - quant_method "compressed-tensors" ----------===//
//
// Groups of targets, each with the type of its weights; the first group that names a module wins, `ignore` goes before
// all (quantisation design, section 4). Targets are names, `re:` expressions or the class name "Linear", which is every
// module that is asked about. The MTP head stays plain: lists leave out mtp.fc and its like, and exports do so.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/quant/ModulePatterns.h"
#include "compiler/import/quant/Scheme.h"
#include "llvm/Support/FormatVariadic.h"

using llvm::StringRef;

namespace qwen::compiler {
namespace {

struct Group {
  ModulePatterns targets;
  bool everyLinear = false;
  StoredScheme scheme;
};

struct CompressedTensorsRules : SchemeRules {
  std::vector<Group> groups;
  ModulePatterns ignore;

  std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const override {
    if (query.mtp || ignore.matchesAny(query.names))
      return std::nullopt;
    for (const Group &group : groups)
      if (group.everyLinear || group.targets.matchesAny(query.names))
        return group.scheme;
    return std::nullopt;
  }
};

StoredScheme readWeights(ConfigReader &config, const ConfigValue &weights) {
  ConfigValue bitsValue = config.member(weights, "num_bits"), typeValue = config.member(weights, "type");
  ConfigValue strategyValue = config.member(weights, "strategy"), groupValue = config.member(weights, "group_size");
  int64_t bits = config.integer(bitsValue, 1, 32);
  std::string type = config.string(typeValue), strategy = config.string(strategyValue, "tensor");
  StoredScheme scheme;
  if (!config.ok())
    return scheme;
  auto group = [&] { return config.integer(groupValue, 1, 65536); };

  if (type == "float" && bits == 8) {
    if (strategy == "tensor")
      return fp8Scheme("fp8_tensor", 0, 0);
    if (strategy == "channel")
      return fp8Scheme("fp8_channel", 1, 0);
    if (strategy == "block") {
      std::vector<ConfigValue> sizes = config.items(config.member(weights, "block_structure"));
      if (sizes.size() == 2)
        return fp8Scheme("fp8_block", config.integer(sizes[0], 1, 65536), config.integer(sizes[1], 1, 65536));
    }
  } else if (type == "float" && bits == 4) {
    if (strategy == "tensor_group" && group() == 16)
      return nvfp4Scheme("weight_packed");
  } else if (type == "int" && bits == 8 && strategy == "channel") {
    scheme.format = "int8_channel";
    scheme.groupN = 1;
    scheme.dtype = "I8";
    return scheme;
  } else if (type == "int" && (bits == 4 || bits == 8) && (strategy == "group" || strategy == "channel")) {
    scheme.format = bits == 4 ? "int4_group" : "int8_group";
    scheme.groupN = 1;
    scheme.groupK = strategy == "group" ? group() : 0;
    scheme.suffix = "weight_packed";
    scheme.dtype = "I32";
    scheme.codesPerElement = 32 / bits;
    scheme.packing = "compressed_tensors";
    return scheme;
  }
  config.unsupported(weights, llvm::formatv("weights of {0} bits, type {1}, strategy {2} are not supported", bits,
                                            JsonQuote(type), JsonQuote(strategy)));
  return scheme;
}

} // namespace

std::unique_ptr<SchemeRules> readCompressedTensors(ConfigReader &config, const ConfigValue &quantization) {
  auto rules = std::make_unique<CompressedTensorsRules>();
  ConfigValue status = config.member(quantization, "quantization_status");
  if (std::string name = config.string(status, "compressed"); name != "compressed")
    config.unsupported(status, "status " + JsonQuote(name) + " is not supported (compressed)");
  ConfigValue sparsity = config.member(config.member(quantization, "sparsity_config"), "format");
  if (std::string name = config.string(sparsity, "dense"); name != "dense")
    config.unsupported(sparsity, "sparse format " + JsonQuote(name) + " is not supported (dense)");

  ConfigValue groups = config.member(quantization, "config_groups");
  if (!groups || !groups.json->IsObject() || groups.json->members().empty()) {
    config.malformed(groups, "is missing, empty or not an object");
    return rules;
  }
  for (const Json::Member &member : groups.json->members()) {
    ConfigValue where{&member.second, JsonPointer(groups.pointer, member.first)};
    Group group;
    ConfigValue targets = config.member(where, "targets");
    for (const ConfigValue &item : config.items(targets))
      group.everyLinear |= config.string(item) == "Linear";
    group.targets = ModulePatterns::read(config, targets, ModulePatterns::Plain::Exact);
    ConfigValue weights = config.member(where, "weights");
    if (!weights)
      continue; // activations only
    group.scheme = readWeights(config, weights);
    if (!config.ok())
      return rules;
    // 8-bit integers of one scale a row are plain bytes in `int-quantized` files and words in `pack-quantized` ones.
    ConfigValue format = config.member(where, "format");
    if (!format)
      format = config.member(quantization, "format");
    if (group.scheme.format == "int8_channel" && config.string(format, "int-quantized") == "pack-quantized") {
      group.scheme.suffix = "weight_packed";
      group.scheme.dtype = "I32";
      group.scheme.codesPerElement = 4;
      group.scheme.packing = "compressed_tensors";
    }
    rules->groups.push_back(std::move(group));
  }
  rules->ignore = ModulePatterns::read(config, config.member(quantization, "ignore"), ModulePatterns::Plain::Exact);
  warnAboutCache(config, quantization);
  return rules;
}

} // namespace qwen::compiler
