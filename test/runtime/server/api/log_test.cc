// Log lines: what stands in them, what must not, and a disk that is full.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

/// A log into a pipe, and a clock that stands still.
struct TestLog {
  explicit TestLog(bool json, int fd = -1) {
    EXPECT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    log = std::make_unique<Log>(Log::Options{.json = json, .now = [this] { return now; }}, fd < 0 ? ends[1] : fd);
  }
  ~TestLog() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  std::string Text() {
    std::string text(1 << 16, '\0');
    const ssize_t count = ::read(ends[0], text.data(), text.size());
    text.resize(count > 0 ? static_cast<size_t>(count) : 0);
    return text;
  }

  int ends[2];
  // 2026-01-02T03:04:05.678Z, from `date -u -d 2026-01-02T03:04:05Z +%s`
  Log::Clock::time_point now = Log::Clock::time_point() + std::chrono::milliseconds(1767323045678);
  std::unique_ptr<Log> log;
};

TEST(Log, Lines) {
  TestLog text(false), json(true);
  for (TestLog* log : {&text, &json})
    log->log->Write(LogLevel::kInfo, "http", "ready", {{"port", int64_t{8080}}, {"name", "a b"}, {"share", 0.5}});
  EXPECT_EQ(text.Text(), "2026-01-02T03:04:05.678Z INFO  http   ready port=8080 name=\"a b\" share=0.500\n");
  EXPECT_EQ(json.Text(), R"({"time":"2026-01-02T03:04:05.678Z","level":"INFO","room":"http","message":"ready",)"
                         R"("port":8080,"name":"a b","share":0.500})"
                         "\n");
}

TEST(Log, NothingForgesALine) {
  AccessRecord record{.id = "x\n2026 ERROR",
                      .key_name = "\x1b[31mred",
                      .peer = "1.2.3.4",
                      .method = "GET",
                      .path = "/\xff\xc2\x9b\"",
                      .route = "other",
                      .status = 404,
                      .refused = "auth"};
  for (bool json : {false, true}) {
    TestLog log(json);
    log.log->Access(record, nullptr);
    const std::string text = log.Text();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_EQ(text.find('\x1b'), text.npos);
    EXPECT_EQ(text.find("\xc2\x9b"), text.npos);
    EXPECT_EQ(text::ReplaceIllFormed(text), text);
    if (json) {
      EXPECT_TRUE(ParseJson(text, "line").ok());
    }
  }
}

TEST(Log, AccessSaysWhatTheRequestCost) {
  TestLog log(false);
  const GenerationSummary summary{.prompt_tokens = 11,
                                  .cached_tokens = 3,
                                  .completion_tokens = 6,
                                  .first_token_ms = 12.5,
                                  .total_ms = 99.25,
                                  .finish = "stop"};
  log.log->Access({.id = "r1",
                   .key_name = "ann",
                   .peer = "127.0.0.1",
                   .method = "POST",
                   .path = "/v1/chat/completions",
                   .route = "/v1/chat/completions",
                   .status = 499,
                   .bytes_in = 10,
                   .bytes_out = 20,
                   .seconds = 0.1,
                   .client_gone = true},
                  &summary);
  EXPECT_EQ(log.Text(),
            "2026-01-02T03:04:05.678Z INFO  http   request id=r1 key=ann peer=127.0.0.1 method=POST "
            "route=/v1/chat/completions status=499 bytes_in=10 bytes_out=20 ms=100.000 prompt_tokens=11 "
            "cached_tokens=3 completion_tokens=6 ttft_ms=12.500 e2e_ms=99.250 finish=stop client_closed=1\n");
}

TEST(Log, LinesEndAfterFourKiB) {
  TestLog log(false);
  std::vector<LogField> fields(100, LogField{"k", std::string(500, 'x')});
  log.log->Write(LogLevel::kInfo, "http", std::string(5000, 'm'), fields);
  const std::string text = log.Text();
  EXPECT_LE(text.size(), 4096u);
  EXPECT_EQ(text.back(), '\n');
}

TEST(Log, TheSameMessageIsFolded) {
  TestLog log(false);
  for (int i = 0; i < 25; ++i) log.log->Write(LogLevel::kWarning, "http", "again");
  log.log->Write(LogLevel::kWarning, "http", "another");
  std::string text = log.Text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 11);
  log.now += std::chrono::seconds(1);
  log.log->Write(LogLevel::kWarning, "http", "again");
  EXPECT_EQ(log.Text(), "2026-01-02T03:04:06.678Z WARN  http   again repeated=15\n");
}

TEST(Log, AFullDiskStopsNothing) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  {
    TestLog log(false, full);
    for (int i = 0; i < 3; ++i) log.log->Access({.id = std::to_string(i)}, nullptr);
    EXPECT_EQ(log.log->dropped(), 3u);
  }
  ::close(full);
  // A pipe that is full and gets room again says how much is missing.
  TestLog log(false);
  std::string line(4096, 'x');
  while (::write(log.ends[1], line.data(), line.size()) > 0) {
  }
  log.log->Write(LogLevel::kInfo, "a", "lost");
  EXPECT_EQ(log.log->dropped(), 1u);
  while (!log.Text().empty()) {
  }
  log.log->Write(LogLevel::kInfo, "a", "back");
  EXPECT_TRUE(log.Text().ends_with("back dropped_lines=1\n"));
  EXPECT_FALSE(Log::ToFile({}, "/nowhere/log").ok());
}

TEST(Log, SummaryOfTheEngineWhileBusy) {
  TestLog log(false);
  engine::EngineStats stats;
  log.log->Summary(stats);
  EXPECT_EQ(log.Text(), "");
  stats.running = 2;
  stats.waiting = 1;
  stats.steps = 5;
  stats.prompt_tokens = 1000;
  stats.generated_tokens = 200;
  stats.pages = 8;
  stats.pages_free = 6;
  stats.cache_queries = 400;
  stats.cache_hits = 100;
  log.now += std::chrono::seconds(10);
  log.log->Summary(stats);
  EXPECT_TRUE(
      log.Text().ends_with(" INFO  engine busy running=2 waiting=1 prefill_tok_s=100.000 decode_tok_s=20.000 "
                           "kv_percent=25.000 hit_percent=25.000\n"));
  stats.running = stats.waiting = 0;
  log.log->Summary(stats);
  EXPECT_EQ(log.Text(), "");
}

TEST(Log, TheServerJoinsExchangeAndGeneration) {
  TestLog log(false);
  TestServer test;
  test.server = ValueOrDie(ApiServer::Make(TestServer::Named({}), &test.timer, log.log.get()));
  ServedModel model;
  model.text = DemoText();
  model.queue = &test.queue;
  model.max_model_len = 512;
  model.eos_ids = {kImEnd};
  test.server->SetReady(std::move(model));
  test.routes = test.server->Routes();
  test.Post("/v1/completions", R"({"prompt":[1,2]})");
  test.server->OnAccess({.id = "test-id", .route = "/v1/completions", .status = 200});
  const std::string first = log.Text();
  EXPECT_NE(first.find("prompt_tokens=2 cached_tokens=0 completion_tokens="), first.npos) << first;
  test.server->OnAccess({.id = "test-id", .route = "/livez", .status = 200});
  EXPECT_EQ(log.Text().find("prompt_tokens"), std::string::npos);
  // Prompts and answers are in no line.
  EXPECT_EQ(first.find("Hello"), first.npos);
}

}  // namespace
}  // namespace qwen::server
