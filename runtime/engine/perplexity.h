// How well a model predicts a sequence of tokens.
#ifndef QWEN_RUNTIME_ENGINE_PERPLEXITY_H_
#define QWEN_RUNTIME_ENGINE_PERPLEXITY_H_

#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"

namespace qwen::engine {

struct Perplexity {
  double nats = 0;     // sum of -ln p over the scored tokens
  int64_t scored = 0;  // all but the first
  int64_t windows = 0;

  double PerToken() const { return std::exp(nats / static_cast<double>(scored)); }
  double BitsPerByte(int64_t bytes) const { return nats / std::log(2.0) / static_cast<double>(bytes); }
};

/// Windows of `window` tokens begin every `stride` tokens. A token is scored once, in the first window that reaches it,
/// so it sees at least window - stride tokens in front of it (the first window's see what there is); the very first
/// token of all is not scored. Logits f32, sums f64. `progress` hears the tokens done.
/// kInvalidArgument for fewer than two tokens, or a stride that is not in 1 to window - 1.
StatusOr<Perplexity> MeasurePerplexity(Engine& engine, std::span<const int32_t> tokens, int window, int stride,
                                       const std::atomic<bool>* stop,
                                       const std::function<void(int64_t)>& progress = {});

/// -ln softmax(logits)[token], in f64.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_PERPLEXITY_H_
