// Quantised checkpoints: which modules the rules of each format name, and the scheme that reaches the weight's type.

#include "ImportTesting.h"
#include "compiler/import/quant/ModulePatterns.h"

namespace qwen::compiler::testing {
namespace {

/// "fp8_block 128 128" or "" for a plain weight.
std::string schemeOf(Imported &imported, llvm::StringRef name) {
  auto param = imported.param(name);
  if (!param)
    return "no such weight";
  auto type = llvm::cast<mlir::RankedTensorType>(param.getType());
  auto scheme = llvm::dyn_cast_or_null<ir::model::SchemeAttr>(type.getEncoding());
  if (!scheme)
    return "";
  return scheme.getFormat().str() + " " + std::to_string(scheme.getGroupN()) + " " + std::to_string(scheme.getGroupK());
}

Fields quantised(Fields fields, const std::string &config) {
  return with(std::move(fields), {{"quantization_config", config}});
}

/// The first piece of a weight's first alternative.
mlir::DictionaryAttr piece(Imported &imported, llvm::StringRef name) {
  auto alternative = llvm::cast<mlir::ArrayAttr>(imported.param(name).getSources()[0]);
  return llvm::cast<mlir::DictionaryAttr>(alternative[0]);
}
std::string tensorOf(Imported &imported, llvm::StringRef name) {
  return piece(imported, name).getAs<mlir::StringAttr>("tensor").str();
}
std::vector<int64_t> shapeOf(Imported &imported, llvm::StringRef name) {
  return piece(imported, name).getAs<mlir::DenseI64ArrayAttr>("shape").asArrayRef().vec();
}

/// Never quantised, whatever a list says.
void expectDelicateWeightsPlain(Imported &imported) {
  for (auto param : imported.op().getOps<ir::model::ParamOp>()) {
    llvm::StringRef name = param.getSymName();
    for (const char *part :
         {"norm", "gdn.a", "gdn.b", "gdn.conv", "dt_bias", "router", "shared_gate", "embed", "mtp.fc"})
      if (name.contains(part))
        EXPECT_EQ(schemeOf(imported, name), "") << name.str();
  }
}

TEST(Quant, Fp8BlocksWithTheirList) {
  Folder folder;
  Imported imported(folder.write(
      "config.json", render(quantised(next(), R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
          "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.shared_expert",
          "model.layers.3.self_attn.q_proj", "mtp.layers.0.self_attn"]})"))));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.qkv"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.out"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "layers.0.moe.gate_up"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "layers.0.moe.shared.up"), "");
  EXPECT_EQ(schemeOf(imported, "layers.1.moe.shared.up"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.q"), "");
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.k"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "mtp.layers.0.attn.q"), "");
  EXPECT_EQ(schemeOf(imported, "mtp.layers.0.moe.down"), "fp8_block 128 128");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
  expectDelicateWeightsPlain(imported);
  // Logical shape, stored codes; experts one by one, as quantised exports store them.
  EXPECT_EQ(tensorOf(imported, "layers.0.moe.gate_up"), "{P}layers.0.mlp.experts.{e}.gate_proj.weight");
  EXPECT_EQ(llvm::cast<mlir::StringAttr>(piece(imported, "layers.3.attn.k").getAs<mlir::ArrayAttr>("dtypes")[0]),
            "F8_E4M3");
}

TEST(Quant, Fp8WithoutBlocksHasOneScale) {
  Folder folder;
  Imported imported(folder.write("config.json", render(quantised(dense(), R"({"quant_method": "fp8"})"))));
  EXPECT_EQ(schemeOf(imported, "layers.0.attn.q"), "fp8_tensor 0 0");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
}

TEST(Quant, GptqRulesInOrder) {
  Folder folder;
  Imported imported(
      folder.write("config.json",
                   render(quantised(next(), R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": false,
          "sym": true, "lm_head": true, "dynamic": {"-:.*linear_attn.*": {}, "-:.*self_attn.*": {},
          "+:.*shared_expert\\..*": {"bits": 8, "group_size": -1}, "-:.*\\.gate$": {},
          ".*layers\\.1\\..*": {"group_size": 32}}})"))));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.0.moe.gate_up"), "int4_group 1 128");
  EXPECT_EQ(schemeOf(imported, "layers.1.moe.down"), "int4_group 1 32");
  EXPECT_EQ(schemeOf(imported, "layers.1.moe.shared.up"), "int8_channel 1 0");
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.qkv"), "");
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.o"), "");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "int4_group 1 128");
  EXPECT_EQ(schemeOf(imported, "mtp.layers.0.moe.down"), "");
  expectDelicateWeightsPlain(imported);
  EXPECT_EQ(tensorOf(imported, "lm_head"), "lm_head.qweight");
  EXPECT_EQ(shapeOf(imported, "lm_head"), (std::vector<int64_t>{5, 101})); // [k / 8, n]
}

TEST(Quant, GptqMayNameTheModulesOfABlock) {
  Folder folder;
  Imported imported(folder.write("config.json", render(quantised(dense(), R"({"quant_method": "gptq", "bits": 8,
      "group_size": 64, "modules_in_block_to_quantize": [["self_attn.k_proj"], ["mlp.up_proj"]]})"))));
  EXPECT_EQ(schemeOf(imported, "layers.0.attn.k"), "int8_group 1 64");
  EXPECT_EQ(schemeOf(imported, "layers.0.attn.q"), "");
  EXPECT_EQ(schemeOf(imported, "layers.1.mlp.up"), "int8_group 1 64");
}

TEST(Quant, AwqPacksOutputs) {
  Folder folder;
  Imported imported(folder.write("config.json", render(quantised(dense(), R"({"quant_method": "awq", "bits": 4,
      "group_size": 64, "zero_point": true, "version": "gemm", "modules_to_not_convert": ["self_attn"]})"))));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.0.mlp.gate"), "int4_group 1 64");
  EXPECT_EQ(shapeOf(imported, "layers.0.mlp.gate"), (std::vector<int64_t>{40, 7})); // [k, n / 8]
  EXPECT_EQ(schemeOf(imported, "layers.0.attn.q"), "");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
}

TEST(Quant, CompressedTensorsByClassNameAndExpression) {
  Folder folder;
  Imported imported(folder.write("config.json", render(quantised(hybrid(), R"({"quant_method": "compressed-tensors",
      "format": "pack-quantized", "quantization_status": "compressed",
      "ignore": ["lm_head", "re:.*linear_attn\\.in_proj_z", "model.layers.3.self_attn.o_proj"], "config_groups": {
      "group_0": {"targets": ["re:.*self_attn\\..*"],
                  "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}},
      "group_1": {"targets": ["Linear"],
                  "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}}})"))));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.q"), "fp8_channel 1 0");
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.o"), "");
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.qkv"), "int4_group 1 32");
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.z"), "");
  EXPECT_EQ(schemeOf(imported, "layers.0.mlp.down"), "int4_group 1 32");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
  EXPECT_EQ(schemeOf(imported, "mtp.layers.0.attn.q"), "");
  expectDelicateWeightsPlain(imported);
  EXPECT_EQ(tensorOf(imported, "layers.0.mlp.down"), "{P}layers.0.mlp.down_proj.weight_packed");
  EXPECT_EQ(shapeOf(imported, "layers.0.mlp.down"), (std::vector<int64_t>{40, 7})); // [n, k / 8]
}

TEST(Quant, ModeloptNamesAFormatForEachModule) {
  Imported imported(source("configs/nvidia-Qwen3.6-35B-A3B-NVFP4.json"));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.qkv"), "fp8_tensor 0 0");
  EXPECT_EQ(schemeOf(imported, "layers.39.moe.gate_up"), "nvfp4 1 16");
  EXPECT_EQ(schemeOf(imported, "layers.7.moe.shared.down"), "nvfp4 1 16");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "nvfp4 1 16");
  EXPECT_EQ(schemeOf(imported, "mtp.layers.0.attn.q"), "");
  expectDelicateWeightsPlain(imported);
}

TEST(Quant, ModeloptGlobsTakeModulesOut) {
  Imported imported(source("configs/nvidia-Qwen3.5-122B-A10B-NVFP4.json"));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_EQ(schemeOf(imported, "layers.0.moe.down"), "nvfp4 1 16");
  EXPECT_EQ(schemeOf(imported, "layers.0.moe.shared.down"), "");
  EXPECT_EQ(schemeOf(imported, "layers.0.gdn.z"), "");
  EXPECT_EQ(schemeOf(imported, "layers.3.attn.q"), "");
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
  ASSERT_EQ(imported.warnings.size(), 1u);
  EXPECT_NE(imported.warnings[0].find("/quantization_config/kv_cache_scheme: keys and values are cached"),
            std::string::npos);
}

TEST(Quant, ATiedHeadIsTheEmbedding) {
  Folder folder;
  Imported imported(folder.write(
      "config.json", render(quantised(with(dense(), {{"tie_word_embeddings", "true"}}),
                                      R"({"quant_method": "gptq", "bits": 4, "group_size": 8, "lm_head": true})"))));
  EXPECT_EQ(schemeOf(imported, "lm_head"), "");
}

TEST(Quant, TheCollectedExamplesAreUnderstood) {
  StatusOr<std::string> text = ReadFile(source("configs/quantization_examples.json"), 1 << 20);
  StatusOr<Json> examples = ParseJson(*text, "examples");
  Folder folder;
  // The file holds objects by title; render each beside a model through its text.
  int count = 0;
  for (const Json::Member &member : examples->members()) {
    if (!member.second.Find("quant_method"))
      continue;
    size_t at = text->find(JsonQuote(member.first)), open = text->find('{', at), close = open, depth = 0;
    do {
      depth += (*text)[close] == '{' ? 1 : (*text)[close] == '}' ? size_t(-1) : 0;
      ++close;
    } while (depth);
    Imported imported(folder.write("config.json", render(quantised(hybrid(), text->substr(open, close - open)))));
    EXPECT_TRUE(imported.module.ok()) << member.first << ": " << imported.module.status().message();
    EXPECT_NE(schemeOf(imported, "layers.0.mlp.down"), "") << member.first;
    ++count;
  }
  EXPECT_EQ(count, 5);
}

struct Refusal {
  const char *config;
  int exitCode;
  const char *message;
};

const Refusal kRefusals[] = {
    {R"({"quant_method": "bitsandbytes"})", 4,
     "/quant_method: quantisation method \"bitsandbytes\" is not supported (awq, compressed-tensors, fp8, gptq, "
     "modelopt)"},
    {R"({"bits": 4})", 3, "/producer/name: is missing"},
    {R"("fp8")", 3, ": is a string, not an object"},
    {R"({"quant_method": "awq", "bits": 4, "version": "gemv"})", 4,
     "/version: AWQ version \"gemv\" is not supported (gemm)"},
    {R"({"quant_method": "awq", "bits": 3})", 4, "/bits: 3 bits are not supported (4)"},
    {R"({"quant_method": "awq", "bits": 4, "group_size": 0})", 4, "/group_size: 0 is not a group size"},
    {R"({"quant_method": "gptq", "bits": 2})", 4, "/bits: 2 bits are not supported (4, 8)"},
    {R"({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"})", 4,
     "/checkpoint_format: checkpoint format \"marlin\" is not supported (gptq, gptq_v2)"},
    {R"({"quant_method": "gptq", "bits": 4, "dynamic": {"-:(?!x).*": {}}})", 4,
     "/dynamic/-:(?!x).*: look-around or a flag in the expression \"(?!x).*\" is not supported"},
    {R"({"quant_method": "gptq", "bits": 4, "dynamic": {"(a)\\1": {}}})", 4,
     "/dynamic/(a)\\1: \\1 in the expression \"(a)\\\\1\" is not supported"},
    {R"({"quant_method": "gptq", "bits": 4, "dynamic": {"(": {}}})", 4,
     "/dynamic/(: the expression \"(\" is not valid: parentheses not balanced"},
    {R"({"quant_method": "gptq", "bits": 4, "dynamic": []})", 3, "/dynamic: is an array, not an object"},
    {R"({"quant_method": "fp8", "fmt": "e5m2"})", 4, "/fmt: FP8 format \"e5m2\" is not supported (e4m3)"},
    {R"({"quant_method": "fp8", "activation_scheme": "odd"})", 4,
     "/activation_scheme: activation scheme \"odd\" is not supported (dynamic, static)"},
    {R"({"quant_method": "fp8", "weight_block_size": [128]})", 4, "/weight_block_size: has 1 sizes, a block has 2"},
    {R"({"quant_method": "fp8", "modules_to_not_convert": [1]})", 3,
     "/modules_to_not_convert/0: is an integer, not a string"},
    {R"({"quant_method": "compressed-tensors"})", 3, "/config_groups: is missing, empty or not an object"},
    {R"({"quant_method": "compressed-tensors", "quantization_status": "frozen"})", 4,
     "/quantization_status: status \"frozen\" is not supported (compressed)"},
    {R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 3,
         "type": "int", "strategy": "group", "group_size": 32}}}})",
     4, "/config_groups/g/weights: weights of 3 bits, type \"int\", strategy \"group\" are not supported"},
    {R"({"quant_method": "modelopt", "quant_algo": "INT4_AWQ"})", 4,
     "/quant_algo: algorithm \"INT4_AWQ\" is not supported (FP8, FP8_PER_CHANNEL_PER_TOKEN, MXFP8, NVFP4, W4A16_NVFP4, "
     "MIXED_PRECISION)"},
    {R"({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"})", 3,
     "/quantized_layers: is missing or not an object"},
    {R"({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "NVFP4",
         "group_size": 32}}})",
     4, "/quantized_layers/a/group_size: 32 is not the group of nvfp4 (16)"},
};

TEST(Quant, RefusesWhatItCannotCarry) {
  Folder folder;
  for (const Refusal &refusal : kRefusals) {
    std::string path = folder.write("config.json", render(quantised(dense(), refusal.config)));
    Imported imported(path);
    ASSERT_FALSE(imported.module.ok()) << refusal.config;
    EXPECT_EQ(imported.module.status().message(), path + ":/quantization_config" + refusal.message);
    EXPECT_EQ(imported.module.status().ExitCode(), refusal.exitCode) << refusal.message;
  }
}

TEST(Quant, Globs) {
  EXPECT_TRUE(matchesGlob("mtp*", "mtp.layers.0.fc"));
  EXPECT_TRUE(matchesGlob("*.mlp.shared_expert.*", "model.layers.3.mlp.shared_expert.up_proj"));
  EXPECT_FALSE(matchesGlob("*.mlp.shared_expert.*", "model.layers.3.mlp.shared_expert_gate"));
  EXPECT_TRUE(matchesGlob("a?c", "abc"));
  EXPECT_FALSE(matchesGlob("a?c", "ac"));
  EXPECT_TRUE(matchesGlob("*", ""));
  EXPECT_FALSE(matchesGlob("", "a"));
  // Many stars cost no more than pattern times name.
  EXPECT_FALSE(matchesGlob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
}

TEST(Quant, Expressions) {
  Json json = *ParseJson("{}", "f");
  ConfigReader config("f", json);
  auto matches = [&](const char *pattern, const char *name) {
    std::optional<ModuleRegex> regex = ModuleRegex::compile(config, config.root(), pattern);
    return regex && regex->matches(name);
  };
  EXPECT_TRUE(matches(R"(model\.layers\.\d+\.mlp)", "model.layers.12.mlp.up_proj")); // from the start, as re.match
  EXPECT_FALSE(matches(R"(layers)", "model.layers.12"));
  EXPECT_TRUE(matches(R"(.*?(?:q|k)_proj$)", "a.q_proj"));
  EXPECT_FALSE(matches(R"(.*(?:q|k)_proj$)", "a.q_proj.x"));
  EXPECT_TRUE(matches(R"([\w.]+\.visual)", "model.visual.x"));
  EXPECT_TRUE(matches(R"(a|b)", "b"));
  EXPECT_TRUE(matches(R"(layers\.(1|2)\d?\.x)", "layers.17.x"));
  EXPECT_TRUE(config.ok());
  EXPECT_FALSE(matches(R"(a{1,9}{1,9}{1,9})", "a"));
  EXPECT_FALSE(config.ok());
}

} // namespace
} // namespace qwen::compiler::testing
