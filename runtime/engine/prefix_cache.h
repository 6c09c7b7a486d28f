// Which prefixes are at hand: KV pages by chains of hashes, and the recurrent states saved along them.
//
// In a hybrid model a prefix is reusable up to p only when the attention layers' pages of [0, p) are there *and* the
// delta-rule layers' state at exactly p, which exists only where somebody saved it. So the cache is a tree of pages, a
// node each, and some nodes carry a state: a snapshot. Snapshots are sparse, as one costs as much as thousands of
// tokens of KV; where to take them is PlanSnapshots' business. They lie at multiples of plan::kStateAlign only: a
// prefill that goes on from one has the same chunk borders, and the same bits, as one that never stopped. Such a
// position ends a page, so a snapshot never holds part of one.
//
// Pages belong to the tree through KvPages::Cache and are given back leaf first, the longest unused first; what hangs
// below a page goes with it, so no snapshot ever outlives its chain. Snapshots pin nothing.
//
// Keys are XXH3-128 over the parent's hash and a page's tokens, seeded with a secret, so that nobody can aim at a
// collision; a hit compares parent and tokens besides, so that none would do harm. Long-context design, section 5.
// Threads: owned by the engine's thread; not locked.
#ifndef QWEN_RUNTIME_ENGINE_PREFIX_CACHE_H_
#define QWEN_RUNTIME_ENGINE_PREFIX_CACHE_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/sequence.h"
#include "runtime/plan/plan.h"

namespace qwen::engine {

struct PrefixCacheOptions {
  int64_t snapshot_budget = 0;        // bytes of host memory; 0: no snapshots, so no hits where layers keep a state
  int snapshot_interval = 8192;       // tokens between the snapshots of a long prompt
  uint64_t secret = 0;                // of the hashes
  uint64_t hash_mask = ~uint64_t{0};  // tests: 0 makes all hashes collide
};

class PrefixCache {
 public:
  /// A node that may be gone by the time somebody comes back to it.
  struct Ref {
    int32_t node = -1;
    uint32_t generation = 0;
  };
  struct Hit {
    int tokens = 0;      // usable: there is a snapshot, a multiple of plan::kStateAlign
    int matched = 0;     // of which there are pages
    int idle_pages = 0;  // of the usable ones, those that only the cache holds
    Ref at, last;        // nodes of `tokens` and `matched`
  };
  /// How much of a sequence is in the tree.
  struct Tip {
    Ref node;
    int pages = 0;
  };

  PrefixCache(Pools& pools, const PrefixCacheOptions& options);
  ~PrefixCache();

  /// The longest prefix of `tokens` that can be had, short of its last token: somebody wants that row's logits. Changes
  /// nothing.
  Hit Lookup(const std::string& salt, std::span<const int32_t> tokens) const;
  /// A sequence at hit.tokens, and its tip. kResourceExhausted without a slot. The hit is of this moment's tree.
  StatusOr<Sequence> Restore(const Hit& hit, std::span<const int32_t> tokens, Tip* tip);
  /// Where the prefill of a prompt of `tokens` tokens should stop and save, ascending, past the hit: its end, where it
  /// branches off another one, its turns' ends, and a grid that gets wider.
  std::vector<int> PlanSnapshots(const Hit& hit, int tokens, std::span<const int> turn_ends) const;

  /// Enters the sequence's full pages behind `tip`.
  void Publish(const std::string& salt, const Sequence& sequence, Tip* tip);
  /// Saves the state at the sequence's position, a multiple of plan::kStateAlign and published. `replaces`: drops that
  /// one when nobody has used it. The node, or none when the budget has no room or the node has a snapshot.
  Ref Save(const Sequence& sequence, const Tip& tip, Ref replaces);
  /// The chain up to here was of use a moment ago.
  void Touch(Ref ref);

  /// Gives back pages that only the cache holds until `pages` are free in all. False: there are not as many.
  bool EvictUntilFree(int pages);
  void Clear();

  int snapshots() const { return snapshots_; }
  int64_t snapshot_bytes() const { return snapshots_ * state_bytes_; }
  int64_t snapshot_budget() const { return options_.snapshot_budget; }
  /// Adds 1 for every page the tree holds.
  void CountReferences(std::vector<int>* references) const;
  /// For tests: kInternal with what is wrong with the tree.
  Status Check() const;

 private:
  struct Node {
    uint64_t hash_low = 0, hash_high = 0;
    int32_t parent = -1, first_child = -1, next_sibling = -1, previous_sibling = -1;
    int32_t older = -1, newer = -1;  // by last use; an ancestor is always newer
    int32_t page = -1;               // -1: a root, or no node
    int32_t depth = 0;               // pages up to and with this one
    uint32_t generation = 0;
    bool has_state = false;
    bool hit = false;        // since the state was saved
    uint64_t last_used = 0;  // of the state, in lookups that hit
    std::array<int32_t, plan::kPageTokens> tokens{};
    std::vector<uint8_t> state;
  };

  Node& at(int32_t node) { return nodes_[static_cast<size_t>(node)]; }
  const Node& at(int32_t node) const { return nodes_[static_cast<size_t>(node)]; }
  Ref RefTo(int32_t node) const { return {node, at(node).generation}; }
  bool Alive(Ref ref) const { return ref.node >= 0 && at(ref.node).generation == ref.generation; }
  bool Usable(const Node& node) const;
  int32_t FindChild(int32_t parent, std::span<const int32_t> tokens) const;
  int32_t AddChild(int32_t parent, std::span<const int32_t> tokens, int32_t page);
  int32_t Root(const std::string& salt) const;
  int32_t NewNode();
  std::pair<uint64_t, uint64_t> Hash(const Node& parent, std::span<const int32_t> tokens) const;
  void RemoveSubtree(int32_t node);
  void Remove(int32_t leaf);
  void DropState(int32_t node);
  void EvictWorstSnapshot(int32_t keep);
  int SavedTokens(int32_t node) const;
  void LinkNewest(int32_t node);
  void LinkBehind(int32_t node, int32_t newer);
  void Unlink(int32_t node);

  Pools& pools_;
  PrefixCacheOptions options_;
  int64_t state_bytes_;  // of a snapshot; 0: a model without recurrent layers, every aligned page is as good as one
  std::vector<Node> nodes_;
  std::vector<int32_t> unused_;
  std::unordered_map<std::string, int32_t> roots_;  // by salt
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
  std::vector<int32_t> with_state_;
  int32_t newest_ = -1, oldest_ = -1;
  int snapshots_ = 0;
  uint64_t clock_ = 0;  // lookups that hit
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_PREFIX_CACHE_H_
