#include "runtime/text/jinja/limits.h"

#include <algorithm>

namespace qwen::text {
namespace {

constexpr std::string_view kLimitPrefix = "template_limit: ";
constexpr int64_t kStepsBetweenLooks = 4096;  // at the clock: some 0.2 ms
constexpr size_t kMaxMessage = 500;           // bytes of the template's own words; they may quote the request

}  // namespace

bool IsTemplateLimit(const Status& status) { return status.message().starts_with(kLimitPrefix); }

bool Meter::Fail(const std::string& why) {
  if (ok()) status_ = InvalidArgumentError("line " + std::to_string(line_) + ": " + why);
  return false;
}

bool Meter::Raise(std::string message) {
  if (message.size() > kMaxMessage) {
    size_t end = kMaxMessage;
    while (end > 0 && (message[end] & 0xC0) == 0x80) --end;
    message.resize(end);
  }
  if (ok()) status_ = InvalidArgumentError(std::move(message));
  return false;
}

bool Meter::Exceeded(std::string_view what, int64_t count, int64_t limit) {
  if (ok())
    status_ = InvalidArgumentError(std::string(kLimitPrefix) + "line " + std::to_string(line_) + ": " +
                                   std::to_string(count) + " " + std::string(what) + ", the limit is " +
                                   std::to_string(limit));
  return false;
}

bool Meter::Check() {
  if (!AtMost("steps", steps_, limits_.steps)) return false;
  next_check_ = std::min(limits_.steps, steps_ + kStepsBetweenLooks);
  if (limits_.time_ms == 0) return true;
  const auto late = std::chrono::steady_clock::now() - deadline_;
  return AtMost("ms", limits_.time_ms + std::chrono::ceil<std::chrono::milliseconds>(late).count(), limits_.time_ms);
}

}  // namespace qwen::text
