// An API server over a scripted engine, everything on the test's own thread: a request is handled when it is sent, the
// engine runs when it is told to, time passes when it is told to.
#ifndef QWEN_TEST_RUNTIME_SERVER_API_HARNESS_H_
#define QWEN_TEST_RUNTIME_SERVER_API_HARNESS_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/server/api/server.h"
#include "runtime/text/tokenizer_json.h"

namespace qwen::server {

template <class V>
V ValueOrDie(StatusOr<V> value) {
  if (!value.ok()) {
    std::cerr << value.status().message() << "\n";
    std::abort();
  }
  return *std::move(value);
}

inline std::string SourceFile(const std::string& name) {
  return ValueOrDie(ReadFile(std::string(QWEN_SOURCE_DIR) + "/" + name, size_t{1} << 26));
}

inline Json ParseOrDie(std::string_view text) { return ValueOrDie(ParseJson(text, "test")); }

/// The demo checkpoint's tokenizer, read once; Qwen3.5's chat template and pattern.
inline const text::Tokenizer& DemoTokenizer() {
  static const text::Tokenizer tokenizer =
      ValueOrDie(text::ParseTokenizerJson(SourceFile("test/demo/qwen3_5-demo/tokenizer.json"), "tokenizer.json"));
  return tokenizer;
}

inline text::TextModel DemoText(const std::string& chat_template = "test/demo/qwen3_5-demo/chat_template.jinja") {
  const std::string source = SourceFile(chat_template);
  const std::string config = SourceFile("test/demo/qwen3_5-demo/generation_config.json");
  return ValueOrDie(text::TextModel::Open({DemoTokenizer().Serialize(), source, config}, "demo"));
}

inline constexpr int32_t kImEnd = 8160, kEndOfText = 8158, kImStart = 8159;  // of the demo's tokenizer.json

/// Time that stands still until it is told to pass.
class ManualTimer final : public Timer {
 public:
  TimePoint Now() const override { return now_; }
  /// Runs what is due now.
  void Run() {
    while (true) {
      std::function<void()> function;
      {
        std::lock_guard lock(mutex_);
        if (due_.empty() || due_.begin()->first.first > now_) return;
        function = std::move(due_.begin()->second);
        due_.erase(due_.begin());
      }
      function();
    }
  }
  void Advance(std::chrono::milliseconds time) {
    now_ += time;
    Run();
  }
  size_t pending() const {
    std::lock_guard lock(mutex_);
    return due_.size();
  }

 private:
  TimePoint now_ = TimePoint() + std::chrono::hours(1);
};

/// An engine that says what the test wrote.
class ScriptedQueue final : public engine::RequestQueue {
 public:
  struct Submitted {
    engine::RequestId id;
    engine::Request request;
    std::shared_ptr<engine::RequestSink> sink;
    std::vector<size_t> at;      // of each choice in its script
    std::vector<bool> finished;  // choices
    bool begun = false;
    bool done() const {
      return std::all_of(finished.begin(), finished.end(), [](bool f) { return f; });
    }
  };

  // What each choice says. Ids in stop_ids end it; the end of the script ends it with kLength.
  std::function<std::vector<int32_t>(const engine::Request&, int choice)> script;
  std::function<engine::TokenLogprobs(int32_t token)> logprobs;
  size_t tokens_per_step = 1;
  int cached_tokens = 0;
  Status submit_status;  // not OK: what Submit says
  engine::EngineStats stats;
  double prompt_rate = 0;

  StatusOr<engine::RequestId> Submit(engine::Request request, std::shared_ptr<engine::RequestSink> sink) override {
    if (!submit_status.ok()) return submit_status;
    if (refuse_from_ <= next_) return ResourceExhaustedError("full");
    const auto choices = static_cast<size_t>(request.choices);
    requests.push_back(request);
    open_.push_back(
        {next_, std::move(request), std::move(sink), std::vector<size_t>(choices), std::vector<bool>(choices)});
    return next_++;
  }
  void Cancel(engine::RequestId id) override {
    for (auto& open : open_)
      if (open.id == id) Finish(open, engine::FinishReason::kCancelled, {});
    cancelled.push_back(id);
    Forget();
  }
  engine::EngineStats Stats() const override { return stats; }
  double PromptRate() const override { return prompt_rate; }

  void RefuseFrom(engine::RequestId id) { refuse_from_ = id; }

  /// Rows of every waiting prompt.
  void Prefill() {
    for (auto& open : open_) Begin(open);
  }
  /// One step of every request; false when nothing is left.
  bool Step() {
    for (auto& open : open_) {
      Begin(open);
      for (size_t c = 0; c < open.at.size(); ++c)
        for (size_t t = 0; t < tokens_per_step && !open.finished[c]; ++t) Draw(open, c);
      open.sink->OnStep();
    }
    Forget();
    return !open_.empty();
  }
  void FailAll() {
    for (auto& open : open_) Finish(open, engine::FinishReason::kFailed, InternalError("the step failed"));
    Forget();
  }
  size_t open() const { return open_.size(); }

  std::vector<engine::Request> requests;  // all that came
  std::vector<engine::RequestId> cancelled;

 private:
  void Begin(Submitted& open) {
    if (std::exchange(open.begun, true)) return;
    const auto tokens = static_cast<int>(open.request.prompt.size());
    open.sink->OnPrompt({tokens, cached_tokens, engine::MissReason::kNone}, tokens);
    if (open.request.prompt_logprobs >= 0) {
      std::vector<engine::TokenLogprobs> all;
      for (size_t i = 1; i < open.request.prompt.size(); ++i) all.push_back(logprobs(open.request.prompt[i]));
      // In two portions, as chunks of a prompt come.
      const size_t half = all.size() / 2;
      open.sink->OnPromptLogprobs(std::span(all).first(half));
      open.sink->OnPromptLogprobs(std::span(all).subspan(half));
    }
  }
  void Draw(Submitted& open, size_t c) {
    const std::vector<int32_t> tokens = script(open.request, static_cast<int>(c));
    auto finish = [&](engine::FinishReason reason, int32_t stop_id) {
      open.finished[c] = true;
      open.sink->OnFinish(static_cast<int>(c), reason, stop_id, {});
    };
    if (open.at[c] == std::min(tokens.size(), static_cast<size_t>(open.request.max_tokens)))
      return finish(engine::FinishReason::kLength, -1);
    const int32_t token = tokens[open.at[c]++];
    const auto& stops = open.request.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) return finish(engine::FinishReason::kStop, token);
    engine::TokenLogprobs values;
    if (open.request.logprobs >= 0) values = logprobs(token);
    if (!open.sink->OnToken(static_cast<int>(c), {token, open.request.logprobs >= 0 ? &values : nullptr}))
      return finish(engine::FinishReason::kStop, -1);
  }
  void Finish(Submitted& open, engine::FinishReason reason, const Status& status) {
    for (size_t c = 0; c < open.finished.size(); ++c)
      if (!open.finished[c]) {
        open.finished[c] = true;
        open.sink->OnFinish(static_cast<int>(c), reason, -1, status);
      }
  }
  void Forget() {
    std::erase_if(open_, [](const Submitted& open) { return open.done(); });
  }

  std::vector<Submitted> open_;
  engine::RequestId next_ = 1, refuse_from_ = std::numeric_limits<engine::RequestId>::max();
};

/// A connection whose client reads at once, or when told to.
class FakeResponder final : public Responder {
 public:
  void Reply(HttpResponse r) override {
    ++answers;
    response = std::move(r);
    done = true;
  }
  void Stream(HttpResponse head, std::shared_ptr<BodySource> source, std::string_view) override {
    ++answers;
    response = std::move(head);
    source_ = std::move(source);
    if (reads) Read();
  }
  void Wake() override {
    ++wakes;
    if (reads) Read();
  }
  void OnGone(std::function<void(Gone)> gone) override { gone_ = std::move(gone); }

  void Read() {
    if (!source_) return;
    std::string portion;
    const bool goes_on = source_->Pull(&portion);
    if (!portion.empty()) portions.push_back(portion);
    response.body += portion;
    if (goes_on) return;
    done = true;
    closed = source_->close_after();
    source_ = nullptr;
  }
  void Leave(Gone why) {
    reads = false;
    if (gone_) std::exchange(gone_, nullptr)(why);
  }
  size_t waiting() const { return source_ ? source_->waiting_bytes() : 0; }

  bool reads = true, done = false, closed = false;
  int answers = 0, wakes = 0;
  HttpResponse response;
  std::vector<std::string> portions;

 private:
  std::shared_ptr<BodySource> source_;
  std::function<void(Gone)> gone_;
};

/// The events of a stream, without "data: ".
inline std::vector<std::string> Events(std::string_view body) {
  std::vector<std::string> events;
  while (!body.empty()) {
    const size_t end = body.find("\n\n");
    if (end == body.npos || !body.starts_with("data: ")) {
      std::cerr << "no event: " << body << "\n";
      std::abort();
    }
    events.emplace_back(body.substr(6, end - 6));
    body.remove_prefix(end + 2);
  }
  return events;
}

struct TestServer {
  explicit TestServer(ApiOptions options = {}, text::TextModel text = DemoText(), int64_t max_model_len = 512) {
    server = ValueOrDie(ApiServer::Make(Named(std::move(options)), &timer, nullptr));
    routes = server->Routes();
    Says("Hello world", kImEnd);
    queue.logprobs = [](int32_t token) {
      return engine::TokenLogprobs{-0.5f, {{token, -0.5f}, {token == 5 ? 6 : 5, -1.25f}}};
    };
    ServedModel model;
    model.text = std::move(text);
    model.queue = &queue;
    model.max_model_len = max_model_len;
    model.eos_ids = {kEndOfText, kImEnd};
    model.vocab = 8192;
    model.parameters = 1000;
    model.bytes = 2000;
    model.created = 1790000000;
    model.plan_digest = "0123456789abcdef";
    server->SetReady(std::move(model));
  }
  static ApiOptions Named(ApiOptions options) {
    if (options.served_names == std::vector<std::string>{"model"}) options.served_names = {"demo"};
    options.version = "0.1.0";
    options.commit = "abcdef012345";
    return options;
  }

  /// Every choice says `text`, then `last` unless it is negative.
  void Says(const std::string& text, int32_t last) {
    std::vector<int32_t> tokens = DemoTokenizer().Encode(text);
    if (last >= 0) tokens.push_back(last);
    queue.script = [tokens](const engine::Request&, int) { return tokens; };
  }

  static bool Matches(const std::string& pattern, const std::string& path) {
    return pattern.ends_with('*') ? path.starts_with(pattern.substr(0, pattern.size() - 1)) : pattern == path;
  }
  std::shared_ptr<FakeResponder> Send(const std::string& method, const std::string& path, const std::string& body) {
    auto responder = std::make_shared<FakeResponder>();
    SendTo(responder, method, path, body);
    return responder;
  }
  void SendTo(const std::shared_ptr<FakeResponder>& responder, const std::string& method, const std::string& path,
              const std::string& body) {
    for (const Route& route : routes) {
      if (route.method != method || !Matches(route.pattern, path)) continue;
      HttpRequest request;
      request.method = method;
      request.path = path;
      request.body = body;
      request.id = "test-id";
      request.key_name = "key";
      request.received = timer.Now();
      route.handler(std::move(request), responder);
      return;
    }
    std::cerr << "no route: " << method << " " << path << "\n";
    std::abort();
  }
  void RunAll() {
    for (bool more = true; more;) {
      more = queue.Step();
      timer.Run();
    }
  }
  /// Sends, lets the engine run to the end, and gives what came.
  std::shared_ptr<FakeResponder> Post(const std::string& path, const std::string& body) {
    auto responder = Send("POST", path, body);
    RunAll();
    return responder;
  }
  std::string Get(const std::string& path, int status = 200) {
    auto responder = Send("GET", path, "");
    if (responder->response.status != status) return "status " + std::to_string(responder->response.status);
    return responder->response.body;
  }

  ManualTimer timer;
  ScriptedQueue queue;  // before the server: it outlives it
  std::unique_ptr<ApiServer> server;
  std::vector<Route> routes;
};

inline const Json& At(const Json& json, const std::vector<std::string>& path) {
  const Json* at = &json;
  for (const std::string& key : path) {
    const bool index = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    const Json* next = nullptr;
    if (index && at->IsArray()) {
      const size_t i = std::stoul(key);
      if (i < at->items().size()) next = &at->items()[i];
    } else {
      next = at->Find(key);
    }
    if (!next) {
      static const Json nothing(std::string("(absent)"));
      return nothing;
    }
    at = next;
  }
  return *at;
}
inline std::string TextAt(const Json& json, const std::vector<std::string>& path) {
  const Json& value = At(json, path);
  return value.IsString() ? value.AsString() : value.IsNull() ? "(null)" : value.KindName();
}

inline std::string ErrorCode(const FakeResponder& responder) {
  if (!responder.done) return "(no answer)";
  if (responder.response.status == 200) return "(no error)";
  return TextAt(ParseOrDie(responder.response.body), {"error", "code"});
}
inline std::string HeaderOf(const HttpResponse& response, std::string_view name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

}  // namespace qwen::server

#endif  // QWEN_TEST_RUNTIME_SERVER_API_HARNESS_H_
