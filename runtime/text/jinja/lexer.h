// Template text → tokens, with the white space rules of Jinja2 under trim_blocks and lstrip_blocks.
#ifndef QWEN_RUNTIME_TEXT_JINJA_LEXER_H_
#define QWEN_RUNTIME_TEXT_JINJA_LEXER_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::text {

enum class LexemeKind {
  kData,  // text between tags, white space already stripped
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  LexemeKind kind = LexemeKind::kEnd;
  std::string text;
  size_t offset = 0;  // of the text given to Tokenize
};

/// `\r\n` and `\r` become `\n`, and one newline at the end goes, as in Jinja2.
std::string NormalizeNewlines(std::string_view text);

/// "3:14", counted from 1: the column in code points.
std::string Position(std::string_view text, size_t offset);
/// A template that does not parse: kDataLoss, `where:line:column: why`.
Status SyntaxError(const std::string& where, std::string_view text, size_t offset, const std::string& why);

/// `text` is normalized. The last token is kEnd. Reads names, numbers and strings; what may stand where is the
/// parser's.
StatusOr<std::vector<Token>> Tokenize(std::string_view text, const std::string& where);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_LEXER_H_
