#include "runtime/server/api/fields.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"

namespace qwen::server {

Refusal FieldReader::Ignore(const std::string& path) {
  if (strict)
    return MakeError(ErrorKind::kUnknownParameter, fmt::format("{}: no such parameter", QuoteUser(path)), path);
  ++ignored_count;
  // The names go into a header: only what cannot break one.
  auto plain = [](char c) { return c > ' ' && c < 0x7F && c != ',' && c != '"'; };
  if (ignored.size() < kMaxNamed && path.size() <= 64 && std::all_of(path.begin(), path.end(), plain))
    ignored.push_back(path);
  return std::nullopt;
}

std::string MemberPath(const std::string& parent, std::string_view name) {
  // A path stands in answers and logs: names that no client needs are cut.
  const std::string_view head = name.substr(0, 128);
  return parent.empty() ? std::string(head) : fmt::format("{}.{}", parent, head);
}
std::string ItemPath(const std::string& parent, size_t index) { return fmt::format("{}[{}]", parent, index); }

ApiError WrongType(const std::string& path, const Json& value, std::string_view want) {
  return MakeError(ErrorKind::kInvalidType,
                   fmt::format("{}: is {}, want {}", path.empty() ? "the body" : path, value.KindName(), want), path);
}
ApiError OutOfRange(const std::string& path, const std::string& value, const std::string& range) {
  return MakeError(ErrorKind::kInvalidValue, fmt::format("{}: {} is not {}", path, value, range), path);
}

Refusal ReadBool(const Json& value, const std::string& path, bool* to) {
  if (!value.IsBool()) return WrongType(path, value, "a boolean");
  *to = value.AsBool();
  return std::nullopt;
}

Refusal ReadInteger(const Json& value, const std::string& path, int64_t low, int64_t high, int64_t* to) {
  if (!value.IsNumber()) return WrongType(path, value, "an integer");
  const std::string range = fmt::format("in {} to {}", low, high);
  if (value.IsInteger()) {
    *to = value.AsInteger();
  } else {
    const double number = value.AsNumber();
    if (!std::isfinite(number) || number != std::floor(number)) return WrongType(path, value, "an integer");
    // 2^63 is the first double that int64 does not hold; -2^63 is held.
    if (number >= 0x1p63 || number < -0x1p63) return OutOfRange(path, fmt::format("{}", number), range);
    *to = static_cast<int64_t>(number);
  }
  if (*to < low || *to > high) return OutOfRange(path, fmt::format("{}", *to), range);
  return std::nullopt;
}

Refusal ReadNumber(const Json& value, const std::string& path, double low, double high, bool above_low, double* to) {
  if (!value.IsNumber()) return WrongType(path, value, "a number");
  const double number = value.AsNumber();
  // Written so that only a number that is in range passes: every comparison with NaN is false.
  if (!(std::isfinite(number) && number <= high && (above_low ? number > low : number >= low)))
    return OutOfRange(
        path, fmt::format("{}", number),
        above_low ? fmt::format("above {} and up to {}", low, high) : fmt::format("in {} to {}", low, high));
  *to = number;
  return std::nullopt;
}

Refusal ReadString(const Json& value, const std::string& path, std::string* to) {
  if (!value.IsString()) return WrongType(path, value, "a string");
  *to = value.AsString();
  return std::nullopt;
}

Refusal ReadTokenId(const Json& value, const std::string& path, const FieldReader& reader, int32_t* to) {
  int64_t id = 0;
  if (Refusal refusal = ReadInteger(value, path, 0, reader.limits.vocab_used - 1, &id)) return refusal;
  *to = static_cast<int32_t>(id);
  return std::nullopt;
}

Refusal ParseBody(std::string_view body, const RequestLimits& limits, Json* to) {
  JsonFault fault = JsonFault::kText;
  StatusOr<Json> json = ParseJson(body, "the body",
                                  {.max_bytes = static_cast<size_t>(limits.max_body_bytes),
                                   .max_values = static_cast<size_t>(limits.max_json_values),
                                   .max_depth = static_cast<int>(limits.max_json_depth),
                                   .last_key_wins = true},
                                  &fault);
  if (!json.ok())
    return MakeError(fault == JsonFault::kLimit ? ErrorKind::kJsonTooDeep : ErrorKind::kInvalidJson,
                     json.status().message());
  if (!json->IsObject()) return WrongType("", *json, "an object");
  *to = *std::move(json);
  return std::nullopt;
}

}  // namespace qwen::server
