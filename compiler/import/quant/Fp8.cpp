//===- Fp8.cpp - quant_method "fp8" ---------------------------------------===//
//
// Qwen's own -FP8 releases: e4m3 codes, one scale for each block of 128 x 128 (quantisation design, section 5). The
// head stays plain whether the list names it or not.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/quant/ModulePatterns.h"
#include "compiler/import/quant/Scheme.h"
#include "llvm/Support/FormatVariadic.h"

namespace qwen::compiler {
namespace {

struct Fp8Rules : SchemeRules {
  StoredScheme scheme;
  ModulePatterns plain, alsoPlain;

  std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const override {
    if (query.lmHead || plain.matchesAny(query.names) || alsoPlain.matchesAny(query.names))
      return std::nullopt;
    return scheme;
  }
};

} // namespace

std::unique_ptr<SchemeRules> readFp8(ConfigReader &config, const ConfigValue &quantization) {
  auto rules = std::make_unique<Fp8Rules>();
  ConfigValue format = config.member(quantization, "fmt");
  if (std::string name = config.string(format, "e4m3"); name != "e4m3")
    config.unsupported(format, "FP8 format " + JsonQuote(name) + " is not supported (e4m3)");
  ConfigValue activations = config.member(quantization, "activation_scheme");
  if (std::string name = config.string(activations, "dynamic"); name != "dynamic" && name != "static")
    config.unsupported(activations, "activation scheme " + JsonQuote(name) + " is not supported (dynamic, static)");

  ConfigValue block = config.member(quantization, "weight_block_size");
  std::vector<ConfigValue> sizes = config.items(block);
  if (!block) {
    rules->scheme = fp8Scheme("fp8_tensor", 0, 0);
  } else if (sizes.size() != 2) {
    config.unsupported(block, llvm::formatv("has {0} sizes, a block has 2", sizes.size()));
  } else {
    rules->scheme = fp8Scheme("fp8_block", config.integer(sizes[0], 1, 65536), config.integer(sizes[1], 1, 65536));
  }
  rules->plain = ModulePatterns::read(config, config.member(quantization, "modules_to_not_convert"),
                                      ModulePatterns::Plain::Component);
  rules->alsoPlain =
      ModulePatterns::read(config, config.member(quantization, "ignored_layers"), ModulePatterns::Plain::Component);
  return rules;
}

} // namespace qwen::compiler
