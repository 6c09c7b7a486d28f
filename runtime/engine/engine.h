// Runs steps: takes each sequence's rows, lays them out as one ragged batch, runs the program, hands back the outputs.
//
// Who runs when is the caller's decision (generate.h, logits.h): the engine only makes sure that a step is all or
// nothing. Before the run every sequence has appended or none has; after a failed run all of them are poisoned.
// Threads: one caller at a time.
#ifndef QWEN_RUNTIME_ENGINE_ENGINE_H_
#define QWEN_RUNTIME_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/sampler.h"
#include "runtime/engine/sequence.h"
#include "runtime/exec/executor.h"
#include "runtime/plan/plan.h"

namespace qwen::engine {

/// One sequence's share of a step. A single row always goes to the short part.
struct StepEntry {
  Sequence* sequence = nullptr;
  std::span<const int32_t> tokens;
  Part part = Part::kLong;
  std::span<const int32_t> logit_rows;  // of these tokens, ascending
  kernels::SampleParams sample{};       // of every logit row

  // Set by Step: where this entry's rows are in the outputs.
  int first_row = 0, first_logit_row = 0, short_index = -1;
};

/// kInvalidArgument with both numbers when a token is no id of the vocabulary or the prompt is empty or too long.
Status CheckPrompt(const plan::Plan& plan, std::span<const int32_t> tokens);

class Engine {
 public:
  /// Loads nothing: `executor` has the weights and pools of `num_pages` and `num_slots`. `plan` outlives the engine.
  Engine(const plan::Plan& plan, std::unique_ptr<exec::Executor> executor, int num_pages, int num_slots);

  StatusOr<Sequence> Begin() { return Sequence::Begin(pools_); }
  StatusOr<Sequence> Restore(const Snapshot& snapshot) { return Sequence::Restore(pools_, snapshot); }

  /// Appends every entry's tokens and runs `step`, or `verify` when a short entry has several rows. The caller commits.
  /// kResourceExhausted and kInvalidArgument leave the sequences as they were; any other failure poisons them. Outputs
  /// are valid until the next call.
  StatusOr<exec::Outputs> Step(std::span<StepEntry> entries);

  const plan::Plan& plan() const { return plan_; }
  const plan::Capacity& capacity() const { return capacity_; }
  Pools& pools() { return pools_; }
  const Pools& pools() const { return pools_; }
  int64_t vocab() const { return plan_.model.vocab; }
  int64_t max_model_len() const { return plan_.model.max_model_len; }
  /// Sequences that can run at once.
  int max_sequences() const;

 private:
  const plan::Plan& plan_;
  plan::Capacity capacity_;
  std::unique_ptr<exec::Executor> executor_;
  exec::BatchBlock batch_;
  Pools pools_;
  // Of one step; kept, so that the next one allocates nothing.
  std::vector<StepEntry*> order_;
  std::vector<kernels::SampleParams> sample_;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_ENGINE_H_
