// Runs a plan's programs: every rank's steps in order, one barrier where a step waits, collectives in between.
//
// Owns what a plan needs at run time: packed weights, arenas, the pools of KV pages and recurrent slots. All of it is
// allocated at Create and nothing per step. The engine decides which sequence uses which page and slot; this decides
// nothing. Threads: one caller at a time.
#ifndef QWEN_RUNTIME_EXEC_EXECUTOR_H_
#define QWEN_RUNTIME_EXEC_EXECUTOR_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/exec/batch_block.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/catalog.h"
#include "runtime/plan/plan.h"

namespace qwen::exec {

/// Where a plan runs: the CPU runs programs for `cpu`, CUDA cards those for `sm_89`.
enum class DeviceKind { kCpu, kCuda };
/// The target of the programs that a device runs.
std::string_view TargetOf(DeviceKind device);

/// A CUDA card that runs programs for sm_89.
struct Card {
  int ordinal = 0;
  std::string name;
  int64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  double bytes_per_second = 0, flops_per_second = 0;  // at best, from its clocks: DRAM; bf16 products with f32 sums
};
/// kUnimplemented, and why, when there is none.
StatusOr<std::vector<Card>> CudaCards();

struct ExecutorOptions {
  DeviceKind device = DeviceKind::kCpu;
  int threads = 0;                  // as ThreadsFor
  std::optional<kernels::Isa> isa;  // the best one when absent
  int num_pages = 0;                // KV pages of every rank's pool
  int num_slots = 0;                // recurrent slots of every rank's pool
  bool preallocate = false;         // touches all memory at once: no later step waits for a page or finds none left
};

/// Threads of a rank: `asked`, or when that is 0 the machine's cores over the ranks, at least 1.
int ThreadsFor(const plan::Plan& plan, int asked);

/// What this process may use of the machine's: its own memory, or the group's limit.
int64_t MachineMemoryBytes();
/// The same of a device: a card's memory. kUnimplemented without one.
StatusOr<int64_t> DeviceMemoryBytes(DeviceKind device);

/// kResourceExhausted with both numbers when the plan with these pools does not fit this machine, by its memory
/// statement. Create asks it; who asks before weights are loaded saves their time.
Status CheckMemory(const plan::Plan& plan, const ExecutorOptions& options);

/// A program's outputs after Run: rank 0's, valid until the next Run of any program. `hidden` and `features` stay until
/// the next Run of the same one. From a CUDA card come the logits of those rows alone that ask for them
/// (kSampleWriteLogits); the others' are not defined.
struct Outputs {
  std::span<const int32_t> next;               // [logit rows]
  std::span<const float> logits;               // [logit rows, vocab]
  std::span<const int32_t> accepted, emitted;  // verify: [short sequences]
  std::span<const uint8_t> hidden;             // final_hidden or hidden_out: [tokens, hidden] of the output's type
  std::span<const uint8_t> features;           // DFlash taps: [tokens, ids * hidden]
};

class Executor {
 public:
  /// Checks the plan's steps against the catalogue, allocates, starts the threads. `weights` has every rank's packed
  /// weights. kResourceExhausted as CheckMemory.
  static StatusOr<std::unique_ptr<Executor>> Create(const plan::Plan& plan, Weights weights,
                                                    const ExecutorOptions& options);
  virtual ~Executor() = default;

  /// Whether the plan has the program on the executor's target.
  virtual bool HasProgram(const std::string& name) const = 0;
  /// Runs `program` over the batch. `hidden` feeds draft_mtp: [tokens, hidden] of the input's type; not in an output of
  /// that program.
  virtual StatusOr<Outputs> Run(const std::string& program, const kernels::BatchView& batch,
                                std::span<const uint8_t> hidden = {}) = 0;

  /// Taken at Create beside the weights: the memory statement's arenas, workspaces, outputs, pages and slots.
  virtual int64_t allocated_bytes() const = 0;

  /// Committed records that a slot may carry before a step that folds them is the cheaper one; the plan's fold_rows
  /// bounds it. When they are folded changes no bit (contracts, section 5).
  virtual int fold_after() const { return std::numeric_limits<int>::max(); }

  // Copies of cached state, the same on every rank; bytes are all ranks' one after the other.
  virtual int64_t page_bytes() const = 0;  // of all ranks
  virtual int64_t slot_copy_bytes() const = 0;
  /// fold(S0, ring) and conv rows P-3 .. P-1 of the slot at position P with R ring rows. Does not disturb the slot.
  virtual void SaveSlot(int slot, int position, int ring_fill, std::span<uint8_t> to) const = 0;
  /// The inverse: S0 and the conv rows at their positions; the slot then has R = 0 at `position`.
  virtual void LoadSlot(int slot, int position, std::span<const uint8_t> from) = 0;
  virtual void SavePage(int page, std::span<uint8_t> to) const = 0;
  virtual void LoadPage(int page, std::span<const uint8_t> from) = 0;
};

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_EXECUTOR_H_
