// The compiled form of a tokenizer, to the byte. Little-endian; every section is a whole number of 4-byte words:
//
//   header         BlobHeader
//   ends           u32[tokens]         token i is bytes [ends[i - 1], ends[i]) of the last section
//   index starts   u32[entries + 1]    token_tables.h: buckets, as many as entries, at least one
//   index entries  u32[entries]
//   merge starts   u32[merges + 1]
//   merges         {left, right, result, rank}[merges]
//   kinds          u8[tokens]          TokenKind, padded with zeros
//   bytes          u8[bytes]           padded with zeros
#ifndef QWEN_RUNTIME_TEXT_TOKENIZER_BLOB_H_
#define QWEN_RUNTIME_TEXT_TOKENIZER_BLOB_H_

#include <algorithm>
#include <bit>
#include <cstdint>

namespace qwen::text {

static_assert(std::endian::native == std::endian::little, "the blob is little-endian, and so are we");

inline constexpr char kBlobMagic[9] = "QWENTOKN";
inline constexpr uint32_t kBlobVersion = 1;
inline constexpr uint32_t kBlobNfc = 1;  // a flag

struct BlobHeader {
  char magic[8];
  uint32_t version;
  uint32_t flags;
  uint32_t pattern;
  uint32_t tokens, entries, merges, bytes;  // lengths of the sections
  uint32_t byte_tokens[256];                // the token of each byte
};
static_assert(sizeof(BlobHeader) == 36 + 1024);

/// Where the sections begin, in words. Counts below 2^32 cannot overflow it.
struct BlobLayout {
  uint64_t ends, index_starts, index_entries, merge_starts, merges, kinds, bytes, size;

  explicit BlobLayout(const BlobHeader& h) {
    const auto buckets = [](uint64_t count) { return std::max<uint64_t>(count, 1); };
    ends = sizeof(BlobHeader) / 4;
    index_starts = ends + h.tokens;
    index_entries = index_starts + buckets(h.entries) + 1;
    merge_starts = index_entries + h.entries;
    merges = merge_starts + buckets(h.merges) + 1;
    kinds = merges + uint64_t{h.merges} * 4;
    bytes = kinds + (uint64_t{h.tokens} + 3) / 4;
    size = bytes + (uint64_t{h.bytes} + 3) / 4;
  }
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_TOKENIZER_BLOB_H_
