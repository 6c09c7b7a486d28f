// Which route a path belongs to. Pure; built once, read from every thread.
#ifndef QWEN_RUNTIME_SERVER_HTTP_ROUTER_H_
#define QWEN_RUNTIME_SERVER_HTTP_ROUTER_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

class Router {
 public:
  /// kInvalidArgument for a pattern without a leading slash, a route given twice or one without a handler.
  static StatusOr<Router> Make(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // of this method; null: none
    std::string pattern;           // of the path; "" when no route has it
    std::string allow;             // its methods: "GET, HEAD, OPTIONS"
  };
  /// An exact pattern comes before one that ends in "/*", a longer one of those before a shorter.
  Match Find(std::string_view method, std::string_view path) const;

 private:
  using Methods = std::map<std::string, Route, std::less<>>;
  const std::pair<const std::string, Methods>* FindPattern(std::string_view path) const;

  std::map<std::string, Methods, std::less<>> patterns_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_ROUTER_H_
