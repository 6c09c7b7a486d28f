// Recursive descent in the shape of Jinja2's own parser: one function a level of precedence, the same names. Chains of
// `+`, `~`, `and`, comparisons and elif become one node each, so that depth is only what the author nested.
#include "runtime/text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <unordered_map>

#include "runtime/base/json.h"
#include "runtime/text/jinja/builtins.h"
#include "runtime/text/jinja/code_points.h"
#include "runtime/text/jinja/lexer.h"

namespace qwen::text {
namespace {

using Words = std::initializer_list<std::string_view>;

struct OperatorRow {
  std::string_view word;
  Operator op;
};
constexpr OperatorRow kComparisons[] = {
    {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
    {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual},
};
constexpr OperatorRow kSums[] = {{"+", Operator::kAdd}, {"-", Operator::kSubtract}};
constexpr OperatorRow kProducts[] = {
    {"*", Operator::kMultiply}, {"/", Operator::kDivide}, {"//", Operator::kFloorDivide}, {"%", Operator::kModulo}};

constexpr std::string_view kLiterals[] = {"true", "false", "none", "True", "False", "None"};

bool IsOneOf(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

class Parser {
 public:
  Parser(std::string_view text, std::vector<Token> tokens, const std::string& where)
      : text_(text), tokens_(std::move(tokens)), where_(where) {
    program_.nodes.emplace_back();
  }

  StatusOr<Program> Run() {
    program_.root = Body({});
    if (!status_.ok()) return status_;
    return std::move(program_);
  }

 private:
  // --- Tokens. After an error only kEnd is left, so every loop below ends. ---

  const Token& Peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  bool Is(LexemeKind kind, std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == kind && Peek(ahead).text == text;
  }
  bool IsOp(std::string_view op) const { return Is(LexemeKind::kOperator, op); }
  bool IsWord(std::string_view word) const { return Is(LexemeKind::kName, word); }
  bool Take(bool there) {
    at_ += there && at_ + 1 < tokens_.size();
    return there;
  }
  bool TakeOp(std::string_view op) { return Take(IsOp(op)); }
  bool TakeWord(std::string_view word) { return Take(IsWord(word)); }
  bool Want(bool there, std::string_view what) { return Take(there) || Unexpected("want " + std::string(what)); }
  bool WantOp(std::string_view op) { return Want(IsOp(op), "'" + std::string(op) + "'"); }
  bool WantEnd() { return Want(Peek().kind == LexemeKind::kBlockEnd, "'%}'"); }

  bool Fail(size_t offset, const std::string& why) {
    if (status_.ok()) status_ = SyntaxError(where_, text_, offset, why);
    at_ = tokens_.size() - 1;
    return false;
  }
  bool Unexpected(const std::string& hint = {}) {
    static constexpr std::array<std::string_view, 11> kNames = {
        "text", "'{{'", "'}}'", "'{%'", "'%}'", "name ", "string ", "integer ", "number ", "", "end of the template"};
    const Token& token = Peek();
    std::string what(kNames[static_cast<size_t>(token.kind)]);
    if (token.kind >= LexemeKind::kName && token.kind < LexemeKind::kEnd) what += JsonQuote(token.text.substr(0, 40));
    return Fail(token.offset, "unexpected " + what + (hint.empty() ? "" : ", " + hint));
  }

  /// Counts what is open while the parser is inside of it.
  class Deeper {
   public:
    explicit Deeper(Parser* parser) : parser_(parser) {
      if (++parser->depth_ > kMaxDepth)
        parser->Fail(parser->Peek().offset, "nests deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    ~Deeper() { --parser_->depth_; }

   private:
    Parser* parser_;
  };

  // --- Nodes ---

  uint32_t LineHere() {
    // Tokens come in order, so lines are counted once over the whole text.
    const size_t offset = std::min(Peek().offset, text_.size());
    for (; counted_ < offset; ++counted_) line_ += text_[counted_] == '\n';
    return line_;
  }
  uint32_t Add(NodeKind kind, uint32_t line, std::span<const uint32_t> children, uint32_t index = 0,
               uint32_t detail = 0) {
    Node node{.kind = kind, .line = line, .index = index, .detail = detail};
    node.first = static_cast<uint32_t>(program_.children.size());
    node.count = static_cast<uint32_t>(children.size());
    for (uint32_t child : children) node.depth = std::max(node.depth, program_.nodes[child].depth + 1);
    if (node.depth > kMaxDepth) Fail(Peek().offset, "nests deeper than " + std::to_string(kMaxDepth) + " levels");
    program_.children.insert(program_.children.end(), children.begin(), children.end());
    program_.nodes.push_back(node);
    return static_cast<uint32_t>(program_.nodes.size() - 1);
  }
  uint32_t Add(NodeKind kind, uint32_t line, std::initializer_list<uint32_t> children, uint32_t index = 0,
               uint32_t detail = 0) {
    return Add(kind, line, std::span<const uint32_t>(children.begin(), children.size()), index, detail);
  }
  /// Also what every function returns after an error.
  static constexpr uint32_t kAbsentNode = 0;
  uint32_t Constant(NodeKind kind, uint32_t line, Value value) {
    program_.constants.push_back(std::move(value));
    return Add(kind, line, {}, static_cast<uint32_t>(program_.constants.size() - 1));
  }
  uint32_t Name(const std::string& name) {
    auto [it, inserted] = names_.try_emplace(name, static_cast<uint32_t>(program_.names.size()));
    if (inserted) program_.names.push_back(name);
    if (program_.names.size() > kMaxNames)
      Fail(Peek().offset, "has more than " + std::to_string(kMaxNames) + " different names");
    return it->second;
  }
  uint32_t TakeName() {
    const std::string name = Peek().text;
    return Want(Peek().kind == LexemeKind::kName, "a name") ? Name(name) : 0;
  }

  // --- Statements ---

  /// Statements up to a tag that begins with one of `ends`, which is left; to the end of the template without any.
  uint32_t Body(Words ends) {
    const Deeper deeper(this);
    const uint32_t line = LineHere();
    std::vector<uint32_t> statements;
    while (status_.ok() && (Peek().kind != LexemeKind::kEnd || ends.size() > 0)) {
      const uint32_t here = LineHere();
      if (Peek().kind == LexemeKind::kData) {
        statements.push_back(Constant(NodeKind::kText, here, MakeText(MarkedText(Peek().text, Origin::kTemplate))));
        Take(true);
      } else if (Take(Peek().kind == LexemeKind::kVariableBegin)) {
        statements.push_back(Add(NodeKind::kOutput, here, {Tuple(true)}));
        Want(Peek().kind == LexemeKind::kVariableEnd, "'}}'");
      } else if (Take(Peek().kind == LexemeKind::kBlockBegin)) {
        if (Peek().kind == LexemeKind::kName && IsOneOf(Peek().text, {ends.begin(), ends.size()})) break;
        statements.push_back(Statement(here));
        WantEnd();
      } else {
        Unexpected(std::string("want {% ") + std::string(*(ends.end() - 1)) + " %}");
      }
    }
    return Add(NodeKind::kBody, line, statements);
  }

  uint32_t Statement(uint32_t line) {
    const size_t offset = Peek().offset;
    if (TakeWord("if")) return If(line);
    if (TakeWord("for")) return For(line);
    if (TakeWord("set")) return Set(line);
    if (TakeWord("macro")) {
      if (functions_ > 0) Fail(offset, "a macro inside of a for or macro is not supported");
      return Macro(line);
    }
    Unexpected("want if, for, set or macro; other tags are not supported");
    return kAbsentNode;
  }

  uint32_t If(uint32_t line) {
    std::vector<uint32_t> parts;
    do {
      parts.push_back(Tuple(false));
      WantEnd();
      parts.push_back(Body({"elif", "else", "endif"}));
    } while (TakeWord("elif"));
    if (TakeWord("else")) {
      WantEnd();
      parts.push_back(Body({"endif"}));
    }
    Want(IsWord("endif"), "endif");
    return Add(NodeKind::kIf, line, parts);
  }

  uint32_t For(uint32_t line) {
    const uint32_t target = Target(false);
    Want(IsWord("in"), "'in'");
    const uint32_t iterable = Tuple(false);
    const uint32_t condition = TakeWord("if") ? Expression(true) : kAbsentNode;
    if (IsWord("recursive")) Unexpected("recursive loops are not supported");
    WantEnd();
    ++functions_;
    const uint32_t body = Body({"else", "endfor"});
    --functions_;
    uint32_t otherwise = kAbsentNode;
    if (TakeWord("else")) {
      WantEnd();
      otherwise = Body({"endfor"});
    }
    Want(IsWord("endfor"), "endfor");
    return Add(NodeKind::kFor, line, {target, iterable, body, condition, otherwise});
  }

  uint32_t Set(uint32_t line) {
    const uint32_t target = Target(true);
    if (!IsOp("=")) Unexpected("want '='; set blocks are not supported");
    TakeOp("=");
    return Add(NodeKind::kSet, line, {target, Tuple(true)});
  }

  uint32_t Macro(uint32_t line) {
    const uint32_t name = TakeName();
    std::vector<uint32_t> parts = {0};  // the body, once it is there
    WantOp("(");
    bool defaults = false;
    while (status_.ok() && !IsOp(")")) {
      if (parts.size() > 1) WantOp(",");
      const size_t offset = Peek().offset;
      const uint32_t here = LineHere(), parameter = TakeName();
      if (TakeOp("=")) {
        defaults = true;
        parts.push_back(Add(NodeKind::kParameter, here, {Expression(true)}, parameter));
      } else {
        if (defaults) Fail(offset, "a parameter without a default stands after one that has one");
        parts.push_back(Add(NodeKind::kParameter, here, {}, parameter));
      }
    }
    WantOp(")");
    WantEnd();
    ++functions_;
    parts[0] = Body({"endmacro"});
    --functions_;
    Want(IsWord("endmacro"), "endmacro");
    return Add(NodeKind::kMacro, line, parts, name);
  }

  /// What `set` or `for` assigns to.
  uint32_t Target(bool of_set) {
    const uint32_t line = LineHere();
    std::vector<uint32_t> targets;
    bool tuple = false;
    do {
      if (tuple && (IsOp(")") || IsWord("in"))) break;  // `a,` is a tuple of one
      targets.push_back(TargetItem(of_set));
      tuple |= IsOp(",");
    } while (TakeOp(","));
    return tuple ? Add(NodeKind::kTargetTuple, line, targets) : targets[0];
  }
  uint32_t TargetItem(bool of_set) {
    const Deeper deeper(this);
    const uint32_t line = LineHere();
    if (TakeOp("(")) {
      const uint32_t inner = Target(of_set);
      WantOp(")");
      return inner;
    }
    if (Peek().kind == LexemeKind::kName && IsOneOf(Peek().text, kLiterals)) Unexpected("want a variable");
    if (!of_set && IsWord("loop")) Unexpected("it is taken for the loop itself");
    const uint32_t name = TakeName();
    if (!of_set || !TakeOp(".")) return Add(NodeKind::kTargetName, line, {}, name);
    return Add(NodeKind::kTargetAttr, line, {}, name, TakeName());
  }

  // --- Expressions, loosest first ---

  /// `a, b` where commas make a tuple.
  uint32_t Tuple(bool with_condition, bool may_be_empty = false) {
    const uint32_t line = LineHere();
    std::vector<uint32_t> items;
    bool tuple = false;
    auto at_end = [&] {
      return IsOp(")") || Peek().kind == LexemeKind::kVariableEnd || Peek().kind == LexemeKind::kBlockEnd;
    };
    while (!at_end()) {
      items.push_back(Expression(with_condition));
      if (!TakeOp(",")) break;
      tuple = true;
    }
    if (items.empty() && !may_be_empty) Unexpected("want an expression");
    return tuple || items.empty() ? Add(NodeKind::kTuple, line, items) : items[0];
  }

  uint32_t Expression(bool with_condition) {
    const Deeper deeper(this);
    uint32_t value = Or();
    while (with_condition && IsWord("if")) {
      const uint32_t line = LineHere();
      Take(true);
      const uint32_t condition = Or();
      const uint32_t otherwise = TakeWord("else") ? Expression(true) : kAbsentNode;
      value = Add(NodeKind::kCondition, line, {value, condition, otherwise});
    }
    return value;
  }

  template <uint32_t (Parser::*Part)()>
  uint32_t WordChain(std::string_view word, NodeKind kind) {
    const uint32_t line = LineHere();
    std::vector<uint32_t> parts = {(this->*Part)()};
    while (TakeWord(word)) parts.push_back((this->*Part)());
    return parts.size() == 1 ? parts[0] : Add(kind, line, parts);
  }
  uint32_t Or() { return WordChain<&Parser::And>("or", NodeKind::kOr); }
  uint32_t And() { return WordChain<&Parser::Not>("and", NodeKind::kAnd); }

  uint32_t Not() {
    const uint32_t line = LineHere();
    if (!TakeWord("not")) return Compare();
    const Deeper deeper(this);
    return Add(NodeKind::kNot, line, {Not()});
  }

  uint32_t Compare() {
    const uint32_t line = LineHere();
    std::vector<uint32_t> parts = {Sum()};
    while (status_.ok()) {
      const uint32_t here = LineHere();
      Operator op = Operator::kIn;
      const auto* row = FindOperator(kComparisons);
      if (row) {
        op = row->op;
      } else if (IsWord("not") && Is(LexemeKind::kName, "in", 1)) {
        op = Operator::kNotIn;
        Take(true);
      } else if (!IsWord("in")) {
        break;
      }
      Take(true);
      parts.push_back(Add(NodeKind::kOperand, here, {Sum()}, 0, static_cast<uint32_t>(op)));
    }
    return parts.size() == 1 ? parts[0] : Add(NodeKind::kCompare, line, parts);
  }

  const OperatorRow* FindOperator(std::span<const OperatorRow> rows) const {
    auto it = std::find_if(rows.begin(), rows.end(), [&](const OperatorRow& row) { return IsOp(row.word); });
    return it == rows.end() ? nullptr : &*it;
  }
  template <uint32_t (Parser::*Part)()>
  uint32_t OperatorChain(std::span<const OperatorRow> rows) {
    const uint32_t line = LineHere();
    std::vector<uint32_t> parts = {(this->*Part)()};
    while (const OperatorRow* row = FindOperator(rows)) {
      const uint32_t here = LineHere();
      Take(true);
      parts.push_back(Add(NodeKind::kOperand, here, {(this->*Part)()}, 0, static_cast<uint32_t>(row->op)));
    }
    return parts.size() == 1 ? parts[0] : Add(NodeKind::kArithmetic, line, parts);
  }
  uint32_t Sum() { return OperatorChain<&Parser::Concat>(kSums); }
  uint32_t Product() { return OperatorChain<&Parser::UnaryWithFilters>(kProducts); }

  uint32_t Concat() {
    const uint32_t line = LineHere();
    std::vector<uint32_t> parts = {Product()};
    while (TakeOp("~")) parts.push_back(Product());
    return parts.size() == 1 ? parts[0] : Add(NodeKind::kConcat, line, parts);
  }

  uint32_t UnaryWithFilters() { return Unary(true); }
  uint32_t Unary(bool with_filters) {
    const uint32_t line = LineHere();
    uint32_t value;
    if (IsOp("-") || IsOp("+")) {
      const Deeper deeper(this);
      const NodeKind kind = IsOp("-") ? NodeKind::kNegate : NodeKind::kPlus;
      Take(true);
      value = Add(kind, line, {Unary(false)});
    } else {
      value = Primary();
    }
    return Postfix(value, with_filters);
  }

  uint32_t Primary() {
    const uint32_t line = LineHere();
    const Token token = Peek();
    if (Take(token.kind == LexemeKind::kName)) return Variable(token, line);
    if (Take(token.kind == LexemeKind::kInteger)) return Constant(NodeKind::kConst, line, Integer(token));
    if (Take(token.kind == LexemeKind::kFloat)) {
      double value = 0;
      std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
      return Constant(NodeKind::kConst, line, value);
    }
    if (token.kind == LexemeKind::kString) {
      std::string text;
      for (; Peek().kind == LexemeKind::kString; Take(true)) text += Peek().text;
      return Constant(NodeKind::kConst, line, MakeText(MarkedText(std::move(text), Origin::kTemplate)));
    }
    if (TakeOp("(")) {
      const uint32_t inner = Tuple(true, true);
      WantOp(")");
      return inner;
    }
    if (TakeOp("[")) {
      std::vector<uint32_t> items;
      while (status_.ok() && !IsOp("]")) {
        items.push_back(Expression(true));
        if (!IsOp("]")) WantOp(",");
      }
      WantOp("]");
      return Add(NodeKind::kList, line, items);
    }
    Unexpected(IsOp("{") ? "objects in templates are not supported" : "want an expression");
    return kAbsentNode;
  }

  uint32_t Variable(const Token& token, uint32_t line) {
    if (IsOneOf(token.text, kLiterals)) {
      const char c = static_cast<char>(token.text[0] | 0x20);
      return Constant(NodeKind::kConst, line, c == 'n' ? Value(None{}) : Value(c == 't'));
    }
    if (functions_ > 0 && IsOneOf(token.text, std::array<std::string_view, 3>{"varargs", "kwargs", "caller"}))
      Fail(token.offset, "'" + token.text + "' is not supported");
    return Add(NodeKind::kName, line, {}, Name(token.text));
  }

  Value Integer(const Token& token) {
    int64_t value = 0;
    const char* end = token.text.data() + token.text.size();
    if (std::from_chars(token.text.data(), end, value).ec != std::errc())
      Fail(token.offset, "the integer " + token.text.substr(0, 40) + " has more than 64 bits");
    if (token.text[0] == '0' && value != 0) Fail(token.offset, "an integer begins with 0");
    return value;
  }

  /// `.name`, `[...]`, `(...)`, and with filters also `| name` and `is name`.
  uint32_t Postfix(uint32_t value, bool with_filters) {
    while (status_.ok()) {
      const uint32_t line = LineHere();
      if (TakeOp(".")) {
        const Token token = Peek();
        if (Take(token.kind == LexemeKind::kInteger)) {
          const uint32_t index = Constant(NodeKind::kConst, line, Integer(token));
          value = Add(NodeKind::kGetItem, line, {value, index});
        } else {
          value = Add(NodeKind::kGetAttr, line, {value}, TakeName());
        }
      } else if (TakeOp("[")) {
        value = Subscript(value, line);
      } else if (IsOp("(")) {
        std::vector<uint32_t> parts = {value};
        Arguments(&parts);
        value = Add(NodeKind::kCall, line, parts);
      } else if (with_filters && TakeOp("|")) {
        const Token token = Peek();
        TakeName();
        const std::optional<uint32_t> row = FindFilter(token.text);
        if (!row) Fail(token.offset, "there is no filter " + JsonQuote(token.text.substr(0, 40)));
        std::vector<uint32_t> parts = {value};
        if (IsOp("(")) Arguments(&parts);
        value = Add(NodeKind::kFilter, line, parts, row.value_or(0));
      } else if (with_filters && TakeWord("is")) {
        value = Test(value, line);
      } else {
        break;
      }
    }
    return value;
  }

  uint32_t Subscript(uint32_t value, uint32_t line) {
    uint32_t parts[3] = {kAbsentNode, kAbsentNode, kAbsentNode};
    bool slice = false;
    for (int i = 0; i < 3 && (i == 0 || TakeOp(":")); ++i) {
      slice |= i > 0;
      if (!IsOp(":") && !IsOp("]")) parts[i] = Expression(true);
    }
    if (!slice && parts[0] == kAbsentNode) Unexpected("want an index");
    WantOp("]");
    return slice ? Add(NodeKind::kSlice, line, {value, parts[0], parts[1], parts[2]})
                 : Add(NodeKind::kGetItem, line, {value, parts[0]});
  }

  void Arguments(std::vector<uint32_t>* parts) {
    WantOp("(");
    bool keywords = false;
    while (status_.ok() && !IsOp(")")) {
      const uint32_t line = LineHere();
      if (Peek().kind == LexemeKind::kName && Is(LexemeKind::kOperator, "=", 1)) {
        keywords = true;
        const uint32_t name = TakeName();
        TakeOp("=");
        parts->push_back(Add(NodeKind::kKeyword, line, {Expression(true)}, name));
      } else {
        if (keywords) Unexpected("a plain argument stands after a keyword");
        parts->push_back(Expression(true));
      }
      if (!IsOp(")")) WantOp(",");
    }
    WantOp(")");
  }

  uint32_t Test(uint32_t value, uint32_t line) {
    const bool negated = TakeWord("not");
    const Token token = Peek();
    TakeName();
    const std::optional<uint32_t> row = FindTest(token.text);
    if (!row) Fail(token.offset, "there is no test " + JsonQuote(token.text.substr(0, 40)));
    // Jinja2 takes whatever begins an expression as the test's argument; none of ours has one.
    const Token& next = Peek();
    const bool word = next.kind == LexemeKind::kName && next.text != "else" && next.text != "or" && next.text != "and";
    if (word || (next.kind > LexemeKind::kName && next.kind < LexemeKind::kOperator) || IsOp("(") || IsOp("[") ||
        IsOp("{"))
      Unexpected("the test " + token.text + " takes no argument");
    return Add(NodeKind::kTest, line, {value}, row.value_or(0), negated);
  }

  const std::string_view text_;
  const std::vector<Token> tokens_;
  const std::string& where_;
  size_t at_ = 0;
  uint32_t depth_ = 0;
  int functions_ = 0;  // for and macro bodies open
  uint32_t line_ = 1;
  size_t counted_ = 0;
  std::unordered_map<std::string, uint32_t> names_;
  Program program_;
  Status status_;
};

}  // namespace

StatusOr<Program> ParseTemplate(std::string_view text, const std::string& where) {
  if (text.size() > kMaxTemplateBytes)
    return DataLossError(where + ": is a template of " + std::to_string(text.size()) + " bytes, the limit is " +
                         std::to_string(kMaxTemplateBytes));
  if (const size_t bad = FirstIllFormed(text); bad < text.size()) return SyntaxError(where, text, bad, "is not UTF-8");
  const std::string normalized = NormalizeNewlines(text);
  QWEN_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(normalized, where));
  return Parser(normalized, std::move(tokens), where).Run();
}

}  // namespace qwen::text
