// The ragged batch of one step as the oracle takes it: the fields of contracts, section 2, that have a meaning for the
// math. Pages, rings and folds are how the runtime keeps state; here a slot simply owns its sequence's state.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_BATCH_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_BATCH_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace qwen::reference {

/// How the token of one logit row is drawn. The default is greedy.
struct SampleParams {
  uint64_t seed = 0;
  int32_t choice = 0;
  bool greedy = true;
  double temperature = 1;
  int32_t top_k = 0;  // 0: all
  double top_p = 1;
  double min_p = 0;
  std::vector<uint8_t> allowed;                 // one flag an id; empty: all
  std::vector<std::pair<int32_t, float>> bias;  // (id, what is added)
};

struct Batch {
  int32_t num_short = 0;               // sequences [0, num_short) are the short part
  std::vector<int32_t> cu_tokens{0};   // first row of each sequence, then the number of rows
  std::vector<int32_t> token_ids;
  std::vector<int32_t> position;       // per sequence: absolute position of its first row
  std::vector<int32_t> state_slot;     // per sequence; -1: padding, touches nothing
  std::vector<int32_t> logit_rows;
  std::vector<SampleParams> sample;    // one a logit row, or none: all greedy

  int64_t num_seqs() const { return int64_t(cu_tokens.size()) - 1; }
  int64_t num_tokens() const { return cu_tokens.back(); }
  int64_t rows(int64_t sequence) const { return cu_tokens[sequence + 1] - cu_tokens[sequence]; }

  /// Adds a sequence of `ids` at `first`, wanting the logits of every row, of the last one, or of none.
  enum class Logits { kAll, kLast, kNone };
  void Append(const std::vector<int32_t>& ids, int32_t first, int32_t slot, Logits logits = Logits::kAll) {
    int32_t begin = cu_tokens.back(), end = begin + int32_t(ids.size());
    token_ids.insert(token_ids.end(), ids.begin(), ids.end());
    cu_tokens.push_back(end);
    position.push_back(first);
    state_slot.push_back(slot);
    if (logits == Logits::kNone) return;
    for (int32_t row = logits == Logits::kAll ? begin : end - 1; row < end; ++row) logit_rows.push_back(row);
  }

  /// The sequence that owns a row.
  int64_t SequenceOf(int64_t row) const {
    int64_t sequence = 0;
    while (cu_tokens[sequence + 1] <= row) ++sequence;
    return sequence;
  }
  int64_t PositionOf(int64_t row) const {
    int64_t sequence = SequenceOf(row);
    return position[sequence] + row - cu_tokens[sequence];
  }
};

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_BATCH_H_
