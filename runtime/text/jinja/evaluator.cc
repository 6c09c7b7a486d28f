// Walks the tree. Variables follow Jinja2: a for body and a macro have a scope of their own, each turn of a loop a
// fresh one, an if has none; a name is looked up outwards, then at the top of the template, then in the context. Macros
// stand at the top, so a macro's scope leads straight there and not into its caller's.
#include "runtime/text/jinja/evaluator.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "runtime/text/jinja/builtins.h"
#include "runtime/text/jinja/code_points.h"

namespace qwen::text {
namespace {

using Flavor = Sequence::Flavor;

struct Scope {
  const Scope* outer;  // null: the top of the template
  std::vector<std::pair<uint32_t, Value>> variables;

  void Set(uint32_t name, Value value) {
    for (auto& [known, old] : variables) {
      if (known != name) continue;
      old = std::move(value);
      return;
    }
    variables.emplace_back(name, std::move(value));
  }
};

constexpr std::pair<std::string_view, Value (*)(const Loop&)> kLoopAttributes[] = {
    {"index", [](const Loop& l) -> Value { return static_cast<int64_t>(l.index + 1); }},
    {"index0", [](const Loop& l) -> Value { return static_cast<int64_t>(l.index); }},
    {"first", [](const Loop& l) -> Value { return l.index == 0; }},
    {"last", [](const Loop& l) -> Value { return l.index + 1 == l.items->items.size(); }},
    {"length", [](const Loop& l) -> Value { return static_cast<int64_t>(l.items->items.size()); }},
    {"revindex", [](const Loop& l) -> Value { return static_cast<int64_t>(l.items->items.size() - l.index); }},
    {"revindex0", [](const Loop& l) -> Value { return static_cast<int64_t>(l.items->items.size() - l.index - 1); }},
    {"previtem", [](const Loop& l) { return l.index > 0 ? l.items->items[l.index - 1] : Value(); }},
    {"nextitem",
     [](const Loop& l) { return l.index + 1 < l.items->items.size() ? l.items->items[l.index + 1] : Value(); }},
};

constexpr std::string_view kOperatorText[] = {"+", "-", "*", "/", "//", "%"};

class Evaluator {
 public:
  Evaluator(const Program& program, const Context& context, Meter* meter)
      : program_(program),
        meter_(meter),
        loop_name_(std::find(program.names.begin(), program.names.end(), "loop") - program.names.begin()) {
    top_.reserve(program.names.size());
    for (const std::string& name : program.names) {
      auto it = std::find_if(context.begin(), context.end(), [&](const auto& v) { return v.first == name; });
      top_.push_back(it != context.end() ? it->second : Bind(FindBuiltin(name, Builtin::kFunction), {}));
    }
  }

  ~Evaluator() {
    for (const auto& made : namespaces_) made->attributes.clear();
  }

  MarkedText Run() {
    MarkedText out;
    out_ = &out;
    Exec(program_.root);
    return out;
  }

 private:
  /// Bounds the stack, and counts the step.
  class Enter {
   public:
    Enter(Evaluator* e, const Node& node) : e_(e) {
      ++e->depth_;
      e->meter_->set_line(node.line);
      ok_ = e->meter_->Step() && e->meter_->AtMost("nested evaluations", e->depth_, kMaxEvaluations);
    }
    ~Enter() { --e_->depth_; }
    bool ok() const { return ok_; }

   private:
    Evaluator* const e_;
    bool ok_;
  };

  const Node& At(uint32_t id) const { return program_.nodes[id]; }
  std::span<const uint32_t> Children(const Node& node) const { return program_.ChildrenOf(node); }
  bool IsAbsent(uint32_t id) const { return At(id).kind == NodeKind::kAbsent; }
  const std::string& Name(uint32_t name) const { return program_.names[name]; }
  Value Fail(const std::string& why) {
    meter_->Fail(why);
    return {};
  }

  // --- Variables ---

  const Value& Variable(uint32_t name) const {
    for (const Scope* scope = scope_; scope; scope = scope->outer)
      for (const auto& [known, value] : scope->variables)
        if (known == name) return value;
    return top_[name];
  }
  void SetVariable(uint32_t name, Value value) {
    if (scope_) {
      scope_->Set(name, std::move(value));
    } else {
      top_[name] = std::move(value);
    }
  }

  void Assign(uint32_t id, Value value) {
    const Node& target = At(id);
    switch (target.kind) {
      case NodeKind::kTargetName:
        return SetVariable(target.index, std::move(value));
      case NodeKind::kTargetAttr: {
        Namespace* space = Variable(target.index).as_namespace();
        const std::string& name = Name(target.detail);
        if (!space) {
          meter_->Fail("'" + Name(target.index) + "' is no namespace, so its attributes cannot be set");
        } else if (name.starts_with('_')) {
          meter_->Fail("a namespace has no attribute '" + name + "'");
        } else if (Value* old = space->Find(name)) {
          *old = std::move(value);
        } else {
          space->attributes.emplace_back(name, std::move(value));
        }
        return;
      }
      default: {
        const auto items = Iterate(value, meter_);
        if (!items) return;
        const auto parts = Children(target);
        if (items->items.size() != parts.size()) {
          meter_->Fail(std::to_string(items->items.size()) + " values for " + std::to_string(parts.size()) +
                       " variables");
          return;
        }
        for (size_t i = 0; i < parts.size(); ++i) Assign(parts[i], items->items[i]);
      }
    }
  }

  // --- Statements ---

  void Exec(uint32_t id) {
    const Node& node = At(id);
    const Enter enter(this, node);
    if (!enter.ok()) return;
    const auto children = Children(node);
    switch (node.kind) {
      case NodeKind::kBody:
        for (uint32_t child : children)
          if (meter_->ok()) Exec(child);
        return;
      case NodeKind::kText:
        Print(program_.constants[node.index]);
        return;
      case NodeKind::kOutput:
        Print(Eval(children[0]));
        return;
      case NodeKind::kIf:
        for (size_t i = 0; i + 1 < children.size(); i += 2)
          if (Truth(Eval(children[i]))) return Exec(children[i + 1]);
        if (children.size() % 2 == 1) Exec(children.back());
        return;
      case NodeKind::kFor:
        return ExecFor(children);
      case NodeKind::kSet:
        return Assign(children[0], Eval(children[1]));
      case NodeKind::kMacro:
        return SetVariable(node.index, std::make_shared<const Callable>(Callable{.macro = id}));
      default:
        return;
    }
  }

  void Print(const Value& value) {
    if (meter_->ok()) AppendStr(value, out_, meter_);
  }

  void ExecFor(std::span<const uint32_t> parts) {
    const uint32_t target = parts[0], body = parts[2], condition = parts[3], otherwise = parts[4];
    auto items = Iterate(Eval(parts[1]), meter_);
    if (!items || !meter_->ok()) return;
    Scope scope{scope_, {}};
    Scope* const outer = scope_;
    if (!IsAbsent(condition)) {
      std::vector<Value> chosen;
      scope_ = &scope;
      for (const Value& item : items->items) {
        scope.variables.clear();
        Assign(target, item);
        if (Truth(Eval(condition))) chosen.push_back(item);
        if (!meter_->ok()) break;
      }
      scope_ = outer;
      const Value filtered = MakeSequence(Flavor::kView, std::move(chosen), meter_);
      if (!meter_->ok()) return;
      items = *filtered.If<std::shared_ptr<const Sequence>>();
    }
    if (items->items.empty()) {
      if (!IsAbsent(otherwise)) Exec(otherwise);
      return;
    }
    const auto loop = std::make_shared<Loop>(Loop{items, 0});
    scope_ = &scope;
    for (; loop->index < items->items.size() && meter_->ok(); ++loop->index) {
      scope.variables.clear();
      if (loop_name_ < program_.names.size()) scope.Set(loop_name_, loop);
      Assign(target, items->items[loop->index]);
      Exec(body);
    }
    scope_ = outer;
  }

  // --- Expressions ---

  Value Eval(uint32_t id) {
    const Node& node = At(id);
    const Enter enter(this, node);
    if (!enter.ok()) return {};
    const auto children = Children(node);
    switch (node.kind) {
      case NodeKind::kConst:
        return program_.constants[node.index];
      case NodeKind::kName: {
        const Value& value = Variable(node.index);
        return value.Is<Undefined>() ? Undefined{id} : value;
      }
      case NodeKind::kList:
        return MakeSequence(Flavor::kList, EvalAll(children), meter_);
      case NodeKind::kTuple:
        return MakeSequence(Flavor::kTuple, EvalAll(children), meter_);
      case NodeKind::kGetAttr:
        return GetAttr(id, Eval(children[0]), Name(node.index));
      case NodeKind::kGetItem: {
        const Value object = Eval(children[0]);
        return GetItem(id, object, Eval(children[1]));
      }
      case NodeKind::kSlice:
        return Slice(children);
      case NodeKind::kCall:
        return Call(id, children);
      case NodeKind::kFilter: {
        Value self = Eval(children[0]);
        return Invoke(FilterAt(node.index), EvalArguments(children.subspan(1)), NewInvocation(id, std::move(self)));
      }
      case NodeKind::kTest:
        return RunTest(node.index, Eval(children[0])) != (node.detail != 0);
      case NodeKind::kCondition:
        if (Truth(Eval(children[1]))) return Eval(children[0]);
        return IsAbsent(children[2]) ? Undefined{id} : Eval(children[2]);
      case NodeKind::kAnd:
      case NodeKind::kOr: {
        Value value;
        for (uint32_t child : children) {
          value = Eval(child);
          if (Truth(value) == (node.kind == NodeKind::kOr)) break;
        }
        return value;
      }
      case NodeKind::kNot:
        return !Truth(Eval(children[0]));
      case NodeKind::kNegate:
      case NodeKind::kPlus:
        return Sign(Eval(children[0]), node.kind == NodeKind::kNegate);
      case NodeKind::kCompare:
        return Compare(children);
      case NodeKind::kArithmetic: {
        Value value = Eval(children[0]);
        for (uint32_t operand : children.subspan(1))
          value =
              Arithmetic(static_cast<Operator>(At(operand).detail), std::move(value), Eval(Children(At(operand))[0]));
        return value;
      }
      case NodeKind::kConcat: {
        MarkedText text;
        for (uint32_t child : children) AppendStr(Eval(child), &text, meter_);
        return MakeText(std::move(text));
      }
      default:
        return {};
    }
  }

  std::vector<Value> EvalAll(std::span<const uint32_t> ids) {
    std::vector<Value> values;
    values.reserve(ids.size());
    for (uint32_t id : ids) values.push_back(Eval(id));
    return values;
  }

  CallArguments EvalArguments(std::span<const uint32_t> ids) {
    CallArguments arguments;
    for (uint32_t id : ids) {
      if (const Node& node = At(id); node.kind == NodeKind::kKeyword) {
        arguments.keywords.emplace_back(Name(node.index), Eval(Children(node)[0]));
      } else {
        arguments.positional.push_back(Eval(id));
      }
    }
    return arguments;
  }

  Invocation NewInvocation(uint32_t node, Value self) {
    return {.meter = meter_, .node = node, .self = std::move(self), .namespaces = &namespaces_};
  }

  /// A function, or a method of `self`; undefined when there is none.
  static Value Bind(const Builtin* builtin, Value self) {
    if (!builtin) return {};
    return std::make_shared<const Callable>(Callable{.builtin = builtin, .self = std::move(self)});
  }

  /// Why an undefined value is one.
  Value FailUndefined(const Undefined& undefined) {
    if (undefined.node == Undefined::kNoNode) return Fail("an undefined value is used");
    const Node& node = At(undefined.node);
    switch (node.kind) {
      case NodeKind::kName:
      case NodeKind::kParameter:
        return Fail("'" + Name(node.index) + "' is undefined");
      case NodeKind::kGetAttr:
        return Fail("there is no attribute '" + Name(node.index) + "'");
      case NodeKind::kGetItem:
        return Fail("there is no such item");
      case NodeKind::kFilter:
        return Fail("there is no " + std::string(FilterAt(node.index).name) + " item");
      default:
        return Fail("the expression has no value");
    }
  }
  /// Why `a op b` is nothing.
  Value FailOperands(std::string_view op, const Value& a, const Value& b) {
    for (const Value* value : {&a, &b})
      if (const Undefined* undefined = value->If<Undefined>()) return FailUndefined(*undefined);
    return Fail("'" + std::string(op) + "' does not take a " + std::string(TypeName(a)) + " and a " +
                std::string(TypeName(b)));
  }

  /// `object.name`: a method hides a key of the same name, as in Python.
  Value GetAttr(uint32_t id, const Value& object, std::string_view name) {
    if (const Undefined* undefined = object.If<Undefined>()) return FailUndefined(*undefined);
    Value found;
    if (object.text()) {
      found = Bind(FindBuiltin(name, Builtin::kTextMethod), object);
    } else if (const Dict* dict = object.dict()) {
      const Builtin* method = FindBuiltin(name, Builtin::kDictMethod);
      const Value* member = method ? nullptr : dict->Find(name);
      found = method ? Bind(method, object) : member ? *member : Value();
    } else if (Namespace* space = object.as_namespace()) {
      if (const Value* attribute = space->Find(name)) found = *attribute;
    } else if (const Loop* loop = object.loop()) {
      const auto* row = std::find_if(std::begin(kLoopAttributes), std::end(kLoopAttributes),
                                     [&](const auto& attribute) { return attribute.first == name; });
      if (row != std::end(kLoopAttributes)) found = row->second(*loop);
    }
    return found.Is<Undefined>() ? Undefined{id} : found;
  }

  /// `object[key]`: an item, else the attribute of that name.
  Value GetItem(uint32_t id, const Value& object, const Value& key) {
    if (const Undefined* undefined = object.If<Undefined>()) return FailUndefined(*undefined);
    if (const MarkedText* name = key.text()) {
      const Dict* dict = object.dict();
      const Value* member = dict ? dict->Find(name->bytes()) : nullptr;
      return member ? *member : GetAttr(id, object, name->bytes());
    }
    const Sequence* sequence = object.sequence();
    const bool indexed = object.text() || (sequence && sequence->flavor != Flavor::kView);
    if (!indexed || !key.integer()) return Undefined{id};
    const int64_t length = Length(object, meter_);
    const int64_t index = *key.integer() + (*key.integer() < 0 ? length : 0);
    if (index < 0 || index >= length) return Undefined{id};
    return sequence ? sequence->items[index] : Characters(*object.text(), index, 1, 1);
  }

  /// Characters start, start + step, ... of `text`, `count` of them, all inside.
  Value Characters(const MarkedText& text, int64_t start, int64_t step, int64_t count) {
    const std::string& bytes = text.bytes();
    const bool ascii = IsAscii(bytes);
    MarkedText out;
    if (!meter_->Read(bytes.size())) return {};
    auto skip = [&](size_t at, int64_t characters) {
      if (ascii) return at + characters;
      for (; characters > 0; --characters) at += DecodeUtf8(bytes, at).length;
      return at;
    };
    if (step == 1) {
      const size_t begin = skip(0, start), end = skip(begin, count);
      if (!meter_->Build(end - begin)) return {};
      out.Append(text, begin, end);
      return MakeText(std::move(out));
    }
    std::vector<uint32_t> begins;  // of every character, and the end
    if (!meter_->Build(bytes.size() * sizeof begins[0]) || !meter_->Characters(bytes.size())) return {};
    for (size_t at = 0; at < bytes.size(); at = skip(at, 1)) begins.push_back(static_cast<uint32_t>(at));
    begins.push_back(static_cast<uint32_t>(bytes.size()));
    for (int64_t i = 0; i < count; ++i) out.Append(text, begins[start + i * step], begins[start + i * step + 1]);
    return MakeText(std::move(out));
  }

  Value Slice(std::span<const uint32_t> parts) {
    const Value object = Eval(parts[0]);
    if (const Undefined* undefined = object.If<Undefined>()) return FailUndefined(*undefined);
    std::optional<int64_t> bounds[3];  // start, stop, step
    for (int i = 0; i < 3; ++i) {
      if (IsAbsent(parts[i + 1])) continue;
      const Value bound = Eval(parts[i + 1]);
      bounds[i] = bound.integer();
      if (!bounds[i] && !bound.Is<None>()) return Fail("a slice wants integers, not a " + std::string(TypeName(bound)));
    }
    const Sequence* sequence = object.sequence();
    if (!object.text() && (!sequence || sequence->flavor == Flavor::kView))
      return Fail("a " + std::string(TypeName(object)) + " has no slices");
    // As CPython's PySlice_AdjustIndices.
    const int64_t length = Length(object, meter_), step = bounds[2].value_or(1);
    if (step == 0) return Fail("a slice with a step of 0");
    auto clamp = [&](std::optional<int64_t> bound, int64_t absent) {
      if (!bound) return absent;
      const int64_t from_start = *bound < 0 ? std::max(*bound, -length - 1) + length : *bound;
      return std::clamp<int64_t>(from_start, step < 0 ? -1 : 0, step < 0 ? length - 1 : length);
    };
    const int64_t start = clamp(bounds[0], step < 0 ? length - 1 : 0), stop = clamp(bounds[1], step < 0 ? -1 : length);
    const int64_t distance = step < 0 ? start - stop : stop - start;
    const int64_t stride = step < 0 ? (step == INT64_MIN ? INT64_MAX : -step) : step;
    const int64_t count = distance <= 0 ? 0 : (distance - 1) / stride + 1;
    if (!sequence) return count == 0 ? MakeText(std::string()) : Characters(*object.text(), start, step, count);
    std::vector<Value> items;
    if (!meter_->Step(count)) return {};
    for (int64_t i = 0; i < count; ++i) items.push_back(sequence->items[start + i * step]);
    return MakeSequence(sequence->flavor, std::move(items), meter_);
  }

  // --- Calls ---

  Value Call(uint32_t id, std::span<const uint32_t> parts) {
    const Value callee = Eval(parts[0]);
    if (!meter_->ok()) return {};
    if (const Undefined* undefined = callee.If<Undefined>()) return FailUndefined(*undefined);
    const Callable* callable = callee.callable();
    if (!callable) return Fail("a " + std::string(TypeName(callee)) + " cannot be called");
    CallArguments arguments = EvalArguments(parts.subspan(1));
    if (!meter_->ok()) return {};
    meter_->set_line(At(id).line);
    if (callable->builtin) return Invoke(*callable->builtin, std::move(arguments), NewInvocation(id, callable->self));
    return CallMacro(At(callable->macro), std::move(arguments));
  }

  Value CallMacro(const Node& macro, CallArguments arguments) {
    const auto parameters = Children(macro).subspan(1);
    const std::string& name = Name(macro.index);
    if (arguments.positional.size() > parameters.size())
      return Fail(name + ": has " + std::to_string(arguments.positional.size()) + " arguments, takes at most " +
                  std::to_string(parameters.size()));
    if (!meter_->AtMost("macro calls inside each other", ++macros_, meter_->limits().recursion)) return {};
    Scope scope{nullptr, {}};
    Scope* const caller_scope = scope_;
    MarkedText out, *const caller_out = out_;
    scope_ = &scope;
    out_ = &out;
    // Defaults are computed inside, each seeing the parameters before it.
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Node& parameter = At(parameters[i]);
      auto keyword = std::find_if(arguments.keywords.begin(), arguments.keywords.end(),
                                  [&](const auto& k) { return k.first == Name(parameter.index); });
      Value value;
      if (i < arguments.positional.size()) {
        if (keyword != arguments.keywords.end())
          meter_->Fail(name + ": has two arguments '" + std::string(keyword->first) + "'");
        value = std::move(arguments.positional[i]);
      } else if (keyword != arguments.keywords.end()) {
        value = std::move(keyword->second);
      } else if (parameter.count > 0) {
        value = Eval(Children(parameter)[0]);
      } else {
        value = Undefined{parameters[i]};
      }
      if (keyword != arguments.keywords.end()) arguments.keywords.erase(keyword);
      scope.variables.emplace_back(parameter.index, std::move(value));
    }
    if (!arguments.keywords.empty())
      meter_->Fail(name + ": has no parameter '" + std::string(arguments.keywords[0].first) + "'");
    if (meter_->ok()) Exec(Children(macro)[0]);
    scope_ = caller_scope;
    out_ = caller_out;
    --macros_;
    return MakeText(std::move(out));
  }

  // --- Operators ---

  Value Sign(const Value& value, bool negate) {
    if (const double* real = value.If<double>()) return negate ? -*real : *real;
    if (const Undefined* undefined = value.If<Undefined>()) return FailUndefined(*undefined);
    if (!value.integer()) return Fail("a " + std::string(TypeName(value)) + " has no sign");
    int64_t result = *value.integer();
    if (negate && __builtin_sub_overflow(int64_t{0}, result, &result)) return Fail("an integer has more than 64 bits");
    return result;
  }

  Value Compare(std::span<const uint32_t> parts) {
    Value left = Eval(parts[0]);
    for (uint32_t operand : parts.subspan(1)) {
      Value right = Eval(Children(At(operand))[0]);
      if (!meter_->ok() || !Holds(static_cast<Operator>(At(operand).detail), left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  bool Holds(Operator op, const Value& a, const Value& b) {
    switch (op) {
      case Operator::kEqual:
        return Equal(a, b, meter_);
      case Operator::kNotEqual:
        return !Equal(a, b, meter_);
      case Operator::kIn:
        return Contains(b, a, meter_);
      case Operator::kNotIn:
        return !Contains(b, a, meter_);
      default:
        break;
    }
    if (a.Is<Undefined>() || b.Is<Undefined>()) {
      FailOperands("<", a, b);
      return false;
    }
    const std::partial_ordering order = Order(a, b, meter_);
    switch (op) {
      case Operator::kLess:
        return order < 0;
      case Operator::kLessEqual:
        return order <= 0;
      case Operator::kGreater:
        return order > 0;
      default:
        return order >= 0;
    }
  }

  Value Arithmetic(Operator op, Value a, Value b) {
    if (!meter_->ok()) return {};
    const std::optional<int64_t> x = a.integer(), y = b.integer();
    if (x && y) return IntegerArithmetic(op, *x, *y);
    if ((x || a.Is<double>()) && (y || b.Is<double>()))
      return RealArithmetic(op, x ? static_cast<double>(*x) : *a.If<double>(),
                            y ? static_cast<double>(*y) : *b.If<double>());
    if (op == Operator::kAdd && a.text() && b.text()) return Join(std::move(a), *b.text());
    if (op == Operator::kMultiply && ((a.text() && y) || (x && b.text())))
      return y ? Repeat(*a.text(), *y) : Repeat(*b.text(), *x);
    if (const Sequence *left = a.sequence(), *right = b.sequence();
        op == Operator::kAdd && left && right && left->flavor == right->flavor && left->flavor <= Flavor::kTuple) {
      if (!meter_->Step(static_cast<int64_t>(left->items.size() + right->items.size()))) return {};
      std::vector<Value> items = left->items;
      items.insert(items.end(), right->items.begin(), right->items.end());
      return MakeSequence(left->flavor, std::move(items), meter_);
    }
    return FailOperands(kOperatorText[static_cast<size_t>(op)], a, b);
  }

  /// a + b. A chain of sums appends to the one string it began with, so its cost is linear.
  Value Join(Value a, const MarkedText& b) {
    if (!meter_->Grow(a.text()->size(), b.size())) return {};
    if (MarkedText* text = a.Unshared()) {
      text->Append(b);
      return a;
    }
    if (!meter_->Build(a.text()->size())) return {};
    MarkedText sum;
    sum.Reserve(a.text()->size() + b.size());
    sum.Append(*a.text());
    sum.Append(b);
    return MakeText(std::move(sum));
  }

  Value Repeat(const MarkedText& text, int64_t times) {
    int64_t size = 0;
    if (times <= 0 || text.size() == 0) return MakeText(std::string());
    if (__builtin_mul_overflow(static_cast<int64_t>(text.size()), times, &size)) size = INT64_MAX;
    if (!meter_->Grow(0, static_cast<size_t>(size))) return {};
    MarkedText out, power = text;  // of two
    for (; times > 0; times /= 2) {
      if (times % 2 == 1) out.Append(power);
      if (times > 1) power.Append(MarkedText(power));
    }
    return MakeText(std::move(out));
  }

  Value IntegerArithmetic(Operator op, int64_t x, int64_t y) {
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
      case Operator::kAdd:
        overflow = __builtin_add_overflow(x, y, &result);
        break;
      case Operator::kSubtract:
        overflow = __builtin_sub_overflow(x, y, &result);
        break;
      case Operator::kMultiply:
        overflow = __builtin_mul_overflow(x, y, &result);
        break;
      default:
        if (y == 0) return Fail("division by zero");
        if (op == Operator::kDivide) return static_cast<double>(static_cast<long double>(x) / y);
        if (y == -1) {  // the one divisor that overflows
          overflow = op == Operator::kFloorDivide && __builtin_sub_overflow(int64_t{0}, x, &result);
        } else {
          // Python rounds down and the remainder has the divisor's sign.
          const bool down = x % y != 0 && (x < 0) != (y < 0);
          result = op == Operator::kFloorDivide ? x / y - down : x % y + (down ? y : 0);
        }
    }
    return overflow ? Fail("an integer has more than 64 bits") : Value(result);
  }

  Value RealArithmetic(Operator op, double x, double y) {
    switch (op) {
      case Operator::kAdd:
        return x + y;
      case Operator::kSubtract:
        return x - y;
      case Operator::kMultiply:
        return x * y;
      default:
        break;
    }
    if (y == 0) return Fail("division by zero");
    if (op == Operator::kDivide) return x / y;
    // As CPython's float_divmod: the remainder has the divisor's sign, the quotient is whole.
    double remainder = std::fmod(x, y), quotient = (x - remainder) / y;
    if (remainder != 0 && (y < 0) != (remainder < 0)) {
      remainder += y;
      quotient -= 1;
    }
    if (op == Operator::kModulo) return remainder != 0 ? remainder : std::copysign(0.0, y);
    const double floor = std::floor(quotient);
    return quotient == 0 ? std::copysign(0.0, x / y) : quotient - floor > 0.5 ? floor + 1 : floor;
  }

  const Program& program_;
  Meter* const meter_;
  std::vector<Value> top_;  // variables of the context and the top of the template, by name
  Scope* scope_ = nullptr;
  MarkedText* out_ = nullptr;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  const uint32_t loop_name_;  // past the names when the template never says `loop`
  int64_t depth_ = 0, macros_ = 0;
};

}  // namespace

MarkedText Evaluate(const Program& program, const Context& context, Meter* meter) {
  return Evaluator(program, context, meter).Run();
}

}  // namespace qwen::text
