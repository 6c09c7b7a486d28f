#include "runtime/server/http/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "runtime/server/http/exchange.h"
#include "runtime/server/http/response_head.h"

namespace qwen::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPipelinedBytes = size_t{16} << 10;  // kept of what comes behind a running request
constexpr size_t kDiscardBytes = size_t{64} << 10;    // a refused body up to this is read, so that the connection lives
constexpr size_t kKeptBuffer = size_t{4} << 10;       // capacity an idle connection keeps
constexpr int kPumpRounds = 4;                        // pulls in a row before other connections have their turn
constexpr std::chrono::seconds kLookInterval{1};

std::string NewRequestId() {
  uint8_t bytes[16];
  if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes)) return "0";
  std::string id;
  for (uint8_t byte : bytes) id += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  return id;
}

bool ValidRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
           c == '-';
  });
}

/// `application/json` or `application/*+json`, with charset utf-8 or no parameter that says otherwise.
bool IsJson(std::string_view content_type) {
  const std::string lower = ToLower(content_type);
  const size_t semicolon = std::min(lower.find(';'), lower.size());
  std::string type = lower.substr(0, semicolon);
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  if (type != "application/json" &&
      !(type.starts_with("application/") && type.ends_with("+json") && type.size() > sizeof("application/+json") - 1))
    return false;
  const size_t charset = lower.find("charset=", semicolon);
  if (charset == std::string::npos) return true;
  std::string_view value = std::string_view(lower).substr(charset + 8);
  value = value.substr(0, value.find_first_of("; \t"));
  return value == "utf-8" || value == "\"utf-8\"" || value == "utf8";
}

/// The class of a refusal, for logs and metrics.
std::string RefusedAs(const ApiError& error) {
  switch (error.status) {
    case 401:
    case 403:
      return "auth";
    case 408:
      return "timeout";
    case 413:
    case 431:
      return "too_large";
    default:
      return error.code;
  }
}

ApiError InvalidRequest(int status, std::string code, std::string message) {
  return {.status = status, .type = "invalid_request_error", .code = std::move(code), .message = std::move(message)};
}

}  // namespace

Connection::Connection(ServerContext& context, std::shared_ptr<IoLoop> loop, int fd, std::string peer, bool local)
    : context_(context),
      loop_(std::move(loop)),
      socket_(loop_->context()),
      timer_(loop_->context()),
      peer_(std::move(peer)),
      local_(local) {
  socket_.assign(fd);
  if (!local_) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  ++context_.total;
  ++context_.open;
}

Connection::~Connection() {
  if (counted_address_) {
    std::lock_guard lock(context_.mutex);
    auto count = context_.per_address.find(peer_);
    if (--count->second == 0) context_.per_address.erase(count);
  }
  --context_.open;
}

bool Connection::CountAddress() {
  const int limit = context_.options.max_connections_per_address;
  if (limit <= 0 || local_) return true;
  std::lock_guard lock(context_.mutex);
  counted_address_ = true;
  return ++context_.per_address[peer_] <= limit;
}

void Connection::Start(std::optional<ApiError> refusal) {
  loop_->connections.insert(shared_from_this());
  Enter(Phase::kHead);
  if (refusal) {
    ++context_.refused;
    refusal->close = true;
    BeginExchange();
    Refuse(*refusal);
  }
  ArmRead();
}

void Connection::Stop() {
  if (exchange_open_ && (phase_ == Phase::kRunning || phase_ == Phase::kBody) && sent_ == out_.size()) {
    keep_alive_ = false;
    record_.refused = "shutting_down";
    HttpResponse response = ErrorResponse({.status = 503,
                                           .type = "unavailable_error",
                                           .code = "shutting_down",
                                           .message = "the server stops",
                                           .retry_after_s = 1},
                                          record_.id);
    AppendHead(response, response.body.size());
    if (!is_head_) out_ += response.body;
    const ssize_t sent = send(socket_.native_handle(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) record_.bytes_out += static_cast<uint64_t>(sent);
  }
  Lose(Gone::kServerStopped);
}

// Reading.

bool Connection::Blind() const {
  const bool answering = phase_ == Phase::kRunning || phase_ == Phase::kSending || phase_ == Phase::kStreaming;
  return answering && (end_of_input_ || in_.size() >= kPipelinedBytes);
}

void Connection::ArmRead() {
  if (phase_ == Phase::kClosed || read_armed_) return;
  if (Blind()) {
    next_look_ = std::min(next_look_, Clock::now() + kLookInterval);
    ArmTimer();
    return;
  }
  next_look_ = Clock::time_point::max();
  read_armed_ = true;
  socket_.async_wait(socket_.wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
    self->read_armed_ = false;
    if (!error) self->OnReadable();
  });
}

void Connection::OnReadable() {
  if (phase_ == Phase::kClosed || Blind()) return ArmRead();
  const ssize_t count = recv(socket_.native_handle(), loop_->received.data(), loop_->received.size(), MSG_DONTWAIT);
  if (count < 0 && errno != EAGAIN && errno != EINTR) return Lose(Gone::kClientClosed);
  if (count == 0) {
    OnEndOfInput();
  } else if (count > 0) {
    last_read_ = Clock::now();
    Take({loop_->received.data(), static_cast<size_t>(count)});
  }
  ArmRead();
}

void Connection::OnEndOfInput() {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kClosing:
    case Phase::kClosed:
      return Close();
    case Phase::kHead:
    case Phase::kBody:
      return Lose(Gone::kClientClosed);
    // HTTP/1.0 clients say with a half-closed connection that they have said all; a 1.1 client that wants an answer
    // does not. An answer that is there already costs nothing to finish.
    case Phase::kRunning:
    case Phase::kStreaming:
      if (minor_version_ == 1) return Lose(Gone::kClientClosed);
      break;
    case Phase::kSending:
      break;
  }
  end_of_input_ = true;
  keep_alive_ = false;
}

void Connection::Take(std::string_view bytes) {
  while (!bytes.empty()) switch (phase_) {
      case Phase::kIdle:
        Enter(Phase::kHead);
        [[fallthrough]];
      case Phase::kHead:
        TakeHead(&bytes);
        break;
      case Phase::kBody:
        TakeBody(&bytes);
        break;
      case Phase::kRunning:
      case Phase::kSending:
      case Phase::kStreaming:
        in_.append(bytes);
        return;
      case Phase::kClosing:
      case Phase::kClosed:
        return;
    }
}

void Connection::TakeHead(std::string_view* bytes) {
  if (!parser_) {
    parser_.emplace(context_.options.head);
    record_ = {};
  }
  const size_t before = bytes->size();
  const Progress progress = parser_->Feed(bytes);
  record_.bytes_in += before - bytes->size();
  if (progress == Progress::kMore) return;
  const ProtocolError error = parser_->error();
  RequestHead head = std::move(parser_->head());
  parser_.reset();
  if (progress == Progress::kDone) return OnHead(std::move(head), !bytes->empty());
  BeginExchange();
  RefuseProtocol(error);
}

void Connection::TakeBody(std::string_view* bytes) {
  const size_t before = bytes->size();
  Progress progress;
  if (chunks_) {
    progress = chunks_->Feed(bytes, &request_.body);
  } else {
    const size_t taken = std::min<uint64_t>(body_left_, bytes->size());
    request_.body.append(bytes->substr(0, taken));
    bytes->remove_prefix(taken);
    body_left_ -= taken;
    progress = body_left_ == 0 ? Progress::kDone : Progress::kMore;
  }
  record_.bytes_in += before - bytes->size();
  if (progress == Progress::kFailed) RefuseProtocol(chunks_->error());
  if (progress == Progress::kDone) OnRequest();
}

// A request.

void Connection::BeginExchange() {
  ++serial_;
  exchange_open_ = true;
  minor_version_ = 1;
  is_head_ = false;
  keep_alive_ = true;
  route_ = nullptr;
  cors_.clear();
  refusal_.reset();
  chunks_.reset();
  request_ = {};
  request_.id = NewRequestId();
  request_.peer = peer_;
  allow_.clear();
  request_.received = exchange_start_ = Clock::now();
  record_.id = request_.id;
  record_.peer = peer_;
  record_.route = "other";
  std::lock_guard lock(context_.mutex);
  ++context_.open_exchanges;
}

void Connection::OnHead(RequestHead head, bool body_has_begun) {
  BeginExchange();
  minor_version_ = head.minor_version;
  is_head_ = head.method == "HEAD";
  keep_alive_ = head.keep_alive;
  request_.method = record_.method = head.method;
  request_.path = record_.path = head.path;
  request_.query = std::move(head.query);
  request_.headers = std::move(head.headers);
  if (const std::string_view id = request_.Find("x-request-id"); ValidRequestId(id)) record_.id = request_.id = id;

  const uint64_t length = head.content_length.value_or(0);
  refusal_ = Admit(head);
  if (!head.chunked && length == 0) return OnRequest();
  if (refusal_ && (refusal_->close || head.expect_continue || head.chunked || length > kDiscardBytes)) {
    refusal_->close = true;
    return Refuse(*refusal_);
  }
  body_left_ = length;
  if (head.chunked) chunks_.emplace(context_.options.max_body_bytes);
  Enter(Phase::kBody);
  if (head.expect_continue && !body_has_begun) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    Flush();
  }
}

std::optional<ApiError> Connection::Admit(const RequestHead& head) {
  const HttpServerOptions& options = context_.options;
  if (context_.draining)
    return ApiError{.status = 503,
                    .type = "unavailable_error",
                    .code = "shutting_down",
                    .message = "the server shuts down",
                    .retry_after_s = 1,
                    .close = true};
  const std::shared_ptr<const ApiKeys> keys = context_.Keys();
  if (keys->empty() && !local_ && !HostAllowed(head.host, options.allowed_hosts))
    return ApiError{.status = 403,
                    .type = "permission_error",
                    .code = "host_not_allowed",
                    .message = "the Host header names no host of this server; see --allowed-hosts"};
  CorsDecision origin = CheckOrigin(options.cors, request_);
  cors_ = std::move(origin.headers);
  if (!origin.allowed)
    return ApiError{.status = 403,
                    .type = "permission_error",
                    .code = "origin_not_allowed",
                    .message = "pages of this Origin may not use the server; see --cors-origins"};

  const Router::Match match = context_.router.Find(head.method, head.path);
  route_ = match.route;
  if (!match.pattern.empty()) record_.route = match.pattern;
  const bool open = head.method == "OPTIONS" || (route_ && route_->access == Route::Access::kOpen);
  if (!keys->empty()) {
    const std::optional<std::string> name = keys->FindIn(request_);
    if (name) request_.key_name = record_.key_name = *name;
    if (!name && !open)
      return ApiError{.status = 401,
                      .type = "authentication_error",
                      .code = "invalid_api_key",
                      .message = "no valid API key was given",
                      .headers = {{"www-authenticate", "Bearer"}}};
  }
  if (head.method == "OPTIONS") {
    allow_ = match.allow;
  } else if (match.pattern.empty()) {
    return ApiError{
        .status = 404, .type = "not_found_error", .code = "unknown_url", .message = "there is nothing at this path"};
  } else if (!route_ && head.method == "DELETE") {
    return ApiError{.status = 501,
                    .type = "not_supported_error",
                    .code = "not_supported",
                    .message = "nothing can be deleted here",
                    .headers = {{"x-should-retry", "false"}}};
  } else if (!route_) {
    ApiError error = InvalidRequest(405, "method_not_allowed", "this path has other methods");
    error.headers = {{"allow", match.allow}};
    return error;
  }
  for (const auto& [name, value] : request_.headers)
    if (name == "content-encoding" && ToLower(value) != "identity")
      return InvalidRequest(415, "unsupported_media_type", "compressed bodies are not taken");
  if (head.method == "POST" && !IsJson(request_.Find("content-type")))
    return InvalidRequest(415, "unsupported_media_type", "Content-Type is not application/json in UTF-8");
  if (head.content_length.value_or(0) > options.max_body_bytes) {
    ApiError error = InvalidRequest(413, "request_too_large", "the body is too large");
    error.numbers = {{"max_body_bytes", static_cast<int64_t>(options.max_body_bytes)}};
    error.close = true;
    return error;
  }
  return std::nullopt;
}

HttpResponse Connection::AnswerOptions() const {
  HttpResponse response;
  if (!allow_.empty()) response.headers.emplace_back("allow", allow_);
  if (!cors_.empty())
    for (Header& header : PreflightHeaders(context_.options.cors, request_))
      response.headers.push_back(std::move(header));
  return response;
}

void Connection::OnRequest() {
  chunks_.reset();
  if (refusal_) return Refuse(*refusal_);
  if (!route_) return Send(AnswerOptions());
  Enter(Phase::kRunning);
  exchange_ = std::make_shared<Exchange>();
  auto responder = std::make_shared<PostingResponder>(exchange_, loop_, weak_from_this(), serial_);
  const Handler& handler = route_->handler;
  if (route_->where == Route::Where::kIo) {
    try {
      handler(std::move(request_), std::move(responder));
    } catch (...) {  // the dropped responder answers
    }
    return;
  }
  std::function<void()> task = [&handler, exchange = exchange_, responder = std::move(responder),
                                request = std::make_shared<HttpRequest>(std::move(request_))]() mutable {
    if (exchange->gone()) return;
    try {
      handler(std::move(*request), std::move(responder));
    } catch (...) {
    }
  };
  if (context_.workers.Submit(task)) return;
  exchange_->answered = true;
  Refuse({.status = 429,
          .type = "rate_limit_error",
          .code = "queue_full",
          .message = "too many requests wait already",
          .retry_after_s = 1});
}

void Connection::OnReply(uint64_t serial, HttpResponse response) {
  if (serial == serial_ && phase_ == Phase::kRunning) Send(std::move(response));
}

void Connection::OnDropped(uint64_t serial) {
  if (serial != serial_ || phase_ != Phase::kRunning) return;
  Send(ErrorResponse(
      {.status = 500, .type = "server_error", .code = "internal_error", .message = "the request failed here"},
      record_.id));
}

void Connection::Refuse(const ApiError& error) {
  record_.refused = RefusedAs(error);
  Send(ErrorResponse(error, record_.id));
}

void Connection::RefuseProtocol(const ProtocolError& error) {
  Refuse({.status = error.status,
          .type = error.status == 408 ? "timeout_error" : "invalid_request_error",
          .code = error.code,
          .message = error.message,
          .close = true});
}

void Connection::EndExchange(bool client_gone) {
  if (!exchange_open_) return;
  exchange_open_ = false;
  source_.reset();
  request_ = {};
  if (exchange_ && !client_gone) exchange_->Finish();
  record_.client_gone = client_gone;
  if (record_.status == 0) record_.status = 499;
  record_.seconds = std::chrono::duration<double>(Clock::now() - exchange_start_).count();
  if (context_.options.on_access) context_.options.on_access(record_);
  context_.EndExchange();
}

void Connection::NextRequest() {
  if (out_.capacity() > kKeptBuffer) out_ = {};
  exchange_.reset();
  Enter(Phase::kIdle);
  if (!in_.empty()) Take(std::exchange(in_, {}));
  ArmRead();
}

// Writing.

void Connection::AppendHead(const HttpResponse& response, std::optional<uint64_t> content_length) {
  record_.status = response.status;
  out_ += ResponseHead(response, {.request_id = record_.id,
                                  .extra = cors_,
                                  .content_length = content_length,
                                  .minor_version = minor_version_,
                                  .keep_alive = keep_alive_,
                                  .server_header = context_.options.server_header});
}

void Connection::Send(HttpResponse response) {
  if (response.close || context_.draining) keep_alive_ = false;
  Enter(Phase::kSending);
  AppendHead(response, response.body.size());
  if (!is_head_) out_ += response.body;
  if (Flush()) OnFlushed();
}

bool Connection::Flush() {
  while (sent_ < out_.size()) {
    const ssize_t count = send(socket_.native_handle(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (count >= 0) {
      sent_ += static_cast<size_t>(count);
      record_.bytes_out += static_cast<uint64_t>(count);
      last_write_ = Clock::now();
    } else if (errno == EAGAIN) {
      if (!std::exchange(blocked_, true)) last_write_ = Clock::now();
      ArmTimer();
      socket_.async_wait(socket_.wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
        if (!error) self->OnWritable();
      });
      return false;
    } else if (errno != EINTR) {
      Lose(Gone::kClientClosed);
      return false;
    }
  }
  out_.clear();
  sent_ = 0;
  blocked_ = false;
  return true;
}

void Connection::OnWritable() {
  if (phase_ != Phase::kClosed && Flush()) OnFlushed();
}

void Connection::OnFlushed() {
  if (phase_ == Phase::kSending) AnswerSent();
  if (phase_ == Phase::kStreaming) Pump();
}

void Connection::AnswerSent() {
  EndExchange(false);
  if (keep_alive_ && !end_of_input_) return NextRequest();
  // Closing at once would reset the connection when something of the client's is still unread, and the reset may
  // overtake the answer (RFC 9112, 9.6): say that this is the end, and wait for the client's.
  exchange_.reset();
  in_ = {};
  out_ = {};
  Enter(Phase::kClosing);
  shutdown(socket_.native_handle(), SHUT_WR);
  if (end_of_input_) return Close();
  ArmRead();
}

void Connection::OnStream(uint64_t serial, HttpResponse head, std::shared_ptr<BodySource> source, std::string ping) {
  if (serial != serial_ || phase_ != Phase::kRunning) return;
  if (head.close || context_.draining || minor_version_ == 0) keep_alive_ = false;
  AppendHead(head, std::nullopt);
  if (!is_head_) source_ = std::move(source);
  ping_ = std::move(ping);
  last_write_ = Clock::now();
  Enter(Phase::kStreaming);
  Pump();
}

void Connection::OnWake(uint64_t serial) {
  if (serial != serial_ || !exchange_) return;
  exchange_->wake_pending = false;
  if (phase_ != Phase::kStreaming) return;
  if (!blocked_) return Pump();
  if (source_ && source_->waiting_bytes() > context_.options.max_waiting_bytes) Lose(Gone::kTooSlow);
}

void Connection::AppendPiece(std::string_view piece) {
  if (minor_version_ == 0) {
    out_ += piece;
    return;
  }
  char size[16];
  const int digits = std::snprintf(size, sizeof(size), "%zx\r\n", piece.size());
  out_.append(size, static_cast<size_t>(digits)).append(piece).append("\r\n");
}

void Connection::Pump() {
  for (int round = 0; round < kPumpRounds; ++round) {
    if (source_) {
      std::string& pulled = loop_->pulled;
      pulled.clear();
      const bool more = source_->Pull(&pulled);
      if (!pulled.empty()) AppendPiece(pulled);
      if (!more) {
        // The head may have promised more requests before the server began to drain.
        if (source_->close_after() || context_.draining) keep_alive_ = false;
        if (minor_version_ == 1) out_ += "0\r\n\r\n";
        source_.reset();
      }
    }
    if (out_.empty()) return ArmTimer();  // until Wake, or the ping
    if (!Flush()) return;
    if (!source_) return AnswerSent();
  }
  loop_->Post([self = shared_from_this(), serial = serial_] { self->OnWake(serial); });
}

// Ends and time.

void Connection::Enter(Phase phase) {
  phase_ = phase;
  phase_start_ = Clock::now();
  if (phase == Phase::kBody) last_read_ = phase_start_;
  ArmTimer();
}

void Connection::Lose(Gone why) {
  if (phase_ == Phase::kClosed) return;
  if (why == Gone::kClientClosed && phase_ != Phase::kIdle && phase_ != Phase::kClosing)
    ++context_.lost[static_cast<size_t>(phase_)];
  if (why == Gone::kTooSlow) ++context_.too_slow;
  const std::shared_ptr<Exchange> exchange = std::exchange(exchange_, nullptr);
  Close();
  if (exchange) exchange->SignalGone(why);  // before the log says so: a worker that takes it up now must know
  EndExchange(why != Gone::kServerStopped);
}

void Connection::Close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  boost::system::error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  source_.reset();
  loop_->connections.erase(shared_from_this());
}

Clock::time_point Connection::Deadline() const {
  const HttpServerOptions& options = context_.options;
  if (blocked_) return last_write_ + options.send_timeout;
  switch (phase_) {
    case Phase::kIdle:
      return phase_start_ + options.keepalive_timeout;
    case Phase::kHead:
      return phase_start_ + options.header_timeout;
    case Phase::kBody: {
      const std::chrono::duration<double> earned(static_cast<double>(request_.body.size()) /
                                                 static_cast<double>(options.body_bytes_per_second));
      const auto average =
          std::max<Clock::duration>(options.body_grace, std::chrono::duration_cast<Clock::duration>(earned));
      return std::min(last_read_ + options.body_timeout, phase_start_ + average);
    }
    case Phase::kClosing:
      return phase_start_ + options.linger_timeout;
    case Phase::kStreaming:
      return ping_.empty() ? Clock::time_point::max() : last_write_ + options.ping_interval;
    case Phase::kRunning:
    case Phase::kSending:
    case Phase::kClosed:
      break;
  }
  return Clock::time_point::max();
}

void Connection::ArmTimer() {
  if (phase_ == Phase::kClosed) return;
  // A deadline that moved later needs no call: the timer fires early and looks again.
  const Clock::time_point next = std::min(Deadline(), next_look_);
  if (next >= timer_at_) return;
  timer_at_ = next;
  timer_.expires_at(next);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->OnTimer();
  });
}

void Connection::OnTimer() {
  timer_at_ = Clock::time_point::max();
  if (phase_ == Phase::kClosed) return;
  const Clock::time_point now = Clock::now();
  if (now >= next_look_) {
    next_look_ = Clock::time_point::max();
    if (Blind()) {
      pollfd look = {.fd = socket_.native_handle(), .events = POLLRDHUP, .revents = 0};
      poll(&look, 1, 0);
      if (look.revents & (POLLHUP | POLLERR)) return Lose(Gone::kClientClosed);
      if ((look.revents & POLLRDHUP) && !end_of_input_) OnEndOfInput();
      if (phase_ == Phase::kClosed) return;
    }
    ArmRead();
  }
  if (now < Deadline()) return ArmTimer();
  const Phase phase = phase_;
  if (phase != Phase::kStreaming || blocked_) ++context_.timed_out[static_cast<size_t>(phase)];
  if (blocked_) return Lose(Gone::kSendTimeout);
  switch (phase) {
    case Phase::kHead:
      if (!parser_) return Close();
      BeginExchange();
      return RefuseProtocol({408, "request_timeout", "the request's head took too long"});
    case Phase::kBody:
      return RefuseProtocol({408, "request_timeout", "the request's body came too slowly"});
    case Phase::kStreaming:
      AppendPiece(ping_);
      if (Flush()) ArmTimer();
      return;
    default:
      return Close();
  }
}

}  // namespace qwen::server
