// What goes to stderr: errors, warnings. stdout carries results only.
#ifndef QWEN_RUNTIME_BASE_LOG_H_
#define QWEN_RUNTIME_BASE_LOG_H_

#include <cstdio>
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
/// Prints that on stderr, in colour where that is wanted; returns the exit code.
int PrintError(std::string_view program, std::string_view command, const Status& status);
/// `program: warning: message` on stderr.
void PrintWarning(std::string_view program, std::string_view message);

/// Whether `stream` is a terminal that can redraw a line: not one whose TERM is dumb or missing.
bool IsTerminal(std::FILE* stream);
inline bool StderrIsTerminal() { return IsTerminal(stderr); }

/// --color: kAuto, as at the start, colours terminals unless NO_COLOR (no-color.org) is set and not empty.
enum class ColorMode { kAuto, kAlways, kNever };
void SetColorMode(ColorMode mode);
bool UseColor(std::FILE* stream);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_LOG_H_
