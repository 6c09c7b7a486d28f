//===- ShardPlan.cpp - which rank owns which units ------------------------===//

#include "passes/shard/ShardPlan.h"

#include <algorithm>

namespace qwen::shard {

int64_t totalSize(const Ranges &ranges) {
  int64_t sum = 0;
  for (Range range : ranges)
    sum += range.size();
  return sum;
}

std::vector<Range> splitUnits(int64_t units, int64_t ranks) {
  std::vector<Range> shares(ranks);
  int64_t begin = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    int64_t size = units / ranks + (rank < units % ranks);
    shares[rank] = {begin, begin + size};
    begin += size;
  }
  return shares;
}

std::vector<Range> splitChannels(int64_t channels, int64_t unit, int64_t ranks) {
  std::vector<Range> shares = splitUnits((channels + unit - 1) / unit, ranks);
  for (Range &share : shares)
    share = {std::min(share.begin * unit, channels), std::min(share.end * unit, channels)};
  return shares;
}

int64_t rotatedShare(int64_t rank, int64_t layer, int64_t ranks) { return (rank + ranks - layer % ranks) % ranks; }

Range scaled(Range range, int64_t width) { return {range.begin * width, range.end * width}; }

/// The KV heads of `queries`, ascending, each once.
static std::vector<int64_t> sortedKvHeads(Range queries, const std::vector<int64_t> &kvMap) {
  std::vector<int64_t> heads(kvMap.begin() + queries.begin, kvMap.begin() + queries.end);
  std::sort(heads.begin(), heads.end());
  heads.erase(std::unique(heads.begin(), heads.end()), heads.end());
  return heads;
}

Ranges kvHeadsOf(Range queries, const std::vector<int64_t> &kvMap) {
  Ranges ranges;
  for (int64_t head : sortedKvHeads(queries, kvMap)) {
    if (!ranges.empty() && ranges.back().end == head)
      ++ranges.back().end;
    else
      ranges.push_back({head, head + 1});
  }
  return ranges;
}

std::vector<int64_t> localKvMap(Range queries, const std::vector<int64_t> &kvMap) {
  std::vector<int64_t> heads = sortedKvHeads(queries, kvMap), local;
  for (int64_t query = queries.begin; query < queries.end; ++query)
    local.push_back(std::lower_bound(heads.begin(), heads.end(), kvMap[query]) - heads.begin());
  return local;
}

Range valueHeadsOf(Range keys, int64_t keyHeads, int64_t valueHeads) {
  return keyHeads ? scaled(keys, valueHeads / keyHeads) : Range();
}

Ranges deltaNetChannels(Range keys, int64_t keyHeads, int64_t valueHeads, int64_t keyDim, int64_t valueDim) {
  int64_t allKeys = keyHeads * keyDim;
  Range q = scaled(keys, keyDim), v = scaled(valueHeadsOf(keys, keyHeads, valueHeads), valueDim);
  return {q, {allKeys + q.begin, allKeys + q.end}, {2 * allKeys + v.begin, 2 * allKeys + v.end}};
}

Ranges gateUpRows(Range inter, int64_t total) { return {inter, {total + inter.begin, total + inter.end}}; }

} // namespace qwen::shard
