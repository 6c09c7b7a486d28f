// Every way a request can be wrong, with the status, the code and the place that its client gets. Whatever is refused
// has not reached the engine.
#include <gtest/gtest.h>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

constexpr char kChatPath[] = "/v1/chat/completions", kTextPath[] = "/v1/completions";

struct Case {
  const char* path;
  std::string body;
  int status;
  const char *code, *param;  // param "": null
};

std::string Hi(const std::string& more) { return R"({"messages":[{"role":"user","content":"hi"}],)" + more + "}"; }
std::string Go(const std::string& more) { return R"({"prompt":"hi",)" + more + "}"; }
std::string With(const std::string& messages) { return R"({"messages":)" + messages + "}"; }
std::string Repeat(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}
std::string List(const std::string& item, size_t count) {
  std::string list = "[" + Repeat(item + ",", count);
  list.back() = ']';
  return list;
}

void Check(TestServer& test, const Case& c) {
  SCOPED_TRACE(std::string(c.path) + " " + c.body.substr(0, 200));
  auto got = test.Send("POST", c.path, c.body);
  ASSERT_TRUE(got->done);
  ASSERT_EQ(got->answers, 1);
  EXPECT_EQ(got->response.status, c.status);
  const Json json = ParseOrDie(got->response.body);
  EXPECT_EQ(TextAt(json, {"error", "code"}), c.code) << got->response.body;
  EXPECT_EQ(TextAt(json, {"error", "param"}), *c.param ? c.param : "(null)") << got->response.body;
  EXPECT_FALSE(TextAt(json, {"error", "message"}).empty());
  EXPECT_EQ(test.queue.open(), 0u);
}

void Accepted(TestServer& test, const char* path, const std::string& body) {
  SCOPED_TRACE(std::string(path) + " " + body.substr(0, 200));
  auto got = test.Post(path, body);
  EXPECT_TRUE(got->done);
  EXPECT_EQ(got->response.status, 200) << got->response.body;
}

TEST(Errors, Json) {
  TestServer test;
  const Case cases[] = {
      {kChatPath, "", 400, "invalid_json", ""},
      {kChatPath, "nonsense", 400, "invalid_json", ""},
      {kChatPath, "{} {}", 400, "invalid_json", ""},
      {kChatPath, "{\"model\": \"\xff\"}", 400, "invalid_json", ""},
      {kChatPath, R"({"model": "\ud800"})", 400, "invalid_json", ""},
      {kChatPath, R"({"model": "\udc00\ud800"})", 400, "invalid_json", ""},
      {kChatPath, "{\"model\": \"a\nb\"}", 400, "invalid_json", ""},
      {kChatPath, R"({"temperature": NaN})", 400, "invalid_json", ""},
      {kChatPath, R"({"temperature": -Infinity})", 400, "invalid_json", ""},
      {kChatPath, R"({"temperature": 1e999})", 400, "invalid_json", ""},
      {kChatPath, "// comment\n{}", 400, "invalid_json", ""},
      {kChatPath, R"({"a": 1,})", 400, "invalid_json", ""},
      {kChatPath, Repeat("[", 1'000'000), 400, "json_too_deep", ""},
      {kChatPath, R"({"a":)" + Repeat("[", 64) + Repeat("]", 64) + "}", 400, "json_too_deep", ""},
      {kChatPath, R"({"a":)" + List("1", 100'000) + "}", 400, "json_too_deep", ""},
      {kChatPath, "[]", 400, "invalid_type", ""},
      {kChatPath, "\"x\"", 400, "invalid_type", ""},
      {kChatPath, "null", 400, "invalid_type", ""},
  };
  for (const Case& c : cases) Check(test, c);
  Accepted(test, kChatPath, Hi(R"("a":)" + Repeat("[", 63) + Repeat("]", 63)));
  Accepted(test, kChatPath, Hi(R"("a":)" + List("1", 99'990)));
  Accepted(test, kChatPath, Hi(R"("user":"\ud83d\ude00 \u0000")"));
}

TEST(Errors, TypesAndRanges) {
  TestServer test;
  const Case cases[] = {
      {kChatPath, "{}", 400, "missing_required_parameter", "messages"},
      {kChatPath, With("null"), 400, "missing_required_parameter", "messages"},
      {kTextPath, "{}", 400, "missing_required_parameter", "prompt"},
      {kChatPath, With("5"), 400, "invalid_type", "messages"},
      {kChatPath, With("[]"), 400, "invalid_value", "messages"},
      {kChatPath, Hi(R"("model":7)"), 400, "invalid_type", "model"},
      {kChatPath, Hi(R"("model":"other")"), 404, "model_not_found", "model"},
      {kChatPath, Hi(R"("temperature":"1")"), 400, "invalid_type", "temperature"},
      {kChatPath, Hi(R"("temperature":true)"), 400, "invalid_type", "temperature"},
      {kChatPath, Hi(R"("temperature":2.001)"), 400, "invalid_value", "temperature"},
      {kChatPath, Hi(R"("temperature":-0.001)"), 400, "invalid_value", "temperature"},
      {kChatPath, Hi(R"("temperature":1e308)"), 400, "invalid_value", "temperature"},
      {kChatPath, Hi(R"("top_p":0)"), 400, "invalid_value", "top_p"},
      {kChatPath, Hi(R"("top_p":1.01)"), 400, "invalid_value", "top_p"},
      {kChatPath, Hi(R"("top_k":-2)"), 400, "invalid_value", "top_k"},
      {kChatPath, Hi(R"("top_k":1.5)"), 400, "invalid_type", "top_k"},
      {kChatPath, Hi(R"("top_k":1e30)"), 400, "invalid_value", "top_k"},
      {kChatPath, Hi(R"("min_p":1.5)"), 400, "invalid_value", "min_p"},
      {kChatPath, Hi(R"("presence_penalty":-2.5)"), 400, "invalid_value", "presence_penalty"},
      {kChatPath, Hi(R"("frequency_penalty":2.5)"), 400, "invalid_value", "frequency_penalty"},
      {kChatPath, Hi(R"("repetition_penalty":0)"), 400, "invalid_value", "repetition_penalty"},
      {kChatPath, Hi(R"("repetition_penalty":10.5)"), 400, "invalid_value", "repetition_penalty"},
      {kChatPath, Hi(R"("max_tokens":"8")"), 400, "invalid_type", "max_tokens"},
      {kChatPath, Hi(R"("max_tokens":8.5)"), 400, "invalid_type", "max_tokens"},
      {kChatPath, Hi(R"("max_tokens":-1)"), 400, "invalid_value", "max_tokens"},
      {kChatPath, Hi(R"("max_tokens":2147483648)"), 400, "invalid_value", "max_tokens"},
      {kChatPath, Hi(R"("max_tokens":18446744073709551616)"), 400, "invalid_value", "max_tokens"},
      {kChatPath, Hi(R"("seed":9223372036854775808)"), 400, "invalid_value", "seed"},
      {kChatPath, Hi(R"("n":0)"), 400, "invalid_value", "n"},
      {kChatPath, Hi(R"("n":9)"), 400, "invalid_value", "n"},
      {kChatPath, Hi(R"("n":9223372036854775807)"), 400, "invalid_value", "n"},
      {kChatPath, Hi(R"("stop":7)"), 400, "invalid_type", "stop"},
      {kChatPath, Hi(R"("stop":["a",7])"), 400, "invalid_type", "stop[1]"},
      {kChatPath, Hi(R"("stop":"")"), 400, "invalid_value", "stop"},
      {kChatPath, Hi(R"("stop":")" + Repeat("x", 257) + "\""), 400, "invalid_value", "stop"},
      {kChatPath, Hi(R"("stop":)" + List("\"x\"", 17)), 400, "invalid_value", "stop"},
      {kChatPath, Hi(R"("stop_token_ids":[8184])"), 400, "invalid_value", "stop_token_ids[0]"},
      {kChatPath, Hi(R"("stop_token_ids":[1,-1])"), 400, "invalid_value", "stop_token_ids[1]"},
      {kChatPath, Hi(R"("stop_token_ids":["1"])"), 400, "invalid_type", "stop_token_ids[0]"},
      {kChatPath, Hi(R"("stop_token_ids":)" + List("1", 65)), 400, "invalid_value", "stop_token_ids"},
      {kChatPath, Hi(R"("logit_bias":[1])"), 400, "invalid_type", "logit_bias"},
      {kChatPath, Hi(R"("logit_bias":{"8184":1})"), 400, "invalid_value", "logit_bias.8184"},
      {kChatPath, Hi(R"("logit_bias":{"-1":1})"), 400, "invalid_value", "logit_bias.-1"},
      {kChatPath, Hi(R"("logit_bias":{"99999999999999999999":1})"), 400, "invalid_value",
       "logit_bias.99999999999999999999"},
      {kChatPath, Hi(R"("logit_bias":{"x":1})"), 400, "invalid_value", "logit_bias.x"},
      {kChatPath, Hi(R"("logit_bias":{"7":101})"), 400, "invalid_value", "logit_bias.7"},
      {kChatPath, Hi(R"("logit_bias":{"7":"1"})"), 400, "invalid_type", "logit_bias.7"},
      {kChatPath, Hi(R"("logit_bias":{"7":1,"07":2})"), 400, "invalid_value", "logit_bias"},
      {kChatPath, Hi(R"("logprobs":1)"), 400, "invalid_type", "logprobs"},
      {kChatPath, Hi(R"("logprobs":true,"top_logprobs":21)"), 400, "invalid_value", "top_logprobs"},
      {kTextPath, Go(R"("logprobs":true)"), 400, "invalid_type", "logprobs"},
      {kTextPath, Go(R"("logprobs":21)"), 400, "invalid_value", "logprobs"},
      {kChatPath, Hi(R"("stream":"true")"), 400, "invalid_type", "stream"},
      {kChatPath, Hi(R"("stream":1)"), 400, "invalid_type", "stream"},
      {kChatPath, Hi(R"("stream":true,"stream_options":[])"), 400, "invalid_type", "stream_options"},
      {kChatPath, Hi(R"("stream":true,"stream_options":{"include_usage":1})"), 400, "invalid_type",
       "stream_options.include_usage"},
      {kChatPath, Hi(R"("reasoning_effort":"huge")"), 400, "invalid_value", "reasoning_effort"},
      {kChatPath, Hi(R"("priority":11)"), 400, "invalid_value", "priority"},
      {kTextPath, R"({"prompt":""})", 400, "invalid_value", "prompt"},
      {kTextPath, R"({"prompt":[]})", 400, "invalid_value", "prompt"},
      {kTextPath, R"({"prompt":[""]})", 400, "invalid_value", "prompt[0]"},
      {kTextPath, R"({"prompt":[[]]})", 400, "invalid_value", "prompt[0]"},
      {kTextPath, R"({"prompt":{}})", 400, "invalid_type", "prompt"},
      {kTextPath, R"({"prompt":["a",1]})", 400, "invalid_type", "prompt[1]"},
      {kTextPath, R"({"prompt":[1,"a"]})", 400, "invalid_type", "prompt[1]"},
      {kTextPath, R"({"prompt":[[1],"a"]})", 400, "invalid_type", "prompt[1]"},
      {kTextPath, R"({"prompt":[true]})", 400, "invalid_type", "prompt[0]"},
      {kTextPath, R"({"prompt":[1,8184]})", 400, "invalid_value", "prompt[1]"},
      {kTextPath, R"({"prompt":[[1],[2,-7]]})", 400, "invalid_value", "prompt[1][1]"},
      {kTextPath, R"({"prompt":[[1],[2,8190]]})", 400, "invalid_value", "prompt[1][1]"},
      {kTextPath, R"({"prompt":)" + List("\"a\"", 65) + "}", 400, "invalid_value", "prompt"},
      {kTextPath, R"({"n":8,"prompt":)" + List("\"a\"", 17) + "}", 400, "invalid_value", "n"},
  };
  for (const Case& c : cases) Check(test, c);
}

TEST(Errors, BetweenFields) {
  TestServer test;
  const Case cases[] = {
      {kChatPath, Hi(R"("min_tokens":9,"max_tokens":8)"), 400, "invalid_value", "min_tokens"},
      {kChatPath, Hi(R"("top_logprobs":2)"), 400, "invalid_value", "top_logprobs"},
      {kChatPath, Hi(R"("logprobs":false,"top_logprobs":2)"), 400, "invalid_value", "top_logprobs"},
      {kChatPath, Hi(R"("stream_options":{})"), 400, "invalid_value", "stream_options"},
      {kChatPath, Hi(R"("return_progress":true)"), 400, "invalid_value", "return_progress"},
      {kTextPath, Go(R"("best_of":2)"), 400, "invalid_value", "best_of"},
      {kTextPath, Go(R"("best_of":2,"n":3)"), 400, "invalid_value", "best_of"},
      {kChatPath, Hi(R"("continue_final_message":true,"add_generation_prompt":true)"), 400, "invalid_value",
       "continue_final_message"},
  };
  for (const Case& c : cases) Check(test, c);
}

TEST(Errors, WhatIsNotSupported) {
  TestServer test;
  const Case cases[] = {
      {kChatPath, Hi(R"("echo":true)"), 400, "unsupported_parameter", "echo"},
      {kChatPath, Hi(R"("best_of":1)"), 400, "unsupported_parameter", "best_of"},
      {kChatPath, Hi(R"("suffix":"x")"), 400, "unsupported_parameter", "suffix"},
      {kTextPath, Go(R"("suffix":"x")"), 400, "unsupported_parameter", "suffix"},
      {kChatPath, Hi(R"("tools":[{"type":"function","function":{"name":"f"}}])"), 400, "unsupported_parameter",
       "tools"},
      {kChatPath, Hi(R"("tool_choice":"required")"), 400, "unsupported_parameter", "tool_choice"},
      {kChatPath, Hi(R"("tool_choice":{"type":"function","function":{"name":"f"}})"), 400, "unsupported_parameter",
       "tool_choice"},
      {kChatPath, Hi(R"("response_format":{"type":"json_object"})"), 400, "unsupported_parameter",
       "response_format.type"},
      {kChatPath, Hi(R"("response_format":{"type":"yaml"})"), 400, "invalid_value", "response_format.type"},
      {kChatPath, Hi(R"("response_format":{})"), 400, "missing_required_parameter", "response_format.type"},
      {kChatPath, Hi(R"("structured_outputs":{"regex":"a"})"), 400, "unsupported_parameter", "structured_outputs"},
      {kChatPath, Hi(R"("functions":[])"), 400, "unsupported_parameter", "functions"},
      {kChatPath, Hi(R"("function_call":"auto")"), 400, "unsupported_parameter", "function_call"},
      {kChatPath, Hi(R"("audio":{})"), 400, "unsupported_parameter", "audio"},
      {kChatPath, Hi(R"("modalities":["text","audio"])"), 400, "unsupported_parameter", "modalities[1]"},
      {kChatPath, Hi(R"("web_search_options":{})"), 400, "unsupported_parameter", "web_search_options"},
      {kChatPath, Hi(R"("thinking_budget":10)"), 400, "unsupported_parameter", "thinking_budget"},
      {kChatPath, Hi(R"("chat_template":"x")"), 400, "unsupported_parameter", "chat_template"},
  };
  for (const Case& c : cases) Check(test, c);
  for (const char* more : {R"("tools":[])", R"("tool_choice":"none")", R"("response_format":{"type":"text"})",
                           R"("modalities":["text"])", R"("tools":null)", R"("audio":null)"})
    Accepted(test, kChatPath, Hi(more));
}

TEST(Errors, Messages) {
  TestServer test;
  const Case cases[] = {
      {kChatPath, With("[5]"), 400, "invalid_type", "messages[0]"},
      {kChatPath, With("[{}]"), 400, "missing_required_parameter", "messages[0].role"},
      {kChatPath, With(R"([{"role":5}])"), 400, "invalid_type", "messages[0].role"},
      {kChatPath, With(R"([{"role":"king","content":""}])"), 400, "invalid_value", "messages[0].role"},
      {kChatPath, With(R"([{"role":"user"}])"), 400, "missing_required_parameter", "messages[0].content"},
      {kChatPath, With(R"([{"role":"user","content":5}])"), 400, "invalid_type", "messages[0].content"},
      {kChatPath, With(R"([{"role":"user","content":["x"]}])"), 400, "invalid_type", "messages[0].content[0]"},
      {kChatPath, With(R"([{"role":"user","content":[{"text":"x"}]}])"), 400, "missing_required_parameter",
       "messages[0].content[0].type"},
      {kChatPath, With(R"([{"role":"user","content":[{"type":"text"}]}])"), 400, "missing_required_parameter",
       "messages[0].content[0].text"},
      {kChatPath,
       With(R"([{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"a"},)"
            R"({"type":"text","text":7}]}])"),
       400, "invalid_type", "messages[1].content[1].text"},
      {kChatPath,
       With(R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}])"), 400,
       "unsupported_content", "messages[0].content[0]"},
      {kChatPath, With(R"([{"role":"user","content":"a","name":{}}])"), 400, "invalid_type", "messages[0].name"},
      {kChatPath,
       With(R"([{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"name":"f",)"
            R"("arguments":"[1]"}}]}])"),
       400, "invalid_value", "messages[1].tool_calls[0].function.arguments"},
      {kChatPath,
       With(R"([{"role":"user","content":"a"},{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}])"),
       400, "invalid_value", "messages[2]"},
      {kChatPath, Hi(R"("continue_final_message":true)"), 400, "invalid_value", "continue_final_message"},
      {kChatPath, Hi(R"("chat_template_kwargs":5)"), 400, "invalid_type", "chat_template_kwargs"},
      {kChatPath, Hi(R"("chat_template_kwargs":{"messages":[]})"), 400, "invalid_value", "chat_template_kwargs"},
      {kChatPath, Hi(R"("chat_template_kwargs":{"_x":1})"), 400, "invalid_value", "chat_template_kwargs"},
      {kChatPath, Hi(R"("chat_template_kwargs":{"a":)" + Repeat("[", 8) + Repeat("]", 8) + "}"), 400, "invalid_value",
       "chat_template_kwargs"},
      {kChatPath, Hi(R"("chat_template_kwargs":{"a":")" + Repeat("x", 17'000) + "\"}"), 400, "invalid_value",
       "chat_template_kwargs"},
      // The template's own words.
      {kChatPath, With(R"([{"role":"system","content":"s"}])"), 400, "template_error", ""},
      {kChatPath, With(R"([{"role":"user","content":"u"},{"role":"system","content":"s"}])"), 400, "template_error",
       ""},
  };
  for (const Case& c : cases) Check(test, c);
  const std::string text = R"({"type":"text","text":"a"})";
  Check(test, {kChatPath, With(R"([{"role":"user","content":)" + List(text, 257) + "}]"), 400, "invalid_value",
               "messages[0].content"});
  Check(test, {kChatPath, With(List(R"({"role":"user","content":""})", 4097)), 400, "invalid_value", "messages"});
  Accepted(test, kChatPath, With(R"([{"role":"user","content":)" + List(text, 256) + "}]"));
}

TEST(Errors, ATemplateThatIsTooExpensive) {
  ApiOptions options;
  options.trust_request_chat_template = true;
  TestServer test(options);
  Check(test,
        {kChatPath,
         Hi(R"("chat_template":"{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}")"), 400,
         "template_limit", ""});
  Check(test, {kChatPath, Hi(R"("chat_template":"{% if %}")"), 400, "template_error", "chat_template"});
  Accepted(test, kChatPath, Hi(R"("chat_template":"{{ messages[0].content }}")"));
}

TEST(Errors, StrictServersTakeNoUnknownField) {
  ApiOptions options;
  options.strict_fields = true;
  TestServer test(options);
  Check(test, {kChatPath, Hi(R"("foo":1)"), 400, "unknown_parameter", "foo"});
  Check(test,
        {kChatPath, Hi(R"("stream":true,"stream_options":{"foo":1})"), 400, "unknown_parameter", "stream_options.foo"});
  Check(test, {kChatPath, Hi(R"("prompt":"x")"), 400, "unknown_parameter", "prompt"});
  Check(test, {"/tokenize", R"({"content":"x","foo":1})", 400, "unknown_parameter", "foo"});
  Accepted(test, kChatPath, Hi(R"("user":"me","metadata":{"a":"b"},"service_tier":"auto")"));
}

TEST(Errors, IgnoredFieldsAreNamed) {
  TestServer test;
  auto got = test.Post(kChatPath, Hi(R"("foo":1,"stream_options":null,"store":true,"bad\r\nname":1,"priority":3)"));
  EXPECT_EQ(got->response.status, 200);
  EXPECT_EQ(HeaderOf(got->response, "x-ignored-fields"), "foo,store,priority");
  std::string many = R"("f0":0)";
  for (int i = 1; i < 30; ++i) many += ",\"f" + std::to_string(i) + "\":0";
  got = test.Post(kChatPath, Hi(many));
  EXPECT_EQ(HeaderOf(got->response, "x-ignored-fields"), "f0,f1,f2,f3,f4,f5,f6,f7,f8,f9");
  EXPECT_NE(test.Get("/metrics").find("qwenrt_ignored_fields_total{model_name=\"demo\"} 34\n"), std::string::npos);
}

TEST(Errors, AtTheLimitIsInside) {
  TestServer test;
  for (const std::string& more :
       {std::string(R"("n":8)"), R"("stop":)" + List("\"x\"", 16), R"("stop":")" + Repeat("x", 256) + "\"",
        R"("stop_token_ids":)" + List("8183", 64), std::string(R"("logprobs":true,"top_logprobs":20)"),
        std::string(R"("temperature":2,"top_p":1,"top_k":-1,"min_p":1,"repetition_penalty":10)"),
        std::string(R"("temperature":0,"top_k":0,"min_p":0,"presence_penalty":-2,"frequency_penalty":2)"),
        std::string(R"("max_tokens":8.0,"seed":-9223372036854775808)"),
        std::string(R"("max_tokens":2147483647,"seed":9223372036854775807)"),
        std::string(R"("logit_bias":{"8183":-100,"0":100})"), std::string(R"("model":"demo")")})
    Accepted(test, kChatPath, Hi(more));
  Accepted(test, kTextPath, R"({"prompt":)" + List("\"a\"", 64) + "}");
  Accepted(test, kTextPath, R"({"n":8,"prompt":)" + List("\"a\"", 16) + "}");
}

TEST(Errors, PromptsThatFillTheContext) {
  TestServer test({}, DemoText(), 8);
  const std::string seven = List("1", 7), eight = List("1", 8);
  auto got = test.Send("POST", kTextPath, R"({"prompt":)" + eight + "}");
  EXPECT_EQ(got->response.status, 400);
  const Json json = ParseOrDie(got->response.body);
  EXPECT_EQ(TextAt(json, {"error", "code"}), "context_length_exceeded");
  EXPECT_EQ(At(json, {"error", "n_prompt_tokens"}).AsInteger(), 8);
  EXPECT_EQ(At(json, {"error", "n_ctx"}).AsInteger(), 8);
  // One fits, and so does one token.
  Accepted(test, kTextPath, R"({"max_tokens":100,"prompt":)" + seven + "}");
  EXPECT_EQ(test.queue.requests.back().max_tokens, 1);
}

TEST(Errors, OverflowIsRefusedWhereAsked) {
  ApiOptions options;
  options.refuse_overflow = true;
  TestServer test(options, DemoText(), 8);
  Check(test, {kTextPath, R"({"prompt":[1,1,1,1],"max_tokens":5})", 400, "context_length_exceeded", "max_tokens"});
  Accepted(test, kTextPath, R"({"prompt":[1,1,1,1],"max_tokens":4})");
}

TEST(Errors, MessagesQuoteLittleAndEscaped) {
  TestServer test;
  auto got = test.Send("POST", kChatPath, Hi(R"("model":")" + Repeat("\\u001b[31m\\u00e9", 5000) + "\""));
  const std::string message = TextAt(ParseOrDie(got->response.body), {"error", "message"});
  EXPECT_LE(message.size(), 700u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(Errors, TheEnginesRefusals) {
  struct Row {
    Status status;
    int http;
    const char *code, *retry_after, *should_retry;
  };
  const Row rows[] = {
      {ResourceExhaustedError("full"), 429, "queue_full", "4", ""},
      {CancelledError("draining"), 503, "shutting_down", "5", ""},
      {InternalError("dead"), 503, "engine_failed", "", "false"},
  };
  for (const Row& row : rows) {
    TestServer test;
    test.queue.submit_status = row.status;
    test.queue.stats.failed = row.http == 503 && row.status.code() == StatusCode::kInternal;
    test.queue.stats.waiting_tokens = 3500;
    test.queue.prompt_rate = 1000;
    for (const char* stream : {"true", "false"}) {
      auto got = test.Send("POST", kChatPath, Hi(std::string(R"("stream":)") + stream));
      ASSERT_EQ(got->answers, 1);
      EXPECT_EQ(got->response.status, row.http);
      EXPECT_EQ(ErrorCode(*got), row.code);
      EXPECT_EQ(HeaderOf(got->response, "retry-after"), row.retry_after);
      EXPECT_EQ(HeaderOf(got->response, "x-should-retry"), row.should_retry);
    }
  }
}

TEST(Errors, AFullQueueTakesNoHalfOfARequest) {
  TestServer test;
  test.queue.RefuseFrom(3);
  auto got = test.Send("POST", kTextPath, R"({"prompt":["a","b","c"]})");
  EXPECT_EQ(got->response.status, 429);
  EXPECT_EQ(test.queue.cancelled, (std::vector<engine::RequestId>{1, 2}));
  test.RunAll();
  EXPECT_EQ(got->answers, 1);
}

}  // namespace
}  // namespace qwen::server
