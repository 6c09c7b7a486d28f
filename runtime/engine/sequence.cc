#include "runtime/engine/sequence.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "fmt/format.h"

namespace qwen::engine {

Pools::Pools(exec::Executor& executor, exec::BatchBlock& batch, const plan::Plan& plan, int num_pages, int num_slots)
    : executor(executor),
      batch(batch),
      pages(num_pages),
      slots("state slots", num_slots),
      table_rows("rows of the page table", plan.capacity.max_num_seqs),
      max_rows(plan.states[0].max_rows),
      fold_rows(std::min(plan.states[0].fold_rows, executor.fold_after())),
      max_model_len(plan.model.max_model_len) {}

// --- Snapshot --------------------------------------------------------------------------------------------------------

Snapshot::Snapshot(Snapshot&& other) noexcept
    : pools_(other.pools_),
      tokens_(std::move(other.tokens_)),
      full_pages_(std::exchange(other.full_pages_, {})),
      state_(std::move(other.state_)),
      partial_page_(std::move(other.partial_page_)) {}

Snapshot& Snapshot::operator=(Snapshot&& other) noexcept {
  std::swap(pools_, other.pools_);
  std::swap(tokens_, other.tokens_);
  std::swap(full_pages_, other.full_pages_);
  std::swap(state_, other.state_);
  std::swap(partial_page_, other.partial_page_);
  return *this;
}

Snapshot::~Snapshot() {
  for (int32_t page : full_pages_) pools_->pages.Release(page);
}

// --- Sequence --------------------------------------------------------------------------------------------------------

StatusOr<Sequence> Sequence::Begin(Pools& pools) {
  Sequence sequence(pools);
  QWEN_ASSIGN_OR_RETURN(sequence.slot_, pools.slots.Take());
  QWEN_ASSIGN_OR_RETURN(sequence.table_row_, pools.table_rows.Take());
  // Room for as long as it can get, now and not step by step.
  const int64_t longest = std::min(pools.max_model_len, int64_t{plan::kPageTokens} * pools.pages.count());
  sequence.tokens_.reserve(static_cast<size_t>(longest));
  sequence.pages_.reserve(static_cast<size_t>(PagesFor(longest)));
  return sequence;
}

StatusOr<Sequence> Sequence::Restore(Pools& pools, const Snapshot& snapshot) {
  return Restore(pools, snapshot.tokens_, snapshot.full_pages_, snapshot.state_, snapshot.partial_page_);
}

StatusOr<Sequence> Sequence::Restore(Pools& pools, std::span<const int32_t> tokens, std::span<const int32_t> full_pages,
                                     std::span<const uint8_t> state, std::span<const uint8_t> partial_page) {
  QWEN_ASSIGN_OR_RETURN(Sequence sequence, Begin(pools));
  std::vector<int32_t> own;
  if (!partial_page.empty()) {
    QWEN_ASSIGN_OR_RETURN(own, pools.pages.Take(1));
    pools.executor.LoadPage(own[0], partial_page);
  }
  for (int32_t page : full_pages) pools.pages.Share(page);
  sequence.pages_.assign(full_pages.begin(), full_pages.end());
  sequence.pages_.insert(sequence.pages_.end(), own.begin(), own.end());
  for (size_t i = 0; i < sequence.pages_.size(); ++i)
    pools.batch.SetPage(sequence.table_row_, static_cast<int>(i), sequence.pages_[i]);
  sequence.tokens_.assign(tokens.begin(), tokens.end());
  sequence.position_ = static_cast<int>(tokens.size());
  if (sequence.position_ > 0) pools.executor.LoadSlot(sequence.slot_, sequence.position_, state);
  return sequence;
}

Sequence::Sequence(Sequence&& other) noexcept
    : pools_(other.pools_),
      slot_(std::exchange(other.slot_, -1)),
      table_row_(std::exchange(other.table_row_, -1)),
      tokens_(std::move(other.tokens_)),
      pages_(std::exchange(other.pages_, {})),
      position_(other.position_),
      ring_fill_(other.ring_fill_),
      part_(other.part_),
      fold_(other.fold_),
      poisoned_(other.poisoned_) {}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  Release();
  pools_ = other.pools_;
  slot_ = std::exchange(other.slot_, -1);
  table_row_ = std::exchange(other.table_row_, -1);
  tokens_ = std::move(other.tokens_);
  pages_ = std::exchange(other.pages_, {});
  position_ = other.position_;
  ring_fill_ = other.ring_fill_;
  part_ = other.part_;
  fold_ = other.fold_;
  poisoned_ = other.poisoned_;
  return *this;
}

Sequence::~Sequence() { Release(); }

Status Sequence::Append(std::span<const int32_t> tokens, Part part) {
  int rows = static_cast<int>(tokens.size());
  assert(slot_ >= 0 && !pending() && rows > 0);
  assert(part == Part::kLong || rows <= pools_->max_rows);
  if (poisoned_) return InternalError("sequence: append after a failed step");
  int64_t end = int64_t{position_} + rows;
  if (end > pools_->max_model_len)
    return InvalidArgumentError(
        fmt::format("sequence: {} tokens are more than the model's {}", end, pools_->max_model_len));
  size_t have = pages_.size();
  QWEN_RETURN_IF_ERROR(pools_->pages.Take(PagesFor(end) - static_cast<int>(have), &pages_));
  for (size_t i = have; i < pages_.size(); ++i) pools_->batch.SetPage(table_row_, static_cast<int>(i), pages_[i]);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  part_ = part;
  // The ring has room for fold_rows committed records and max_rows new ones. The long part keeps no records.
  fold_ = part == Part::kLong || ring_fill_ + rows > pools_->fold_rows;
  return {};
}

void Sequence::Retract() {
  assert(pending());
  tokens_.resize(static_cast<size_t>(position_));
  fold_ = false;
  DropPagesPast(position_);
}

void Sequence::Commit(int rows) {
  assert(pending() && !poisoned_ && rows >= 0 && rows <= pending_rows());
  assert(part_ == Part::kShort || rows == pending_rows());
  if (fold_) ring_fill_ = 0;
  if (part_ == Part::kShort) ring_fill_ += rows;
  fold_ = false;
  position_ += rows;
  tokens_.resize(static_cast<size_t>(position_));
  DropPagesPast(position_);
}

void Sequence::DropPagesPast(int tokens) {
  for (size_t keep = static_cast<size_t>(PagesFor(tokens)); pages_.size() > keep; pages_.pop_back())
    pools_->pages.Release(pages_.back());
}

Snapshot Sequence::TakeSnapshot() const {
  assert(slot_ >= 0 && !pending() && !poisoned_);
  Snapshot snapshot(*pools_);
  snapshot.tokens_ = tokens_;
  size_t full = static_cast<size_t>(position_ / plan::kPageTokens);
  snapshot.full_pages_.assign(pages_.begin(), pages_.begin() + static_cast<std::ptrdiff_t>(full));
  for (int32_t page : snapshot.full_pages_) pools_->pages.Share(page);
  if (position_ % plan::kPageTokens != 0) {
    snapshot.partial_page_.resize(static_cast<size_t>(pools_->executor.page_bytes()));
    pools_->executor.SavePage(pages_[full], snapshot.partial_page_);
  }
  SaveState(&snapshot.state_);
  return snapshot;
}

void Sequence::SaveState(std::vector<uint8_t>* state) const {
  assert(slot_ >= 0 && !pending() && !poisoned_);
  // At P = 0 there is no state: what the slot holds is its last owner's.
  state->resize(position_ > 0 ? static_cast<size_t>(pools_->executor.slot_copy_bytes()) : 0);
  if (position_ > 0) pools_->executor.SaveSlot(slot_, position_, ring_fill_, *state);
}

StatusOr<Sequence> Sequence::Fork() const { return Restore(*pools_, TakeSnapshot()); }

void Sequence::Release() {
  if (slot_ >= 0) pools_->slots.Release(std::exchange(slot_, -1));
  if (table_row_ >= 0) pools_->table_rows.Release(std::exchange(table_row_, -1));
  for (int32_t page : pages_) pools_->pages.Release(page);
  pages_.clear();
}

exec::SequenceRows Sequence::Rows() const {
  assert(pending());
  exec::SequenceRows rows;
  rows.tokens = std::span<const int32_t>(tokens_).subspan(static_cast<size_t>(position_));
  rows.position = position_;
  rows.state_slot = slot_;
  rows.table_row = table_row_;
  rows.ring_fill = ring_fill_;
  rows.fold = fold_;
  return rows;
}

}  // namespace qwen::engine
