// A chunked body, from bytes to bytes (RFC 9112, section 7.1, narrowed as head_parser.h is). Pure.
#ifndef QWEN_RUNTIME_SERVER_HTTP_CHUNK_DECODER_H_
#define QWEN_RUNTIME_SERVER_HTTP_CHUNK_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/server/http/line_reader.h"

namespace qwen::server {

/// Extensions up to 256 bytes a chunk and trailers up to 4 KiB are read and forgotten.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(size_t max_body_bytes) : max_body_bytes_(max_body_bytes) {}

  /// Takes bytes from the front of `*bytes`, up to the end of the body and no further, and appends what they carry to
  /// `*body`, which the caller starts empty and does not change. A chunk that would pass the limit fails by its size
  /// line, with 413, before any of it is taken.
  Progress Feed(std::string_view* bytes, std::string* body);
  /// After kFailed.
  const ProtocolError& error() const { return error_; }

 private:
  enum class Part : uint8_t { kSize, kData, kDataEnd, kTrailer };
  Progress Fail(int status, const char* code, const char* message);
  Progress Bad(const char* message) { return Fail(400, "invalid_http", message); }
  Progress SizeLine(std::string_view line, size_t body_bytes);

  const size_t max_body_bytes_;
  LineReader reader_;
  Part part_ = Part::kSize;
  uint64_t chunk_left_ = 0;
  size_t trailer_bytes_ = 0;
  ProtocolError error_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_CHUNK_DECODER_H_
