// Each case in a process of its own: what a signal leaves behind is its exit code, its files and its last words.
#include "runtime/base/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/base/file.h"
#include "test/sanitizers.h"

namespace qwen {
namespace {

namespace fs = std::filesystem;
using testing::ExitedWithCode;

class SignalsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "qwen_signals_test_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  size_t Files() const { return std::distance(fs::directory_iterator(folder_), fs::directory_iterator()); }

  fs::path folder_;
};

TEST_F(SignalsTest, NobodyListens) {
  EXPECT_EXIT((HandleStopSignals(), raise(SIGINT), std::abort()), ExitedWithCode(130), "^$");
  EXPECT_EXIT((HandleStopSignals(), raise(SIGTERM), std::abort()), ExitedWithCode(143), "^$");
}

TEST_F(SignalsTest, TheFirstAsksTheSecondStops) {
  auto twice = [](int first, int second) {
    HandleStopSignals();
    GracefulStop stop;
    if (Interrupted() || stop.requested() || StopExitCode() != 130) std::_Exit(1);
    raise(first);
    if (!Interrupted() || !stop.requested() || !stop.flag()->load() || StopExitCode() != 128 + first) std::_Exit(2);
    raise(second);
    std::_Exit(3);
  };
  EXPECT_EXIT(twice(SIGINT, SIGINT), ExitedWithCode(130), "");
  EXPECT_EXIT(twice(SIGINT, SIGTERM), ExitedWithCode(143), "");
  EXPECT_EXIT(twice(SIGTERM, SIGINT), ExitedWithCode(130), "");
}

TEST_F(SignalsTest, WhoNoLongerListensIsNotAsked) {
  auto late = [] {
    HandleStopSignals();
    {
      GracefulStop stop;
    }
    raise(SIGTERM);
    std::_Exit(1);
  };
  EXPECT_EXIT(late(), ExitedWithCode(143), "");
}

TEST_F(SignalsTest, HalfWrittenFilesGo) {
  auto write = [&](bool commit) {
    HandleStopSignals();
    auto file = AtomicFile::Create((folder_ / "plan").string(), false);
    if (!file.ok() || !(*file)->Write("half").ok() || Files() != 1) std::_Exit(1);
    if (commit && !(*file)->Commit().ok()) std::_Exit(2);
    // One that has its place must not come back to life under its old name's slot.
    file->reset();
    auto second = AtomicFile::Create((folder_ / "second").string(), false);
    if (!second.ok()) std::_Exit(3);
    raise(SIGINT);
    std::_Exit(4);
  };
  EXPECT_EXIT(write(false), ExitedWithCode(130), "");
  EXPECT_EQ(Files(), 0u);
  EXPECT_EXIT(write(true), ExitedWithCode(130), "");
  EXPECT_EQ(*ReadFile((folder_ / "plan").string(), 99), "half");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(SignalsTest, FilesThatAreNotRememberedDoNoHarm) {
  auto many = [&] {
    HandleStopSignals();
    std::vector<std::unique_ptr<RemoveOnStop>> files;
    for (int i = 0; i < 70; ++i) {
      std::string path = (folder_ / std::to_string(i)).string();
      std::ofstream(path) << "x";
      files.push_back(std::make_unique<RemoveOnStop>(path));
    }
    files.erase(files.begin(), files.begin() + 10);
    raise(SIGTERM);
  };
  EXPECT_EXIT(many(), ExitedWithCode(143), "");
  EXPECT_EQ(Files(), 10u + 6u);  // let go, and beyond the 64
}

TEST_F(SignalsTest, LastWords) {
  auto speak = [] {
    HandleStopSignals();
    SetStopText("cleared");
    raise(SIGINT);
  };
  EXPECT_EXIT(speak(), ExitedWithCode(130), "^cleared$");
}

TEST_F(SignalsTest, AnIgnoredInterruptStaysIgnored) {
  auto background = [] {
    std::signal(SIGINT, SIG_IGN);
    HandleStopSignals();
    raise(SIGINT);
    std::_Exit(Interrupted() ? 1 : 0);
  };
  EXPECT_EXIT(background(), ExitedWithCode(0), "");
}

TEST_F(SignalsTest, ACrashSaysWhere) {
  if (QWEN_SANITIZED) GTEST_SKIP() << "the sanitizer has its own handlers";
  EXPECT_EXIT((TraceCrashes(), std::abort()), testing::KilledBySignal(SIGABRT),
              "crash: ABRT\n.*signals_test|crash: ABRT\n.*\\[0x");
}

}  // namespace
}  // namespace qwen
