// Log lines: one a request, messages, a summary while busy (serving design, 11).
//
// Lines hold no byte that could move a cursor or forge another line, whatever a client sent. Writing never stops the
// server: a line that cannot be written is dropped and counted.
#ifndef QWEN_RUNTIME_SERVER_API_ACCESS_LOG_H_
#define QWEN_RUNTIME_SERVER_API_ACCESS_LOG_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/request.h"
#include "runtime/server/api/generation.h"
#include "runtime/server/http/http.h"

namespace qwen::server {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

struct LogField {
  std::string_view key;  // ours
  std::variant<std::string, int64_t, double> value;
};

/// Threads: any.
class Log {
 public:
  using Clock = std::chrono::system_clock;
  struct Options {
    LogLevel level = LogLevel::kInfo;
    bool json = false;
    int messages_per_second = 10;            // of one text; more are counted and said in one line
    std::function<Clock::time_point()> now;  // null: the system's
  };

  /// Writes to descriptor `fd`, which stays the caller's.
  Log(Options options, int fd);
  /// Appends to a file. kResourceExhausted when it cannot be opened.
  static StatusOr<std::unique_ptr<Log>> ToFile(Options options, const std::string& path);
  ~Log();

  void Write(LogLevel level, std::string_view room, std::string_view message, std::vector<LogField> fields = {});
  /// One finished exchange; `generation` when the engine worked for it.
  void Access(const AccessRecord& record, const GenerationSummary* generation);
  /// What the engine did since the last call. Nothing when that is nothing.
  void Summary(const engine::EngineStats& stats);

  uint64_t dropped() const;

 private:
  struct Repeats {
    Clock::time_point second{};
    int written = 0;
    uint64_t folded = 0;
  };

  void WriteLine(LogLevel level, std::string_view room, std::string_view message, const std::vector<LogField>& fields);

  const Options options_;
  int fd_;
  bool owned_ = false;
  mutable std::mutex mutex_;
  uint64_t dropped_ = 0, dropped_said_ = 0;
  std::map<std::string, Repeats, std::less<>> repeats_;
  engine::EngineStats last_;
  Clock::time_point last_time_{};
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_ACCESS_LOG_H_
