//===- Gptq.cpp - quant_method "gptq" -------------------------------------===//
//
// Integer codes packed along k, eight (or four) to a word, stored [k, n] (quantisation design, section 3). `dynamic`
// maps expressions to overrides: `-:` leaves a module plain, `+:` or nothing changes its bits or group; the first that
// matches decides. The head is quantised only when `lm_head` says so. The MTP head is left plain by every known recipe.
//
//===----------------------------------------------------------------------===//

#include "compiler/import/quant/ModulePatterns.h"
#include "compiler/import/quant/Scheme.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"

using llvm::StringRef;

namespace qwen::compiler {
namespace {

struct Rule {
  ModuleRegex regex;
  std::optional<StoredScheme> scheme;
};

struct GptqRules : SchemeRules {
  StoredScheme scheme;
  bool lmHead = false;
  std::vector<Rule> dynamic;
  std::vector<std::string> only; // suffixes; empty: everything

  std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const override {
    if (query.mtp || (query.lmHead && !lmHead))
      return std::nullopt;
    for (const Rule &rule : dynamic)
      if (llvm::any_of(query.names, [&](const std::string &name) { return rule.regex.matches(name); }))
        return rule.scheme;
    if (!only.empty() && !query.lmHead && llvm::none_of(only, [&](const std::string &suffix) {
          return llvm::any_of(query.names, [&](StringRef name) { return name.ends_with("." + suffix); });
        }))
      return std::nullopt;
    return scheme;
  }
};

StoredScheme makeScheme(int64_t bits, int64_t group, StringRef packing) {
  StoredScheme scheme;
  scheme.format = bits == 4 ? "int4_group" : group ? "int8_group" : "int8_channel";
  scheme.groupN = 1;
  scheme.groupK = group;
  scheme.suffix = "qweight";
  scheme.dtype = "I32";
  scheme.codesPerElement = 32 / bits;
  scheme.transposed = true;
  scheme.packing = packing.str();
  return scheme;
}

/// 4 or 8; anything else is packed across words in ways that differ by tool.
int64_t readBits(ConfigReader &config, const ConfigValue &value, std::optional<int64_t> fallback) {
  int64_t bits = config.integer(value, 1, 32, fallback);
  if (bits != 4 && bits != 8)
    config.unsupported(value, llvm::formatv("{0} bits are not supported (4, 8)", bits));
  return bits == 8 ? 8 : 4;
}

/// 0: one group, the whole row; files write -1.
int64_t readGroup(ConfigReader &config, const ConfigValue &value, std::optional<int64_t> fallback) {
  int64_t group = config.integer(value, -1, 65536, fallback);
  if (group == 0)
    config.unsupported(value, "0 is not a group size");
  return group < 0 ? 0 : group;
}

} // namespace

std::unique_ptr<SchemeRules> readGptq(ConfigReader &config, const ConfigValue &quantization) {
  auto rules = std::make_unique<GptqRules>();
  int64_t bits = readBits(config, config.member(quantization, "bits"), std::nullopt);
  int64_t group = readGroup(config, config.member(quantization, "group_size"), -1);
  ConfigValue format = config.member(quantization, "checkpoint_format");
  std::string packing = config.string(format, "gptq");
  if (packing != "gptq" && packing != "gptq_v2")
    config.unsupported(format, "checkpoint format " + JsonQuote(packing) + " is not supported (gptq, gptq_v2)");
  rules->scheme = makeScheme(bits, group, packing);
  rules->lmHead = config.boolean(config.member(quantization, "lm_head"), false);

  for (const ConfigValue &list : config.items(config.member(quantization, "modules_in_block_to_quantize")))
    for (const ConfigValue &item : list.json->IsArray() ? config.items(list) : std::vector<ConfigValue>{list})
      if (rules->only.size() < 256)
        rules->only.push_back(config.string(item));

  ConfigValue dynamic = config.member(quantization, "dynamic");
  if (!dynamic)
    return rules;
  if (!dynamic.json->IsObject()) {
    config.malformed(dynamic, std::string("is ") + dynamic.json->KindName() + ", not an object");
    return rules;
  }
  for (const Json::Member &member : dynamic.json->members()) {
    ConfigValue where{&member.second, JsonPointer(dynamic.pointer, member.first)};
    if (rules->dynamic.size() >= 256 || member.first.size() > 512)
      config.unsupported(dynamic, "has more than 256 expressions, or one of more than 512 bytes");
    StringRef pattern(member.first);
    bool excluded = pattern.consume_front("-:");
    if (!excluded)
      pattern.consume_front("+:");
    if (!config.ok())
      return rules;
    std::optional<ModuleRegex> regex = ModuleRegex::compile(config, where, pattern);
    std::optional<StoredScheme> scheme;
    if (!excluded)
      scheme = makeScheme(readBits(config, config.member(where, "bits"), bits),
                          readGroup(config, config.member(where, "group_size"), group ? group : -1), packing);
    if (regex)
      rules->dynamic.push_back({std::move(*regex), std::move(scheme)});
  }
  return rules;
}

} // namespace qwen::compiler
