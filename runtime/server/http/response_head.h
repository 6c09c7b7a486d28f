// The head of an answer, as bytes. Pure.
#ifndef QWEN_RUNTIME_SERVER_HTTP_RESPONSE_HEAD_H_
#define QWEN_RUNTIME_SERVER_HTTP_RESPONSE_HEAD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/server/http/http.h"

namespace qwen::server {

/// What the connection adds to what a handler says.
struct ResponseFrame {
  std::string_view request_id;
  const std::vector<Header>& extra;        // CORS
  std::optional<uint64_t> content_length;  // nothing: a stream
  int minor_version = 1;
  bool keep_alive = true;
  bool server_header = true;
};

/// The head, to the empty line. What a handler's values hold that could end a line becomes '?'; a header of its own
/// that every answer has (cache-control) replaces that one.
std::string ResponseHead(const HttpResponse& response, const ResponseFrame& frame);

/// "Not Found"; "Status" for a code nobody sends here.
std::string_view ReasonPhrase(int status);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_RESPONSE_HEAD_H_
