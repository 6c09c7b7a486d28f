// Everything a handler touches is a lock-free atomic or an async-signal-safe call (signal-safety(7)).
#include "runtime/base/signals.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace qwen {
namespace {

std::atomic<bool> stop_requested = false;
std::atomic<int> stop_signal = 0;
std::atomic<int> listeners = 0;
std::atomic<const char*> stop_text = nullptr;
std::atomic<char*> doomed_files[64];
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free &&
              std::atomic<char*>::is_always_lock_free);

void WriteStderr(const char* text) { (void)!write(STDERR_FILENO, text, std::strlen(text)); }

void OnStop(int signal) {
  int none = 0;
  const bool first = stop_signal.compare_exchange_strong(none, signal);
  stop_requested.store(true);
  if (first && listeners.load() > 0) return;
  // Whoever takes a path out of its slot owns it, so a writer that finishes meanwhile cannot free it under us.
  for (std::atomic<char*>& slot : doomed_files)
    if (char* path = slot.exchange(nullptr)) unlink(path);
  if (const char* text = stop_text.load()) WriteStderr(text);
  _exit(128 + signal);
}

void OnCrash(int signal) {
  void* frames[64];
  WriteStderr("crash: ");
  WriteStderr(sigabbrev_np(signal) ? sigabbrev_np(signal) : "unknown signal");
  WriteStderr("\n");
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  raise(signal);  // SA_RESETHAND: what would have happened without us
}

}  // namespace

void HandleStopSignals() {
  struct sigaction action{};
  action.sa_handler = OnStop;
  // A request must not make a read or write in progress fail.
  action.sa_flags = SA_RESTART;
  struct sigaction before{};
  sigaction(SIGINT, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // Beyond a file-size limit a write fails like one to a full disk, and leaves nothing behind either.
  signal(SIGXFSZ, SIG_IGN);
}

GracefulStop::GracefulStop() { ++listeners; }
GracefulStop::~GracefulStop() { --listeners; }
const std::atomic<bool>* GracefulStop::flag() const { return &stop_requested; }
void GracefulStop::Obeyed() {
  int interrupt = SIGINT;
  if (stop_signal.compare_exchange_strong(interrupt, 0)) stop_requested.store(false);
}

bool Interrupted() { return stop_requested.load(std::memory_order_relaxed); }

int StopExitCode() {
  const int signal = stop_signal.load();
  return 128 + (signal ? signal : SIGINT);
}

RemoveOnStop::RemoveOnStop(const std::string& path) {
  char* copy = strdup(path.c_str());
  for (std::atomic<char*>& slot : doomed_files) {
    char* empty = nullptr;
    if (!copy || !slot.compare_exchange_strong(empty, copy)) continue;
    slot_ = &slot;
    return;
  }
  std::free(copy);
}

RemoveOnStop::~RemoveOnStop() {
  if (slot_) std::free(slot_->exchange(nullptr));
}

void SetStopText(const char* text) { stop_text.store(text); }

void TraceCrashes() {
  void* frame;
  backtrace(&frame, 1);  // loads what it needs now: in the handler it could not
  struct sigaction action{};
  action.sa_handler = OnCrash;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigaction(signal, &action, nullptr);
}

}  // namespace qwen
