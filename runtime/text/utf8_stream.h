// Text out of tokens as they come: a code point may be spread over several of them.
#ifndef QWEN_RUNTIME_TEXT_UTF8_STREAM_H_
#define QWEN_RUNTIME_TEXT_UTF8_STREAM_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace qwen::text {

/// Takes bytes in any portions, gives valid UTF-8. Ill-formed bytes become U+FFFD, as many as Python's
/// `bytes.decode(errors="replace")` writes; however the bytes are cut, the same text comes out. Keeps at most 3 bytes.
class Utf8Stream {
 public:
  /// Appends to `*out` what `bytes` complete.
  void Push(std::string_view bytes, std::string* out);
  /// The end: what still waits for more becomes one U+FFFD. The stream is then as it was when made.
  void Flush(std::string* out);
  /// Bytes that came in and are not decided.
  size_t waiting() const { return waiting_.size(); }

 private:
  std::string waiting_;  // the beginning of one code point
};

/// `bytes` as a whole through such a stream.
std::string ReplaceIllFormed(std::string_view bytes);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_UTF8_STREAM_H_
