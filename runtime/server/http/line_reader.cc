#include "runtime/server/http/line_reader.h"

namespace qwen::server {

LineReader::Result LineReader::Feed(std::string_view* bytes, size_t max_bytes) {
  while (!bytes->empty()) {
    const char c = bytes->front();
    bytes->remove_prefix(1);
    if (after_cr_ != (c == '\n') || c == '\0') return Result::kBadByte;
    after_cr_ = false;
    if (c == '\n') return Result::kLine;
    if (c == '\r') {
      after_cr_ = true;
      continue;
    }
    if (line_.size() >= max_bytes) return Result::kTooLong;
    line_.push_back(c);
  }
  return Result::kMore;
}

}  // namespace qwen::server
