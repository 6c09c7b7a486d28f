// How far long work is, on stderr: a bar for people, lines for logs, JSON for programs (serving design, 1.2).
#ifndef QWEN_RUNTIME_BASE_PROGRESS_H_
#define QWEN_RUNTIME_BASE_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace qwen {

enum class ProgressKind {
  kAuto,   // kBar on a terminal that can redraw a line, kPlain elsewhere
  kBar,    // one line, redrawn at most ten times a second; at the end of a phase a summary takes its place
  kPlain,  // a line when a phase starts and one every 5 s
  kJson,   // {"phase", "done", "total", "unit", "elapsed_ms"} a line, at most ten a second, the first and last always
  kNone,
};

/// The kind that a word of --progress names: auto, bar, plain, json or none.
ProgressKind ProgressKindOf(std::string_view word);

/// One piece of work after the other. Nothing is drawn between two updates, so phases report often.
/// Threads: Update may be called by all of them; Phase and Finish by one, with no Update meanwhile.
class Progress {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  /// `to` outlives the result.
  static std::unique_ptr<Progress> Make(ProgressKind kind, std::FILE* to, Clock clock = std::chrono::steady_clock::now);
  /// Without Finish the work failed: a bar is cleared and nothing is summed up.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Finishes the phase before. `total` is 0 when nobody knows; `unit` is "bytes" or a plural: "kernels".
  void Phase(std::string_view name, int64_t total, std::string_view unit);
  /// How much is done since the phase began. Less than before is a thread that came late, and changes nothing.
  void Update(int64_t done);
  void Finish();

 private:
  Progress(ProgressKind kind, std::FILE* to, Clock clock);
  double Seconds() const;
  std::vector<std::string> Facts() const;
  std::string Summary() const;
  std::string JsonLine() const;
  void Draw();
  void ClearBar();
  void Print(std::string_view text);

  const ProgressKind kind_;
  std::FILE* const to_;
  const Clock clock_;

  std::mutex mutex_;  // of what follows
  std::string name_, unit_;
  int64_t done_ = 0, total_ = 0;
  bool open_ = false;   // between Phase and Finish
  bool shown_ = false;  // an update of this phase was, on the screen still if it is a bar
  std::chrono::steady_clock::time_point start_, now_, shown_at_;
};

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_PROGRESS_H_
