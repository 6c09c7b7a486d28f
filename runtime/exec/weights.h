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
#include "runtime/plan/plan.h"

namespace qwen::exec {

/// Every packed weight of every rank; index as in plan.packed, null where the checkpoint lacks its group. 64-byte
/// aligned. Weights whose bytes are the same (tied heads, what every rank has) share them.
struct Weights {
  std::vector<std::shared_ptr<uint8_t[]>> packed;
  bool has_mtp = true;          // a checkpoint without an MTP group turns draft_mtp off
  int64_t ignored_tensors = 0;  // in the checkpoint, named by no weight
  std::vector<std::string> warnings;
};

/// Maps the safetensors of `dir` and packs. Missing and misshapen tensors are listed all at once (kDataLoss); tensors
/// nobody names are ignored and counted. `progress` hears (bytes done, bytes in all).
StatusOr<Weights> LoadWeights(const plan::Plan& plan, const std::string& dir,
                              const std::function<void(int64_t, int64_t)>& progress = {});

/// Made-up weights, for benchmarks: a value depends on the seed, the weight's name, its row and column, so every number
/// of ranks sees the same model. Linears have a variance of 0.81 / fan-in, norms lie around 1.
StatusOr<Weights> RandomWeights(const plan::Plan& plan, uint64_t seed);

/// Packs one weight given as a plain row-major matrix in its own type; what LoadWeights does per tensor, and what
/// `qwenc verify` and the tests use for made-up weights. `source` is the whole weight, unsliced.
void PackWeight(const plan::Weight& weight, const plan::Packed& packed, const uint8_t* source, uint8_t* to);

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_WEIGHTS_H_
