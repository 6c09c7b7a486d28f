#include "runtime/text/byte_pair.h"

#include <algorithm>
#include <functional>

namespace qwen::text {

void BytePairEncoder::Consider(uint32_t at) {
  Symbol& symbol = symbols_[at];
  symbol.rank = kNoRank;
  if (symbol.next == kNone) return;
  const Merge* merge = merges_.Find(symbol.id, symbols_[symbol.next].id);
  if (!merge) return;
  symbol.rank = merge->rank;
  symbol.result = merge->result;
  queue_.push_back(uint64_t{merge->rank} << 32 | at);
}

void BytePairEncoder::Reconsider(uint32_t at) {
  const size_t queued = queue_.size();
  Consider(at);
  if (queue_.size() != queued) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
}

void BytePairEncoder::Encode(std::string_view piece, std::vector<int32_t>* ids) {
  const auto count = static_cast<uint32_t>(piece.size());
  if (count == 0) return;
  symbols_.resize(count);
  for (uint32_t i = 0; i < count; ++i)
    symbols_[i] = {byte_tokens_[static_cast<uint8_t>(piece[i])], i - 1, i + 1, kNoRank, 0};  // 0 - 1 is kNone
  symbols_[count - 1].next = kNone;
  queue_.clear();
  for (uint32_t i = 0; i + 1 < count; ++i) Consider(i);
  std::make_heap(queue_.begin(), queue_.end(), std::greater<>());

  while (!queue_.empty()) {
    const uint64_t top = queue_.front();
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    queue_.pop_back();
    const auto at = static_cast<uint32_t>(top);
    Symbol& symbol = symbols_[at];
    // Out of date: one of the two has merged with another since. A merge's rank is its own, so equal means the same.
    if (symbol.rank != top >> 32) continue;
    Symbol& gone = symbols_[symbol.next];
    gone.rank = kNoRank;
    symbol.id = symbol.result;
    symbol.next = gone.next;
    if (symbol.next != kNone) symbols_[symbol.next].prev = at;
    Reconsider(at);
    if (symbol.prev != kNone) Reconsider(symbol.prev);
  }
  for (uint32_t i = 0; i != kNone; i = symbols_[i].next) ids->push_back(static_cast<int32_t>(symbols_[i].id));
}

}  // namespace qwen::text
