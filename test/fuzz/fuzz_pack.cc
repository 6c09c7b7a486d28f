// Any bytes as header and table of a pack file, the checksum aside. The first four say how much longer the file is.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "runtime/exec/pack.h"
#include "test/runtime/exec/pack_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::exec;
  static const qwen::plan::Plan plan = test::MakePackPlan();
  if (size < 4) return 0;
  uint32_t more;
  std::memcpy(&more, data, 4);
  const std::span<const uint8_t> prefix(data + 4, size - 4);
  const int64_t file_bytes = static_cast<int64_t>(prefix.size()) + more;
  (void)ParsePack(prefix, file_bytes, plan, "fuzz").ok();
  qwen::StatusOr<PackTable> table = ParsePack(prefix, file_bytes, plan, "fuzz", /*check_sum=*/false);
  if (!table.ok()) return 0;
  // Blobs lie behind the table and each other, and within the file.
  int64_t end = table->bytes;
  for (const BlobPlaces::Blob& blob : table->places.blobs) {
    if (blob.offset < end || blob.bytes != plan.packed[blob.packed].bytes) abort();
    end = blob.offset + blob.bytes;
  }
  if (end != file_bytes) abort();
  // Every byte but the checksum is what the writer would write.
  std::vector<uint8_t> again = EncodePack(*table, plan);
  std::memcpy(&again[48], &prefix[48], 8);
  if (std::memcmp(again.data(), prefix.data(), again.size()) != 0) abort();
  return 0;
}
