// A real server on loopback: what well-behaved clients see.
#include "runtime/server/http/http_server.h"

#include <gtest/gtest.h>

#include "test/runtime/server/http/loopback.h"

namespace qwen::server {
namespace {

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  Loopback loopback;
  Client client = loopback.Connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send(Get("/ping")));
    const Answer answer = client.Read();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "pong");
    EXPECT_EQ(answer.Header("content-type"), "text/plain");
    EXPECT_EQ(answer.Header("server"), "qwenrt");
    EXPECT_EQ(answer.Header("x-content-type-options"), "nosniff");
    EXPECT_EQ(answer.Header("cache-control"), "no-store");
    EXPECT_EQ(answer.Header("x-request-id").size(), 32);
    EXPECT_EQ(answer.Header("connection"), "");
  }
  EXPECT_EQ(loopback.server().stats().total, 1);
  ASSERT_TRUE(client.Send(Post("/echo", "{\"a\": 1}")));
  EXPECT_EQ(client.Read().body, "{\"a\": 1}");
}

}  // namespace
}  // namespace qwen::server
