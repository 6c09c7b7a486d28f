//===- ShardPlan.h - which rank owns which units --------------------------===//
//
// The arithmetic of ragged tensor parallelism, without IR. A dimension is cut at unit borders (a head, 16 channels, an
// expert, 64 vocabulary rows) into one contiguous share a rank, as even as whole units allow; nothing assumes equal
// shares, and a share may be empty.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_SHARD_SHARDPLAN_H
#define QWEN_PASSES_SHARD_SHARDPLAN_H

#include <cstdint>
#include <vector>

namespace qwen::shard {

/// Channels of one tile column of the matrix units; feed-forward shares are multiples of it.
inline constexpr int64_t kFeedForwardUnit = 16;
/// Rows of the vocabulary that a rank takes together.
inline constexpr int64_t kVocabUnit = 64;

/// `[begin, end)`.
struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range &) const = default;
};

/// Ranges of one dimension which a rank holds one behind the other: q, k and v channels are three.
using Ranges = std::vector<Range>;

int64_t totalSize(const Ranges &ranges);

/// `units` over `ranks`: contiguous, the first `units % ranks` ranks have one more.
std::vector<Range> splitUnits(int64_t units, int64_t ranks);

/// `channels` over `ranks` in multiples of `unit`; the last unit may be partial.
std::vector<Range> splitChannels(int64_t channels, int64_t unit, int64_t ranks);

/// Which share a rank takes when the larger share of layer `layer` goes to rank `layer % ranks`.
int64_t rotatedShare(int64_t rank, int64_t layer, int64_t ranks);

/// `range` counted in pieces of `width`.
Range scaled(Range range, int64_t width);

/// The KV heads that query heads `queries` read, ascending. Neighbours form one range.
Ranges kvHeadsOf(Range queries, const std::vector<int64_t> &kvMap);

/// `kvMap` of the query heads `queries`, counted among the heads of `kvHeadsOf`.
std::vector<int64_t> localKvMap(Range queries, const std::vector<int64_t> &kvMap);

/// The value heads of key heads `keys` when every key head has `valueHeads / keyHeads` of them.
Range valueHeadsOf(Range keys, int64_t keyHeads, int64_t valueHeads);

/// The q, k and v channels of key heads `keys` among the `q | k | v` channels of a delta-rule layer.
Ranges deltaNetChannels(Range keys, int64_t keyHeads, int64_t valueHeads, int64_t keyDim, int64_t valueDim);

/// The rows of `[gate | up]` that hold intermediate channels `inter` of `total`.
Ranges gateUpRows(Range inter, int64_t total);

} // namespace qwen::shard

#endif
