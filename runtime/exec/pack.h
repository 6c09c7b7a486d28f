// Pack files: a plan's weights in their kernels' layouts, written once and mapped at every later start (PACK.md).
//
// A pack belongs to one plan's weight section and to one checkpoint's headers, and says so: it is used as a whole or
// refused. Header and table are checked at every start, which reads nothing else; the blobs' checksums when asked.
#ifndef QWEN_RUNTIME_EXEC_PACK_H_
#define QWEN_RUNTIME_EXEC_PACK_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/exec/blobs.h"
#include "runtime/exec/weights.h"
#include "runtime/plan/plan.h"

namespace qwen::exec {

inline constexpr uint32_t kPackVersion = 1;

/// Packs the checkpoint of `dir` into the file `path`, all or nothing, holding one blob at a time. A file that exists
/// is refused unless `overwrite`. kResourceExhausted when the disk is full: before anything is packed, where the file
/// system can tell.
StatusOr<CheckpointFacts> WritePack(const plan::Plan& plan, const std::string& dir, const std::string& path,
                                    bool overwrite, const LoadOptions& options = {});

struct MapOptions {
  std::string checkpoint_dir;  // if it holds a checkpoint, the pack must have been made of it
  bool preallocate = false;    // reads all of it now
};
/// Weights that lie in the file. kDataLoss: damaged; kUnimplemented: of another version, plan or checkpoint.
StatusOr<Weights> MapPack(const plan::Plan& plan, const std::string& path, const MapOptions& options = {});

/// Everything MapPack checks, every blob's checksum and every byte between them. kDataLoss names the weight.
Status VerifyPack(const plan::Plan& plan, const std::string& path, const LoadOptions& options = {});

/// What the header and the table say.
struct PackTable {
  Groups groups;
  BlobPlaces places;
  std::vector<uint64_t> sums;  // XXH3 of every blob
  uint64_t checkpoint_digest = 0;
  int64_t bytes = 0;  // of header and table
};
/// `prefix` holds at least header and table of a file of `file_bytes`. `name` is in front of every message. Time and
/// memory are bounded by the plan, not by what the file says. `check_sum` is off for fuzzers and tests, which spoil what
/// a checksum would hide from them.
StatusOr<PackTable> ParsePack(std::span<const uint8_t> prefix, int64_t file_bytes, const plan::Plan& plan,
                              const std::string& name, bool check_sum = true);

/// Header and table as they stand in the file. `table.bytes` is set.
std::vector<uint8_t> EncodePack(const PackTable& table, const plan::Plan& plan);

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_PACK_H_
