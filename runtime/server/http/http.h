// HTTP as handlers see it: a whole request, one answer, nothing of sockets.
//
// http_server.h owns listeners, connections, limits and time-outs and calls a route's handler once the head and body
// are in and allowed. An answer is either whole or a stream that the connection pulls: the source writes when there is
// room, so a slow reader gets fewer, larger pieces and never makes anything grow.
#ifndef QWEN_RUNTIME_SERVER_HTTP_HTTP_H_
#define QWEN_RUNTIME_SERVER_HTTP_HTTP_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qwen::server {

using Header = std::pair<std::string, std::string>;

struct HttpRequest {
  std::string method;           // "POST"
  std::string path;             // percent-decoded once, without the query
  std::string query;            // as sent, without '?'
  std::vector<Header> headers;  // names in lower case, in the order they came
  std::string body;
  std::string id;                                  // x-request-id: the client's when valid, else ours
  std::string key_name;                            // of the API key; "" without one
  std::string peer;                                // address
  std::chrono::steady_clock::time_point received;  // the head was complete

  /// "" when absent.
  std::string_view Find(std::string_view lower_name) const;
};

struct HttpResponse {
  int status = 200;
  std::vector<Header> headers;  // beyond those every answer has (serving design, section 2)
  std::string content_type = "application/json; charset=utf-8";
  std::string body;
  bool close = false;  // the connection ends after it
};

/// Why nobody reads an answer any more.
enum class Gone : uint8_t { kClientClosed, kSendTimeout, kTooSlow, kServerStopped };

/// Gives a stream's bytes when the connection can take them.
class BodySource {
 public:
  virtual ~BodySource() = default;
  /// Appends whole events to `*out`: all there are. Called on the connection's thread, never at the same time twice,
  /// after the start, after every Wake and after every write. Returns whether the stream goes on.
  virtual bool Pull(std::string* out) = 0;
  /// Bytes waiting that Pull would append, about; above the connection's limit it is closed as kTooSlow.
  virtual size_t waiting_bytes() const = 0;
  /// After an error inside the stream the connection ends too.
  virtual bool close_after() const { return false; }
};

/// Answers one request, once: Reply or Stream. Any thread; nothing blocks. Dropped without an answer it sends 500.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void Reply(HttpResponse response) = 0;
  /// The head, then what `source` gives. `ping`: bytes sent after an interval of silence.
  virtual void Stream(HttpResponse head, std::shared_ptr<BodySource> source, std::string_view ping) = 0;
  /// The source has something. Many at once count as one.
  virtual void Wake() = 0;
  /// Calls `gone` at most once, on any thread, when the client is lost before the answer was sent whole; at once when
  /// it already is. Set before Stream.
  virtual void OnGone(std::function<void(Gone)> gone) = 0;
};

using Handler = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;

struct Route {
  std::string method;   // "GET" serves HEAD too
  std::string pattern;  // "/v1/models", "/v1/models/*": the rest of the path, slashes too
  enum class Access : uint8_t { kKey, kOpen } access = Access::kKey;
  /// kIo: answers at once, without work that grows with the body. kWorker: on a worker thread.
  enum class Where : uint8_t { kIo, kWorker } where = Where::kWorker;
  Handler handler;
};

/// An error as every route sends it (serving design, section 5).
struct ApiError {
  int status;
  std::string type, code, message, param;  // param "" becomes null
  int retry_after_s = 0;                   // 0: no header
  std::vector<Header> headers = {};
  bool close = false;
  std::vector<std::pair<std::string, int64_t>> numbers = {};  // more members of the error object: n_ctx
};
HttpResponse ErrorResponse(const ApiError& error, std::string_view request_id);

/// One finished exchange, for logs and metrics.
struct AccessRecord {
  std::string id, key_name, peer, method, path, route;  // route: the pattern, "other" when none matched
  int status = 0;                                       // 499: the client left before the answer began
  uint64_t bytes_in = 0, bytes_out = 0;
  double seconds = 0;
  std::string refused;  // "queue_full", "auth", "too_large", "timeout" ...: why, when the server refused; else ""
  bool client_gone = false;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_HTTP_H_
