// The routes beside the two that generate, and what all of them answer in every state of the server.
#include <gtest/gtest.h>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

using std::chrono::milliseconds;

std::string Body(TestServer& test, const std::string& path, const std::string& body) {
  auto got = test.Send("POST", path, body);
  return got->response.status == 200 ? got->response.body : "status " + std::to_string(got->response.status);
}

TEST(Routes, Models) {
  ApiOptions options;
  options.served_names = {"demo", "org/other"};
  TestServer test(options);
  auto object = [](const std::string& name) {
    return R"({"id":")" + name + R"(","object":"model","created":1790000000,"owned_by":"qwenrt","root":")" + name +
           R"(","parent":null,"max_model_len":512,"meta":{"n_vocab":8192,"n_ctx_train":512,"n_params":1000,"size":2000}})";
  };
  const std::string list = R"({"object":"list","data":[)" + object("demo") + "," + object("org/other") + "]}";
  EXPECT_EQ(test.Get("/v1/models"), list);
  EXPECT_EQ(test.Get("/models"), list);
  EXPECT_EQ(test.Get("/v1/models/demo"), object("demo"));
  EXPECT_EQ(test.Get("/v1/models/org/other"), object("org/other"));
  EXPECT_EQ(test.Get("/models/demo"), object("demo"));
  auto got = test.Send("GET", "/v1/models/nobody", "");
  EXPECT_EQ(got->response.status, 404);
  EXPECT_EQ(ErrorCode(*got), "model_not_found");
}

TEST(Routes, APrefixIsInFrontOfEverything) {
  ApiOptions options;
  options.api_prefix = "/api/models";  // the part before a model's name must not be looked for in it
  TestServer test(options);
  for (const Route& route : test.routes) EXPECT_TRUE(route.pattern.starts_with("/api/models/")) << route.pattern;
  EXPECT_TRUE(test.Get("/api/models/v1/models/demo").starts_with(R"({"id":"demo")"));
}

TEST(Routes, OnlyHealthIsOpen) {
  TestServer test;
  std::vector<std::string> open;
  for (const Route& route : test.routes)
    if (route.access == Route::Access::kOpen) open.push_back(route.pattern);
  std::sort(open.begin(), open.end());
  EXPECT_EQ(open, (std::vector<std::string>{"/health", "/livez", "/readyz", "/v1/health"}));
}

TEST(Routes, Version) {
  TestServer test;
  EXPECT_EQ(test.Get("/version"), R"({"version":"0.1.0","commit":"abcdef012345","plan_abi":0})");
}

TEST(Routes, WhatIsKnownAndNotBuilt) {
  TestServer test;
  for (const char* path : {"/v1/embeddings", "/v1/audio/speech", "/v1/images/generations", "/v1/responses"}) {
    auto got = test.Send("POST", path, "{}");
    EXPECT_EQ(got->response.status, 501) << path;
    EXPECT_EQ(ErrorCode(*got), "not_supported");
    EXPECT_EQ(HeaderOf(got->response, "x-should-retry"), "false");
  }
}

// --- Tokens ---

TEST(Routes, Tokenize) {
  TestServer test;
  const std::vector<int32_t> ids = DemoTokenizer().Encode("Hello world");
  std::string list;
  for (int32_t id : ids) list += (list.empty() ? "" : ",") + std::to_string(id);
  EXPECT_EQ(Body(test, "/tokenize", R"({"content":"Hello world"})"), "{\"tokens\":[" + list + "]}");
  EXPECT_EQ(Body(test, "/tokenize", R"({"model":"demo","prompt":"Hello world"})"),
            "{\"count\":" + std::to_string(ids.size()) + ",\"max_model_len\":512,\"tokens\":[" + list + "]}");
  EXPECT_EQ(Body(test, "/tokenize", R"({"content":""})"), R"({"tokens":[]})");
  EXPECT_EQ(Body(test, "/tokenize", R"({"content":"<|im_end|>"})"), R"({"tokens":[8160]})");
  EXPECT_EQ(Body(test, "/tokenize", R"({"content":"<|im_end|>","parse_special":false})").find("8160"),
            std::string::npos);
  // One character of four bytes that is not in the vocabulary: its tokens are bytes, not text.
  const std::string pieces = Body(test, "/tokenize", R"({"content":"a\ud83d\udc80","with_pieces":true})");
  EXPECT_TRUE(pieces.starts_with(R"({"tokens":[{"id":)"));
  EXPECT_NE(pieces.find(R"("piece":"a"})"), std::string::npos);
  EXPECT_NE(pieces.find(R"("piece":[240)"), std::string::npos);
  const std::string chat = Body(test, "/tokenize", R"({"messages":[{"role":"user","content":"<|im_end|>"}]})");
  size_t ends = 0;
  for (size_t at = 0; (at = chat.find("8160", at)) != chat.npos; ++at) ++ends;
  EXPECT_EQ(ends, 1u);  // the template's, not the user's
  for (const char* wrong : {"{}", R"({"content":5})", R"({"model":"x","content":"a"})", "[]", "x"})
    EXPECT_NE(test.Send("POST", "/tokenize", wrong)->response.status, 200) << wrong;
}

TEST(Routes, Detokenize) {
  TestServer test;
  EXPECT_EQ(Body(test, "/detokenize", R"({"tokens":[8159,8160.0]})"), R"({"content":"<|im_start|><|im_end|>"})");
  EXPECT_EQ(Body(test, "/detokenize", R"({"tokens":[],"model":"demo"})"), R"({"prompt":""})");
  for (const char* wrong : {"{}", R"({"tokens":5})", R"({"tokens":[8184]})", R"({"tokens":[-1]})",
                            R"({"tokens":[1.5]})", R"({"tokens":[9223372036854775807]})", R"({"tokens":["1"]})"})
    EXPECT_EQ(test.Send("POST", "/detokenize", wrong)->response.status, 400) << wrong;
  auto ids = [](size_t count) {
    std::string list = "{\"tokens\":[";
    for (size_t i = 0; i < count; ++i) list += "8158,";
    list.back() = ']';
    return list + "}";
  };
  EXPECT_EQ(test.Send("POST", "/detokenize", ids(1 << 20))->response.status, 200);
  auto got = test.Send("POST", "/detokenize", ids((1 << 20) + 1));
  EXPECT_EQ(got->response.status, 400);
  EXPECT_EQ(ErrorCode(*got), "invalid_value");
}

TEST(Routes, ApplyTemplate) {
  // As serving.md, 14.4, has them from Jinja2 itself.
  TestServer test;
  EXPECT_EQ(Body(test, "/apply-template", R"({"messages":[{"role":"user","content":"hi"}]})"),
            R"({"prompt":"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"})");
  const char* closed = R"({"prompt":"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"})";
  EXPECT_EQ(Body(test, "/apply-template",
                 R"({"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"enable_thinking":false}})"),
            closed);
  EXPECT_EQ(Body(test, "/apply-template", R"({"messages":[{"role":"user","content":"hi"}],"reasoning_effort":"none"})"),
            closed);
  EXPECT_EQ(Body(test, "/apply-template",
                 R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"pre"}],)"
                 R"("add_generation_prompt":false,"continue_final_message":true})"),
            R"({"prompt":"<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\npre"})");
  // developer is system, leading ones are one, null content of an assistant is nothing, parts are text.
  EXPECT_EQ(Body(test, "/apply-template",
                 R"({"messages":[{"role":"system","content":"a"},{"role":"developer","content":"b"},)"
                 R"({"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":"d"}]}]})"),
            R"({"prompt":"<|im_start|>system\na\n\nb<|im_end|>\n<|im_start|>user\ncd<|im_end|>\n)"
            R"(<|im_start|>assistant\n<think>\n"})");
  EXPECT_EQ(test.queue.requests.size(), 0u);
}

TEST(Routes, OperatorsKwargsAreBelowTheRequests) {
  ApiOptions options;
  options.chat_template_kwargs = R"({"enable_thinking": false})";
  TestServer test(options);
  const std::string hi = R"({"messages":[{"role":"user","content":"hi"}])";
  EXPECT_NE(Body(test, "/apply-template", hi + "}").find("</think>"), std::string::npos);
  EXPECT_EQ(Body(test, "/apply-template", hi + R"(,"chat_template_kwargs":{"enable_thinking":true}})").find("</think>"),
            std::string::npos);
  EXPECT_FALSE(ApiServer::Make({.chat_template_kwargs = "[]"}, &test.timer, nullptr).ok());
  EXPECT_FALSE(ApiServer::Make({.served_names = {}}, &test.timer, nullptr).ok());
}

TEST(Routes, RealTemplatesTakeEveryForm) {
  // Forms that some template raises on unless messages are prepared.
  const char* bodies[] = {
      R"({"messages":[{"role":"developer","content":"d"},{"role":"user","content":[{"type":"text","text":"x"}]}]})",
      R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":null,"reasoning":"r","tool_calls":)"
      R"([{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]},)"
      R"({"role":"tool","content":"R","tool_call_id":"1"}]})",
      R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"}]})",
  };
  for (const char* name :
       {"Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen3-Coder", "Qwen3.5-4B"}) {
    TestServer test({}, DemoText(std::string("test/data/chat_templates/") + name + ".jinja"));
    for (const char* body : bodies) {
      auto got = test.Post("/v1/chat/completions", body);
      EXPECT_EQ(got->response.status, 200) << name << " " << body << " " << got->response.body;
    }
  }
}

// --- States ---

TEST(Routes, EveryStateHasItsAnswers) {
  struct Row {
    const char* name;
    std::function<void(TestServer&)> enter;
    int livez, readyz, health, chat;
    const char *word, *code;
  };
  const Row rows[] = {
      {"ready", [](TestServer&) {}, 200, 200, 200, 200, "ok", "(no error)"},
      {"draining", [](TestServer& t) { t.server->SetDraining(); }, 200, 503, 503, 503, "draining", "shutting_down"},
      {"failed", [](TestServer& t) { t.server->SetFailed(); }, 503, 503, 503, 503, "failed", "engine_failed"},
      {"engine failed", [](TestServer& t) { t.queue.stats.failed = true; }, 503, 503, 503, 200, "failed", "(no error)"},
      {"silent",
       [](TestServer& t) {
         t.queue.stats.waiting = 1;
         t.queue.stats.heartbeat = t.timer.Now();
         t.timer.Advance(milliseconds(60'000));
       },
       503, 503, 503, 200, "failed", "(no error)"},
      {"busy",
       [](TestServer& t) {
         t.queue.stats.running = 1;
         t.queue.stats.heartbeat = t.timer.Now();
         t.timer.Advance(milliseconds(59'999));
       },
       200, 200, 200, 200, "ok", "(no error)"},
      {"idle for long",
       [](TestServer& t) {
         t.queue.stats.heartbeat = t.timer.Now();
         t.timer.Advance(milliseconds(1'000'000));
       },
       200, 200, 200, 200, "ok", "(no error)"},
      {"overloaded",
       [](TestServer& t) {
         t.queue.stats.waiting = 231;  // of 256
         t.queue.stats.heartbeat = t.timer.Now();
       },
       200, 503, 200, 200, "overloaded", "(no error)"},
      {"almost",
       [](TestServer& t) {
         t.queue.stats.waiting = 230;
         t.queue.stats.heartbeat = t.timer.Now();
       },
       200, 200, 200, 200, "ok", "(no error)"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    TestServer test;
    row.enter(test);
    EXPECT_EQ(test.Send("GET", "/livez", "")->response.status, row.livez);
    auto ready = test.Send("GET", "/readyz", "");
    EXPECT_EQ(ready->response.status, row.readyz);
    EXPECT_EQ(TextAt(ParseOrDie(ready->response.body), {"status"}), row.word);
    EXPECT_EQ(test.Send("GET", "/health", "")->response.status, row.health);
    EXPECT_EQ(test.Send("GET", "/v1/health", "")->response.status, row.health);
    auto chat = test.Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}]})");
    EXPECT_EQ(chat->response.status, row.chat);
    EXPECT_EQ(ErrorCode(*chat), row.code);
  }
}

TEST(Routes, WhileLoading) {
  ManualTimer timer;
  TestServer test;
  test.server = ValueOrDie(ApiServer::Make(TestServer::Named({}), &timer, nullptr));
  test.routes = test.server->Routes();
  test.server->SetProgress(0.25);
  EXPECT_EQ(test.Get("/livez"), R"({"status":"ok"})");
  auto got = test.Send("GET", "/readyz", "");
  EXPECT_EQ(got->response.status, 503);
  EXPECT_EQ(got->response.body, R"({"status":"loading","progress":0.25})");
  got = test.Send("GET", "/health", "");
  EXPECT_EQ(got->response.status, 503);
  const Json json = ParseOrDie(got->response.body);
  EXPECT_EQ(TextAt(json, {"error", "message"}), "Loading model");
  EXPECT_EQ(TextAt(json, {"error", "type"}), "unavailable_error");
  EXPECT_EQ(TextAt(json, {"error", "code"}), "model_loading");
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template"}) {
    got = test.Send("POST", path, "{}");
    EXPECT_EQ(got->response.status, 503) << path;
    EXPECT_EQ(ErrorCode(*got), "model_loading");
    EXPECT_FALSE(HeaderOf(got->response, "retry-after").empty());
  }
  EXPECT_EQ(test.Send("GET", "/v1/models", "")->response.status, 503);
  EXPECT_EQ(test.Send("GET", "/metrics", "")->response.status, 200);
  EXPECT_EQ(test.Send("GET", "/version", "")->response.status, 200);
}

TEST(Routes, AModelWithoutTextIsNotATextServer) {
  TestServer test({}, text::TextModel());
  auto got = test.Send("POST", "/v1/chat/completions", "{}");
  EXPECT_EQ(got->response.status, 501);
  EXPECT_TRUE(test.Get("/v1/models").starts_with(R"({"object":"list")"));
}

// --- Metrics ---

TEST(Routes, Metrics) {
  ApiOptions options;
  options.metrics_aliases = {"vllm", "llamacpp"};
  TestServer test(options);
  test.queue.stats.running = 3;
  test.queue.stats.pages = 10;
  test.queue.stats.pages_free = 4;
  test.queue.stats.generated_tokens = 77;
  test.queue.stats.generation_seconds = 1.5;
  AccessRecord record{
      .method = "POST", .path = "/v1/chat/completions", .route = "/v1/chat/completions", .status = 200, .seconds = 0.4};
  test.server->OnAccess(record);
  test.server->OnAccess(record);
  record.method = "BREW\n\"";
  record.refused = "auth";
  record.status = 401;
  test.server->OnAccess(record);
  auto got = test.Send("GET", "/metrics", "");
  EXPECT_EQ(got->response.content_type, "text/plain; version=0.0.4; charset=utf-8");
  const std::string& text = got->response.body;
  for (const char* line :
       {"# TYPE qwenrt_num_requests_running gauge", "qwenrt_num_requests_running{model_name=\"demo\"} 3",
        "vllm:num_requests_running{model_name=\"demo\"} 3", "llamacpp:requests_processing{model_name=\"demo\"} 3",
        "qwenrt_kv_cache_usage_perc{model_name=\"demo\"} 0.6", "# TYPE qwenrt_generation_tokens_total counter",
        "qwenrt_generation_tokens_total{model_name=\"demo\"} 77",
        "llamacpp:tokens_predicted_total{model_name=\"demo\"} 77",
        "llamacpp:tokens_predicted_seconds_total{model_name=\"demo\"} 1.5",
        R"(qwenrt_http_requests_total{model_name="demo",route="/v1/chat/completions",method="POST",status="200"} 2)",
        R"(qwenrt_http_requests_total{model_name="demo",route="/v1/chat/completions",method="other",status="401"} 1)",
        R"(qwenrt_rejected_total{model_name="demo",reason="auth"} 1)",
        R"(qwenrt_http_request_duration_seconds_bucket{model_name="demo",route="/v1/chat/completions",le="0.3"} 0)",
        R"(qwenrt_http_request_duration_seconds_bucket{model_name="demo",route="/v1/chat/completions",le="0.5"} 3)",
        R"(qwenrt_http_request_duration_seconds_bucket{model_name="demo",route="/v1/chat/completions",le="+Inf"} 3)",
        R"(qwenrt_time_to_first_token_seconds_bucket{model_name="demo",le="0.001"} 0)",
        R"(qwenrt_build_info{model_name="demo",version="0.1.0",commit="abcdef012345",plan="0123456789abcdef"} 1)"})
    EXPECT_NE(("\n" + text).find("\n" + std::string(line) + "\n"), std::string::npos) << line;
  // The format's own rules: a heading once a name, every line a comment or a sample.
  std::vector<std::string> types;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("# TYPE ")) types.push_back(line);
    if (!line.starts_with("#")) {
      EXPECT_NE(line.find("{model_name=\"demo\""), std::string::npos) << line;
    }
  }
  std::sort(types.begin(), types.end());
  EXPECT_EQ(std::adjacent_find(types.begin(), types.end()), types.end());
}

TEST(Metrics, CountersAreExactUnderConcurrency) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        metrics.rejected_total.At("reason=\"x\"").Add();
        metrics.e2e_request_latency_seconds.Observe(1);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.rejected_total.At("reason=\"x\"").count(), 40'000u);
  EXPECT_EQ(metrics.e2e_request_latency_seconds.Read().sum, 40'000);
  EXPECT_EQ(metrics.e2e_request_latency_seconds.Read().cumulative.back(), 40'000u);
}

}  // namespace
}  // namespace qwen::server
