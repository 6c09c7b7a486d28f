// How a request's next tokens are drawn: the user's options, checked, as the kernel's SampleParams.
//
// The draw itself is the `sample` kernel's (Gumbel-max keyed by seed, position and token id, contracts section 4): it
// depends on the request alone, never on the batch around it.
#ifndef QWEN_RUNTIME_ENGINE_SAMPLER_H_
#define QWEN_RUNTIME_ENGINE_SAMPLER_H_

#include <cstdint>

#include "runtime/base/status.h"
#include "runtime/kernels/kernel.h"

namespace qwen::engine {

struct SamplingOptions {
  float temperature = 0;  // below 1e-5: greedy, the others are not looked at
  int top_k = 0;          // 0: off
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  int choice = 0;  // of several answers to one request
};

/// kInvalidArgument with the value and its range.
Status CheckSampling(const SamplingOptions& options);

kernels::SampleParams MakeSampleParams(const SamplingOptions& options, bool write_logits = false,
                                       int vocab_used = 0);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_SAMPLER_H_
