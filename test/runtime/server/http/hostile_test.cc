// A real server on loopback, and clients that are slow, leave at any point, or lie. After each of them the next request
// works, and nothing of theirs is left: no descriptor, no thread, no connection, no open request.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <climits>
#include <csignal>
#include <random>

#include "test/runtime/server/http/loopback.h"
#include "test/sanitizers.h"

namespace qwen::server {
namespace {

using std::chrono::milliseconds;

constexpr size_t At(Phase phase) { return static_cast<size_t>(phase); }

class Hostile : public testing::Test {
 protected:
  void SetUp() override {
    std::thread([] {}).join();  // the first thread of all may bring a sanitizer's own
    descriptors_ = OpenDescriptors();
    // A thread that is joined may be listed for a moment longer, so the fewest of all tests count.
    threads_ = std::min(threads_, OpenThreads());
  }
  void TearDown() override {
    EXPECT_EQ(OpenDescriptors(), descriptors_);
    EXPECT_TRUE(Eventually([&] { return OpenThreads() <= threads_; }));
  }

  /// The server is as if the clients before had never been.
  static void ExpectUnharmed(Loopback& loopback, int descriptors) {
    // No connection may also mean one that is not accepted yet, so both, and once more behind a request.
    auto as_before = [&] { return loopback.server().stats().open == 0 && OpenDescriptors() == descriptors; };
    EXPECT_TRUE(Eventually(as_before));
    Client client = loopback.Connect();
    ASSERT_TRUE(client.Send(Get("/ping") + Post("/echo", "{}")));
    EXPECT_EQ(client.Read().body, "pong");
    EXPECT_EQ(client.Read().body, "{}");
    client.Close();
    EXPECT_TRUE(Eventually(as_before));
  }

  int descriptors_ = 0;
  static inline int threads_ = INT_MAX;
};

/// Sends `bytes` one by one with a millisecond's wait for an answer between; the answer that comes.
Answer Trickle(Client& client, std::string_view bytes) {
  for (char byte : bytes) {
    pollfd answer = {.fd = client.fd(), .events = POLLIN, .revents = 0};
    if (poll(&answer, 1, 1) != 0 || !client.Send({&byte, 1})) break;
  }
  return client.Read();
}

TEST_F(Hostile, ASlowHeadIs408HoweverItsBytesCome) {
  Loopback loopback({.header_timeout = milliseconds(50)});
  const int descriptors = OpenDescriptors();
  for (bool trickle : {false, true}) {
    Client client = loopback.Connect();
    if (!trickle) ASSERT_TRUE(client.Send("GET /ping HT"));
    const Answer answer = trickle ? Trickle(client, "GET /ping?" + std::string(7000, 'x')) : client.Read();
    EXPECT_EQ(answer.status, 408);
    EXPECT_NE(answer.body.find("request_timeout"), std::string::npos);
    EXPECT_EQ(answer.Header("connection"), "close");
    EXPECT_TRUE(client.AtEnd());
  }
  EXPECT_EQ(loopback.server().stats().timed_out[At(Phase::kHead)], 2);
  EXPECT_EQ(loopback.WaitRecords(2)[0].refused, "timeout");
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, AConnectionThatSaysNothingEndsWithoutAnAnswer) {
  Loopback loopback({.header_timeout = milliseconds(20)});
  Client client = loopback.Connect();
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(Hostile, AnIdleConnectionEndsAfterTheKeepAliveTime) {
  Loopback loopback({.keepalive_timeout = milliseconds(20)});
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Get("/ping")));
  EXPECT_EQ(client.Read().body, "pong");
  EXPECT_TRUE(client.AtEnd());
  EXPECT_EQ(loopback.server().stats().timed_out[At(Phase::kIdle)], 1);
}

TEST_F(Hostile, ABodyThatStopsIs408) {
  Loopback loopback({.body_timeout = milliseconds(20)});
  const int descriptors = OpenDescriptors();
  for (const std::string& framing :
       {std::string("Content-Length: 10\r\n\r\n"), std::string("Transfer-Encoding: chunked\r\n\r\na\r\n")}) {
    Client client = loopback.Connect();
    ASSERT_TRUE(
        client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + framing + "123"));
    EXPECT_EQ(client.Read().status, 408);
    EXPECT_TRUE(client.AtEnd());
  }
  EXPECT_EQ(loopback.server().stats().timed_out[At(Phase::kBody)], 2);
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, ABodyThatTricklesIs408) {
  Loopback loopback({.body_grace = milliseconds(50), .body_bytes_per_second = 1 << 20});
  Client client = loopback.Connect();
  ASSERT_TRUE(
      client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Content-Length: 100000\r\n\r\n"));
  EXPECT_EQ(Trickle(client, std::string(20000, 'x')).status, 408);
}

TEST_F(Hostile, LimitsOfTheHead) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  auto status = [&](const std::string& request) {
    Client client = loopback.Connect();
    client.Send(request);  // the server may stop taking it half way
    const Answer answer = client.Read();
    if (answer.status != 200) EXPECT_TRUE(client.AtEnd());
    return answer.status;
  };
  auto line = [](size_t bytes) { return "GET /ping?" + std::string(bytes - 19, 'a') + " HTTP/1.1\r\n"; };
  const std::string host = "Host: localhost\r\n";
  EXPECT_EQ(status(line(8192) + host + "\r\n"), 200);
  EXPECT_EQ(status(line(8193) + host + "\r\n"), 431);
  EXPECT_EQ(status(line(10'000'000)), 431);
  auto head = [&](size_t bytes) {
    const std::string rest = line(100) + host + "X: \r\n\r\n";
    return line(100) + host + "X: " + std::string(bytes - rest.size(), 'x') + "\r\n\r\n";
  };
  EXPECT_EQ(status(head(32768)), 200);
  EXPECT_EQ(status(head(32769)), 431);
  EXPECT_EQ(status(head(10'000'000)), 431);
  auto headers = [&](int count) {
    std::string request = line(100) + host;
    for (int i = 1; i < count; ++i) request += "X: 1\r\n";
    return request + "\r\n";
  };
  EXPECT_EQ(status(headers(100)), 200);
  EXPECT_EQ(status(headers(101)), 431);
  EXPECT_EQ(status(headers(5000)), 431);
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, SmuggledRequestsAreNotRun) {
  Loopback loopback;
  const std::string post = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const std::string inner = Post("/hold", "{}");
  for (const std::string& request : {
           post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
           post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner,
           post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner,
           post + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + inner,
           post + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + inner,
           post + "Content-Length: 0\r\n X: y\r\n\r\n" + inner,
           "GET /ping HTTP/1.1\r\nHost: localhost\r\nX: a\n\n" + inner,
       }) {
    SCOPED_TRACE(request);
    Client client = loopback.Connect();
    ASSERT_TRUE(client.Send(request));
    EXPECT_EQ(client.Read().status, 400);
    EXPECT_TRUE(client.AtEnd());
  }
  EXPECT_EQ(loopback.held(), 0);
}

/// How a client leaves.
enum class Leave { kClose, kReset, kHalfClose };

class Leaving : public Hostile, public testing::WithParamInterface<Leave> {
 protected:
  static void Go(Client& client) {
    if (GetParam() == Leave::kReset) client.Reset();
    if (GetParam() == Leave::kClose) client.Close();
    if (GetParam() == Leave::kHalfClose) client.HalfClose();
  }
};

TEST_P(Leaving, WhileTheHeadComes) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send("GET /ping HTTP/1.1\r\nHo"));
  Go(client);
  EXPECT_TRUE(Eventually([&] { return loopback.server().stats().open == 0; }));
  client.Close();
  ExpectUnharmed(loopback, descriptors);
}

TEST_P(Leaving, WhileTheBodyComes) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(
      client.Send("POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"));
  ASSERT_EQ(client.Read().status, 100);
  ASSERT_TRUE(client.Send("123"));
  Go(client);
  const AccessRecord record = loopback.WaitRecords(1)[0];
  EXPECT_EQ(record.status, 499);
  EXPECT_TRUE(record.client_gone);
  client.Close();
  EXPECT_EQ(loopback.server().stats().lost[At(Phase::kBody)], 1);
  EXPECT_EQ(loopback.held(), 0);
  ExpectUnharmed(loopback, descriptors);
}

TEST_P(Leaving, WhileTheRequestRuns) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  Go(client);
  EXPECT_EQ(loopback.WaitGone(1), std::vector<Gone>{Gone::kClientClosed});
  EXPECT_EQ(loopback.WaitRecords(1)[0].status, 499);
  client.Close();
  // An OnGone that comes late hears of it at once; the answer goes nowhere.
  std::vector<Gone> late;
  held.responder->OnGone([&](Gone why) { late.push_back(why); });
  EXPECT_EQ(late, std::vector<Gone>{Gone::kClientClosed});
  held.responder->Reply({.body = "late"});
  ExpectUnharmed(loopback, descriptors);
  EXPECT_EQ(loopback.WaitGone(1).size(), 1);
  EXPECT_EQ(loopback.server().stats().lost[At(Phase::kRunning)], 1);
}

TEST_P(Leaving, WhileTheRequestRunsWithMorePipelinedThanIsRead) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  // Less than the socket's buffer takes: behind a full one the end itself would wait.
  ASSERT_TRUE(client.Send(std::string(100'000, 'x')));
  Go(client);
  EXPECT_EQ(loopback.WaitGone(1), std::vector<Gone>{Gone::kClientClosed});
  client.Close();
  ExpectUnharmed(loopback, descriptors);
}

TEST_P(Leaving, WhileAStreamIsSilent) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  source->Give("data: 1\n\n");
  held.responder->Stream({}, source, "");
  EXPECT_EQ(client.ReadRaw(1).substr(0, 12), "HTTP/1.1 200");
  Go(client);
  EXPECT_EQ(loopback.WaitGone(1), std::vector<Gone>{Gone::kClientClosed});
  const AccessRecord record = loopback.WaitRecords(1)[0];
  EXPECT_EQ(record.status, 200);
  EXPECT_TRUE(record.client_gone);
  client.Close();
  held.responder->Wake();
  EXPECT_EQ(source.use_count(), 1);
  ExpectUnharmed(loopback, descriptors);
}

std::string NameOf(const testing::TestParamInfo<Leave>& leave) {
  constexpr const char* kNames[] = {"Close", "Reset", "HalfClose"};
  return kNames[static_cast<int>(leave.param)];
}
INSTANTIATE_TEST_SUITE_P(Hostile, Leaving, testing::Values(Leave::kClose, Leave::kReset, Leave::kHalfClose), NameOf);

TEST_F(Hostile, LeavingWhileQueuedTheHandlerIsNeverCalled) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> calls;
  std::vector<int> statuses;
  bool release = false;
  std::vector<Route> routes;
  routes.push_back({"GET", "/slow/*", Route::Access::kOpen, Route::Where::kWorker,
                    [&](HttpRequest request, std::shared_ptr<Responder> responder) {
                      std::unique_lock lock(mutex);
                      calls.push_back(request.path);
                      changed.notify_all();
                      changed.wait(lock, [&] { return release; });
                      responder->Reply({});
                    }});
  HttpServerOptions options{.listen = {"127.0.0.1:0"}, .io_threads = 1, .worker_threads = 1};
  options.on_access = [&](const AccessRecord& record) {
    std::lock_guard lock(mutex);
    statuses.push_back(record.status);
    changed.notify_all();
  };
  auto server = HttpServer::Start(options, std::move(routes));
  ASSERT_TRUE(server.ok());
  auto wait = [&](const std::function<bool()>& done) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, done);
  };
  Client first((*server)->ports()[0]), second((*server)->ports()[0]), third((*server)->ports()[0]);
  ASSERT_TRUE(first.Send(Get("/slow/1")));
  ASSERT_TRUE(wait([&] { return calls.size() == 1; }));
  ASSERT_TRUE(second.Send(Get("/slow/2")));
  second.Close();  // the bytes come before the end does
  ASSERT_TRUE(wait([&] { return statuses == std::vector<int>{499}; }));
  ASSERT_TRUE(third.Send(Get("/slow/3")));
  {
    std::lock_guard lock(mutex);
    release = true;
  }
  changed.notify_all();
  EXPECT_EQ(first.Read().status, 200);
  EXPECT_EQ(third.Read().status, 200);
  EXPECT_EQ(calls, (std::vector<std::string>{"/slow/1", "/slow/3"}));
}

TEST_F(Hostile, ResetWhileAStreamIsWrittenRaisesNoSignal) {
  ASSERT_EQ(std::signal(SIGPIPE, SIG_DFL), SIG_DFL);
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  for (int i = 0; i < 20; ++i) {
    Client client = loopback.Connect();
    ASSERT_TRUE(client.Send(Post("/hold", "{}")));
    Held held = loopback.NextHeld();
    auto source = std::make_shared<TestSource>();
    held.responder->Stream({}, source, "");
    client.ReadRaw(1);
    client.Reset();
    for (int event = 0; event < 100; ++event) {
      source->Give("data: x\n\n");
      held.responder->Wake();
    }
    EXPECT_EQ(loopback.WaitGone(static_cast<size_t>(i) + 1).back(), Gone::kClientClosed);
  }
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, AReaderThatNeverReadsIsCutOff) {
  Loopback loopback({.send_timeout = milliseconds(50)});
  const int descriptors = OpenDescriptors();
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  held.responder->Reply({.body = std::string(size_t{64} << 20, 'x')});  // more than any socket buffer
  EXPECT_EQ(loopback.WaitGone(1), std::vector<Gone>{Gone::kSendTimeout});
  EXPECT_EQ(loopback.server().stats().timed_out[At(Phase::kSending)], 1);
  client.Close();
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, ASlowReaderOfAStreamIsCutOffAtItsBoundAndHoldsUpNobody) {
  Loopback loopback({.max_waiting_bytes = 100'000});
  const int descriptors = OpenDescriptors();
  Client slow = loopback.Connect();
  ASSERT_TRUE(slow.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  held.responder->Stream({}, source, "");
  // Until the socket's buffers are full everything is taken at once; from there on it waits in the source.
  const std::string piece(10'000, 'x');
  size_t largest = 0;
  Client other = loopback.Connect();
  ASSERT_TRUE(Eventually([&] {
    source->Give(piece);
    held.responder->Wake();
    largest = std::max(largest, source->waiting_bytes());
    return loopback.server().stats().too_slow == 1;
  }));
  EXPECT_EQ(loopback.WaitGone(1), std::vector<Gone>{Gone::kTooSlow});
  EXPECT_GT(largest, 100'000u);
  ASSERT_TRUE(other.Send(Get("/ping")));
  EXPECT_EQ(other.Read().body, "pong");
  slow.Close();
  other.Close();
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, AReaderThatFallsBehindAndCatchesUpMissesNothing) {
  Loopback loopback({.max_waiting_bytes = size_t{1} << 30});
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  held.responder->Stream({}, source, "");
  std::string all;
  for (int i = 0; i < 200'000; ++i) {
    const std::string event = "data: " + std::to_string(i) + " and some more text to fill the sockets' buffers\n\n";
    all += event;
    source->Give(event);
    if (i % 100 == 0) held.responder->Wake();
  }
  source->End();
  held.responder->Wake();
  const Answer answer = client.Read();
  EXPECT_TRUE(answer.whole);
  EXPECT_TRUE(answer.body == all) << answer.body.size() << " of " << all.size() << " bytes";
}

TEST_F(Hostile, TheConnectionAfterTheLastAllowedIsTold) {
  Loopback loopback({.max_connections = 4});
  const int descriptors = OpenDescriptors();
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(loopback.Connect());
    ASSERT_TRUE(clients.back().Send(Get("/ping")));
    ASSERT_EQ(clients.back().Read().status, 200);
  }
  for (int i = 0; i < 3; ++i) {
    Client over = loopback.Connect();
    over.Send(Get("/ping"));
    const Answer answer = over.Read();
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.Header("retry-after"), "1");
    EXPECT_TRUE(over.AtEnd());
    over.Close();
    EXPECT_TRUE(Eventually([&] { return loopback.server().stats().open == 4; }));
  }
  EXPECT_EQ(loopback.server().stats().refused, 3);
  clients.clear();
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, FarAboveTheLimitConnectionsEndWithoutAWord) {
  Loopback loopback({.max_connections = 1, .linger_timeout = milliseconds(60'000)});
  const int descriptors = OpenDescriptors();
  std::vector<Client> clients;
  for (int i = 0; i < 200; ++i) clients.push_back(loopback.Connect());
  EXPECT_TRUE(Eventually([&] { return loopback.server().stats().refused == 199; }));
  EXPECT_LE(loopback.server().stats().open, 65);
  clients.clear();
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, OneAddressHasItsOwnLimit) {
  Loopback loopback({.max_connections_per_address = 2});
  const int descriptors = OpenDescriptors();
  {
    Client first = loopback.Connect(), second = loopback.Connect();
    ASSERT_TRUE(first.Send(Get("/ping")) && second.Send(Get("/ping")));
    EXPECT_EQ(first.Read().status, 200);
    EXPECT_EQ(second.Read().status, 200);
    Client third = loopback.Connect();
    EXPECT_EQ(third.Read().status, 429);
  }
  ExpectUnharmed(loopback, descriptors);
}

/// Lets the process open `count` descriptors, as far as it may.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t count) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit limit = {std::min(count, before_.rlim_max), before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &limit);
    enough_ = limit.rlim_cur == count;
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  bool enough() const { return enough_; }

 private:
  rlimit before_;
  bool enough_;
};

TEST_F(Hostile, WithoutADescriptorLeftConnectionsWait) {
  Loopback loopback;
  const int descriptors = OpenDescriptors();
  {
    Client client = loopback.Connect();
    ASSERT_TRUE(client.Send(Get("/ping")));
    ASSERT_EQ(client.Read().status, 200);
    Client waiting = [&] {
      const DescriptorLimit none(static_cast<rlim_t>(client.fd()) + 64);
      std::vector<int> fill;
      for (int fd; (fd = dup(0)) >= 0;) fill.push_back(fd);
      close(fill.back());
      fill.pop_back();
      Client last = loopback.Connect();  // takes the one descriptor; the server has none to accept with
      EXPECT_TRUE(last.connected());
      EXPECT_TRUE(client.Send(Get("/ping")));
      EXPECT_EQ(client.Read().body, "pong");
      for (int fd : fill) close(fd);
      return last;
    }();
    ASSERT_TRUE(waiting.Send(Get("/ping")));
    EXPECT_EQ(waiting.Read().body, "pong");
  }
  ExpectUnharmed(loopback, descriptors);
}

long ResidentBytes() {
  long pages = 0, resident = 0;
  FILE* file = std::fopen("/proc/self/statm", "r");
  if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  std::fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

TEST_F(Hostile, AThousandConnections) {
  const DescriptorLimit limit(4096);
  if (!limit.enough()) GTEST_SKIP() << "this process may not have 4,096 descriptors";
  Loopback loopback({.max_worker_queue = 1000});
  const int descriptors = OpenDescriptors();
  const long before = ResidentBytes();
  {
    std::vector<Client> clients;
    for (int i = 0; i < 1000; ++i) {
      clients.push_back(loopback.Connect());
      ASSERT_TRUE(clients.back().connected());
    }
    for (int round = 0; round < 2; ++round) {
      for (Client& client : clients) ASSERT_TRUE(client.Send(Post("/echo", std::string(2000, 'x'))));
      for (Client& client : clients) ASSERT_EQ(client.Read().status, 200);
    }
    EXPECT_EQ(loopback.server().stats().open, 1000);
    if (!QWEN_SANITIZED) {
      const long grown = ResidentBytes() - before;
      EXPECT_LT(grown, 40l << 20);
      RecordProperty("resident_kib", static_cast<int>(grown >> 10));
    }
  }
  ExpectUnharmed(loopback, descriptors);
}

TEST_F(Hostile, DrainAnswersWhatRunsAndRefusesWhatComes) {
  Loopback loopback;
  Client running = loopback.Connect(), idle = loopback.Connect(), streaming = loopback.Connect();
  ASSERT_TRUE(idle.Send(Get("/ping")));
  EXPECT_EQ(idle.Read().status, 200);
  ASSERT_TRUE(running.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  ASSERT_TRUE(streaming.Send(Post("/hold", "{}")));
  Held stream = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  source->Give("data: first\n\n");
  stream.responder->Stream({}, source, "");
  std::string streamed = streaming.ReadRaw(1);  // its head promised more requests: nothing drained yet

  EXPECT_FALSE(loopback.server().Drain(milliseconds(1)));
  EXPECT_FALSE(Client(loopback.port()).connected());
  ASSERT_TRUE(idle.Send(Get("/ping")));
  const Answer refused = idle.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find("shutting_down"), std::string::npos);
  EXPECT_EQ(refused.Header("connection"), "close");
  EXPECT_TRUE(idle.AtEnd());

  held.responder->Reply({.body = "done"});
  source->Give("data: last\n\n");
  source->End();
  stream.responder->Wake();
  EXPECT_TRUE(loopback.server().Drain(kPatience));
  const Answer done = running.Read();
  EXPECT_EQ(done.body, "done");
  EXPECT_EQ(done.Header("connection"), "close");
  while (!streaming.AtEnd()) streamed += streaming.ReadRaw(1);
  EXPECT_NE(streamed.find("data: last\n\n"), std::string::npos);
  EXPECT_TRUE(streamed.ends_with("0\r\n\r\n"));
  loopback.Stop();
}

TEST_F(Hostile, StopEndsWhateverIsOpen) {
  Loopback loopback;
  Client silent = loopback.Connect(), head = loopback.Connect(), body = loopback.Connect(),
         running = loopback.Connect(), streaming = loopback.Connect(), blocked = loopback.Connect();
  ASSERT_TRUE(head.Send("GET /pi"));
  ASSERT_TRUE(
      body.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"));
  ASSERT_EQ(body.Read().status, 100);
  ASSERT_TRUE(running.Send(Post("/hold", "{}")));
  Held run = loopback.NextHeld();
  ASSERT_TRUE(streaming.Send(Post("/hold", "{}")));
  Held stream = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  source->Give("data: 1\n\n");
  stream.responder->Stream({}, source, "");
  std::string streamed = streaming.ReadRaw(1);
  ASSERT_TRUE(blocked.Send(Post("/hold", "{}")));
  loopback.NextHeld().responder->Reply({.body = std::string(size_t{64} << 20, 'x')});

  loopback.Stop();
  EXPECT_TRUE(silent.AtEnd());
  EXPECT_TRUE(head.AtEnd());
  EXPECT_EQ(body.Read().status, 503);
  const Answer answer = running.Read();
  EXPECT_EQ(answer.status, 503);
  EXPECT_NE(answer.body.find("shutting_down"), std::string::npos);
  while (!streaming.AtEnd()) streamed += streaming.ReadRaw(1);
  EXPECT_EQ(streamed.find("0\r\n\r\n"), std::string::npos);  // a cut stream does not look whole
  EXPECT_FALSE(blocked.Read().whole);
  EXPECT_EQ(loopback.WaitGone(3), std::vector<Gone>(3, Gone::kServerStopped));
  // Handlers may answer long after.
  run.responder->Reply({.body = "late"});
  run.responder->Wake();
  source->Give("data: 2\n\n");
  stream.responder->Wake();
  EXPECT_EQ(source.use_count(), 1);
}

TEST_F(Hostile, RandomBytesAndRandomEnds) {
  Loopback loopback({.header_timeout = milliseconds(200), .linger_timeout = milliseconds(50)});
  const int descriptors = OpenDescriptors();
  std::mt19937 random(7);
  const std::string parts[] = {
      Get("/ping"),
      Post("/echo", "{}"),
      Post("/drop", "{}"),
      Get("/none"),
      "GET / HTTP/1.1\r\n",
      "\r\n",
      "Host: localhost\r\n",
      std::string(300, 'x'),
      std::string("\0\xff\x80", 3),
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
      "5\r\nhello\r\n",
      "0\r\n\r\n",
      "HTTP/1.1 200 OK\r\n\r\n"};
  for (int round = 0; round < 500; ++round) {
    Client client = loopback.Connect();
    for (uint32_t count = random() % 6; count > 0; --count) {
      std::string part = parts[random() % std::size(parts)];
      if (random() % 3 == 0) part.resize(random() % (part.size() + 1));
      if (!client.Send(part)) break;
    }
    switch (random() % 3) {
      case 0:
        client.Reset();
        break;
      case 1:
        client.HalfClose();
        [[fallthrough]];
      case 2:
        client.Close();
        break;
    }
  }
  ExpectUnharmed(loopback, descriptors);
}

}  // namespace
}  // namespace qwen::server
