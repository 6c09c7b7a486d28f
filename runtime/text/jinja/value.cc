#include "runtime/text/jinja/value.h"

#include <string.h>  // memmem

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "runtime/text/jinja/code_points.h"

namespace qwen::text {
namespace {

using Flavor = Sequence::Flavor;

int64_t Nesting(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->nesting;
  if (const Dict* dict = value.dict()) return dict->nesting;
  if (const Loop* loop = value.loop()) return loop->items->nesting + 1;
  return 0;  // namespaces end every chain of owners: the evaluator holds each of them
}

bool IsNumber(const Value& value) { return value.integer() || value.Is<double>(); }

/// Long double holds every int64 and every double, so mixed numbers compare as exactly as Python's.
long double AsReal(const Value& value) {
  if (auto integer = value.integer()) return *integer;
  return *value.If<double>();
}

/// float.__repr__: the shortest digits that read back the same, in Python's choice of notation.
std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const char* end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const char* e = std::find(const_cast<const char*>(buffer), end, 'e');
  const int exponent = std::atoi(std::string(e + 1, end).c_str());
  std::string digits, sign;
  for (const char* c = buffer; c != e; ++c) {
    if (*c == '-') sign = "-";
    if (*c >= '0' && *c <= '9') digits += *c;
  }
  if (exponent < -4 || exponent >= 16) {
    const std::string power = std::to_string(std::abs(exponent));
    return sign + digits[0] + (digits.size() > 1 ? "." + digits.substr(1) : "") + (exponent < 0 ? "e-" : "e+") +
           (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) return sign + "0." + std::string(-exponent - 1, '0') + digits;
  const size_t whole = exponent + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

void AppendHex(char prefix, int width, char32_t value, std::string* out) {
  *out += '\\';
  *out += prefix;
  for (int shift = 4 * (width - 1); shift >= 0; shift -= 4) *out += "0123456789abcdef"[value >> shift & 15];
}

/// The letter of a short escape that repr and JSON share, or 0.
char ShortEscape(char32_t c) { return c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c == '\\' ? '\\' : 0; }

/// repr(text)
void AppendQuoted(std::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  *out += quote;
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, at);
    const char32_t c = unit.code_point;
    if (c == static_cast<char32_t>(quote)) {
      *out += '\\';
      *out += quote;
    } else if (char letter = ShortEscape(c)) {
      *out += '\\';
      *out += letter;
    } else if (IsPrintable(c)) {
      out->append(text, at, unit.length);
    } else if (c < 0x100) {
      AppendHex('x', 2, c, out);
    } else if (c < 0x10000) {
      AppendHex('u', 4, c, out);
    } else {
      AppendHex('U', 8, c, out);
    }
    at += unit.length;
  }
  *out += quote;
}

void AppendJsonString(std::string_view text, std::string* out) {
  *out += '"';
  for (char c : text) {
    if (char letter = c == '"' ? '"' : c == '\b' ? 'b' : c == '\f' ? 'f' : ShortEscape(c)) {
      *out += '\\';
      *out += letter;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      AppendHex('u', 4, c, out);
    } else {
      *out += c;
    }
  }
  *out += '"';
}

/// repr(value)
bool AppendRepr(const Value& value, std::string* out, Meter* meter) {
  if (!meter->Step()) return false;
  const size_t before = out->size();
  if (value.Is<Undefined>()) {
    *out += "Undefined";
  } else if (value.Is<None>()) {
    *out += "None";
  } else if (const bool* boolean = value.If<bool>()) {
    *out += *boolean ? "True" : "False";
  } else if (const int64_t* integer = value.If<int64_t>()) {
    *out += std::to_string(*integer);
  } else if (const double* real = value.If<double>()) {
    *out += FloatText(*real);
  } else if (const MarkedText* text = value.text()) {
    if (!meter->Grow(before, text->size())) return false;
    AppendQuoted(text->bytes(), out);
  } else if (const Sequence* sequence = value.sequence(); sequence && sequence->flavor <= Flavor::kTuple) {
    const bool tuple = sequence->flavor == Flavor::kTuple;
    *out += tuple ? '(' : '[';
    for (size_t i = 0; i < sequence->items.size(); ++i) {
      if (i > 0) *out += ", ";
      if (!AppendRepr(sequence->items[i], out, meter)) return false;
    }
    *out += !tuple ? "]" : sequence->items.size() == 1 ? ",)" : ")";
    return meter->ok();
  } else if (const Dict* dict = value.dict()) {
    *out += '{';
    for (size_t i = 0; i < dict->members.size(); ++i) {
      if (i > 0) *out += ", ";
      if (!AppendRepr(dict->members[i].first, out, meter)) return false;
      *out += ": ";
      if (!AppendRepr(dict->members[i].second, out, meter)) return false;
    }
    *out += '}';
    return meter->ok();
  } else {
    return meter->Fail("a " + std::string(TypeName(value)) + " cannot be printed");
  }
  return meter->Grow(before, out->size() - before);
}

}  // namespace

// --- Value -----------------------------------------------------------------------------------------------------------

std::optional<int64_t> Value::integer() const {
  if (const int64_t* integer = If<int64_t>()) return *integer;
  if (const bool* boolean = If<bool>()) return *boolean;
  return std::nullopt;
}

MarkedText* Value::Unshared() {
  Text* text = std::get_if<Text>(&storage_);
  // Every string is made by MakeText, none of them const; literals are also held by the program.
  return text && text->use_count() == 1 ? const_cast<MarkedText*>(text->get()) : nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  auto it = std::lower_bound(by_key.begin(), by_key.end(), key,
                             [&](uint32_t i, std::string_view k) { return members[i].first->bytes() < k; });
  return it != by_key.end() && members[*it].first->bytes() == key ? &members[*it].second : nullptr;
}

Value* Namespace::Find(std::string_view name) {
  for (auto& [attribute, value] : attributes)
    if (attribute == name) return &value;
  return nullptr;
}

// --- Making ----------------------------------------------------------------------------------------------------------

Value MakeText(MarkedText text) { return Text(std::make_shared<MarkedText>(std::move(text))); }
Value MakeText(std::string text) { return MakeText(MarkedText(std::move(text), Origin::kValue)); }

Value MakeSequence(Flavor flavor, std::vector<Value> items, Meter* meter) {
  const auto count = static_cast<int64_t>(items.size());
  if (!meter->AtMost("list items", count, meter->limits().list_items) || !meter->Step(count) ||
      !meter->Build(sizeof(Sequence) + items.size() * sizeof(Value)))
    return {};
  auto sequence = std::make_shared<Sequence>();
  sequence->flavor = flavor;
  for (const Value& item : items) sequence->nesting = std::max(sequence->nesting, Nesting(item) + 1);
  if (!meter->AtMost("levels of nesting", sequence->nesting, kMaxNesting)) return {};
  sequence->items = std::move(items);
  return std::shared_ptr<const Sequence>(std::move(sequence));
}

Value MakeDict(std::vector<std::pair<Text, Value>> members, Meter* meter) {
  if (!meter->Step(static_cast<int64_t>(members.size())) ||
      !meter->Build(sizeof(Dict) + members.size() * sizeof members[0]))
    return {};
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : members) dict->nesting = std::max(dict->nesting, Nesting(value) + 1);
  if (!meter->AtMost("levels of nesting", dict->nesting, kMaxNesting)) return {};
  dict->by_key.resize(members.size());
  for (uint32_t i = 0; i < members.size(); ++i) dict->by_key[i] = i;
  std::sort(dict->by_key.begin(), dict->by_key.end(),
            [&](uint32_t a, uint32_t b) { return members[a].first->bytes() < members[b].first->bytes(); });
  dict->members = std::move(members);
  return std::shared_ptr<const Dict>(std::move(dict));
}

Value FromJson(const Json& json, Meter* meter) {
  switch (json.kind()) {
    case Json::Kind::kNull:
      return None{};
    case Json::Kind::kBool:
      return json.AsBool();
    case Json::Kind::kInteger:
      return json.AsInteger();
    case Json::Kind::kNumber:
      return json.AsNumber();
    case Json::Kind::kString:
      return meter->Build(json.AsString().size()) ? MakeText(json.AsString()) : Value();
    case Json::Kind::kArray: {
      std::vector<Value> items;
      items.reserve(json.items().size());
      for (const Json& item : json.items()) items.push_back(FromJson(item, meter));
      return MakeSequence(Flavor::kList, std::move(items), meter);
    }
    case Json::Kind::kObject: {
      std::vector<std::pair<Text, Value>> members;
      members.reserve(json.members().size());
      for (const auto& [key, value] : json.members())
        members.emplace_back(std::make_shared<MarkedText>(key, Origin::kValue), FromJson(value, meter));
      return MakeDict(std::move(members), meter);
    }
  }
  return {};
}

// --- Reading ---------------------------------------------------------------------------------------------------------

std::string_view TypeName(const Value& value) {
  if (value.Is<Undefined>()) return "undefined value";
  if (value.Is<None>()) return "None";
  if (value.Is<bool>()) return "bool object";
  if (value.Is<int64_t>()) return "int object";
  if (value.Is<double>()) return "float object";
  if (value.text()) return "str object";
  if (value.dict()) return "dict object";
  if (value.as_namespace()) return "namespace object";
  if (value.loop()) return "loop object";
  if (value.callable()) return "function";
  switch (value.sequence()->flavor) {
    case Flavor::kList:
      return "list object";
    case Flavor::kTuple:
      return "tuple object";
    case Flavor::kRange:
      return "range object";
    case Flavor::kView:
      return "view object";
  }
  return "object";
}

bool Truth(const Value& value) {
  if (value.Is<Undefined>() || value.Is<None>()) return false;
  if (IsNumber(value)) return AsReal(value) != 0;
  if (const MarkedText* text = value.text()) return text->size() > 0;
  if (const Sequence* sequence = value.sequence()) return !sequence->items.empty();
  if (const Dict* dict = value.dict()) return !dict->members.empty();
  return true;
}

bool Equal(const Value& a, const Value& b, Meter* meter) {
  if (!meter->Step()) return false;
  if (IsNumber(a) && IsNumber(b)) return AsReal(a) == AsReal(b);
  if (const MarkedText *x = a.text(), *y = b.text(); x && y)
    return x->size() == y->size() && meter->Read(x->size()) && x->bytes() == y->bytes();
  if (const Sequence *x = a.sequence(), *y = b.sequence(); x && y) {
    if (x->flavor != y->flavor || x->items.size() != y->items.size()) return false;
    for (size_t i = 0; i < x->items.size(); ++i)
      if (!Equal(x->items[i], y->items[i], meter)) return false;
    return true;
  }
  if (const Dict *x = a.dict(), *y = b.dict(); x && y) {
    if (x->members.size() != y->members.size()) return false;
    for (const auto& [key, value] : x->members) {
      const Value* other = y->Find(key->bytes());
      if (!other || !Equal(value, *other, meter)) return false;
    }
    return true;
  }
  if (a.as_namespace()) return a.as_namespace() == b.as_namespace();
  if (a.loop()) return a.loop() == b.loop();
  if (const Callable *x = a.callable(), *y = b.callable(); x && y)
    return x->builtin == y->builtin && x->macro == y->macro;
  return (a.Is<None>() && b.Is<None>()) || (a.Is<Undefined>() && b.Is<Undefined>());
}

std::partial_ordering Order(const Value& a, const Value& b, Meter* meter) {
  if (!meter->Step()) return std::partial_ordering::unordered;
  if (IsNumber(a) && IsNumber(b)) return AsReal(a) <=> AsReal(b);
  if (const MarkedText *x = a.text(), *y = b.text(); x && y) {
    meter->Read(std::min(x->size(), y->size()));
    return x->bytes() <=> y->bytes();  // the order of UTF-8 is that of code points
  }
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (x && y && x->flavor == y->flavor && x->flavor <= Flavor::kTuple) {
    const size_t common = std::min(x->items.size(), y->items.size());
    for (size_t i = 0; i < common; ++i)
      if (!Equal(x->items[i], y->items[i], meter)) return Order(x->items[i], y->items[i], meter);
    return x->items.size() <=> y->items.size();
  }
  meter->Fail("a " + std::string(TypeName(a)) + " and a " + std::string(TypeName(b)) + " have no order");
  return std::partial_ordering::unordered;
}

bool Contains(const Value& container, const Value& item, Meter* meter) {
  if (const MarkedText* text = container.text()) {
    const MarkedText* part = item.text();
    if (!part) return meter->Fail("'in' a string wants a string, not a " + std::string(TypeName(item)));
    // memmem takes linear time whatever the two are; string::find does not.
    return meter->Read(text->size() + part->size()) &&
           memmem(text->bytes().data(), text->size(), part->bytes().data(), part->size());
  }
  if (const Dict* dict = container.dict()) {
    if (item.sequence() || item.dict()) return meter->Fail("a " + std::string(TypeName(item)) + " is not hashable");
    return item.text() && meter->Read(item.text()->size()) && dict->Find(item.text()->bytes());
  }
  const std::shared_ptr<const Sequence> items = Iterate(container, meter);
  if (!items) return false;
  return std::any_of(items->items.begin(), items->items.end(),
                     [&](const Value& other) { return Equal(item, other, meter); });
}

int64_t Length(const Value& value, Meter* meter) {
  if (const MarkedText* text = value.text())
    return meter->Read(text->size()) ? static_cast<int64_t>(CountCodePoints(text->bytes())) : 0;
  if (const Sequence* sequence = value.sequence()) return static_cast<int64_t>(sequence->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->members.size());
  if (const Loop* loop = value.loop()) return static_cast<int64_t>(loop->items->items.size());
  if (!value.Is<Undefined>()) meter->Fail("a " + std::string(TypeName(value)) + " has no length");
  return 0;
}

std::shared_ptr<const Sequence> Iterate(const Value& value, Meter* meter) {
  if (const auto* sequence = value.If<std::shared_ptr<const Sequence>>()) return *sequence;
  std::vector<Value> items;
  if (const MarkedText* text = value.text()) {
    if (!meter->AtMost("list items", Length(value, meter), meter->limits().list_items)) return nullptr;
    for (size_t at = 0; at < text->size();) {
      const size_t length = DecodeUtf8(text->bytes(), at).length;
      // Each item is a string of its own: far more memory than its byte or two.
      if (!meter->Build(sizeof(MarkedText) + sizeof(Value))) return nullptr;
      MarkedText item;
      item.Append(*text, at, at + length);
      items.push_back(MakeText(std::move(item)));
      at += length;
    }
  } else if (const Dict* dict = value.dict()) {
    for (const auto& [key, member] : dict->members) items.push_back(key);
  } else if (!value.Is<Undefined>()) {
    meter->Fail("a " + std::string(TypeName(value)) + " is not iterable");
    return nullptr;
  }
  const Value view = MakeSequence(Flavor::kView, std::move(items), meter);
  const auto* sequence = view.If<std::shared_ptr<const Sequence>>();
  return sequence ? *sequence : nullptr;
}

bool AppendStr(const Value& value, MarkedText* out, Meter* meter) {
  if (value.Is<Undefined>()) return meter->ok();
  if (const MarkedText* text = value.text()) {
    if (!meter->Grow(out->size(), text->size())) return false;
    out->Append(*text);
    return true;
  }
  std::string repr;
  if (!AppendRepr(value, &repr, meter) || !meter->Grow(out->size(), repr.size())) return false;
  out->Append(repr, Origin::kValue);
  return true;
}

Text Str(const Value& value, Meter* meter) {
  if (const Text* text = value.If<Text>()) return *text;
  MarkedText text;
  AppendStr(value, &text, meter);
  return std::make_shared<MarkedText>(std::move(text));
}

bool AppendJson(const Value& value, std::string* out, Meter* meter) {
  if (!meter->Step()) return false;
  const size_t before = out->size();
  if (value.Is<None>()) {
    *out += "null";
  } else if (const bool* boolean = value.If<bool>()) {
    *out += *boolean ? "true" : "false";
  } else if (const double* real = value.If<double>(); real && !std::isfinite(*real)) {
    *out += std::isnan(*real) ? "NaN" : *real < 0 ? "-Infinity" : "Infinity";
  } else if (IsNumber(value)) {
    return AppendRepr(value, out, meter);
  } else if (const MarkedText* text = value.text()) {
    if (!meter->Grow(before, text->size())) return false;
    AppendJsonString(text->bytes(), out);
  } else if (const Sequence* sequence = value.sequence(); sequence && sequence->flavor <= Flavor::kTuple) {
    *out += '[';
    for (size_t i = 0; i < sequence->items.size(); ++i) {
      if (i > 0) *out += ", ";
      if (!AppendJson(sequence->items[i], out, meter)) return false;
    }
    *out += ']';
    return meter->ok();
  } else if (const Dict* dict = value.dict()) {
    *out += '{';
    for (size_t i = 0; i < dict->members.size(); ++i) {
      if (i > 0) *out += ", ";
      if (!AppendJson(dict->members[i].first, out, meter)) return false;
      *out += ": ";
      if (!AppendJson(dict->members[i].second, out, meter)) return false;
    }
    *out += '}';
    return meter->ok();
  } else {
    return meter->Fail("a " + std::string(TypeName(value)) + " has no JSON");
  }
  return meter->Grow(before, out->size() - before);
}

}  // namespace qwen::text
