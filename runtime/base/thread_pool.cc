#include "runtime/base/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace qwen {
namespace {

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Until `word` is no longer `old`.
void WaitWhile(const std::atomic<uint32_t>& word, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  word.wait(old, std::memory_order_acquire);
}

}  // namespace

int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

int SpinsFor(int threads) {
  constexpr int kSpins = 2000;  // some 30 us: longer than a decode step's phase, shorter than a lost time slice
  return threads <= AvailableCores() ? kSpins : 0;
}

void Barrier::Wait() {
  if (threads_ == 1) return;
  // Cannot move on before this thread arrives, so any order will do.
  uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (missing_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    missing_.store(threads_, std::memory_order_relaxed);  // nobody arrives again before seeing the phase
    // Sequentially consistent, not just release: notify_all looks for sleepers and must not look before the store.
    phase_.store(phase + 1, std::memory_order_seq_cst);
    phase_.notify_all();
  } else {
    WaitWhile(phase_, phase, spins_);
  }
}

ThreadPool::ThreadPool(int threads, int spins) : threads_(threads), spins_(spins), done_(threads, spins) {
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { Worker(thread); });
  } catch (...) {
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  call_ = nullptr;
  start_.fetch_add(1, std::memory_order_seq_cst);
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunErased(Call call, void* fn) {
  call_ = call, fn_ = fn;
  if (threads_ > 1) {
    start_.fetch_add(1, std::memory_order_seq_cst);
    start_.notify_all();
  }
  call(fn, 0);
  done_.Wait();
}

void ThreadPool::Worker(int thread) {
  for (uint32_t seen = 0;; ++seen) {
    WaitWhile(start_, seen, spins_);
    if (!call_) return;
    call_(fn_, thread);
    done_.Wait();
  }
}

}  // namespace qwen
