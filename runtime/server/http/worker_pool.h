// Threads for what an IO thread may not do: parse a body, render, tokenize. Bounded: what does not fit is refused.
#ifndef QWEN_RUNTIME_SERVER_HTTP_WORKER_POOL_H_
#define QWEN_RUNTIME_SERVER_HTTP_WORKER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qwen::server {

class WorkerPool {
 public:
  WorkerPool(int threads, size_t max_waiting);
  ~WorkerPool();  // stops

  /// Any thread. False, and `task` is as it was, when `max_waiting` tasks wait already or the pool is stopped.
  bool Submit(std::function<void()>& task);
  /// Lets running tasks end, drops those that wait, joins. A second call does nothing.
  void Stop();

 private:
  void Work();

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable has_task_;
  std::deque<std::function<void()>> waiting_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_WORKER_POOL_H_
