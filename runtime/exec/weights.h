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

/// Every packed weight of every rank; index as in plan.packed. 64-byte aligned.
struct Weights {
  std::vector<std::shared_ptr<uint8_t[]>> packed;
  bool has_mtp = true;  // a checkpoint without an MTP group turns draft_mtp off
  std::vector<std::string> warnings;
};

/// Maps the safetensors of `dir` and packs. Missing and misshapen tensors are listed all at once (kDataLoss); tensors
/// nobody names are ignored and counted. `progress` hears (bytes done, bytes in all).
StatusOr<Weights> LoadWeights(const plan::Plan& plan, const std::string& dir,
                              const std::function<void(int64_t, int64_t)>& progress = {});

/// Packs one weight given as a plain row-major matrix in its own type; what LoadWeights does per tensor, and what
/// `qwenc verify` and the tests use for made-up weights. `source` is the whole weight, unsliced.
void PackWeight(const plan::Weight& weight, const plan::Packed& packed, const uint8_t* source, uint8_t* to);

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_WEIGHTS_H_
