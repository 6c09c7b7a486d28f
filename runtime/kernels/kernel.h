// What every kernel gets: the batch, the state's sizes, its arguments, its share of the threads (contracts, section 2).
//
// No standard headers: the files that are built once per ISA include this one, and an inline function built for
// AVX-512 may be the copy the linker keeps for all. On x86-64 int is 32 bits and long long 64.
#ifndef QWEN_RUNTIME_KERNELS_KERNEL_H_
#define QWEN_RUNTIME_KERNELS_KERNEL_H_

#include "runtime/base/dtype.h"

namespace qwen::kernels {

/// How one logit row is drawn; an element of the batch block. 48 bytes, as in the file of record.
struct SampleParams {
  unsigned long long seed;
  int choice, top_k, flags;  // top_k 0 = off
  float temperature, top_p, min_p;
  int mask, bias_begin, bias_count;
  int vocab_used;  // ids from here on are never drawn; 0 = all may be
};
inline constexpr int kSampleGreedy = 1, kSampleWriteLogits = 2, kSampleWriteLogprobs = 4;

/// One step's batch. Sequences [0, num_short) are the short part, [num_short, num_seqs) the long part.
struct BatchView {
  int num_seqs, num_short, num_tokens, num_logit_rows;
  const int* cu_tokens;      // [num_seqs + 1]
  const int* token_ids;      // [num_tokens]
  const int* position;       // [num_seqs] absolute position of the sequence's first row
  const int* state_slot;     // [num_seqs] -1: padding
  const int* table_row;      // [num_seqs] -1: padding
  const int* ring_fill;      // [num_seqs] committed rows not yet folded
  const int* fold;           // [num_seqs] 1: this step folds them
  const int* logit_rows;     // [num_logit_rows] row of the batch
  const SampleParams* sample;  // [num_logit_rows]
  const int* page_table;     // [rows][max_pages] page of tokens [32 i, 32 i + 32)
  int max_pages;
};

/// The rank's pools. A cache argument points at its layer's bytes of page 0 or slot 0.
struct StateView {
  int page_tokens;
  long long page_bytes, slot_bytes;
  int max_rows, fold_rows, ring_rows, conv_rows;
};

struct Launch {
  const BatchView* batch;
  const StateView* state;
  void* const* args;          // in the family's order; nullptr: absent
  const void* const* peers;   // collectives: argument 0 of every rank, in rank order
  int rank, ranks;
  int thread, threads;        // static share: no two runs of a kernel divide work differently for one thread count
  unsigned char* scratch;     // this thread's, 64-byte aligned
  unsigned char* shared;      // all threads of the rank; zero on entry, left zero
};

/// A kernel's body for one ISA. `spec` is the family's Spec struct. Returns when this thread's share is written.
using CpuBody = void (*)(const void* spec, const Launch& launch);

/// What one thread can do at best with an ISA; for benchmarks.
struct CpuCeilings {
  /// Reads `bytes`, a multiple of 4096, from memory once; their parity, so that no read is left out.
  unsigned (*read)(const void* from, long long bytes);
  /// Multiplies and adds in registers, `rounds` times; the flops of f32 that this stands for.
  double (*multiply)(long long rounds, float* sink);
};

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_KERNEL_H_
