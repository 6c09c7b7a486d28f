// A real server on loopback: what well-behaved clients see.
#include "runtime/server/http/http_server.h"

#include <gtest/gtest.h>
#include <sys/un.h>

#include "test/runtime/server/http/loopback.h"

namespace qwen::server {
namespace {

using std::chrono::milliseconds;

ApiKeys Keys(const char* text) { return *ApiKeys::Parse(text, "keys"); }

/// The `code` of an error's body.
std::string CodeOf(const Answer& answer) {
  const size_t at = answer.body.find("\"code\":\"");
  if (at == std::string::npos) return "";
  return answer.body.substr(at + 8, answer.body.find('"', at + 8) - at - 8);
}

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
  ASSERT_TRUE(client.Send(Post("/echo", "{\"a\": 1}")));
  EXPECT_EQ(client.Read().body, "{\"a\": 1}");
  EXPECT_EQ(loopback.server().stats().total, 1);
}

TEST(HttpServer, ARequestInSingleBytes) {
  Loopback loopback;
  Client client = loopback.Connect();
  for (char byte : Post("/echo", "abc") + Get("/rest/%41?q")) ASSERT_TRUE(client.Send({&byte, 1}));
  EXPECT_EQ(client.Read().body, "abc");
  EXPECT_EQ(client.Read().body, "/rest/A|q|");
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  Loopback loopback;
  Client client = loopback.Connect();
  std::string all;
  for (int i = 0; i < 200; ++i) all += Get("/rest/" + std::to_string(i)) + Post("/echo", std::to_string(i));
  all += Get("/nothing") + Get("/ping");
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(client.Read().body, "/rest/" + std::to_string(i) + "||");
    ASSERT_EQ(client.Read().body, std::to_string(i));
  }
  EXPECT_EQ(client.Read().status, 404);
  EXPECT_EQ(client.Read().body, "pong");
}

TEST(HttpServer, PipelinedRequestsRunOneAtATime) {
  Loopback loopback;
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "1") + Post("/hold", "2")));
  Held first = loopback.NextHeld();
  EXPECT_EQ(first.request.body, "1");
  // Another connection's request passes through both pools: the second one would have been there by now.
  Client other = loopback.Connect();
  ASSERT_TRUE(other.Send(Post("/echo", "x")));
  EXPECT_EQ(other.Read().body, "x");
  EXPECT_EQ(loopback.held(), 0);
  first.responder->Reply({.body = "one"});
  EXPECT_EQ(client.Read().body, "one");
  Held second = loopback.NextHeld();
  EXPECT_EQ(second.request.body, "2");
  first.responder->Reply({.body = "stale"});
  second.responder->Reply({.body = "two"});
  EXPECT_EQ(client.Read().body, "two");
}

TEST(HttpServer, Http10) {
  Loopback loopback;
  Client plain = loopback.Connect();
  ASSERT_TRUE(plain.Send("GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n"));
  const Answer answer = plain.Read();
  EXPECT_EQ(answer.body, "pong");
  EXPECT_EQ(answer.Header("connection"), "close");
  EXPECT_TRUE(plain.AtEnd());

  Client keep = loopback.Connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(keep.Send("GET /ping HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"));
    EXPECT_EQ(keep.Read().Header("connection"), "keep-alive");
  }

  // A stream for it has no chunks and ends with the connection.
  Client stream = loopback.Connect();
  ASSERT_TRUE(
      stream.Send("POST /hold HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Connection: keep-alive\r\nContent-Length: 0\r\n\r\n"));
  stream.HalfClose();  // for 1.0 the request's end, not the client's
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  source->Give("data: 1\n\n");
  held.responder->Stream({.content_type = "text/event-stream"}, source, "");
  source->Give("data: 2\n\n");
  source->End();
  held.responder->Wake();
  const Answer streamed = stream.Read();
  EXPECT_EQ(streamed.Header("transfer-encoding"), "");
  EXPECT_EQ(streamed.body, "data: 1\n\ndata: 2\n\n");
}

TEST(HttpServer, HeadIsGetWithoutABody) {
  Loopback loopback;
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send("HEAD /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" + Get("/ping")));
  const Answer head = client.Read(false), get = client.Read();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Header("content-length"), "4");
  EXPECT_EQ(get.body, "pong");
}

TEST(HttpServer, RequestIds) {
  Loopback loopback;
  Client client = loopback.Connect();
  auto id = [&](const std::string& given) {
    EXPECT_TRUE(client.Send(Get("/ping", "X-Request-Id: " + given + "\r\n")));
    return client.Read().Header("x-request-id");
  };
  EXPECT_EQ(id("a.B_c-9"), "a.B_c-9");
  EXPECT_EQ(id(std::string(64, 'x')), std::string(64, 'x'));
  for (const std::string& bad : {std::string(65, 'x'), std::string("a b"), std::string("a\"b"), std::string()})
    EXPECT_EQ(id(bad).size(), 32) << bad;
  EXPECT_NE(id("?"), id("?"));
}

TEST(HttpServer, WrongPathsMethodsAndTypes) {
  Loopback loopback;
  Client client = loopback.Connect();
  auto ask = [&](const std::string& request) {
    EXPECT_TRUE(client.Send(request));
    const Answer answer = client.Read();
    EXPECT_EQ(answer.Header("content-type"), "application/json; charset=utf-8");
    EXPECT_EQ(answer.Header("connection"), "");
    return std::to_string(answer.status) + " " + CodeOf(answer) + " " + answer.Header("allow");
  };
  auto post = [&](const std::string& fields) {
    return ask("POST /echo HTTP/1.1\r\nHost: localhost\r\n" + fields + "Content-Length: 2\r\n\r\n{}");
  };
  EXPECT_EQ(ask(Get("/none")), "404 unknown_url ");
  EXPECT_EQ(ask(Post("/none", "{}")), "404 unknown_url ");
  EXPECT_EQ(ask(Get("/ping/")), "404 unknown_url ");
  EXPECT_EQ(ask(Get("/echo")), "405 method_not_allowed POST, OPTIONS");
  EXPECT_EQ(ask(Post("/ping", "{}")), "405 method_not_allowed GET, HEAD, OPTIONS");
  EXPECT_EQ(ask("BREW /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"), "405 method_not_allowed GET, HEAD, OPTIONS");
  EXPECT_EQ(ask("DELETE /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"), "501 not_supported ");
  EXPECT_EQ(ask("DELETE /none HTTP/1.1\r\nHost: localhost\r\n\r\n"), "404 unknown_url ");
  EXPECT_EQ(post(""), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: text/plain\r\n"), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: application/jsonx\r\n"), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: application/+json\r\n"), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: application/x-www-form-urlencoded\r\n"), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: application/json; charset=latin1\r\n"), "415 unsupported_media_type ");
  EXPECT_EQ(post("Content-Type: application/json\r\nContent-Encoding: gzip\r\n"), "415 unsupported_media_type ");
  for (const char* good :
       {"application/json", "Application/JSON; Charset=UTF-8", "application/vnd.x+json", "application/json;x=y"}) {
    ASSERT_TRUE(client.Send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: identity\r\nContent-Type: " +
                            std::string(good) + "\r\nContent-Length: 2\r\n\r\n{}"));
    EXPECT_EQ(client.Read().status, 200) << good;
  }
  // None of these cost the connection.
  EXPECT_EQ(loopback.server().stats().total, 1);
}

TEST(HttpServer, KeysAreAskedForOnEveryPathNotOpen) {
  Loopback loopback({.keys = Keys("alice:sk-1")});
  Client client = loopback.Connect();
  auto ask = [&](const std::string& request) {
    EXPECT_TRUE(client.Send(request));
    return client.Read();
  };
  for (const char* path : {"/rest/a", "/none", "/echo"}) {
    const Answer answer = ask(Get(path));
    EXPECT_EQ(answer.status, 401) << path;
    EXPECT_EQ(CodeOf(answer), "invalid_api_key");
    EXPECT_EQ(answer.Header("www-authenticate"), "Bearer");
  }
  EXPECT_EQ(ask(Get("/rest/a", "Authorization: Bearer sk-2\r\n")).status, 401);
  EXPECT_EQ(ask(Get("/rest/a", "Authorization: Bearer sk-1\r\n")).body, "/rest/a||alice");
  EXPECT_EQ(ask(Get("/rest/a", "X-Api-Key: sk-1\r\n")).body, "/rest/a||alice");
  EXPECT_EQ(ask(Get("/ping")).status, 200);
  EXPECT_EQ(ask(Post("/echo", "{}")).status, 401);
  EXPECT_EQ(loopback.server().stats().total, 1);
  // With a key, the Host may be any.
  EXPECT_EQ(ask("GET /ping HTTP/1.1\r\nHost: evil.example\r\n\r\n").status, 200);

  ASSERT_TRUE(loopback.server().SetKeys(Keys("bob:sk-2")).ok());
  EXPECT_EQ(ask(Get("/rest/a", "X-Api-Key: sk-1\r\n")).status, 401);
  EXPECT_EQ(ask(Get("/rest/a", "X-Api-Key: sk-2\r\n")).body, "/rest/a||bob");
  EXPECT_FALSE(loopback.server().SetKeys({}).ok());
}

TEST(HttpServer, HostsAndOriginsOfOthersAreRefused) {
  Loopback loopback({.allowed_hosts = {"box.lan"}, .cors = {.origins = {"http://page.example"}}});
  Client client = loopback.Connect();
  auto ask = [&](const std::string& host, const std::string& fields) {
    EXPECT_TRUE(client.Send("GET /ping HTTP/1.1\r\nHost: " + host + "\r\n" + fields + "\r\n"));
    const Answer answer = client.Read();
    return std::to_string(answer.status) + " " + CodeOf(answer) + answer.Header("access-control-allow-origin");
  };
  EXPECT_EQ(ask("evil.example", ""), "403 host_not_allowed");
  EXPECT_EQ(ask("box.lan:80", ""), "200 ");
  EXPECT_EQ(ask("localhost", "Origin: http://evil.example\r\n"), "403 origin_not_allowed");
  EXPECT_EQ(ask("localhost", "Origin: http://localhost\r\n"), "200 ");
  EXPECT_EQ(ask("localhost", "Origin: http://page.example\r\n"), "200 http://page.example");
}

TEST(HttpServer, PreflightNeedsNoKey) {
  Loopback loopback({.keys = Keys("sk-1"), .cors = {.origins = {"http://page.example"}, .credentials = true}});
  Client client = loopback.Connect();
  ASSERT_TRUE(
      client.Send("OPTIONS /echo HTTP/1.1\r\nHost: box\r\nOrigin: http://page.example\r\n"
                  "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a, x-b\r\n\r\n"));
  Answer answer = client.Read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "");
  EXPECT_EQ(answer.Header("allow"), "POST, OPTIONS");
  EXPECT_EQ(answer.Header("access-control-allow-origin"), "http://page.example");
  EXPECT_EQ(answer.Header("access-control-allow-credentials"), "true");
  EXPECT_EQ(answer.Header("access-control-allow-methods"), "GET, POST");
  EXPECT_EQ(answer.Header("access-control-allow-headers"), "x-a, x-b");
  EXPECT_EQ(answer.Header("access-control-max-age"), "600");
  EXPECT_EQ(answer.Header("vary"), "Origin");
  // Without an Origin, or at a path that is not there, it is an OPTIONS like any other.
  ASSERT_TRUE(client.Send("OPTIONS * HTTP/1.1\r\nHost: box\r\n\r\n"));
  answer = client.Read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.Header("access-control-allow-methods"), "");
}

TEST(HttpServer, ContinueIsSaidOnlyOnceTheHeadIsAllowed) {
  Loopback loopback({.keys = Keys("sk-1"), .max_body_bytes = 100});
  auto head = [](const char* path, const char* key, int length) {
    return "POST " + std::string(path) + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Api-Key: " + key +
           "\r\nExpect: 100-continue\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n";
  };
  struct Case {
    const char *path, *key;
    int length, status;
  };
  for (const auto& [path, key, length, status] :
       {Case{"/echo", "sk-2", 2, 401}, Case{"/none", "sk-1", 2, 404}, Case{"/echo", "sk-1", 101, 413}}) {
    Client client = loopback.Connect();
    ASSERT_TRUE(client.Send(head(path, key, length)));
    const Answer answer = client.Read();
    EXPECT_EQ(answer.status, status);
    EXPECT_EQ(answer.Header("connection"), "close");
    EXPECT_TRUE(client.AtEnd());
  }
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(head("/echo", "sk-1", 2)));
  EXPECT_EQ(client.Read().status, 100);
  ASSERT_TRUE(client.Send("{}"));
  EXPECT_EQ(client.Read().body, "{}");
  // Who sends the body at once does not wait for it.
  ASSERT_TRUE(client.Send(head("/echo", "sk-1", 2) + "[]"));
  EXPECT_EQ(client.Read().body, "[]");
}

TEST(HttpServer, BodyLimitHoldsForBothFramings) {
  Loopback loopback({.max_body_bytes = 100});
  auto chunked = [](const std::string& chunks) {
    return "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: "
           "chunked\r\n\r\n" +
           chunks;
  };
  auto of_length = [](const std::string& length) {
    return "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " + length +
           "\r\n\r\n";
  };
  const std::string hundred(100, 'x');
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/echo", hundred)));
  EXPECT_EQ(client.Read().body, hundred);
  ASSERT_TRUE(
      client.Send(chunked("32\r\n" + hundred.substr(50) + "\r\n32\r\n" + hundred.substr(50) + "\r\n0\r\n\r\n")));
  EXPECT_EQ(client.Read().body, hundred);
  for (const std::string& request :
       {Post("/echo", hundred + "x"), of_length("9223372036854775808"), of_length("99999999999999999999999"),
        chunked("64\r\n" + hundred + "\r\n1\r\nx\r\n0\r\n\r\n"), chunked("65\r\n"), chunked("ffffffff\r\n")}) {
    SCOPED_TRACE(request);
    Client over = loopback.Connect();
    ASSERT_TRUE(over.Send(request));
    const Answer answer = over.Read();
    EXPECT_EQ(answer.status, 413);
    EXPECT_EQ(CodeOf(answer), "request_too_large");
    EXPECT_TRUE(over.AtEnd());
  }
  ASSERT_TRUE(client.Send(Get("/ping")));
  EXPECT_EQ(client.Read().body, "pong");
}

TEST(HttpServer, ALargeBodyAndALargeAnswer) {
  Loopback loopback;
  Client client = loopback.Connect();
  std::string body(size_t{8} << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2654435761u >> 24);
  std::thread sender([&] { EXPECT_TRUE(client.Send(Post("/echo", body))); });
  const Answer answer = client.Read();
  sender.join();
  EXPECT_TRUE(answer.body == body);
}

TEST(HttpServer, ADroppedResponderIsAnInternalError) {
  Loopback loopback;
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/drop", "{}", "X-Request-Id: r1\r\n")));
  const Answer answer = client.Read();
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(CodeOf(answer), "internal_error");
  EXPECT_NE(answer.body.find("\"request_id\":\"r1\""), std::string::npos);
}

TEST(HttpServer, StreamsArePulledAsTheyGrow) {
  Loopback loopback;
  Client client = loopback.Connect();
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(client.Send(Post("/hold", "{}")));
    Held held = loopback.NextHeld();
    auto source = std::make_shared<TestSource>();
    held.responder->Stream({.headers = {{"x-a", "b"}}, .content_type = "text/event-stream"}, source, "");
    const std::string head = client.ReadRaw(1);
    EXPECT_NE(head.find("transfer-encoding: chunked\r\n"), std::string::npos);
    EXPECT_NE(head.find("content-type: text/event-stream\r\n"), std::string::npos);
    for (int i = 0; i < 10; ++i) {
      const std::string event = "data: " + std::to_string(i) + "\n\n";
      source->Give(event);
      held.responder->Wake();
      EXPECT_EQ(client.ReadRaw(14), "9\r\n" + event + "\r\n");
    }
    source->End();
    held.responder->Wake();
    EXPECT_EQ(client.ReadRaw(5), "0\r\n\r\n");
  }
  EXPECT_EQ(loopback.server().stats().total, 1);
  // After an error in the stream the connection ends as well.
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  source->Give("data: error\n\n");
  source->End(true);
  held.responder->Stream({}, source, "");
  const Answer answer = client.Read();
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.body, "data: error\n\n");
  EXPECT_TRUE(client.AtEnd());
}

TEST(HttpServer, ASilentStreamIsPinged) {
  Loopback loopback({.ping_interval = milliseconds(5)});
  Client client = loopback.Connect();
  ASSERT_TRUE(client.Send(Post("/hold", "{}")));
  Held held = loopback.NextHeld();
  auto source = std::make_shared<TestSource>();
  held.responder->Stream({}, source, ": ping\n\n");
  std::string received;
  auto pings = [&] {
    size_t count = 0;
    for (size_t at = 0; (at = received.find("8\r\n: ping\n\n\r\n", at)) != std::string::npos; ++at) ++count;
    return count;
  };
  while (pings() < 3) {
    const std::string more = client.ReadRaw(1);
    ASSERT_FALSE(more.empty());
    received += more;
  }
  source->End();
  held.responder->Wake();
  while (received.find("\r\n0\r\n\r\n") == std::string::npos) received += client.ReadRaw(1);
}

TEST(HttpServer, AccessRecords) {
  Loopback loopback({.keys = Keys("alice:sk-1"), .max_body_bytes = 10});
  Client client = loopback.Connect();
  const std::string get = Get("/rest/a", "X-Api-Key: sk-1\r\nX-Request-Id: r1\r\n");
  ASSERT_TRUE(client.Send(get));
  const Answer answer = client.Read();
  ASSERT_TRUE(client.Send(Get("/rest/b")));
  client.Read();
  ASSERT_TRUE(client.Send(Post("/echo", "12345678901", "X-Api-Key: sk-1\r\n")));
  client.Read();
  Client bad = loopback.Connect();
  ASSERT_TRUE(bad.Send("nonsense\r\n"));
  bad.Read();
  const std::vector<AccessRecord> records = loopback.WaitRecords(4);
  EXPECT_EQ(records[0].id, "r1");
  EXPECT_EQ(records[0].key_name, "alice");
  EXPECT_EQ(records[0].peer, "127.0.0.1");
  EXPECT_EQ(records[0].method, "GET");
  EXPECT_EQ(records[0].path, "/rest/a");
  EXPECT_EQ(records[0].route, "/rest/*");
  EXPECT_EQ(records[0].status, 200);
  EXPECT_EQ(records[0].bytes_in, get.size());
  EXPECT_EQ(records[0].bytes_out, answer.head.size() + 2 + answer.body.size());
  EXPECT_EQ(records[0].refused, "");
  EXPECT_FALSE(records[0].client_gone);
  EXPECT_EQ(records[1].refused, "auth");
  EXPECT_EQ(records[1].status, 401);
  EXPECT_EQ(records[2].refused, "too_large");
  EXPECT_EQ(records[2].route, "/echo");
  EXPECT_EQ(records[3].refused, "invalid_http");
  EXPECT_EQ(records[3].route, "other");
  EXPECT_EQ(records[3].status, 400);
}

TEST(HttpServer, AFullWorkerQueueIs429) {
  // The one worker is held inside a handler, the one place in the queue is taken.
  std::mutex mutex;
  std::condition_variable changed;
  int inside = 0;
  bool release = false;
  std::vector<Route> routes;
  routes.push_back({"GET", "/slow", Route::Access::kOpen, Route::Where::kWorker,
                    [&](HttpRequest, std::shared_ptr<Responder> responder) {
                      std::unique_lock lock(mutex);
                      ++inside;
                      changed.notify_all();
                      changed.wait(lock, [&] { return release; });
                      responder->Reply({.body = "done"});
                    }});
  HttpServerOptions options{.listen = {"127.0.0.1:0"}, .io_threads = 1, .worker_threads = 1, .max_worker_queue = 1};
  auto server = HttpServer::Start(options, std::move(routes));
  ASSERT_TRUE(server.ok());
  Client first((*server)->ports()[0]), second((*server)->ports()[0]), third((*server)->ports()[0]);
  ASSERT_TRUE(first.Send(Get("/slow")));
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, kPatience, [&] { return inside == 1; }));
  }
  ASSERT_TRUE(second.Send(Get("/slow") + Get("/none")));
  ASSERT_TRUE(third.Send(Get("/none")));
  EXPECT_EQ(third.Read().status, 404);  // one loop: the second's request was there before
  ASSERT_TRUE(third.Send(Get("/slow")));
  const Answer answer = third.Read();
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(CodeOf(answer), "queue_full");
  EXPECT_EQ(answer.Header("retry-after"), "1");
  EXPECT_EQ(answer.Header("retry-after-ms"), "1000");
  {
    std::lock_guard lock(mutex);
    release = true;
  }
  changed.notify_all();
  EXPECT_EQ(first.Read().body, "done");
  EXPECT_EQ(second.Read().body, "done");
  EXPECT_EQ(second.Read().status, 404);
}

TEST(HttpServer, UnixSocketsNeedNoHost) {
  const std::string path = testing::TempDir() + "/qwen_http_test_" + std::to_string(getpid()) + ".sock";
  auto start = [&] {
    std::vector<Route> routes;
    routes.push_back(
        {"GET", "/ping", Route::Access::kKey, Route::Where::kIo,
         [](HttpRequest request, std::shared_ptr<Responder> responder) { responder->Reply({.body = request.peer}); }});
    return HttpServer::Start({.listen = {"unix:" + path, "127.0.0.1:0"}}, std::move(routes));
  };
  {
    auto server = start();
    ASSERT_TRUE(server.ok()) << server.status().message();
    EXPECT_EQ((*server)->ports()[0], 0);
    EXPECT_NE((*server)->ports()[1], 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    Client client(fd, connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    ASSERT_TRUE(client.connected());
    ASSERT_TRUE(client.Send("GET /ping HTTP/1.1\r\nHost: anything\r\n\r\n"));
    EXPECT_EQ(client.Read().body, "unix");
    // A second server cannot take a socket that is listened at.
    auto other = start();
    ASSERT_FALSE(other.ok());
    EXPECT_EQ(other.status().code(), StatusCode::kResourceExhausted);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  // One that a crash left behind is taken over; a file that is no socket is left alone.
  {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    close(fd);
    EXPECT_TRUE(start().ok());
  }
  FILE* file = std::fopen(path.c_str(), "w");
  std::fclose(file);
  EXPECT_FALSE(start().ok());
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  unlink(path.c_str());
}

TEST(HttpServer, StartRefusesWhatIsUnsafeOrImpossible) {
  auto start = [](std::vector<std::string> listen, bool allow = false, ApiKeys keys = {}) {
    HttpServerOptions options{.listen = std::move(listen), .keys = std::move(keys), .allow_unauthenticated = allow};
    auto server = HttpServer::Start(std::move(options), {});
    return server.ok() ? Status() : server.status();
  };
  const Status open = start({"0.0.0.0:0"});
  EXPECT_EQ(open.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(open.message(), "0.0.0.0:0: anybody who reaches this address could use the server: there is no API key");
  EXPECT_EQ(open.hint(), "give --api-key-file, listen at 127.0.0.1, or say --allow-unauthenticated");
  EXPECT_FALSE(start({"127.0.0.1:0", "0.0.0.0:0"}).ok());
  EXPECT_TRUE(start({"0.0.0.0:0"}, true).ok());
  EXPECT_TRUE(start({"0.0.0.0:0"}, false, Keys("sk-1")).ok());
  EXPECT_TRUE(start({"127.0.0.2:0", "localhost:0"}).ok());
  for (const char* wrong : {"", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80",
                            "unix:", "no host:80", "127.0.0.1:99999999999999999999"})
    EXPECT_EQ(start({wrong}).code(), StatusCode::kInvalidArgument) << wrong;
  EXPECT_EQ(start({"unix:/" + std::string(200, 'x')}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(start({}).code(), StatusCode::kInvalidArgument);
  Loopback loopback;
  const Status used = start({"127.0.0.1:" + std::to_string(loopback.port())});
  EXPECT_EQ(used.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(used.message().find("cannot listen: Address already in use"), std::string::npos) << used.message();
}

}  // namespace
}  // namespace qwen::server
