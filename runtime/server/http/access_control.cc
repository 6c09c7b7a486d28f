#include "runtime/server/http/access_control.h"

#include <algorithm>

#include "runtime/base/file.h"
#include "runtime/server/http/head_parser.h"

namespace qwen::server {
namespace {

constexpr size_t kKeyFileBytes = size_t{1} << 20;

bool Visible(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

/// "[::1]" of "[::1]:8080".
std::string_view WithoutPort(std::string_view host) {
  const size_t colon = host.rfind(':');
  if (colon == std::string_view::npos || host.find(']', colon) != std::string_view::npos) return host;
  const std::string_view port = host.substr(colon + 1);
  return std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; }) ? host.substr(0, colon)
                                                                                            : host;
}

bool Has(const std::vector<std::string>& list, std::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

}  // namespace

StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text, const std::string& where) {
  ApiKeys keys;
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (line.empty() || line.front() == '#') continue;
    const std::string at = where + ": line " + std::to_string(line_number) + ": ";
    const size_t colon = line.find(':');
    const std::string name = colon == std::string_view::npos ? "key" + std::to_string(keys.entries_.size() + 1)
                                                             : std::string(line.substr(0, colon));
    const std::string_view key = colon == std::string_view::npos ? line : line.substr(colon + 1);
    if (!Visible(name) || !Visible(key))
      return InvalidArgumentError(at + "not a key or name:key in visible ASCII characters");
    const Sha256Digest digest = Sha256(key);
    for (const Entry& entry : keys.entries_) {
      if (entry.name == name) return InvalidArgumentError(at + "the name " + name + " is there twice");
      if (entry.digest == digest) return InvalidArgumentError(at + "the key of " + entry.name + " is there twice");
    }
    keys.entries_.push_back({name, digest});
  }
  if (keys.empty()) return InvalidArgumentError(where + ": has no key");
  return keys;
}

StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  QWEN_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kKeyFileBytes));
  return Parse(text, path);
}

std::optional<std::string> ApiKeys::Find(std::string_view key) const {
  const Sha256Digest digest = Sha256(key);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    uint8_t difference = 0;
    for (size_t i = 0; i < digest.size(); ++i) difference |= digest[i] ^ entry.digest[i];
    if (difference == 0) found = &entry;
  }
  if (!found) return std::nullopt;
  return found->name;
}

std::optional<std::string> ApiKeys::FindIn(const HttpRequest& request) const {
  const std::string_view authorization = request.Find("authorization");
  const size_t space = authorization.find(' ');
  if (space != std::string_view::npos && ToLower(authorization.substr(0, space)) == "bearer")
    if (auto name = Find(Trim(authorization.substr(space)))) return name;
  if (const std::string_view key = request.Find("x-api-key"); !key.empty()) return Find(key);
  return std::nullopt;
}

bool HostAllowed(std::string_view host, const std::vector<std::string>& allowed) {
  const std::string full = ToLower(host), name(WithoutPort(full));
  if (name == "localhost" || name == "127.0.0.1" || name == "[::1]") return true;
  return std::any_of(allowed.begin(), allowed.end(), [&](const std::string& one) {
    const std::string lower = ToLower(one);
    return one == "*" || lower == full || lower == name;
  });
}

CorsDecision CheckOrigin(const CorsPolicy& policy, const HttpRequest& request) {
  const std::string_view origin = request.Find("origin");
  if (origin.empty()) return {};
  const bool any = Has(policy.origins, "*");
  if (any && !policy.credentials) return {true, {{"access-control-allow-origin", "*"}}};
  if (any || Has(policy.origins, origin)) {
    CorsDecision decision{true, {{"access-control-allow-origin", std::string(origin)}, {"vary", "Origin"}}};
    if (policy.credentials) decision.headers.emplace_back("access-control-allow-credentials", "true");
    return decision;
  }
  const size_t scheme = origin.find("://");
  const std::string_view own = request.Find("host");
  return {scheme != std::string_view::npos && !own.empty() && ToLower(origin.substr(scheme + 3)) == ToLower(own), {}};
}

std::vector<Header> PreflightHeaders(const CorsPolicy& policy, const HttpRequest& request) {
  // With credentials a browser takes "*" for the name of a header.
  const std::string_view requested = request.Find("access-control-request-headers");
  return {{"access-control-allow-methods", "GET, POST"},
          {"access-control-allow-headers", policy.credentials ? std::string(requested) : "*"},
          {"access-control-max-age", "600"}};
}

}  // namespace qwen::server
