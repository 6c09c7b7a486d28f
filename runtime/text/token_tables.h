// Tokens and merges as flat arrays, searched where they lie: in a file's blob, or in the vectors it is built from.
//
// A table is hashed into as many buckets as it has entries; entries are sorted by bucket and `starts` says where each
// begins. Unlike open addressing this wastes no slot, and a reader that does not trust it checks two things: starts
// ascend, buckets are short.
#ifndef QWEN_RUNTIME_TEXT_TOKEN_TABLES_H_
#define QWEN_RUNTIME_TEXT_TOKEN_TABLES_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace qwen::text {

inline constexpr uint32_t kNoToken = UINT32_MAX, kNoRank = UINT32_MAX;
/// No bucket of an honest table comes near; a table built to be slow is refused.
inline constexpr uint32_t kMaxBucket = 64;

uint64_t HashBytes(std::string_view bytes);
inline uint64_t HashPair(uint32_t left, uint32_t right) {
  // Multiplying by the golden ratio spreads to the upper half, which picks the bucket (Knuth, volume 3, 6.4).
  return (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
}
/// The bucket of `hash` among `buckets`, at least one.
inline uint32_t BucketOf(uint64_t hash, uint64_t buckets) {
  return static_cast<uint32_t>((hash >> 32) * buckets >> 32);
}

/// Entries sorted by bucket: entry `order[i]` stands i-th, bucket b is [starts[b], starts[b + 1]). As many buckets as
/// hashes, at least one.
struct Buckets {
  std::vector<uint32_t> starts, order;
};
Buckets SortIntoBuckets(std::span<const uint64_t> hashes);
/// starts[0] is 0, the last is `entries`, none is less than the one before or more than kMaxBucket above it.
bool BucketsAreSound(std::span<const uint32_t> starts, size_t entries);

/// The bytes of every token, by id.
struct TokenBytes {
  std::span<const uint32_t> ends;  // of token i in bytes; it begins where the one before ends
  const char* bytes = nullptr;

  std::string_view operator[](uint32_t id) const {
    const uint32_t begin = id == 0 ? 0 : ends[id - 1];
    return {bytes + begin, ends[id] - begin};
  }
};

/// From bytes to a token of the vocabulary.
struct TokenIndex {
  /// An id; the highest bit says that the merges make this token of its bytes, so a piece of these bytes is this token.
  struct Entry {
    uint32_t word;
    static constexpr uint32_t kWhole = uint32_t{1} << 31;
    uint32_t id() const { return word & ~kWhole; }
    bool whole() const { return (word & kWhole) != 0; }
  };

  std::span<const uint32_t> starts;
  std::span<const Entry> entries;

  /// Null when no token has these bytes.
  const Entry* Find(std::string_view bytes, const TokenBytes& tokens) const {
    const uint32_t bucket = BucketOf(HashBytes(bytes), starts.size() - 1);
    for (uint32_t i = starts[bucket]; i < starts[bucket + 1]; ++i)
      if (tokens[entries[i].id()] == bytes) return &entries[i];
    return nullptr;
  }
};

/// Two neighbours that may become one token.
struct Merge {
  uint32_t left, right, result, rank;  // the lowest rank goes first
};

struct MergeTable {
  std::span<const uint32_t> starts;
  std::span<const Merge> merges;

  /// Null when the two do not merge.
  const Merge* Find(uint32_t left, uint32_t right) const {
    const uint32_t bucket = BucketOf(HashPair(left, right), starts.size() - 1);
    for (uint32_t i = starts[bucket]; i < starts[bucket + 1]; ++i)
      if (merges[i].left == left && merges[i].right == right) return &merges[i];
    return nullptr;
  }
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_TOKEN_TABLES_H_
