//===- ConfigReader.h - typed reads of a config.json ----------------------===//
//
// Every value travels with its JSON pointer, so every message can name it as the user finds it:
// `config.json:/text_config/hidden_size: 0 is not in [1, 131072]`. The first complaint stays and later reads give their
// fallback, so that a family reads as a list of fields and asks for the status once, before it uses any.
//
// Two kinds of complaint, two exit codes: a value of the wrong type (the file is damaged) and a value that is valid but
// contradicts another or is not supported.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_IMPORT_CONFIGREADER_H
#define QWEN_COMPILER_IMPORT_CONFIGREADER_H

#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

/// A value of the file and the pointer to it. A value that is absent or null has no `json`; its pointer says where it
/// would stand.
struct ConfigValue {
  const Json *json = nullptr;
  std::string pointer;

  explicit operator bool() const { return json != nullptr; }
};

class ConfigReader {
public:
  /// `path` is the file as the user typed it; `root` must outlive the reader.
  ConfigReader(std::string path, const Json &root);

  const std::string &path() const { return filePath; }

  /// The object that holds the language model: `/text_config` where there is one, else the root.
  const ConfigValue &text() const { return textObject; }
  const ConfigValue &root() const { return rootObject; }
  bool nested() const { return !textObject.pointer.empty(); }

  /// A field of the language model.
  ConfigValue operator[](llvm::StringRef key) { return member(textObject, key); }
  /// The same, or the outer object's where the language model's has none.
  ConfigValue inherited(llvm::StringRef key);
  /// A member of any object; complains when `object` is not one.
  ConfigValue member(const ConfigValue &object, llvm::StringRef key);
  /// The elements of an array; none when absent.
  std::vector<ConfigValue> items(const ConfigValue &array);

  /// Typed reads. An absent value gives `fallback`; without one it is a complaint.
  int64_t integer(const ConfigValue &value, int64_t min, int64_t max, std::optional<int64_t> fallback = {});
  double number(const ConfigValue &value, double min, double max, std::optional<double> fallback = {});
  bool boolean(const ConfigValue &value, std::optional<bool> fallback = {});
  std::string string(const ConfigValue &value, std::optional<std::string> fallback = {});

  /// The file is damaged: exit code 3.
  void malformed(const ConfigValue &value, const std::string &why);
  /// Valid, but contradictory or not supported: exit code 4.
  void unsupported(const ConfigValue &value, const std::string &why, const std::string &hint = {});
  /// Something the plan does differently from what the file asks, harmlessly.
  void warn(const ConfigValue &value, const std::string &what);

  bool ok() const { return firstComplaint.ok(); }
  const Status &status() const { return firstComplaint; }
  const std::vector<std::string> &warnings() const { return allWarnings; }

private:
  std::string where(const ConfigValue &value) const;
  bool wrongType(const ConfigValue &value, llvm::StringRef want);

  std::string filePath;
  ConfigValue rootObject, textObject;
  Status firstComplaint;
  std::vector<std::string> allWarnings;
};

} // namespace qwen::compiler

#endif
