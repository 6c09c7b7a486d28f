// Any bytes as the beginning of a safetensors file. The first byte says how much longer the file is.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "runtime/plan/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::plan;
  if (size == 0) return 0;
  const std::span<const uint8_t> prefix(data + 1, size - 1);
  const int64_t file_bytes = static_cast<int64_t>(prefix.size()) + data[0];
  qwen::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(prefix, file_bytes, "fuzz");
  if (!header.ok()) return 0;
  // Side by side from the header to the end of the file.
  int64_t at = header->header_bytes;
  for (const TensorInfo& info : header->tensors) {
    if (info.begin != at || info.end < info.begin) abort();
    at = info.end;
  }
  if (at != file_bytes) abort();
  return 0;
}
