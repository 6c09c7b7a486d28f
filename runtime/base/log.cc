#include "runtime/base/log.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "fmt/format.h"

namespace qwen {
namespace {

/// Bytes of the valid UTF-8 sequence at the start of `text`; 0 when there is none.
size_t Utf8Length(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char lead = byte(0);
  size_t length = lead < 0x80                   ? 1
                  : lead >= 0xC2 && lead < 0xE0 ? 2
                  : lead >= 0xE0 && lead < 0xF0 ? 3
                  : lead >= 0xF0 && lead < 0xF5 ? 4
                                                : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  // Overlong forms, surrogates and what lies above U+10FFFF.
  if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return 0;
  if ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return 0;
  return length;
}

}  // namespace

std::string EscapeControl(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t length = Utf8Length(text);
    unsigned char lead = static_cast<unsigned char>(text[0]);
    bool control = lead < 0x20 || lead == 0x7F;
    if (length == 2 && lead == 0xC2) control = static_cast<unsigned char>(text[1]) < 0xA0;  // U+0080 to U+009F
    if (length == 0 || control) {
      length = std::max<size_t>(length, 1);
      for (size_t i = 0; i < length; ++i) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string ErrorText(std::string_view program, std::string_view command, const Status& status) {
  std::string out = fmt::format("{}: error: ", program);
  if (!command.empty()) out += fmt::format("{}: ", command);
  std::string_view rest = status.message();
  while (true) {
    size_t end = rest.find('\n');
    out += EscapeControl(rest.substr(0, end)) + '\n';
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
    out += "  ";
  }
  if (!status.hint().empty()) out += fmt::format("hint: {}\n", EscapeControl(status.hint()));
  return out;
}

int PrintError(std::string_view program, std::string_view command, const Status& status) {
  std::fflush(stdout);
  fmt::print(stderr, "{}", ErrorText(program, command, status));
  return status.ExitCode();
}

void PrintWarning(std::string_view program, std::string_view message) {
  fmt::print(stderr, "{}: warning: {}\n", program, EscapeControl(message));
}

bool StderrIsTerminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
}

ProgressBar::ProgressBar(std::string phase)
    : phase_(std::move(phase)), visible_(StderrIsTerminal()), start_(std::chrono::steady_clock::now()) {}

ProgressBar::~ProgressBar() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::Update(int64_t done, int64_t total) {
  if (!visible_ || total <= 0) return;
  auto now = std::chrono::steady_clock::now();
  // What is done within a blink needs no bar.
  if (now - (drawn_ ? last_ : start_) < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  constexpr int kWidth = 30;
  double share = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  double seconds = std::chrono::duration<double>(now - start_).count();
  double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  int filled = static_cast<int>(share * kWidth);
  double unit = total < 1'000'000'000 ? 1e6 : 1e9;
  std::string line =
      fmt::format("\r\x1b[K{} [{}{}] {:3.0f}%  {:.1f} of {:.1f} {}  {:.2f} GB/s", phase_,
                  std::string(static_cast<size_t>(filled), '#'), std::string(static_cast<size_t>(kWidth - filled), ' '),
                  share * 100, static_cast<double>(done) / unit, static_cast<double>(total) / unit,
                  unit < 1e9 ? "MB" : "GB", rate / 1e9);
  if (rate > 0) line += fmt::format("  {:.0f} s left", static_cast<double>(total - done) / rate);
  fmt::print(stderr, "{}", line);
}

}  // namespace qwen
