// The filters, methods, functions and tests that templates have: one table each, and nothing else can be called.
#ifndef QWEN_RUNTIME_TEXT_JINJA_BUILTINS_H_
#define QWEN_RUNTIME_TEXT_JINJA_BUILTINS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/text/jinja/value.h"

namespace qwen::text {

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keywords;
};

/// One call of a builtin.
struct Invocation {
  static constexpr size_t kMaxParameters = 3;

  Meter* meter;
  uint32_t node;                                               // what an undefined result points at
  Value self;                                                  // of filters and methods
  std::array<std::optional<Value>, kMaxParameters> arguments;  // by position or name; absent: not given
  std::vector<std::pair<std::string_view, Value>>* keywords;   // of a builtin that takes any
  std::vector<std::shared_ptr<Namespace>>* namespaces;         // where a new one is registered

  const Value* Argument(size_t i) const { return arguments[i] ? &*arguments[i] : nullptr; }
};

struct Builtin {
  std::string_view name;
  enum Use : uint8_t { kFilter = 1, kFunction = 2, kTextMethod = 4, kDictMethod = 8 };
  uint8_t uses;
  size_t required;                                                      // arguments
  std::array<std::string_view, Invocation::kMaxParameters> parameters;  // "": no more; "**": any keywords
  Value (*run)(Invocation&);
};

std::optional<uint32_t> FindFilter(std::string_view name);
const Builtin& FilterAt(uint32_t row);
/// Null when there is none.
const Builtin* FindBuiltin(std::string_view name, Builtin::Use use);
/// Binds the arguments as Python would and runs.
Value Invoke(const Builtin& builtin, CallArguments arguments, Invocation invocation);

std::optional<uint32_t> FindTest(std::string_view name);
bool RunTest(uint32_t row, const Value& value);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_BUILTINS_H_
