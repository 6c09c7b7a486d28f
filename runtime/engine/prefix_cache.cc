#include "runtime/engine/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include "fmt/format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace qwen::engine {
namespace {

constexpr int kAlignPages = plan::kStateAlign / plan::kPageTokens;
static_assert(plan::kStateAlign % plan::kPageTokens == 0, "a snapshot never holds part of a page");

int RoundDown(int tokens) { return tokens / plan::kStateAlign * plan::kStateAlign; }

// Enough for every turn of a chat of usual length; a limit, so that one long request does not sweep the cache.
int MaxSnapshots(int tokens) {
  return std::max(4, 2 * static_cast<int>(std::bit_width(static_cast<unsigned>(tokens))));
}

}  // namespace

PrefixCache::PrefixCache(Pools& pools, const PrefixCacheOptions& options)
    : pools_(pools), options_(options), state_bytes_(pools.executor.slot_copy_bytes()) {}

PrefixCache::~PrefixCache() { Clear(); }

void PrefixCache::Clear() {
  while (oldest_ >= 0) Remove(oldest_);
}

// --- Lookup ----------------------------------------------------------------------------------------------------------

bool PrefixCache::Usable(const Node& node) const {
  return node.has_state || (state_bytes_ == 0 && node.depth % kAlignPages == 0);
}

int32_t PrefixCache::Root(const std::string& salt) const {
  auto found = roots_.find(salt);
  return found == roots_.end() ? -1 : found->second;
}

std::pair<uint64_t, uint64_t> PrefixCache::Hash(const Node& parent, std::span<const int32_t> tokens) const {
  struct {
    uint64_t low, high;
    int32_t tokens[plan::kPageTokens];
  } input;
  static_assert(sizeof input == 16 + 4 * plan::kPageTokens, "no byte is left undefined");
  input.low = parent.hash_low, input.high = parent.hash_high;
  std::copy(tokens.begin(), tokens.end(), input.tokens);
  const XXH128_hash_t hash = XXH3_128bits_withSeed(&input, sizeof input, options_.secret);
  return {hash.low64 & options_.hash_mask, hash.high64 & options_.hash_mask};
}

int32_t PrefixCache::FindChild(int32_t parent, std::span<const int32_t> tokens) const {
  const auto [low, high] = Hash(at(parent), tokens);
  auto [begin, end] = by_hash_.equal_range(low);
  for (auto it = begin; it != end; ++it) {
    const Node& node = at(it->second);
    if (node.parent == parent && node.hash_high == high && std::ranges::equal(node.tokens, tokens)) return it->second;
  }
  return -1;
}

PrefixCache::Hit PrefixCache::Lookup(const std::string& salt, std::span<const int32_t> tokens) const {
  Hit hit;
  int idle = 0;
  int32_t node = Root(salt);
  while (node >= 0 && hit.matched + plan::kPageTokens <= static_cast<int>(tokens.size())) {
    node = FindChild(node, tokens.subspan(static_cast<size_t>(hit.matched), plan::kPageTokens));
    if (node < 0) break;
    hit.matched += plan::kPageTokens;
    hit.last = RefTo(node);
    idle += pools_.pages.references(at(node).page) == 1;
    if (Usable(at(node)) && hit.matched < static_cast<int>(tokens.size())) {
      hit.tokens = hit.matched;
      hit.at = hit.last;
      hit.idle_pages = idle;
    }
  }
  return hit;
}

StatusOr<Sequence> PrefixCache::Restore(const Hit& hit, std::span<const int32_t> tokens, Tip* tip) {
  *tip = {};
  if (hit.tokens == 0) {
    Touch(hit.last);
    return Sequence::Begin(pools_);
  }
  assert(Alive(hit.at));
  std::vector<int32_t> pages(static_cast<size_t>(at(hit.at.node).depth));
  for (int32_t node = hit.at.node; at(node).depth > 0; node = at(node).parent)
    pages[static_cast<size_t>(at(node).depth - 1)] = at(node).page;
  Node& node = at(hit.at.node);
  QWEN_ASSIGN_OR_RETURN(Sequence sequence,
                        Sequence::Restore(pools_, tokens.first(static_cast<size_t>(hit.tokens)), pages, node.state));
  node.hit = true;
  node.last_used = ++clock_;
  Touch(hit.last);
  *tip = {hit.at, node.depth};
  return sequence;
}

// --- Snapshots -------------------------------------------------------------------------------------------------------

std::vector<int> PrefixCache::PlanSnapshots(const Hit& hit, int tokens, std::span<const int> turn_ends) const {
  std::vector<int> positions;
  if (state_bytes_ == 0 || state_bytes_ > options_.snapshot_budget) return positions;
  // One is left for the answer's end.
  const size_t limit = static_cast<size_t>(MaxSnapshots(tokens) - 1);
  auto add = [&](int position) {
    position = RoundDown(position);
    if (position > hit.tokens && position <= tokens && positions.size() < limit &&
        std::ranges::find(positions, position) == positions.end())
      positions.push_back(position);
  };
  // The most valuable first, should there not be room for all: what continues this very text, what two prompts share,
  // the system prompt, the latest turns, then the grid from its far end.
  add(tokens);
  add(hit.matched);
  if (!turn_ends.empty()) add(turn_ends.front());
  for (size_t i = turn_ends.size(); i-- > 0;) add(turn_ends[i]);
  const int interval = std::max(options_.snapshot_interval, plan::kStateAlign);
  for (int position = tokens / interval * interval; position >= interval; position -= interval) add(position);
  for (int64_t position = 1024; position < std::min(interval, tokens); position *= 2) add(static_cast<int>(position));
  std::ranges::sort(positions);
  return positions;
}

PrefixCache::Ref PrefixCache::Save(const Sequence& sequence, const Tip& tip, Ref replaces) {
  if (!Alive(tip.node) || tip.pages * plan::kPageTokens != sequence.position() || tip.pages % kAlignPages != 0)
    return {};
  if (state_bytes_ == 0 || state_bytes_ > options_.snapshot_budget || at(tip.node.node).has_state) return {};
  std::vector<uint8_t> buffer;
  if (Alive(replaces) && at(replaces.node).has_state && !at(replaces.node).hit) {
    buffer = std::move(at(replaces.node).state);
    DropState(replaces.node);
  }
  while (snapshot_bytes() + state_bytes_ > options_.snapshot_budget) EvictWorstSnapshot(tip.node.node);
  Node& node = at(tip.node.node);
  node.state = std::move(buffer);
  sequence.SaveState(&node.state);
  node.has_state = true;
  node.hit = false;
  node.last_used = clock_;
  with_state_.push_back(tip.node.node);
  ++snapshots_;
  return tip.node;
}

int PrefixCache::SavedTokens(int32_t node) const {
  int32_t above = at(node).parent;
  while (at(above).depth > 0 && !at(above).has_state) above = at(above).parent;
  return (at(node).depth - at(above).depth) * plan::kPageTokens;
}

void PrefixCache::EvictWorstSnapshot(int32_t keep) {
  int32_t worst = -1;
  double least = 0;
  for (int32_t node : with_state_) {
    // All are of one size, so the tokens that a hit saves and how long ago there was one decide.
    const double value = SavedTokens(node) / static_cast<double>(1 + clock_ - at(node).last_used);
    if (node != keep && (worst < 0 || value < least)) worst = node, least = value;
  }
  assert(worst >= 0);
  DropState(worst);
}

void PrefixCache::DropState(int32_t node) {
  at(node).has_state = false;
  std::vector<uint8_t>().swap(at(node).state);
  std::erase(with_state_, node);
  --snapshots_;
}

// --- The tree --------------------------------------------------------------------------------------------------------

int32_t PrefixCache::NewNode() {
  if (unused_.empty()) {
    nodes_.emplace_back();
    return static_cast<int32_t>(nodes_.size() - 1);
  }
  const int32_t node = unused_.back();
  unused_.pop_back();
  return node;
}

int32_t PrefixCache::AddChild(int32_t parent, std::span<const int32_t> tokens, int32_t page) {
  const int32_t index = NewNode();
  Node& node = at(index);
  std::tie(node.hash_low, node.hash_high) = Hash(at(parent), tokens);
  node.parent = parent;
  node.depth = at(parent).depth + 1;
  node.page = page;
  std::ranges::copy(tokens, node.tokens.begin());
  node.next_sibling = at(parent).first_child;
  if (node.next_sibling >= 0) at(node.next_sibling).previous_sibling = index;
  at(parent).first_child = index;
  pools_.pages.Cache(page);
  by_hash_.emplace(node.hash_low, index);
  if (at(parent).depth == 0)
    LinkNewest(index);
  else
    LinkBehind(index, parent);
  return index;
}

void PrefixCache::Publish(const std::string& salt, const Sequence& sequence, Tip* tip) {
  const int full = sequence.position() / plan::kPageTokens;
  if (tip->pages == full) return;
  // A tip whose chain has been evicted meanwhile starts over: its pages are still the sequence's.
  if (tip->pages > 0 && !Alive(tip->node)) *tip = {};
  int32_t node = tip->node.node;
  if (tip->pages == 0) {
    node = Root(salt);
    if (node < 0) {
      node = NewNode();
      roots_.emplace(salt, node);
    }
  }
  for (int page = tip->pages; page < full; ++page) {
    std::span<const int32_t> tokens =
        sequence.tokens().subspan(static_cast<size_t>(page) * plan::kPageTokens, plan::kPageTokens);
    int32_t child = FindChild(node, tokens);
    if (child < 0) child = AddChild(node, tokens, sequence.pages()[static_cast<size_t>(page)]);
    node = child;
  }
  *tip = {RefTo(node), full};
}

void PrefixCache::Touch(Ref ref) {
  if (!Alive(ref)) return;
  for (int32_t node = ref.node; at(node).depth > 0; node = at(node).parent) {
    Unlink(node);
    LinkNewest(node);
  }
}

bool PrefixCache::EvictUntilFree(int pages) {
  if (pools_.pages.free() + pools_.pages.cached_only() < pages) return false;
  for (int32_t node = oldest_; pools_.pages.free() < pages;) {
    assert(node >= 0);
    if (pools_.pages.references(at(node).page) > 1) {
      node = at(node).newer;
      continue;
    }
    // Below it are only older ones: what of them is left is some sequence's too, and is entered anew if it lives on.
    int32_t newer = at(node).newer;
    RemoveSubtree(node);
    node = newer;
  }
  return true;
}

void PrefixCache::RemoveSubtree(int32_t top) {
  for (;;) {
    int32_t node = top;
    while (at(node).first_child >= 0) node = at(node).first_child;
    Remove(node);
    if (node == top) return;
  }
}

void PrefixCache::Remove(int32_t leaf) {
  Node& node = at(leaf);
  assert(node.first_child < 0 && node.page >= 0);
  if (node.has_state) DropState(leaf);
  pools_.pages.Uncache(node.page);
  auto [begin, end] = by_hash_.equal_range(node.hash_low);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == leaf; }));
  Unlink(leaf);
  if (node.previous_sibling >= 0)
    at(node.previous_sibling).next_sibling = node.next_sibling;
  else
    at(node.parent).first_child = node.next_sibling;
  if (node.next_sibling >= 0) at(node.next_sibling).previous_sibling = node.previous_sibling;
  const int32_t parent = node.parent;
  auto recycle = [&](int32_t index) {
    const uint32_t generation = at(index).generation + 1;
    at(index) = {};
    at(index).generation = generation;
    unused_.push_back(index);
  };
  recycle(leaf);
  if (at(parent).depth == 0 && at(parent).first_child < 0) {
    std::erase_if(roots_, [&](const auto& root) { return root.second == parent; });
    recycle(parent);
  }
}

void PrefixCache::LinkNewest(int32_t node) {
  at(node).older = newest_;
  at(node).newer = -1;
  if (newest_ >= 0) at(newest_).newer = node;
  newest_ = node;
  if (oldest_ < 0) oldest_ = node;
}

void PrefixCache::LinkBehind(int32_t node, int32_t newer) {
  at(node).newer = newer;
  at(node).older = at(newer).older;
  if (at(newer).older >= 0)
    at(at(newer).older).newer = node;
  else
    oldest_ = node;
  at(newer).older = node;
}

void PrefixCache::Unlink(int32_t node) {
  const int32_t older = at(node).older, newer = at(node).newer;
  if (older >= 0)
    at(older).newer = newer;
  else
    oldest_ = newer;
  if (newer >= 0)
    at(newer).older = older;
  else
    newest_ = older;
}

// --- Tests' view -----------------------------------------------------------------------------------------------------

void PrefixCache::CountReferences(std::vector<int>* references) const {
  for (int32_t node = oldest_; node >= 0; node = at(node).newer) ++(*references)[static_cast<size_t>(at(node).page)];
}

Status PrefixCache::Check() const {
  auto wrong = [](std::string what) { return InternalError("prefix cache: " + std::move(what)); };
  size_t listed = 0;
  int states = 0;
  std::vector<int> rank(nodes_.size(), -1);
  for (int32_t node = oldest_; node >= 0; node = at(node).newer)
    rank[static_cast<size_t>(node)] = static_cast<int>(listed++);
  if (listed != by_hash_.size()) return wrong(fmt::format("{} nodes are listed, {} hashed", listed, by_hash_.size()));
  for (int32_t index = oldest_; index >= 0; index = at(index).newer) {
    const Node& node = at(index);
    if (node.page < 0 || !pools_.pages.cached(node.page)) return wrong(fmt::format("node {} has no page", index));
    if (at(node.parent).depth + 1 != node.depth) return wrong(fmt::format("node {}: its chain is broken", index));
    if (node.depth > 1 && rank[static_cast<size_t>(node.parent)] < rank[static_cast<size_t>(index)])
      return wrong(fmt::format("node {} is newer than its parent", index));
    if (!node.has_state) continue;
    ++states;
    if (node.depth % kAlignPages != 0) return wrong(fmt::format("node {}: a snapshot off the grid", index));
    if (static_cast<int64_t>(node.state.size()) != state_bytes_)
      return wrong(fmt::format("node {}: a snapshot of {} bytes", index, node.state.size()));
  }
  if (states != snapshots_ || with_state_.size() != static_cast<size_t>(states))
    return wrong(fmt::format("{} snapshots, {} counted", states, snapshots_));
  if (snapshot_bytes() > std::max<int64_t>(options_.snapshot_budget, 0))
    return wrong(fmt::format("{} bytes of snapshots, {} allowed", snapshot_bytes(), options_.snapshot_budget));
  return {};
}

}  // namespace qwen::engine
