// Sizes that the file states and both sides compute: packed weights, layers of a page and of a slot.
//
// The compiler fills a plan with these, the reader checks a plan against them.
#ifndef QWEN_RUNTIME_PLAN_LAYOUT_H_
#define QWEN_RUNTIME_PLAN_LAYOUT_H_

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

/// No size, count or offset of a plan is larger: sums and products below it cannot overflow unnoticed.
inline constexpr int64_t kMaxBytes = int64_t{1} << 48;

/// The product, or nothing when a factor is negative or the product of those that are not 0 is above kMaxBytes.
std::optional<int64_t> CheckedProduct(std::span<const int64_t> factors);
inline std::optional<int64_t> CheckedProduct(std::initializer_list<int64_t> factors) {
  return CheckedProduct(std::span<const int64_t>(factors.begin(), factors.size()));
}

/// a + b of two sizes; the largest integer where that is less.
constexpr int64_t AddBytes(int64_t a, int64_t b) {
  return a > std::numeric_limits<int64_t>::max() - b ? std::numeric_limits<int64_t>::max() : a + b;
}

/// Dimensions of the slice that `packed` takes of `weight`. kDataLoss when a range leaves its dimension, runs backwards
/// or overlaps the one before it.
StatusOr<std::vector<int64_t>> PackedShape(const Weight& weight, const Packed& packed);

struct PackedSize {
  int64_t bytes = 0;      // with tile padding
  int64_t net_bytes = 0;  // without
};
/// Ignores `packed.bytes` and `packed.net_bytes`. kDataLoss as above, or when the weight has no such layout.
StatusOr<PackedSize> PackedBytes(const Weight& weight, const Packed& packed);

/// K and V of one page.
int64_t KvLayerBytes(const KvLayer& layer);

/// A delta-rule layer's part of a slot; equals runtime/kernels/gdn/gdn.h's SlotLayout, which the kernels use. Each part
/// is padded to 64 bytes.
struct DeltaLayerSize {
  int64_t base = 0, ring = 0, conv = 0;
  int64_t bytes() const { return base + ring + conv; }
};
DeltaLayerSize DeltaLayerBytes(const DeltaLayer& layer, int32_t ring_rows, int32_t conv_rows);

/// Fills in all that follows from `state.max_rows` and the layers' heads and dimensions: rows, offsets in order of the
/// lists, page_bytes, slot_bytes and its three parts.
void LayOutState(State* state);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_LAYOUT_H_
