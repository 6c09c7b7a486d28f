// What the importer builds: every config of configs/ and of the golden checkpoints, and the recipe in its details.

#include "ImportTesting.h"
#include "mlir/IR/Verifier.h"
#include <algorithm>

namespace qwen::compiler::testing {
namespace {

namespace fs = std::filesystem;
using namespace ir::model;

std::vector<std::string> names(mlir::ArrayAttr array) {
  std::vector<std::string> result;
  for (mlir::Attribute item : array)
    result.push_back(llvm::cast<mlir::StringAttr>(item).str());
  return result;
}
std::vector<std::string> outputs(mlir::func::FuncOp program) {
  return names(program->getAttrOfType<mlir::ArrayAttr>(kOutputsAttr));
}
std::vector<std::string> inputs(mlir::func::FuncOp program) {
  return names(program->getAttrOfType<mlir::ArrayAttr>(kInputsAttr));
}
int64_t maxRows(mlir::func::FuncOp program) { return program->getAttrOfType<mlir::IntegerAttr>(kMaxRowsAttr).getInt(); }
int64_t dim(mlir::ModuleOp module, llvm::StringRef name) {
  auto attr = module->getAttrOfType<mlir::DictionaryAttr>("model.dims").getAs<mlir::IntegerAttr>(name);
  return attr ? attr.getInt() : -1;
}

std::string locationOf(mlir::Operation *op) { return llvm::cast<mlir::NameLoc>(op->getLoc()).getName().str(); }

/// "part op" of every op between two locations of a program that is neither a weight nor a state.
std::vector<std::string> opsOf(mlir::func::FuncOp program, llvm::StringRef layer) {
  std::vector<std::string> result;
  program.walk([&](mlir::Operation *op) {
    std::string name = locationOf(op);
    if (llvm::isa<WeightOp, StateOp>(op) || (name != layer && !llvm::StringRef(name).starts_with((layer + ".").str())))
      return;
    result.push_back(name.substr(std::min(name.size(), layer.size())) + " " +
                     op->getName().getStringRef().drop_front(6).str());
  });
  return result;
}

//===----------------------------------------------------------------------===//
// Real files
//===----------------------------------------------------------------------===//

/// The model each drafter of configs/ was made for.
const std::map<std::string, std::string> kTargets = {
    {"DFlash-35B-A3B-6layer-swa.json", "Qwen3.6-35B-A3B.json"},
    {"DFlash-SpecForge-Qwen3.5-27B.json", "Qwen3.5-27B.json"},
    {"DFlash-SpecForge-Qwen3.5-35B-A3B.json", "Qwen3.5-35B-A3B.json"},
    {"DFlash-z-lab-Qwen3-4B-b16.json", "Qwen3-4B.json"},
    {"DFlash-z-lab-Qwen3.5-122B-A10B.json", "Qwen3.5-122B-A10B.json"},
    {"DFlash-z-lab-Qwen3.5-35B-A3B.json", "Qwen3.5-35B-A3B.json"},
    {"DFlash-z-lab-Qwen3.5-9B.json", "Qwen3.5-9B.json"},
    {"DFlash-z-lab-Qwen3.6-27B.json", "Qwen3.6-27B.json"},
    {"DFlash2-Qwen3.8-27B-b16.json", "Qwen3.8-27B.json"},
    {"DFlash2-Qwen3.8-27B-b32.json", "Qwen3.8-27B.json"},
    {"DFlash2-z-lab-Qwen3.8-27B.json", "Qwen3.8-27B.json"},
};

/// What is refused, and by which word of its file.
const std::map<std::string, std::string> kRefused = {
    {"Kimi-Linear-48B-A3B-Instruct.json", "model type \"kimi_linear\" is not supported"},
    {"Qwen3.8-Flash-Next.json", "model type \"qwen4_exp\" is not supported"},
    {"Qwen3.8-Flash-Next-FP8.json", "model type \"qwen4_exp\" is not supported"},
};

std::vector<std::string> configFiles() {
  std::vector<std::string> files;
  for (const fs::directory_entry &entry : fs::directory_iterator(source("configs")))
    if (entry.path().extension() == ".json" && entry.path().filename() != "quantization_examples.json")
      files.push_back(entry.path().filename());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> goldens() {
  std::vector<std::string> folders;
  for (const fs::directory_entry &entry : fs::directory_iterator(source("test/golden")))
    if (fs::exists(entry.path() / "config.json"))
      folders.push_back(entry.path().filename());
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::string testName(std::string name) {
  std::replace_if(name.begin(), name.end(), [](char c) { return !isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

void expectWellFormed(Imported &imported) {
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_TRUE(mlir::succeeded(mlir::verify(imported.op())));
  bool mtp = imported.program("draft_mtp") != nullptr;
  auto step = imported.program("step"), verify = imported.program("verify");
  ASSERT_TRUE(step);
  EXPECT_EQ(maxRows(step), 1);
  EXPECT_EQ(inputs(step), (std::vector<std::string>{"batch", "token_ids"}));
  std::vector<std::string> want{"next", "logits"};
  if (mtp)
    want.push_back("final_hidden");
  if (imported.program("draft_dflash"))
    want.push_back("features");
  EXPECT_EQ(outputs(step), want);
  if (verify) {
    want.insert(want.end(), {"accepted", "emitted"});
    EXPECT_EQ(outputs(verify), want);
    EXPECT_EQ(maxRows(verify), dim(imported.op(), "experts") > 0 ? 8 : 16);
  }
  EXPECT_EQ(verify != nullptr, mtp || imported.program("draft_dflash"));
  if (mtp)
    EXPECT_EQ(outputs(imported.program("draft_mtp")), (std::vector<std::string>{"next", "logits", "hidden_out"}));
}

class ConfigFile : public ::testing::TestWithParam<std::string> {};

TEST_P(ConfigFile, ImportsOrSaysExactlyWhyNot) {
  std::string path = source("configs/" + GetParam());
  Imported alone(path);
  if (auto refused = kRefused.find(GetParam()); refused != kRefused.end()) {
    ASSERT_FALSE(alone.module.ok());
    EXPECT_NE(alone.module.status().message().find(path + ":/model_type: " + refused->second), std::string::npos);
    EXPECT_EQ(alone.module.status().ExitCode(), 4);
    return;
  }
  auto target = kTargets.find(GetParam());
  if (target == kTargets.end()) {
    expectWellFormed(alone);
    return;
  }
  ASSERT_FALSE(alone.module.ok());
  EXPECT_NE(alone.module.status().hint().find("--drafter"), std::string::npos);
  ImportOptions options;
  options.drafterPath = path;
  Imported beside(source("configs/" + target->second), options);
  expectWellFormed(beside);
  auto block = beside.program("draft_dflash"), context = beside.program("draft_dflash_context");
  ASSERT_TRUE(block && context);
  EXPECT_EQ(inputs(context), (std::vector<std::string>{"batch", "features"}));
  EXPECT_TRUE(outputs(context).empty());
  EXPECT_EQ(inputs(block), (std::vector<std::string>{"batch", "token_ids"}));
  EXPECT_EQ(maxRows(block), dim(beside.op(), "draft_block"));
}

INSTANTIATE_TEST_SUITE_P(All, ConfigFile, ::testing::ValuesIn(configFiles()),
                         [](const auto &info) { return testName(info.param); });

class GoldenConfig : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenConfig, Imports) {
  for (const char *dtype : {"bf16", "f32"}) {
    ImportOptions options;
    options.dtype = dtype;
    Imported imported(source("test/golden/" + GetParam()), options);
    expectWellFormed(imported);
    EXPECT_TRUE(imported.warnings.empty()) << imported.warnings.front();
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenConfig, ::testing::ValuesIn(goldens()),
                         [](const auto &info) { return testName(info.param); });

//===----------------------------------------------------------------------===//
// The recipe
//===----------------------------------------------------------------------===//

const std::vector<std::string> kDenseTail = {".norm2 rms_norm",  ".mlp.in linear",  ".mlp.in linear",
                                             ".mlp.in silu_mul", ".mlp.out linear", " add"};

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Recipe, OfADenseAttentionLayer) {
  Folder folder;
  Imported imported(folder.write("config.json", render(dense())));
  EXPECT_EQ(
      opsOf(imported.program("step"), "layers.1"),
      (std::vector<std::string>{".norm1 rms_norm", ".attn.in linear", ".attn.in linear", ".attn.in linear",
                                ".attn.mixer qk_norm", ".attn.mixer qk_norm", ".attn.mixer rope", ".attn.mixer rope",
                                ".attn.mixer kv_append", ".attn.mixer attention", ".attn.out linear", ".attn.out add"} +
       kDenseTail));
  std::vector<std::string> top;
  imported.program("step").walk([&](mlir::Operation *op) {
    if (!llvm::StringRef(locationOf(op)).starts_with("layers.") && !llvm::isa<WeightOp>(op))
      top.push_back(locationOf(op) + " " + op->getName().stripDialect().str());
  });
  EXPECT_EQ(top, (std::vector<std::string>{"embed embed", "final_norm logit_rows", "final_norm rms_norm",
                                           "lm_head lm_head", "sample sample", "step return", "step func"}));
  EXPECT_FALSE(imported.program("verify"));
}

TEST(Recipe, OfADeltaNetLayerAndGatedAttention) {
  Folder folder;
  Imported imported(folder.write("config.json", render(hybrid())));
  EXPECT_EQ(
      opsOf(imported.program("step"), "layers.0"),
      (std::vector<std::string>{".norm1 rms_norm", ".gdn.in linear", ".gdn.in linear", ".gdn.in linear",
                                ".gdn.in linear", ".gdn.mixer causal_conv1d", ".gdn.mixer split", ".gdn.mixer l2_norm",
                                ".gdn.mixer l2_norm", ".gdn.mixer delta_gates", ".gdn.mixer gated_delta_rule",
                                ".gdn.out gated_rms_norm", ".gdn.out linear", ".gdn.out add"} +
       kDenseTail));
  std::vector<std::string> gated{".norm1 rms_norm",       ".attn.in linear",       ".attn.in split",
                                 ".attn.in linear",       ".attn.in linear",       ".attn.mixer qk_norm",
                                 ".attn.mixer qk_norm",   ".attn.mixer rope",      ".attn.mixer rope",
                                 ".attn.mixer kv_append", ".attn.mixer attention", ".attn.mixer sigmoid_gate",
                                 ".attn.out linear",      ".attn.out add"};
  EXPECT_EQ(opsOf(imported.program("step"), "layers.3"), gated + kDenseTail);
  EXPECT_EQ(opsOf(imported.program("draft_mtp"), "mtp.layers.0"), gated + kDenseTail);
  // b and a leave their projection in f32: the gates are exponentials.
  imported.op().walk([&](DeltaGatesOp op) { EXPECT_TRUE(op.getB().getType().getElementType().isF32()); });
  imported.op().walk([&](AttentionOp op) { EXPECT_EQ(op.getKvMap(), (llvm::ArrayRef<int64_t>{0, 0, 1, 1})); });
  imported.op().walk(
      [&](SplitOp op) { EXPECT_EQ(op.getHeads(), llvm::StringRef(locationOf(op)).ends_with("attn.in") ? 4u : 1u); });
}

TEST(Recipe, OfAnExpertLayer) {
  Folder folder;
  Imported imported(folder.write("config.json", render(next())));
  std::vector<std::string> ops = opsOf(imported.program("step"), "layers.2");
  ops.erase(ops.begin(), std::find(ops.begin(), ops.end(), ".norm2 rms_norm"));
  EXPECT_EQ(ops, (std::vector<std::string>{".norm2 rms_norm", ".router router", ".moe experts", ".shared linear",
                                           ".shared linear", ".shared silu_mul", ".shared linear", ".shared linear",
                                           ".moe combine", " add"}));
  // The MTP layer routes as the model does.
  EXPECT_TRUE(imported.param("mtp.layers.0.moe.gate_up"));
}

TEST(Recipe, AnMtpHeadReadsEveryNormedRow) {
  Folder folder;
  Imported imported(folder.write("config.json", render(hybrid())));
  auto step = imported.program("step");
  EXPECT_EQ(outputs(step), (std::vector<std::string>{"next", "logits", "final_hidden"}));
  auto result = llvm::cast<mlir::func::ReturnOp>(step.front().getTerminator());
  EXPECT_TRUE(result.getOperand(2).getDefiningOp<RMSNormOp>());
  auto mtp = imported.program("draft_mtp");
  EXPECT_EQ(inputs(mtp), (std::vector<std::string>{"batch", "token_ids", "hidden"}));
  // Embedding first (model specification, 11).
  mtp.walk([&](ConcatOp op) {
    EXPECT_EQ(locationOf(op.getParts()[0].getDefiningOp()), "mtp.norm_embed");
    EXPECT_EQ(locationOf(op.getParts()[1].getDefiningOp()), "mtp.norm_hidden");
  });
  Imported without(folder.write("config.json", render(with(hybrid(), {{"mtp_num_hidden_layers", "0"}}))));
  EXPECT_FALSE(without.program("draft_mtp"));
  EXPECT_EQ(outputs(without.program("step")), (std::vector<std::string>{"next", "logits"}));
}

TEST(Recipe, NormsAreThoseOfTheFamily) {
  Folder folder;
  Imported plain(folder.write("config.json", render(dense())));
  EXPECT_EQ(plain.param("layers.0.norm1").getTransform(), "to_f32");
  EXPECT_EQ(plain.param("layers.0.attn.q_norm").getTransform(), "to_f32");
  plain.op().walk([](RMSNormOp op) { EXPECT_TRUE(op.getRoundFirst()); });
  Imported centred(folder.write("config.json", render(hybrid())));
  for (const char *name : {"layers.0.norm1", "layers.0.norm2", "layers.3.attn.q_norm", "layers.3.attn.k_norm",
                           "final_norm", "mtp.norm", "mtp.norm_embed", "mtp.norm_hidden", "mtp.layers.0.norm1"})
    EXPECT_EQ(centred.param(name).getTransform(), "one_plus") << name;
  EXPECT_EQ(centred.param("layers.0.gdn.gated_norm").getTransform(), "to_f32");
  centred.op().walk([](RMSNormOp op) { EXPECT_FALSE(op.getRoundFirst()); });
}

TEST(Recipe, TiedHeadsAreAnAlias) {
  Folder folder;
  Imported tied(folder.write("config.json", render(with(dense(), {{"tie_word_embeddings", "true"}}))));
  EXPECT_EQ(tied.param("lm_head").getAlias(), "embed");
  EXPECT_TRUE(tied.param("lm_head").getSources().empty());
  Imported apart(folder.write("config.json", render(dense())));
  EXPECT_FALSE(apart.param("lm_head").getAlias());
}

std::vector<int64_t> windows(Imported &imported) {
  std::vector<int64_t> result;
  imported.program("step").walk([&](AttentionOp op) { result.push_back(op.getWindow()); });
  return result;
}

TEST(Recipe, SlidingLayersComeFromTheListOrFromTheirFirst) {
  Folder folder;
  Fields slides = with(dense(), {{"num_hidden_layers", "3"}, {"use_sliding_window", "true"}, {"sliding_window", "17"}});
  Imported first(folder.write("config.json", render(with(slides, {{"max_window_layers", "1"}}))));
  EXPECT_EQ(windows(first), (std::vector<int64_t>{0, 17, 17}));
  Imported listed(folder.write(
      "config.json",
      render(with(slides, {{"layer_types", R"(["sliding_attention", "full_attention", "sliding_attention"])"}}))));
  EXPECT_EQ(windows(listed), (std::vector<int64_t>{17, 0, 17}));
  Imported off(
      folder.write("config.json", render(with(slides, {{"use_sliding_window", "false"}, {"max_window_layers", "0"}}))));
  EXPECT_EQ(windows(off), (std::vector<int64_t>{0, 0, 0}));
}

std::string mixers(Imported &imported) {
  std::string result;
  imported.program("step").walk([&](mlir::Operation *op) {
    result += llvm::isa<GatedDeltaRuleOp>(op) ? "d" : llvm::isa<AttentionOp>(op) ? "a" : "";
  });
  return result;
}

TEST(Recipe, HybridLayersComeFromTheListOrTheInterval) {
  Folder folder;
  Fields six = with(hybrid(), {{"num_hidden_layers", "6"}});
  Imported byDefault(folder.write("config.json", render(six)));
  EXPECT_EQ(mixers(byDefault), "dddadd");
  Imported interval(folder.write("config.json", render(with(six, {{"full_attention_interval", "2"}}))));
  EXPECT_EQ(mixers(interval), "dadada");
  Imported listed(
      folder.write("config.json", render(with(six, {{"layer_types", R"(["full_attention", "linear_attention",
      "linear_attention", "linear_attention", "full_attention", "linear_attention"])"}}))));
  EXPECT_EQ(mixers(listed), "adddad");
}

std::string feedForwards(Imported &imported) {
  std::string result;
  imported.program("step").walk([&](mlir::Operation *op) {
    if (llvm::isa<ExpertsOp>(op))
      result += "e";
    else if (llvm::isa<SiluMulOp>(op) && llvm::StringRef(locationOf(op)).ends_with("mlp.in"))
      result += "d";
  });
  return result;
}

TEST(Recipe, SomeLayersOfAnExpertModelAreDense) {
  Folder folder;
  Fields five = with(experts(), {{"num_hidden_layers", "5"}});
  Imported all(folder.write("config.json", render(five)));
  EXPECT_EQ(feedForwards(all), "eeeee");
  Imported step(folder.write("config.json", render(with(five, {{"decoder_sparse_step", "2"}}))));
  EXPECT_EQ(feedForwards(step), "deded");
  Imported listed(folder.write("config.json", render(with(five, {{"mlp_only_layers", "[0, 3]"}}))));
  EXPECT_EQ(feedForwards(listed), "deede");
  Imported none(folder.write("config.json", render(with(five, {{"num_experts", "0"}}))));
  EXPECT_EQ(feedForwards(none), "ddddd");
  Imported renamed(folder.write("config.json", render(with(five, {{"num_experts", ""}, {"num_local_experts", "6"}}))));
  EXPECT_EQ(feedForwards(renamed), "eeeee");
}

bool renormalizes(Imported &imported) {
  bool result = false;
  imported.program("step").walk([&](RouterOp op) { result = op.getRenormalize(); });
  return result;
}

TEST(Recipe, RenormalisationHasADefaultPerFamily) {
  Folder folder;
  auto with_ = [&](const Fields &fields, const std::string &value) {
    Imported imported(folder.write("config.json", render(with(fields, {{"norm_topk_prob", value}}))));
    return renormalizes(imported);
  };
  EXPECT_FALSE(with_(experts(), ""));
  EXPECT_TRUE(with_(experts(), "true"));
  EXPECT_TRUE(with_(next(), ""));
  EXPECT_FALSE(with_(next(), "false"));
  Fields moe35 =
      with(next(), {{"model_type", "\"qwen3_5_moe_text\""}, {"architectures", ""}, {"norm_topk_prob", "false"}});
  Imported always(folder.write("config.json", render(moe35)));
  EXPECT_TRUE(renormalizes(always));
  ASSERT_EQ(always.warnings.size(), 1u);
  EXPECT_NE(always.warnings[0].find("/norm_topk_prob: qwen3_5_moe renormalises"), std::string::npos);
}

TEST(Recipe, IdsAndLengthsReachTheModule) {
  Folder folder;
  std::string path = folder.write("config.json", render(with(dense(), {{"eos_token_id", "[5, 7, 5, 151645]"}})));
  ImportOptions options;
  options.maxModelLen = 300;
  options.maxRows = 4;
  Imported imported(path, options);
  EXPECT_EQ(imported.op()->getAttrOfType<mlir::DenseI64ArrayAttr>("model.eos_ids").asArrayRef(),
            (llvm::ArrayRef<int64_t>{5, 7}));
  ASSERT_EQ(imported.warnings.size(), 1u);
  EXPECT_EQ(imported.warnings[0], path + ":/eos_token_id/3: 151645 is outside the vocabulary of 101 and ends nothing");
  EXPECT_EQ(dim(imported.op(), "max_model_len"), 300);
  EXPECT_EQ(maxRows(imported.program("verify")), 4);
}

TEST(Recipe, YarnAllowsLongerSequencesThanTheFileSays) {
  Folder folder;
  std::string path =
      folder.write("config.json", render(with(dense(), {{"rope_scaling", R"({"rope_type": "yarn", "factor": 4.0,
                                                          "original_max_position_embeddings": 512})"}})));
  ImportOptions options;
  options.maxModelLen = 2048;
  EXPECT_TRUE(Imported(path, options).module.ok());
  options.maxModelLen = 2049;
  EXPECT_FALSE(Imported(path, options).module.ok());
}

std::string printed(const std::string &path) {
  Imported imported(path);
  std::string text;
  llvm::raw_string_ostream stream(text);
  imported.op()->print(stream, mlir::OpPrintingFlags().enableDebugInfo());
  return text;
}

TEST(Recipe, TheModuleDoesNotKnowWhereItsConfigLay) {
  Folder folder;
  std::string text = render(next());
  std::string here = printed(folder.write("a/config.json", text)), there = printed(folder.write("b/c/d.json", text));
  EXPECT_EQ(here, there);
  EXPECT_EQ(here.find(folder.path.string()), std::string::npos);
}

TEST(Recipe, NestedAndBareConfigsGiveTheSameModule) {
  Folder folder;
  Fields text = with(hybrid(), {{"architectures", ""}});
  std::string bare = printed(folder.write("bare.json", render(text)));
  std::string nested = printed(folder.write(
      "nested.json", render({{"model_type", "\"qwen3_5\""}, {"text_config", render(text)}, {"vision_config", "{}"}})));
  EXPECT_EQ(bare, nested);
}

//===----------------------------------------------------------------------===//
// Drafters
//===----------------------------------------------------------------------===//

Imported withDrafter(const Folder &folder, const Fields &target, const Fields &draft) {
  ImportOptions options;
  options.drafterPath = folder.write("draft/config.json", render(draft));
  return Imported(folder.write("config.json", render(target)), options);
}

std::vector<std::string> masks(Imported &imported) {
  std::vector<std::string> result;
  imported.program("draft_dflash").walk([&](AttentionOp op) {
    result.push_back(op.getMask().str() + " " + std::to_string(op.getWindow()));
  });
  return result;
}

TEST(Drafter, ReadsTheOutputsOfTheTappedLayers) {
  Folder folder;
  Imported imported = withDrafter(folder, with(hybrid(), {{"num_hidden_layers", "4"}}),
                                  with(drafter(), {{"dflash_config", R"({"mask_token_id": 7,
                                                                       "target_layer_ids": [3, 0]})"}}));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  for (const char *program : {"step", "verify"})
    imported.program(program).walk([&](ConcatOp op) {
      ASSERT_EQ(op.getParts().size(), 2u);
      // The residual stream behind the layer, in the config's order; before the final norm even for the last layer.
      EXPECT_EQ(locationOf(op.getParts()[0].getDefiningOp()), "layers.3");
      EXPECT_EQ(locationOf(op.getParts()[1].getDefiningOp()), "layers.0");
    });
  EXPECT_EQ(imported.param("draft.fc").getSources().size(), 1u);
  EXPECT_EQ(dim(imported.op(), "draft_block"), 4);
  EXPECT_EQ(dim(imported.op(), "draft_mask_token"), 7);
}

TEST(Drafter, BlocksAreCausalWhereTheyAreSaidToBe) {
  Folder folder;
  Fields sliding = with(drafter(), {{"layer_types", R"(["sliding_attention", "full_attention"])"},
                                    {"sliding_window", "9"},
                                    {"use_sliding_window", "true"}});
  Imported byKind = withDrafter(folder, dense(), sliding);
  EXPECT_EQ(masks(byKind), (std::vector<std::string>{"causal 9", "block 0"}));
  Imported never = withDrafter(folder, dense(), with(sliding, {{"is_causal", "false"}}));
  EXPECT_EQ(masks(never), (std::vector<std::string>{"block 9", "block 0"}));
  Imported always =
      withDrafter(folder, dense(), with(drafter(), {{"dflash_config", R"({"mask_token_id": 7, "causal": true,
                                                                   "target_layer_ids": [0]})"}}));
  EXPECT_EQ(masks(always), (std::vector<std::string>{"causal 0", "causal 0"}));
}

TEST(Drafter, TheContextIsKeysAndValuesOnly) {
  Folder folder;
  Imported imported = withDrafter(folder, dense(), drafter());
  std::vector<std::string> ops = opsOf(imported.program("draft_dflash_context"), "draft.layers.1");
  EXPECT_EQ(ops, (std::vector<std::string>{".attn.in linear", ".attn.in linear", ".attn.mixer qk_norm",
                                           ".attn.mixer rope", ".attn.mixer kv_append"}));
  // Both programs name one cache, and read the weights of one layer.
  std::vector<std::string> states;
  imported.op().walk([&](StateOp op) {
    if (op.getName().starts_with("draft."))
      states.push_back(op.getName().str());
  });
  EXPECT_EQ(states, (std::vector<std::string>{"draft.layers.0.attn", "draft.layers.1.attn", "draft.layers.0.attn",
                                              "draft.layers.1.attn"}));
}

TEST(Drafter, DFlash2ConvolvesAroundEverySublayerAndWalks) {
  Folder folder;
  Imported imported = withDrafter(
      folder, dense(),
      with(drafter(), {{"architectures", "[\"DFlash2DraftModel\"]"},
                       {"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": [0], "conv_kernel_size": 2,
                                           "conv_group_size": 8, "selector_rank": 12, "selector_top_k": 4})"}}));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  EXPECT_TRUE(mlir::succeeded(mlir::verify(imported.op())));
  EXPECT_EQ(opsOf(imported.program("draft_dflash"), "draft.layers.0"),
            (std::vector<std::string>{
                ".norm1 rms_norm",  ".attn_conv linear",       ".attn_conv dynamic_conv", ".attn.in linear",
                ".attn.in linear",  ".attn.in linear",         ".attn.mixer qk_norm",     ".attn.mixer qk_norm",
                ".attn.mixer rope", ".attn.mixer rope",        ".attn.mixer kv_append",   ".attn.mixer attention",
                ".attn.out linear", ".attn_conv dynamic_conv", ".attn.out add",           ".norm2 rms_norm",
                ".mlp_conv linear", ".mlp_conv dynamic_conv",  ".mlp.in linear",          ".mlp.in linear",
                ".mlp.in silu_mul", ".mlp.out linear",         ".mlp_conv dynamic_conv",  " add"}));
  int walks = 0;
  imported.program("draft_dflash").walk([&](CandidateWalkOp op) {
    ++walks;
    EXPECT_EQ(op.getCandidates(), 4u);
  });
  EXPECT_EQ(walks, 1);
  // The context goes without convolutions.
  imported.program("draft_dflash_context").walk([](DynamicConvOp) { ADD_FAILURE(); });
}

TEST(Drafter, SpreadsItsTapsWhenTheConfigDoesNotNameThem) {
  Folder folder;
  // round(1 + i (N - 4) / (n - 1)) with N = 12, n = 3.
  Imported imported =
      withDrafter(folder, with(dense(), {{"num_hidden_layers", "12"}}),
                  with(drafter(), {{"num_hidden_layers", "3"}, {"dflash_config", R"({"mask_token_id": 7})"}}));
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  imported.program("step").walk([&](ConcatOp op) {
    std::vector<std::string> taps;
    for (mlir::Value part : op.getParts())
      taps.push_back(locationOf(part.getDefiningOp()));
    EXPECT_EQ(taps, (std::vector<std::string>{"layers.1", "layers.5", "layers.9"}));
  });
}

} // namespace
} // namespace qwen::compiler::testing
