#include "runtime/server/http/chunk_decoder.h"

#include <algorithm>

#include "runtime/server/http/head_parser.h"

namespace qwen::server {
namespace {

constexpr size_t kSizeDigits = 8, kExtensionBytes = 256, kTrailerBytes = size_t{4} << 10;

}  // namespace

Progress ChunkDecoder::Fail(int status, const char* code, const char* message) {
  error_ = {status, code, message};
  return Progress::kFailed;
}

Progress ChunkDecoder::SizeLine(std::string_view line, size_t body_bytes) {
  size_t digits = 0;
  uint64_t size = 0;  // eight digits at most: 32 bits
  for (; digits < line.size() && HexDigit(line[digits]) >= 0; ++digits) {
    if (digits == kSizeDigits) return Bad("a chunk size has more than 8 digits");
    size = size << 4 | static_cast<uint64_t>(HexDigit(line[digits]));
  }
  if (digits == 0) return Bad("a chunk size is not a hexadecimal number");
  const std::string_view extension = line.substr(digits);
  if (!extension.empty() && extension.front() != ';') return Bad("a chunk size is not a hexadecimal number");
  if (extension.size() > kExtensionBytes) return Bad("a chunk extension is too long");
  if (std::any_of(extension.begin(), extension.end(),
                  [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; }))
    return Bad("a chunk extension has a control character");
  if (size > max_body_bytes_ - body_bytes) return Fail(413, "request_too_large", "the body is too large");
  chunk_left_ = size;
  part_ = size > 0 ? Part::kData : Part::kTrailer;
  return Progress::kMore;
}

Progress ChunkDecoder::Feed(std::string_view* bytes, std::string* body) {
  while (true) {
    if (part_ == Part::kData) {
      const size_t taken = std::min<uint64_t>(chunk_left_, bytes->size());
      body->append(bytes->substr(0, taken));
      bytes->remove_prefix(taken);
      chunk_left_ -= taken;
      if (chunk_left_ > 0) return Progress::kMore;
      part_ = Part::kDataEnd;
    }
    size_t room = 0;  // after the data: an empty line
    if (part_ == Part::kSize) room = kSizeDigits + kExtensionBytes;
    if (part_ == Part::kTrailer) room = kTrailerBytes - trailer_bytes_;
    switch (reader_.Feed(bytes, room)) {
      case LineReader::Result::kMore:
        return Progress::kMore;
      case LineReader::Result::kBadByte:
        return Bad("a line of the chunked body ends in CR or LF alone, or holds a NUL");
      case LineReader::Result::kTooLong:
        if (part_ == Part::kTrailer) return Fail(431, "headers_too_large", "the trailers are too large");
        return Bad(part_ == Part::kSize ? "a chunk size or extension is too long" : "a chunk is longer than its size");
      case LineReader::Result::kLine:
        break;
    }
    const std::string& line = reader_.line();
    if (part_ == Part::kDataEnd) {
      part_ = Part::kSize;
    } else if (part_ == Part::kSize) {
      if (SizeLine(line, body->size()) == Progress::kFailed) return Progress::kFailed;
    } else if (line.empty()) {
      return Progress::kDone;
    } else {
      Header ignored;
      if (!ParseField(line, &ignored)) return Bad("a trailer is not name, colon, value");
      trailer_bytes_ = std::min(kTrailerBytes, trailer_bytes_ + line.size() + 2);
    }
    reader_.Next();
  }
}

}  // namespace qwen::server
