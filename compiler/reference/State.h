//===- State.h - what lives between the oracle's steps ---------------------===//
//
// The plainest state that can be right: per rank and slot, the keys and values of every position and the delta-rule
// state after the last one. No pages, no ring, no fold: those are the runtime's ways to keep the same thing, and tests
// compare them with this. Rolling back is restoring a snapshot.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_REFERENCE_STATE_H
#define QWEN_COMPILER_REFERENCE_STATE_H

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace qwen::reference {

template <class Real> struct KvCache {
  int64_t tokens = 0;             // positions that hold something
  std::vector<Real> keys, values; // [position][kv_heads * head_dim]

  /// Forgets the positions from `tokens` on.
  void truncate(int64_t to) {
    if (to >= tokens)
      return;
    keys.resize(keys.size() / tokens * to);
    values.resize(values.size() / tokens * to);
    tokens = to;
  }
};

template <class Real> struct RecurrentState {
  int64_t stateTokens = 0, convTokens = 0; // tokens that each part has seen
  std::vector<Real> s;                     // [value_heads][key_dim][value_dim]; empty means zero
  std::vector<Real> conv;                  // [width - 1][channels], oldest first; empty means zero
};

template <class Real> class State {
public:
  using Part = std::variant<KvCache<Real>, RecurrentState<Real>>;
  using Snapshot = std::map<std::pair<int, std::string>, Part>; // (rank, name of the model.state)

  /// The part, made empty when it was not there.
  KvCache<Real> &kv(int rank, int slot, const std::string &name) {
    return std::get<KvCache<Real>>(slots[slot].try_emplace({rank, name}, KvCache<Real>()).first->second);
  }
  RecurrentState<Real> &recurrent(int rank, int slot, const std::string &name) {
    return std::get<RecurrentState<Real>>(slots[slot].try_emplace({rank, name}, RecurrentState<Real>()).first->second);
  }

  /// A copy of everything that a slot holds; `restore` puts it into that or any other slot.
  Snapshot snapshot(int slot) const {
    auto it = slots.find(slot);
    return it == slots.end() ? Snapshot() : it->second;
  }
  void restore(int slot, Snapshot snapshot) { slots[slot] = std::move(snapshot); }
  void release(int slot) { slots.erase(slot); }

  /// Cuts the slot's KV caches whose names start with `prefix` to `tokens`. A delta-rule state cannot be cut: restore it.
  void truncateKv(int slot, int64_t tokens, const std::string &prefix = "") {
    for (auto &[key, part] : slots[slot])
      if (auto *cache = std::get_if<KvCache<Real>>(&part); cache && key.second.rfind(prefix, 0) == 0)
        cache->truncate(tokens);
  }

private:
  std::map<int, Snapshot> slots;
};

} // namespace qwen::reference

#endif
