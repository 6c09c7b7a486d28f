// The pure parts of answers: errors as JSON, heads as bytes, paths to routes.
#include "runtime/server/http/http.h"

#include <gtest/gtest.h>

#include "runtime/base/json.h"
#include "runtime/server/http/response_head.h"
#include "runtime/server/http/router.h"

namespace qwen::server {
namespace {

TEST(ErrorResponse, IsTheOneBody) {
  const HttpResponse plain =
      ErrorResponse({.status = 404, .type = "not_found_error", .code = "unknown_url", .message = "no \"x\""}, "id1");
  EXPECT_EQ(plain.status, 404);
  EXPECT_EQ(plain.body,
            "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"not_found_error\",\"param\":null,"
            "\"code\":\"unknown_url\"},\"request_id\":\"id1\"}");
  EXPECT_TRUE(plain.headers.empty());

  const HttpResponse rich = ErrorResponse({.status = 429,
                                           .type = "rate_limit_error",
                                           .code = "queue_full",
                                           .message = std::string(499, 'x') + "\xc3\xa9",
                                           .param = "/a",
                                           .retry_after_s = 3,
                                           .headers = {{"x-a", "b"}},
                                           .close = true,
                                           .numbers = {{"n_ctx", 4096}}},
                                          "id2");
  StatusOr<Json> json = ParseJson(rich.body, "body");
  ASSERT_TRUE(json.ok()) << rich.body;
  const Json& error = *json->Find("error");
  EXPECT_EQ(error.Find("message")->AsString(), std::string(499, 'x'));
  EXPECT_EQ(error.Find("param")->AsString(), "/a");
  EXPECT_EQ(error.Find("n_ctx")->AsInteger(), 4096);
  EXPECT_TRUE(rich.close);
  const std::vector<Header> headers = {{"x-a", "b"}, {"retry-after", "3"}, {"retry-after-ms", "3000"}};
  EXPECT_EQ(rich.headers, headers);
  EXPECT_EQ(
      ErrorResponse({.status = 429, .type = "", .code = "", .message = "", .retry_after_s = 999}, "").headers[0].second,
      "60");
}

TEST(ResponseHead, ToTheByte) {
  const std::vector<Header> none, cors = {{"vary", "Origin"}};
  EXPECT_EQ(
      ResponseHead({.status = 200}, {.request_id = "i", .extra = none, .content_length = 2}),
      "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 2\r\nx-request-id: i\r\n"
      "server: qwenrt\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n");
  EXPECT_EQ(ResponseHead({.status = 404, .headers = {{"cache-control", "max-age=1"}}, .content_type = "text/css"},
                         {.request_id = "i", .extra = cors, .keep_alive = false, .server_header = false}),
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/css\r\ntransfer-encoding: chunked\r\nx-request-id: i\r\n"
            "x-content-type-options: nosniff\r\nvary: Origin\r\ncache-control: max-age=1\r\nconnection: close\r\n\r\n");
}

TEST(ResponseHead, AValueCannotEndItsLine) {
  const std::vector<Header> none;
  const std::string head =
      ResponseHead({.headers = {{"x-ignored-fields", "a\r\nset-cookie: b"}}}, {.request_id = "i", .extra = none});
  EXPECT_NE(head.find("x-ignored-fields: a??set-cookie: b\r\n"), std::string::npos) << head;
}

TEST(Router, FindsTheNearestPattern) {
  auto handler = [](HttpRequest, std::shared_ptr<Responder>) {};
  auto route = [&](const char* method, const char* pattern) {
    return Route{.method = method, .pattern = pattern, .handler = handler};
  };
  StatusOr<Router> router = Router::Make({route("GET", "/"), route("GET", "/v1/models"), route("GET", "/v1/models/*"),
                                          route("POST", "/v1/models"), route("GET", "/v1/models/x/*")});
  ASSERT_TRUE(router.ok());
  auto find = [&](const char* method, const char* path) {
    const Router::Match match = router->Find(method, path);
    return match.pattern + (match.route ? "+" : "-") + match.allow;
  };
  EXPECT_EQ(find("GET", "/"), "/+GET, HEAD, OPTIONS");
  EXPECT_EQ(find("GET", "/v1/models"), "/v1/models+GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(find("HEAD", "/v1/models"), "/v1/models+GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(find("PUT", "/v1/models"), "/v1/models-GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(find("GET", "/v1/models/Qwen/Qwen3"), "/v1/models/*+GET, HEAD, OPTIONS");
  EXPECT_EQ(find("GET", "/v1/models/x/y"), "/v1/models/x/*+GET, HEAD, OPTIONS");
  for (const char* path : {"", "*", "/v1", "/v1/", "/v1/models/", "/v1/modelsx", "//", "/V1/models"})
    EXPECT_EQ(find("GET", path), "-") << path;
  EXPECT_EQ(find("GET", "/v1/models/*"), "/v1/models/*+GET, HEAD, OPTIONS");
}

TEST(Router, RefusesBrokenTables) {
  auto handler = [](HttpRequest, std::shared_ptr<Responder>) {};
  auto message = [](std::vector<Route> routes) { return Router::Make(std::move(routes)).status().message(); };
  EXPECT_EQ(message({{.method = "GET", .pattern = "x", .handler = handler}}),
            "route GET x: does not begin with a slash");
  EXPECT_EQ(message({{.method = "GET", .pattern = "/x"}}), "route GET /x: has no handler");
  EXPECT_EQ(message({{.method = "GET", .pattern = "/x", .handler = handler},
                     {.method = "GET", .pattern = "/x", .handler = handler}}),
            "route GET /x: is there twice");
}

}  // namespace
}  // namespace qwen::server
