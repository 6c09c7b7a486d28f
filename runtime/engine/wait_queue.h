// Whose turn it is among those that wait for pages and a slot.
//
// Higher priorities first. Within one: first what has run before (preempted, or a further choice of a prompt that is
// in), by arrival; then the flows take turns by deficit round robin in prompt tokens (Shreedhar and Varghese 1995), so
// that a flow of long prompts gets no more than one of short ones; first come, first served within a flow. Some may not
// be eligible at the moment and are passed over, but nobody is overtaken by more than `max_overtaken` that came later
// with the same priority: then that one is waited for.
// Threads: owned by the engine's thread; not locked.
#ifndef QWEN_RUNTIME_ENGINE_WAIT_QUEUE_H_
#define QWEN_RUNTIME_ENGINE_WAIT_QUEUE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <string>

namespace qwen::engine {

/// What the queue knows of one that waits. Not owned.
struct WaitItem {
  uint64_t arrival = 0;  // ascending
  int choice = 0;        // ties of arrival
  int priority = 0;
  std::string flow;
  int64_t prefill_tokens = 0;  // to prefill, as far as known
  int overtaken = 0;           // by how many that arrived later
  bool resumed = false;
};

class WaitQueue {
 public:
  explicit WaitQueue(int max_overtaken) : max_overtaken_(max_overtaken) {}

  /// At the end of its flow, in ascending order of arrival; before all that has not run when `resumed`.
  void Push(WaitItem* item, bool resumed);
  /// Whoever is next among the eligible ones; nullptr: nobody, or one that must not be overtaken is not eligible.
  WaitItem* Next(const std::function<bool(const WaitItem&)>& eligible) const;
  /// Takes what Next said: the flow pays, and those it passed are counted.
  void Take(WaitItem* item);
  /// Gives up waiting. Costs nothing.
  void Remove(WaitItem* item);

  bool empty() const { return count_ == 0; }
  int size() const { return count_; }
  /// Of those that have not run yet.
  int64_t tokens() const { return tokens_; }

 private:
  struct Flow {
    std::string name;
    int64_t deficit = 0;
    std::deque<WaitItem*> items;
  };
  struct Level {
    std::map<std::pair<uint64_t, int>, WaitItem*> resumed;
    std::list<Flow> flows;  // whose turn it is at the front
    std::map<uint64_t, WaitItem*> by_arrival;
  };
  static int64_t Rounds(const Flow& flow, const WaitItem& item);
  static WaitItem* FirstEligible(const Flow& flow, const std::function<bool(const WaitItem&)>& eligible);

  int max_overtaken_;
  std::map<int, Level, std::greater<>> levels_;
  int count_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_WAIT_QUEUE_H_
