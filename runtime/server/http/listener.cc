#include "runtime/server/http/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/server/http/head_parser.h"

namespace qwen::server {
namespace {

constexpr int kBacklog = 1024;

Status SocketError(const std::string& address, int error) {
  const char* hint = error == EADDRINUSE ? "another program listens there; choose another port, or 0 for any" : "";
  return ResourceExhaustedError(address + ": cannot listen: " + std::strerror(error), hint);
}

bool IsLoopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

/// In both families the port lies at the same place.
uint16_t& PortOf(sockaddr* address) { return reinterpret_cast<sockaddr_in*>(address)->sin_port; }

struct AddressListDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

}  // namespace

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), port_(other.port_), path_(std::move(other.path_)) {}

Listener::~Listener() {
  if (fd_ < 0) return;
  close(fd_);
  if (!path_.empty()) unlink(path_.c_str());
}

StatusOr<Listener> Listener::OpenUnix(const std::string& path) {
  const std::string name = "unix:" + path;
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return InvalidArgumentError(name + ": the path has " + std::to_string(path.size()) + " bytes, at most " +
                                std::to_string(sizeof(address.sun_path) - 1) + " are possible");
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return SocketError(name, errno);
  Listener listener(fd, 0, {});
  if (bind(fd, generic, sizeof(address)) != 0) {
    if (errno != EADDRINUSE) return SocketError(name, errno);
    // A socket of a server that is gone refuses; what is no socket is never removed.
    struct stat info;
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool dead = probe >= 0 && lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode) &&
                      connect(probe, generic, sizeof(address)) != 0 && errno == ECONNREFUSED;
    if (probe >= 0) close(probe);
    if (!dead) return SocketError(name, EADDRINUSE);
    unlink(path.c_str());
    if (bind(fd, generic, sizeof(address)) != 0) return SocketError(name, errno);
  }
  listener.path_ = path;
  if (listen(fd, kBacklog) != 0) return SocketError(name, errno);
  return listener;
}

StatusOr<std::vector<Listener>> Listener::Open(const std::string& address, bool any_address) {
  std::vector<Listener> listeners;
  if (address.starts_with("unix:")) {
    QWEN_ASSIGN_OR_RETURN(Listener listener, OpenUnix(address.substr(5)));
    listeners.push_back(std::move(listener));
    return listeners;
  }
  const size_t colon = address.rfind(':');
  uint64_t port = 0;
  if (colon == std::string::npos || colon == 0 || !ParseLength(std::string_view(address).substr(colon + 1), &port) ||
      port > UINT16_MAX)
    return InvalidArgumentError(address + ": not an address to listen at", "HOST:PORT, [IPV6]:PORT or unix:/PATH");
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string::npos)
    return InvalidArgumentError(address + ": not an address to listen at",
                                "an IPv6 address needs brackets: [::1]:8080");
  const addrinfo wanted = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found))
    return InvalidArgumentError(address + ": " + gai_strerror(error));
  const std::unique_ptr<addrinfo, AddressListDeleter> list(found);

  int missing = 0;  // errno of an address this machine lacks: ::1 of localhost in many containers
  for (addrinfo* one = list.get(); one; one = one->ai_next) {
    if (one->ai_family != AF_INET && one->ai_family != AF_INET6) continue;
    if (!any_address && !IsLoopback(one->ai_addr))
      return InvalidArgumentError(
          address + ": anybody who reaches this address could use the server: there is no API key",
          "give --api-key-file, listen at 127.0.0.1, or say --allow-unauthenticated");
    const int fd = socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      missing = errno;
      continue;
    }
    Listener listener(fd, 0, {});
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (one->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (!listeners.empty()) PortOf(one->ai_addr) = htons(listeners.front().port());
    if (bind(fd, one->ai_addr, one->ai_addrlen) != 0 || listen(fd, kBacklog) != 0) {
      if (errno != EADDRNOTAVAIL) return SocketError(address, errno);
      missing = errno;
      continue;
    }
    sockaddr_storage bound = {};
    socklen_t bytes = sizeof(bound);
    getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bytes);
    listener.port_ = ntohs(PortOf(reinterpret_cast<sockaddr*>(&bound)));
    listeners.push_back(std::move(listener));
  }
  if (listeners.empty()) return SocketError(address, missing ? missing : EADDRNOTAVAIL);
  return listeners;
}

}  // namespace qwen::server
