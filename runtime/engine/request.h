// A request to the engine, who hears of its tokens, and the door it goes through.
//
// Everything above the engine (server, load tests) talks to this interface alone; engine_loop.h is the real one, tests
// script their own. Numbers only: text, stop strings and JSON are the sink's business. What a request asks for has been
// checked before Submit: the engine never refuses a value that a user could have sent.
#ifndef QWEN_RUNTIME_ENGINE_REQUEST_H_
#define QWEN_RUNTIME_ENGINE_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/sampler.h"

namespace qwen::engine {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;  // 1 to max_model_len - 1 ids below the vocabulary
  int max_tokens = 16;          // of every choice; 0: the prompt is prefilled, nothing is drawn
  int choices = 1;           // the prompt is prefilled once, then forked; choice c draws with SamplingOptions::choice c
  SamplingOptions sampling;  // serving design, section 18: order of what follows too

  float repetition_penalty = 1, frequency_penalty = 0, presence_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // ids differ; -100 and less bans
  int32_t vocab_used = 0;                             // ids from here on are never drawn; 0: all may be
  std::vector<int32_t> stop_ids;                      // drawing one ends the choice; end-of-sequence ids among them
  std::vector<int32_t> banned_until_min;              // never drawn before min_tokens: stop and end-of-sequence ids
  int min_tokens = 0;

  int logprobs = -1;         // of every token and its `logprobs` likeliest rivals; -1: none
  int prompt_logprobs = -1;  // the same of the prompt's tokens; such a request neither reads nor writes the cache

  int priority = 0;        // higher goes first
  std::string flow;        // whose request this is: waiting prompts of several flows take turns
  std::string cache_salt;  // requests share cached prefixes within one salt
  bool use_cache = true;   // false: neither reads nor writes the prefix cache
  std::vector<int32_t>
      turn_ends;  // positions in the prompt, ascending, where another request may branch off: message borders
};

/// Log-softmax of the raw logits, before bias, penalties and temperature: f32, natural.
struct TokenLogprobs {
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // the likeliest, value descending then id ascending
};

struct TokenResult {
  int32_t token = 0;
  const TokenLogprobs* logprobs = nullptr;  // when asked for
};

/// When a request's life changed, for usage, timings and logs. Times are the engine's clock.
struct RequestTimes {
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint queued, scheduled, first_token, finished;
};

enum class MissReason : uint8_t {
  kNone,
  kCold,
  kNoSnapshot,
  kDisabled
};  // why fewer tokens came from the cache than KV pages matched
const char* MissReasonName(MissReason reason);

struct PromptResult {
  int prompt_tokens = 0, cached_tokens = 0;
  MissReason miss = MissReason::kNone;
};

/// Hears of one request, on the engine's thread, in order; must not block. Calls end with the last choice's OnFinish.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  /// Rows of the prompt that are in: when it is taken out of the queue those from the cache, then after every chunk;
  /// before the first token at least once with done == total.
  virtual void OnPrompt(const PromptResult& /*prompt*/, int /*done*/) {}
  /// With prompt_logprobs: of prompt tokens 1 and up, in order, perhaps in several calls.
  virtual void OnPromptLogprobs(std::span<const TokenLogprobs> /*logprobs*/) {}
  /// One drawn token that is no stop id. False ends the choice: it is then finished with kStop.
  virtual bool OnToken(int choice, const TokenResult& token) = 0;
  /// The tokens of one step of all choices are out: a good moment to hand on what they made.
  virtual void OnStep() {}
  /// Once, right before the last choice's OnFinish.
  virtual void OnTimes(const RequestTimes& /*times*/) {}
  /// Exactly once a choice. `stop_id`: the stop id that was drawn, else -1. `status` says what failed when `reason` is
  /// kFailed, and why it was given up when kCancelled.
  virtual void OnFinish(int choice, FinishReason reason, int32_t stop_id, const Status& status) = 0;
};

/// What the engine is doing, for metrics and health. A consistent copy of one moment between steps.
struct EngineStats {
  int running = 0, waiting = 0;
  int64_t waiting_tokens = 0;     // prompt tokens not yet scheduled
  int pages = 0, pages_free = 0;  // pages that only the cache holds count as free
  int slots = 0, slots_free = 0;
  int64_t snapshot_bytes = 0, snapshot_budget = 0;
  int snapshots = 0;
  uint64_t steps = 0, step_rows = 0, decode_rows = 0, decode_steps = 0;  // decode_steps: those with decode rows
  uint64_t prompt_tokens = 0, generated_tokens = 0, preemptions = 0;
  uint64_t cache_queries = 0, cache_hits = 0;                       // tokens
  uint64_t miss_cold = 0, miss_no_snapshot = 0, miss_disabled = 0;  // tokens
  uint64_t finished[4] = {};                                        // by FinishReason
  double prompt_seconds = 0, generation_seconds = 0;                // of steps, shared out by rows
  std::chrono::steady_clock::time_point heartbeat{};  // of the last step's end, or of the last look at an empty queue
  bool failed = false;                                // the device is gone: nothing runs any more
};

/// Where requests go. Any thread may call any of it.
class RequestQueue {
 public:
  virtual ~RequestQueue() = default;
  /// kResourceExhausted when the queue is full, kCancelled while draining, kInternal after the device failed; the sink
  /// then hears nothing.
  virtual StatusOr<RequestId> Submit(Request request, std::shared_ptr<RequestSink> sink) = 0;
  /// Within one step: pages and slots are back and every open choice is finished with kCancelled. Unknown ids are fine.
  virtual void Cancel(RequestId id) = 0;
  virtual EngineStats Stats() const = 0;
  /// Prompt tokens a second that the queue has been moving at lately; 0 when nothing is known.
  virtual double PromptRate() const = 0;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_REQUEST_H_
