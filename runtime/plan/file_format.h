// What surrounds the root of a plan file (FORMAT.md), for its reader and its writer.
#ifndef QWEN_RUNTIME_PLAN_FILE_FORMAT_H_
#define QWEN_RUNTIME_PLAN_FILE_FORMAT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qwen::plan {

static_assert(std::endian::native == std::endian::little, "the file is little-endian, and so are we");

struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t flags;  // none so far
  uint64_t file_bytes;
  uint64_t root_offset;
  uint64_t root_bytes;
  uint64_t root_xxh3;
};
static_assert(sizeof(FileHeader) == 48);

inline constexpr char kMagic[9] = "QWENPLAN";
inline constexpr uint64_t kRootOffset = 64;
/// FlatBuffers offsets are 32-bit and signed in part.
inline constexpr uint64_t kMaxRootBytes = uint64_t{1} << 30;
inline constexpr uint64_t kMaxFileBytes = uint64_t{1} << 32;

constexpr uint64_t AlignFile(uint64_t offset) { return (offset + 63) & ~uint64_t{63}; }

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_FILE_FORMAT_H_
