#include "runtime/exec/blobs.h"

#include <fmt/format.h>

#include "runtime/plan/layout.h"
#include "runtime/plan/memory.h"

namespace qwen::exec {

StatusOr<BlobPlaces> PlaceBlobs(const plan::Plan& plan, const Groups& groups, int64_t begin) {
  BlobPlaces places;
  places.blob_of.assign(plan.packed.size(), -1);
  places.end = begin;
  const std::vector<int32_t> first = plan::FirstWithSameBytes(plan);
  for (const bool large : {false, true}) {
    const int64_t align = large ? kHugePage : int64_t{plan::kAlignment};
    for (size_t i = 0; i < plan.packed.size(); ++i) {
      const int64_t bytes = plan.packed[i].bytes;
      if ((bytes >= kHugePage) != large || !groups.Has(plan.weights[plan.packed[i].weight].group)) continue;
      if (first[i] != static_cast<int32_t>(i)) {
        places.blob_of[i] = places.blob_of[first[i]];
        continue;
      }
      const int64_t offset = (places.end + align - 1) / align * align;
      if (bytes > plan::kMaxBytes - offset)
        return ResourceExhaustedError(
            fmt::format("weights: {} bytes behind the first {}, the limit is {}", bytes, offset, plan::kMaxBytes));
      places.blob_of[i] = static_cast<int32_t>(places.blobs.size());
      places.blobs.push_back({.packed = static_cast<int32_t>(i), .offset = offset, .bytes = bytes});
      places.end = offset + bytes;
    }
  }
  return places;
}

}  // namespace qwen::exec
