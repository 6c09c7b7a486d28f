#include "runtime/engine/perplexity.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/sampler.h"

namespace qwen::engine {

double NegativeLogLikelihood(std::span<const float> logits, int32_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float z : logits) sum += std::exp(z - highest);
  return std::log(sum) + highest - logits[token];
}

StatusOr<Perplexity> MeasurePerplexity(Engine& engine, std::span<const int32_t> tokens, int window, int stride,
                                       const std::atomic<bool>* stop, const std::function<void(int64_t)>& progress) {
  const int64_t total = static_cast<int64_t>(tokens.size());
  if (total < 2) return InvalidArgumentError(fmt::format("{} tokens, at least 2 can be scored", total));
  if (window < 2 || stride < 1 || stride >= window)
    return InvalidArgumentError(
        fmt::format("windows of {} tokens every {}, want at least 2 and a stride below the window", window, stride));
  for (int32_t token : tokens)
    if (token < 0 || token >= engine.vocab())
      return InvalidArgumentError(fmt::format("token {}, the vocabulary has {}", token, engine.vocab()));
  kernels::SampleParams sample = MakeSampleParams({}, /*write_logits=*/true);
  const int64_t most_rows =
      std::min<int64_t>(engine.capacity().max_num_batched_tokens, engine.capacity().max_logit_rows);

  Perplexity result;
  for (int64_t begin = 0, scored = 1; scored < total; begin += stride) {
    const int64_t end = std::min<int64_t>(begin + window, total);
    QWEN_ASSIGN_OR_RETURN(Sequence sequence, engine.Begin());
    ++result.windows;
    // The row of token i predicts token i + 1; the last row of a window that others follow predicts nothing new.
    for (int64_t at = begin; at + 1 < end;) {
      if (stop && stop->load(std::memory_order_relaxed)) return CancelledError("stopped");
      // Rows that nobody asks for may fill a step; rows with logits are fewer.
      const bool silent = at + 1 < scored;
      const int64_t stage_end = silent ? std::min(scored - 1, end - 1) : end - 1;
      const int rows = ChunkRows(at - begin, stage_end - at,
                                 silent ? engine.capacity().max_num_batched_tokens : most_rows, /*alone=*/true);
      std::vector<int32_t> wanted(silent ? 0 : rows);
      std::iota(wanted.begin(), wanted.end(), 0);
      StepEntry entry{
          .sequence = &sequence, .tokens = tokens.subspan(at, rows), .logit_rows = wanted, .sample = sample};
      QWEN_ASSIGN_OR_RETURN(const exec::Outputs outputs, engine.Step({&entry, 1}));
      sequence.Commit(rows);
      for (int32_t row : wanted)
        result.nats +=
            NegativeLogLikelihood(outputs.logits.subspan(row * engine.vocab(), engine.vocab()), tokens[at + row + 1]);
      result.scored += static_cast<int64_t>(wanted.size());
      at += rows;
      if (progress) progress(result.scored + 1);
    }
    scored = end;
  }
  return result;
}

}  // namespace qwen::engine
