// A server on loopback and clients that send it raw bytes.
//
// Nothing here sleeps to let something happen: a client waits for bytes, for the end, or for what a handler or the
// access log reports. The limits on waiting only end a test that has failed already.
#ifndef QWEN_TEST_RUNTIME_SERVER_HTTP_LOOPBACK_H_
#define QWEN_TEST_RUNTIME_SERVER_HTTP_LOOPBACK_H_

#include <arpa/inet.h>
#include <dirent.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/server/http/http_server.h"

namespace qwen::server {

inline constexpr std::chrono::seconds kPatience{20};

/// Whether `done` becomes true before patience ends.
inline bool Eventually(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Descriptors this process has open.
inline int OpenDescriptors() {
  int count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder)) ++count;
  closedir(folder);
  return count;
}

inline int OpenThreads() {
  int count = 0;
  DIR* folder = opendir("/proc/self/task");
  while (readdir(folder)) ++count;
  closedir(folder);
  return count;
}

struct Answer {
  int status = 0;  // 0: the connection ended before a whole head
  std::string head;
  std::string body;
  bool whole = false;  // the body ended as its framing says

  /// Of a header; "" when it is not there.
  std::string Header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + 4 + name.size();
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class Client {
 public:
  explicit Client(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  explicit Client(int fd, bool connected) : fd_(fd), connected_(connected) {}
  Client(Client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_), received_(std::move(other.received_)) {}
  ~Client() { Close(); }

  bool connected() const { return connected_; }
  int fd() const { return fd_; }

  /// False when the server took not all of it.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      pollfd ready = {.fd = fd_, .events = POLLOUT, .revents = 0};
      if (poll(&ready, 1, Patience_ms()) != 1) return false;
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EAGAIN) continue;
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void HalfClose() { shutdown(fd_, SHUT_WR); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  /// With RST instead of FIN.
  void Reset() {
    const linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    Close();
  }

  /// The next answer; of HEAD, `has_body` is false.
  Answer Read(bool has_body = true) {
    Answer answer;
    size_t end;
    while ((end = received_.find("\r\n\r\n")) == std::string::npos)
      if (!Receive()) return answer;
    answer.head = received_.substr(0, end + 2);
    received_.erase(0, end + 4);
    answer.status = std::atoi(answer.head.c_str() + 9);
    if (answer.status == 100) {
      answer.whole = true;
      return answer;
    }
    const std::string length = answer.Header("content-length");
    if (!has_body) {
      answer.whole = true;
    } else if (!length.empty()) {
      const size_t bytes = std::stoul(length);
      while (received_.size() < bytes)
        if (!Receive()) return answer;
      answer.body = received_.substr(0, bytes);
      received_.erase(0, bytes);
      answer.whole = true;
    } else if (answer.Header("transfer-encoding") == "chunked") {
      while (ReadChunk(&answer)) continue;
    } else {
      while (Receive()) continue;
      answer.body = std::exchange(received_, {});
      answer.whole = true;
    }
    return answer;
  }
  /// Waits until `count` bytes are there, and gives what is.
  std::string ReadRaw(size_t count) {
    while (received_.size() < count && Receive()) continue;
    return std::exchange(received_, {});
  }
  /// Whether nothing but the end comes, by FIN or RST.
  bool AtEnd() { return received_.empty() && !Receive() && ended_; }

 private:
  static int Patience_ms() { return static_cast<int>(std::chrono::milliseconds(kPatience).count()); }

  bool Receive() {
    pollfd ready = {.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, Patience_ms()) != 1) return false;
    char bytes[65536];
    const ssize_t count = recv(fd_, bytes, sizeof(bytes), 0);
    if (count <= 0) {
      ended_ = true;
      return false;
    }
    received_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  bool ReadChunk(Answer* answer) {
    size_t end;
    while ((end = received_.find("\r\n")) == std::string::npos)
      if (!Receive()) return false;
    const size_t bytes = std::stoul(received_.substr(0, end), nullptr, 16);
    while (received_.size() < end + 2 + bytes + 2)
      if (!Receive()) return false;
    answer->body += received_.substr(end + 2, bytes);
    received_.erase(0, end + 2 + bytes + 2);
    answer->whole = bytes == 0;
    return bytes > 0;
  }

  int fd_;
  bool connected_ = false, ended_ = false;
  std::string received_;
};

/// A body a test gives piece by piece.
class TestSource : public BodySource {
 public:
  bool Pull(std::string* out) override {
    std::lock_guard lock(mutex_);
    *out += std::exchange(waiting_, {});
    return !ended_;
  }
  size_t waiting_bytes() const override {
    std::lock_guard lock(mutex_);
    return waiting_.size();
  }
  bool close_after() const override { return close_after_; }

  void Give(std::string_view bytes) {
    std::lock_guard lock(mutex_);
    waiting_ += bytes;
  }
  void End(bool close_after = false) {
    std::lock_guard lock(mutex_);
    ended_ = true;
    close_after_ = close_after;
  }

 private:
  mutable std::mutex mutex_;
  std::string waiting_;
  bool ended_ = false;
  std::atomic<bool> close_after_ = false;
};

/// What a handler was asked and has not answered: the test does.
struct Held {
  HttpRequest request;
  std::shared_ptr<Responder> responder;
};

/// A server with the routes a test needs:
///   GET  /ping     "pong", on the IO thread, open
///   POST /echo     the body
///   GET  /rest/*   the path
///   POST /hold     kept for the test to answer; what OnGone says is kept too
///   POST /drop     the responder is dropped
class Loopback {
 public:
  explicit Loopback(HttpServerOptions options = {}) {
    options.listen = {"127.0.0.1:0"};
    options.on_access = [this](const AccessRecord& record) {
      std::lock_guard lock(mutex_);
      records_.push_back(record);
      changed_.notify_all();
    };
    auto server = HttpServer::Start(std::move(options), Routes());
    EXPECT_TRUE(server.ok()) << server.status().message();
    if (server.ok()) server_ = std::move(*server);
  }
  ~Loopback() {
    server_.reset();
    held_.clear();
  }

  HttpServer& server() { return *server_; }
  uint16_t port() const { return server_->ports().front(); }
  Client Connect() const { return Client(port()); }
  void Stop() { server_.reset(); }

  /// The next request at /hold.
  Held NextHeld() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return !held_.empty(); })) {
      ADD_FAILURE() << "nothing came to /hold";
      return {};
    }
    Held held = std::move(held_.front());
    held_.erase(held_.begin());
    return held;
  }
  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  /// What the OnGone of the requests at /hold heard, in order, once there are `count`.
  std::vector<Gone> WaitGone(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return gone_.size() >= count; }));
    return gone_;
  }
  /// The access log, once it has `count` lines.
  std::vector<AccessRecord> WaitRecords(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return records_.size() >= count; }));
    return records_;
  }

 private:
  std::vector<Route> Routes() {
    using Access = Route::Access;
    using Where = Route::Where;
    auto text = [](std::string body) { return HttpResponse{.content_type = "text/plain", .body = std::move(body)}; };
    std::vector<Route> routes;
    routes.push_back({"GET", "/ping", Access::kOpen, Where::kIo,
                      [=](HttpRequest, std::shared_ptr<Responder> responder) { responder->Reply(text("pong")); }});
    routes.push_back(
        {"POST", "/echo", Access::kKey, Where::kWorker, [=](HttpRequest request, std::shared_ptr<Responder> responder) {
           responder->Reply(text(std::move(request.body)));
         }});
    routes.push_back({"GET", "/rest/*", Access::kKey, Where::kWorker,
                      [=](HttpRequest request, std::shared_ptr<Responder> responder) {
                        responder->Reply(text(request.path + "|" + request.query + "|" + request.key_name));
                      }});
    routes.push_back({"POST", "/hold", Access::kKey, Where::kWorker,
                      [this](HttpRequest request, std::shared_ptr<Responder> responder) {
                        responder->OnGone([this](Gone why) {
                          std::lock_guard lock(mutex_);
                          gone_.push_back(why);
                          changed_.notify_all();
                        });
                        std::lock_guard lock(mutex_);
                        held_.push_back({std::move(request), std::move(responder)});
                        changed_.notify_all();
                      }});
    routes.push_back(
        {"POST", "/drop", Access::kKey, Where::kIo, [](HttpRequest, std::shared_ptr<Responder> responder) {}});
    return routes;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Held> held_;
  std::vector<Gone> gone_;
  std::vector<AccessRecord> records_;
  std::unique_ptr<HttpServer> server_;
};

inline std::string Get(std::string_view path, std::string_view more = "") {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n" + std::string(more) + "\r\n";
}
inline std::string Post(std::string_view path, std::string_view body, std::string_view more = "") {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         std::string(more) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

}  // namespace qwen::server

#endif  // QWEN_TEST_RUNTIME_SERVER_HTTP_LOOPBACK_H_
