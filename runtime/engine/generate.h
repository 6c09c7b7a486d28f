// Continues prompts: chunks of prompts and decode rows of several sequences in one ragged step after another.
//
// The plain loop behind `qwenrt run`: first come, first served, every admitted prompt's pages reserved to its very end,
// so nothing is ever preempted. Serving has scheduler.h instead, over the same Engine.
#ifndef QWEN_RUNTIME_ENGINE_GENERATE_H_
#define QWEN_RUNTIME_ENGINE_GENERATE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/sampler.h"

namespace qwen::engine {

struct GenerateOptions {
  int max_tokens = 16;
  std::vector<int64_t> eos_ids;  // drawing one of them ends the sequence; it is part of the result
  SamplingOptions sampling;
  const std::atomic<bool>* stop = nullptr;  // looked at between steps
  /// Hears every new token: index of the prompt, token.
  std::function<void(size_t, int32_t)> on_token;
};

enum class FinishReason : uint8_t {
  kStop,       // an end-of-sequence token
  kLength,     // max_tokens, or the model's length
  kCancelled,  // `stop`
  kFailed,     // the step that would have made its next token
};
const char* FinishReasonName(FinishReason reason);

struct Generated {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kCancelled;
};

/// Rows that a prompt with `left` tokens to go, at `position`, may feed when `budget` rows are free: all that is left,
/// else up to the last border of plan::kStateAlign, so that chunks start at the same places whoever runs beside.
/// 0: wait for the next step. `alone`: nothing else is in the step, so a budget below the border is used up.
int ChunkRows(int64_t position, int64_t left, int64_t budget, bool alone);

/// Feeds `tokens` to one sequence, in chunks as Generate would, and draws the token behind the last. kCancelled after
/// `stop`: the sequence then holds what was fed by then.
StatusOr<int32_t> Feed(Engine& engine, Sequence& sequence, std::span<const int32_t> tokens,
                       const kernels::SampleParams& sample, const std::atomic<bool>* stop);

/// Feeds `tokens` and goes on until something ends it: a conversation's next turn. The last drawn token is not fed.
StatusOr<Generated> Continue(Engine& engine, Sequence& sequence, std::span<const int32_t> tokens,
                             const GenerateOptions& options);

/// One result a prompt, in their order. A step's failure ends all of it; every page and slot is given back.
StatusOr<std::vector<Generated>> Generate(Engine& engine, std::span<const std::vector<int32_t>> prompts,
                                          const GenerateOptions& options);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_GENERATE_H_
