// An HTTP/1.1 server for a table of routes: listeners, connections, limits, time-outs, access.
//
// A few IO threads run all connections, a few workers run the handlers that may take a while; no thread waits for a
// client, the engine or another thread. What a client may cost before it has shown a key is its head.
#ifndef QWEN_RUNTIME_SERVER_HTTP_HTTP_SERVER_H_
#define QWEN_RUNTIME_SERVER_HTTP_HTTP_SERVER_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/server/http/access_control.h"
#include "runtime/server/http/head_parser.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

struct HttpServerOptions {
  using Duration = std::chrono::milliseconds;

  std::vector<std::string> listen = {"127.0.0.1:8080"};  // Listener::Open's addresses
  int io_threads = 2, worker_threads = 2;
  size_t max_worker_queue = 256;  // more is 429 queue_full

  // Access. Without a key only this machine is listened to and only its own names are taken as Host.
  ApiKeys keys;
  bool allow_unauthenticated = false;
  std::vector<std::string> allowed_hosts;
  CorsPolicy cors;

  HeadLimits head;
  size_t max_body_bytes = size_t{8} << 20;
  size_t max_waiting_bytes = size_t{1} << 20;  // of a stream whose reader is slow
  int max_connections = 1024;                  // one more gets 503 and is closed
  int max_connections_per_address = 0;         // 0: any number; one more gets 429 and is closed

  Duration header_timeout{10'000};  // of a whole head, from its first byte; of the first one, from the connection
  Duration body_timeout{30'000};    // between two reads of a body
  Duration body_grace{10'000};      // after it a body must have come at body_bytes_per_second on average
  size_t body_bytes_per_second = 1024;
  Duration keepalive_timeout{75'000};  // between two requests
  Duration send_timeout{60'000};       // without a byte taken
  Duration ping_interval{15'000};      // of silence in a stream
  Duration linger_timeout{1'000};      // for the client to read a last answer and close

  bool server_header = true;
  /// Called on the IO threads, several at a time; does not block.
  std::function<void(const AccessRecord&)> on_access;
};

/// Where a connection is with its request.
enum class Phase : uint8_t { kIdle, kHead, kBody, kRunning, kSending, kStreaming, kClosing, kClosed };
inline constexpr int kPhases = 8;

/// Counters since the start, but `open`.
struct HttpStats {
  int64_t open = 0;  // connections now
  uint64_t total = 0, refused = 0;
  std::array<uint64_t, kPhases> lost = {};       // clients gone, by phase
  std::array<uint64_t, kPhases> timed_out = {};  // connections ended by a time-out, by phase
  uint64_t too_slow = 0;
};

class HttpServer {
 public:
  /// Listening when it returns. kInvalidArgument for routes, addresses or an unsafe combination, kResourceExhausted
  /// when an address cannot be listened at.
  static StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options, std::vector<Route> routes);
  ~HttpServer();  // stops

  /// Closes the listeners, answers whatever is asked from now on with 503 shutting_down, and waits until no request is
  /// open, `timeout` at most. Whether none is. May be called again.
  bool Drain(std::chrono::milliseconds timeout);
  /// Ends every connection: a request without an answer gets 503 as far as that takes no waiting, its OnGone hears
  /// kServerStopped. Joins the threads, so a handler must return. Answers that come later go nowhere.
  void Stop();

  /// Takes the place of the keys from now on. `keys` is empty only if there were none at the start (kInvalidArgument).
  Status SetKeys(ApiKeys keys);

  /// In the order of the addresses; 0 for a Unix socket.
  const std::vector<uint16_t>& ports() const;
  HttpStats stats() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_HTTP_SERVER_H_
