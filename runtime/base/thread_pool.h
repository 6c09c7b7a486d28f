// A group of threads that runs one function at a time, and the barrier its threads meet at.
//
// A program of some hundred steps runs as one Run with a barrier between dependent steps: a barrier costs a fraction of
// a microsecond while every thread has a core of its own, a Run costs a wake-up. Who waits spins for a while and then
// sleeps; with more threads than cores nobody spins, since the one waited for needs the core.
#ifndef QWEN_RUNTIME_BASE_THREAD_POOL_H_
#define QWEN_RUNTIME_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include "runtime/base/status.h"

namespace qwen {

/// Cores this process may use, at least 1.
int AvailableCores();

/// "0x3f", a mask with the first core lowest, or "0-5,8", a list. kInvalidArgument for anything else, and for cores
/// beyond 1023. Ascending.
StatusOr<std::vector<int>> ParseCores(std::string_view text);
/// From here on this thread, and those it makes, run on `cores` alone. kInvalidArgument when the process may use none
/// of them.
Status UseCores(std::span<const int> cores);

/// How often to look before sleeping, when `threads` threads of this process are at work at the same time.
int SpinsFor(int threads);

/// `threads` threads meet again and again: none leaves Wait before all have entered. What they wrote before is visible
/// to all of them after it.
class Barrier {
 public:
  Barrier(int threads, int spins) : threads_(threads), spins_(spins), missing_(threads) {}
  Barrier(const Barrier&) = delete;

  void Wait();

 private:
  const int threads_, spins_;
  // Apart: every arrival writes one, and all who wait read the other.
  alignas(64) std::atomic<int> missing_;
  alignas(64) std::atomic<uint32_t> phase_{0};
};

/// `threads` - 1 threads that sleep between Runs, and the caller's as thread 0. One caller at a time.
class ThreadPool {
 public:
  /// `spins` as SpinsFor gives them. std::system_error when the system has no more threads.
  ThreadPool(int threads, int spins);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls fn(0) to fn(threads - 1), each on its own thread, and returns when all have returned. `fn` must not throw.
  template <class F>
  void Run(F&& fn) {
    using Fn = std::remove_reference_t<F>;
    RunErased([](void* f, int thread) { (*static_cast<Fn*>(f))(thread); },
              const_cast<void*>(static_cast<const void*>(std::addressof(fn))));
  }

 private:
  using Call = void (*)(void* fn, int thread);
  void RunErased(Call call, void* fn);
  void Worker(int thread);
  void Stop();

  const int threads_, spins_;
  Call call_ = nullptr;  // nullptr at a start: the pool ends
  void* fn_ = nullptr;
  alignas(64) std::atomic<uint32_t> start_{0};
  Barrier done_;
  std::vector<std::thread> workers_;
};

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_THREAD_POOL_H_
