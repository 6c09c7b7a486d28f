#include "runtime/engine/engine_loop.h"

#include <utility>

#include "fmt/format.h"

namespace qwen::engine {
namespace {

int64_t QueuedTokensLimit(const Engine& engine, int64_t asked) {
  return asked > 0 ? asked : int64_t{4} * plan::kPageTokens * engine.pools().pages.count();
}

}  // namespace

EngineLoop::EngineLoop(Engine& engine, const EngineLoopOptions& options)
    : max_queued_requests_(options.max_queued_requests),
      max_queued_tokens_(QueuedTokensLimit(engine, options.max_queued_tokens)),
      scheduler_(engine, options.scheduler, [] { return std::chrono::steady_clock::now(); }),
      stats_(scheduler_.Stats()),
      thread_([this] { Run(); }) {}

EngineLoop::~EngineLoop() { Stop(); }

StatusOr<RequestId> EngineLoop::Submit(Request request, std::shared_ptr<RequestSink> sink) {
  const int64_t tokens = static_cast<int64_t>(request.prompt.size());
  RequestId id;
  {
    std::lock_guard lock(mutex_);
    if (stats_.failed) return InternalError("the device failed");
    if (draining_ || stopping_) return CancelledError("shutting down");
    if (stats_.waiting >= max_queued_requests_)
      return ResourceExhaustedError(fmt::format("queue: {} requests are waiting", stats_.waiting));
    // A queue that is empty takes a prompt of any length.
    if (stats_.waiting > 0 && tokens > max_queued_tokens_ - stats_.waiting_tokens)
      return ResourceExhaustedError(fmt::format("queue: {} prompt tokens are waiting, {} more are above {}",
                                                stats_.waiting_tokens, tokens, max_queued_tokens_));
    id = next_id_++;
    submitted_.push_back({id, std::move(request), std::move(sink)});
    ++stats_.waiting;
    stats_.waiting_tokens += tokens;
    is_idle_ = false;
  }
  work_.notify_one();
  return id;
}

void EngineLoop::Cancel(RequestId id) {
  {
    std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  work_.notify_one();
}

EngineStats EngineLoop::Stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

double EngineLoop::PromptRate() const {
  std::lock_guard lock(mutex_);
  return prompt_rate_;
}

bool EngineLoop::Drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  // Past the deadline nothing gets another step between the two.
  if (std::chrono::steady_clock::now() < deadline) idle_.wait_until(lock, deadline, [&] { return is_idle_; });
  if (is_idle_) return true;
  cancel_all_ = true;
  work_.notify_one();
  idle_.wait(lock, [&] { return is_idle_; });
  return false;
}

void EngineLoop::Stop() {
  std::call_once(stopped_, [&] {
    {
      std::lock_guard lock(mutex_);
      stopping_ = cancel_all_ = true;
    }
    work_.notify_one();
    thread_.join();
  });
}

void EngineLoop::Run() {
  std::vector<Submitted> submitted;
  std::vector<RequestId> cancelled;
  for (bool stop = false; !stop;) {
    bool cancel_all;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] {
        return !submitted_.empty() || !cancelled_.empty() || cancel_all_ || stopping_ || !scheduler_.idle();
      });
      std::swap(submitted, submitted_);
      std::swap(cancelled, cancelled_);
      cancel_all = std::exchange(cancel_all_, false);
      stop = stopping_;
    }
    for (Submitted& each : submitted) scheduler_.Submit(each.id, std::move(each.request), std::move(each.sink));
    for (RequestId id : cancelled) scheduler_.Cancel(id, CancelledError("cancelled"));
    if (cancel_all) scheduler_.CancelAll(CancelledError("shutting down"));
    submitted.clear();
    cancelled.clear();
    scheduler_.Step();

    EngineStats stats = scheduler_.Stats();
    std::lock_guard lock(mutex_);
    for (const Submitted& each : submitted_) {
      ++stats.waiting;
      stats.waiting_tokens += static_cast<int64_t>(each.request.prompt.size());
    }
    stats_ = stats;
    prompt_rate_ = scheduler_.PromptRate();
    is_idle_ = scheduler_.idle() && submitted_.empty();
    if (is_idle_) idle_.notify_all();
  }
}

}  // namespace qwen::engine
