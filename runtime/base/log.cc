#include "runtime/base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "fmt/format.h"

namespace qwen {
namespace {

std::atomic<ColorMode> color_mode = ColorMode::kAuto;

constexpr std::string_view kRed = "\x1b[1;31m", kYellow = "\x1b[1;33m", kCyan = "\x1b[1;36m", kPlain = "\x1b[0m";

/// Colours the first `word` of `text`, but for the character in front that tells it from one inside a message.
void Paint(std::string& text, std::string_view word, std::string_view color) {
  size_t at = text.find(word);
  if (at == std::string::npos) return;
  text.insert(at + word.size(), kPlain);
  text.insert(at + 1, color);
}

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
  std::string text = ErrorText(program, command, status);
  if (UseColor(stderr)) {
    Paint(text, " error:", kRed);
    Paint(text, "\nhint:", kCyan);
  }
  fmt::print(stderr, "{}", text);
  return status.ExitCode();
}

void PrintWarning(std::string_view program, std::string_view message) {
  std::string text = fmt::format("{}: warning: {}\n", program, EscapeControl(message));
  if (UseColor(stderr)) Paint(text, " warning:", kYellow);
  fmt::print(stderr, "{}", text);
}

bool IsTerminal(std::FILE* stream) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(stream)) && term && std::string_view(term) != "dumb";
}

void SetColorMode(ColorMode mode) { color_mode = mode; }

bool UseColor(std::FILE* stream) {
  if (color_mode != ColorMode::kAuto) return color_mode == ColorMode::kAlways;
  const char* no_color = std::getenv("NO_COLOR");
  return IsTerminal(stream) && !(no_color && *no_color);
}

}  // namespace qwen
