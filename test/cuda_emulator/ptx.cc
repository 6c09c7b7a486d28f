#include "test/cuda_emulator/ptx.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cstring>
#include <unordered_map>

namespace qwen::emu {
namespace {

struct TypeRow {
  std::string_view name;
  Type type;
  int bytes;
  bool is_signed, is_float;
};
constexpr TypeRow kTypes[] = {
    {"pred", Type::kPred, 1, false, false},   {"b8", Type::kB8, 1, false, false},
    {"b16", Type::kB16, 2, false, false},     {"b32", Type::kB32, 4, false, false},
    {"b64", Type::kB64, 8, false, false},     {"b128", Type::kB128, 16, false, false},
    {"u8", Type::kU8, 1, false, false},       {"u16", Type::kU16, 2, false, false},
    {"u32", Type::kU32, 4, false, false},     {"u64", Type::kU64, 8, false, false},
    {"s8", Type::kS8, 1, true, false},        {"s16", Type::kS16, 2, true, false},
    {"s32", Type::kS32, 4, true, false},      {"s64", Type::kS64, 8, true, false},
    {"f16", Type::kF16, 2, true, true},       {"f16x2", Type::kF16x2, 4, true, true},
    {"bf16", Type::kBf16, 2, true, true},     {"bf16x2", Type::kBf16x2, 4, true, true},
    {"f32", Type::kF32, 4, true, true},       {"f64", Type::kF64, 8, true, true},
    {"tf32", Type::kTf32, 4, true, true},     {"e4m3", Type::kE4m3, 1, true, true},
    {"e5m2", Type::kE5m2, 1, true, true},     {"e4m3x2", Type::kE4m3x2, 2, true, true},
    {"e5m2x2", Type::kE5m2x2, 2, true, true}, {"u4", Type::kU4, 1, false, false},
    {"s4", Type::kS4, 1, true, false},
};
const TypeRow* RowOf(Type type) {
  for (const TypeRow& row : kTypes)
    if (row.type == type) return &row;
  return nullptr;
}

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }
bool IsNameChar(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

/// Recursive descent over the text. A method that fails sets `error_` and everything above returns at once.
class Parser {
 public:
  explicit Parser(ParsedModule* module) : module_(module), text_(*module->text), interned_(module->interned) {
    scopes_.emplace_back();
  }

  Status Run() {
    while (ok() && SkipSpace()) ModuleItem();
    if (ok()) ResolveInitialAddresses();
    return std::move(error_);
  }

 private:
  using Scope = std::unordered_map<std::string_view, Symbol*>;

  bool ok() const { return error_.ok(); }
  void Fail(const std::string& why) {
    if (!ok()) return;
    size_t begin = text_.rfind('\n', at_ == 0 ? 0 : std::min(at_, text_.size()) - 1);
    begin = begin == std::string_view::npos ? 0 : begin + 1;
    size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view quoted = begin <= end ? text_.substr(begin, end - begin) : std::string_view();
    while (!quoted.empty() && std::isspace(static_cast<unsigned char>(quoted.front()))) quoted.remove_prefix(1);
    error_ = DataLossError(fmt::format("ptx line {}: {}: `{}`", line_, why, quoted));
  }

  // ---- characters and words

  /// False at the end of the text.
  bool SkipSpace() {
    while (at_ < text_.size()) {
      char c = text_[at_];
      if (c == '\n') {
        ++line_, ++at_;
      } else if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
        ++at_;
      } else if (text_.substr(at_, 2) == "//") {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (text_.substr(at_, 2) == "/*") {
        size_t end = text_.find("*/", at_);
        end = end == std::string_view::npos ? text_.size() : end + 2;
        for (; at_ < end; ++at_) line_ += text_[at_] == '\n';
      } else {
        return true;
      }
    }
    return false;
  }
  char Peek() { return SkipSpace() ? text_[at_] : '\0'; }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  void Expect(char c) {
    if (ok() && !Take(c)) Fail(fmt::format("expected `{}`", c));
  }
  std::string_view Name() {
    if (!IsNameStart(Peek())) {
      Fail("expected a name");
      return {};
    }
    size_t begin = at_++;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  /// `.name` with its dot taken off, or nothing.
  std::string_view Directive() {
    if (Peek() != '.') return {};
    size_t begin = ++at_;
    while (at_ < text_.size() && (IsNameChar(text_[at_]) || text_[at_] == ':')) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  std::string_view PeekDirective() {
    size_t at = at_;
    int line = line_;
    std::string_view directive = Directive();
    at_ = at, line_ = line;
    return directive;
  }
  void SkipPast(char c) {
    while (SkipSpace())
      if (text_[at_++] == c) return;
    Fail(fmt::format("expected `{}`", c));
  }
  void SkipLine() { at_ = std::min(text_.find('\n', at_), text_.size()); }

  // ---- numbers

  /// An integer, 0f/0d bits or a decimal float. The sign is the caller's.
  Operand Number(bool minus) {
    Operand operand;
    SkipSpace();
    std::string_view rest = text_.substr(at_);
    auto hex_digits = [&](size_t from) {
      size_t n = from;
      while (n < rest.size() && std::isxdigit(static_cast<unsigned char>(rest[n]))) ++n;
      return n;
    };
    auto parse = [&](size_t from, size_t to, int base) {
      uint64_t value = 0;
      auto [end, code] = std::from_chars(rest.data() + from, rest.data() + to, value, base);
      if (code != std::errc() || end != rest.data() + to || from == to) Fail("not a number");
      at_ += to;
      return value;
    };
    if (rest.size() > 2 && rest[0] == '0' && (rest[1] == 'f' || rest[1] == 'F')) {
      operand.kind = Operand::Kind::kFloat32;
      operand.bits = parse(2, hex_digits(2), 16) ^ (minus ? 0x80000000u : 0);
      return operand;
    }
    if (rest.size() > 2 && rest[0] == '0' && (rest[1] == 'd' || rest[1] == 'D')) {
      operand.kind = Operand::Kind::kFloat64;
      operand.bits = parse(2, hex_digits(2), 16) ^ (minus ? uint64_t{1} << 63 : 0);
      return operand;
    }
    size_t end = 0;
    while (end < rest.size() && (std::isalnum(static_cast<unsigned char>(rest[end])) || rest[end] == '.')) ++end;
    if (rest.substr(0, end).find('.') != std::string_view::npos) {
      double value = 0;
      auto [stop, code] = std::from_chars(rest.data(), rest.data() + end, value);
      if (code != std::errc()) Fail("not a number");
      at_ += static_cast<size_t>(stop - rest.data());
      operand.kind = Operand::Kind::kFloat64;
      if (minus) value = -value;
      std::memcpy(&operand.bits, &value, 8);
      return operand;
    }
    operand.kind = Operand::Kind::kInteger;
    if (rest.size() > 1 && rest[0] == '0' && (rest[1] == 'x' || rest[1] == 'X')) {
      operand.bits = parse(2, hex_digits(2), 16);
    } else if (rest.size() > 1 && rest[0] == '0' && (rest[1] == 'b' || rest[1] == 'B')) {
      size_t n = 2;
      while (n < rest.size() && (rest[n] == '0' || rest[n] == '1')) ++n;
      operand.bits = parse(2, n, 2);
    } else {
      size_t n = 0;
      while (n < rest.size() && std::isdigit(static_cast<unsigned char>(rest[n]))) ++n;
      operand.bits = parse(0, n, n > 1 && rest[0] == '0' ? 8 : 10);
    }
    if (at_ < text_.size() && text_[at_] == 'U') ++at_;
    if (minus) operand.bits = 0 - operand.bits;
    return operand;
  }
  int64_t Integer() {
    bool minus = Take('-');
    Operand n = Number(minus);
    if (ok() && n.kind != Operand::Kind::kInteger) Fail("expected an integer");
    return static_cast<int64_t>(n.bits);
  }

  // ---- symbols

  Symbol* Find(std::string_view name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (auto it = scope->find(name); it != scope->end()) return it->second;
    return nullptr;
  }
  Symbol* Declare(Symbol symbol) {
    Symbol* stored = &module_->symbols.emplace_back(std::move(symbol));
    scopes_.back()[stored->name] = stored;
    return stored;
  }
  /// A label may be named before it is seen, from a scope inside the one that holds it.
  Symbol* Label(std::string_view name) {
    if (auto it = labels_.find(name); it != labels_.end()) return it->second;
    Symbol* label = &module_->symbols.emplace_back();
    label->name = name;
    label->kind = Symbol::Kind::kLabel;
    label->index = static_cast<int>(labels_.size());
    labels_[name] = label;
    return label;
  }

  // ---- variables: `.align 8 .b8 name[64] = {…}`, after the state space

  Symbol Declarator(Space space) {
    Symbol symbol;
    symbol.space = space;
    int vector = 1;
    while (ok() && Peek() == '.') {
      std::string_view word = Directive();
      if (word == "align") {
        symbol.align = static_cast<uint64_t>(Integer());
      } else if (word == "v2" || word == "v4") {
        vector = word[1] - '0';
      } else if (word == "ptr") {  // .ptr .space .align n: what a kernel parameter points to
        continue;
      } else if (word == "global" || word == "shared" || word == "const" || word == "local") {
        continue;
      } else if (symbol.type = TypeNamed(word); symbol.type == Type::kNone) {
        Fail(fmt::format("unknown type or attribute .{}", word));
      }
    }
    if (symbol.type == Type::kNone) Fail("a variable without a type");
    symbol.name = Name();
    symbol.bytes = static_cast<uint64_t>(BytesOf(symbol.type)) * static_cast<uint64_t>(vector);
    symbol.align = std::max<uint64_t>(symbol.align, symbol.bytes);
    return symbol;
  }
  void ArrayAndInitial(Symbol* symbol) {
    while (ok() && Take('[')) {
      uint64_t count = Peek() == ']' ? 0 : static_cast<uint64_t>(Integer());
      Expect(']');
      if (__builtin_mul_overflow(symbol->bytes, count, &symbol->bytes)) Fail("an array too large");
    }
    if (!ok() || !Take('=')) return;
    int element_bytes = BytesOf(symbol->type);
    auto put = [&](const Operand& value) {
      uint64_t bits = value.bits;
      if (value.kind == Operand::Kind::kFloat64 && symbol->type == Type::kF32) {
        double wide;
        std::memcpy(&wide, &bits, 8);
        float narrow = static_cast<float>(wide);
        bits = 0;
        std::memcpy(&bits, &narrow, 4);
      }
      for (int i = 0; i < element_bytes; ++i) symbol->initial.push_back(static_cast<uint8_t>(bits >> (8 * i)));
    };
    auto value = [&] {
      if (IsNameStart(Peek())) {
        std::string_view name = Name();
        bool wrapped = name == "generic";
        if (wrapped) Expect('('), name = Name();
        int64_t addend = 0;
        if (Take('+')) addend = Integer();
        if (wrapped) Expect(')');
        pending_addresses_.push_back({symbol, symbol->initial.size(), name, addend, line_});
        put(Operand());
      } else {
        put(Number(Take('-')));
      }
    };
    auto list = [&](auto& self) -> void {
      Expect('{');
      while (ok() && Peek() != '}') {
        Peek() == '{' ? self(self) : value();
        if (!Take(',')) break;
      }
      Expect('}');
    };
    Peek() == '{' ? list(list) : value();
    symbol->bytes = std::max<uint64_t>(symbol->bytes, symbol->initial.size());
  }
  void ResolveInitialAddresses() {
    for (const PendingAddress& pending : pending_addresses_) {
      Symbol* target = Find(pending.name);
      line_ = pending.line;
      if (!target) return Fail(fmt::format("unknown symbol {} in an initialiser", pending.name));
      pending.symbol->initial_addresses.push_back({pending.offset, target, pending.addend});
    }
  }

  // ---- operands

  Operand ParseOperand() {
    Operand operand;
    char c = Peek();
    if (c == '{' || c == '(') {
      ++at_;
      operand.kind = c == '{' ? Operand::Kind::kVector : Operand::Kind::kList;
      char close = c == '{' ? '}' : ')';
      while (ok() && Peek() != close) {
        operand.elements.push_back(ParseOperand());
        if (!Take(',')) break;
      }
      Expect(close);
      return operand;
    }
    if (c == '[') {
      ++at_;
      operand = Peek() == '-' || std::isdigit(static_cast<unsigned char>(Peek())) ? Number(Take('-')) : Symbolic();
      if (operand.kind == Operand::Kind::kInteger) {
        operand.offset = static_cast<int64_t>(operand.bits);
      }
      operand.kind = Operand::Kind::kAddress;
      Expect(']');
      return operand;
    }
    if (c == '!') {
      ++at_;
      operand = ParseOperand();
      operand.negated = true;
      return operand;
    }
    if (c == '-' || std::isdigit(static_cast<unsigned char>(c))) return Number(Take('-'));
    operand = Symbolic();
    if (Take('|')) operand.pair = std::make_unique<Operand>(ParseOperand());
    return operand;
  }
  /// A register, variable, label, function or special register, and `+offset`.
  Operand Symbolic() {
    Operand operand;
    std::string_view name = Name();
    if (!ok()) return operand;
    if (name == "_") {
      operand.kind = Operand::Kind::kSink;
      return operand;
    }
    operand.kind = Operand::Kind::kSymbol;
    operand.symbol = Find(name);
    if (!operand.symbol && name[0] == '%') {
      if (at_ < text_.size() && text_[at_] == '.') {
        ++at_;
        while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
      }
      operand.kind = Operand::Kind::kSpecial;
      operand.special = {name.data(), static_cast<size_t>(text_.data() + at_ - name.data())};
      return operand;
    }
    if (!operand.symbol) operand.symbol = name == "WARP_SZ" ? nullptr : Label(name);
    if (!operand.symbol) {
      operand.kind = Operand::Kind::kInteger;
      operand.bits = 32;
    }
    if (Peek() == '+' && Take('+')) {
      operand.offset = Integer();
    } else if (Peek() == '-') {
      operand.offset = Integer();
    }
    return operand;
  }

  // ---- statements

  void Instruction() {
    Statement statement;
    SkipSpace();
    size_t begin = at_;
    statement.line = line_;
    if (Take('@')) {
      statement.guard_negated = Take('!');
      std::string_view name = Name();
      statement.guard = Find(name);
      if (ok() && (!statement.guard || statement.guard->type != Type::kPred)) Fail("the guard is not a predicate");
    }
    statement.opcode = Name();
    while (ok() && at_ < text_.size() && text_[at_] == '.') statement.modifiers.push_back(Directive());
    while (ok() && Peek() != ';') {
      statement.operands.push_back(ParseOperand());
      if (!Take(',')) break;
    }
    // `call (r), f, (a), prototype` and others end here
    Expect(';');
    if (!ok()) return;
    statement.text = text_.substr(begin, at_ - begin);
    function_->statements.push_back(std::move(statement));
  }

  void VariableList(Space space) {
    Symbol first = Declarator(space);
    for (bool more = true; ok() && more; more = Take(',')) {
      Symbol symbol = first;
      if (more && first.name.empty()) symbol.name = Name();
      first.name = {};
      if (Peek() == '<') {  // %r<10>: ten registers
        ++at_;
        int64_t count = Integer();
        Expect('>');
        for (int64_t i = 0; ok() && i < count; ++i) {
          Symbol numbered = symbol;
          numbered.name = Intern(fmt::format("{}{}", symbol.name, i));
          AddVariable(std::move(numbered));
        }
      } else {
        ArrayAndInitial(&symbol);
        AddVariable(std::move(symbol));
      }
    }
    Expect(';');
  }
  void AddVariable(Symbol symbol) {
    Symbol* stored = Declare(std::move(symbol));
    if (function_) {
      stored->index = static_cast<int>(function_->variables.size());
      function_->variables.push_back(stored);
    } else {
      module_->globals.push_back(stored);
    }
    for (PendingAddress& pending : pending_addresses_)
      if (pending.symbol->name == stored->name) pending.symbol = stored;
  }
  std::string_view Intern(std::string name) { return interned_.emplace_back(std::move(name)); }

  bool SpaceOf(std::string_view word, Space* space) {
    if (word == "reg") return *space = Space::kRegister, true;
    if (word == "param") return *space = Space::kParam, true;
    if (word == "local") return *space = Space::kLocal, true;
    if (word == "shared") return *space = Space::kShared, true;
    if (word == "global") return *space = Space::kGlobal, true;
    if (word == "const") return *space = Space::kConst, true;
    return false;
  }

  void Block() {
    Expect('{');
    scopes_.emplace_back();
    while (ok() && Peek() != '}') {
      if (Peek() == '\0') return Fail("a `{` without its `}`");
      if (Peek() == '{') {
        Block();
      } else if (Peek() == '.') {
        std::string_view word = Directive();
        Space space;
        if (SpaceOf(word, &space)) {
          VariableList(space);
        } else if (word == "loc" || word == "file") {
          SkipLine();
        } else if (word == "pragma") {
          SkipPast(';');
        } else {
          Fail(fmt::format("unknown directive .{}", word));
        }
      } else if (!TryLabel()) {
        Instruction();
      }
    }
    Expect('}');
    scopes_.pop_back();
  }
  bool TryLabel() {
    if (!IsNameStart(Peek()) || Peek() == '%') return false;
    size_t at = at_;
    std::string_view name = Name();
    if (!ok() || Peek() != ':' || text_.substr(at_, 2) == "::") {
      at_ = at;
      return false;
    }
    ++at_;
    Symbol* label = Label(name);
    if (Peek() == '.' && PeekDirective() == "branchtargets") {
      Directive();
      label->kind = Symbol::Kind::kBranchTargets;
      do label->targets.push_back(Label(Name()));
      while (ok() && Take(','));
      Expect(';');
      return true;
    }
    if (Peek() == '.' && PeekDirective() == "callprototype") {
      Fail("indirect calls are not emulated");
      return true;
    }
    if (label->label_statement >= 0) Fail(fmt::format("label {} stands twice", name));
    label->label_statement = static_cast<int>(function_->statements.size());
    return true;
  }

  void ParameterList(std::vector<const Symbol*>* list) {
    Expect('(');
    while (ok() && Peek() != ')') {
      std::string_view word = Directive();
      Space space;
      if (!SpaceOf(word, &space)) return Fail("expected .param or .reg");
      Symbol symbol = Declarator(space);
      ArrayAndInitial(&symbol);
      symbol.is_parameter = true;
      AddVariable(std::move(symbol));
      list->push_back(function_->variables.back());
      if (!Take(',')) break;
    }
    Expect(')');
  }

  void Function(bool is_entry) {
    ParsedFunction& function = module_->functions.emplace_back();
    function_ = &function;
    labels_.clear();
    scopes_.emplace_back();
    function.is_entry = is_entry;
    function.line = line_;
    if (!is_entry && Peek() == '(') ParameterList(&function.returns);
    function.name = Name();
    if (ok()) {
      Symbol symbol;
      symbol.name = function.name;
      symbol.kind = Symbol::Kind::kFunction;
      Symbol* stored = &module_->symbols.emplace_back(symbol);
      scopes_.front().try_emplace(stored->name, stored);
    }
    if (ok() && Peek() == '(') ParameterList(&function.parameters);
    while (ok() && Peek() == '.') {
      std::string_view word = Directive();
      if (word == "maxntid" || word == "reqntid") {
        int64_t threads = Integer();
        while (ok() && Take(',')) threads *= Integer();
        function.max_threads = static_cast<int>(threads);
      } else if (word == "minnctapersm" || word == "maxnreg" || word == "maxnctapersm") {
        Integer();
      } else if (word == "pragma") {
        SkipPast(';');
      } else if (word != "noreturn") {
        Fail(fmt::format("unknown function directive .{}", word));
      }
    }
    if (ok() && Peek() == '{') {
      function.has_body = true;
      Block();
      for (const auto& [name, label] : labels_)
        if (ok() && label->kind == Symbol::Kind::kLabel && label->label_statement < 0)
          Fail(fmt::format("unknown name {} in function {}", name, function.name));
    } else if (ok()) {
      Expect(';');
    }
    scopes_.pop_back();
    function_ = nullptr;
  }

  void ModuleItem() {
    bool is_extern = false;
    while (ok()) {
      std::string_view word = Directive();
      Space space;
      if (word.empty()) return Fail("expected a directive");
      if (word == "version") {
        // `8.10` is above `8.9`: two integers, not a number.
        SkipSpace();
        const char *at = text_.data() + at_, *end = text_.data() + text_.size();
        auto [dot, code] = std::from_chars(at, end, module_->version_major);
        if (code != std::errc() || dot == end || *dot != '.') return Fail("expected a version");
        auto [stop, minor_code] = std::from_chars(dot + 1, end, module_->version_minor);
        if (minor_code != std::errc()) return Fail("expected a version");
        at_ += static_cast<size_t>(stop - at);
        return;
      }
      if (word == "target" || word == "file" || word == "loc") return SkipLine();
      if (word == "address_size") {
        if (Integer() != 64) Fail("only 64-bit addresses are emulated");
        return;
      }
      if (word == "section") return SkipPast('}');
      if (word == "pragma" || word == "alias") return SkipPast(';');
      if (word == "visible" || word == "weak" || word == "common") continue;
      if (word == "extern") {
        is_extern = true;
        continue;
      }
      if (word == "entry" || word == "func") {
        if (PeekDirective() == "attribute") Directive(), SkipPast(')');
        return Function(word == "entry");
      }
      if (!SpaceOf(word, &space)) return Fail(fmt::format("unknown directive .{}", word));
      size_t first = module_->globals.size();
      VariableList(space);
      for (; ok() && first < module_->globals.size(); ++first)
        const_cast<Symbol*>(module_->globals[first])->is_extern = is_extern;
      return;
    }
  }

  struct PendingAddress {
    Symbol* symbol;
    uint64_t offset;
    std::string_view name;
    int64_t addend;
    int line;
  };

  ParsedModule* module_;
  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  Status error_;
  std::vector<Scope> scopes_;
  std::unordered_map<std::string_view, Symbol*> labels_;
  std::vector<PendingAddress> pending_addresses_;
  ParsedFunction* function_ = nullptr;

  std::deque<std::string>& interned_;
};

}  // namespace

Type TypeNamed(std::string_view name) {
  for (const TypeRow& row : kTypes)
    if (row.name == name) return row.type;
  return Type::kNone;
}
std::string_view TypeName(Type type) {
  const TypeRow* row = RowOf(type);
  return row ? row->name : "none";
}
int BytesOf(Type type) {
  const TypeRow* row = RowOf(type);
  return row ? row->bytes : 0;
}
bool IsSigned(Type type) {
  const TypeRow* row = RowOf(type);
  return row && row->is_signed;
}
bool IsFloat(Type type) {
  const TypeRow* row = RowOf(type);
  return row && row->is_float;
}

StatusOr<ParsedModule> ParsePtx(std::string_view text) {
  ParsedModule module;
  module.text = std::make_unique<const std::string>(text.substr(0, text.find('\0')));
  Parser parser(&module);
  QWEN_RETURN_IF_ERROR(parser.Run());
  return module;
}

}  // namespace qwen::emu
