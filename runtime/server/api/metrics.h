// Counts and distributions for Prometheus, text format 0.0.4 (serving design, 9.2).
//
// The engine keeps its own counts and hands out a copy (EngineStats): those are printed by a table when asked for.
// What only the server sees is counted here, exactly, from any thread.
#ifndef QWEN_RUNTIME_SERVER_API_METRICS_H_
#define QWEN_RUNTIME_SERVER_API_METRICS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/request.h"
#include "runtime/server/api/options.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

class Counter {
 public:
  void Add(uint64_t count = 1) { count_.fetch_add(count, std::memory_order_relaxed); }
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> count_{0};
};

class Histogram {
 public:
  /// Upper bounds, ascending; `bounds` outlives it.
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds), counts_(std::make_unique<std::atomic<uint64_t>[]>(bounds.size() + 1)) {}

  void Observe(double value, uint64_t times = 1);

  struct Copy {
    std::vector<uint64_t> cumulative;  // of each bound, then of all
    double sum;
  };
  Copy Read() const;
  std::span<const double> bounds() const { return bounds_; }

 private:
  std::span<const double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  std::atomic<double> sum_{0};
};

/// One value a set of labels. Labels come from fixed sets, so that it stays small; entries are never removed, so that a
/// reference to one lives as long as the family.
template <class T>
class Labelled {
 public:
  template <class... Args>
  T& At(const std::string& labels, Args&&... args) {
    std::lock_guard lock(mutex_);
    auto& place = values_[labels];
    if (!place) place = std::make_unique<T>(std::forward<Args>(args)...);
    return *place;
  }
  template <class F>
  void ForEach(F&& f) const {
    std::lock_guard lock(mutex_);
    for (const auto& [labels, value] : values_) f(labels, *value);
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<T>> values_;
};

extern const std::span<const double> kFirstTokenBounds, kTokenBounds, kLatencyBounds, kCountBounds, kSmallBounds,
    kWorkBounds;

/// What the server counts. Members are named as their series.
struct Metrics {
  Histogram time_to_first_token_seconds{kFirstTokenBounds}, inter_token_latency_seconds{kTokenBounds},
      e2e_request_latency_seconds{kLatencyBounds}, request_queue_time_seconds{kLatencyBounds},
      request_prefill_time_seconds{kLatencyBounds}, request_decode_time_seconds{kLatencyBounds},
      request_inference_time_seconds{kLatencyBounds};
  Histogram request_prompt_tokens{kCountBounds}, request_generation_tokens{kCountBounds},
      request_params_max_tokens{kCountBounds}, request_params_n{kSmallBounds};
  Histogram template_render_seconds{kWorkBounds};  // with the tokenization of what was rendered
  Counter ignored_fields_total, slow_client_closes_total;
  Labelled<Counter> request_success_total;            // finished_reason
  Labelled<Counter> rejected_total;                   // reason
  Labelled<Counter> client_disconnects_total;         // phase
  Labelled<Counter> http_requests_total;              // route, method, status
  Labelled<Histogram> http_request_duration_seconds;  // route

  void OnAccess(const AccessRecord& record);

  /// All series. `model`: the served model, or null while there is none.
  std::string Text(const ApiOptions& options, const ServedModel* model) const;
};

/// `value` as a label's value, quoted.
std::string LabelValue(std::string_view value);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_METRICS_H_
