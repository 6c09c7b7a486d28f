// Byte-pair encoding of one piece (Sennrich et al. 2016): the neighbours of lowest rank merge first, the leftmost of
// equals, until none do.
#ifndef QWEN_RUNTIME_TEXT_BYTE_PAIR_H_
#define QWEN_RUNTIME_TEXT_BYTE_PAIR_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/text/token_tables.h"

namespace qwen::text {

/// Merges pieces; one per thread, for the memory it keeps between pieces.
class BytePairEncoder {
 public:
  /// `byte_tokens`: the token of each byte.
  BytePairEncoder(std::span<const uint32_t, 256> byte_tokens, const MergeTable& merges)
      : byte_tokens_(byte_tokens), merges_(merges) {}

  /// Appends the tokens of `piece`, less than 4 GiB. O(n log n).
  void Encode(std::string_view piece, std::vector<int32_t>* ids);

 private:
  /// A token of the piece so far, in a list linked through those that are left.
  struct Symbol {
    uint32_t id;
    uint32_t prev, next;    // kNone at the ends
    uint32_t rank, result;  // of the merge with the next one; rank is kNoRank when they do not merge
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  /// Looks up the merge of symbol `at` with the next one and appends it to the queue.
  void Consider(uint32_t at);
  /// The same, and the queue stays a heap.
  void Reconsider(uint32_t at);

  std::span<const uint32_t, 256> byte_tokens_;
  MergeTable merges_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> queue_;  // a heap of rank << 32 | symbol, smallest first; entries may be out of date
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_BYTE_PAIR_H_
