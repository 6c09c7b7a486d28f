// What a request asks of its logits beyond the plan's own draw: bans, bias, penalties, log-probabilities.
//
// The plan draws every row it can: temperature, top-k, top-p, min-p and ids past the vocabulary are the kernel's. Only
// a row that needs more is adjusted here, on a copy, and drawn by that same kernel, launched for the one row; so with
// nothing to adjust both say the same token, bit for bit. Order: serving design, section 18.
// Threads: none of it is shared; one caller at a time.
#ifndef QWEN_RUNTIME_ENGINE_LOGITS_PROCESSOR_H_
#define QWEN_RUNTIME_ENGINE_LOGITS_PROCESSOR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/request.h"
#include "runtime/kernels/catalog.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/lm_head/lm_head.h"

namespace qwen::engine {

/// The `sample` kernel for one row in host memory.
class RowSampler {
 public:
  RowSampler(int vocab, kernels::Isa isa);
  /// The token behind a row at `position` with these logits; -1 when none is above -inf.
  int32_t Draw(const kernels::SampleParams& params, std::span<const float> logits, int position);

 private:
  kernels::SampleSpec spec_;
  kernels::CpuBody body_;
  std::vector<uint64_t> scratch_;
};

/// Adjusts the logits of one choice. `request` outlives it.
class LogitsProcessor {
 public:
  explicit LogitsProcessor(const Request& request);

  /// Whether the row behind `drawn` drawn tokens needs Apply, when the plan has drawn `token` from the logits as they
  /// are; -1: nobody has. Bans alone need it only when they were hit, if nothing but the highest counts: that of fewer
  /// ids is the same otherwise.
  bool Needed(int drawn, int32_t token) const;
  /// The prompt, once; then every drawn token that is kept.
  void AddPrompt(std::span<const int32_t> prompt, int vocab);
  void AddDrawn(int32_t token);
  /// Hard bans, bias, penalties, in place.
  void Apply(std::span<float> logits, int drawn) const;

 private:
  struct Seen {
    int32_t token;
    int drawn;  // how often; 0: in the prompt only
  };
  Seen& Find(int32_t token);

  const Request& request_;
  bool penalties_;
  bool only_bans_;     // there is nothing else to apply
  bool highest_wins_;  // no top-k, top-p or min-p, which look at every id
  std::vector<int32_t> index_;  // [vocab] in seen_, -1: never seen. Only with penalties
  std::vector<Seen> seen_;
};

/// kInternal when a logit is NaN or +inf; -inf is a ban.
Status CheckLogits(std::span<const float> logits);

/// Of `token` and the `top` likeliest below `vocab_used` (0: of all). Sums in f64.
void ComputeLogprobs(std::span<const float> logits, int32_t token, int top, int vocab_used, TokenLogprobs* result);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_LOGITS_PROCESSOR_H_
