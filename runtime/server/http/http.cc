#include "runtime/server/http/http.h"

#include <algorithm>

#include "runtime/base/json.h"

namespace qwen::server {
namespace {

constexpr size_t kMessageBytes = 500;
constexpr int kLongestRetry_s = 60;  // the Python client gives up when told to wait above 120 s

/// At most `bytes` of UTF-8, cut between characters.
std::string_view Shorten(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

}  // namespace

std::string_view HttpRequest::Find(std::string_view lower_name) const {
  for (const auto& [name, value] : headers)
    if (name == lower_name) return value;
  return {};
}

HttpResponse ErrorResponse(const ApiError& error, std::string_view request_id) {
  HttpResponse response{.status = error.status, .headers = error.headers, .close = error.close};
  if (error.retry_after_s > 0) {
    const std::string seconds = std::to_string(std::min(error.retry_after_s, kLongestRetry_s));
    response.headers.emplace_back("retry-after", seconds);
    response.headers.emplace_back("retry-after-ms", seconds + "000");
  }
  std::string& body = response.body;
  body = "{\"error\":{\"message\":" + JsonQuote(Shorten(error.message, kMessageBytes)) +
         ",\"type\":" + JsonQuote(error.type) +
         ",\"param\":" + (error.param.empty() ? "null" : JsonQuote(error.param)) + ",\"code\":" + JsonQuote(error.code);
  for (const auto& [name, value] : error.numbers) body += "," + JsonQuote(name) + ":" + std::to_string(value);
  body += "},\"request_id\":" + JsonQuote(request_id) + "}";
  return response;
}

}  // namespace qwen::server
