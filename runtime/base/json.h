// JSON from outside: one strict door for configs, shard headers, prompts and requests.
//
// ParseJson reads untrusted text and refuses what other readers let pass in silence: a key given twice (unless the
// caller wants the last one), text that is not UTF-8, a number no double holds, anything after the value, more bytes,
// depth or values than the caller allows.
// The result is a plain tree; objects keep the order of the file.
#ifndef QWEN_RUNTIME_BASE_JSON_H_
#define QWEN_RUNTIME_BASE_JSON_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/status.h"

namespace qwen {

/// One JSON value. Reading it as another kind than it has is our bug (an assert), so ask first.
class Json {
 public:
  enum class Kind { kNull, kBool, kInteger, kNumber, kString, kArray, kObject };
  using Member = std::pair<std::string, Json>;

  Json();  // null
  explicit Json(bool value);
  explicit Json(int64_t value);
  explicit Json(double value);
  explicit Json(std::string value);
  explicit Json(std::vector<Json> items);
  explicit Json(std::vector<Member> members);  // keys must differ
  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;
  ~Json();
  /// A copy, by name: values are large and move otherwise.
  Json Clone() const;

  Kind kind() const;
  bool IsNull() const { return kind() == Kind::kNull; }
  bool IsBool() const { return kind() == Kind::kBool; }
  /// An integer literal that int64 holds; `1.0` and `1e3` are numbers, not integers.
  bool IsInteger() const { return kind() == Kind::kInteger; }
  bool IsNumber() const { return kind() == Kind::kInteger || kind() == Kind::kNumber; }
  bool IsString() const { return kind() == Kind::kString; }
  bool IsArray() const { return kind() == Kind::kArray; }
  bool IsObject() const { return kind() == Kind::kObject; }

  bool AsBool() const;
  int64_t AsInteger() const;
  double AsNumber() const;  // of an integer too
  const std::string& AsString() const;
  const std::vector<Json>& items() const;      // of an array
  const std::vector<Member>& members() const;  // of an object, in the order of the file
  /// The value of `key`; null when this is no object or has no such key.
  const Json* Find(std::string_view key) const;

  /// "an integer", "an object" ...: for messages.
  const char* KindName() const;

 private:
  struct Object;
  std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<Json>, std::unique_ptr<Object>> value_;
};

struct JsonLimits {
  size_t max_bytes = size_t{16} << 20;
  size_t max_values = size_t{1} << 20;
  int max_depth = 64;
  bool last_key_wins = false;  // of equal keys the last value stands in the first one's place; false: they are refused
};

/// What kind of thing is wrong with a text, for those who answer the two differently.
enum class JsonFault : uint8_t {
  kText,   // not one valid value
  kLimit,  // too deep, or too many values
};

/// Parses all of `text`. kDataLoss, with `where` in front and the byte offset or the JSON pointer in the message,
/// for anything that is not one valid value within `limits`; memory stays within a small multiple of the limits.
/// `fault`, when not null, is set where parsing fails.
StatusOr<Json> ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits = {},
                         JsonFault* fault = nullptr);

/// `text` as a JSON string literal with its quotes. Control characters are escaped, so this is also how a message shows
/// text that came from outside; bytes that are not UTF-8 become U+FFFD.
std::string JsonQuote(std::string_view text);

/// `pointer` extended by one reference token (RFC 6901): `~` and `/` escaped, control characters as `\u00xx`.
std::string JsonPointer(std::string_view pointer, std::string_view key);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_JSON_H_
