//===- Import.cpp - config.json to model IR -------------------------------===//

#include "compiler/import/Import.h"
#include "compiler/import/Programs.h"
#include "compiler/import/WeightMap.h"
#include "dialects/model/ModelDialect.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "runtime/base/file.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"

using namespace mlir;
namespace model_ir = qwen::ir::model;

namespace qwen::compiler {
namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr int64_t kMaxRows = 64;

/// A model type: what its config says of itself, and who reads the rest.
struct Family {
  StringRef type;     // model_type of the text config
  StringRef nestedIn; // model_type of the multimodal config around it; empty: never nested
  StringRef architectures[2];
  void (*read)(ConfigReader &, ModelConfig &);
};

constexpr Family kFamilies[] = {
    {"qwen3", "", {"Qwen3ForCausalLM", ""}, readQwen3},
    {"qwen3_moe", "", {"Qwen3MoeForCausalLM", ""}, readQwen3MoE},
    {"qwen3_next", "", {"Qwen3NextForCausalLM", ""}, readQwen3Next},
    {"qwen3_5_text", "qwen3_5", {"Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"}, readQwen35},
    {"qwen3_5_moe_text", "qwen3_5_moe", {"Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"}, readQwen35MoE},
};

std::string supportedTypes() {
  std::string list;
  for (const Family &family : kFamilies)
    for (StringRef name : {family.nestedIn, family.type})
      if (!name.empty())
        list += (list.empty() ? "" : ", ") + name.str();
  return list;
}

/// The family that a model_type names, on either level.
const Family *findFamily(StringRef type) {
  for (const Family &family : kFamilies)
    if (type == family.type || (!family.nestedIn.empty() && type == family.nestedIn))
      return &family;
  return nullptr;
}

const Family *pickFamily(ConfigReader &config) {
  ConfigValue outer = config.member(config.root(), "model_type");
  std::string name = config.string(outer);
  if (!config.ok())
    return nullptr;
  const Family *family = findFamily(name);
  if (!family) {
    config.unsupported(outer, "model type " + JsonQuote(name) + " is not supported (" + supportedTypes() + ")");
    return nullptr;
  }
  if (config.nested()) {
    ConfigValue inner = config["model_type"];
    std::string innerName = config.string(inner, family->type.str());
    if (config.ok() && findFamily(innerName) != family)
      config.unsupported(inner, "model type " + JsonQuote(innerName) + " does not belong in " + JsonQuote(name));
  }
  std::vector<ConfigValue> architectures = config.items(config.member(config.root(), "architectures"));
  bool known = architectures.empty();
  for (const ConfigValue &item : architectures)
    known |= llvm::is_contained(family->architectures, config.string(item));
  if (!known && config.ok()) {
    std::string list = family->architectures[0].str();
    if (!family->architectures[1].empty())
      list += ", " + family->architectures[1].str();
    config.unsupported(architectures[0], "architecture " + JsonQuote(config.string(architectures[0])) +
                                             " is not supported for model type " + name + " (" + list + ")");
  }
  return family;
}

StatusOr<Json> readJson(const std::string &path) {
  QWEN_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseJson(text, path);
}

StatusOr<ModelConfig> readTarget(ConfigReader &config) {
  QWEN_RETURN_IF_ERROR(config.status());
  if (isDrafter(config) && config.ok())
    return UnimplementedError(config.path() + ":/architectures: is a drafter, which runs beside its target only",
                              "pass the target's config, and this one with --drafter");
  ModelConfig model;
  if (const Family *family = pickFamily(config)) {
    model.prefixes = {"model."};
    if (!family->nestedIn.empty())
      model.prefixes.push_back("model.language_model.");
    family->read(config, model);
    if (config.ok())
      model.schemes = readSchemes(config);
  }
  QWEN_RETURN_IF_ERROR(config.status());
  return model;
}

StatusOr<Type> pickElement(MLIRContext &context, const ConfigReader &config, const ModelConfig &model,
                           const std::optional<std::string> &dtype) {
  std::string name = dtype.value_or(model.dtype);
  if (name == "f32")
    return Type(Float32Type::get(&context));
  if (name == "bf16")
    return Type(BFloat16Type::get(&context));
  if (dtype)
    return InvalidArgumentError("--dtype=" + *dtype + ": is not f32 or bf16");
  return UnimplementedError(config.path() + ":/dtype: computing in float16 is not supported",
                            "pass --dtype=bf16 or --dtype=f32");
}

StatusOr<int64_t> pickMaxModelLen(const ConfigReader &config, const ModelConfig &model, int64_t wanted) {
  int64_t most = std::max(model.maxPositions, model.attention.rope.stretchedPositions);
  if (wanted < 0 || wanted > most)
    return InvalidArgumentError(
        llvm::formatv("--max-model-len={0}: is not in [1, {1}], what {2} allows", wanted, most, config.path()));
  return wanted ? wanted : model.maxPositions;
}

/// Numbers of the model that the runtime and the tools print or check; the ops carry those they need.
DictionaryAttr dims(Builder &builder, const ImportedModel &model, int64_t maxModelLen) {
  const ModelConfig &target = model.target;
  SmallVector<NamedAttribute> entries;
  auto put = [&](StringRef name, int64_t value) {
    entries.push_back(builder.getNamedAttr(name, builder.getI64IntegerAttr(value)));
  };
  put("hidden", target.hidden);
  put("layers", int64_t(target.layers.size()));
  put("vocab", target.vocab);
  put("max_model_len", maxModelLen);
  put("q_heads", target.attention.qHeads);
  put("kv_heads", target.attention.kvHeads);
  put("head_dim", target.attention.headDim);
  if (target.deltaNet) {
    put("key_heads", target.deltaNet->keyHeads);
    put("value_heads", target.deltaNet->valueHeads);
    put("key_dim", target.deltaNet->keyDim);
    put("value_dim", target.deltaNet->valueDim);
    put("conv_width", target.deltaNet->width);
  }
  if (target.intermediate)
    put("intermediate", target.intermediate);
  if (target.moe) {
    put("experts", target.moe->experts);
    put("top_k", target.moe->topK);
    put("expert_intermediate", target.moe->intermediate);
    put("shared_intermediate", target.moe->sharedIntermediate);
  }
  if (model.drafter) {
    put("draft_layers", int64_t(model.drafter->model.layers.size()));
    put("draft_block", model.drafter->blockSize);
    put("draft_mask_token", model.drafter->maskTokenId);
  }
  return builder.getDictionaryAttr(entries);
}

} // namespace

StatusOr<std::string> resolveConfigPath(const std::string &path) {
  static const char kGgufHint[] = "GGUF is a converted format; pass the Hugging Face folder it was made from";
  if (StringRef(path).ends_with_insensitive(".gguf"))
    return UnimplementedError(path + ": GGUF files are not supported", kGgufHint);
  for (StringRef suffix : {".safetensors", ".bin", ".pt", ".pth"})
    if (StringRef(path).ends_with_insensitive(suffix))
      return InvalidArgumentError(path + ": is a weight file", "pass its folder, or the config.json in it");
  llvm::sys::fs::file_status status;
  if (std::error_code error = llvm::sys::fs::status(path, status))
    return ResourceExhaustedError(path + ": cannot open: " + error.message());
  if (status.type() != llvm::sys::fs::file_type::directory_file)
    return path;

  std::string config = path + (StringRef(path).ends_with("/") ? "" : "/") + "config.json";
  if (llvm::sys::fs::exists(config))
    return config;
  std::error_code error;
  for (llvm::sys::fs::directory_iterator entry(path, error), end; entry != end && !error; entry.increment(error))
    if (StringRef(entry->path()).ends_with_insensitive(".gguf"))
      return UnimplementedError(path + ": holds GGUF files and no config.json", kGgufHint);
  return ResourceExhaustedError(path + ": holds no config.json", "pass the folder of a Hugging Face checkpoint");
}

StatusOr<OwningOpRef<ModuleOp>> importModel(MLIRContext &context, const std::string &configOrDir,
                                            const ImportOptions &options, std::vector<std::string> &warnings) {
  context.loadDialect<model_ir::ModelDialect, func::FuncDialect>();
  QWEN_ASSIGN_OR_RETURN(std::string path, resolveConfigPath(configOrDir));
  QWEN_ASSIGN_OR_RETURN(Json json, readJson(path));
  ConfigReader config(path, json);

  ImportedModel model;
  QWEN_ASSIGN_OR_RETURN(model.target, readTarget(config));
  llvm::append_range(warnings, config.warnings());
  QWEN_ASSIGN_OR_RETURN(model.element, pickElement(context, config, model.target, options.dtype));
  QWEN_ASSIGN_OR_RETURN(int64_t maxModelLen, pickMaxModelLen(config, model.target, options.maxModelLen));

  if (!options.drafterPath.empty()) {
    QWEN_ASSIGN_OR_RETURN(std::string drafterPath, resolveConfigPath(options.drafterPath));
    QWEN_ASSIGN_OR_RETURN(Json drafterJson, readJson(drafterPath));
    ConfigReader drafterConfig(drafterPath, drafterJson);
    model.drafter.emplace();
    if (drafterConfig.ok())
      readDFlash(drafterConfig, model.target, *model.drafter);
    QWEN_RETURN_IF_ERROR(drafterConfig.status());
    llvm::append_range(warnings, drafterConfig.warnings());
  }

  if (options.maxRows < 0 || options.maxRows > kMaxRows)
    return InvalidArgumentError(llvm::formatv("--max-rows={0}: is not in [1, {1}]", options.maxRows, kMaxRows));
  bool drafts = model.target.mtp || model.drafter;
  model.maxRows = options.maxRows ? options.maxRows : !drafts ? 1 : model.target.moe ? 8 : 16;

  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(&context));
  WeightMap weights(*module, model.element);
  weights.declareModel(model.target);
  if (model.drafter)
    weights.declareDrafter(*model.drafter, model.target);
  buildPrograms(*module, model);

  Builder builder(&context);
  ModuleOp op = *module;
  op->setAttr("model.family", builder.getStringAttr(model.target.family));
  op->setAttr("model.dtype", TypeAttr::get(model.element));
  op->setAttr("model.dims", dims(builder, model, maxModelLen));
  op->setAttr("model.eos_ids", builder.getDenseI64ArrayAttr(model.target.eosIds));
  SmallVector<StringRef> prefixes(model.target.prefixes.begin(), model.target.prefixes.end());
  op->setAttr("model.prefixes", builder.getStrArrayAttr(prefixes));
  return module;
}

} // namespace qwen::compiler
