// Where packed weights lie: a place for every distinct blob, the same in memory and in a pack file.
#ifndef QWEN_RUNTIME_EXEC_BLOBS_H_
#define QWEN_RUNTIME_EXEC_BLOBS_H_

#include <cstdint>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::exec {

inline constexpr int64_t kHugePage = int64_t{2} << 20;

/// The groups of weights that a checkpoint has; a plan may name more.
struct Groups {
  bool mtp = true, draft = true;
  bool Has(plan::Group group) const {
    return group == plan::Group::kMtp ? mtp : group == plan::Group::kDraft ? draft : true;
  }
  bool operator==(const Groups&) const = default;
};

struct BlobPlaces {
  struct Blob {
    int32_t packed = 0;  // the first entry of plan.packed with these bytes
    int64_t offset = 0, bytes = 0;
  };
  std::vector<Blob> blobs;       // in the order of their offsets
  std::vector<int32_t> blob_of;  // of every entry of plan.packed; -1: its group is absent
  int64_t end = 0;               // of the last blob; at least `begin`
};

/// From `begin` on, a multiple of 64: first the blobs below a huge page, at multiples of 64, then the others, each at a
/// multiple of a huge page, so that huge pages hold them and none holds two; both in the order of plan.packed.
/// kResourceExhausted when all of them take more than plan::kMaxBytes.
StatusOr<BlobPlaces> PlaceBlobs(const plan::Plan& plan, const Groups& groups, int64_t begin);

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_BLOBS_H_
