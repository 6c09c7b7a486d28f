//===- ModulePatterns.h - lists of module names in a checkpoint's rules ---===//
//
// Formats write their lists in four languages: plain names, shell globs, substrings and Python regular expressions. The
// lists are outside input, asked about every module of every layer: names are a set, the others are few and cannot
// blow up (globs are matched in one pass, expressions have no back references and small repeat counts).
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_QUANT_MODULEPATTERNS_H
#define QWEN_COMPILER_IMPORT_QUANT_MODULEPATTERNS_H

#include "compiler/import/ConfigReader.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Regex.h"
#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

/// Whether `pattern` with `*` and `?` matches all of `name`.
bool matchesGlob(llvm::StringRef pattern, llvm::StringRef name);

/// A Python regular expression, matched from the start of a name as re.match does. Complains about what it cannot
/// say: look-around, back references, large repeat counts.
class ModuleRegex {
public:
  static std::optional<ModuleRegex> compile(ConfigReader &config, const ConfigValue &where, llvm::StringRef pattern);
  bool matches(llvm::StringRef name) const { return regex.match(name); }

private:
  explicit ModuleRegex(llvm::Regex regex) : regex(std::move(regex)) {}
  llvm::Regex regex;
};

/// One list. How an entry without a wildcard is meant differs by format.
class ModulePatterns {
public:
  enum class Plain {
    Exact,     // the module's whole name
    Component, // its whole name, or whole components at its start or end
    Substring, // any part of its name
  };

  ModulePatterns() = default;
  ModulePatterns(ModulePatterns &&) = default;
  ModulePatterns &operator=(ModulePatterns &&) = default;

  /// Reads an array of strings: entries with `re:` are expressions, others with `*` or `?` globs.
  static ModulePatterns read(ConfigReader &config, const ConfigValue &list, Plain plain);

  bool empty() const { return names.empty() && globs.empty() && parts.empty() && regexes.empty(); }
  bool matches(llvm::StringRef name) const;
  bool matchesAny(llvm::ArrayRef<std::string> candidates) const;

private:
  llvm::StringSet<> names;
  std::vector<std::string> globs, parts;
  std::vector<ModuleRegex> regexes;
  bool components = false;
};

} // namespace qwen::compiler

#endif
