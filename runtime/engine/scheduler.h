// Decides who runs in the next step, runs it, and hands its tokens out.
//
// A plain state machine over the engine's pools: no threads, and the clock is given, so that a test can drive it
// through any history and see the same one twice. A step is one ragged batch: every running text's next row first, then
// chunks of prompts with what is left of the row budget. Chunks end at multiples of plan::kStateAlign and draws are
// keyed by position, so what a request says depends on nothing that runs beside it.
//
// The unit is a choice: a sequence and its tokens. It waits, runs, and may be sent back to wait when pages run out or a
// step fails; then it is prefilled again, prompt and drawn tokens, from the deepest snapshot that the prefix cache
// still has. Nothing of that shows: what was handed out stays out. Serving design, sections 13 and 18. Threads: one
// caller at a time, which is also the one that sinks hear from.
#ifndef QWEN_RUNTIME_ENGINE_SCHEDULER_H_
#define QWEN_RUNTIME_ENGINE_SCHEDULER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/logits_processor.h"
#include "runtime/engine/prefix_cache.h"
#include "runtime/engine/request.h"
#include "runtime/engine/wait_queue.h"

namespace qwen::engine {

struct SchedulerOptions {
  int max_num_batched_tokens = 0;          // rows of a step; 0 or more than the plan's: the plan's
  int max_prefill_rows_beside_decode = 0;  // of a step that has decode rows; 0: the budget
  int max_partial_prefills = 2;            // prompts that a step leaves half way for want of rows
  int long_prefill_tokens = 2048;          // at most one prompt of more tokens at a time
  bool prefix_cache = true;
  /// Same bits whatever happens (contracts, section 11): drawn tokens are fed again as they were drawn, in short rows,
  /// and the cache holds nothing that a decode step made. Otherwise they are prefilled, which may differ at near ties.
  bool deterministic = false;
  PrefixCacheOptions cache;
  kernels::Isa isa = kernels::DetectIsa();  // of draws on the host; all draw the same
};

class Scheduler {
 public:
  using TimePoint = RequestTimes::TimePoint;

  Scheduler(Engine& engine, const SchedulerOptions& options, std::function<TimePoint()> now);
  ~Scheduler();

  /// Ids ascend from call to call. A request that cannot run is finished at once, with kFailed.
  void Submit(RequestId id, Request request, std::shared_ptr<RequestSink> sink);
  /// Finishes every open choice with kCancelled and `why`. Unknown ids are fine.
  void Cancel(RequestId id, const Status& why);
  void CancelAll(const Status& why);

  /// One step of the engine, if anybody can run. False: there was nothing to do.
  bool Step();
  bool idle() const { return jobs_.empty(); }
  /// Two steps in a row failed: every request was finished with kFailed, and so is any later one.
  bool failed() const { return failed_; }

  EngineStats Stats() const;
  double PromptRate() const;
  /// For tests: kInternal unless pages, slots and table rows are exactly those that somebody here holds.
  Status Check() const;

 private:
  struct Job;
  struct Choice;

  void PlanDecodes();
  void PlanPrefills();
  bool Admit(Choice& choice, int budget, bool may_cut);
  int PlanRows(Choice& choice, int budget, bool* cut);
  int ChunkFor(const Choice& choice, int position, int budget, bool* cut) const;
  bool Replays(const Choice& choice, int position) const;
  bool EnsureFree(int pages);
  bool DropForks();
  int ReservedPages() const;
  void PreemptOne();
  void Requeue(Choice& choice);
  void HandleFailure(const Status& status);

  void Save(Choice& choice);
  void Deliver(Choice& choice, const StepEntry& entry, const exec::Outputs& outputs);
  void DeliverPromptLogprobs(Choice& choice, const StepEntry& entry, const exec::Outputs& outputs);
  void DrawFirst(Job& job, int row, const exec::Outputs& outputs);
  void Draw(Choice& choice, int row, int position, bool in_plan, const exec::Outputs& outputs);
  void Finish(Choice& choice, FinishReason reason, int32_t stop_id, const Status& status);
  void LeaveFork(Choice& choice);
  void Reap();

  Engine& engine_;
  SchedulerOptions options_;
  std::function<TimePoint()> now_;
  int budget_, max_running_, max_len_, max_logit_rows_;
  bool unaligned_;  // too small a budget to always have an aligned chunk's rows
  PrefixCache cache_;
  RowSampler sampler_;

  std::map<RequestId, std::unique_ptr<Job>> jobs_;
  WaitQueue waiting_;
  std::vector<Choice*> running_;  // by admission
  bool failed_ = false;
  int failures_ = 0;  // in a row

  // Of one step; kept, so that the next one allocates nothing.
  std::vector<StepEntry> entries_;
  std::vector<Choice*> owners_;
  std::vector<Job*> spoke_;
  std::vector<float> adjusted_;
  TokenLogprobs logprobs_;
  int promised_ = 0;          // pages that the planned entries will take
  int extra_logit_rows_ = 0;  // beyond one an entry
  std::vector<RequestId> dead_;

  EngineStats counters_;  // those that only count up
  double rate_tokens_ = 0, rate_seconds_ = 0;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_SCHEDULER_H_
