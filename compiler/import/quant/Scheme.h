//===- Scheme.h - which modules of a checkpoint are quantised, and how ----===//
//
// A quantised checkpoint lists its modules by rules: names, globs, regular expressions. The importer asks the rules
// about every linear and every group of experts, and carries the answer as the encoding of the weight's type; whether a
// target can run it is for a later stage to say. One format, one file; readSchemes picks it.
//
// Never asked about, whatever a list says: norms, convolutions, gates and decays of the delta rule, routers, the scalar
// gate of a shared expert, the embedding. Every recipe keeps them plain (quantisation design, section 9), and lists
// that leave them out rely on each loader knowing so.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_QUANT_SCHEME_H
#define QWEN_COMPILER_IMPORT_QUANT_SCHEME_H

#include "compiler/import/ConfigReader.h"
#include "llvm/ADT/ArrayRef.h"
#include <memory>
#include <optional>
#include <string>

namespace qwen::compiler {

/// How the checkpoint holds one weight.
struct StoredScheme {
  std::string format;             // as in model.scheme: fp8_block, int4_group ...
  int64_t groupN = 0, groupK = 0; // rows and columns that share a scale; 0: all of them

  // The tensor that holds the codes: `<module>.<suffix>`, its element type, and its shape from that of the weight.
  std::string suffix = "weight";
  std::string dtype;
  /// Codes per stored element along k (or along n, when `packsRows`); `transposed`: stored [k, n].
  int64_t codesPerElement = 1;
  bool packsRows = false, transposed = false;
  /// Names the packing when the tensor is not a plain matrix of codes; empty otherwise.
  std::string packing;
};

/// What is asked about a weight.
struct ModuleQuery {
  /// Names the module may have in the checkpoint: one per prefix, and for experts one per way to store them.
  llvm::ArrayRef<std::string> names;
  bool lmHead = false;
  bool mtp = false;
};

class SchemeRules {
public:
  virtual ~SchemeRules() = default;
  /// How the module is stored; nothing when it is plain.
  virtual std::optional<StoredScheme> schemeOf(const ModuleQuery &query) const = 0;
};

/// Reads `quantization_config`; null when there is none or after a complaint.
std::unique_ptr<SchemeRules> readSchemes(ConfigReader &config);

// One format, one file.
std::unique_ptr<SchemeRules> readFp8(ConfigReader &config, const ConfigValue &quantization);
std::unique_ptr<SchemeRules> readGptq(ConfigReader &config, const ConfigValue &quantization);
std::unique_ptr<SchemeRules> readAwq(ConfigReader &config, const ConfigValue &quantization);
std::unique_ptr<SchemeRules> readCompressedTensors(ConfigReader &config, const ConfigValue &quantization);
std::unique_ptr<SchemeRules> readModelopt(ConfigReader &config, const ConfigValue &quantization);

/// Quantised keys and values are not carried: the cache has the model's type.
void warnAboutCache(ConfigReader &config, const ConfigValue &quantization);

// Schemes that several formats share.
StoredScheme fp8Scheme(llvm::StringRef format, int64_t groupN, int64_t groupK);
StoredScheme nvfp4Scheme(llvm::StringRef suffix);

} // namespace qwen::compiler

#endif
