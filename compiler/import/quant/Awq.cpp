//===- Awq.cpp - quant_method "awq" ---------------------------------------===//
//
// The GEMM layout: 4-bit codes stored [k, n / 8], eight output columns to a word in the order 0 2 4 6 1 3 5 7, always
// with zero points of their own (quantisation design, section 2). The GEMV layout is another one, and is refused.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/quant/ModulePatterns.h"
#include "compiler/import/quant/Scheme.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/FormatVariadic.h"

namespace qwen::compiler {
namespace {

struct AwqRules : SchemeRules {
  StoredScheme scheme;
  ModulePatterns plain;

  std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const override {
    if (query.lmHead || query.mtp || plain.matchesAny(query.names))
      return std::nullopt;
    return scheme;
  }
};

} // namespace

std::unique_ptr<SchemeRules> readAwq(ConfigReader &config, const ConfigValue &quantization) {
  auto rules = std::make_unique<AwqRules>();
  ConfigValue bits = config.member(quantization, "bits");
  if (int64_t count = config.integer(bits, 1, 32); count != 4)
    config.unsupported(bits, llvm::formatv("{0} bits are not supported (4)", count));
  ConfigValue version = config.member(quantization, "version");
  if (std::string name = config.string(version, "gemm"); !llvm::StringRef(name).equals_insensitive("gemm"))
    config.unsupported(version, "AWQ version " + JsonQuote(name) + " is not supported (gemm)",
                       "quantise again with version \"gemm\"");
  ConfigValue group = config.member(quantization, "group_size");
  int64_t size = config.integer(group, -1, 65536, 128);
  if (size == 0)
    config.unsupported(group, "0 is not a group size");

  StoredScheme &scheme = rules->scheme;
  scheme.format = "int4_group";
  scheme.groupN = 1;
  scheme.groupK = size < 0 ? 0 : size;
  scheme.suffix = "qweight";
  scheme.dtype = "I32";
  scheme.codesPerElement = 8;
  scheme.packsRows = true;
  scheme.transposed = true;
  scheme.packing = "awq_gemm";
  rules->plain = ModulePatterns::read(config, config.member(quantization, "modules_to_not_convert"),
                                      ModulePatterns::Plain::Substring);
  return rules;
}

} // namespace qwen::compiler
