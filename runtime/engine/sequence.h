// One sequence's cached state, and the verbs that move it (contracts, section 5).
//
//     begin -> { append(tokens) -> the step runs -> commit(j) } ... -> release
//
// A step only ever adds behind the committed position P: K/V rows to pages, records to the ring, rows to the conv ring.
// commit(j) says how many of the new rows count; the others are dead and get overwritten. So rolling back moves an
// index and copies nothing, and a snapshot can be taken at any P. What a sequence knows of the recurrent state is three
// numbers: P; R, the committed rows that the base state in the slot does not hold yet; and whether the pending step
// folds them into it.
#ifndef QWEN_RUNTIME_ENGINE_SEQUENCE_H_
#define QWEN_RUNTIME_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/kv_pages.h"
#include "runtime/engine/recurrent_state.h"
#include "runtime/exec/batch_block.h"
#include "runtime/exec/executor.h"

namespace qwen::engine {

/// What all sequences of one executor take from. Outlives them and their snapshots.
struct Pools {
  Pools(exec::Executor& executor, exec::BatchBlock& batch, const plan::Plan& plan, int num_pages, int num_slots);

  exec::Executor& executor;
  exec::BatchBlock& batch;  // holds the page table
  KvPages pages;
  Slots slots, table_rows;
  int max_rows, fold_rows;  // of a short step; that the ring carries before a step folds them
  int64_t max_model_len;
};

enum class Part : uint8_t {
  kShort,  // up to max_rows rows, any number of which may be kept: decode and verify
  kLong,   // a chunk of a prompt, kept whole: the step writes the base state in place
};

/// A saved copy of a sequence's state at one position. Holds references on full pages and gives them back when it dies.
class Snapshot {
 public:
  Snapshot(Snapshot&& other) noexcept;
  Snapshot& operator=(Snapshot&& other) noexcept;
  ~Snapshot();

  int position() const { return static_cast<int>(tokens_.size()); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<int32_t>& full_pages() const { return full_pages_; }
  /// Of the copies in host memory; shared pages are not counted.
  int64_t bytes() const { return static_cast<int64_t>(state_.size() + partial_page_.size()); }

 private:
  friend class Sequence;
  explicit Snapshot(Pools& pools) : pools_(&pools) {}

  Pools* pools_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> full_pages_;
  std::vector<uint8_t> state_;         // fold(S0, ring) and the conv rows
  std::vector<uint8_t> partial_page_;  // empty at a page's border
};

class Sequence {
 public:
  /// Takes a slot and a row of the page table, or nothing (kResourceExhausted). Clears neither: at P = 0 no kernel
  /// reads them.
  static StatusOr<Sequence> Begin(Pools& pools);
  /// A sequence that continues as the snapshot's source would have: a slot and a partial page of its own, references on
  /// the full pages. kResourceExhausted: nothing is taken.
  static StatusOr<Sequence> Restore(Pools& pools, const Snapshot& snapshot);
  /// The same from its parts: the state behind `tokens`, whose pages are all full but perhaps a last one of its own.
  static StatusOr<Sequence> Restore(Pools& pools, std::span<const int32_t> tokens, std::span<const int32_t> full_pages,
                                    std::span<const uint8_t> state, std::span<const uint8_t> partial_page = {});

  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&& other) noexcept;
  ~Sequence();  // releases

  /// Makes room for `tokens` behind P and enters the pages in the page table. All or nothing: kResourceExhausted
  /// without enough pages, kInvalidArgument beyond the model's length; the sequence is then as before.
  Status Append(std::span<const int32_t> tokens, Part part);
  /// Takes back an Append whose step never ran.
  void Retract();
  /// Keeps the first `rows` rows of the step that ran; all of them after a long part. Pages wholly past P go back.
  void Commit(int rows);
  /// A step with this sequence failed half way: its state is worthless. Only Release is left; the tokens stay, to
  /// prefill again from.
  void Poison() { poisoned_ = true; }

  /// At any P, between steps; does not disturb the sequence.
  Snapshot TakeSnapshot() const;
  /// The recurrent and conv state at P, as Restore takes it. Empty at P = 0.
  void SaveState(std::vector<uint8_t>* state) const;
  /// Restore of a snapshot that nobody keeps.
  StatusOr<Sequence> Fork() const;
  /// Gives everything back; a second call does nothing.
  void Release();

  /// Of the pending step, as the batch block takes them. Valid until the next verb.
  exec::SequenceRows Rows() const;

  int position() const { return position_; }
  int ring_fill() const { return ring_fill_; }
  bool pending() const { return pending_rows() > 0; }
  int pending_rows() const { return static_cast<int>(tokens_.size()) - position_; }
  Part part() const { return part_; }  // of the pending step
  bool fold() const { return fold_; }  // of the pending step
  bool poisoned() const { return poisoned_; }
  /// Committed tokens.
  std::span<const int32_t> tokens() const { return {tokens_.data(), static_cast<size_t>(position_)}; }
  const std::vector<int32_t>& pages() const { return pages_; }
  int32_t slot() const { return slot_; }
  int32_t table_row() const { return table_row_; }

 private:
  explicit Sequence(Pools& pools) : pools_(&pools) {}
  void DropPagesPast(int tokens);

  Pools* pools_;
  int32_t slot_ = -1, table_row_ = -1;
  std::vector<int32_t> tokens_;  // committed, then pending
  std::vector<int32_t> pages_;
  int position_ = 0, ring_fill_ = 0;
  Part part_ = Part::kShort;
  bool fold_ = false, poisoned_ = false;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_SEQUENCE_H_
