//===- ImportTesting.h - configs to import in tests -----------------------===//

#ifndef QWEN_TEST_COMPILER_IMPORT_IMPORTTESTING_H
#define QWEN_TEST_COMPILER_IMPORT_IMPORTTESTING_H

#include "compiler/import/Import.h"
#include "dialects/model/ModelDialect.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/MLIRContext.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

namespace qwen::compiler::testing {

/// Fields of a config as JSON text, to be changed one by one.
using Fields = std::map<std::string, std::string>;

inline std::string render(const Fields &fields) {
  std::string text = "{";
  for (const auto &[key, value] : fields)
    text += (text.size() > 1 ? ", " : "") + JsonQuote(key) + ": " + value;
  return text + "}";
}

inline Fields dense() {
  return {{"model_type", "\"qwen3\""},
          {"architectures", "[\"Qwen3ForCausalLM\"]"},
          {"vocab_size", "101"},
          {"hidden_size", "40"},
          {"intermediate_size", "56"},
          {"num_hidden_layers", "2"},
          {"num_attention_heads", "4"},
          {"num_key_value_heads", "2"},
          {"head_dim", "16"},
          {"rope_theta", "1000000"},
          {"dtype", "\"bfloat16\""},
          {"max_position_embeddings", "512"},
          {"tie_word_embeddings", "false"}};
}

inline Fields with(Fields fields, const Fields &changes) {
  for (const auto &[key, value] : changes)
    if (value.empty())
      fields.erase(key);
    else
      fields[key] = value;
  return fields;
}

inline Fields hybrid() {
  return with(dense(), {{"model_type", "\"qwen3_5_text\""},
                        {"architectures", "[\"Qwen3_5ForCausalLM\"]"},
                        {"num_hidden_layers", "4"},
                        {"linear_num_key_heads", "2"},
                        {"linear_num_value_heads", "6"},
                        {"linear_key_head_dim", "8"},
                        {"linear_value_head_dim", "12"}});
}

inline Fields experts() {
  return with(dense(), {{"model_type", "\"qwen3_moe\""},
                        {"architectures", "[\"Qwen3MoeForCausalLM\"]"},
                        {"num_experts", "6"},
                        {"num_experts_per_tok", "2"},
                        {"moe_intermediate_size", "24"}});
}

inline Fields next() {
  return with(hybrid(), {{"model_type", "\"qwen3_next\""},
                         {"architectures", "[\"Qwen3NextForCausalLM\"]"},
                         {"num_experts", "6"},
                         {"num_experts_per_tok", "2"},
                         {"moe_intermediate_size", "24"},
                         {"shared_expert_intermediate_size", "32"}});
}

inline Fields drafter() {
  return with(dense(), {{"architectures", "[\"DFlashDraftModel\"]"},
                        {"block_size", "4"},
                        {"dflash_config", R"({"mask_token_id": 7, "target_layer_ids": [0, 1]})"}});
}

/// Files in a folder of their own, gone at the end.
class Folder {
public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qwen_import_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }

  std::string write(const std::string &name, const std::string &text) const {
    std::filesystem::create_directories((path / name).parent_path());
    EXPECT_TRUE(WriteFileAtomic((path / name).string(), text, true).ok());
    return (path / name).string();
  }

  std::filesystem::path path;
};

inline std::string source(const std::string &relative) { return std::string(QWEN_SOURCE_DIR) + "/" + relative; }

/// Imports the file at `path`; the context lives as long as the result.
struct Imported {
  explicit Imported(const std::string &path, const ImportOptions &options = {})
      : module(importModel(context, path, options, warnings)) {}

  mlir::ModuleOp op() { return **module; }
  mlir::func::FuncOp program(llvm::StringRef name) { return op().lookupSymbol<mlir::func::FuncOp>(name); }
  ir::model::ParamOp param(llvm::StringRef name) { return op().lookupSymbol<ir::model::ParamOp>(name); }

  mlir::MLIRContext context{mlir::MLIRContext::Threading::DISABLED};
  std::vector<std::string> warnings;
  StatusOr<mlir::OwningOpRef<mlir::ModuleOp>> module;
};

} // namespace qwen::compiler::testing

#endif
