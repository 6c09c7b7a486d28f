// Reads request objects by a table: one row a field says its type, its range and where the value goes.
//
// Rules hold for every field alike: null is absence; integers may be written 8 or 8.0; booleans are no numbers; a float
// is finite before it is in range; every refusal names the place ("stop[2]"); a field without a row is passed over,
// counted and named to the client, or refused where the server is strict (serving design, 4.1).
#ifndef QWEN_RUNTIME_SERVER_API_FIELDS_H_
#define QWEN_RUNTIME_SERVER_API_FIELDS_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/server/api/errors.h"

namespace qwen::server {

/// What a request may ask for at most (serving design, section 6).
struct RequestLimits {
  int64_t max_n = 8, max_prompts = 64, max_choices = 128;  // choices: of all prompts together
  int64_t max_logprobs = 20;
  int64_t max_messages = 4096, max_parts = 256;
  int64_t max_stop = 16, max_stop_bytes = 256, max_logit_bias = 1024, max_stop_ids = 64;
  int64_t max_kwargs = 32, max_kwargs_bytes = 16 << 10, max_kwargs_depth = 8;
  int64_t max_detokenize = 1 << 20;
  int64_t max_json_values = 100'000, max_json_depth = 64;
  int64_t max_body_bytes = int64_t{8} << 20;
  int64_t vocab_used = 0;  // token ids from a client lie below this
};

/// Who reads, and what it learns on the way.
struct FieldReader {
  const RequestLimits& limits;
  bool strict = false;
  uint32_t endpoint = ~uint32_t{0};       // rows of other endpoints do not exist
  std::vector<std::string> ignored = {};  // paths of fields that had no effect, the first ones
  uint64_t ignored_count = 0;

  static constexpr size_t kMaxNamed = 10;
  Refusal Ignore(const std::string& path);
};

template <class T>
struct BoolField {
  std::optional<bool> T::* to;
};
template <class T>
struct IntegerField {
  std::optional<int64_t> T::* to;
  int64_t low, high;
  int64_t RequestLimits::* limit = nullptr;  // takes the place of `high`
};
template <class T>
struct NumberField {
  std::optional<double> T::* to;
  double low, high;
  bool above_low = false;  // `low` itself is out of range
};
template <class T>
struct StringField {
  std::optional<std::string> T::* to;
};
/// Whatever has a shape of its own. The value is not null.
template <class T>
struct ShapeField {
  Refusal (*read)(const Json& value, const std::string& path, FieldReader& reader, T* to);
};
struct NoEffect {};  // taken, whatever it is
struct Refused {
  const char* why;
};

template <class T>
struct Field {
  std::string_view name;
  std::variant<BoolField<T>, IntegerField<T>, NumberField<T>, StringField<T>, ShapeField<T>, NoEffect, Refused> rule;
  uint32_t endpoints = ~uint32_t{0};
};

std::string MemberPath(const std::string& parent, std::string_view name);
std::string ItemPath(const std::string& parent, size_t index);

ApiError WrongType(const std::string& path, const Json& value, std::string_view want);
ApiError OutOfRange(const std::string& path, const std::string& value, const std::string& range);

Refusal ReadBool(const Json& value, const std::string& path, bool* to);
Refusal ReadInteger(const Json& value, const std::string& path, int64_t low, int64_t high, int64_t* to);
Refusal ReadNumber(const Json& value, const std::string& path, double low, double high, bool above_low, double* to);
Refusal ReadString(const Json& value, const std::string& path, std::string* to);
/// An integer below limits.vocab_used.
Refusal ReadTokenId(const Json& value, const std::string& path, const FieldReader& reader, int32_t* to);

/// Reads the members of `object` by `table`; `path` "" is the root.
template <class T>
Refusal ReadFields(const Json& object, const std::string& path, std::span<const Field<T>> table, FieldReader& reader,
                   T* to) {
  if (!object.IsObject()) return WrongType(path, object, "an object");
  for (const auto& [name, value] : object.members()) {
    const std::string where = MemberPath(path, name);
    const Field<T>* field = nullptr;
    for (const Field<T>& row : table)
      if ((row.endpoints & reader.endpoint) && row.name == name) field = &row;
    if (!field) {
      if (Refusal refusal = reader.Ignore(where)) return refusal;
      continue;
    }
    if (value.IsNull()) continue;
    Refusal refusal = std::visit(
        [&]<class Rule>(const Rule& rule) -> Refusal {
          if constexpr (std::is_same_v<Rule, BoolField<T>>) {
            return ReadBool(value, where, &(to->*rule.to).emplace());
          } else if constexpr (std::is_same_v<Rule, IntegerField<T>>) {
            const int64_t high = rule.limit ? reader.limits.*rule.limit : rule.high;
            return ReadInteger(value, where, rule.low, high, &(to->*rule.to).emplace());
          } else if constexpr (std::is_same_v<Rule, NumberField<T>>) {
            return ReadNumber(value, where, rule.low, rule.high, rule.above_low, &(to->*rule.to).emplace());
          } else if constexpr (std::is_same_v<Rule, StringField<T>>) {
            return ReadString(value, where, &(to->*rule.to).emplace());
          } else if constexpr (std::is_same_v<Rule, ShapeField<T>>) {
            return rule.read(value, where, reader, to);
          } else if constexpr (std::is_same_v<Rule, Refused>) {
            return MakeError(ErrorKind::kUnsupportedParameter, where + ": " + rule.why, where);
          } else {
            return std::nullopt;
          }
        },
        field->rule);
    if (refusal) return refusal;
  }
  return std::nullopt;
}

/// The body of a request as an object, by the rules of 4.1.
Refusal ParseBody(std::string_view body, const RequestLimits& limits, Json* to);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_FIELDS_H_
