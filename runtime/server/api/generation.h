// One request on its way through the engine: its tokens in, its answer out, in one piece or as events.
//
// The engine's thread calls the sinks: they parse tokens (output.h) into an outbox and wake the connection. The
// connection's thread pulls: it takes what the outbox holds and writes JSON, so a slow reader gets fewer and larger
// events. An answer in one piece is written on the timer's thread. Whoever finds that the request must end sets the
// error first and cancels then; the first error is the one the client sees.
#ifndef QWEN_RUNTIME_SERVER_API_GENERATION_H_
#define QWEN_RUNTIME_SERVER_API_GENERATION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/request.h"
#include "runtime/server/api/generation_request.h"
#include "runtime/server/api/metrics.h"
#include "runtime/server/api/options.h"
#include "runtime/server/api/output.h"
#include "runtime/server/api/prompt.h"
#include "runtime/server/api/timer.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

/// What a log line says of a request beside its exchange.
struct GenerationSummary {
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  double first_token_ms = -1, total_ms = 0;  // -1: there was none
  std::string finish;                        // of the first choice that says: "stop" ... "abort", "error"
};

/// Outlives every generation.
struct GenerationEnvironment {
  const ApiOptions& options;
  Metrics& metrics;
  Timer& timer;
  std::function<void(const std::string& request_id, const GenerationSummary&)> ended = {};
};

class Generation final : public BodySource, public std::enable_shared_from_this<Generation> {
 public:
  /// Submits the prompts and answers through `responder`, now or later, whatever happens.
  static void Start(const GenerationEnvironment& environment, std::shared_ptr<const ServedModel> model,
                    GenerationRequest request, std::vector<Prompt> prompts, uint64_t seed, const HttpRequest& http,
                    std::shared_ptr<Responder> responder);

  bool Pull(std::string* out) override;
  size_t waiting_bytes() const override { return waiting_bytes_.load(std::memory_order_relaxed); }
  bool close_after() const override { return failed_.load(std::memory_order_acquire); }

 private:
  class Sink;
  using TimePoint = Timer::TimePoint;

  /// Of one prompt.
  struct Part {
    Prompt prompt;
    engine::PromptResult result;
    int processed = 0;  // rows of the prompt that are in
    bool scheduled = false, progressed = false;
    std::vector<engine::TokenLogprobs> logprobs;  // of tokens 1 and up
    engine::RequestId id = 0;
    bool submitted = false;
  };

  struct Choice {
    Choice(const text::Tokenizer& tokenizer, const OutputOptions& options) : parser(tokenizer, options) {}

    OutputParser parser;
    OutputDelta outbox;
    bool finished = false;  // by the engine
    const char* finish_reason = "stop";
    int32_t stop_id = -1;  // of the request's own stop ids
    TimePoint last_token{};

    // The writer's own: what is out so far.
    bool begun = false, ended = false;  // the first text, the last event
    int64_t code_points = 0;            // for text_offset
    text::Utf8Stream offset_utf8;
  };

  /// Numbers of one moment.
  struct Totals {
    int64_t prompt = 0, cached = 0, completion = 0, reasoning = 0;  // tokens
    double prompt_ms = 0, predicted_ms = 0;
  };

  Generation(const GenerationEnvironment& environment, std::shared_ptr<const ServedModel> model,
             GenerationRequest request, std::vector<Prompt> prompts, const HttpRequest& http,
             std::shared_ptr<Responder> responder);

  Refusal MakeRequest(const Part& part, uint64_t seed, engine::Request* to) const;
  Refusal Submit(uint64_t seed);
  void Watch(Responder& responder);  // time-outs, and the client
  HttpResponse Head() const;

  // --- The engine's thread ---
  void OnPrompt(size_t part, const engine::PromptResult& result, int done);
  void OnPromptLogprobs(size_t part, std::span<const engine::TokenLogprobs> logprobs);
  bool OnToken(size_t choice, const engine::TokenResult& token);
  void OnStep();
  void OnFinish(size_t choice, engine::FinishReason reason, int32_t stop_id, const Status& status);

  /// Ends everything with `error`, unless something has already. `gone`: nobody reads it.
  void Fail(ApiError error, bool gone = false);
  void CancelAll();
  void Wake();
  void Reply();
  /// Once: metrics and the log's summary. The lock is held. Gives the responder away, to be dropped without the lock:
  /// it holds us as we hold it.
  [[nodiscard]] std::shared_ptr<Responder> End();

  Totals Count() const;  // the lock is held

  // --- Writing, by one thread at a time; without the lock, as the engine's thread must not wait for JSON ---
  void WriteHead(class JsonWriter& json, const char* object) const;
  void WriteUsage(JsonWriter& json, const Totals& totals) const;
  void WriteTimings(JsonWriter& json, const Totals& totals) const;
  void WriteFinish(JsonWriter& json, const Choice& choice) const;
  void WriteReasoning(JsonWriter& json, std::string_view text) const;
  void WriteChatLogprobs(JsonWriter& json, const std::vector<TokenEntry>& entries) const;
  void WriteTextLogprobs(JsonWriter& json, Choice& choice, const Part* echoed,
                         const std::vector<TokenEntry>& entries) const;
  void WriteTextEntry(JsonWriter& tokens, JsonWriter& logprobs, JsonWriter& tops, JsonWriter& offsets, Choice& choice,
                      int32_t token, std::string_view bytes, const engine::TokenLogprobs* values) const;
  void WriteChunk(std::string* out, size_t index, const OutputDelta& delta, const Totals& totals, bool first,
                  bool last);
  void WriteEvent(std::string* out, std::string_view json) const;
  /// `timings`: null for none.
  void WriteChunkEnd(JsonWriter& json, const Totals* timings) const;
  std::string Body();
  bool chat() const { return request_.endpoint == kChat; }
  const Part& PartOf(size_t choice) const { return parts_[choice / static_cast<size_t>(request_.choices())]; }

  const GenerationEnvironment environment_;
  const std::shared_ptr<const ServedModel> model_;
  const GenerationRequest request_;
  const std::string http_id_, flow_, id_;
  const int64_t created_;
  const TimePoint received_;
  const bool stream_, entries_, echo_entries_;
  OutputOptions output_;  // the same of all choices

  mutable std::mutex mutex_;
  std::shared_ptr<Responder> responder_;  // null after the end
  std::vector<Part> parts_;
  std::deque<Choice> choices_;  // prompt-major
  size_t finished_ = 0;         // choices
  TimePoint submitted_{}, scheduled_{}, first_token_{}, last_token_{};
  bool streaming_ = false, dirty_ = false, answered_ = false, ended_ = false, gone_ = false;
  std::optional<ApiError> error_;
  std::vector<Timer::Id> timers_;
  bool begun_ = false;  // the writer's own: the first events are out
  std::atomic<size_t> waiting_bytes_{0};
  std::atomic<bool> failed_{false};
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_GENERATION_H_
