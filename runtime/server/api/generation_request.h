// Bodies of /v1/chat/completions and /v1/completions as typed values (serving design, 4.2 and 4.4).
#ifndef QWEN_RUNTIME_SERVER_API_GENERATION_REQUEST_H_
#define QWEN_RUNTIME_SERVER_API_GENERATION_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/server/api/fields.h"

namespace qwen::server {

enum Endpoint : uint32_t { kChat = 1, kText = 2 };

/// Absent members: the request does not say.
struct GenerationRequest {
  Endpoint endpoint = kChat;
  Json body;  // the pointers below look into it

  std::optional<std::string> model;
  std::optional<int64_t> max_completion_tokens, max_tokens, min_tokens, seed, n, best_of, top_k, priority;
  std::optional<int64_t> top_logprobs;  // chat
  std::optional<int64_t> logprobs;      // completions
  std::optional<double> temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<bool> stream, include_usage, want_logprobs, echo, ignore_eos, include_stop, skip_special, cache_prompt,
      include_reasoning, continue_final_message, add_generation_prompt, timings_per_token, return_progress;
  std::optional<std::string> reasoning_effort, chat_template;
  bool has_stream_options = false;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  const Json* messages = nullptr;
  const Json* kwargs = nullptr;
  std::vector<std::string> text_prompts;  // completions: one of the two
  std::vector<std::vector<int32_t>> id_prompts;

  std::vector<std::string> ignored;  // names of fields without effect, the first ones
  uint64_t ignored_count = 0;

  int64_t choices() const { return n.value_or(1); }
  size_t prompts() const { return endpoint == kChat ? 1 : text_prompts.size() + id_prompts.size(); }
  /// How many rivals of each token; -1: no logprobs.
  int Rivals() const;
};

/// Reads and checks everything that can be checked without a model: types, ranges, fields that exclude each other.
Refusal ReadGenerationRequest(std::string_view body, Endpoint endpoint, const RequestLimits& limits, bool strict,
                              GenerationRequest* to);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_GENERATION_REQUEST_H_
