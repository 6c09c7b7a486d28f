#include "runtime/server/http/router.h"

namespace qwen::server {

StatusOr<Router> Router::Make(std::vector<Route> routes) {
  Router router;
  for (Route& route : routes) {
    const std::string name = route.method + " " + route.pattern;
    if (!route.pattern.starts_with('/')) return InvalidArgumentError("route " + name + ": does not begin with a slash");
    if (!route.handler) return InvalidArgumentError("route " + name + ": has no handler");
    const std::string method = route.method, pattern = route.pattern;
    if (!router.patterns_[pattern].emplace(method, std::move(route)).second)
      return InvalidArgumentError("route " + name + ": is there twice");
  }
  return router;
}

const std::pair<const std::string, Router::Methods>* Router::FindPattern(std::string_view path) const {
  if (!path.ends_with("/*"))
    if (auto exact = patterns_.find(path); exact != patterns_.end()) return &*exact;
  // "/*" stands for at least one character, so the slash it follows is not the path's last.
  for (size_t slash = path.size() < 2 ? std::string_view::npos : path.rfind('/', path.size() - 2);
       slash != std::string_view::npos; slash = slash == 0 ? std::string_view::npos : path.rfind('/', slash - 1))
    if (auto prefix = patterns_.find(std::string(path.substr(0, slash)) + "/*"); prefix != patterns_.end())
      return &*prefix;
  return nullptr;
}

Router::Match Router::Find(std::string_view method, std::string_view path) const {
  Match match;
  const auto* found = FindPattern(path);
  if (!found) return match;
  match.pattern = found->first;
  const Methods& methods = found->second;
  auto route = methods.find(method);
  if (route == methods.end() && method == "HEAD") route = methods.find("GET");
  if (route != methods.end()) match.route = &route->second;
  for (const auto& [name, unused] : methods) {
    match.allow += name + ", ";
    if (name == "GET") match.allow += "HEAD, ";
  }
  match.allow += "OPTIONS";
  return match;
}

}  // namespace qwen::server
