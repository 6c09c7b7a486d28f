#include "runtime/text/jinja/lexer.h"

#include <algorithm>

#include "runtime/base/json.h"
#include "runtime/text/jinja/code_points.h"

namespace qwen::text {
namespace {

// Longer ones first.
constexpr std::string_view kOperators[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
                                           ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ",", ".", ":", "|", ";"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    const size_t at = PreviousUtf8(text, text.size());
    if (!IsSpace(DecodeUtf8(text, at).code_point)) break;
    text = text.substr(0, at);
  }
  return text;
}

class Lexer {
 public:
  Lexer(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  StatusOr<std::vector<Token>> Run() {
    while (status_.ok() && at_ < text_.size()) {
      Data();
      if (at_ >= text_.size()) break;
      const char kind = text_[at_ + 1];
      at_ += 2;
      if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) ++at_;
      kind == '#' ? Comment() : Tag(kind == '%');
    }
    if (!status_.ok()) return status_;
    Add(LexemeKind::kEnd, text_.size());
    return std::move(tokens_);
  }

 private:
  bool Fail(size_t offset, const std::string& why) {
    if (status_.ok()) status_ = SyntaxError(where_, text_, offset, why);
    return false;
  }
  void Add(LexemeKind kind, size_t offset, std::string text = {}) {
    tokens_.push_back({kind, std::move(text), offset});
  }
  bool At(std::string_view word) const { return text_.substr(at_).starts_with(word); }
  char Peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  void SkipSpace() {
    while (at_ < text_.size()) {
      const Utf8Unit unit = DecodeUtf8(text_, at_);
      if (!IsSpace(unit.code_point)) break;
      at_ += unit.length;
    }
  }

  /// Text up to the next tag, and stops at the tag.
  void Data() {
    const size_t begin = at_;
    size_t tag = begin;
    for (;; ++tag) {
      tag = std::min(text_.find('{', tag), text_.size());
      if (tag + 1 >= text_.size()) {
        at_ = text_.size();
        Add(LexemeKind::kData, begin, std::string(text_.substr(begin)));
        return;
      }
      if (text_[tag + 1] == '{' || text_[tag + 1] == '%' || text_[tag + 1] == '#') break;
    }
    std::string_view data = text_.substr(begin, tag - begin);
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    if (sign == '-') {
      data = StripRight(data);
    } else if (sign != '+' && text_[tag + 1] != '{') {
      // lstrip_blocks: a block or comment that stands first on its line takes its indentation along.
      const size_t line = data.rfind('\n') + 1;
      if ((line > 0 || line_starting_) && StripRight(data.substr(line)).empty()) data = data.substr(0, line);
    }
    if (!data.empty()) Add(LexemeKind::kData, begin, std::string(data));
    at_ = tag;
  }

  void Comment() {
    const size_t begin = at_, end = text_.find("#}", at_);
    if (end == text_.npos) {
      Fail(begin, "the comment has no end");
      at_ = text_.size();
      return;
    }
    at_ = end + 2;
    Trim(end > begin ? text_[end - 1] : '\0', true);
  }

  /// White space after a tag that `sign` stands at the end of. trim_blocks: one newline, but not after a variable.
  void Trim(char sign, bool block) {
    if (sign == '-') {
      SkipSpace();
    } else if (block && sign != '+' && Peek() == '\n') {
      ++at_;
    }
    line_starting_ = text_[at_ - 1] == '\n';
  }

  /// The inside of `{% %}` or `{{ }}`. The end of the text ends it too; the parser says so.
  void Tag(bool block) {
    Add(block ? LexemeKind::kBlockBegin : LexemeKind::kVariableBegin, at_);
    const std::string_view end = block ? "%}" : "}}";
    while (status_.ok()) {
      SkipSpace();
      if (at_ >= text_.size()) return;
      const char sign = Peek() == '-' || (block && Peek() == '+') ? Peek() : '\0';
      if (text_.substr(at_ + (sign != 0)).starts_with(end)) {
        Add(block ? LexemeKind::kBlockEnd : LexemeKind::kVariableEnd, at_);
        at_ += (sign != 0) + 2;
        Trim(sign, block);
        return;
      }
      if (IsDigit(Peek())) {
        Number();
      } else if (IsNameStart(Peek())) {
        const size_t begin = at_;
        while (IsNameStart(Peek()) || IsDigit(Peek())) ++at_;
        Add(LexemeKind::kName, begin, std::string(text_.substr(begin, at_ - begin)));
      } else if (Peek() == '\'' || Peek() == '"') {
        String();
      } else {
        Operator();
      }
    }
  }

  void Operator() {
    const auto* op = std::find_if(std::begin(kOperators), std::end(kOperators), [&](auto word) { return At(word); });
    if (op == std::end(kOperators)) {
      const size_t length = DecodeUtf8(text_, at_).length;
      Fail(at_, "unexpected character " + JsonQuote(text_.substr(at_, length)));
      return;
    }
    Add(LexemeKind::kOperator, at_, std::string(*op));
    at_ += op->size();
  }

  /// Digits with single underscores between them.
  void Digits(std::string* out) {
    while (IsDigit(Peek()) || (Peek() == '_' && !out->empty() && IsDigit(Peek(1)))) {
      if (Peek() != '_') *out += Peek();
      ++at_;
    }
  }

  void Number() {
    const size_t begin = at_;
    std::string number;
    bool real = false;
    Digits(&number);
    // In `x.0.1` both numbers are indices.
    if (begin == 0 || text_[begin - 1] != '.') {
      if (Peek() == '.' && IsDigit(Peek(1))) {
        real = true;
        number += '.';
        ++at_;
        Digits(&number);
      }
      const size_t sign = Peek(1) == '+' || Peek(1) == '-';
      if ((Peek() == 'e' || Peek() == 'E') && IsDigit(Peek(1 + sign))) {
        real = true;
        number.append(text_, at_, 1 + sign);
        at_ += 1 + sign;
        Digits(&number);
      }
    }
    Add(real ? LexemeKind::kFloat : LexemeKind::kInteger, begin, number);
  }

  void String() {
    const size_t begin = at_;
    const char quote = text_[at_++];
    std::string out;
    while (true) {
      const size_t plain = text_.find_first_of(quote == '"' ? "\"\\" : "'\\", at_);
      if (plain == text_.npos) {
        Fail(begin, "the string has no end");
        return;
      }
      out.append(text_, at_, plain - at_);
      at_ = plain + 1;
      if (text_[plain] == quote) break;
      if (!Escape(&out)) return;
    }
    Add(LexemeKind::kString, begin, std::move(out));
  }

  /// What stands after a backslash, as in Python; an unknown escape keeps its backslash.
  bool Escape(std::string* out) {
    constexpr std::string_view kLetters = "\\'\"abfnrtv\n", kMeaning = "\\'\"\a\b\f\n\r\t\v";
    const size_t begin = at_ - 1;
    const char c = Peek();
    if (const size_t letter = at_ < text_.size() ? kLetters.find(c) : kLetters.npos; letter != kLetters.npos) {
      ++at_;
      if (c != '\n') *out += kMeaning[letter];
      return true;
    }
    const int hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (hex == 0 && (c < '0' || c > '7')) {
      if (c == 'N') return Fail(begin, "\\N escapes are not supported");
      *out += '\\';
      return true;
    }
    if (hex > 0) ++at_;
    uint64_t value = 0;
    int digits = 0;
    for (; digits < (hex > 0 ? hex : 3); ++digits, ++at_) {
      const char digit = Peek(), lower = static_cast<char>(digit | 0x20);
      const int number = IsDigit(digit) ? digit - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 16;
      if (number >= (hex > 0 ? 16 : 8)) break;
      value = value * (hex > 0 ? 16 : 8) + number;
    }
    if (digits < hex)
      return Fail(begin,
                  "the escape has " + std::to_string(digits) + " hexadecimal digits, want " + std::to_string(hex));
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return Fail(begin, "the escape is no code point");
    AppendUtf8(static_cast<char32_t>(value), out);
    return true;
  }

  const std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  bool line_starting_ = true;  // the last token ended a line
  std::vector<Token> tokens_;
  Status status_;
};

}  // namespace

std::string NormalizeNewlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    out += text[at] == '\r' ? '\n' : text[at];
    if (text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n') ++at;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

std::string Position(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const size_t line = before.rfind('\n') + 1;
  return std::to_string(1 + std::count(before.begin(), before.end(), '\n')) + ":" +
         std::to_string(1 + CountCodePoints(before.substr(line)));
}

Status SyntaxError(const std::string& where, std::string_view text, size_t offset, const std::string& why) {
  return DataLossError(where + ":" + Position(text, offset) + ": " + why);
}

StatusOr<std::vector<Token>> Tokenize(std::string_view text, const std::string& where) {
  return Lexer(text, where).Run();
}

}  // namespace qwen::text
