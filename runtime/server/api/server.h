// The OpenAI-compatible API: routes over a model and its engine (serving design, 3).
//
// The port opens before the weights are loaded: until SetReady every route but the open ones answers 503. Handlers read
// and check a request on a worker's thread, everything that can fail on what a client sent fails there, and what
// reaches the engine cannot.
#ifndef QWEN_RUNTIME_SERVER_API_SERVER_H_
#define QWEN_RUNTIME_SERVER_API_SERVER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/server/api/access_log.h"
#include "runtime/server/api/generation.h"
#include "runtime/server/api/metrics.h"
#include "runtime/server/api/options.h"
#include "runtime/server/api/timer.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

/// Threads: any. Outlives the connections that its routes serve, and every request it gave to the engine.
class ApiServer {
 public:
  /// `timer` and `log` outlive it; `log` may be null. kInvalidArgument for options that contradict themselves.
  static StatusOr<std::unique_ptr<ApiServer>> Make(ApiOptions options, Timer* timer, Log* log);

  std::vector<Route> Routes();
  /// Of every exchange, for metrics and the log.
  void OnAccess(const AccessRecord& record);
  /// Writes the log's summary line; to be called every ten seconds or so.
  void Summarise();

  // loading → ready → draining; failed from any of them.
  void SetProgress(double share) { progress_ = share; }  // of loading, 0 to 1
  void SetReady(ServedModel model);
  void SetDraining();
  void SetFailed();  // loading went wrong; an engine that fails says so itself

  Metrics& metrics() { return metrics_; }

 private:
  enum class State : uint8_t { kLoading, kReady, kDraining, kFailed };
  using ModelPtr = std::shared_ptr<const ServedModel>;
  using Responders = std::shared_ptr<Responder>;

  ApiServer(ApiOptions options, Timer* timer, Log* log);

  /// A handler that needs a model: refuses while there is none.
  Handler WithModel(void (ApiServer::*handle)(const ModelPtr&, HttpRequest, const Responders&));
  Refusal CheckState(ModelPtr* model, bool new_work) const;
  Refusal CheckModelName(const std::optional<std::string>& name) const;
  RequestLimits LimitsOf(const ServedModel& model) const;

  void Generate(Endpoint endpoint, const ModelPtr& model, const HttpRequest& http, const Responders& responder);
  void Chat(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void Completions(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void ApplyTemplate(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void Tokenize(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void Detokenize(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void ListModels(const ModelPtr& model, HttpRequest http, const Responders& responder);
  void OneModel(const ModelPtr& model, HttpRequest http, const Responders& responder);

  HttpResponse Livez() const;
  HttpResponse Readyz() const;
  HttpResponse Health() const;

  State state() const { return state_.load(std::memory_order_acquire); }
  ModelPtr model() const;
  bool EngineAlive(const engine::EngineStats& stats) const;
  uint64_t RandomSeed();

  const ApiOptions options_;
  Timer& timer_;
  Log* const log_;
  Metrics metrics_;
  GenerationEnvironment environment_;
  std::atomic<State> state_{State::kLoading};
  std::atomic<double> progress_{0};
  mutable std::mutex mutex_;
  ModelPtr model_;
  std::deque<std::pair<std::string, GenerationSummary>> ended_;  // by request id, until the exchange ends
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_SERVER_H_
