// What every CUDA kernel gets, by value, as its one parameter. The host fills it, device code reads it; no includes but
// ours, so that NVRTC takes it as it is.
//
// Addresses and sizes are fixed from the first launch on, so that a captured graph can be replayed: everything that
// changes from step to step is read from device memory, the counts above all. A grid may be larger than the batch (a
// graph is captured for a bucket); blocks without rows return.
#ifndef QWEN_RUNTIME_KERNELS_CUDA_LAUNCH_H_
#define QWEN_RUNTIME_KERNELS_CUDA_LAUNCH_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels::cuda {

/// Index into Batch::counts.
enum BatchCount { kNumSeqs, kNumShort, kNumTokens, kNumLogitRows, kBatchCounts };

/// BatchView in device memory: the same arrays, the counts behind an address.
struct Batch {
  const int* counts;  // [kBatchCounts]
  const int* cu_tokens;
  const int* token_ids;
  const int* position;
  const int* state_slot;
  const int* table_row;
  const int* ring_fill;
  const int* fold;
  const int* logit_rows;
  const SampleParams* sample;
  const int* page_table;  // [rows][max_pages]
  int max_pages;
};

inline constexpr int kMaxPeers = 8;

/// `kArgs` is the number of arguments of the kernel's contract, which depends on the Spec.
template <int kArgs>
struct Launch {
  Batch batch;
  StateView state;
  const int* rows;         // how many rows the step has: of the batch, or the wanted ones where the step runs over those
  unsigned char* shared;   // the rank's, Workspace::shared bytes: zero on entry, left zero
  unsigned char* scratch;  // the rank's, Workspace::scratch bytes: anything on entry, anything left
  int ranks;               // of `peers`
  const void* peers[kMaxPeers];  // collectives: argument 0 of every rank, as this device reaches it
  void* args[kArgs];             // in the family's order; nullptr: absent
};

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_CUDA_LAUNCH_H_
