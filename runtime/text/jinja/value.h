// What template expressions are made of: Python's values as far as JSON and Jinja make them.
//
// Values are shared and never change, except for the attributes of a namespace. Nothing in a value leads to a file, the
// environment or code: attributes are keys of objects, and the only functions are the rows of builtins.cc.
#ifndef QWEN_RUNTIME_TEXT_JINJA_VALUE_H_
#define QWEN_RUNTIME_TEXT_JINJA_VALUE_H_

#include <compare>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/text/jinja/limits.h"
#include "runtime/text/jinja/marked_text.h"

namespace qwen::text {

struct Sequence;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;

/// Prints as nothing, is false, and fails when something is wanted of it. `node` says what was missing.
struct Undefined {
  static constexpr uint32_t kNoNode = ~0u;
  uint32_t node = kNoNode;
};
struct None {};
using Text = std::shared_ptr<const MarkedText>;

template <class T, class... Us>
concept OneOf = (std::same_as<T, Us> || ...);

class Value {
 public:
  Value() = default;  // undefined
  template <
      OneOf<Undefined, None, bool, int64_t, double, Text, std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
            std::shared_ptr<Namespace>, std::shared_ptr<Loop>, std::shared_ptr<const Callable>>
          T>
  Value(T value) : storage_(std::move(value)) {}  // NOLINT: implicit by design

  template <class T>
  bool Is() const {
    return std::holds_alternative<T>(storage_);
  }
  /// Null when it is no T.
  template <class T>
  const T* If() const {
    return std::get_if<T>(&storage_);
  }
  const MarkedText* text() const { return Pointee<Text>(); }
  const Sequence* sequence() const { return Pointee<std::shared_ptr<const Sequence>>(); }
  const Dict* dict() const { return Pointee<std::shared_ptr<const Dict>>(); }
  Loop* loop() const { return Pointee<std::shared_ptr<Loop>>(); }
  Namespace* as_namespace() const { return Pointee<std::shared_ptr<Namespace>>(); }
  const Callable* callable() const { return Pointee<std::shared_ptr<const Callable>>(); }
  /// Of an int or a bool.
  std::optional<int64_t> integer() const;

  /// When this holds the only reference to its string, that string to append to; else null.
  MarkedText* Unshared();

 private:
  template <class Pointer>
  typename Pointer::element_type* Pointee() const {
    const Pointer* pointer = std::get_if<Pointer>(&storage_);
    return pointer ? pointer->get() : nullptr;
  }

  std::variant<Undefined, None, bool, int64_t, double, Text, std::shared_ptr<const Sequence>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<Loop>,
               std::shared_ptr<const Callable>>
      storage_;
};

struct Sequence {
  enum class Flavor : uint8_t { kList, kTuple, kRange, kView };  // kView: keys(), items(): neither index nor repr
  Flavor flavor = Flavor::kList;
  int64_t nesting = 1;
  std::vector<Value> items;
};

/// Keys are strings, in the order of the request.
struct Dict {
  int64_t nesting = 1;
  std::vector<std::pair<Text, Value>> members;
  std::vector<uint32_t> by_key;  // indices of members, sorted by key

  const Value* Find(std::string_view key) const;
};

/// `namespace(...)`. May refer to itself, so the evaluator empties all of them at the end.
struct Namespace {
  std::vector<std::pair<std::string_view, Value>> attributes;  // names live in the program

  Value* Find(std::string_view name);
};

/// The variable `loop`.
struct Loop {
  std::shared_ptr<const Sequence> items;
  size_t index = 0;
};

/// A macro, a function, or a method with the value it was taken from.
struct Callable {
  static constexpr uint32_t kNoMacro = ~0u;
  const struct Builtin* builtin = nullptr;  // null: a macro
  uint32_t macro = kNoMacro;                // its node
  Value self;
};

// --- Making. Limits are the meter's; after a failure the result is undefined. ---------------------------------------

Value MakeText(MarkedText text);
/// A string that is no template text.
Value MakeText(std::string text);
Value MakeSequence(Sequence::Flavor flavor, std::vector<Value> items, Meter* meter);
/// Keys differ.
Value MakeDict(std::vector<std::pair<Text, Value>> members, Meter* meter);
Value FromJson(const Json& json, Meter* meter);

// --- Reading ---------------------------------------------------------------------------------------------------------

/// "str object", "None": for messages.
std::string_view TypeName(const Value& value);
bool Truth(const Value& value);
bool Equal(const Value& a, const Value& b, Meter* meter);
/// Fails for types without an order.
std::partial_ordering Order(const Value& a, const Value& b, Meter* meter);
/// `item in container`
bool Contains(const Value& container, const Value& item, Meter* meter);
/// len(value)
int64_t Length(const Value& value, Meter* meter);
/// What a for loop sees: items, keys, characters. Null after a failure.
std::shared_ptr<const Sequence> Iterate(const Value& value, Meter* meter);

/// str(value); strings keep their marks.
bool AppendStr(const Value& value, MarkedText* out, Meter* meter);
Text Str(const Value& value, Meter* meter);
/// json.dumps(value, ensure_ascii=False)
bool AppendJson(const Value& value, std::string* out, Meter* meter);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_VALUE_H_
