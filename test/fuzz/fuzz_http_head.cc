// Any bytes as a connection's input, cut in two where the first byte says: heads, then bodies by their framing. What is
// taken must not depend on the cut, and must keep the promises that the connection builds on.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/server/http/chunk_decoder.h"
#include "runtime/server/http/head_parser.h"

namespace {

using namespace qwen::server;

constexpr size_t kMaxBody = 1000;

void Check(bool holds) {
  if (!holds) abort();
}

/// All requests of `pieces` as text, to compare; "!" and the status where they are refused.
std::string Read(std::string_view first, std::string_view second) {
  const HeadLimits limits = {.request_line_bytes = 100, .head_bytes = 400, .headers = 10};
  HeadParser head(limits);
  std::string read;
  std::string body;
  ChunkDecoder chunks(kMaxBody);
  uint64_t body_left = 0;
  bool in_body = false, chunked = false;
  for (std::string_view piece : {first, second}) {
    while (!piece.empty()) {
      if (!in_body) {
        const Progress progress = head.Feed(&piece);
        if (progress == Progress::kMore) break;
        if (progress == Progress::kFailed) {
          Check(head.error().status >= 400 && *head.error().code && *head.error().message);
          return read + "!" + std::to_string(head.error().status);
        }
        const RequestHead& got = head.head();
        Check(!got.method.empty() && (got.path == "*" || got.path.starts_with('/')));
        Check(!(got.chunked && got.content_length) && got.headers.size() <= limits.headers);
        Check(std::none_of(got.path.begin(), got.path.end(),
                           [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7f; }));
        Check((got.path + "/").find("/../") == std::string::npos);
        for (const auto& [name, value] : got.headers) {
          Check(!name.empty() && name.find_first_of("\r\n :\0") == std::string::npos);
          Check(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
          read += name + ":" + value + "\n";
        }
        read += got.method + " " + got.path + "?" + got.query + "\n";
        chunked = got.chunked;
        body_left = got.content_length.value_or(0);
        if (body_left > kMaxBody) return read + "!413";
        in_body = chunked || body_left > 0;
        body.clear();
        if (!in_body) {
          std::destroy_at(&head);
          std::construct_at(&head, limits);
        }
        continue;
      }
      bool done;
      if (chunked) {
        const Progress progress = chunks.Feed(&piece, &body);
        Check(body.size() <= kMaxBody);
        if (progress == Progress::kFailed) return read + "!" + std::to_string(chunks.error().status);
        done = progress == Progress::kDone;
      } else {
        const size_t taken = std::min<uint64_t>(body_left, piece.size());
        body += piece.substr(0, taken);
        piece.remove_prefix(taken);
        body_left -= taken;
        done = body_left == 0;
      }
      if (!done) break;
      read += body + "\n";
      in_body = false;
      std::destroy_at(&head);
      std::construct_at(&head, limits);
      std::destroy_at(&chunks);
      std::construct_at(&chunks, kMaxBody);
    }
  }
  return read + (in_body ? "body " + body : head.started() ? "head" : "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = bytes.size() * data[0] / 255;
  Check(Read(bytes, {}) == Read(bytes.substr(0, cut), bytes.substr(cut)));
  return 0;
}
