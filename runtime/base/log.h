// What goes to stderr: errors, warnings, progress. stdout carries results only.
#ifndef QWEN_RUNTIME_BASE_LOG_H_
#define QWEN_RUNTIME_BASE_LOG_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace qwen {

/// `text` with control characters and bytes that are not UTF-8 as \xNN, so that what came from a file cannot move the
/// terminal's cursor or forge a line.
std::string EscapeControl(std::string_view text);

/// `program: error: command: message`, then `hint: ...` when there is one. Lines of the message after the first are
/// indented. `command` may be empty.
std::string ErrorText(std::string_view program, std::string_view command, const Status& status);
/// Prints that on stderr; returns the exit code.
int PrintError(std::string_view program, std::string_view command, const Status& status);
/// `program: warning: message` on stderr.
void PrintWarning(std::string_view program, std::string_view message);

/// Whether stderr is a terminal that can redraw a line.
bool StderrIsTerminal();

/// A bar on stderr, redrawn at most ten times a second; nothing when stderr is no terminal. Cleared when destroyed.
class ProgressBar {
 public:
  explicit ProgressBar(std::string phase);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  /// Bytes.
  void Update(int64_t done, int64_t total);

 private:
  std::string phase_;
  bool visible_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_{};
};

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_LOG_H_
