// Addresses to listen at, from their text to open sockets.
#ifndef QWEN_RUNTIME_SERVER_HTTP_LISTENER_H_
#define QWEN_RUNTIME_SERVER_HTTP_LISTENER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::server {

/// An open listening socket; closed with the object, and a Unix socket's path unlinked.
class Listener {
 public:
  /// "127.0.0.1:8080", "[::1]:0", "localhost:8080": one socket for each address the name has; "unix:/path".
  /// kInvalidArgument for text that is none of these, and for an address beyond this machine unless `any_address`;
  /// kResourceExhausted when it is in use or not there. A path whose socket nobody listens at is taken over.
  static StatusOr<std::vector<Listener>> Open(const std::string& address, bool any_address);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  ~Listener();

  int fd() const { return fd_; }
  uint16_t port() const { return port_; }  // 0 of a Unix socket
  bool is_unix() const { return !path_.empty(); }

 private:
  Listener(int fd, uint16_t port, std::string path) : fd_(fd), port_(port), path_(std::move(path)) {}
  static StatusOr<Listener> OpenUnix(const std::string& path);

  int fd_;
  uint16_t port_;
  std::string path_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_LISTENER_H_
