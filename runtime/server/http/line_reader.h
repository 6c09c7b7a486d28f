// Bytes that come in any pieces, as the lines HTTP/1 is made of: each ends in CRLF and holds no CR, LF or NUL.
//
// Every request smuggled past a lenient reader began with two programs that disagreed where a line ends, so the one
// reader here has no leniency, and heads, chunk sizes and trailers all go through it.
#ifndef QWEN_RUNTIME_SERVER_HTTP_LINE_READER_H_
#define QWEN_RUNTIME_SERVER_HTTP_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qwen::server {

/// Whether something fed with pieces needs more of them.
enum class Progress : uint8_t { kMore, kDone, kFailed };

/// Why a request is refused by its form alone. Both texts are literals.
struct ProtocolError {
  int status = 0;
  const char* code = "";
  const char* message = "";
};

class LineReader {
 public:
  enum class Result : uint8_t { kMore, kLine, kBadByte, kTooLong };
  /// Takes bytes from the front of `*bytes` until a line of at most `max_bytes`, CRLF not counted, is whole or wrong.
  Result Feed(std::string_view* bytes, size_t max_bytes);
  /// Without its CRLF; valid until Next.
  const std::string& line() const { return line_; }
  void Next() { line_.clear(); }

 private:
  std::string line_;
  bool after_cr_ = false;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_LINE_READER_H_
