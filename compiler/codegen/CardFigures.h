//===- CardFigures.h - what a card makes of a plan's kernels --------------===//

#ifndef QWEN_COMPILER_CODEGEN_CARDFIGURES_H
#define QWEN_COMPILER_CODEGEN_CARDFIGURES_H

#include "runtime/base/status.h"
#include "runtime/plan/dump.h"
#include "runtime/plan/plan.h"

#include <string>
#include <string_view>
#include <vector>

namespace qwen::compiler {

/// A card as its vendor's data sheet and the CUDA programming guide (table of technical specifications by compute
/// capability) have it.
struct Card {
  const char *name, *title, *arch;
  double bytesPerSecond, flopsPerSecond; // of DRAM; of dense bf16 products with f32 sums
  int warps, blocks;                     // of a multiprocessor
  int sharedBytes;                       // of a multiprocessor, for blocks
};
/// The cards `--gpu` names; nullptr for another name.
const Card *findCard(std::string_view name);

/// What ptxas says of one kernel.
struct Assembled {
  int registers = 0; // of a thread
  int64_t spillBytes = 0, stackBytes = 0, sharedBytes = 0;
};
/// From the text of `ptxas -v`; kInternal where a figure is missing.
StatusOr<Assembled> readPtxasText(const std::string &text);

/// Blocks of `threads` threads that a multiprocessor holds at once. Registers are given to warps by 256, warps to four
/// partitions of 16,384 registers; every block takes 1 KiB of shared memory beside its own.
int residentBlocks(const Card &card, int threads, int registers, int64_t sharedBytes);

struct CardFigures {
  std::vector<plan::KernelOnCard> kernels; // one for each of the plan's
  std::string ptxas;                       // its version; "" where none was found
};
/// Registers, occupancy and floor of every kernel that has PTX, from ptxas of the CUDA toolkit. QWENC_PTXAS names
/// another program. Without one the figures it would give are left out. `cacheDir` keeps its answers; "": none.
StatusOr<CardFigures> figuresOn(const Card &card, const plan::Plan &plan, const std::string &cacheDir);

} // namespace qwen::compiler

#endif
