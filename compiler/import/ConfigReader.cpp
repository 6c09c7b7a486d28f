//===- ConfigReader.cpp - typed reads of a config.json --------------------===//

#include "compiler/import/ConfigReader.h"
#include "llvm/Support/FormatVariadic.h"
#include <charconv>

namespace qwen::compiler {

/// The shortest text that reads back as `value`, whatever the locale.
static std::string shortest(double value) {
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
}

ConfigReader::ConfigReader(std::string path, const Json &root) : filePath(std::move(path)) {
  rootObject = {&root, ""};
  textObject = rootObject;
  if (!root.IsObject()) {
    malformed(rootObject, std::string("is ") + root.KindName() + ", not an object");
    return;
  }
  if (ConfigValue text = member(rootObject, "text_config")) {
    if (text.json->IsObject())
      textObject = text;
    else
      wrongType(text, "an object");
  }
}

std::string ConfigReader::where(const ConfigValue &value) const {
  return filePath + ":" + (value.pointer.empty() ? "/" : value.pointer);
}

void ConfigReader::malformed(const ConfigValue &value, const std::string &why) {
  if (ok())
    firstComplaint = DataLossError(where(value) + ": " + why);
}

void ConfigReader::unsupported(const ConfigValue &value, const std::string &why, const std::string &hint) {
  if (ok())
    firstComplaint = UnimplementedError(where(value) + ": " + why, hint);
}

void ConfigReader::warn(const ConfigValue &value, const std::string &what) {
  allWarnings.push_back(where(value) + ": " + what);
}

bool ConfigReader::wrongType(const ConfigValue &value, llvm::StringRef want) {
  malformed(value, std::string("is ") + value.json->KindName() + ", not " + want.str());
  return true;
}

ConfigValue ConfigReader::member(const ConfigValue &object, llvm::StringRef key) {
  ConfigValue result{nullptr, JsonPointer(object.pointer, key)};
  if (!object)
    return result;
  if (!object.json->IsObject()) {
    wrongType(object, "an object");
    return result;
  }
  const Json *found = object.json->Find(key);
  if (found && !found->IsNull())
    result.json = found;
  return result;
}

ConfigValue ConfigReader::inherited(llvm::StringRef key) {
  ConfigValue own = member(textObject, key);
  if (own || !nested())
    return own;
  ConfigValue outer = member(rootObject, key);
  return outer ? outer : own;
}

std::vector<ConfigValue> ConfigReader::items(const ConfigValue &array) {
  std::vector<ConfigValue> result;
  if (!array)
    return result;
  if (!array.json->IsArray()) {
    wrongType(array, "an array");
    return result;
  }
  for (const Json &item : array.json->items())
    result.push_back({&item, JsonPointer(array.pointer, std::to_string(result.size()))});
  return result;
}

int64_t ConfigReader::integer(const ConfigValue &value, int64_t min, int64_t max, std::optional<int64_t> fallback) {
  if (!value) {
    if (!fallback)
      malformed(value, "is missing");
    return fallback.value_or(min);
  }
  if (!value.json->IsInteger()) {
    wrongType(value, "an integer");
    return fallback.value_or(min);
  }
  int64_t result = value.json->AsInteger();
  if (result < min || result > max) {
    unsupported(value, llvm::formatv("{0} is not in [{1}, {2}]", result, min, max));
    return fallback.value_or(min);
  }
  return result;
}

double ConfigReader::number(const ConfigValue &value, double min, double max, std::optional<double> fallback) {
  if (!value) {
    if (!fallback)
      malformed(value, "is missing");
    return fallback.value_or(min);
  }
  if (!value.json->IsNumber()) {
    wrongType(value, "a number");
    return fallback.value_or(min);
  }
  double result = value.json->AsNumber();
  if (!(result >= min && result <= max)) {
    unsupported(value, llvm::formatv("{0} is not in [{1}, {2}]", shortest(result), shortest(min), shortest(max)));
    return fallback.value_or(min);
  }
  return result;
}

bool ConfigReader::boolean(const ConfigValue &value, std::optional<bool> fallback) {
  if (!value) {
    if (!fallback)
      malformed(value, "is missing");
    return fallback.value_or(false);
  }
  if (!value.json->IsBool()) {
    wrongType(value, "a boolean");
    return fallback.value_or(false);
  }
  return value.json->AsBool();
}

std::string ConfigReader::string(const ConfigValue &value, std::optional<std::string> fallback) {
  if (!value) {
    if (!fallback)
      malformed(value, "is missing");
    return fallback.value_or("");
  }
  if (!value.json->IsString()) {
    wrongType(value, "a string");
    return fallback.value_or("");
  }
  return value.json->AsString();
}

} // namespace qwen::compiler
