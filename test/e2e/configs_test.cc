// Every config of configs/ compiles within its memory, or is refused; test/compiler/configs has each one's own test.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

TEST(Configs, CompileWithinTimeAndMemory) {
  TempDir temp;
  double slowest = 0;
  int64_t largest = 0;
  std::string slowest_name, largest_name;
  int compiled = 0, refused = 0;
  for (auto& entry : std::filesystem::directory_iterator(std::string(QWEN_SOURCE_DIR) + "/configs")) {
    std::string name = entry.path().stem();
    if (entry.path().extension() != ".json" || name == "quantization_examples") continue;
    CommandResult run = RunProgram("qwenc", {"compile", entry.path(), "-o", temp / "m.plan", "--force"});
    EXPECT_TRUE(run.exit_code == 0 || run.exit_code == 4) << name << ": " << run.output;
    (run.exit_code == 0 ? compiled : refused) += 1;
    if (run.seconds > slowest) slowest = run.seconds, slowest_name = name;
    if (run.peak_bytes > largest) largest = run.peak_bytes, largest_name = name;
  }
  Figure("configs", fmt::format("{} compile, {} are refused", compiled, refused));
  Figure("slowest compile", fmt::format("{:.2f} s, {} (allowed 5 s)", slowest, slowest_name));
  Figure("largest compile", fmt::format("{:.0f} MB, {} (allowed 500 MB)", largest / 1e6, largest_name));
  EXPECT_LE(largest, 500'000'000);
}

}  // namespace
}  // namespace qwen::e2e
