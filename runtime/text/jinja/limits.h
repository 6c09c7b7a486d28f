// What one rendering may cost, and the meter that counts it.
//
// A template is a program by strangers over data by strangers. Everything that takes time or memory asks the meter
// first, and once anything failed the meter says no for good: whoever gets a no returns at once, with any value.
#ifndef QWEN_RUNTIME_TEXT_JINJA_LIMITS_H_
#define QWEN_RUNTIME_TEXT_JINJA_LIMITS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace qwen::text {

struct RenderLimits {
  int64_t steps = 2'000'000;                // a node evaluated, an item made, 256 bytes read or written: one each
  int64_t output_bytes = int64_t{8} << 20;  // of the result, and of any one string on the way
  int64_t list_items = 250'000;             // of any one list
  int64_t built_bytes = 256 << 20;          // strings and lists made on the way, alive or not
  int64_t recursion = 64;                   // macro calls inside each other
  int64_t time_ms = 250;                    // 0: any
};

inline constexpr int64_t kMaxRange = 100'000;      // as Jinja's sandbox
inline constexpr int64_t kMaxNesting = 200;        // lists in lists; a request and JSON in its strings have 64 each
inline constexpr int64_t kMaxEvaluations = 1'000;  // nodes inside each other: 1 MiB of stack is enough for them

/// The status of a rendering that was too expensive, for those who treat it apart from other errors.
bool IsTemplateLimit(const Status& status);

class Meter {
 public:
  explicit Meter(const RenderLimits& limits)
      : limits_(limits), deadline_(std::chrono::steady_clock::now() + std::chrono::milliseconds(limits.time_ms)) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  const RenderLimits& limits() const { return limits_; }
  /// Where errors are said to be.
  void set_line(uint32_t line) { line_ = line; }

  bool Step(int64_t count = 1) {
    steps_ += count;
    return steps_ <= next_check_ ? ok() : Check();
  }
  /// `bytes` are looked at.
  bool Read(size_t bytes) { return Step(1 + static_cast<int64_t>(bytes / 256)); }
  /// `bytes` are taken apart and put together one character at a time.
  bool Characters(size_t bytes) { return Step(1 + static_cast<int64_t>(bytes / 16)); }
  /// A string of `size` bytes grows by `bytes`.
  bool Grow(size_t size, size_t bytes) {
    return AtMost("bytes in a string", size + bytes, limits_.output_bytes) && Build(bytes);
  }
  /// `bytes` of memory are filled.
  bool Build(size_t bytes) {
    built_ += static_cast<int64_t>(bytes);
    return AtMost("bytes built", built_, limits_.built_bytes) && Read(bytes);
  }
  /// False, and the error template_limit, when `count` is over `limit`.
  bool AtMost(std::string_view what, int64_t count, int64_t limit) {
    return count <= limit ? ok() : Exceeded(what, count, limit);
  }
  /// Always false. The first error stays.
  bool Fail(const std::string& why);
  /// The template's own words, without a line in front.
  bool Raise(std::string message);

 private:
  bool Check();
  bool Exceeded(std::string_view what, int64_t count, int64_t limit);

  const RenderLimits limits_;
  const std::chrono::steady_clock::time_point deadline_;
  Status status_;
  int64_t steps_ = 0, next_check_ = 0, built_ = 0;
  uint32_t line_ = 0;
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_LIMITS_H_
