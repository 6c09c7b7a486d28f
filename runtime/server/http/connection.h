// One client's connection: what it says is parsed, allowed, answered, one request at a time.
//
//     kIdle -> kHead -> [kBody] -> kRunning -> kSending | kStreaming -> kIdle, or kClosing -> kClosed
//
// While a request runs, reading goes on only as far as it takes to see the client leave: what a pipelining client sends
// is kept up to a bound, from there on the socket is asked now and then. Everything here runs on the loop's thread
// except the Responder, whose calls are posted.
#ifndef QWEN_RUNTIME_SERVER_HTTP_CONNECTION_H_
#define QWEN_RUNTIME_SERVER_HTTP_CONNECTION_H_

#include <atomic>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/server/http/chunk_decoder.h"
#include "runtime/server/http/head_parser.h"
#include "runtime/server/http/http_server.h"
#include "runtime/server/http/io_loop.h"
#include "runtime/server/http/router.h"
#include "runtime/server/http/worker_pool.h"

namespace qwen::server {

/// What all connections of a server share. Outlives them.
struct ServerContext {
  ServerContext(HttpServerOptions given, Router table)
      : options(std::move(given)),
        router(std::move(table)),
        keys(std::make_shared<ApiKeys>(options.keys)),
        workers(options.worker_threads, options.max_worker_queue) {}

  const HttpServerOptions options;
  const Router router;
  std::atomic<bool> draining = false;

  std::shared_ptr<const ApiKeys> Keys() {
    std::lock_guard lock(mutex);
    return keys;
  }
  void EndExchange() {
    std::lock_guard lock(mutex);
    if (--open_exchanges == 0) no_exchange.notify_all();
  }

  std::mutex mutex;
  std::shared_ptr<const ApiKeys> keys;
  std::map<std::string, int> per_address;  // connections, only counted when they are limited
  int64_t open_exchanges = 0;
  std::condition_variable no_exchange;

  std::atomic<int64_t> open = 0;
  std::atomic<uint64_t> total = 0, refused = 0, too_slow = 0;
  std::array<std::atomic<uint64_t>, kPhases> lost = {}, timed_out = {};

  WorkerPool workers;
};

class Exchange;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /// Takes `fd`, connected and not blocking. `local`: a Unix socket, which no web page reaches.
  Connection(ServerContext& context, std::shared_ptr<IoLoop> loop, int fd, std::string peer, bool local);
  ~Connection();

  /// Once, before Start: whether the client's address has no more connections than it may.
  bool CountAddress();
  /// Once, on the loop: registers there and reads. With `refusal` it says that and closes.
  void Start(std::optional<ApiError> refusal);
  /// The server stops.
  void Stop();

  // From the Responder of exchange `serial`; stale ones change nothing.
  void OnReply(uint64_t serial, HttpResponse response);
  void OnDropped(uint64_t serial);
  void OnStream(uint64_t serial, HttpResponse head, std::shared_ptr<BodySource> source, std::string ping);
  void OnWake(uint64_t serial);

 private:
  using Clock = std::chrono::steady_clock;

  // Reading.
  void ArmRead();
  void OnReadable();
  void OnEndOfInput();
  void Take(std::string_view bytes);
  void TakeHead(std::string_view* bytes);
  void TakeBody(std::string_view* bytes);
  bool Blind() const;  // data lies there that is not read, so that its end is not seen

  // A request.
  void OnHead(RequestHead head, bool body_has_begun);
  std::optional<ApiError> Admit(const RequestHead& head);
  HttpResponse AnswerOptions() const;
  void OnRequest();
  void Refuse(const ApiError& error);
  void RefuseProtocol(const ProtocolError& error);  // and close
  void BeginExchange();
  void EndExchange(bool client_gone);
  void NextRequest();

  // Writing.
  void Send(HttpResponse response);
  void AppendHead(const HttpResponse& response, std::optional<uint64_t> content_length);
  bool Flush();  // whether all of out_ is sent; may close
  void OnWritable();
  void OnFlushed();
  void AppendPiece(std::string_view piece);
  void Pump();
  void AnswerSent();

  // Ends and time.
  void Enter(Phase phase);
  void Lose(Gone why);
  void Close();
  void BeginClosing();
  Clock::time_point Deadline() const;
  void ArmTimer();
  void OnTimer();

  ServerContext& context_;
  const std::shared_ptr<IoLoop> loop_;
  boost::asio::posix::stream_descriptor socket_;
  boost::asio::steady_timer timer_;
  const std::string peer_;
  const bool local_;
  bool counted_address_ = false;

  Phase phase_ = Phase::kHead;
  Clock::time_point phase_start_ = Clock::now(), last_read_ = phase_start_, last_write_ = phase_start_;
  Clock::time_point next_look_ = Clock::time_point::max();  // at a socket that is not read
  Clock::time_point timer_at_ = Clock::time_point::max();
  bool read_armed_ = false, end_of_input_ = false;

  std::string in_;  // received behind the request that runs
  std::optional<HeadParser> parser_;
  std::optional<ChunkDecoder> chunks_;
  uint64_t body_left_ = 0;
  std::optional<ApiError> refusal_;  // said once the body is in

  uint64_t serial_ = 0;  // of the exchange
  bool exchange_open_ = false;
  std::shared_ptr<Exchange> exchange_;
  HttpRequest request_;
  const Route* route_ = nullptr;
  AccessRecord record_;
  std::vector<Header> cors_;
  std::string allow_;                   // the methods of an OPTIONS' path
  Clock::time_point exchange_start_{};  // its head was complete
  int minor_version_ = 1;
  bool is_head_ = false, keep_alive_ = true;

  std::string out_;
  size_t sent_ = 0;       // of out_
  bool blocked_ = false;  // the client takes nothing just now
  std::shared_ptr<BodySource> source_;
  std::string ping_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_CONNECTION_H_
