// JSON out, appended to a string as it is said: answers and stream events are written without a tree.
#ifndef QWEN_RUNTIME_SERVER_API_JSON_WRITER_H_
#define QWEN_RUNTIME_SERVER_API_JSON_WRITER_H_

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/base/json.h"

namespace qwen::server {

/// Commas come by themselves: one is due unless the text ends where a value is expected. Brackets are the caller's to
/// balance. On one line, without blanks.
class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(*out), begin_(out->size()) {}

  JsonWriter& Begin(char bracket) {  // '{' or '['
    Comma();
    out_ += bracket;
    return *this;
  }
  JsonWriter& End(char bracket) {
    out_ += bracket;
    return *this;
  }
  JsonWriter& Key(std::string_view key) {
    Comma();
    out_ += '"';
    out_ += key;  // ours, so nothing needs escaping
    out_ += "\":";
    return *this;
  }

  JsonWriter& Value(std::string_view text) { return Raw(JsonQuote(text)); }
  JsonWriter& Value(const char* text) { return Value(std::string_view(text)); }
  JsonWriter& Value(bool value) { return Raw(value ? "true" : "false"); }
  JsonWriter& Value(std::nullptr_t) { return Raw("null"); }
  template <std::integral T>
  JsonWriter& Value(T value) {
    char digits[24];
    return Raw({digits, std::to_chars(digits, digits + sizeof digits, value).ptr});
  }
  /// The shortest text that reads back as the same; null for what is no number.
  template <std::floating_point T>
  JsonWriter& Value(T value) {
    if (!std::isfinite(value)) return Value(nullptr);
    char digits[32];
    return Raw({digits, std::to_chars(digits, digits + sizeof digits, value).ptr});
  }
  /// JSON that is written already.
  JsonWriter& Raw(std::string_view json) {
    Comma();
    out_ += json;
    return *this;
  }

  template <class T>
  JsonWriter& Member(std::string_view key, const T& value) {
    return Key(key).Value(value);
  }

 private:
  void Comma() {
    if (out_.size() == begin_) return;
    const char last = out_.back();
    if (last != '{' && last != '[' && last != ':') out_ += ',';
  }

  std::string& out_;
  const size_t begin_;  // what stands before is not ours
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_JSON_WRITER_H_
