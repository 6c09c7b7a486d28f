// What goes to stderr, and when it may have colours.
#include "runtime/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace qwen {
namespace {

TEST(Log, ControlCharactersAreEscaped) {
  EXPECT_EQ(EscapeControl("a\x1b[31mb\r\n\t\x7f"), "a\\x1b[31mb\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(EscapeControl("gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80"),
            "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80");
  EXPECT_EQ(EscapeControl("\xc2\x9b"
                          "31m"),
            "\\xc2\\x9b31m");  // CSI as one character
  EXPECT_EQ(EscapeControl("\xff\xc0\x80\xed\xa0\x80\xc3"), "\\xff\\xc0\\x80\\xed\\xa0\\x80\\xc3");
}

TEST(Log, ErrorLines) {
  EXPECT_EQ(ErrorText("tool", "run", InvalidArgumentError("a.plan: 3 is not 4\nand\x1b", "try 4")),
            "tool: error: run: a.plan: 3 is not 4\n  and\\x1b\nhint: try 4\n");
  EXPECT_EQ(ErrorText("tool", "", FailedError("no")), "tool: error: no\n");
}

TEST(Log, ColoursOnlyWhereTheyAreWanted) {
  auto error = [](std::string message) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(PrintError("tool", "run", DataLossError(std::move(message), "try")), 3);
    PrintWarning("tool", "careful");
    return testing::internal::GetCapturedStderr();
  };
  const std::string plain = "tool: error: run: a: error: b\nhint: try\ntool: warning: careful\n";
  EXPECT_EQ(error("a: error: b"), plain);  // a file is no terminal
  SetColorMode(ColorMode::kAlways);
  EXPECT_EQ(error("a: error: b"),
            "tool: \x1b[1;31merror:\x1b[0m run: a: error: b\n\x1b[1;36mhint:\x1b[0m try\n"
            "tool: \x1b[1;33mwarning:\x1b[0m careful\n");
  SetColorMode(ColorMode::kNever);
  EXPECT_EQ(error("a: error: b"), plain);
  SetColorMode(ColorMode::kAuto);
}

/// The far end of a terminal that a test can have.
class Terminal {
 public:
  Terminal() : master_(posix_openpt(O_RDWR | O_NOCTTY)) {
    if (master_ >= 0 && grantpt(master_) == 0 && unlockpt(master_) == 0) stream_ = std::fopen(ptsname(master_), "w");
  }
  ~Terminal() {
    if (stream_) std::fclose(stream_);
    if (master_ >= 0) close(master_);
  }
  std::FILE* stream() const { return stream_; }

 private:
  int master_;
  std::FILE* stream_ = nullptr;
};

TEST(Log, TerminalsHaveColoursUnlessToldOtherwise) {
  Terminal terminal;
  if (!terminal.stream()) GTEST_SKIP() << "no pseudo terminal here";
  unsetenv("NO_COLOR");
  setenv("TERM", "xterm", 1);
  EXPECT_TRUE(IsTerminal(terminal.stream()));
  EXPECT_TRUE(UseColor(terminal.stream()));
  setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(UseColor(terminal.stream()));
  setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(UseColor(terminal.stream()));
  unsetenv("NO_COLOR");
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(IsTerminal(terminal.stream()));
  EXPECT_FALSE(UseColor(terminal.stream()));
  SetColorMode(ColorMode::kAlways);
  EXPECT_TRUE(UseColor(terminal.stream()));
  SetColorMode(ColorMode::kAuto);
  unsetenv("TERM");
  EXPECT_FALSE(IsTerminal(terminal.stream()));
}

}  // namespace
}  // namespace qwen
