#include "runtime/exec/batch_block.h"

#include <fmt/format.h>

#include <cassert>
#include <cstring>

namespace qwen::exec {
namespace {

constexpr size_t kSampleInts = sizeof(kernels::SampleParams) / sizeof(int32_t);
static_assert(sizeof(kernels::SampleParams) == 48);

// Fields start at multiples of 64 bytes: more than the 8 that seeds need, and no two share a cache line.
size_t Aligned(size_t ints) { return (ints + 15) / 16 * 16; }

}  // namespace

BatchBlock::BatchBlock(const plan::Capacity& capacity, int max_pages) : capacity_(capacity), max_pages_(max_pages) {
  if (capacity_.max_logit_rows == 0) capacity_.max_logit_rows = capacity_.max_num_batched_tokens;
  size_t seqs = capacity_.max_num_seqs, tokens = capacity_.max_num_batched_tokens, logits = capacity_.max_logit_rows;
  size_t end = 4;  // the four counts
  auto field = [&end](size_t ints) {
    size_t at = Aligned(end);
    end = at + ints;
    return at;
  };
  at_.cu_tokens = field(seqs + 1);
  at_.token_ids = field(tokens);
  at_.position = field(seqs);
  at_.state_slot = field(seqs);
  at_.table_row = field(seqs);
  at_.ring_fill = field(seqs);
  at_.fold = field(seqs);
  at_.logit_rows = field(logits);
  at_.sample = field(logits * kSampleInts);
  at_.page_table = field(seqs * max_pages_);
  at_.end = Aligned(end);
  block_.assign(at_.end, 0);
}

void BatchBlock::Clear() {
  num_seqs_ = num_short_ = num_tokens_ = num_logit_rows_ = 0;
  std::memset(block_.data(), 0, 4 * sizeof(int32_t));
  block_[at_.cu_tokens] = 0;
}

Status BatchBlock::AddShort(const SequenceRows& rows) {
  if (num_seqs_ > num_short_)
    return InvalidArgumentError(
        fmt::format("batch: a short sequence after {} long ones: short ones go first", num_seqs_ - num_short_));
  if (rows.tokens.size() > static_cast<size_t>(capacity_.max_rows))
    return InvalidArgumentError(
        fmt::format("batch: a short sequence of {} rows, the plan takes {}", rows.tokens.size(), capacity_.max_rows));
  QWEN_RETURN_IF_ERROR(Add(rows));
  block_[1] = ++num_short_;
  return {};
}

Status BatchBlock::AddLong(const SequenceRows& rows) { return Add(rows); }

// Checks everything before it writes anything: a refused sequence leaves the batch as it was.
Status BatchBlock::Add(const SequenceRows& rows) {
  const int64_t tokens = num_tokens_ + static_cast<int64_t>(rows.tokens.size());
  const int64_t logits = num_logit_rows_ + static_cast<int64_t>(rows.logit_rows.size());
  if (rows.tokens.empty()) return InvalidArgumentError("batch: a sequence of 0 rows, want at least 1");
  if (num_seqs_ == capacity_.max_num_seqs)
    return InvalidArgumentError(
        fmt::format("batch: {} sequences, the plan takes {}", num_seqs_ + 1, capacity_.max_num_seqs),
        "compile with a larger --max-num-seqs");
  if (tokens > capacity_.max_num_batched_tokens)
    return InvalidArgumentError(
        fmt::format("batch: {} rows, the plan takes {}", tokens, capacity_.max_num_batched_tokens),
        "compile with a larger --max-num-batched-tokens");
  if (logits > capacity_.max_logit_rows)
    return InvalidArgumentError(
        fmt::format("batch: {} logit rows, the plan takes {}", logits, capacity_.max_logit_rows));
  if (rows.sample.size() != rows.logit_rows.size())
    return InvalidArgumentError(
        fmt::format("batch: {} logit rows with {} sampling settings", rows.logit_rows.size(), rows.sample.size()));
  if (rows.state_slot < -1 || rows.table_row < -1 || rows.table_row >= capacity_.max_num_seqs || rows.position < 0 ||
      rows.ring_fill < 0 || rows.ring_fill > rows.position)
    return InvalidArgumentError(fmt::format("batch: slot {}, table row {} of {}, position {} with {} ring rows",
                                            rows.state_slot, rows.table_row, capacity_.max_num_seqs, rows.position,
                                            rows.ring_fill));
  int32_t last = -1;
  for (int32_t row : rows.logit_rows) {
    if (row <= last || static_cast<size_t>(row) >= rows.tokens.size())
      return InvalidArgumentError(
          fmt::format("batch: logit row {} after {} in a sequence of {} rows", row, last, rows.tokens.size()));
    last = row;
  }

  std::memcpy(&block_[at_.token_ids + num_tokens_], rows.tokens.data(), rows.tokens.size_bytes());
  for (size_t i = 0; i < rows.logit_rows.size(); ++i)
    block_[at_.logit_rows + num_logit_rows_ + i] = num_tokens_ + rows.logit_rows[i];
  if (!rows.sample.empty())
    std::memcpy(&block_[at_.sample + num_logit_rows_ * kSampleInts], rows.sample.data(), rows.sample.size_bytes());
  block_[at_.position + num_seqs_] = rows.position;
  block_[at_.state_slot + num_seqs_] = rows.state_slot;
  block_[at_.table_row + num_seqs_] = rows.table_row;
  block_[at_.ring_fill + num_seqs_] = rows.ring_fill;
  block_[at_.fold + num_seqs_] = rows.fold;
  block_[at_.cu_tokens + num_seqs_ + 1] = static_cast<int32_t>(tokens);
  block_[0] = ++num_seqs_;
  block_[2] = num_tokens_ = static_cast<int>(tokens);
  block_[3] = num_logit_rows_ = static_cast<int>(logits);
  return {};
}

void BatchBlock::SetPage(int table_row, int index, int32_t page) {
  assert(0 <= table_row && table_row < capacity_.max_num_seqs && 0 <= index && index < max_pages_);
  block_[at_.page_table + static_cast<size_t>(table_row) * max_pages_ + index] = page;
}

kernels::BatchView BatchBlock::View() const {
  const int32_t* block = block_.data();
  return {
      .num_seqs = num_seqs_,
      .num_short = num_short_,
      .num_tokens = num_tokens_,
      .num_logit_rows = num_logit_rows_,
      .cu_tokens = block + at_.cu_tokens,
      .token_ids = block + at_.token_ids,
      .position = block + at_.position,
      .state_slot = block + at_.state_slot,
      .table_row = block + at_.table_row,
      .ring_fill = block + at_.ring_fill,
      .fold = block + at_.fold,
      .logit_rows = block + at_.logit_rows,
      .sample = reinterpret_cast<const kernels::SampleParams*>(block + at_.sample),
      .page_table = block + at_.page_table,
      .max_pages = max_pages_,
  };
}

}  // namespace qwen::exec
