#include "runtime/text/token_tables.h"

#define XXH_INLINE_ALL  // tokens are short: a call would cost more than the hash
#include <xxhash.h>

#include <algorithm>

namespace qwen::text {

uint64_t HashBytes(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Buckets SortIntoBuckets(std::span<const uint64_t> hashes) {
  const size_t count = std::max<size_t>(hashes.size(), 1);
  Buckets buckets;
  buckets.starts.resize(count + 1);
  buckets.order.resize(hashes.size());
  for (uint64_t hash : hashes) ++buckets.starts[BucketOf(hash, count) + 1];
  for (size_t b = 0; b < count; ++b) buckets.starts[b + 1] += buckets.starts[b];
  std::vector<uint32_t> next(buckets.starts.begin(), buckets.starts.end() - 1);
  for (uint32_t i = 0; i < hashes.size(); ++i) buckets.order[next[BucketOf(hashes[i], count)]++] = i;
  return buckets;
}

bool BucketsAreSound(std::span<const uint32_t> starts, size_t entries) {
  if (starts.size() < 2 || starts.front() != 0 || starts.back() != entries) return false;
  for (size_t b = 1; b < starts.size(); ++b)
    if (starts[b] < starts[b - 1] || starts[b] - starts[b - 1] > kMaxBucket) return false;
  return true;
}

}  // namespace qwen::text
