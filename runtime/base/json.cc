// nlohmann's SAX parser does the grammar, the UTF-8 and the numbers; the handler below builds our tree and counts as it
// goes. Its DOM is not used: it lets the last of two equal keys win and recurses as deep as the text tells it to.
#include "runtime/base/json.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <nlohmann/json.hpp>

namespace qwen {

struct Json::Object {
  std::vector<Member> members;
  std::vector<uint32_t> by_key;  // indices of members, sorted by key

  explicit Object(std::vector<Member> m) : members(std::move(m)) {
    by_key.resize(members.size());
    for (uint32_t i = 0; i < by_key.size(); ++i) by_key[i] = i;
    std::sort(by_key.begin(), by_key.end(),
              [&](uint32_t a, uint32_t b) { return members[a].first < members[b].first; });
  }

  /// A key that stands here more than once, or null.
  const std::string* Repeated() const {
    for (size_t i = 1; i < by_key.size(); ++i)
      if (members[by_key[i - 1]].first == members[by_key[i]].first) return &members[by_key[i]].first;
    return nullptr;
  }
};

Json::Json() = default;
Json::Json(bool value) : value_(value) {}
Json::Json(int64_t value) : value_(value) {}
Json::Json(double value) : value_(value) {}
Json::Json(std::string value) : value_(std::move(value)) {}
Json::Json(std::vector<Json> items) : value_(std::move(items)) {}
Json::Json(std::vector<Member> members) : value_(std::make_unique<Object>(std::move(members))) {
  assert(!std::get<std::unique_ptr<Object>>(value_)->Repeated());
}
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Json Json::Clone() const {
  switch (kind()) {
    case Kind::kNull:
      return Json();
    case Kind::kBool:
      return Json(AsBool());
    case Kind::kInteger:
      return Json(AsInteger());
    case Kind::kNumber:
      return Json(AsNumber());
    case Kind::kString:
      return Json(AsString());
    case Kind::kArray: {
      std::vector<Json> copies;
      for (const Json& item : items()) copies.push_back(item.Clone());
      return Json(std::move(copies));
    }
    case Kind::kObject: {
      std::vector<Member> copies;
      for (const Member& member : members()) copies.emplace_back(member.first, member.second.Clone());
      return Json(std::move(copies));
    }
  }
  return Json();
}

Json::Kind Json::kind() const { return static_cast<Kind>(value_.index()); }

bool Json::AsBool() const { return std::get<bool>(value_); }
int64_t Json::AsInteger() const { return std::get<int64_t>(value_); }
double Json::AsNumber() const {
  if (const auto* integer = std::get_if<int64_t>(&value_)) return static_cast<double>(*integer);
  return std::get<double>(value_);
}
const std::string& Json::AsString() const { return std::get<std::string>(value_); }
const std::vector<Json>& Json::items() const { return std::get<std::vector<Json>>(value_); }
const std::vector<Json::Member>& Json::members() const { return std::get<std::unique_ptr<Object>>(value_)->members; }

const Json* Json::Find(std::string_view key) const {
  const auto* object = std::get_if<std::unique_ptr<Object>>(&value_);
  if (!object) return nullptr;
  const Object& o = **object;
  auto it = std::lower_bound(o.by_key.begin(), o.by_key.end(), key,
                             [&](uint32_t i, std::string_view k) { return o.members[i].first < k; });
  if (it == o.by_key.end() || o.members[*it].first != key) return nullptr;
  return &o.members[*it].second;
}

const char* Json::KindName() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInteger:
      return "an integer";
    case Kind::kNumber:
      return "a number with a fraction or an exponent";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "nothing";
}

namespace {

using Parser = nlohmann::json;

/// Builds the tree on an explicit stack. Every callback returns false to stop; error_ then says why.
class Builder {
 public:
  using number_integer_t = Parser::number_integer_t;
  using number_unsigned_t = Parser::number_unsigned_t;
  using number_float_t = Parser::number_float_t;
  using string_t = Parser::string_t;
  using binary_t = Parser::binary_t;

  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return Add(Json()); }
  bool boolean(bool v) { return Add(Json(v)); }
  bool number_integer(number_integer_t v) { return Add(Json(int64_t{v})); }
  bool number_unsigned(number_unsigned_t v) {
    if (v <= static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) return Add(Json(int64_t(v)));
    return Add(Json(static_cast<double>(v)));
  }
  bool number_float(number_float_t v, const string_t&) { return Add(Json(double{v})); }
  bool string(string_t& v) { return Add(Json(std::move(v))); }
  bool binary(binary_t&) { return Fail("binary values are not JSON"); }
  bool start_object(size_t) { return Open(true); }
  bool start_array(size_t) { return Open(false); }
  bool key(string_t& k) {
    stack_.back().key = std::move(k);
    return true;
  }
  bool end_object() {
    std::vector<Json::Member>& members = stack_.back().members;
    // Sorting at the end finds repeats in n log n whatever the keys; a hash could be made to collide.
    std::vector<Json::Member*> by_key;
    by_key.reserve(members.size());
    for (Json::Member& m : members) by_key.push_back(&m);
    std::sort(by_key.begin(), by_key.end(), [](const Json::Member* a, const Json::Member* b) {
      return a->first != b->first ? a->first < b->first : a < b;
    });
    auto same = [](const Json::Member* a, const Json::Member* b) { return a->first == b->first; };
    auto repeat = std::adjacent_find(by_key.begin(), by_key.end(), same);
    if (repeat != by_key.end()) {
      if (!limits_.last_key_wins) {
        stack_.back().key = (*repeat)->first;
        return Fail("stands twice in its object");
      }
      std::vector<bool> dead(members.size());
      for (Json::Member* first = nullptr; Json::Member* m : by_key) {
        if (!first || !same(first, m)) {
          first = m;
          continue;
        }
        first->second = std::move(m->second);
        dead[static_cast<size_t>(m - members.data())] = true;
      }
      size_t kept = 0;
      for (size_t i = 0; i < members.size(); ++i) {
        if (dead[i]) continue;
        if (kept != i) members[kept] = std::move(members[i]);
        ++kept;
      }
      members.resize(kept);
    }
    Json value(std::move(stack_.back().members));
    stack_.pop_back();
    return Place(std::move(value));
  }
  bool end_array() {
    Json value(std::move(stack_.back().items));
    stack_.pop_back();
    return Place(std::move(value));
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing value - ..."
    std::string why = e.what();
    if (size_t at = why.find("] "); at != std::string::npos) why.erase(0, at + 2);
    if (size_t at = why.find(": "); at != std::string::npos && why.rfind("parse error at", 0) == 0)
      why.erase(0, at + 2);
    if (size_t at = why.find("; last read"); at != std::string::npos) why.resize(at);
    std::string quoted = JsonQuote(why.substr(0, 160));
    error_ = "byte " + std::to_string(position) + ": " + quoted.substr(1, quoted.size() - 2);
    return false;
  }

  const std::string& error() const { return error_; }
  JsonFault fault() const { return fault_; }
  Json Take() { return std::move(root_); }

 private:
  struct Open_ {
    bool object;
    std::string key;  // of the member being read
    std::vector<Json::Member> members;
    std::vector<Json> items;
  };

  bool Open(bool object) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth)
      return Beyond("nests deeper than " + std::to_string(limits_.max_depth) + " levels");
    if (!Count()) return false;
    stack_.push_back({object, {}, {}, {}});
    return true;
  }
  bool Add(Json value) { return Count() && Place(std::move(value)); }
  bool Count() {
    if (++values_ > limits_.max_values)
      return Beyond("is beyond the limit of " + std::to_string(limits_.max_values) + " values");
    return true;
  }
  bool Place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (Open_& top = stack_.back(); top.object) {
      top.members.emplace_back(std::move(top.key), std::move(value));
    } else {
      top.items.push_back(std::move(value));
    }
    return true;
  }
  bool Beyond(std::string why) {
    fault_ = JsonFault::kLimit;
    return Fail(std::move(why));
  }
  bool Fail(std::string why) {
    std::string pointer;
    for (const Open_& level : stack_)
      pointer = JsonPointer(pointer, level.object ? level.key : std::to_string(level.items.size()));
    if (pointer.size() > 512) pointer = "..." + pointer.substr(pointer.size() - 512);
    error_ = (pointer.empty() ? "/" : pointer) + ": " + std::move(why);
    return false;
  }

  JsonLimits limits_;
  size_t values_ = 0;
  std::vector<Open_> stack_;
  Json root_;
  std::string error_;
  JsonFault fault_ = JsonFault::kText;
};

void AppendEscaped(std::string* out, unsigned char c) {
  static const char kHex[] = "0123456789abcdef";
  *out += "\\u00";
  *out += kHex[c >> 4];
  *out += kHex[c & 15];
}

/// Length of the valid UTF-8 sequence at `text[i]`, 0 when there is none (RFC 3629: no overlong forms, no surrogates).
size_t Utf8Length(std::string_view text, size_t i) {
  auto byte = [&](size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
  auto tail = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const unsigned b = byte(0);
  if (b < 0x80) return 1;
  if (b >= 0xC2 && b <= 0xDF) return tail(1) ? 2 : 0;
  if (b >= 0xE0 && b <= 0xEF) {
    if (!tail(1) || !tail(2) || (b == 0xE0 && byte(1) < 0xA0) || (b == 0xED && byte(1) > 0x9F)) return 0;
    return 3;
  }
  if (b >= 0xF0 && b <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3) || (b == 0xF0 && byte(1) < 0x90) || (b == 0xF4 && byte(1) > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

StatusOr<Json> ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits, JsonFault* fault) {
  if (fault) *fault = JsonFault::kLimit;
  if (text.size() > limits.max_bytes)
    return DataLossError(where + ": is " + std::to_string(text.size()) + " bytes of JSON, the limit is " +
                         std::to_string(limits.max_bytes));
  Builder builder(limits);
  const bool parsed = Parser::sax_parse(text.begin(), text.end(), &builder);
  if (fault) *fault = builder.fault();
  if (!parsed)
    // A pointer follows its file without a blank (config.json:/text_config), a byte offset as any other reason.
    return DataLossError(where + (builder.error()[0] == '/' ? ":" : ": ") + builder.error());
  return builder.Take();
}

std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = Utf8Length(text, i);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      ++i;
    } else if (length > 1) {
      // U+0080 ... U+009F are control characters too: a terminal may obey them.
      if (c == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
        AppendEscaped(&out, static_cast<unsigned char>(text[i + 1]));
      } else {
        out.append(text, i, length);
      }
      i += length;
    } else {
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        default:
          if (c < 0x20 || c == 0x7F) {
            AppendEscaped(&out, c);
          } else {
            out += static_cast<char>(c);
          }
      }
      ++i;
    }
  }
  out += '"';
  return out;
}

std::string JsonPointer(std::string_view pointer, std::string_view key) {
  std::string out(pointer);
  out += '/';
  for (char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      AppendEscaped(&out, static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace qwen
