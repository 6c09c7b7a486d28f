// Weights in a kernel's layout: mapped from the checkpoint's safetensors, packed tensor by tensor.
//
// The plan's weight map says which bytes go where (contracts, section 6); the plan itself holds none. Source pages are
// dropped as soon as they are packed, so the peak is the packed size plus one tensor.
#ifndef QWEN_RUNTIME_EXEC_WEIGHTS_H_
#define QWEN_RUNTIME_EXEC_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/exec/blobs.h"
#include "runtime/plan/plan.h"

namespace qwen::exec {

/// Every packed weight of every rank; index as in plan.packed, null where the checkpoint lacks its group. 64-byte
/// aligned; never written to. Weights whose bytes are the same (tied heads, what every rank has) share them.
struct Weights {
  std::vector<std::shared_ptr<uint8_t[]>> packed;
  bool has_mtp = true;          // a checkpoint without an MTP group turns draft_mtp off
  int64_t ignored_tensors = 0;  // in the checkpoint, named by no weight
  std::vector<std::string> warnings;
};

struct LoadOptions {
  /// Hears bytes done and bytes in all, on the caller's thread; 0 done comes first.
  std::function<void(int64_t, int64_t)> progress;
};

/// Maps the safetensors of `dir` and packs into memory, of which it takes exactly the distinct blobs' bytes. Missing
/// and misshapen tensors are listed all at once (kDataLoss); tensors nobody names are ignored and counted.
StatusOr<Weights> LoadWeights(const plan::Plan& plan, const std::string& dir, const LoadOptions& options = {});

/// Made-up weights, for benchmarks: a value depends on the seed, the weight's name, its row and column, so every number
/// of ranks sees the same model. Linears have a variance of 0.81 / fan-in, norms lie around 1.
StatusOr<Weights> RandomWeights(const plan::Plan& plan, uint64_t seed, const LoadOptions& options = {});

/// Packs one weight given as a plain row-major matrix in its own type; what LoadWeights does per tensor, and what
/// `qwenc verify` and the tests use for made-up weights. `source` is the whole weight, unsliced.
void PackWeight(const plan::Weight& weight, const plan::Packed& packed, const uint8_t* source, uint8_t* to);

/// Where packed bytes go, one blob after the other.
class BlobSink {
 public:
  virtual ~BlobSink() = default;
  /// Comes first, and says where the blobs of these groups will be.
  virtual StatusOr<BlobPlaces> Begin(const Groups& groups) = 0;
  /// Room for a blob's bytes, at a multiple of 64; theirs until Done.
  virtual StatusOr<uint8_t*> Room(size_t blob) = 0;
  virtual Status Done(size_t blob) = 0;
};

/// What there is to say of a checkpoint that was packed.
struct CheckpointFacts {
  Groups groups;
  uint64_t digest = 0;  // of the files' names and headers
  int64_t ignored_tensors = 0;
  std::vector<std::string> warnings;
};

/// LoadWeights, into any sink.
StatusOr<CheckpointFacts> PackCheckpoint(const plan::Plan& plan, const std::string& dir, const LoadOptions& options,
                                         BlobSink* sink);

/// plan.packed as addresses of `places` from `base` on, all of which keep `owner`.
std::vector<std::shared_ptr<uint8_t[]>> AddressesOf(const BlobPlaces& places, const std::shared_ptr<void>& owner,
                                                    uint8_t* base);

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_WEIGHTS_H_
