// Chats in one piece and as events: shapes to the byte, and that the two agree.
#include <gtest/gtest.h>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

constexpr char kHi[] = R"({"messages":[{"role":"user","content":"hi"}])";
std::string Hi(const std::string& more = "") { return std::string(kHi) + (more.empty() ? "" : "," + more) + "}"; }

/// `text` with what differs from run to run as N.
std::string Steady(std::string text) {
  auto mask = [&](std::string_view before, std::string_view end) {
    for (size_t at = 0; (at = text.find(before, at)) != text.npos;) {
      at += before.size();
      text.replace(at, text.find_first_of(end, at) - at, "N");
    }
  };
  mask("\"id\":\"chatcmpl-", "\"");
  mask("\"id\":\"cmpl-", "\"");
  mask("\"created\":", ",");
  return text;
}

// Eleven prompt tokens: <|im_start|> user \n h i <|im_end|> \n <|im_start|> assistant \n <think>\n, as the demo's
// vocabulary has them; six drawn ones: r \n </think> \n\n H i.
constexpr char kHead[] = R"("created":N,"model":"demo","system_fingerprint":"babcdef01-01234567",)";
constexpr char kUsage[] =
    R"("usage":{"prompt_tokens":11,"completion_tokens":6,"total_tokens":17,)"
    R"("prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":3,)"
    R"("accepted_prediction_tokens":0,"rejected_prediction_tokens":0}})";
constexpr char kTimings[] =
    R"("timings":{"cache_n":0,"prompt_n":11,"prompt_ms":0,"prompt_per_second":0,"predicted_n":6,"predicted_ms":0,)"
    R"("predicted_per_second":0,"draft_n":0,"draft_n_accepted":0})";

TEST(Chat, AnswersInOnePiece) {
  TestServer test;
  test.Says("r\n</think>\n\nHi", kImEnd);
  auto got = test.Post("/v1/chat/completions", Hi());
  ASSERT_EQ(got->answers, 1);
  EXPECT_EQ(got->response.status, 200);
  EXPECT_EQ(got->response.content_type, "application/json; charset=utf-8");
  EXPECT_EQ(Steady(got->response.body),
            std::string(R"({"id":"chatcmpl-N","object":"chat.completion",)") + kHead +
                R"("choices":[{"index":0,"message":{"role":"assistant","content":"Hi","refusal":null,)"
                R"("reasoning_content":"r"},"logprobs":null,"finish_reason":"stop","stop_reason":null}],)" +
                kUsage + "," + kTimings + "}");
}

TEST(Chat, Streams) {
  TestServer test;
  test.Says("r\n</think>\n\nHi", kImEnd);
  auto got = test.Post("/v1/chat/completions", Hi(R"("stream":true,"stream_options":{"include_usage":true})"));
  ASSERT_TRUE(got->done);
  EXPECT_FALSE(got->closed);
  EXPECT_EQ(got->response.content_type, "text/event-stream; charset=utf-8");
  EXPECT_EQ(HeaderOf(got->response, "cache-control"), "no-cache");
  EXPECT_EQ(HeaderOf(got->response, "x-accel-buffering"), "no");
  const std::string head = std::string(R"({"id":"chatcmpl-N","object":"chat.completion.chunk",)") + kHead;
  const char* deltas[] = {
      R"({"role":"assistant","content":null},"logprobs":null,"finish_reason":null)",
      R"({"reasoning_content":"r"},"logprobs":null,"finish_reason":null)",
      R"({"content":"H"},"logprobs":null,"finish_reason":null)",
      R"({"content":"i"},"logprobs":null,"finish_reason":null)",
      R"({},"logprobs":null,"finish_reason":"stop","stop_reason":null)",
  };
  const std::vector<std::string> events = Events(Steady(got->response.body));
  ASSERT_EQ(events.size(), std::size(deltas) + 2);
  for (size_t i = 0; i < std::size(deltas); ++i)
    EXPECT_EQ(events[i], head + R"("choices":[{"index":0,"delta":)" + deltas[i] + R"(}],"usage":null})");
  EXPECT_EQ(events[5], head + R"("choices":[],)" + kUsage + "," + kTimings + "}");
  EXPECT_EQ(events[6], "[DONE]");
}

}  // namespace
}  // namespace qwen::server
