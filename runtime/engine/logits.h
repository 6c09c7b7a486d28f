// Raw logits of every row of given token sequences, fed in calls of chosen sizes: what tests and perplexity read.
#ifndef QWEN_RUNTIME_ENGINE_LOGITS_H_
#define QWEN_RUNTIME_ENGINE_LOGITS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"

namespace qwen::engine {

/// How a case is cut into calls. A call of one row is a short row, a longer one a chunk.
struct SplitRule {
  std::vector<int64_t> sizes;  // starting over until the case is used up; empty: one call
  bool random = false;         // sizes 1 to 64 instead, drawn from `seed` and the case's index
  uint64_t seed = 0;

  /// "5,1,64" or "random:SEED"; empty text is one call.
  static StatusOr<SplitRule> Parse(std::string_view text);
  /// The calls of a case of `tokens` rows; their sum is `tokens`.
  std::vector<int> Calls(size_t index, int64_t tokens) const;
};

struct LogitsOptions {
  SplitRule split;
  bool batch = false;  // calls of several cases in one ragged step, as many as the plan's capacity takes
  const std::atomic<bool>* stop = nullptr;
};

/// Runs the cases and hands out logits as they come: case, row of the case, `vocab` floats. Each row once. A call
/// beyond the plan's rows or logit rows of one step is cut into the largest chunks it takes. kCancelled after `stop`.
Status RunLogits(Engine& engine, std::span<const std::vector<int32_t>> cases, const LogitsOptions& options,
                 const std::function<void(size_t, int64_t, std::span<const float>)>& sink);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_LOGITS_H_
