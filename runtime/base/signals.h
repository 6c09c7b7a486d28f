// Ctrl-C and SIGTERM: a request while somebody listens, otherwise the end of the process; in both cases nothing half
// written stays behind. And, for those who debug, where a crash was.
#ifndef QWEN_RUNTIME_BASE_SIGNALS_H_
#define QWEN_RUNTIME_BASE_SIGNALS_H_

#include <atomic>
#include <string>

namespace qwen {

/// From here on SIGINT and SIGTERM do what this header says. RunTool calls it; calling it again changes nothing. A
/// SIGINT that the parent made ignored (a script's background job) stays ignored.
void HandleStopSignals();

/// While one of these lives, the first signal only asks: Interrupted() tells, and the work returns kCancelled at its
/// next convenient point. The second signal ends the process at once, as does the first while none lives: files named
/// by RemoveOnStop are removed and the exit code is 130 (SIGINT) or 143 (SIGTERM).
class GracefulStop {
 public:
  GracefulStop();
  ~GracefulStop();
  GracefulStop(const GracefulStop&) = delete;
  GracefulStop& operator=(const GracefulStop&) = delete;
  /// For work that polls a flag of its caller's.
  const std::atomic<bool>* flag() const;
  bool requested() const { return flag()->load(); }
  /// A SIGINT that asked has been obeyed, and the next one asks again: a chat's reply was stopped, not the chat.
  void Obeyed();
};

/// A signal has asked the process to stop. Any thread; a relaxed load.
bool Interrupted();

/// 128 + the signal that asked; 130 when none did, since then something else cancelled the work.
int StopExitCode();

/// While it lives, a forced stop unlinks `path`: for a file that means nothing before it has its final name. At most 64
/// at a time; more are not remembered.
class RemoveOnStop {
 public:
  explicit RemoveOnStop(const std::string& path);
  ~RemoveOnStop();
  RemoveOnStop(const RemoveOnStop&) = delete;
  RemoveOnStop& operator=(const RemoveOnStop&) = delete;

 private:
  std::atomic<char*>* slot_ = nullptr;
};

/// What a forced stop writes to stderr, such as the bytes that clear a progress bar; null for nothing. `text` is a
/// literal.
void SetStopText(const char* text);

/// A crash (SIGSEGV, SIGABRT and their like) prints where it was before it ends the process as it would have.
void TraceCrashes();

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_SIGNALS_H_
