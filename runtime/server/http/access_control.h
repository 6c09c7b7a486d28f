// Who may ask: API keys, the Host a browser was led to, the Origin of a page (serving design, section 7). Pure.
#ifndef QWEN_RUNTIME_SERVER_HTTP_ACCESS_CONTROL_H_
#define QWEN_RUNTIME_SERVER_HTTP_ACCESS_CONTROL_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/sha256.h"
#include "runtime/base/status.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

/// Keys by their digests: the keys themselves are not kept.
class ApiKeys {
 public:
  ApiKeys() = default;
  /// One `key` or `name:key` a line; empty lines and those that begin with '#' are skipped, spaces around a line too. A
  /// key without a name is called by its place, "key1". kInvalidArgument, with `where` and the line but never the key,
  /// for a name or key with other than visible ASCII, a key or name given twice, or no key at all.
  static StatusOr<ApiKeys> Parse(std::string_view text, const std::string& where);
  /// Parse of a file.
  static StatusOr<ApiKeys> Load(const std::string& path);

  bool empty() const { return entries_.empty(); }
  /// The name of `key`. Takes the same time whichever key it is, or none.
  std::optional<std::string> Find(std::string_view key) const;
  /// Of a request: `Authorization: Bearer KEY`, or `X-Api-Key: KEY`.
  std::optional<std::string> FindIn(const HttpRequest& request) const;

 private:
  struct Entry {
    std::string name;
    Sha256Digest digest;
  };
  std::vector<Entry> entries_;
};

/// Whether `host` (a Host header, with or without a port) is this machine by name, or among `allowed`, where "*" allows
/// any. Against a page whose own name was made to resolve to this machine.
bool HostAllowed(std::string_view host, const std::vector<std::string>& allowed);

struct CorsPolicy {
  std::vector<std::string> origins;  // as a browser sends them; "*": any
  bool credentials = false;
};

struct CorsDecision {
  bool allowed = true;  // also without an Origin, and for the server's own pages
  std::vector<Header> headers;
};
CorsDecision CheckOrigin(const CorsPolicy& policy, const HttpRequest& request);
/// What the answer to OPTIONS has besides, when the origin is one of the policy's.
std::vector<Header> PreflightHeaders(const CorsPolicy& policy, const HttpRequest& request);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_ACCESS_CONTROL_H_
