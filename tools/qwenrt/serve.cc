// qwenrt serve: the port first, then the weights, then requests until a signal asks for the end.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <random>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/version.h"
#include "runtime/engine/engine_loop.h"
#include "runtime/exec/executor.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/memory.h"
#include "runtime/plan/reader.h"
#include "runtime/server/api/server.h"
#include "runtime/server/http/http_server.h"
#include "tools/qwenrt/args.h"
#include "tools/qwenrt/commands.h"
#include "tools/qwenrt/load.h"
#include "tools/qwenrt/machine.h"
#include "tools/qwenrt/text.h"

namespace qwen::qwenrt {
namespace {

using std::chrono::milliseconds, std::chrono::steady_clock;

std::atomic<bool> reload_keys = false, show_state = false;

/// SIGHUP and SIGUSR1 while it lives; a broken connection is an error of a write, not a signal.
class ServerSignals {
 public:
  ServerSignals() {
    std::signal(SIGHUP, [](int) { reload_keys = true; });
    std::signal(SIGUSR1, [](int) { show_state = true; });
    std::signal(SIGPIPE, SIG_IGN);
  }
  ~ServerSignals() {
    std::signal(SIGHUP, SIG_DFL);
    std::signal(SIGUSR1, SIG_DFL);
  }
};

std::vector<std::string> WordsOf(const Flags& flags, std::string_view name) {
  std::vector<std::string> words;
  if (!flags.HasValue(name)) return words;
  for (std::string_view word : CutAt(flags.Text(name), ','))
    if (!word.empty()) words.emplace_back(word);
  return words;
}

template <class T>
std::optional<T> Maybe(const Flags& flags, std::string_view name) {
  if (!flags.HasValue(name)) return std::nullopt;
  if constexpr (std::is_same_v<T, double>)
    return flags.Real(name);
  else
    return static_cast<T>(flags.Int(name));
}

/// A plan, or what to do to get one.
StatusOr<plan::Plan> OpenPlan(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    std::string name = std::filesystem::path(path).lexically_normal().filename().string();
    if (name.empty() || name == ".") name = "model";
    return InvalidArgumentError(fmt::format("{}: is a folder, not a plan", path),
                                fmt::format("qwenc compile {} -o {}.plan && qwenrt serve {}.plan", path, name, name));
  }
  return plan::ReadPlan(path);
}

/// Sequences, tokens and bytes that the server takes, from what was asked for and what the machine has.
struct Sizes {
  int sequences = 0, pages = 0;
  int64_t model_len = 0, snapshot_bytes = 0, memory_bytes = 0, total_bytes = 0, weights_bytes = 0;
  std::string device;  // as the screen names it
};

StatusOr<std::string> DeviceName(const plan::Plan& plan, const Flags& flags, exec::DeviceKind device) {
  if (device == exec::DeviceKind::kCuda) {
    QWEN_ASSIGN_OR_RETURN(const std::vector<exec::Card> cards, exec::CudaCards());
    return fmt::format("cuda: {}, {}", cards.front().name, plan::HumanBytes(cards.front().memory_bytes));
  }
  const auto isa = flags.HasValue("isa") ? flags.Choice("isa") : std::string(kernels::IsaName(kernels::DetectIsa()));
  return fmt::format("cpu: {}, {}, {} threads", CpuName(), isa,
                     exec::ThreadsFor(plan, flags.HasValue("threads") ? static_cast<int>(flags.Int("threads")) : 0));
}

StatusOr<Sizes> SizesFor(const plan::Plan& plan, const Flags& flags) {
  Sizes sizes;
  plan::MemoryOptions options;
  options.threads = exec::ThreadsFor(plan, flags.HasValue("threads") ? static_cast<int>(flags.Int("threads")) : 0);
  options.max_num_seqs =
      flags.HasValue("max-num-seqs") ? static_cast<int32_t>(flags.Int("max-num-seqs")) : plan.capacity.max_num_seqs;
  options.max_model_len = flags.HasValue("max-model-len") ? flags.Int("max-model-len") : plan.model.max_model_len;
  QWEN_RETURN_IF_ERROR(plan::CheckCapacity(plan, options));
  QWEN_ASSIGN_OR_RETURN(const exec::DeviceKind device, ChooseDevice(plan, flags));
  const std::string target(exec::TargetOf(device));
  QWEN_ASSIGN_OR_RETURN(sizes.device, DeviceName(plan, flags, device));
  const int64_t machine = exec::MachineMemoryBytes();
  QWEN_ASSIGN_OR_RETURN(const int64_t device_bytes, exec::DeviceMemoryBytes(device));
  sizes.memory_bytes = static_cast<int64_t>(static_cast<double>(device_bytes) * flags.Real("gpu-memory-utilization"));
  if (flags.Bool("enable-prefix-caching"))
    sizes.snapshot_bytes =
        flags.HasValue("state-cache-bytes") ? flags.Size("state-cache-bytes") : std::min(int64_t{8} << 30, machine / 4);
  if (device == exec::DeviceKind::kCpu) options.snapshot_bytes = sizes.snapshot_bytes;  // else the host's
  options.memory_bytes = sizes.memory_bytes;
  // What fits decides, up to every sequence at its full length, which is all that can be of use without a cache.
  const plan::MemoryStatement room = plan::StateMemory(plan, target, options);
  int64_t pages = int64_t{options.max_num_seqs} * engine::PagesFor(options.max_model_len);
  if (flags.HasValue("kv-cache-tokens"))
    pages = engine::PagesFor(flags.Int("kv-cache-tokens"));
  else if (room.fit)
    pages = std::min(pages, room.fit->pages);
  options.num_pages = std::clamp<int64_t>(pages, 1, std::numeric_limits<int>::max());
  QWEN_RETURN_IF_ERROR(plan::CheckFit(plan, target, options));
  const plan::MemoryStatement statement = plan::StateMemory(plan, target, options);
  sizes.sequences = options.max_num_seqs;
  sizes.pages = static_cast<int>(options.num_pages);
  sizes.model_len = std::min(options.max_model_len, int64_t{sizes.pages} * plan::kPageTokens);
  sizes.total_bytes = statement.total_bytes;
  for (const plan::RankMemory& rank : statement.ranks)
    sizes.weights_bytes += rank.weights_bytes - rank.weights_shared_bytes;
  return sizes;
}

server::ApiOptions ApiOptionsOf(const Flags& flags) {
  using server::ReasoningField, server::ReasoningParser;
  server::ApiOptions options;
  options.served_names = flags.Texts("served-model-name");
  if (options.served_names.empty()) options.served_names = {std::filesystem::path(flags.Argument(0)).stem().string()};
  options.api_prefix = flags.Text("api-prefix");
  options.limits.max_n = flags.Int("max-n");
  options.limits.max_logprobs = flags.Int("max-logprobs");
  options.limits.max_body_bytes = flags.Size("max-body");
  options.strict_fields = flags.Bool("strict-fields");
  options.refuse_overflow = flags.Choice("overflow") == "error";
  options.max_tokens_default = Maybe<int64_t>(flags, "max-tokens-default");
  options.max_tokens_limit = Maybe<int64_t>(flags, "max-tokens-limit");
  options.sampling.from_plan = flags.Choice("default-sampling") == "plan";
  options.sampling.temperature = Maybe<double>(flags, "temperature");
  options.sampling.top_p = Maybe<double>(flags, "top-p");
  options.sampling.top_k = Maybe<int64_t>(flags, "top-k");
  options.sampling.min_p = Maybe<double>(flags, "min-p");
  options.sampling.presence_penalty = Maybe<double>(flags, "presence-penalty");
  options.sampling.repetition_penalty = Maybe<double>(flags, "repetition-penalty");
  options.sampling.seed = Maybe<uint64_t>(flags, "seed");
  options.priorities = flags.Choice("scheduling") == "priority";
  options.isolate_cache = flags.Choice("cache-isolation") == "key";
  options.trust_request_chat_template = flags.Bool("trust-request-chat-template");
  options.prefill_assistant = flags.Bool("prefill-assistant");
  options.parse_special_in_content = flags.Bool("parse-special-in-content");
  options.chat_template_kwargs = flags.Text("chat-template-kwargs");
  const std::string& parser = flags.Choice("reasoning-parser");
  options.reasoning_parser = parser == "qwen3"  ? ReasoningParser::kQwen3
                             : parser == "none" ? ReasoningParser::kNone
                                                : ReasoningParser::kAuto;
  const std::string& field = flags.Choice("reasoning-field");
  options.reasoning_field = field == "both"        ? ReasoningField::kBoth
                            : field == "reasoning" ? ReasoningField::kReasoning
                                                   : ReasoningField::kReasoningContent;
  options.queue_timeout = flags.Duration("queue-timeout");
  options.request_timeout = flags.Duration("request-timeout");
  options.watchdog = flags.Duration("watchdog");
  options.max_queue = flags.Int("max-queue");
  options.metrics = flags.Bool("metrics");
  options.metrics_aliases = WordsOf(flags, "metrics-alias");
  options.version = ThisBuild().version;
  options.commit = ThisBuild().commit;
  options.plan_abi = plan::kPlanVersion;
  return options;
}

StatusOr<server::ApiKeys> KeysOf(const Flags& flags) {
  std::string text;
  for (const std::string& key : WordsOf(flags, "api-key")) text += key + "\n";
  if (flags.HasValue("api-key-file")) {
    constexpr size_t kMost = 1 << 20;
    StatusOr<std::string> file = ReadFile(flags.Text("api-key-file"), kMost);
    if (!file.ok()) return file.status().Annotate("--api-key-file");
    text += *file;
  }
  if (text.empty() && !flags.HasValue("api-key") && !flags.HasValue("api-key-file")) return server::ApiKeys();
  return server::ApiKeys::Parse(text, flags.HasValue("api-key-file") ? flags.Text("api-key-file") : "--api-key");
}

StatusOr<server::HttpServerOptions> HttpOptionsOf(const Flags& flags) {
  server::HttpServerOptions options;
  options.listen.clear();
  for (const std::string& host : flags.Texts("host"))
    options.listen.push_back(host.starts_with("unix:") ? host
                             : host.find(':') != host.npos && host[0] != '['
                                 ? fmt::format("[{}]:{}", host, flags.Int("port"))
                                 : fmt::format("{}:{}", host, flags.Int("port")));
  if (options.listen.empty()) options.listen = {fmt::format("127.0.0.1:{}", flags.Int("port"))};
  options.io_threads = static_cast<int>(flags.Int("io-threads"));
  options.worker_threads = static_cast<int>(flags.Int("worker-threads"));
  // Requests that come at once wait here before they are in the engine's queue: one limit, not a smaller one in front.
  options.max_worker_queue = std::max(options.max_worker_queue, static_cast<size_t>(flags.Int("max-queue")));
  QWEN_ASSIGN_OR_RETURN(options.keys, KeysOf(flags));
  options.allow_unauthenticated = flags.Bool("allow-unauthenticated");
  options.allowed_hosts = WordsOf(flags, "allowed-hosts");
  options.cors = {.origins = WordsOf(flags, "cors-origins"), .credentials = flags.Bool("cors-credentials")};
  options.max_body_bytes = static_cast<size_t>(flags.Size("max-body"));
  options.max_connections = static_cast<int>(flags.Int("max-connections"));
  options.max_connections_per_address = static_cast<int>(flags.Int("max-connections-per-address"));
  options.header_timeout = flags.Duration("header-timeout");
  options.body_timeout = flags.Duration("body-timeout");
  options.keepalive_timeout = flags.Duration("keepalive-timeout");
  options.send_timeout = flags.Duration("send-timeout");
  options.ping_interval = flags.Duration("sse-ping-interval");
  return options;
}

engine::EngineLoopOptions LoopOptionsOf(const Flags& flags, const Sizes& sizes) {
  engine::EngineLoopOptions options;
  if (flags.HasValue("max-num-batched-tokens"))
    options.scheduler.max_num_batched_tokens = static_cast<int>(flags.Int("max-num-batched-tokens"));
  options.scheduler.max_prefill_rows_beside_decode = static_cast<int>(flags.Int("prefill-chunk"));
  options.scheduler.max_partial_prefills = static_cast<int>(flags.Int("max-partial-prefills"));
  options.scheduler.deterministic = flags.Bool("deterministic");
  options.scheduler.prefix_cache = flags.Bool("enable-prefix-caching");
  options.scheduler.cache.snapshot_budget = sizes.snapshot_bytes;
  options.scheduler.cache.snapshot_interval = static_cast<int>(flags.Int("snapshot-interval"));
  std::random_device random;
  options.scheduler.cache.secret = uint64_t{random()} << 32 | random();
  options.max_queued_requests = static_cast<int>(flags.Int("max-queue"));
  if (flags.HasValue("max-queued-tokens")) options.max_queued_tokens = flags.Int("max-queued-tokens");
  return options;
}

StatusOr<std::unique_ptr<server::Log>> OpenLog(const Flags& flags) {
  constexpr std::string_view kLevels[] = {"debug", "info", "warning", "error"};
  server::Log::Options options;
  options.level = static_cast<server::LogLevel>(std::ranges::find(kLevels, flags.Choice("log-level")) - kLevels);
  options.json = flags.Choice("log-format") == "json";
  if (!flags.HasValue("log-file")) return std::make_unique<server::Log>(std::move(options), STDERR_FILENO);
  StatusOr<std::unique_ptr<server::Log>> log = server::Log::ToFile(std::move(options), flags.Text("log-file"));
  if (!log.ok()) return log.status().Annotate("--log-file");
  return log;
}

int64_t Parameters(const plan::Plan& plan) {
  int64_t count = 0;
  for (const plan::Weight& weight : plan.weights) {
    if (weight.alias >= 0) continue;
    int64_t elements = 1;
    for (int64_t extent : weight.shape) elements *= extent;
    count += elements;
  }
  return count;
}

/// What a person wants to see once: what runs, what fits, where to ask.
void PrintScreen(const plan::Plan& plan, const Sizes& sizes, const std::string& name,
                 const std::string& address, bool keys) {
  fmt::print(stderr,
             "model    {} ({}, {}), {:.1f} M parameters, weights {}\n"
             "device   {}\n"
             "memory   {} at most; KV cache {} tokens, {} sequences of up to {} tokens; snapshots up to {}\n"
             "address  {}{}\n"
             "try      curl {}/v1/chat/completions -H 'content-type: application/json'{} \\\n"
             "           -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}]}}'\n",
             EscapeControl(name), plan.model.family, DTypeName(plan.model.dtype),
             static_cast<double>(Parameters(plan)) / 1e6, plan::HumanBytes(sizes.weights_bytes), sizes.device,
             plan::HumanBytes(sizes.total_bytes), int64_t{sizes.pages} * plan::kPageTokens, sizes.sequences,
             sizes.model_len, plan::HumanBytes(sizes.snapshot_bytes), address,
             keys ? "" : "  (no API key: for this machine alone)", address,
             keys ? " -H 'authorization: Bearer KEY'" : "");
}

std::string AddressOf(const server::HttpServerOptions& http, const std::vector<uint16_t>& ports) {
  const std::string& first = http.listen.front();
  if (first.starts_with("unix:")) return first;
  return fmt::format("http://{}:{}", first.substr(0, first.rfind(':')), ports.front());
}

}  // namespace

Status ServeCommand(const Flags& flags) {
  QWEN_ASSIGN_OR_RETURN(plan::Plan plan, OpenPlan(flags.Argument(0)));
  QWEN_ASSIGN_OR_RETURN(text::TextModel text, OpenText(plan, flags.Argument(0), flags.Text("chat-template")));
  QWEN_RETURN_IF_ERROR(NeedTokenizer(text).status());
  QWEN_ASSIGN_OR_RETURN(const Sizes sizes, SizesFor(plan, flags));
  QWEN_ASSIGN_OR_RETURN(server::HttpServerOptions http_options, HttpOptionsOf(flags));
  QWEN_ASSIGN_OR_RETURN(const std::unique_ptr<server::Log> log, OpenLog(flags));
  const bool keys = !http_options.keys.empty();
  const server::ApiOptions api_options = ApiOptionsOf(flags);

  // What a request may still reach dies last: timer and API, then the engine, then the connections.
  server::ThreadTimer timer;
  QWEN_ASSIGN_OR_RETURN(const std::unique_ptr<server::ApiServer> api,
                        server::ApiServer::Make(api_options, &timer, log.get()));
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<engine::EngineLoop> loop;
  http_options.on_access = [&api](const server::AccessRecord& record) { api->OnAccess(record); };
  const ServerSignals signals;
  const GracefulStop stop;
  QWEN_ASSIGN_OR_RETURN(const std::unique_ptr<server::HttpServer> http,
                        server::HttpServer::Start(http_options, api->Routes()));

  StatusOr<std::unique_ptr<engine::Engine>> loaded =
      LoadEngine(plan, flags, sizes.pages, sizes.sequences, [&](double share) { api->SetProgress(share); });
  if (!loaded.ok()) return loaded.status();
  engine = *std::move(loaded);
  loop = std::make_unique<engine::EngineLoop>(*engine, LoopOptionsOf(flags, sizes));

  server::ServedModel model;
  for (const std::vector<int64_t>& ids : {plan.model.eos_ids, text.defaults().eos_ids})
    for (int64_t id : ids)
      if (id >= 0 && id < text.tokenizer()->vocab_size() &&
          std::ranges::find(model.eos_ids, static_cast<int32_t>(id)) == model.eos_ids.end())
        model.eos_ids.push_back(static_cast<int32_t>(id));
  model.text = std::move(text);
  model.queue = loop.get();
  model.max_model_len = sizes.model_len;
  model.vocab = plan.model.vocab;
  model.parameters = Parameters(plan);
  model.bytes = sizes.weights_bytes;
  struct stat file{};
  if (stat(flags.Argument(0).c_str(), &file) == 0) model.created = file.st_mtime;
  model.root = std::filesystem::path(flags.Argument(0)).filename().string();
  model.plan_digest = fmt::format("{:016x}", plan.digest);
  api->SetReady(std::move(model));
  PrintScreen(plan, sizes, api_options.served_names.front(), AddressOf(http_options, http->ports()), keys);
  if (flags.HasValue("ready-fd")) {
    const int fd = static_cast<int>(flags.Int("ready-fd"));
    if (write(fd, "\n", 1) != 1) PrintWarning("qwenrt", fmt::format("--ready-fd: descriptor {} takes nothing", fd));
  }

  constexpr milliseconds kLook{20}, kSummary{10'000};
  for (steady_clock::time_point summary = steady_clock::now() + kSummary; !stop.requested();) {
    std::this_thread::sleep_for(kLook);
    if (reload_keys.exchange(false)) {
      StatusOr<server::ApiKeys> fresh = KeysOf(flags);
      const Status status = fresh.ok() ? http->SetKeys(*std::move(fresh)) : fresh.status();
      log->Write(status.ok() ? server::LogLevel::kInfo : server::LogLevel::kError, "http",
                 status.ok() ? "keys were read again" : "keys stay as they were: " + status.message());
    }
    if (show_state.exchange(false)) {
      const engine::EngineStats stats = loop->Stats();
      log->Write(server::LogLevel::kInfo, "engine", "state",
                 {{"running", int64_t{stats.running}},
                  {"waiting", int64_t{stats.waiting}},
                  {"pages", int64_t{stats.pages}},
                  {"pages_free", int64_t{stats.pages_free}},
                  {"slots_free", int64_t{stats.slots_free}},
                  {"snapshots", int64_t{stats.snapshots}}});
    }
    if (steady_clock::now() >= summary) api->Summarise(), summary += kSummary;
  }

  // Load balancers see it first; then nobody comes in; then who is in may finish; then nobody is left.
  api->SetDraining();
  log->Write(server::LogLevel::kInfo, "server", "draining");
  std::this_thread::sleep_for(flags.Duration("drain-delay"));
  constexpr milliseconds kLastWords{1000};
  bool finished = http->Drain(flags.Duration("drain-timeout"));
  if (!finished) {
    loop->Drain(steady_clock::now());
    http->Drain(kLastWords);
  }
  loop->Stop();
  http->Stop();
  log->Write(server::LogLevel::kInfo, "server", finished ? "drained" : "stopped with requests open");
  return {};
}

}  // namespace qwen::qwenrt
