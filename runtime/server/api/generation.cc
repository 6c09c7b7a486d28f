#include "runtime/server/api/generation.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "fmt/format.h"
#include "runtime/server/api/json_writer.h"

namespace qwen::server {
namespace {

constexpr int64_t kTextMaxTokens = 16;  // of /v1/completions that do not say
constexpr double kMinusInfinity = -9999.0;
constexpr char kJson[] = "application/json; charset=utf-8", kEventStream[] = "text/event-stream; charset=utf-8";

double Seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }
double Milliseconds(std::chrono::steady_clock::duration d) { return Seconds(d) * 1e3; }

/// 24 hex digits that nobody guesses from earlier ones.
std::string RandomHex() {
  thread_local std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}", device(), device(), device());
}

double Printed(float logprob) { return std::isfinite(logprob) ? logprob : kMinusInfinity; }
/// The f32's shortest text, not that of the double it converts to.
void WriteLogprob(JsonWriter& json, float logprob) {
  if (std::isfinite(logprob)) {
    json.Value(logprob);
  } else {
    json.Raw(fmt::format("{:.1f}", Printed(logprob)));
  }
}

void WriteBytes(JsonWriter& json, std::string_view bytes) {
  json.Begin('[');
  for (char byte : bytes) json.Value(static_cast<int>(static_cast<uint8_t>(byte)));
  json.End(']');
}

int64_t CodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

/// A number above 0 as one that is above 0 in f32 too: the engine takes no other.
float Positive(double value) { return std::max(static_cast<float>(value), 1e-6f); }

double PerSecond(int64_t count, double ms) { return ms > 0 ? static_cast<double>(count) * 1e3 / ms : 0; }
double Rounded(double value) { return std::round(value * 1e3) / 1e3; }

}  // namespace

/// Hands one prompt's calls on, with the choice's number in the whole request.
class Generation::Sink final : public engine::RequestSink {
 public:
  Sink(std::shared_ptr<Generation> owner, size_t part, size_t first_choice)
      : owner_(std::move(owner)), part_(part), first_choice_(first_choice) {}

  void OnPrompt(const engine::PromptResult& prompt, int done) override { owner_->OnPrompt(part_, prompt, done); }
  void OnPromptLogprobs(std::span<const engine::TokenLogprobs> logprobs) override {
    owner_->OnPromptLogprobs(part_, logprobs);
  }
  bool OnToken(int choice, const engine::TokenResult& token) override {
    return owner_->OnToken(first_choice_ + static_cast<size_t>(choice), token);
  }
  void OnStep() override { owner_->OnStep(); }
  void OnFinish(int choice, engine::FinishReason reason, int32_t stop_id, const Status& status) override {
    owner_->OnFinish(first_choice_ + static_cast<size_t>(choice), reason, stop_id, status);
  }

 private:
  const std::shared_ptr<Generation> owner_;
  const size_t part_, first_choice_;
};

// --- Beginning ---

Generation::Generation(const GenerationEnvironment& environment, std::shared_ptr<const ServedModel> model,
                       GenerationRequest request, std::vector<Prompt> prompts, const HttpRequest& http,
                       std::shared_ptr<Responder> responder)
    : environment_(environment),
      model_(std::move(model)),
      request_(std::move(request)),
      http_id_(http.id),
      flow_(http.key_name),
      id_((request_.endpoint == kChat ? "chatcmpl-" : "cmpl-") + RandomHex()),
      created_(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                   .count()),
      received_(http.received),
      stream_(request_.stream.value_or(false)),
      entries_(request_.Rivals() >= 0),
      echo_entries_(entries_ && request_.echo.value_or(false)),
      responder_(std::move(responder)) {
  const ApiOptions& options = environment_.options;
  output_.stop = request_.stop;
  output_.include_stop = request_.include_stop.value_or(false);
  output_.skip_special = request_.skip_special.value_or(true);
  output_.min_tokens = request_.min_tokens.value_or(0);
  output_.entries = entries_;
  const text::ChatTemplate* chat_template = model_->text.chat_template();
  const bool reasons =
      options.reasoning_parser == ReasoningParser::kQwen3 ||
      (options.reasoning_parser == ReasoningParser::kAuto && chat_template && chat_template->traits().says_think);
  if (chat() && reasons) {
    const text::PromptEnd end = prompts[0].end;
    output_.start = end == text::PromptEnd::kThinkOpen                             ? OutputOptions::Start::kReasoning
                    : end == text::PromptEnd::kThinkClosed || prompts[0].continued ? OutputOptions::Start::kAnswer
                                                                                   : OutputOptions::Start::kUndecided;
  }
  for (Prompt& prompt : prompts) parts_.push_back({.prompt = std::move(prompt)});
  for (size_t i = 0; i < parts_.size() * static_cast<size_t>(request_.choices()); ++i)
    choices_.emplace_back(*model_->text.tokenizer(), output_);
}

Refusal Generation::MakeRequest(const Part& part, uint64_t seed, engine::Request* to) const {
  const ApiOptions& options = environment_.options;
  const GenerationRequest& r = request_;
  const auto prompt_tokens = static_cast<int64_t>(part.prompt.ids.size());
  const int64_t room = model_->max_model_len - prompt_tokens;  // the prompt was checked to leave some
  const std::optional<int64_t> asked = r.max_completion_tokens ? r.max_completion_tokens : r.max_tokens;
  if (options.refuse_overflow && asked && *asked > room) {
    ApiError error = MakeError(ErrorKind::kContextLength,
                               fmt::format("max_tokens: {} prompt tokens and {} more are more than the context of {}",
                                           prompt_tokens, *asked, model_->max_model_len),
                               "max_tokens");
    error.numbers = {{"n_prompt_tokens", prompt_tokens}, {"n_ctx", model_->max_model_len}};
    return error;
  }
  int64_t tokens = asked ? *asked : chat() ? options.max_tokens_default.value_or(room) : kTextMaxTokens;
  tokens = std::min({tokens, room, options.max_tokens_limit.value_or(room)});

  to->prompt = part.prompt.ids;
  to->turn_ends = part.prompt.turn_ends;
  to->max_tokens = static_cast<int>(tokens);
  to->min_tokens = static_cast<int>(std::min(r.min_tokens.value_or(0), tokens));
  to->choices = static_cast<int>(r.choices());

  // The request's own word, then the operator's, then the plan's, then the neutral value.
  const SamplingDefaults& server = options.sampling;
  const text::GenerationDefaults none{.do_sample = true};
  const text::GenerationDefaults& plan = server.from_plan ? model_->text.defaults() : none;
  auto pick = [](auto neutral, auto... from) {
    double value = neutral;
    bool found = false;
    ((found || !from ? void() : (void)(value = static_cast<double>(*from), found = true)), ...);
    return value;
  };
  const std::optional<double> plan_temperature = plan.do_sample ? plan.temperature.value_or(1) : 0;
  to->sampling.temperature = static_cast<float>(pick(1.0, r.temperature, server.temperature, plan_temperature));
  to->sampling.top_p = Positive(pick(1.0, r.top_p, server.top_p, plan.top_p));
  to->sampling.min_p = static_cast<float>(pick(0.0, r.min_p, server.min_p, plan.min_p));
  to->sampling.top_k = static_cast<int>(std::max(pick(0.0, r.top_k, server.top_k, plan.top_k), 0.0));
  to->sampling.seed = seed;
  to->repetition_penalty =
      Positive(pick(1.0, r.repetition_penalty, server.repetition_penalty, plan.repetition_penalty));
  to->presence_penalty = static_cast<float>(pick(0.0, r.presence_penalty, server.presence_penalty));
  to->frequency_penalty = static_cast<float>(r.frequency_penalty.value_or(0));
  to->logit_bias = r.logit_bias;
  to->vocab_used = model_->text.tokenizer()->vocab_size();

  to->stop_ids = r.stop_token_ids;
  for (int32_t id : model_->eos_ids) {
    if (!r.ignore_eos.value_or(false)) {
      to->stop_ids.push_back(id);
    } else {
      std::erase_if(to->logit_bias, [&](const auto& bias) { return bias.first == id; });
      to->logit_bias.emplace_back(id, -100.0f);
    }
  }
  std::sort(to->stop_ids.begin(), to->stop_ids.end());
  to->stop_ids.erase(std::unique(to->stop_ids.begin(), to->stop_ids.end()), to->stop_ids.end());
  if (to->min_tokens > 0) to->banned_until_min = to->stop_ids;

  to->logprobs = r.Rivals();
  to->prompt_logprobs = echo_entries_ ? r.Rivals() : -1;
  to->use_cache = r.cache_prompt.value_or(true);
  to->priority = options.priorities ? static_cast<int>(r.priority.value_or(0)) : 0;
  to->flow = flow_;
  if (options.isolate_cache) to->cache_salt = flow_;
  return std::nullopt;
}

Refusal Generation::Submit(uint64_t seed) {
  engine::RequestQueue& queue = *model_->queue;
  std::vector<engine::Request> requests(parts_.size());
  for (size_t i = 0; i < parts_.size(); ++i)
    if (Refusal refusal = MakeRequest(parts_[i], seed, &requests[i])) return refusal;
  environment_.metrics.request_params_n.Observe(static_cast<double>(request_.choices()));
  environment_.metrics.request_params_max_tokens.Observe(requests[0].max_tokens);
  for (size_t i = 0; i < parts_.size(); ++i) {
    auto sink = std::make_shared<Sink>(shared_from_this(), i, i * static_cast<size_t>(request_.choices()));
    StatusOr<engine::RequestId> id = queue.Submit(std::move(requests[i]), std::move(sink));
    if (id.ok()) {
      std::lock_guard lock(mutex_);
      parts_[i].id = *id;
      parts_[i].submitted = true;
      continue;
    }
    switch (id.status().code()) {
      case StatusCode::kResourceExhausted: {
        ApiError error = MakeError(ErrorKind::kQueueFull, "the queue is full, try again later");
        const double rate = queue.PromptRate();
        if (rate > 0) {
          const double seconds = std::ceil(static_cast<double>(queue.Stats().waiting_tokens) / rate);
          error.retry_after_s = static_cast<int>(std::clamp(seconds, 1.0, 60.0));
        }
        return error;
      }
      case StatusCode::kCancelled:
        return MakeError(ErrorKind::kShuttingDown, "the server is shutting down");
      default:
        return queue.Stats().failed ? MakeError(ErrorKind::kEngineFailed, "the engine has failed")
                                    : MakeError(ErrorKind::kInternal, "internal error");
    }
  }
  return std::nullopt;
}

void Generation::Start(const GenerationEnvironment& environment, std::shared_ptr<const ServedModel> model,
                       GenerationRequest request, std::vector<Prompt> prompts, uint64_t seed, const HttpRequest& http,
                       std::shared_ptr<Responder> responder) {
  std::shared_ptr<Generation> self(
      new Generation(environment, std::move(model), std::move(request), std::move(prompts), http, responder));
  {
    std::lock_guard lock(self->mutex_);
    self->submitted_ = environment.timer.Now();
  }
  if (Refusal refusal = self->Submit(seed)) {
    {
      std::lock_guard lock(self->mutex_);
      self->answered_ = self->ended_ = true;
      self->responder_ = nullptr;  // what was submitted before is cancelled and heard by nobody
    }
    if (refusal->code == "queue_full" || refusal->code == "shutting_down")
      environment.metrics.rejected_total.At("reason=" + LabelValue(refusal->code)).Add();
    self->CancelAll();
    responder->Reply(ErrorResponse(*refusal, self->http_id_));
    return;
  }
  self->Watch(*responder);
  if (!self->stream_) return;
  responder->Stream(self->Head(), self, environment.options.sse_ping);
  {
    std::lock_guard lock(self->mutex_);
    self->streaming_ = true;
  }
  self->Wake();  // for what came before the flag was up
}

void Generation::Watch(Responder& responder) {
  const ApiOptions& options = environment_.options;
  const std::weak_ptr<Generation> weak = weak_from_this();
  auto after = [&](std::chrono::milliseconds time, ErrorKind kind, const char* message, bool only_waiting) {
    if (time.count() <= 0) return;
    const Timer::Id id = environment_.timer.At(submitted_ + time, [=] {
      const std::shared_ptr<Generation> self = weak.lock();
      if (!self) return;
      {
        std::lock_guard lock(self->mutex_);
        if (only_waiting && self->scheduled_ != TimePoint()) return;
      }
      self->environment_.metrics.rejected_total.At("reason=\"timeout\"").Add();
      self->Fail(MakeError(kind, message));
    });
    std::lock_guard lock(mutex_);
    if (ended_) {
      environment_.timer.Cancel(id);
    } else {
      timers_.push_back(id);
    }
  };
  after(options.queue_timeout, ErrorKind::kQueueTimeout, "the request waited too long, try again later", true);
  after(options.request_timeout, ErrorKind::kDeadline, "the request took longer than the server allows", false);
  responder.OnGone([weak](Gone gone) {
    const std::shared_ptr<Generation> self = weak.lock();
    if (!self) return;
    if (gone == Gone::kTooSlow || gone == Gone::kSendTimeout) self->environment_.metrics.slow_client_closes_total.Add();
    self->Fail(MakeError(ErrorKind::kShuttingDown, "the client is gone"), true);
  });
}

HttpResponse Generation::Head() const {
  HttpResponse head;
  head.content_type = stream_ ? kEventStream : kJson;
  if (stream_) head.headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
  head.headers.emplace_back("openai-processing-ms",
                            fmt::format("{:.0f}", Milliseconds(environment_.timer.Now() - received_)));
  if (!request_.ignored.empty())
    head.headers.emplace_back("x-ignored-fields", fmt::format("{}", fmt::join(request_.ignored, ",")));
  return head;
}

// --- The engine's thread ---

void Generation::OnPrompt(size_t part, const engine::PromptResult& result, int done) {
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    Part& p = parts_[part];
    if (scheduled_ == TimePoint()) {
      scheduled_ = environment_.timer.Now();
      environment_.metrics.request_queue_time_seconds.Observe(Seconds(scheduled_ - submitted_));
    }
    p.scheduled = true;
    p.result = result;
    p.processed = done;
    wake = request_.return_progress.value_or(false) && streaming_;
    p.progressed = request_.return_progress.value_or(false);
  }
  if (wake) Wake();
}

void Generation::OnPromptLogprobs(size_t part, std::span<const engine::TokenLogprobs> logprobs) {
  std::lock_guard lock(mutex_);
  parts_[part].logprobs.insert(parts_[part].logprobs.end(), logprobs.begin(), logprobs.end());
}

bool Generation::OnToken(size_t index, const engine::TokenResult& token) {
  std::lock_guard lock(mutex_);
  if (ended_) return false;
  Choice& choice = choices_[index];
  const TimePoint now = environment_.timer.Now();
  if (first_token_ == TimePoint()) {
    first_token_ = now;
    environment_.metrics.time_to_first_token_seconds.Observe(Seconds(now - received_));
    environment_.metrics.request_prefill_time_seconds.Observe(Seconds(now - scheduled_));
  }
  if (choice.last_token != TimePoint())
    environment_.metrics.inter_token_latency_seconds.Observe(Seconds(now - choice.last_token));
  choice.last_token = last_token_ = now;
  const size_t before = choice.outbox.bytes();
  const bool goes_on = choice.parser.Push(token, &choice.outbox);
  waiting_bytes_.fetch_add(choice.outbox.bytes() - before, std::memory_order_relaxed);
  dirty_ = true;
  return goes_on;
}

void Generation::OnStep() {
  {
    std::lock_guard lock(mutex_);
    if (!streaming_ || !dirty_) return;
    dirty_ = false;
  }
  Wake();
}

void Generation::OnFinish(size_t index, engine::FinishReason reason, int32_t stop_id, const Status& status) {
  bool all = false, failed = false;
  {
    std::lock_guard lock(mutex_);
    Choice& choice = choices_[index];
    if (choice.finished) return;
    failed = reason == engine::FinishReason::kFailed || reason == engine::FinishReason::kCancelled;
    // The error ends all of it: a stream that is pulled before must not end this choice as if it had come to its end.
    choice.finished = !failed;
    ++finished_;
    const size_t before = choice.outbox.bytes();
    choice.parser.Finish(&choice.outbox);
    waiting_bytes_.fetch_add(choice.outbox.bytes() - before, std::memory_order_relaxed);
    const bool stopped = reason == engine::FinishReason::kStop || choice.parser.stopped_by();
    choice.finish_reason = stopped ? "stop" : "length";
    const auto& own = request_.stop_token_ids;
    if (!choice.parser.stopped_by() && std::find(own.begin(), own.end(), stop_id) != own.end())
      choice.stop_id = stop_id;
    all = finished_ == choices_.size();
    if (ended_) return;
  }
  const std::shared_ptr<Generation> self = shared_from_this();
  if (failed) {
    // The engine does not expect calls from inside a sink, and what it says of itself may be of a moment ago.
    const bool cancelled = reason == engine::FinishReason::kCancelled;
    environment_.timer.Soon([self, cancelled] {
      self->Fail(cancelled ? MakeError(ErrorKind::kShuttingDown, "the server is shutting down")
                 : self->model_->queue->Stats().failed ? MakeError(ErrorKind::kEngineFailed, "the engine has failed")
                                                       : MakeError(ErrorKind::kInternal, "internal error"));
    });
  } else if (stream_) {
    Wake();
  } else if (all) {
    environment_.timer.Soon([self] { self->Reply(); });
  }
}

// --- Ending ---

void Generation::Fail(ApiError error, bool gone) {
  std::shared_ptr<Responder> dropped;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!error_) error_ = std::move(error);
    if (gone) {
      gone_ = answered_ = true;
      dropped = End();
    }
  }
  CancelAll();
  if (gone) return;
  if (stream_) {
    Wake();
  } else {
    Reply();
  }
}

void Generation::CancelAll() {
  std::vector<engine::RequestId> ids;
  {
    std::lock_guard lock(mutex_);
    for (const Part& part : parts_)
      if (part.submitted) ids.push_back(part.id);
  }
  for (engine::RequestId id : ids) model_->queue->Cancel(id);
}

void Generation::Wake() {
  std::shared_ptr<Responder> responder;
  {
    std::lock_guard lock(mutex_);
    if (streaming_) responder = responder_;  // before, Start wakes when the stream is there
  }
  if (responder) responder->Wake();
}

void Generation::Reply() {
  HttpResponse response;
  std::shared_ptr<Responder> responder;
  {
    std::lock_guard lock(mutex_);
    if (answered_) return;
    answered_ = true;
    if (error_) {
      response = ErrorResponse(*error_, http_id_);
    } else {
      response = Head();
      response.body = Body();
    }
    responder = End();
  }
  responder->Reply(std::move(response));
}

std::shared_ptr<Responder> Generation::End() {
  if (std::exchange(ended_, true)) return nullptr;
  for (const Timer::Id& id : timers_) environment_.timer.Cancel(id);
  timers_.clear();
  Metrics& metrics = environment_.metrics;
  const TimePoint now = environment_.timer.Now();
  GenerationSummary summary;
  for (const Part& part : parts_) {
    summary.prompt_tokens += static_cast<int64_t>(part.prompt.ids.size());
    summary.cached_tokens += part.result.cached_tokens;
  }
  for (const Choice& choice : choices_) {
    summary.completion_tokens += choice.parser.tokens();
    const char* reason = error_ ? (gone_ ? "abort" : "error") : choice.finish_reason;
    if (summary.finish.empty()) summary.finish = reason;
    metrics.request_success_total.At("finished_reason=" + LabelValue(reason)).Add();
  }
  summary.total_ms = Milliseconds(now - received_);
  if (first_token_ != TimePoint()) summary.first_token_ms = Milliseconds(first_token_ - received_);
  if (gone_)
    metrics.client_disconnects_total
        .At(scheduled_ == TimePoint()     ? "phase=\"queued\""
            : first_token_ == TimePoint() ? "phase=\"prefill\""
                                          : "phase=\"decode\"")
        .Add();
  metrics.e2e_request_latency_seconds.Observe(Seconds(now - received_));
  metrics.request_prompt_tokens.Observe(static_cast<double>(summary.prompt_tokens));
  metrics.request_generation_tokens.Observe(static_cast<double>(summary.completion_tokens));
  if (scheduled_ != TimePoint()) metrics.request_inference_time_seconds.Observe(Seconds(now - scheduled_));
  if (first_token_ != TimePoint()) metrics.request_decode_time_seconds.Observe(Seconds(now - first_token_));
  if (environment_.ended) environment_.ended(http_id_, summary);
  return std::exchange(responder_, nullptr);
}

// --- Writing ---

bool Generation::Pull(std::string* out) {
  struct Taken {
    OutputDelta delta;
    bool finished;
  };
  std::vector<Taken> taken;
  std::vector<std::pair<size_t, int>> progress;  // part, rows that are in
  std::optional<ApiError> error;
  Totals totals;
  double waited_ms = 0;
  {
    std::lock_guard lock(mutex_);
    if (answered_) return false;
    error = error_;
    for (Choice& choice : choices_) {
      taken.push_back({std::exchange(choice.outbox, {}), choice.finished});
      waiting_bytes_.fetch_sub(taken.back().delta.bytes(), std::memory_order_relaxed);
    }
    for (size_t i = 0; i < parts_.size(); ++i)
      if (std::exchange(parts_[i].progressed, false)) progress.emplace_back(i, parts_[i].processed);
    totals = Count();
    if (!progress.empty()) waited_ms = Milliseconds(environment_.timer.Now() - scheduled_);
  }
  const char* object = chat() ? "chat.completion.chunk" : "text_completion";
  if (!std::exchange(begun_, true) && chat())
    for (size_t i = 0; i < choices_.size(); ++i) WriteChunk(out, i, {}, totals, true, false);
  for (const auto& [part, processed] : progress) {
    std::string json;
    JsonWriter writer(&json);
    WriteHead(writer, object);
    writer.Key("choices").Begin('[').End(']').Key("prompt_progress").Begin('{');
    writer.Member("total", parts_[part].prompt.ids.size()).Member("cache", totals.cached);
    writer.Member("processed", processed).Member("time_ms", Rounded(waited_ms)).End('}');
    WriteChunkEnd(writer, nullptr);
    WriteEvent(out, json);
  }
  bool all = true;
  const bool echo = !chat() && request_.echo.value_or(false);
  for (size_t i = 0; i < taken.size() && !error; ++i) {
    // An echo without logprobs is known at once; with them it is when the first token or the end is.
    const bool echoes = echo && !choices_[i].begun && (taken[i].finished || !echo_entries_);
    if (echoes || !taken[i].delta.empty()) WriteChunk(out, i, taken[i].delta, totals, false, false);
  }
  for (size_t i = 0; i < taken.size() && !error; ++i) {
    if (taken[i].finished && !std::exchange(choices_[i].ended, true)) WriteChunk(out, i, {}, totals, false, true);
    all = all && taken[i].finished;
  }
  if (error) {
    WriteEvent(out, ErrorResponse(*error, http_id_).body);
    failed_.store(true, std::memory_order_release);
  } else if (!all) {
    return true;
  } else if (request_.include_usage.value_or(false)) {
    std::string json;
    JsonWriter writer(&json);
    WriteHead(writer, object);
    writer.Key("choices").Begin('[').End(']').Key("usage");
    WriteUsage(writer, totals);
    WriteTimings(writer.Key("timings"), totals);
    writer.End('}');
    WriteEvent(out, json);
  }
  WriteEvent(out, "[DONE]");
  std::shared_ptr<Responder> dropped;
  std::lock_guard lock(mutex_);
  answered_ = true;
  dropped = End();
  return false;
}

Generation::Totals Generation::Count() const {
  Totals totals;
  for (const Part& part : parts_) {
    totals.prompt += static_cast<int64_t>(part.prompt.ids.size());
    totals.cached += part.result.cached_tokens;
  }
  for (const Choice& choice : choices_) {
    totals.completion += choice.parser.tokens();
    totals.reasoning += choice.parser.reasoning_tokens();
  }
  if (first_token_ != TimePoint()) {
    totals.prompt_ms = Milliseconds(first_token_ - scheduled_);
    totals.predicted_ms = Milliseconds(last_token_ - first_token_);
  }
  return totals;
}

void Generation::WriteEvent(std::string* out, std::string_view json) const {
  *out += "data: ";
  *out += json;
  *out += "\n\n";
}

void Generation::WriteHead(JsonWriter& json, const char* object) const {
  const ApiOptions& options = environment_.options;
  json.Begin('{').Member("id", id_).Member("object", object).Member("created", created_);
  json.Member("model",
              options.served_names.front() == "*" ? request_.model.value_or("model") : options.served_names.front());
  json.Member("system_fingerprint",
              fmt::format("b{}-{}", options.commit.substr(0, 8), model_->plan_digest.substr(0, 8)));
}

void Generation::WriteChunkEnd(JsonWriter& json, const Totals* timings) const {
  if (request_.include_usage.value_or(false)) json.Member("usage", nullptr);
  if (timings) WriteTimings(json.Key("timings"), *timings);
  json.End('}');
}

void Generation::WriteUsage(JsonWriter& json, const Totals& totals) const {
  json.Begin('{').Member("prompt_tokens", totals.prompt).Member("completion_tokens", totals.completion);
  json.Member("total_tokens", totals.prompt + totals.completion);
  json.Key("prompt_tokens_details").Begin('{').Member("cached_tokens", totals.cached).End('}');
  json.Key("completion_tokens_details").Begin('{').Member("reasoning_tokens", totals.reasoning);
  json.Member("accepted_prediction_tokens", 0).Member("rejected_prediction_tokens", 0).End('}').End('}');
}

void Generation::WriteTimings(JsonWriter& json, const Totals& t) const {
  const int64_t computed = t.prompt - t.cached;
  json.Begin('{').Member("cache_n", t.cached).Member("prompt_n", computed);
  json.Member("prompt_ms", Rounded(t.prompt_ms));
  json.Member("prompt_per_second", Rounded(PerSecond(computed, t.prompt_ms)));
  json.Member("predicted_n", t.completion).Member("predicted_ms", Rounded(t.predicted_ms));
  json.Member("predicted_per_second", Rounded(PerSecond(t.completion, t.predicted_ms)));
  json.Member("draft_n", 0).Member("draft_n_accepted", 0).End('}');
}

void Generation::WriteFinish(JsonWriter& json, const Choice& choice) const {
  json.Member("finish_reason", choice.finish_reason).Key("stop_reason");
  if (const std::string* word = choice.parser.stopped_by()) {
    json.Value(*word);
  } else if (choice.stop_id >= 0) {
    json.Value(choice.stop_id);
  } else {
    json.Value(nullptr);
  }
}

void Generation::WriteReasoning(JsonWriter& json, std::string_view text) const {
  const ReasoningField field = environment_.options.reasoning_field;
  if (field != ReasoningField::kReasoning) json.Member("reasoning_content", text);
  if (field != ReasoningField::kReasoningContent) json.Member("reasoning", text);
}

void Generation::WriteChatLogprobs(JsonWriter& json, const std::vector<TokenEntry>& entries) const {
  const text::Tokenizer& tokenizer = *model_->text.tokenizer();
  auto begin = [&](std::string_view bytes, float logprob) {
    json.Begin('{').Member("token", text::ReplaceIllFormed(bytes)).Key("logprob");
    WriteLogprob(json, logprob);
    WriteBytes(json.Key("bytes"), bytes);
  };
  json.Begin('{').Key("content").Begin('[');
  for (const TokenEntry& entry : entries) {
    begin(entry.bytes, entry.logprobs.logprob);
    json.Key("top_logprobs").Begin('[');
    const size_t rivals = std::min(entry.logprobs.top.size(), static_cast<size_t>(request_.Rivals()));
    for (size_t i = 0; i < rivals; ++i) {
      begin(tokenizer.Bytes(entry.logprobs.top[i].first), entry.logprobs.top[i].second);
      json.End('}');
    }
    json.End(']').End('}');
  }
  json.End(']').Member("refusal", nullptr).End('}');
}

void Generation::WriteTextEntry(JsonWriter& tokens, JsonWriter& logprobs, JsonWriter& tops, JsonWriter& offsets,
                                Choice& choice, int32_t token, std::string_view bytes,
                                const engine::TokenLogprobs* values) const {
  const text::Tokenizer& tokenizer = *model_->text.tokenizer();
  tokens.Value(text::ReplaceIllFormed(bytes));
  offsets.Value(choice.code_points);
  std::string text;
  choice.offset_utf8.Push(bytes, &text);
  choice.code_points += CodePoints(text);
  if (!values) {
    logprobs.Value(nullptr);
    tops.Value(nullptr);
    return;
  }
  WriteLogprob(logprobs, values->logprob);
  // An object by text: of tokens that look the same the likeliest stands, and the drawn one always does.
  tops.Begin('{');
  std::vector<std::string> seen;
  auto add = [&](std::string name, float logprob) {
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) return;
    tops.Raw(JsonQuote(name) + ":");
    WriteLogprob(tops, logprob);
    seen.push_back(std::move(name));
  };
  const size_t rivals = std::min(values->top.size(), static_cast<size_t>(request_.Rivals()));
  for (size_t i = 0; i < rivals; ++i)
    add(text::ReplaceIllFormed(tokenizer.Bytes(values->top[i].first)), values->top[i].second);
  add(text::ReplaceIllFormed(tokenizer.Bytes(token)), values->logprob);
  tops.End('}');
}

void Generation::WriteTextLogprobs(JsonWriter& json, Choice& choice, const Part* echoed,
                                   const std::vector<TokenEntry>& entries) const {
  std::string texts[4];
  JsonWriter tokens(&texts[0]), logprobs(&texts[1]), tops(&texts[2]), offsets(&texts[3]);
  if (echoed) {
    for (size_t i = 0; i < echoed->prompt.ids.size(); ++i) {
      const int32_t id = echoed->prompt.ids[i];
      const bool known = i > 0 && i - 1 < echoed->logprobs.size();  // nothing comes before the first
      WriteTextEntry(tokens, logprobs, tops, offsets, choice, id, model_->text.tokenizer()->Bytes(id),
                     known ? &echoed->logprobs[i - 1] : nullptr);
    }
  }
  for (const TokenEntry& entry : entries)
    WriteTextEntry(tokens, logprobs, tops, offsets, choice, entry.token, entry.bytes, &entry.logprobs);
  const char* names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
  json.Begin('{');
  for (int i = 0; i < 4; ++i) json.Key(names[i]).Raw("[" + texts[i] + "]");
  json.End('}');
}

void Generation::WriteChunk(std::string* out, size_t index, const OutputDelta& delta, const Totals& totals, bool first,
                            bool last) {
  Choice& choice = choices_[index];
  const bool whole = std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.ended; });
  const bool usage = request_.include_usage.value_or(false);
  const bool timings = (last && whole && !usage) || (request_.timings_per_token.value_or(false) && !first && !last);
  auto chunk = [&](auto&& middle, const std::vector<TokenEntry>* entries, const Part* echoed) {
    std::string json;
    JsonWriter writer(&json);
    WriteHead(writer, chat() ? "chat.completion.chunk" : "text_completion");
    writer.Key("choices").Begin('[').Begin('{').Member("index", index);
    middle(writer);
    writer.Key("logprobs");
    if (!entries_ || !entries || (chat() && entries->empty())) {
      writer.Value(nullptr);
    } else if (chat()) {
      WriteChatLogprobs(writer, *entries);
    } else {
      WriteTextLogprobs(writer, choice, echoed, *entries);
    }
    if (last) {
      WriteFinish(writer, choice);
    } else {
      writer.Member("finish_reason", nullptr);
    }
    writer.End('}').End(']');
    WriteChunkEnd(writer, timings ? &totals : nullptr);
    WriteEvent(out, json);
  };
  if (!chat()) {
    const bool echo = !last && request_.echo.value_or(false) && !choice.begun;
    const Part& part = PartOf(index);
    chunk([&](JsonWriter& json) { json.Member("text", echo ? part.prompt.text + delta.content : delta.content); },
          last ? nullptr : &delta.entries, echo ? &part : nullptr);
    choice.begun = true;
  } else if (first) {
    chunk(
        [](JsonWriter& json) {
          json.Key("delta").Begin('{').Member("role", "assistant").Member("content", nullptr).End('}');
        },
        nullptr, nullptr);
  } else if (last) {
    chunk([](JsonWriter& json) { json.Key("delta").Begin('{').End('}'); }, nullptr, nullptr);
  } else {
    if (!delta.reasoning.empty() && request_.include_reasoning.value_or(true))
      chunk(
          [&](JsonWriter& json) {
            WriteReasoning(json.Key("delta").Begin('{'), delta.reasoning);
            json.End('}');
          },
          nullptr, nullptr);
    if (!delta.content.empty() || !delta.entries.empty())
      chunk([&](JsonWriter& json) { json.Key("delta").Begin('{').Member("content", delta.content).End('}'); },
            &delta.entries, nullptr);
  }
}

std::string Generation::Body() {
  std::string body;
  JsonWriter json(&body);
  WriteHead(json, chat() ? "chat.completion" : "text_completion");
  json.Key("choices").Begin('[');
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    const OutputDelta& delta = choice.outbox;
    json.Begin('{').Member("index", i);
    if (chat()) {
      json.Key("message").Begin('{').Member("role", "assistant").Key("content");
      if (choice.parser.in_reasoning() && choice.parser.tokens() > 0) {
        json.Value(nullptr);
      } else {
        json.Value(delta.content);
      }
      json.Member("refusal", nullptr);
      if (!delta.reasoning.empty() && request_.include_reasoning.value_or(true)) WriteReasoning(json, delta.reasoning);
      json.End('}').Key("logprobs");
      if (entries_) {
        WriteChatLogprobs(json, delta.entries);
      } else {
        json.Value(nullptr);
      }
    } else {
      const bool echo = request_.echo.value_or(false);
      const Part& part = PartOf(i);
      json.Member("text", echo ? part.prompt.text + delta.content : delta.content).Key("logprobs");
      if (entries_) {
        WriteTextLogprobs(json, choice, echo ? &part : nullptr, delta.entries);
      } else {
        json.Value(nullptr);
      }
    }
    WriteFinish(json, choice);
    json.End('}');
  }
  const Totals totals = Count();
  json.End(']').Key("usage");
  WriteUsage(json, totals);
  WriteTimings(json.Key("timings"), totals);
  json.End('}');
  return body;
}

}  // namespace qwen::server
