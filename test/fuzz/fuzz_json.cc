// Any bytes at the JSON door, in both ways of treating equal keys: refused with a message fit to print, or a value
// whose copy is equal and whose keys differ. What one way takes without a repeat, the other takes too.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "runtime/base/json.h"

namespace {

using qwen::Json;

bool Same(const Json& a, const Json& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Json::Kind::kNull:
      return true;
    case Json::Kind::kBool:
      return a.AsBool() == b.AsBool();
    case Json::Kind::kInteger:
      return a.AsInteger() == b.AsInteger();
    case Json::Kind::kNumber:
      return a.AsNumber() == b.AsNumber();
    case Json::Kind::kString:
      return a.AsString() == b.AsString();
    case Json::Kind::kArray:
      if (a.items().size() != b.items().size()) return false;
      for (size_t i = 0; i < a.items().size(); ++i)
        if (!Same(a.items()[i], b.items()[i])) return false;
      return true;
    case Json::Kind::kObject: {
      if (a.members().size() != b.members().size()) return false;
      std::set<std::string_view> keys;
      for (size_t i = 0; i < a.members().size(); ++i) {
        const auto& [key, value] = a.members()[i];
        if (!keys.insert(key).second || a.Find(key) != &value) return false;
        if (key != b.members()[i].first || !Same(value, b.members()[i].second)) return false;
      }
      return true;
    }
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const qwen::JsonLimits limits{.max_bytes = 1 << 16, .max_values = 5000, .max_depth = 32};
  qwen::JsonLimits last = limits;
  last.last_key_wins = true;
  qwen::JsonFault fault{};
  const auto strict = qwen::ParseJson(text, "fuzz", limits), lenient = qwen::ParseJson(text, "fuzz", last, &fault);
  if (strict.ok() && (!lenient.ok() || !Same(*strict, *lenient))) abort();
  if (lenient.ok() && !Same(*lenient, lenient->Clone())) abort();
  for (const auto* result : {&strict, &lenient})
    if (!result->ok())
      for (unsigned char c : result->status().message())
        if (c < 0x20 || c == 0x7F) abort();
  return 0;
}
