// The memory statement: what a plan needs to run, before anything is allocated (contracts, section 9).
#ifndef QWEN_RUNTIME_PLAN_MEMORY_H_
#define QWEN_RUNTIME_PLAN_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

/// Resident bytes of qwenrt beside all else: code, libraries, the plan itself. `qwenrt inspect` of a small plan peaks
/// at 4.6 MiB; the rest is for threads and their heaps.
inline constexpr int64_t kRuntimeBytes = int64_t{8} << 20;

struct MemoryOptions {
  int64_t memory_bytes = 0;    // to divide: the machine's for the cpu, else each device's; 0: not asked
  int32_t max_num_seqs = 0;    // 0: the plan's
  int64_t max_model_len = 0;   // tokens of a sequence; 0: the plan's
  int64_t num_slots = -1;      // of recurrent state; -1: one a sequence
  int64_t num_pages = -1;      // of KV cache; -1: what those sequences of that length take
  int64_t snapshot_bytes = 0;  // host memory set aside for snapshots
  int32_t threads = 1;         // of a rank: each has its own scratch
};

/// One rank. Bytes.
struct RankMemory {
  int32_t rank = 0;
  int64_t weights_bytes = 0;         // packed, with tile padding
  int64_t weights_net_bytes = 0;     // without
  int64_t weights_shared_bytes = 0;  // of weights_bytes: an earlier rank of the process keeps the same bytes
  int64_t weights_mapped_bytes = 0;  // used as they lie in the file
  int64_t arena_bytes = 0;           // programs run one at a time: the largest
  int64_t workspace_bytes = 0;       // scratch of all threads, the rank's shared space, one layer's folded state
  int64_t output_bytes = 0;          // as PlaceOutputs has them
  int64_t page_bytes = 0;
  int64_t slot_bytes = 0;  // the sum of the next three
  int64_t base_bytes = 0, ring_bytes = 0, conv_bytes = 0;
  int64_t snapshot_bytes = 0;  // of one snapshot at most: folded state, conv rows, a partly filled page
  int64_t kernel_bytes = 0;    // built-in kernels take none
};

/// What fits into MemoryOptions::memory_bytes: into the machine's, or into those of the device that has most to hold.
struct MemoryFit {
  int64_t least_bytes = 0;  // weights, buffers and slots
  int64_t total_bytes = 0;  // and the pages
  bool fits = false;        // the least
  int64_t pages = 0;        // beside that
  int64_t tokens = 0;       // in those pages
  int64_t sequences = 0;    // of max_model_len tokens, each with its slot and all its pages
};

struct MemoryStatement {
  std::string target;
  std::vector<RankMemory> ranks;
  // Once a process.
  int64_t batch_bytes = 0, text_bytes = 0, runtime_bytes = 0;
  int64_t snapshot_bytes = 0;  // as asked for
  int32_t page_tokens = kPageTokens;
  int32_t max_num_seqs = 0;
  int64_t max_model_len = 0;
  int64_t num_slots = 0, num_pages = 0;
  int32_t threads = 1;
  int64_t fixed_bytes = 0;  // all of the above but pages and slots, of all ranks
  int64_t total_bytes = 0;  // with num_slots and num_pages: what qwenrt takes at start, and no more
  std::optional<MemoryFit> fit;
};

/// `target` is one of the plan's.
MemoryStatement StateMemory(const Plan& plan, const std::string& target, const MemoryOptions& options = {});

/// kInvalidArgument with both numbers when more sequences, or longer ones, are asked for than the plan takes.
Status CheckCapacity(const Plan& plan, const MemoryOptions& options);

/// kResourceExhausted with both numbers when `memory_bytes` is given and too little: for the weights, the buffers and
/// the slots; where sequences, their length or pages are given, for all of those at once too.
Status CheckFit(const Plan& plan, const std::string& target, const MemoryOptions& options);

/// Where a rank's programs put their outputs, in one block of `bytes`.
struct OutputPlaces {
  int64_t bytes = 0;
  std::vector<std::vector<int64_t>> offsets;  // [in plan.programs][in its buffers]; 0 for all but outputs
};
/// Tokens and logits are read before the next run, so all programs put theirs in the same place. Hidden rows and
/// features feed the program that runs next, and have a place in each.
OutputPlaces PlaceOutputs(const Plan& plan, const std::string& target, int32_t rank);

/// For every entry of plan.packed the first one with the same bytes, mostly itself: the same slices of the same weight
/// in the same layout, on whichever rank. A process keeps them once.
std::vector<int32_t> FirstWithSameBytes(const Plan& plan);

/// "1.50 GiB"; bytes below 1,024 as they are.
std::string HumanBytes(int64_t bytes);

/// The block of int32 that carries a batch (contracts, section 2), with its page table; equals
/// exec::BatchBlock::bytes().
int64_t BatchBytes(const Capacity& capacity, int64_t max_pages);

/// A weight of which several ranks keep the same elements, or one rank keeps several copies.
struct Replicated {
  std::string weight;
  Layout layout = Layout::kRows;
  int64_t net_bytes = 0;         // kept by all ranks together
  int64_t distinct_bytes = 0;    // of elements, each counted once
  std::vector<int64_t> by_rank;  // net bytes
};
/// In the order of plan.weights. Per-rank net bytes of all weights sum to those of one rank plus
/// `net_bytes - distinct_bytes` of these.
std::vector<Replicated> ReplicatedWeights(const Plan& plan);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_MEMORY_H_
