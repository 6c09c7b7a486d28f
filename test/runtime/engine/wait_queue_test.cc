// Whose turn it is: priorities, flows in turns, and a bound on how many may pass.
#include "runtime/engine/wait_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

namespace qwen::engine {
namespace {

class WaitQueueTest : public ::testing::Test {
 protected:
  WaitItem* Push(int64_t tokens, const std::string& flow = "", int priority = 0, bool resumed = false) {
    WaitItem& item = items_.emplace_back();
    item.arrival = items_.size();
    item.prefill_tokens = tokens;
    item.flow = flow;
    item.priority = priority;
    queue_.Push(&item, resumed);
    return &item;
  }
  WaitItem* Take(int64_t longest = 1 << 30) {
    WaitItem* item = queue_.Next([&](const WaitItem& each) { return each.prefill_tokens <= longest; });
    if (item) queue_.Take(item);
    return item;
  }

  std::deque<WaitItem> items_;
  WaitQueue queue_{3};
};

TEST_F(WaitQueueTest, PriorityThenResumedThenArrival) {
  WaitItem* a = Push(10);
  WaitItem* b = Push(10);
  WaitItem* high = Push(10, "", 5);
  WaitItem* again = Push(10, "", 0, /*resumed=*/true);
  EXPECT_EQ(queue_.tokens(), 30);
  EXPECT_EQ(Take(), high);
  EXPECT_EQ(Take(), again);
  EXPECT_EQ(Take(), a);
  EXPECT_EQ(Take(), b);
  EXPECT_EQ(Take(), nullptr);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.tokens(), 0);
}

TEST_F(WaitQueueTest, FlowsShareByTokensNotByRequests) {
  // One flow's prompts are four times as long: it gets one turn in five.
  WaitQueue queue(1000);
  std::deque<WaitItem> items(200);
  int64_t served[2] = {0, 0};
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].arrival = i + 1;
    items[i].flow = i % 2 == 0 ? "long" : "short";
    items[i].prefill_tokens = i % 2 == 0 ? 4096 : 1024;
    queue.Push(&items[i], false);
  }
  for (int taken = 0; taken < 100; ++taken) {
    WaitItem* item = queue.Next([](const WaitItem&) { return true; });
    queue.Take(item);
    served[item->flow == "short"] += item->prefill_tokens;
  }
  EXPECT_NEAR(static_cast<double>(served[0]), static_cast<double>(served[1]), 2 * 4096);
}

TEST_F(WaitQueueTest, NobodyIsPassedMoreOftenThanTheBound) {
  WaitItem* big = Push(5000);
  std::vector<WaitItem*> small;
  for (int i = 0; i < 6; ++i) small.push_back(Push(10));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Take(/*longest=*/100), small[static_cast<size_t>(i)]);
  EXPECT_EQ(Take(/*longest=*/100), nullptr) << "the long one has let three pass";
  EXPECT_EQ(Take(), big);
  EXPECT_EQ(Take(/*longest=*/100), small[3]);
}

TEST_F(WaitQueueTest, TheBoundHoldsBetweenFlows) {
  WaitItem* big = Push(100000, "a");
  for (int i = 0; i < 10; ++i) Push(100, "b");
  int passed = 0;
  while (Take() != big) ++passed;
  EXPECT_EQ(passed, 3);
}

TEST_F(WaitQueueTest, RemovedOnesLeaveNothing) {
  WaitItem* a = Push(10, "x");
  WaitItem* b = Push(20, "y", 1);
  WaitItem* c = Push(30, "x", 0, /*resumed=*/true);
  EXPECT_EQ(queue_.size(), 3);
  queue_.Remove(b);
  queue_.Remove(c);
  queue_.Remove(a);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.tokens(), 0);
  EXPECT_EQ(Take(), nullptr);
}

}  // namespace
}  // namespace qwen::engine
