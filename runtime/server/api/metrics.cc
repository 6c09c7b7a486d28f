#include "runtime/server/api/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <iterator>

#include "fmt/format.h"

namespace qwen::server {
namespace {

// Bounds as vLLM has them, so that its dashboards fit.
constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,  0.75,
                                  1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160., 640., 2560.};
constexpr double kToken[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                             0.75, 1.0,   2.5,  5.0,   7.5, 10.,  20., 40., 80.};
constexpr double kLatency[] = {0.3, 0.5, 0.8, 1.0, 1.5,  2.0,  2.5,  5.0,  10.,   15.,  20.,
                               30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.};
constexpr double kCount[] = {1,    2,    5,    10,     20,     50,     100,     200,     500,
                             1000, 2000, 5000, 10'000, 20'000, 50'000, 100'000, 200'000, 500'000};
constexpr double kSmall[] = {1, 2, 5, 10, 20};
constexpr double kWork[] = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};

using engine::EngineStats;

/// A series that the engine counts.
struct EngineRow {
  const char *name, *type, *help;
  double (*value)(const EngineStats&);
  const char *vllm = nullptr, *llamacpp = nullptr;  // what others call it, without their prefix
};

double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }

constexpr EngineRow kEngineRows[] = {
    {"num_requests_running", "gauge", "Requests that are in the batch.",
     [](const EngineStats& s) { return double(s.running); }, "num_requests_running", "requests_processing"},
    {"num_requests_waiting", "gauge", "Requests in the queue.", [](const EngineStats& s) { return double(s.waiting); },
     "num_requests_waiting", "requests_deferred"},
    {"kv_cache_usage_perc", "gauge", "Share of the KV cache's pages in use, 1 is all.",
     [](const EngineStats& s) { return Share(s.pages - s.pages_free, s.pages); }, "kv_cache_usage_perc"},
    {"state_cache_usage_perc", "gauge", "Share of the snapshot budget in use, 1 is all.",
     [](const EngineStats& s) { return Share(double(s.snapshot_bytes), double(s.snapshot_budget)); }},
    {"state_cache_bytes", "gauge", "Host memory that snapshots of recurrent state take.",
     [](const EngineStats& s) { return double(s.snapshot_bytes); }},
    {"state_cache_snapshots", "gauge", "Snapshots of recurrent state in the cache.",
     [](const EngineStats& s) { return double(s.snapshots); }},
    {"state_slots_usage_perc", "gauge", "Share of the recurrent state's slots in use, 1 is all.",
     [](const EngineStats& s) { return Share(s.slots - s.slots_free, s.slots); }},
    {"prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.",
     [](const EngineStats& s) { return double(s.cache_queries); }, "prefix_cache_queries_total"},
    {"prefix_cache_hits_total", "counter", "Prompt tokens that came from the prefix cache.",
     [](const EngineStats& s) { return double(s.cache_hits); }, "prefix_cache_hits_total"},
    {"decode_rows_total", "counter", "Rows of running texts in all steps.",
     [](const EngineStats& s) { return double(s.decode_rows); }},
    {"decode_steps_total", "counter", "Steps that had such rows.",
     [](const EngineStats& s) { return double(s.decode_steps); }},
    {"prompt_tokens_total", "counter", "Prompt tokens computed.",
     [](const EngineStats& s) { return double(s.prompt_tokens); }, "prompt_tokens_total", "prompt_tokens_total"},
    {"generation_tokens_total", "counter", "Tokens drawn.",
     [](const EngineStats& s) { return double(s.generated_tokens); }, "generation_tokens_total",
     "tokens_predicted_total"},
    {"prompt_seconds_total", "counter", "Time of steps spent on prompts.",
     [](const EngineStats& s) { return s.prompt_seconds; }, nullptr, "prompt_seconds_total"},
    {"generation_seconds_total", "counter", "Time of steps spent on drawing tokens.",
     [](const EngineStats& s) { return s.generation_seconds; }, nullptr, "tokens_predicted_seconds_total"},
    {"num_preemptions_total", "counter", "Running sequences that were put back into the queue.",
     [](const EngineStats& s) { return double(s.preemptions); }, "num_preemptions_total"},
    {"engine_steps_total", "counter", "Steps run.", [](const EngineStats& s) { return double(s.steps); }},
    {"engine_step_rows_total", "counter", "Rows of all steps.",
     [](const EngineStats& s) { return double(s.step_rows); }},
};

struct HistogramRow {
  const char *name, *help;
  const Histogram Metrics::* histogram;
  bool vllm = true;
};
constexpr HistogramRow kHistogramRows[] = {
    {"time_to_first_token_seconds", "From the request to its first token.", &Metrics::time_to_first_token_seconds},
    {"inter_token_latency_seconds", "Between two tokens of a choice.", &Metrics::inter_token_latency_seconds},
    {"e2e_request_latency_seconds", "From the request to its end.", &Metrics::e2e_request_latency_seconds},
    {"request_queue_time_seconds", "In the queue.", &Metrics::request_queue_time_seconds},
    {"request_prefill_time_seconds", "From the first row of the prompt to the first token.",
     &Metrics::request_prefill_time_seconds},
    {"request_decode_time_seconds", "From the first token to the end.", &Metrics::request_decode_time_seconds},
    {"request_inference_time_seconds", "From the first row of the prompt to the end.",
     &Metrics::request_inference_time_seconds},
    {"request_prompt_tokens", "Prompt tokens of a request.", &Metrics::request_prompt_tokens},
    {"request_generation_tokens", "Tokens drawn for a request.", &Metrics::request_generation_tokens},
    {"request_params_max_tokens", "Tokens that a request may draw.", &Metrics::request_params_max_tokens},
    {"request_params_n", "Choices asked for.", &Metrics::request_params_n},
    {"template_render_seconds", "Rendering and encoding a prompt.", &Metrics::template_render_seconds, false},
};

struct LabelledRow {
  const char *name, *help;
  const Labelled<Counter> Metrics::* counters;
  const char* vllm = nullptr;
};
constexpr LabelledRow kLabelledRows[] = {
    {"request_success_total", "Choices by how they ended.", &Metrics::request_success_total, "request_success_total"},
    {"rejected_total", "Requests refused, by reason.", &Metrics::rejected_total},
    {"client_disconnects_total", "Clients that left before their answer was whole.",
     &Metrics::client_disconnects_total},
    {"http_requests_total", "Exchanges.", &Metrics::http_requests_total},
};

struct CounterRow {
  const char *name, *help;
  const Counter Metrics::* counter;
};
constexpr CounterRow kCounterRows[] = {
    {"slow_client_closes_total", "Connections closed because the client read too slowly.",
     &Metrics::slow_client_closes_total},
    {"ignored_fields_total", "Request fields that had no effect.", &Metrics::ignored_fields_total},
};

constexpr char kOurs[] = "qwenrt_", kVllm[] = "vllm:", kLlama[] = "llamacpp:";

std::string Number(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return fmt::format("{}", static_cast<int64_t>(value));
  return fmt::format("{}", value);
}

/// The text as it grows; every series of one name is under one heading.
class Page {
 public:
  explicit Page(std::string labels) : labels_(std::move(labels)) {}

  void Heading(const std::string& name, const char* type, const char* help) {
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  void Sample(const std::string& name, const std::string& labels, const std::string& value) {
    text_ +=
        fmt::format("{}{{{}{}{}}} {}\n", name, labels_, labels_.empty() || labels.empty() ? "" : ",", labels, value);
  }
  void Series(const std::string& name, const char* type, const char* help, double value) {
    Heading(name, type, help);
    Sample(name, "", Number(value));
  }
  void Samples(const std::string& name, const std::string& labels, const Histogram& histogram) {
    const Histogram::Copy copy = histogram.Read();
    const std::string comma = labels.empty() ? "" : ",";
    for (size_t i = 0; i < copy.cumulative.size(); ++i) {
      const std::string bound =
          i < histogram.bounds().size() ? fmt::format("{}", histogram.bounds()[i]) : std::string("+Inf");
      Sample(name + "_bucket", fmt::format("{}{}le=\"{}\"", labels, comma, bound), std::to_string(copy.cumulative[i]));
    }
    Sample(name + "_sum", labels, Number(copy.sum));
    Sample(name + "_count", labels, std::to_string(copy.cumulative.back()));
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string labels_, text_;
};

const std::time_t kStarted = std::time(nullptr);

void Process(Page* page) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  page->Series("process_cpu_seconds_total", "counter", "Processor time used.",
               seconds(usage.ru_utime) + seconds(usage.ru_stime));
  // Pages in memory are the second number of statm.
  long pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  page->Series("process_resident_memory_bytes", "gauge", "Resident memory.",
               double(pages) * double(sysconf(_SC_PAGESIZE)));
  int descriptors = 0;
  if (DIR* folder = ::opendir("/proc/self/fd")) {
    while (const dirent* entry = ::readdir(folder)) descriptors += entry->d_name[0] != '.';
    ::closedir(folder);
    --descriptors;  // the folder's own
  }
  page->Series("process_open_fds", "gauge", "Open file descriptors.", descriptors);
  page->Series("process_start_time_seconds", "gauge", "When the process began, since 1970.", double(kStarted));
  page->Series("process_max_resident_memory_bytes", "gauge", "Largest resident memory so far.",
               double(usage.ru_maxrss) * 1024);
}

}  // namespace

const std::span<const double> kFirstTokenBounds = kFirstToken, kTokenBounds = kToken, kLatencyBounds = kLatency,
                              kCountBounds = kCount, kSmallBounds = kSmall, kWorkBounds = kWork;

void Histogram::Observe(double value, uint64_t times) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(at)].fetch_add(times, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
}

Histogram::Copy Histogram::Read() const {
  Copy copy{.sum = sum_.load(std::memory_order_relaxed)};
  uint64_t all = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    all += counts_[i].load(std::memory_order_relaxed);
    copy.cumulative.push_back(all);
  }
  return copy;
}

std::string LabelValue(std::string_view value) {
  std::string out = "\"";
  for (char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + '"';
}

void Metrics::OnAccess(const AccessRecord& record) {
  constexpr std::string_view kMethods[] = {"GET", "HEAD", "POST", "OPTIONS", "DELETE"};
  const bool known = std::find(std::begin(kMethods), std::end(kMethods), record.method) != std::end(kMethods);
  const std::string route = "route=" + LabelValue(record.route);
  http_requests_total
      .At(fmt::format("{},method={},status=\"{}\"", route, LabelValue(known ? record.method : "other"), record.status))
      .Add();
  http_request_duration_seconds.At(route, kLatencyBounds).Observe(record.seconds);
  if (!record.refused.empty()) rejected_total.At("reason=" + LabelValue(record.refused)).Add();
}

std::string Metrics::Text(const ApiOptions& options, const ServedModel* model) const {
  auto alias = [&](const char* name) {
    return std::find(options.metrics_aliases.begin(), options.metrics_aliases.end(), name) !=
           options.metrics_aliases.end();
  };
  const bool vllm = alias("vllm"), llama = alias("llamacpp");
  Page page("model_name=" + LabelValue(options.served_names.front()));
  auto each_name = [&](const char* ours, const char* theirs, auto&& write) {
    write(std::string(kOurs) + ours);
    if (vllm && theirs) write(std::string(kVllm) + theirs);
  };
  if (model) {
    const EngineStats stats = model->queue->Stats();
    for (const EngineRow& row : kEngineRows) {
      const double value = row.value(stats);
      each_name(row.name, row.vllm, [&](const std::string& name) { page.Series(name, row.type, row.help, value); });
      if (llama && row.llamacpp) page.Series(std::string(kLlama) + row.llamacpp, row.type, row.help, value);
    }
    const std::string missed = std::string(kOurs) + "prefix_cache_misses_total";
    page.Heading(missed, "counter", "Prompt tokens that did not come from the cache, by reason.");
    const std::pair<const char*, uint64_t> misses[] = {
        {"cold", stats.miss_cold}, {"no_snapshot", stats.miss_no_snapshot}, {"disabled", stats.miss_disabled}};
    for (const auto& [reason, count] : misses)
      page.Sample(missed, "reason=" + LabelValue(reason), std::to_string(count));
  }
  for (const HistogramRow& row : kHistogramRows)
    each_name(row.name, row.vllm ? row.name : nullptr, [&](const std::string& name) {
      page.Heading(name, "histogram", row.help);
      page.Samples(name, "", this->*row.histogram);
    });
  for (const LabelledRow& row : kLabelledRows)
    each_name(row.name, row.vllm, [&](const std::string& name) {
      page.Heading(name, "counter", row.help);
      (this->*row.counters).ForEach([&](const std::string& labels, const Counter& counter) {
        page.Sample(name, labels, std::to_string(counter.count()));
      });
    });
  for (const CounterRow& row : kCounterRows)
    page.Series(std::string(kOurs) + row.name, "counter", row.help, double((this->*row.counter).count()));
  const std::string duration = std::string(kOurs) + "http_request_duration_seconds";
  page.Heading(duration, "histogram", "Exchanges, from the head to the last byte.");
  http_request_duration_seconds.ForEach(
      [&](const std::string& labels, const Histogram& histogram) { page.Samples(duration, labels, histogram); });
  const std::string build = std::string(kOurs) + "build_info";
  page.Heading(build, "gauge", "What runs.");
  page.Sample(build,
              fmt::format("version={},commit={},plan={}", LabelValue(options.version), LabelValue(options.commit),
                          LabelValue(model ? model->plan_digest : "")),
              "1");
  Process(&page);
  return page.Take();
}

}  // namespace qwen::server
