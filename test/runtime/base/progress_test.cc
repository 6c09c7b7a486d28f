// Every kind, letter by letter, on a clock that the test turns.
#include "runtime/base/progress.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "runtime/base/json.h"

namespace qwen {
namespace {

using std::chrono::milliseconds;

class ProgressTest : public testing::Test {
 protected:
  ProgressTest() : stream_(open_memstream(&text_, &size_)) {}
  ~ProgressTest() override {
    std::fclose(stream_);
    std::free(text_);
  }
  std::unique_ptr<Progress> Make(ProgressKind kind) {
    return Progress::Make(kind, stream_, [this] { return std::chrono::steady_clock::time_point(now_); });
  }
  /// What was written since the last call.
  std::string Written() {
    std::fflush(stream_);
    std::string all(text_, size_), rest = all.substr(read_);
    read_ = all.size();
    return rest;
  }

  milliseconds now_{1000};

 private:
  char* text_ = nullptr;
  size_t size_ = 0, read_ = 0;
  std::FILE* stream_;
};

TEST_F(ProgressTest, Bar) {
  auto progress = Make(ProgressKind::kBar);
  progress->Phase("weights", 8'000'000'000, "bytes");
  now_ += milliseconds(99);
  progress->Update(1'000'000'000);
  EXPECT_EQ(Written(), "");  // a blink
  now_ += milliseconds(901);
  progress->Update(2'000'000'000);
  EXPECT_EQ(Written(), "\r\x1b[Kweights [###         ]  25%  2.0 of 8.0 GB  2.00 GB/s  3.0 s left  1.0 s");
  now_ += milliseconds(99);
  progress->Update(3'000'000'000);
  EXPECT_EQ(Written(), "");  // ten a second
  now_ += milliseconds(2901);
  progress->Update(8'000'000'000);
  EXPECT_EQ(Written(), "\r\x1b[Kweights [############]  100%  8.0 of 8.0 GB  2.00 GB/s  0.0 s left  4.0 s");
  progress->Finish();
  EXPECT_EQ(Written(), "\r\x1b[Kweights: 8.0 GB in 4.0 s, 2.00 GB/s\n");
  progress->Finish();
  progress.reset();
  EXPECT_EQ(Written(), "");
}

TEST_F(ProgressTest, BarOfCountsAndOfUnknownTotals) {
  auto progress = Make(ProgressKind::kBar);
  progress->Phase("verify", 4, "kernels");
  now_ += milliseconds(500);
  progress->Update(1);
  EXPECT_EQ(Written(), "\r\x1b[Kverify [###         ]  25%  1 of 4 kernels  2.0 kernels/s  1.5 s left  0.5 s");
  // The next phase sums up the one before.
  progress->Phase("read", 0, "tokens");
  EXPECT_EQ(Written(), "\r\x1b[Kverify: 1 kernels in 0.5 s, 2.0 kernels/s\n");
  now_ += milliseconds(15000);
  progress->Update(30);
  EXPECT_EQ(Written(), "\r\x1b[Kread  30 tokens  2.0 tokens/s  15 s");
  // A line that wraps could not be redrawn.
  progress->Phase(std::string(100, 'x'), 0, "tokens");
  Written();
  now_ += milliseconds(100);
  progress->Update(1);
  EXPECT_EQ(Written(), "\r\x1b[K" + std::string(79, 'x'));
}

TEST_F(ProgressTest, WorkThatFailsLeavesNoBar) {
  auto progress = Make(ProgressKind::kBar);
  progress->Phase("weights", 100, "bytes");
  now_ += milliseconds(200);
  progress->Update(50);
  Written();
  progress.reset();
  EXPECT_EQ(Written(), "\r\x1b[K");
}

TEST_F(ProgressTest, ShortWorkIsSilent) {
  auto progress = Make(ProgressKind::kBar);
  progress->Phase("weights", 100, "bytes");
  progress->Update(100);
  progress->Finish();
  EXPECT_EQ(Written(), "");
}

TEST_F(ProgressTest, Plain) {
  auto progress = Make(ProgressKind::kPlain);
  progress->Phase("weights", 4'000'000, "bytes");
  EXPECT_EQ(Written(), "weights: 4.0 MB\n");
  now_ += milliseconds(4999);
  progress->Update(900'000);
  EXPECT_EQ(Written(), "");
  now_ += milliseconds(1);
  progress->Update(1'000'000);
  EXPECT_EQ(Written(), "weights: 25%, 1.0 of 4.0 MB, 200.00 KB/s, 15 s left, 5.0 s\n");
  now_ += milliseconds(5000);
  progress->Update(4'000'000);
  EXPECT_EQ(Written(), "weights: 100%, 4.0 of 4.0 MB, 400.00 KB/s, 0.0 s left, 10 s\n");
  now_ += milliseconds(3'600'000);
  progress->Finish();
  EXPECT_EQ(Written(), "weights: 4.0 MB in 1:00:10, 1.11 KB/s\n");
  progress->Phase("warm up", 0, "");
  progress->Finish();
  EXPECT_EQ(Written(), "warm up\n");
}

TEST_F(ProgressTest, Json) {
  auto progress = Make(ProgressKind::kJson);
  progress->Phase("read \"x\"", 100, "bytes");
  EXPECT_EQ(Written(),
            "{\"phase\": \"read \\\"x\\\"\", \"done\": 0, \"total\": 100, \"unit\": \"bytes\", \"elapsed_ms\": 0}\n");
  now_ += milliseconds(100);
  progress->Update(40);
  EXPECT_EQ(
      Written(),
      "{\"phase\": \"read \\\"x\\\"\", \"done\": 40, \"total\": 100, \"unit\": \"bytes\", \"elapsed_ms\": 100}\n");
  progress->Update(100);
  EXPECT_EQ(Written(), "");
  progress->Finish();
  std::string last = Written();
  EXPECT_TRUE(ParseJson(last, "line").ok());
  EXPECT_NE(last.find("\"done\": 100,"), std::string::npos);
}

TEST_F(ProgressTest, NoneIsSilent) {
  auto progress = Make(ProgressKind::kNone);
  progress->Phase("weights", 100, "bytes");
  now_ += milliseconds(60000);
  progress->Update(100);
  progress->Finish();
  EXPECT_EQ(Written(), "");
}

TEST_F(ProgressTest, AutoIsPlainWhereNoLineCanBeRedrawn) {
  auto progress = Make(ProgressKind::kAuto);
  progress->Phase("weights", 0, "bytes");
  EXPECT_EQ(Written(), "weights\n");
}

TEST_F(ProgressTest, LateUpdatesAndTooMuchChangeNothing) {
  auto progress = Make(ProgressKind::kJson);
  progress->Update(5);  // outside a phase
  progress->Phase("p", 10, "steps");
  progress->Update(8);
  progress->Update(3);
  progress->Update(99);
  Written();
  progress->Finish();
  EXPECT_NE(Written().find("\"done\": 10,"), std::string::npos);
}

TEST_F(ProgressTest, UpdatesFromManyThreads) {
  auto progress = Make(ProgressKind::kJson);
  progress->Phase("p", 4000, "steps");
  std::vector<std::thread> threads;
  std::atomic<int64_t> done = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) progress->Update(++done);
    });
  for (std::thread& thread : threads) thread.join();
  Written();
  progress->Finish();
  EXPECT_NE(Written().find("\"done\": 4000,"), std::string::npos);
}

TEST(ProgressKinds, Words) {
  EXPECT_EQ(ProgressKindOf("auto"), ProgressKind::kAuto);
  EXPECT_EQ(ProgressKindOf("bar"), ProgressKind::kBar);
  EXPECT_EQ(ProgressKindOf("plain"), ProgressKind::kPlain);
  EXPECT_EQ(ProgressKindOf("json"), ProgressKind::kJson);
  EXPECT_EQ(ProgressKindOf("none"), ProgressKind::kNone);
}

}  // namespace
}  // namespace qwen
