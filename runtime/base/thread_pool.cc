#include "runtime/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <string>

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

StatusOr<std::vector<int>> ParseCores(std::string_view text) {
  constexpr int kMost = CPU_SETSIZE;
  const std::string quoted = "'" + std::string(text) + "'";
  std::vector<bool> set(kMost);
  if (text.starts_with("0x") || text.starts_with("0X")) {
    const std::string_view digits = text.substr(2);
    for (size_t i = 0; i < digits.size(); ++i) {
      int value = 0;
      const char* at = &digits[digits.size() - 1 - i];
      if (std::from_chars(at, at + 1, value, 16).ec != std::errc())
        return InvalidArgumentError(quoted + " is no mask of hexadecimal digits");
      for (size_t bit = 0; bit < 4; ++bit) {
        if ((value >> bit & 1) == 0) continue;
        if (4 * i + bit >= kMost) return InvalidArgumentError(quoted + " names a core beyond 1023");
        set[4 * i + bit] = true;
      }
    }
  } else {
    const auto wrong = [&] { return InvalidArgumentError(quoted + " is no list of cores", "cores look like 0-3,8 or 0xf"); };
    for (std::string_view rest = text;;) {
      int first = 0, last = 0;
      const char* end = rest.data() + rest.size();
      auto [at, error] = std::from_chars(rest.data(), end, first);
      if (error != std::errc()) return wrong();
      last = first;
      if (at != end && *at == '-') {
        auto [behind, last_error] = std::from_chars(at + 1, end, last);
        if (last_error != std::errc()) return wrong();
        at = behind;
      }
      if (first < 0 || last < first) return wrong();
      if (last >= kMost) return InvalidArgumentError(quoted + " names a core beyond 1023");
      std::fill(set.begin() + first, set.begin() + last + 1, true);
      if (at == end) break;
      if (*at != ',') return wrong();
      rest = std::string_view(at + 1, end);
    }
  }
  std::vector<int> cores;
  for (int core = 0; core < kMost; ++core)
    if (set[core]) cores.push_back(core);
  if (cores.empty()) return InvalidArgumentError(quoted + " names no core");
  return cores;
}

Status UseCores(std::span<const int> cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof(set), &set) == 0) return {};
  return InvalidArgumentError("none of these " + std::to_string(cores.size()) + " cores is this process's to use");
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
