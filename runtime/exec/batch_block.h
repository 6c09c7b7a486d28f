// The block of int32 that carries one step's batch to the kernels (contracts, section 2).
//
// One allocation of fixed size, made at start from the plan's capacity; filled anew every step. Its offsets depend on
// the capacity alone, so a device gets it with one copy.
#ifndef QWEN_RUNTIME_EXEC_BATCH_BLOCK_H_
#define QWEN_RUNTIME_EXEC_BATCH_BLOCK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/kernels/kernel.h"
#include "runtime/plan/plan.h"

namespace qwen::exec {

/// One sequence's rows of a step, as the engine hands them over.
struct SequenceRows {
  std::span<const int32_t> tokens;  // 1 to max_rows rows in the short part, any number in the long part
  int32_t position = 0;             // tokens committed so far
  int32_t state_slot = -1;          // -1: padding
  int32_t table_row = -1;
  int32_t ring_fill = 0;
  bool fold = false;
  std::span<const int32_t> logit_rows;             // of these rows, ascending, 0 = the sequence's first
  std::span<const kernels::SampleParams> sample;   // one a logit row
};

class BatchBlock {
 public:
  BatchBlock(const plan::Capacity& capacity, int max_pages);

  /// Forgets the batch; the page table stays.
  void Clear();
  /// Short sequences first, then long ones. kInvalidArgument with both numbers when the block's capacity is exceeded.
  Status AddShort(const SequenceRows& rows);
  Status AddLong(const SequenceRows& rows);
  /// Entry `index` of the page table's row. Stays until changed.
  void SetPage(int table_row, int index, int32_t page);

  int num_tokens() const { return num_tokens_; }
  int num_logit_rows() const { return num_logit_rows_; }
  int num_seqs() const { return num_seqs_; }
  /// Valid until the next change.
  kernels::BatchView View() const;
  int64_t bytes() const { return static_cast<int64_t>(block_.size() * sizeof(int32_t)); }

 private:
  Status Add(const SequenceRows& rows);

  plan::Capacity capacity_;
  int max_pages_;
  int num_seqs_ = 0, num_short_ = 0, num_tokens_ = 0, num_logit_rows_ = 0;
  struct Offsets {
    size_t cu_tokens, token_ids, position, state_slot, table_row, ring_fill, fold, logit_rows, sample, page_table, end;
  } at_{};
  std::vector<int32_t> block_;
};

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_BATCH_BLOCK_H_
