// A request's head, from bytes to what it says, with one reading for every byte (RFC 9112, narrowed).
//
// What RFC 9112 lets a server repair is refused instead: bare CR or LF, folded lines, space before a colon, lengths
// said twice or in two ways. A proxy in front may have repaired it differently, and the difference is how requests are
// smuggled. Pure: no socket, no clock.
#ifndef QWEN_RUNTIME_SERVER_HTTP_HEAD_PARSER_H_
#define QWEN_RUNTIME_SERVER_HTTP_HEAD_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/server/http/http.h"
#include "runtime/server/http/line_reader.h"

namespace qwen::server {

struct HeadLimits {
  size_t request_line_bytes = size_t{8} << 10;  // without CRLF
  size_t head_bytes = size_t{32} << 10;         // request line to the empty line, CRLFs included
  size_t headers = 100;
};

struct RequestHead {
  std::string method;
  std::string path;   // percent-decoded once; no control character, no backslash, no ".." segment; "*" of OPTIONS *
  std::string query;  // as sent, without '?'
  std::string host;   // "" on HTTP/1.0 without one
  int minor_version = 1;
  std::vector<Header> headers;  // names in lower case, values without space around them
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool expect_continue = false;
};

class HeadParser {
 public:
  explicit HeadParser(const HeadLimits& limits) : limits_(limits) {}

  /// Takes bytes from the front of `*bytes`, up to the end of the head and no further.
  Progress Feed(std::string_view* bytes);
  /// After kFailed.
  const ProtocolError& error() const { return error_; }
  /// After kDone.
  RequestHead& head() { return head_; }
  bool started() const { return started_; }

 private:
  Progress Fail(int status, const char* code, const char* message);
  Progress Bad(const char* message) { return Fail(400, "invalid_http", message); }
  Progress RequestLine(std::string_view line);
  Progress Field(std::string_view line);
  Progress Finish();
  Progress Target(std::string_view target);

  const HeadLimits limits_;
  LineReader reader_;
  RequestHead head_;
  ProtocolError error_;
  std::string authority_;  // of an absolute target
  size_t head_bytes_ = 0;  // of the whole lines
  bool started_ = false, has_request_line_ = false, skipped_empty_line_ = false;
};

/// `name: value`, the name in lower case. False when it is not a header field: an empty name, a character no token has
/// (RFC 9110, 5.6.2), space before the colon, a folded line, a control character in the value.
bool ParseField(std::string_view line, Header* field);

/// `text` as a decimal number, digits only. False for anything else; more than 64 bits saturates.
bool ParseLength(std::string_view text, uint64_t* value);

/// Decodes %XX once. False for a broken escape, a control character, a backslash or a ".." segment in what comes out.
bool DecodePath(std::string_view raw, std::string* path);

/// Whether a comma-separated `list` has `token`, in any case.
bool HasToken(std::string_view list, std::string_view token);
std::string ToLower(std::string_view text);
/// -1 when it is none.
int HexDigit(char c);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_HEAD_PARSER_H_
