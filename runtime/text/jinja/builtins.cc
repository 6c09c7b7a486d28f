#include "runtime/text/jinja/builtins.h"

#include <string.h>  // memmem

#include <algorithm>
#include <limits>
#include <string>

#include "runtime/text/jinja/code_points.h"

namespace qwen::text {
namespace {

using Flavor = Sequence::Flavor;

// --- Arguments -------------------------------------------------------------------------------------------------------

Value Error(Invocation& call, const std::string& why) {
  call.meter->Fail(why);
  return {};
}

/// A filter takes anything and converts it; a method has a string already.
Text SelfText(Invocation& call) {
  Text text = Str(call.self, call.meter);
  call.meter->Read(text->size());
  return text;
}

/// A string argument; null and an error when it is something else.
const MarkedText* TextArgument(Invocation& call, size_t i) {
  const MarkedText* text = call.Argument(i)->text();
  if (!text)
    call.meter->Fail("want a string as argument " + std::to_string(i + 1) + ", not a " +
                     std::string(TypeName(*call.Argument(i))));
  return text;
}

/// An integer argument, `fallback` when it is not given.
int64_t IntegerArgument(Invocation& call, size_t i, int64_t fallback) {
  const Value* value = call.Argument(i);
  if (!value) return fallback;
  if (!value->integer())
    call.meter->Fail("want an integer as argument " + std::to_string(i + 1) + ", not a " +
                     std::string(TypeName(*value)));
  return value->integer().value_or(fallback);
}

// --- Strings ---------------------------------------------------------------------------------------------------------

/// Bytes [begin, end) of `text`, which is shared when that is all of it.
Value Part(const Text& text, size_t begin, size_t end, Meter* meter) {
  if (begin == 0 && end == text->size()) return text;
  if (!meter->Build(end - begin + sizeof(MarkedText))) return {};
  MarkedText part;
  part.Append(*text, begin, end);
  return MakeText(std::move(part));
}

/// Where `part` is in text[begin, ...), or npos. Linear, unlike string::find.
size_t Find(std::string_view text, std::string_view part, size_t begin) {
  const void* at = memmem(text.data() + begin, text.size() - begin, part.data(), part.size());
  return at ? static_cast<const char*>(at) - text.data() : text.npos;
}

template <bool kLeft, bool kRight>
Value Strip(Invocation& call) {
  const Text self = SelfText(call);
  std::vector<char32_t> set;
  const bool spaces = !call.Argument(0) || call.Argument(0)->Is<None>();
  if (!spaces) {
    const MarkedText* chars = TextArgument(call, 0);
    if (!chars || !call.meter->Build(chars->size() * sizeof(char32_t))) return {};
    for (size_t at = 0; at < chars->size();) {
      const Utf8Unit unit = DecodeUtf8(chars->bytes(), at);
      set.push_back(unit.code_point);
      at += unit.length;
    }
    std::sort(set.begin(), set.end());
  }
  auto strippable = [&](char32_t c) { return spaces ? IsSpace(c) : std::binary_search(set.begin(), set.end(), c); };
  const std::string& bytes = self->bytes();
  size_t begin = 0, end = bytes.size();
  while (kLeft && begin < end) {
    const Utf8Unit unit = DecodeUtf8(bytes, begin);
    if (!strippable(unit.code_point)) break;
    begin += unit.length;
  }
  while (kRight && end > begin) {
    const size_t last = PreviousUtf8(bytes, end);
    if (!strippable(DecodeUtf8(bytes, last).code_point)) break;
    end = last;
  }
  return Part(self, begin, end, call.meter);
}

Value Split(Invocation& call) {
  const Text self = SelfText(call);
  int64_t left = IntegerArgument(call, 1, -1);
  if (left < 0) left = std::numeric_limits<int64_t>::max();
  const std::string& bytes = self->bytes();
  std::vector<Value> parts;
  auto room = [&] {
    return call.meter->AtMost("list items", static_cast<int64_t>(parts.size()) + 1, call.meter->limits().list_items);
  };
  size_t at = 0;
  if (!call.Argument(0) || call.Argument(0)->Is<None>()) {
    auto skip = [&](bool spaces) {
      while (at < bytes.size()) {
        const Utf8Unit unit = DecodeUtf8(bytes, at);
        if (IsSpace(unit.code_point) != spaces) break;
        at += unit.length;
      }
    };
    for (skip(true); at < bytes.size() && room(); skip(true)) {
      const size_t begin = at;
      left-- > 0 ? skip(false) : void(at = bytes.size());
      parts.push_back(Part(self, begin, at, call.meter));
    }
  } else {
    const MarkedText* separator = TextArgument(call, 0);
    if (!separator) return {};
    if (separator->size() == 0) return Error(call, "cannot split at an empty string");
    while (room()) {
      const size_t end = left-- > 0 ? Find(bytes, separator->bytes(), at) : bytes.npos;
      parts.push_back(Part(self, at, std::min(end, bytes.size()), call.meter));
      if (end == bytes.npos) break;
      at = end + separator->size();
    }
  }
  return MakeSequence(Flavor::kList, std::move(parts), call.meter);
}

Value Replace(Invocation& call) {
  const Text self = SelfText(call);
  const Text old = Str(*call.Argument(0), call.meter), fresh = Str(*call.Argument(1), call.meter);
  int64_t left = call.Argument(2) && call.Argument(2)->Is<None>() ? -1 : IntegerArgument(call, 2, -1);
  if (left < 0) left = std::numeric_limits<int64_t>::max();
  const std::string& bytes = self->bytes();
  MarkedText out;
  size_t at = 0, from = 0;  // copied so far; where the next match may begin
  for (; left > 0 && from <= bytes.size(); --left) {
    const size_t found = Find(bytes, old->bytes(), from);
    if (found == bytes.npos) break;
    if (!call.meter->Grow(out.size(), found - at + fresh->size())) return {};
    out.Append(*self, at, found);
    out.Append(*fresh);
    at = found + old->size();
    // An empty one stands before every character and at the end.
    from = old->size() > 0 ? at : at < bytes.size() ? at + DecodeUtf8(bytes, at).length : at + 1;
  }
  if (at == 0 && from == 0) return self;
  if (!call.meter->Grow(out.size(), bytes.size() - at)) return {};
  out.Append(*self, at, bytes.size());
  return MakeText(std::move(out));
}

enum class Case { kUpper, kLower, kTitle };

template <Case kCase>
Value ChangeCase(Invocation& call) {
  const Text self = SelfText(call);
  MarkedText out;
  if (!call.meter->Grow(0, self->size()) || !call.meter->Characters(self->size())) return {};
  bool in_word = false;
  for (size_t at = 0; at < self->size();) {
    const Utf8Unit unit = DecodeUtf8(self->bytes(), at);
    const char32_t c = unit.code_point, upper = ToUpper(c), lower = ToLower(c);
    const char32_t mapped = kCase == Case::kLower || (kCase == Case::kTitle && in_word) ? lower : upper;
    in_word = upper != c || lower != c;
    if (mapped == c) {
      out.Append(*self, at, at + unit.length);
    } else {
      // The letter takes its mark along.
      std::string letter;
      AppendUtf8(mapped, &letter);
      const auto& runs = self->runs();
      auto run = std::partition_point(runs.begin(), runs.end(), [&](const auto& r) { return r.end <= at; });
      out.Append(letter, run != runs.end() && run->begin <= at ? run->origin : Origin::kValue);
    }
    at += unit.length;
  }
  return MakeText(std::move(out));
}

template <bool kAtEnd>
Value StartsOrEndsWith(Invocation& call) {
  const Text self = SelfText(call);
  auto matches = [&](const Value& affix) {
    if (!affix.text()) return call.meter->Fail("want a string, not a " + std::string(TypeName(affix)));
    const std::string& bytes = affix.text()->bytes();
    return call.meter->Read(bytes.size()) &&
           (kAtEnd ? self->bytes().ends_with(bytes) : self->bytes().starts_with(bytes));
  };
  const Sequence* any = call.Argument(0)->sequence();
  if (!any || any->flavor != Flavor::kTuple) return matches(*call.Argument(0));
  return std::any_of(any->items.begin(), any->items.end(), matches);
}

Value Join(Invocation& call) {
  const auto items = Iterate(call.self, call.meter);
  MarkedText separator, out;
  if (!items || (call.Argument(0) && !AppendStr(*call.Argument(0), &separator, call.meter))) return {};
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0) {
      if (!call.meter->Grow(out.size(), separator.size())) return {};
      out.Append(separator);
    }
    if (!call.meter->Step() || !AppendStr(items->items[i], &out, call.meter)) return {};
  }
  return MakeText(std::move(out));
}

Value ToString(Invocation& call) { return Str(call.self, call.meter); }

Value ToJson(Invocation& call) {
  std::string json;
  AppendJson(call.self, &json, call.meter);
  return MakeText(std::move(json));
}

// --- Containers ------------------------------------------------------------------------------------------------------

Value DictView(Invocation& call, bool keys, bool values) {
  const Dict* dict = call.self.dict();
  if (!dict && !call.self.Is<Undefined>())
    return Error(call, "a " + std::string(TypeName(call.self)) + " has no items");
  std::vector<Value> items;
  for (size_t i = 0; dict && i < dict->members.size() && call.meter->ok(); ++i) {
    const auto& [key, value] = dict->members[i];
    items.push_back(keys && values ? MakeSequence(Flavor::kTuple, {key, value}, call.meter) : keys ? key : value);
  }
  return MakeSequence(Flavor::kView, std::move(items), call.meter);
}
Value Items(Invocation& call) { return DictView(call, true, true); }
Value Keys(Invocation& call) { return DictView(call, true, false); }
Value Values(Invocation& call) { return DictView(call, false, true); }

Value Get(Invocation& call) {
  const MarkedText* key = call.Argument(0)->text();
  if (const Value* value = key ? call.self.dict()->Find(key->bytes()) : nullptr) return *value;
  return call.Argument(1) ? *call.Argument(1) : Value(None{});
}

Value Default(Invocation& call) {
  const bool replace = call.self.Is<Undefined>() || (call.Argument(1) && Truth(*call.Argument(1)) && !Truth(call.self));
  if (!replace) return call.self;
  return call.Argument(0) ? *call.Argument(0) : MakeText(std::string());
}

template <bool kLast>
Value Edge(Invocation& call) {
  const auto items = Iterate(call.self, call.meter);
  if (!items || items->items.empty()) return Undefined{call.node};
  return kLast ? items->items.back() : items->items.front();
}

Value LengthOf(Invocation& call) { return Length(call.self, call.meter); }

Value List(Invocation& call) {
  const auto items = Iterate(call.self, call.meter);
  return items ? MakeSequence(Flavor::kList, items->items, call.meter) : Value();
}

// --- Functions -------------------------------------------------------------------------------------------------------

Value MakeNamespace(Invocation& call) {
  auto made = std::make_shared<Namespace>();
  made->attributes = std::move(*call.keywords);
  for (const auto& [name, value] : made->attributes)
    if (name.starts_with('_')) call.meter->Fail("a namespace has no attribute '" + std::string(name) + "'");
  call.namespaces->push_back(made);
  return made;
}

Value Range(Invocation& call) {
  const bool one = !call.Argument(1);
  const int64_t start = one ? 0 : IntegerArgument(call, 0, 0), stop = IntegerArgument(call, one ? 0 : 1, 0);
  const int64_t step = IntegerArgument(call, 2, 1);
  if (step == 0) return Error(call, "range with a step of 0");
  int64_t count = 0, distance = 0;
  if (step > 0 ? start < stop : start > stop) {
    if (__builtin_sub_overflow(stop, start, &distance)) distance = step > 0 ? INT64_MAX : -INT64_MAX;
    distance = std::max(distance, -INT64_MAX);  // so that -1 divides it
    count = distance / step + (distance % step != 0);
  }
  if (!call.meter->AtMost("items in a range", count, kMaxRange)) return {};
  std::vector<Value> items;
  items.reserve(count);
  for (int64_t i = 0; i < count; ++i) items.push_back(start + i * step);
  return MakeSequence(Flavor::kRange, std::move(items), call.meter);
}

Value RaiseException(Invocation& call) {
  call.meter->Raise(Str(*call.Argument(0), call.meter)->bytes());
  return {};
}

Value StrftimeNow(Invocation& call) {
  return Error(call, "strftime_now is off: a prompt must not depend on the clock");
}

// --- Tables ----------------------------------------------------------------------------------------------------------

constexpr uint8_t kFilter = Builtin::kFilter, kFunction = Builtin::kFunction, kText = Builtin::kTextMethod,
                  kDict = Builtin::kDictMethod;

constexpr Builtin kBuiltins[] = {
    {"default", kFilter, 0, {"default_value", "boolean"}, Default},
    {"d", kFilter, 0, {"default_value", "boolean"}, Default},
    {"first", kFilter, 0, {}, Edge<false>},
    {"join", kFilter, 0, {"d"}, Join},
    {"last", kFilter, 0, {}, Edge<true>},
    {"length", kFilter, 0, {}, LengthOf},
    {"count", kFilter, 0, {}, LengthOf},
    {"list", kFilter, 0, {}, List},
    {"safe", kFilter, 0, {}, ToString},  // nothing is escaped here
    {"string", kFilter, 0, {}, ToString},
    {"tojson", kFilter, 0, {}, ToJson},
    {"trim", kFilter, 0, {"chars"}, Strip<true, true>},
    {"items", kFilter | kDict, 0, {}, Items},
    {"get", kDict, 1, {"key", "default"}, Get},
    {"keys", kDict, 0, {}, Keys},
    {"values", kDict, 0, {}, Values},
    {"lower", kFilter | kText, 0, {}, ChangeCase<Case::kLower>},
    {"replace", kFilter | kText, 2, {"old", "new", "count"}, Replace},
    {"title", kText, 0, {}, ChangeCase<Case::kTitle>},
    {"upper", kFilter | kText, 0, {}, ChangeCase<Case::kUpper>},
    {"endswith", kText, 1, {"suffix"}, StartsOrEndsWith<true>},
    {"lstrip", kText, 0, {"chars"}, Strip<true, false>},
    {"rstrip", kText, 0, {"chars"}, Strip<false, true>},
    {"split", kText, 0, {"sep", "maxsplit"}, Split},
    {"startswith", kText, 1, {"prefix"}, StartsOrEndsWith<false>},
    {"strip", kText, 0, {"chars"}, Strip<true, true>},
    {"namespace", kFunction, 0, {"**"}, MakeNamespace},
    {"raise_exception", kFunction, 1, {"message"}, RaiseException},
    {"range", kFunction, 1, {"start", "stop", "step"}, Range},
    {"strftime_now", kFunction, 1, {"format"}, StrftimeNow},
};

struct Test {
  std::string_view name;
  bool (*holds)(const Value&);
};

constexpr Test kTests[] = {
    {"boolean", [](const Value& v) { return v.Is<bool>(); }},
    {"defined", [](const Value& v) { return !v.Is<Undefined>(); }},
    {"false", [](const Value& v) { return v.Is<bool>() && !Truth(v); }},
    {"float", [](const Value& v) { return v.Is<double>(); }},
    {"integer", [](const Value& v) { return v.Is<int64_t>(); }},
    {"iterable", [](const Value& v) { return v.sequence() || v.text() || v.dict() || v.loop() || v.Is<Undefined>(); }},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"none", [](const Value& v) { return v.Is<None>(); }},
    {"number", [](const Value& v) { return v.integer() || v.Is<double>(); }},
    // A view has a length but no index; an undefined value has both methods, and fails only when one is called.
    {"sequence",
     [](const Value& v) {
       return (v.sequence() && v.sequence()->flavor != Flavor::kView) || v.text() || v.dict() || v.Is<Undefined>();
     }},
    {"string", [](const Value& v) { return v.text() != nullptr; }},
    {"true", [](const Value& v) { return v.Is<bool>() && Truth(v); }},
    {"undefined", [](const Value& v) { return v.Is<Undefined>(); }},
};

}  // namespace

const Builtin* FindBuiltin(std::string_view name, Builtin::Use use) {
  const auto* row = std::find_if(std::begin(kBuiltins), std::end(kBuiltins),
                                 [&](const Builtin& b) { return b.name == name && (b.uses & use); });
  return row == std::end(kBuiltins) ? nullptr : row;
}

std::optional<uint32_t> FindFilter(std::string_view name) {
  const Builtin* row = FindBuiltin(name, Builtin::kFilter);
  if (!row) return std::nullopt;
  return static_cast<uint32_t>(row - kBuiltins);
}

const Builtin& FilterAt(uint32_t row) { return kBuiltins[row]; }

Value Invoke(const Builtin& builtin, CallArguments arguments, Invocation call) {
  auto fail = [&](const std::string& why) {
    call.meter->Fail(std::string(builtin.name) + ": " + why);
    return Value();
  };
  const bool any_keywords = builtin.parameters[0] == "**";
  const auto& names = builtin.parameters;
  const size_t most = any_keywords ? 0 : std::find(names.begin(), names.end(), "") - names.begin();
  if (arguments.positional.size() > most)
    return fail("has " + std::to_string(arguments.positional.size()) + " arguments, takes at most " +
                std::to_string(most));
  for (size_t i = 0; i < arguments.positional.size(); ++i) call.arguments[i] = std::move(arguments.positional[i]);
  if (any_keywords) {
    call.keywords = &arguments.keywords;
    return builtin.run(call);
  }
  for (auto& [name, value] : arguments.keywords) {
    const size_t i = std::find(names.begin(), names.begin() + most, name) - names.begin();
    if (i == most) return fail("has no parameter '" + std::string(name) + "'");
    if (call.arguments[i]) return fail("has two arguments '" + std::string(name) + "'");
    call.arguments[i] = std::move(value);
  }
  for (size_t i = 0; i < builtin.required; ++i)
    if (!call.arguments[i]) return fail("wants an argument '" + std::string(names[i]) + "'");
  return call.meter->ok() ? builtin.run(call) : Value();
}

std::optional<uint32_t> FindTest(std::string_view name) {
  const auto* row = std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& t) { return t.name == name; });
  if (row == std::end(kTests)) return std::nullopt;
  return static_cast<uint32_t>(row - kTests);
}

bool RunTest(uint32_t row, const Value& value) { return kTests[row].holds(value); }

}  // namespace qwen::text
