// The two functions of http.h that handlers call, for builds without the socket side.
#include "runtime/server/api/json_writer.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

std::string_view HttpRequest::Find(std::string_view lower_name) const {
  for (const auto& [name, value] : headers)
    if (name == lower_name) return value;
  return "";
}

HttpResponse ErrorResponse(const ApiError& error, std::string_view request_id) {
  HttpResponse response;
  response.status = error.status;
  response.headers = error.headers;
  response.close = error.close;
  if (error.retry_after_s > 0) {
    response.headers.emplace_back("retry-after", std::to_string(error.retry_after_s));
    response.headers.emplace_back("retry-after-ms", std::to_string(error.retry_after_s * 1000));
  }
  JsonWriter json(&response.body);
  json.Begin('{').Key("error").Begin('{').Member("message", error.message).Member("type", error.type);
  if (error.param.empty()) {
    json.Member("param", nullptr);
  } else {
    json.Member("param", error.param);
  }
  json.Member("code", error.code);
  for (const auto& [name, number] : error.numbers) json.Member(name, number);
  json.End('}').Member("request_id", request_id).End('}');
  return response;
}

}  // namespace qwen::server
