#include "runtime/server/http/response_head.h"

#include <algorithm>

namespace qwen::server {
namespace {

struct Reason {
  int status;
  std::string_view phrase;
};
constexpr Reason kReasons[] = {{200, "OK"},
                               {400, "Bad Request"},
                               {401, "Unauthorized"},
                               {403, "Forbidden"},
                               {404, "Not Found"},
                               {405, "Method Not Allowed"},
                               {408, "Request Timeout"},
                               {413, "Content Too Large"},
                               {415, "Unsupported Media Type"},
                               {417, "Expectation Failed"},
                               {429, "Too Many Requests"},
                               {431, "Request Header Fields Too Large"},
                               {500, "Internal Server Error"},
                               {501, "Not Implemented"},
                               {503, "Service Unavailable"},
                               {504, "Gateway Timeout"},
                               {505, "HTTP Version Not Supported"}};

void Append(std::string* out, std::string_view name, std::string_view value) {
  out->append(name).append(": ");
  for (char c : value) out->push_back((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f ? '?' : c);
  out->append("\r\n");
}

bool Has(const std::vector<Header>& headers, std::string_view name) {
  return std::any_of(headers.begin(), headers.end(), [&](const Header& header) { return header.first == name; });
}

}  // namespace

std::string_view ReasonPhrase(int status) {
  for (const Reason& reason : kReasons)
    if (reason.status == status) return reason.phrase;
  return "Status";
}

std::string ResponseHead(const HttpResponse& response, const ResponseFrame& frame) {
  // HTTP/1.1 also towards a 1.0 client: it is the version of the server, not of the message (RFC 9110, 2.5).
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
  head.append(ReasonPhrase(response.status)).append("\r\n");
  Append(&head, "content-type", response.content_type);
  if (frame.content_length)
    Append(&head, "content-length", std::to_string(*frame.content_length));
  else if (frame.minor_version == 1)
    Append(&head, "transfer-encoding", "chunked");
  Append(&head, "x-request-id", frame.request_id);
  if (frame.server_header) Append(&head, "server", "qwenrt");
  Append(&head, "x-content-type-options", "nosniff");
  if (!Has(response.headers, "cache-control")) Append(&head, "cache-control", "no-store");
  for (const auto& [name, value] : frame.extra) Append(&head, name, value);
  for (const auto& [name, value] : response.headers) Append(&head, name, value);
  if (!frame.keep_alive)
    Append(&head, "connection", "close");
  else if (frame.minor_version == 0)
    Append(&head, "connection", "keep-alive");
  return head += "\r\n";
}

}  // namespace qwen::server
