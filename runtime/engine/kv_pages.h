// Hands out fixed-size pages of KV cache.
//
// A page is plan::kPageTokens tokens of all attention layers of every rank; ranks use the same numbers. Delta-rule
// layers have no pages: their state has one size whatever the length (recurrent_state.h). Full pages are shared by
// counting references: nothing is ever written below a sequence's position. Paging after Kwon et al. 2023, section 4.
// Threads: owned by the engine's thread; not locked.
#ifndef QWEN_RUNTIME_ENGINE_KV_PAGES_H_
#define QWEN_RUNTIME_ENGINE_KV_PAGES_H_

#include <cstdint>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::engine {

class KvPages {
 public:
  explicit KvPages(int count);

  /// Takes `count` pages, one reference each, or none. kResourceExhausted when fewer are free.
  StatusOr<std::vector<int32_t>> Take(int count);
  /// The same, behind those that `pages` has.
  Status Take(int count, std::vector<int32_t>* pages);
  /// One more reference on a page that has at least one.
  void Share(int32_t page);
  /// One reference less; the last one frees the page.
  void Release(int32_t page);

  /// The prefix cache's reference on a page that has at least one; at most one of this kind a page.
  void Cache(int32_t page);
  void Uncache(int32_t page);

  int count() const { return static_cast<int>(references_.size()); }
  int free() const { return static_cast<int>(free_.size()); }
  int references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  bool cached(int32_t page) const { return cached_[static_cast<size_t>(page)]; }
  /// Pages that nobody but the cache refers to: it can give them back.
  int cached_only() const { return cached_only_; }

 private:
  std::vector<int> references_;
  std::vector<bool> cached_;
  int cached_only_ = 0;
  std::vector<int32_t> free_;  // a stack: the page given back last is the warmest
};

/// Pages that hold `tokens` tokens.
int PagesFor(int64_t tokens);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_KV_PAGES_H_
