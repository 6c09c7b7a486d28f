#include "runtime/base/progress.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/signals.h"

namespace qwen {
namespace {

constexpr std::chrono::milliseconds kBarPeriod(100), kPlainPeriod(5000);
constexpr size_t kBarWidth = 12;  // a line of bytes with its facts then fits 80 columns
constexpr const char* kClearLine = "\r\x1b[K";

struct Scale {
  double bytes;
  const char* name;
};
Scale ScaleOf(double bytes) {
  for (Scale scale : {Scale{1e12, "TB"}, Scale{1e9, "GB"}, Scale{1e6, "MB"}, Scale{1e3, "KB"}})
    if (bytes >= scale.bytes) return scale;
  return {1, "bytes"};
}

/// "3.2 s", "42 s", "4:05", "1:02:05".
std::string TimeText(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  int64_t whole = seconds < 1e9 ? static_cast<int64_t>(seconds) : 1'000'000'000;
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

/// "3.2 of 7.9 GB", "41 of 96 kernels", "123 tokens".
std::string AmountText(int64_t done, int64_t total, std::string_view unit) {
  if (unit != "bytes")
    return total > 0 ? fmt::format("{} of {} {}", done, total, unit) : fmt::format("{} {}", done, unit);
  Scale scale = ScaleOf(static_cast<double>(std::max(done, total)));
  double of = static_cast<double>(total) / scale.bytes, have = static_cast<double>(done) / scale.bytes;
  return total > 0 ? fmt::format("{:.1f} of {:.1f} {}", have, of, scale.name)
                   : fmt::format("{:.1f} {}", have, scale.name);
}

/// "1.85 GB/s", "12.3 kernels/s".
std::string RateText(double rate, std::string_view unit) {
  if (unit != "bytes") return fmt::format("{:.1f} {}/s", rate, unit);
  Scale scale = ScaleOf(rate);
  return fmt::format("{:.2f} {}/s", rate / scale.bytes, scale.name);
}

size_t Columns(std::FILE* to) {
  winsize size{};
  return ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

ProgressKind ProgressKindOf(std::string_view word) {
  constexpr std::array kWords = {std::pair("auto", ProgressKind::kAuto), std::pair("bar", ProgressKind::kBar),
                                 std::pair("plain", ProgressKind::kPlain), std::pair("json", ProgressKind::kJson),
                                 std::pair("none", ProgressKind::kNone)};
  for (auto [name, kind] : kWords)
    if (word == name) return kind;
  assert(false && "no word of --progress");
  return ProgressKind::kNone;
}

std::unique_ptr<Progress> Progress::Make(ProgressKind kind, std::FILE* to, Clock clock) {
  if (kind == ProgressKind::kAuto) kind = IsTerminal(to) ? ProgressKind::kBar : ProgressKind::kPlain;
  return std::unique_ptr<Progress>(new Progress(kind, to, std::move(clock)));
}

Progress::Progress(ProgressKind kind, std::FILE* to, Clock clock) : kind_(kind), to_(to), clock_(std::move(clock)) {}

Progress::~Progress() { ClearBar(); }

void Progress::Phase(std::string_view name, int64_t total, std::string_view unit) {
  Finish();
  std::lock_guard lock(mutex_);
  name_ = name, unit_ = unit;
  done_ = 0, total_ = total;
  open_ = true;
  start_ = now_ = shown_at_ = clock_();
  if (kind_ == ProgressKind::kPlain)
    Print(total > 0 ? fmt::format("{}: {}\n", name_, AmountText(total, 0, unit_)) : name_ + '\n');
  if (kind_ == ProgressKind::kJson) Print(JsonLine());
}

void Progress::Update(int64_t done) {
  std::lock_guard lock(mutex_);
  if (!open_ || kind_ == ProgressKind::kNone) return;
  done_ = std::max(done_, total_ > 0 ? std::min(done, total_) : done);
  now_ = clock_();
  // Counted from the start too: what is done within a blink needs no bar.
  if (now_ - shown_at_ < (kind_ == ProgressKind::kPlain ? kPlainPeriod : kBarPeriod)) return;
  shown_at_ = now_;
  shown_ = true;
  Draw();
}

void Progress::Finish() {
  std::lock_guard lock(mutex_);
  if (!open_) return;
  now_ = clock_();
  bool sum_up = shown_;
  ClearBar();
  if (sum_up && (kind_ == ProgressKind::kBar || kind_ == ProgressKind::kPlain)) Print(Summary());
  if (kind_ == ProgressKind::kJson) Print(JsonLine());
  open_ = shown_ = false;
}

double Progress::Seconds() const { return std::chrono::duration<double>(now_ - start_).count(); }

/// Percent, amount, rate, time left, time so far: as many of them as are known.
std::vector<std::string> Progress::Facts() const {
  std::vector<std::string> facts;
  double done = static_cast<double>(done_), total = static_cast<double>(total_), seconds = Seconds();
  double rate = seconds > 0 ? done / seconds : 0;
  if (total_ > 0) facts.push_back(fmt::format("{}%", static_cast<int>(100 * done / total)));
  facts.push_back(AmountText(done_, total_, unit_));
  if (rate > 0) facts.push_back(RateText(rate, unit_));
  if (rate > 0 && total_ > 0) facts.push_back(TimeText((total - done) / rate) + " left");
  facts.push_back(TimeText(seconds));
  return facts;
}

std::string Progress::Summary() const {
  double seconds = Seconds();
  std::string line = fmt::format("{}: {} in {}", name_, AmountText(done_, 0, unit_), TimeText(seconds));
  if (seconds > 0) line += ", " + RateText(static_cast<double>(done_) / seconds, unit_);
  return line + '\n';
}

std::string Progress::JsonLine() const {
  return fmt::format("{{\"phase\": {}, \"done\": {}, \"total\": {}, \"unit\": {}, \"elapsed_ms\": {}}}\n",
                     JsonQuote(name_), done_, total_, JsonQuote(unit_),
                     std::chrono::duration_cast<std::chrono::milliseconds>(now_ - start_).count());
}

void Progress::Draw() {
  if (kind_ == ProgressKind::kJson) return Print(JsonLine());
  if (kind_ == ProgressKind::kPlain) return Print(fmt::format("{}: {}\n", name_, fmt::join(Facts(), ", ")));
  std::string line = name_;
  if (total_ > 0) {
    size_t filled = static_cast<size_t>(kBarWidth * static_cast<double>(done_) / static_cast<double>(total_));
    line += fmt::format(" [{:<{}}]", std::string(filled, '#'), kBarWidth);
  }
  line += fmt::format("  {}", fmt::join(Facts(), "  "));
  // A line that wraps cannot be redrawn.
  Print(kClearLine + line.substr(0, Columns(to_) - 1));
  SetStopText(kClearLine);
}

void Progress::ClearBar() {
  if (kind_ != ProgressKind::kBar || !shown_) return;
  Print(kClearLine);
  SetStopText(nullptr);
  shown_ = false;
}

void Progress::Print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), to_);
  std::fflush(to_);
}

}  // namespace qwen
