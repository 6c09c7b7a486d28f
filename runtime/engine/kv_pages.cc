#include "runtime/engine/kv_pages.h"

#include <cassert>

#include "fmt/format.h"
#include "runtime/plan/plan.h"

namespace qwen::engine {

KvPages::KvPages(int count) : references_(static_cast<size_t>(count)), cached_(static_cast<size_t>(count)) {
  for (int32_t page = count - 1; page >= 0; --page) free_.push_back(page);
}

StatusOr<std::vector<int32_t>> KvPages::Take(int count) {
  std::vector<int32_t> pages;
  QWEN_RETURN_IF_ERROR(Take(count, &pages));
  return pages;
}

Status KvPages::Take(int count, std::vector<int32_t>* pages) {
  if (count > free())
    return ResourceExhaustedError(
        fmt::format("kv cache: {} pages are wanted, {} of {} are free", count, free(), this->count()));
  for (int i = 0; i < count; ++i) {
    pages->push_back(free_.back());
    free_.pop_back();
    references_[static_cast<size_t>(pages->back())] = 1;
  }
  return {};
}

void KvPages::Share(int32_t page) {
  assert(references(page) > 0);
  if (++references_[static_cast<size_t>(page)] == 2 && cached(page)) --cached_only_;
}

void KvPages::Release(int32_t page) {
  assert(references(page) > 0);
  const int left = --references_[static_cast<size_t>(page)];
  if (left == 0) free_.push_back(page);
  if (left == 1 && cached(page)) ++cached_only_;
}

void KvPages::Cache(int32_t page) {
  assert(!cached(page));
  Share(page);
  cached_[static_cast<size_t>(page)] = true;
}

void KvPages::Uncache(int32_t page) {
  assert(cached(page));
  if (references(page) == 1) --cached_only_;
  cached_[static_cast<size_t>(page)] = false;
  Release(page);
}

int PagesFor(int64_t tokens) { return static_cast<int>((tokens + plan::kPageTokens - 1) / plan::kPageTokens); }

}  // namespace qwen::engine
