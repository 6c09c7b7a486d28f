// A clock that calls back: time-outs, and work that must not happen on the thread that found it.
#ifndef QWEN_RUNTIME_SERVER_API_TIMER_H_
#define QWEN_RUNTIME_SERVER_API_TIMER_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace qwen::server {

/// Threads: any may call any of it; functions run one after another, with no lock held.
class Timer {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Id = std::pair<TimePoint, uint64_t>;

  virtual ~Timer() = default;
  virtual TimePoint Now() const = 0;
  /// Runs `function` at `when`; those of one moment in the order they came.
  Id At(TimePoint when, std::function<void()> function);
  Id Soon(std::function<void()> function) { return At(TimePoint::min(), std::move(function)); }
  /// Nothing happens when it has run. It may be running.
  void Cancel(Id id);

 protected:
  /// Something that may be due earlier came in; mutex_ is held.
  virtual void Changed() {}

  mutable std::mutex mutex_;
  std::map<Id, std::function<void()>> due_;

 private:
  uint64_t next_ = 0;
};

/// With a thread of its own. What is not due when it dies never runs.
class ThreadTimer final : public Timer {
 public:
  ThreadTimer();
  ~ThreadTimer() override;
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }

 private:
  void Changed() override { changed_.notify_one(); }
  void Run();

  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_TIMER_H_
