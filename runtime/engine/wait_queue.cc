#include "runtime/engine/wait_queue.h"

#include <algorithm>
#include <cassert>

namespace qwen::engine {
namespace {

constexpr int64_t kQuantum = 2048;  // prompt tokens a flow's turn is worth

}  // namespace

void WaitQueue::Push(WaitItem* item, bool resumed) {
  Level& level = levels_[item->priority];
  item->resumed = resumed;
  ++count_;
  if (resumed) {
    level.resumed.emplace(std::pair(item->arrival, item->choice), item);
    return;
  }
  tokens_ += item->prefill_tokens;
  level.by_arrival.emplace(item->arrival, item);
  auto flow = std::ranges::find(level.flows, item->flow, &Flow::name);
  if (flow == level.flows.end()) flow = level.flows.insert(flow, Flow{item->flow, 0, {}});
  flow->items.push_back(item);
}

// How many more turns the flow must get before it can pay.
int64_t WaitQueue::Rounds(const Flow& flow, const WaitItem& item) {
  return std::max<int64_t>(0, (item.prefill_tokens - flow.deficit + kQuantum - 1) / kQuantum);
}

WaitItem* WaitQueue::FirstEligible(const Flow& flow, const std::function<bool(const WaitItem&)>& eligible) {
  auto found = std::ranges::find_if(flow.items, [&](const WaitItem* item) { return eligible(*item); });
  return found == flow.items.end() ? nullptr : *found;
}

WaitItem* WaitQueue::Next(const std::function<bool(const WaitItem&)>& eligible) const {
  for (const auto& [priority, level] : levels_) {
    for (const auto& [key, item] : level.resumed)
      if (eligible(*item)) return item;
    if (level.by_arrival.empty()) continue;
    // Whoever overtook a younger one has overtaken the oldest as well, so it suffices to ask the oldest.
    WaitItem* oldest = level.by_arrival.begin()->second;
    if (oldest->overtaken >= max_overtaken_) return eligible(*oldest) ? oldest : nullptr;
    WaitItem* next = nullptr;
    int64_t fewest = 0;
    for (const Flow& flow : level.flows) {
      WaitItem* item = FirstEligible(flow, eligible);
      if (!item) continue;
      const int64_t rounds = Rounds(flow, *item);
      if (!next || rounds < fewest) next = item, fewest = rounds;
    }
    if (next) return next;
  }
  return nullptr;
}

void WaitQueue::Take(WaitItem* item) {
  if (!item->resumed) {
    Level& level = levels_[item->priority];
    auto flow = std::ranges::find(level.flows, item->flow, &Flow::name);
    const int64_t rounds = Rounds(*flow, *item);
    for (Flow& other : level.flows) other.deficit += rounds * kQuantum;
    flow->deficit -= item->prefill_tokens;
    // The turn stays with it while it can pay.
    level.flows.splice(level.flows.end(), level.flows, level.flows.begin(), flow);
    for (auto& [arrival, other] : level.by_arrival) {
      if (arrival >= item->arrival) break;
      ++other->overtaken;
    }
  }
  Remove(item);
}

void WaitQueue::Remove(WaitItem* item) {
  auto found = levels_.find(item->priority);
  assert(found != levels_.end());
  Level& level = found->second;
  --count_;
  if (item->resumed) {
    level.resumed.erase({item->arrival, item->choice});
  } else {
    tokens_ -= item->prefill_tokens;
    level.by_arrival.erase(item->arrival);
    auto flow = std::ranges::find(level.flows, item->flow, &Flow::name);
    std::erase(flow->items, item);
    // What a flow has saved up is gone when it has nothing to ask for.
    if (flow->items.empty()) level.flows.erase(flow);
  }
  if (level.resumed.empty() && level.by_arrival.empty()) levels_.erase(found);
}

}  // namespace qwen::engine
