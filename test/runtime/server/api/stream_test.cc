// What happens while an answer is on its way: several choices, slow readers, failures, time-outs, clients that leave.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

using std::chrono::milliseconds;

constexpr char kChatPath[] = "/v1/chat/completions", kTextPath[] = "/v1/completions";
// Without reasoning, so that every token is part of the answer.
std::string Plain(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}],"reasoning_effort":"none",)" + more + "}";
}
const std::string kStream = R"("stream":true)";

/// What a client puts together from a stream.
struct Joined {
  std::string content, reasoning, finish, logprob_bytes;
  std::vector<int64_t> prompt_offsets;
  int chunks = 0;  // with content
  bool role_first = false, finished = false;
};
std::string BytesOf(const Json& logprobs) {
  std::string bytes;
  if (const Json* content = logprobs.Find("content"))
    for (const Json& entry : content->items())
      for (const Json& byte : At(entry, {"bytes"}).items()) bytes += static_cast<char>(byte.AsInteger());
  return bytes;
}
std::map<int64_t, Joined> Join(const FakeResponder& got) {
  std::map<int64_t, Joined> choices;
  for (const std::string& event : Events(got.response.body)) {
    if (event == "[DONE]") continue;
    const Json json = ParseOrDie(event);
    for (const Json& item : At(json, {"choices"}).items()) {
      Joined& choice = choices[At(item, {"index"}).AsInteger()];
      EXPECT_FALSE(choice.finished);
      if (const Json* text = item.Find("text")) choice.content += text->AsString();
      if (const Json* delta = item.Find("delta")) {
        if (delta->Find("role")) choice.role_first = choice.content.empty() && choice.reasoning.empty();
        if (const Json* content = delta->Find("content"); content && content->IsString()) {
          choice.content += content->AsString();
          ++choice.chunks;
        }
        if (const Json* reasoning = delta->Find("reasoning_content")) choice.reasoning += reasoning->AsString();
      }
      choice.logprob_bytes += BytesOf(At(item, {"logprobs"}));
      if (const Json& reason = At(item, {"finish_reason"}); reason.IsString()) {
        choice.finish = reason.AsString();
        choice.finished = true;
      }
    }
  }
  return choices;
}

TEST(Stream, OneChunkAStepWhateverTheStepAccepted) {
  TestServer test;
  test.Says("The quick brown fox jumps over the lazy dog", kImEnd);
  test.queue.tokens_per_step = 5;
  auto got = test.Send("POST", kChatPath, Plain(kStream));
  size_t portions = got->portions.size();
  while (test.queue.Step()) {
    ASSERT_LE(got->portions.size(), portions + 2);  // the last step's text and its end
    portions = got->portions.size();
    EXPECT_LE(Events(got->portions.back()).size(), 4u);
  }
  const Joined choice = Join(*got)[0];
  const size_t tokens = DemoTokenizer().Encode("The quick brown fox jumps over the lazy dog").size();
  EXPECT_EQ(choice.content, "The quick brown fox jumps over the lazy dog");
  EXPECT_EQ(choice.chunks, static_cast<int>((tokens + 4) / 5));
}

TEST(Stream, ASlowReaderGetsFewerAndLargerChunks) {
  TestServer test;
  test.Says("The quick brown fox jumps over the lazy dog", kImEnd);
  auto got = std::make_shared<FakeResponder>();
  got->reads = false;
  test.SendTo(got, "POST", kChatPath, Plain(kStream));
  test.RunAll();
  EXPECT_GT(got->waiting(), 0u);
  got->Read();
  EXPECT_TRUE(got->done);
  const Joined choice = Join(*got)[0];
  EXPECT_EQ(choice.content, "The quick brown fox jumps over the lazy dog");
  EXPECT_EQ(choice.chunks, 1);
  EXPECT_EQ(got->waiting(), 0u);
}

TEST(Stream, ChoicesAreApart) {
  TestServer test;
  const char* texts[] = {"one", "two of them", "three"};
  test.queue.script = [&](const engine::Request&, int choice) {
    std::vector<int32_t> tokens = DemoTokenizer().Encode(texts[choice]);
    if (choice != 1) tokens.push_back(kImEnd);
    return tokens;
  };
  auto got = test.Post(kChatPath, Plain(kStream + R"(,"n":3)"));
  EXPECT_EQ(test.queue.requests.size(), 1u);
  EXPECT_EQ(test.queue.requests[0].choices, 3);
  auto choices = Join(*got);
  ASSERT_EQ(choices.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(choices[i].role_first);
    EXPECT_EQ(choices[i].content, texts[i]);
    EXPECT_EQ(choices[i].finish, i == 1 ? "length" : "stop");
  }
}

TEST(StreamProperty, StreamedIsUnstreamed) {
  std::mt19937 random(7);
  auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  const std::string pieces[] = {"Hello", " world", "\n",       "\n\n", "</think>",         "<think>",
                                "\xc3",  "\xa9",   "\xe2\x82", "\xac", "\xf0\x9f\x98\x80", "stop",
                                "sto",   "!"};
  for (int round = 0; round < 300; ++round) {
    TestServer test;
    std::vector<std::vector<int32_t>> scripts(3);
    for (auto& script : scripts) {
      for (size_t i = below(20); i > 0; --i) {
        const std::string& piece = pieces[below(std::size(pieces))];
        for (size_t at = 0; at < piece.size();) {
          size_t length = std::min(piece.size() - at, 1 + below(6));
          std::optional<int32_t> token;
          while (!(token = DemoTokenizer().Find(std::string_view(piece).substr(at, length)))) --length;
          script.push_back(*token);
          at += length;
        }
      }
      if (below(2)) script.push_back(below(2) ? kImEnd : kEndOfText);
    }
    test.queue.script = [&](const engine::Request&, int choice) { return scripts[static_cast<size_t>(choice)]; };
    std::string more = R"("n":3,"logprobs":true,"top_logprobs":1)";
    if (below(2)) more += R"(,"stop":["stop","!\n"])";
    if (below(2)) more += R"(,"include_stop_str_in_output":true)";
    const std::string effort = below(2) ? R"("reasoning_effort":"none",)" : "";
    const std::string body = R"({"messages":[{"role":"user","content":"hi"}],)" + effort + more;
    auto whole = test.Post(kChatPath, body + "}");
    ASSERT_EQ(whole->response.status, 200);
    const Json json = ParseOrDie(whole->response.body);

    test.queue.tokens_per_step = 1 + below(5);
    auto streamed = std::make_shared<FakeResponder>();
    test.SendTo(streamed, "POST", kChatPath, body + ",\"stream\":true}");
    for (bool goes_on = true; goes_on;) {  // a reader of moods
      streamed->reads = below(2) == 0;
      goes_on = test.queue.Step();
    }
    streamed->Read();
    ASSERT_TRUE(streamed->done);
    auto joined = Join(*streamed);
    for (size_t i = 0; i < 3; ++i) {
      const Json& choice = At(json, {"choices", std::to_string(i)});
      const Json& content = At(choice, {"message", "content"});
      const Joined& other = joined[static_cast<int64_t>(i)];
      ASSERT_EQ(content.IsNull() ? "" : content.AsString(), other.content);
      const Json* reasoning = At(choice, {"message"}).Find("reasoning_content");
      ASSERT_EQ(reasoning ? reasoning->AsString() : "", other.reasoning);
      ASSERT_EQ(TextAt(choice, {"finish_reason"}), other.finish);
      ASSERT_EQ(BytesOf(At(choice, {"logprobs"})), other.logprob_bytes);
      ASSERT_EQ(text::ReplaceIllFormed(other.logprob_bytes), other.content);
    }
  }
}

TEST(Stream, TextOfCompletionsIsTheSameToo) {
  TestServer test;
  test.Says("<think>\nHello</think> world", kImEnd);
  const std::string body = R"({"prompt":["a","b"],"n":2,"echo":true,"logprobs":1,"max_tokens":50)";
  const Json whole = ParseOrDie(test.Post(kTextPath, body + "}")->response.body);
  auto streamed = test.Post(kTextPath, body + ",\"stream\":true}");
  auto joined = Join(*streamed);
  ASSERT_EQ(joined.size(), 4u);
  std::vector<std::string> tokens(4);
  std::vector<std::vector<int64_t>> offsets(4);
  for (const std::string& event : Events(streamed->response.body)) {
    if (event == "[DONE]") continue;
    const Json json = ParseOrDie(event);
    for (const Json& item : At(json, {"choices"}).items()) {
      const auto i = static_cast<size_t>(At(item, {"index"}).AsInteger());
      if (const Json& list = At(item, {"logprobs", "tokens"}); list.IsArray())
        for (const Json& token : list.items()) tokens[i] += token.AsString();
      if (const Json& list = At(item, {"logprobs", "text_offset"}); list.IsArray())
        for (const Json& offset : list.items()) offsets[i].push_back(offset.AsInteger());
    }
  }
  for (size_t i = 0; i < 4; ++i) {
    const Json& choice = At(whole, {"choices", std::to_string(i)});
    EXPECT_EQ(TextAt(choice, {"text"}), (i < 2 ? "a" : "b") + std::string("<think>\nHello</think> world"));
    EXPECT_EQ(joined[static_cast<int64_t>(i)].content, TextAt(choice, {"text"}));
    EXPECT_EQ(tokens[i], TextAt(choice, {"text"}));
    std::vector<int64_t> whole_offsets;
    for (const Json& offset : At(choice, {"logprobs", "text_offset"}).items())
      whole_offsets.push_back(offset.AsInteger());
    EXPECT_EQ(offsets[i], whole_offsets);
  }
}

// --- Failures ---

TEST(Stream, AFailureBehindTheFirstByteIsAnEvent) {
  TestServer test;
  auto got = test.Send("POST", kChatPath, Plain(kStream + R"(,"n":2)"));
  test.queue.Step();
  test.queue.FailAll();
  test.timer.Run();
  ASSERT_TRUE(got->done);
  EXPECT_TRUE(got->closed);
  const std::vector<std::string> events = Events(got->response.body);
  const Json error = ParseOrDie(events[events.size() - 2]);
  EXPECT_EQ(TextAt(error, {"error", "code"}), "internal_error");
  EXPECT_EQ(TextAt(error, {"error", "type"}), "server_error");
  EXPECT_TRUE(At(error, {"error", "param"}).IsNull());
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST(Stream, AFailureOfAnAnswerInOnePieceIsItsStatus) {
  TestServer test;
  auto got = test.Send("POST", kChatPath, Plain(R"("n":2)"));
  test.queue.Step();
  test.queue.FailAll();
  test.timer.Run();
  ASSERT_EQ(got->answers, 1);
  EXPECT_EQ(got->response.status, 500);
  EXPECT_EQ(ErrorCode(*got), "internal_error");
  EXPECT_EQ(HeaderOf(got->response, "x-should-retry"), "false");

  got = test.Send("POST", kChatPath, Plain(R"("n":1)"));
  test.queue.stats.failed = true;
  test.queue.FailAll();
  test.timer.Run();
  EXPECT_EQ(got->response.status, 503);
  EXPECT_EQ(ErrorCode(*got), "engine_failed");
}

TEST(Stream, AnEngineThatGivesUpIsShuttingDown) {
  TestServer test;
  auto got = test.Send("POST", kChatPath, Plain(R"("n":2)"));
  test.queue.Cancel(1);
  test.timer.Run();
  ASSERT_EQ(got->answers, 1);
  EXPECT_EQ(got->response.status, 503);
  EXPECT_EQ(ErrorCode(*got), "shutting_down");
}

TEST(Stream, WhoLeavesIsCancelledInEveryPhase) {
  for (const char* stream : {"true", "false"}) {
    for (int phase = 0; phase < 3; ++phase) {
      TestServer test;
      auto got = test.Send("POST", kTextPath, R"({"prompt":["a","b"],"n":2,"stream":)" + std::string(stream) + "}");
      if (phase >= 1) test.queue.Prefill();
      if (phase >= 2) test.queue.Step();
      const int answers = got->answers;
      got->Leave(Gone::kClientClosed);
      EXPECT_EQ(test.queue.cancelled, (std::vector<engine::RequestId>{1, 2}));
      EXPECT_EQ(test.queue.open(), 0u);
      test.timer.Run();
      EXPECT_EQ(got->answers, answers);
      const char* phases[] = {"queued", "prefill", "decode"};
      const std::string metrics = test.Get("/metrics");
      EXPECT_NE(metrics.find("qwenrt_client_disconnects_total{model_name=\"demo\",phase=\"" +
                             std::string(phases[phase]) + "\"} 1\n"),
                std::string::npos);
      EXPECT_NE(metrics.find(R"(qwenrt_request_success_total{model_name="demo",finished_reason="abort"} 4)"),
                std::string::npos);
    }
  }
}

TEST(Stream, SlowReadersAreCounted) {
  TestServer test;
  auto got = test.Send("POST", kChatPath, Plain(kStream));
  test.queue.Step();
  got->Leave(Gone::kTooSlow);
  EXPECT_EQ(test.queue.open(), 0u);
  EXPECT_NE(test.Get("/metrics").find("qwenrt_slow_client_closes_total{model_name=\"demo\"} 1\n"), std::string::npos);
}

TEST(Stream, WaitingTooLong) {
  ApiOptions options;
  options.queue_timeout = milliseconds(1000);
  TestServer test(options);
  auto whole = test.Send("POST", kChatPath, Plain(R"("n":2)"));
  auto streamed = test.Send("POST", kChatPath, Plain(kStream));
  test.timer.Advance(milliseconds(999));
  EXPECT_FALSE(whole->done);
  test.timer.Advance(milliseconds(1));
  EXPECT_EQ(whole->response.status, 503);
  EXPECT_EQ(ErrorCode(*whole), "queue_timeout");
  EXPECT_FALSE(HeaderOf(whole->response, "retry-after").empty());
  ASSERT_TRUE(streamed->done);
  EXPECT_TRUE(streamed->closed);
  EXPECT_NE(streamed->response.body.find("queue_timeout"), std::string::npos);
  EXPECT_EQ(test.queue.open(), 0u);
  // One that is under way may take as long as it likes.
  auto runs = test.Send("POST", kChatPath, Plain(R"("n":1)"));
  test.queue.Prefill();
  test.timer.Advance(milliseconds(100'000));
  EXPECT_FALSE(runs->done);
  test.RunAll();
  EXPECT_EQ(runs->response.status, 200);
}

TEST(Stream, RunningTooLong) {
  ApiOptions options;
  options.request_timeout = milliseconds(2000);
  TestServer test(options);
  auto whole = test.Send("POST", kChatPath, Plain(R"("n":1)"));
  auto streamed = test.Send("POST", kChatPath, Plain(kStream));
  test.queue.Step();
  test.timer.Advance(milliseconds(2000));
  EXPECT_EQ(whole->response.status, 504);
  EXPECT_EQ(ErrorCode(*whole), "deadline_exceeded");
  EXPECT_TRUE(streamed->closed);
  EXPECT_EQ(test.queue.open(), 0u);
  EXPECT_EQ(test.timer.pending(), 0u);
}

TEST(Stream, NoTimerIsLeftBehind) {
  ApiOptions options;
  options.request_timeout = milliseconds(2000);
  TestServer test(options);
  test.Post(kChatPath, Plain(R"("n":1)"));
  test.Post(kChatPath, Plain(kStream));
  EXPECT_EQ(test.timer.pending(), 0u);
}

// --- Extras ---

TEST(Stream, ProgressOfThePrompt) {
  TestServer test;
  test.queue.cached_tokens = 3;
  auto got = test.Post(kChatPath, Plain(kStream + R"(,"return_progress":true)"));
  int seen = 0;
  for (const std::string& event : Events(got->response.body)) {
    if (event == "[DONE]") continue;
    const Json json = ParseOrDie(event);
    if (!json.Find("prompt_progress")) continue;
    ++seen;
    EXPECT_TRUE(At(json, {"choices"}).items().empty());
    const auto tokens = static_cast<int64_t>(test.queue.requests[0].prompt.size());
    EXPECT_EQ(At(json, {"prompt_progress", "total"}).AsInteger(), tokens);
    EXPECT_EQ(At(json, {"prompt_progress", "processed"}).AsInteger(), tokens);
    EXPECT_EQ(At(json, {"prompt_progress", "cache"}).AsInteger(), 3);
  }
  EXPECT_EQ(seen, 1);
}

TEST(Stream, TimingsOfEveryTokenWhereAsked) {
  TestServer test;
  auto timings = [&](const std::string& more) {
    int seen = 0;
    for (const std::string& event : Events(test.Post(kChatPath, Plain(kStream + more))->response.body))
      seen += event.find("\"timings\":{") != event.npos;
    return seen;
  };
  EXPECT_EQ(timings(""), 1);
  EXPECT_EQ(timings(R"(,"timings_per_token":true)"),
            1 + static_cast<int>(DemoTokenizer().Encode("Hello world").size()));
}

TEST(Stream, TimesAreTheClocks) {
  TestServer test;
  test.Says("ab", -1);
  auto got = test.Send("POST", kTextPath, R"({"prompt":[1,2,3,4],"max_tokens":2})");
  test.timer.Advance(milliseconds(500));
  test.queue.Prefill();
  test.timer.Advance(milliseconds(200));
  test.queue.script = [](const engine::Request&, int) { return std::vector<int32_t>{65, 66}; };
  test.queue.Step();
  test.timer.Advance(milliseconds(40));
  test.RunAll();
  const Json json = ParseOrDie(got->response.body);
  EXPECT_EQ(At(json, {"timings", "prompt_ms"}).AsNumber(), 200);
  EXPECT_EQ(At(json, {"timings", "prompt_per_second"}).AsNumber(), 20);
  EXPECT_EQ(At(json, {"timings", "predicted_ms"}).AsNumber(), 40);
  EXPECT_EQ(At(json, {"timings", "predicted_per_second"}).AsNumber(), 50);
  const std::string metrics = test.Get("/metrics");
  auto has = [&](const std::string& line) { return metrics.find("qwenrt_" + line + "\n") != std::string::npos; };
  EXPECT_TRUE(has(R"(request_queue_time_seconds_sum{model_name="demo"} 0.5)"));
  EXPECT_TRUE(has(R"(request_prefill_time_seconds_sum{model_name="demo"} 0.2)"));
  EXPECT_TRUE(has(R"(time_to_first_token_seconds_sum{model_name="demo"} 0.7)"));
  EXPECT_TRUE(has(R"(inter_token_latency_seconds_sum{model_name="demo"} 0.04)"));
  EXPECT_TRUE(has(R"(inter_token_latency_seconds_count{model_name="demo"} 1)"));
  EXPECT_TRUE(has(R"(e2e_request_latency_seconds_sum{model_name="demo"} 0.74)"));
  EXPECT_TRUE(has(R"(request_generation_tokens_sum{model_name="demo"} 2)"));
  EXPECT_TRUE(has(R"(request_success_total{model_name="demo",finished_reason="length"} 1)"));
}

TEST(Stream, ManyThreads) {
  // The engine on a thread of its own, readers on others, clients that leave: every request is answered once or left.
  TestServer test;
  ThreadTimer timer;
  auto server = ValueOrDie(ApiServer::Make(TestServer::Named({}), &timer, nullptr));
  struct LockedQueue final : engine::RequestQueue {
    std::mutex mutex;
    ScriptedQueue queue;
    StatusOr<engine::RequestId> Submit(engine::Request request, std::shared_ptr<engine::RequestSink> sink) override {
      std::lock_guard lock(mutex);
      return queue.Submit(std::move(request), std::move(sink));
    }
    void Cancel(engine::RequestId id) override {
      std::lock_guard lock(mutex);
      queue.Cancel(id);
    }
    engine::EngineStats Stats() const override { return {}; }
    double PromptRate() const override { return 0; }
  } queue;
  queue.queue.script = test.queue.script;
  ServedModel model;
  model.text = DemoText();
  model.queue = &queue;
  model.max_model_len = 512;
  server->SetReady(std::move(model));
  const std::vector<Route> routes = server->Routes();
  const Handler* chat = nullptr;
  for (const Route& route : routes)
    if (route.pattern == kChatPath) chat = &route.handler;

  struct LockedResponder final : Responder {
    std::mutex mutex;
    std::condition_variable changed;
    std::shared_ptr<BodySource> source;
    std::function<void(Gone)> gone;
    std::string body;
    int answers = 0;
    bool done = false, woken = false;
    void Reply(HttpResponse r) override {
      std::lock_guard lock(mutex);
      body = r.body;
      ++answers;
      done = true;
      changed.notify_all();
    }
    void Stream(HttpResponse, std::shared_ptr<BodySource> s, std::string_view) override {
      std::lock_guard lock(mutex);
      source = std::move(s);
      ++answers;
      woken = true;
      changed.notify_all();
    }
    void Wake() override {
      std::lock_guard lock(mutex);
      woken = true;
      changed.notify_all();
    }
    void OnGone(std::function<void(Gone)> g) override {
      std::lock_guard lock(mutex);
      gone = std::move(g);
    }
    void ReadAll() {
      std::unique_lock lock(mutex);
      while (!done) {
        changed.wait(lock, [&] { return done || (woken && source); });
        if (done) return;
        woken = false;
        std::shared_ptr<BodySource> from = source;
        lock.unlock();
        std::string portion;
        const bool goes_on = from->Pull(&portion);
        lock.lock();
        body += portion;
        done = !goes_on;
      }
    }
  };
  std::atomic<bool> stop{false};
  std::thread engine([&] {
    while (!stop) {
      {
        std::lock_guard lock(queue.mutex);
        queue.queue.Step();
      }
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> clients;
  std::atomic<int> whole{0};
  for (int c = 0; c < 4; ++c)
    clients.emplace_back([&, c] {
      for (int i = 0; i < 50; ++i) {
        auto responder = std::make_shared<LockedResponder>();
        HttpRequest http;
        http.method = "POST";
        http.body = Plain(c % 2 ? kStream : R"("n":2)");
        (*chat)(std::move(http), responder);
        if (i % 5 == 4) {
          std::function<void(Gone)> gone;
          {
            std::lock_guard lock(responder->mutex);
            gone = responder->gone;
          }
          gone(Gone::kClientClosed);
          continue;
        }
        responder->ReadAll();
        EXPECT_EQ(responder->answers, 1);
        whole += responder->body.find("\"finish_reason\":\"stop\"") != std::string::npos ||
                 responder->body.find("\"finish_reason\":\"length\"") != std::string::npos;
      }
    });
  for (std::thread& client : clients) client.join();
  stop = true;
  engine.join();
  EXPECT_EQ(whole, 4 * 40);
}

}  // namespace
}  // namespace qwen::server
