// The thread that the engine runs on, and the door to it.
//
// Requests and cancellations come in from any thread, into two lists behind one mutex; between steps the loop takes
// both over and tells the scheduler. Figures go out the same way: a copy a step. With nothing to do the thread sleeps
// on a condition variable. A step that fails twice in a row ends every request, not the process: the server lives on to
// say so.
#ifndef QWEN_RUNTIME_ENGINE_ENGINE_LOOP_H_
#define QWEN_RUNTIME_ENGINE_ENGINE_LOOP_H_

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/request.h"
#include "runtime/engine/scheduler.h"

namespace qwen::engine {

struct EngineLoopOptions {
  SchedulerOptions scheduler;
  int max_queued_requests = 256;
  int64_t max_queued_tokens = 0;  // of prompts; 0: four times what the KV pages hold
};

class EngineLoop final : public RequestQueue {
 public:
  /// Starts the thread. `engine` outlives the loop and is used by nobody else meanwhile.
  EngineLoop(Engine& engine, const EngineLoopOptions& options);
  ~EngineLoop() override;  // Stop

  StatusOr<RequestId> Submit(Request request, std::shared_ptr<RequestSink> sink) override;
  void Cancel(RequestId id) override;
  EngineStats Stats() const override;
  double PromptRate() const override;

  /// Takes no more requests and waits until those that are in have finished, or `deadline`: what is then left is
  /// finished with kCancelled. The thread goes on. True: all had finished by themselves. Not from a sink.
  bool Drain(std::chrono::steady_clock::time_point deadline);
  /// Finishes every request with kCancelled within a step and ends the thread. A second call does nothing. Not from a
  /// sink.
  void Stop();

 private:
  struct Submitted {
    RequestId id;
    Request request;
    std::shared_ptr<RequestSink> sink;
  };
  void Run();

  const int max_queued_requests_;
  const int64_t max_queued_tokens_;
  Scheduler scheduler_;  // the thread's own

  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::vector<Submitted> submitted_;
  std::vector<RequestId> cancelled_;
  RequestId next_id_ = 1;
  bool draining_ = false, cancel_all_ = false, stopping_ = false, is_idle_ = true;
  EngineStats stats_;  // those that wait in submitted_ are counted as waiting
  double prompt_rate_ = 0;

  std::once_flag stopped_;
  std::thread thread_;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_ENGINE_LOOP_H_
