//===- OffsetPacker.cpp - greedy by size ----------------------------------===//

#include "passes/memory/OffsetPacker.h"

#include <algorithm>
#include <numeric>

namespace qwen::passes {

static int64_t alignUp(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

Packing packOffsets(const std::vector<LiveBuffer> &buffers, int64_t alignment) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });

  Packing packing;
  packing.offsets.assign(buffers.size(), 0);
  std::vector<size_t> placed; // by offset
  for (size_t index : order) {
    const LiveBuffer &buffer = buffers[index];
    int64_t need = alignUp(buffer.bytes, alignment), offset = 0;
    for (size_t other : placed) {
      if (buffers[other].last < buffer.first || buffer.last < buffers[other].first)
        continue; // never alive together
      if (offset + need <= packing.offsets[other])
        break; // fits in front of it
      offset = std::max(offset, packing.offsets[other] + alignUp(buffers[other].bytes, alignment));
    }
    packing.offsets[index] = offset;
    packing.bytes = std::max(packing.bytes, offset + need);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), index,
                                   [&](size_t a, size_t b) { return packing.offsets[a] < packing.offsets[b]; }),
                  index);
  }
  return packing;
}

int64_t peakBytes(const std::vector<LiveBuffer> &buffers, int64_t alignment) {
  int64_t peak = 0;
  for (const LiveBuffer &at : buffers) { // the fullest phase begins where some buffer does
    int64_t sum = 0;
    for (const LiveBuffer &buffer : buffers)
      if (buffer.first <= at.first && at.first <= buffer.last)
        sum += alignUp(buffer.bytes, alignment);
    peak = std::max(peak, sum);
  }
  return peak;
}

} // namespace qwen::passes
