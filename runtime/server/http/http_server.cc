#include "runtime/server/http/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <utility>

#include "runtime/server/http/connection.h"
#include "runtime/server/http/io_loop.h"
#include "runtime/server/http/listener.h"
#include "runtime/server/http/router.h"

namespace qwen::server {
namespace {

constexpr int kRefusedAtOnce = 64;                      // connections above the limit that are still told so
constexpr int kAcceptRounds = 64;                       // before the connections of the loop have their turn
constexpr std::chrono::milliseconds kAcceptPause{100};  // when the process has no descriptor left

std::string PeerName(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "unix";
  if (address.ss_family == AF_INET)
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof(text));
  if (address.ss_family == AF_INET6)
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text, sizeof(text));
  return text;
}

}  // namespace

struct HttpServer::Impl {
  /// Lives on the first loop.
  struct Acceptor {
    Acceptor(Listener open, boost::asio::io_context& loop) : listener(std::move(open)), socket(loop), pause(loop) {
      socket.assign(listener.fd());
    }
    ~Acceptor() { socket.release(); }  // the listener closes it

    Listener listener;
    boost::asio::posix::stream_descriptor socket;
    boost::asio::steady_timer pause;
  };

  Impl(HttpServerOptions options, Router router) : context(std::move(options), std::move(router)) {}

  void Listen(Acceptor& acceptor) {
    acceptor.socket.async_wait(acceptor.socket.wait_read, [this, &acceptor](const boost::system::error_code& error) {
      if (!error) Accept(acceptor);
    });
  }

  void Accept(Acceptor& acceptor) {
    for (int round = 0; round < kAcceptRounds; ++round) {
      sockaddr_storage address = {};
      socklen_t bytes = sizeof(address);
      const int fd =
          accept4(acceptor.listener.fd(), reinterpret_cast<sockaddr*>(&address), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        Admit(fd, PeerName(address), acceptor.listener.is_unix());
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The connection that waits keeps the listener readable: to try again at once would be to spin.
        acceptor.pause.expires_after(kAcceptPause);
        return acceptor.pause.async_wait([this, &acceptor](const boost::system::error_code& error) {
          if (!error) Listen(acceptor);
        });
      } else if (errno != ECONNABORTED && errno != EINTR) {
        break;
      }
    }
    Listen(acceptor);
  }

  void Admit(int fd, std::string peer, bool local) {
    if (context.open >= context.options.max_connections + kRefusedAtOnce) {
      ++context.refused;
      close(fd);
      return;
    }
    const std::shared_ptr<IoLoop>& loop = loops[next_loop++ % loops.size()];
    std::optional<ApiError> refusal;
    auto connection = std::make_shared<Connection>(context, loop, fd, std::move(peer), local);
    if (context.open > context.options.max_connections)
      refusal = ApiError{.status = 503,
                         .type = "unavailable_error",
                         .code = "too_many_connections",
                         .message = "the server has as many connections as it takes",
                         .retry_after_s = 1};
    else if (!connection->CountAddress())
      refusal = ApiError{.status = 429,
                         .type = "rate_limit_error",
                         .code = "rate_limited",
                         .message = "this address has as many connections as it may",
                         .retry_after_s = 1};
    loop->Post([connection = std::move(connection), refusal = std::move(refusal)]() mutable {
      connection->Start(std::move(refusal));
    });
  }

  /// Returns when they are closed.
  void CloseListeners() {
    if (std::exchange(listeners_closed, true)) return;
    std::promise<void> closed;
    loops.front()->Post([&] {
      acceptors.clear();
      closed.set_value();
    });
    closed.get_future().wait();
  }

  void Stop() {
    if (std::exchange(stopped, true)) return;
    context.draining = true;
    CloseListeners();
    for (const std::shared_ptr<IoLoop>& loop : loops)
      loop->Stop([&loop] {
        const auto connections = loop->connections;  // each takes itself out
        for (const auto& connection : connections) connection->Stop();
      });
    context.workers.Stop();
  }

  ServerContext context;
  std::vector<std::shared_ptr<IoLoop>> loops;
  std::vector<std::unique_ptr<Acceptor>> acceptors;
  std::vector<uint16_t> ports;
  size_t next_loop = 0;
  bool listeners_closed = false, stopped = false;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { Stop(); }

StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options, std::vector<Route> routes) {
  if (options.io_threads < 1 || options.worker_threads < 1 || options.body_bytes_per_second < 1)
    return InvalidArgumentError("the server needs an IO thread, a worker and a rate of bodies above 0");
  QWEN_ASSIGN_OR_RETURN(Router router, Router::Make(std::move(routes)));
  const bool any_address = options.allow_unauthenticated || !options.keys.empty();
  std::vector<Listener> listeners;
  std::vector<uint16_t> ports;
  for (const std::string& address : options.listen) {
    QWEN_ASSIGN_OR_RETURN(std::vector<Listener> opened, Listener::Open(address, any_address));
    ports.push_back(opened.front().port());
    for (Listener& listener : opened) listeners.push_back(std::move(listener));
  }
  if (listeners.empty()) return InvalidArgumentError("the server has no address to listen at");

  const int io_threads = options.io_threads;
  auto impl = std::make_unique<Impl>(std::move(options), std::move(router));
  impl->ports = std::move(ports);
  for (int i = 0; i < io_threads; ++i) impl->loops.push_back(std::make_shared<IoLoop>());
  for (Listener& listener : listeners)
    impl->acceptors.push_back(std::make_unique<Impl::Acceptor>(std::move(listener), impl->loops.front()->context()));
  for (const auto& acceptor : impl->acceptors) impl->Listen(*acceptor);
  for (const auto& loop : impl->loops) loop->Start();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

bool HttpServer::Drain(std::chrono::milliseconds timeout) {
  impl_->context.draining = true;
  impl_->CloseListeners();
  std::unique_lock lock(impl_->context.mutex);
  return impl_->context.no_exchange.wait_for(lock, timeout, [&] { return impl_->context.open_exchanges == 0; });
}

void HttpServer::Stop() { impl_->Stop(); }

Status HttpServer::SetKeys(ApiKeys keys) {
  std::lock_guard lock(impl_->context.mutex);
  if (keys.empty() != impl_->context.keys->empty())
    return InvalidArgumentError("API keys cannot be all removed, or be the first, while the server runs");
  impl_->context.keys = std::make_shared<ApiKeys>(std::move(keys));
  return {};
}

const std::vector<uint16_t>& HttpServer::ports() const { return impl_->ports; }

HttpStats HttpServer::stats() const {
  const ServerContext& context = impl_->context;
  HttpStats stats{
      .open = context.open, .total = context.total, .refused = context.refused, .too_slow = context.too_slow};
  for (size_t i = 0; i < kPhases; ++i) {
    stats.lost[i] = context.lost[i];
    stats.timed_out[i] = context.timed_out[i];
  }
  return stats;
}

}  // namespace qwen::server
