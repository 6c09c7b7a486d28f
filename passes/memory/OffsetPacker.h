//===- OffsetPacker.h - buffers that live in intervals, packed into one arena ===//

#ifndef QWEN_PASSES_MEMORY_OFFSETPACKER_H
#define QWEN_PASSES_MEMORY_OFFSETPACKER_H

#include <cstdint>
#include <vector>

namespace qwen::passes {

/// A buffer that must keep its bytes from phase `first` to phase `last`, both included.
struct LiveBuffer {
  int64_t bytes;
  int first, last;
};

struct Packing {
  std::vector<int64_t> offsets; // multiples of `alignment`, one a buffer
  int64_t bytes = 0;            // end of the highest buffer
};

/// Places the largest buffer first, each at the lowest gap between the buffers that live at the same time (greedy by
/// size; Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference"). Equal sizes keep their order,
/// so the result depends on the input alone.
Packing packOffsets(const std::vector<LiveBuffer> &buffers, int64_t alignment);

/// Bytes that live at once in the fullest phase: no packing can need less.
int64_t peakBytes(const std::vector<LiveBuffer> &buffers, int64_t alignment);

} // namespace qwen::passes

#endif
