#include "runtime/server/api/timer.h"

namespace qwen::server {

Timer::Id Timer::At(TimePoint when, std::function<void()> function) {
  std::lock_guard lock(mutex_);
  const Id id{when, next_++};
  due_.emplace(id, std::move(function));
  Changed();
  return id;
}

void Timer::Cancel(Id id) {
  std::function<void()> dropped;  // dies after the lock: it may own what calls us
  std::lock_guard lock(mutex_);
  if (auto at = due_.find(id); at != due_.end()) {
    dropped = std::move(at->second);
    due_.erase(at);
  }
}

ThreadTimer::ThreadTimer() : thread_([this] { Run(); }) {}

ThreadTimer::~ThreadTimer() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ThreadTimer::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (due_.empty()) {
      changed_.wait(lock);
    } else if (const TimePoint when = due_.begin()->first.first; when > Now()) {
      changed_.wait_until(lock, when);
    } else {
      std::function<void()> function = std::move(due_.begin()->second);
      due_.erase(due_.begin());
      lock.unlock();
      function();
      function = nullptr;
      lock.lock();
    }
  }
}

}  // namespace qwen::server
