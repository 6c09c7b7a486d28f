#include "runtime/engine/sampler.h"

#include "fmt/format.h"

namespace qwen::engine {

Status CheckSampling(const SamplingOptions& options) {
  // Written so that NaN fails too.
  if (!(options.temperature >= 0 && options.temperature <= 100))
    return InvalidArgumentError(fmt::format("temperature: {} is outside 0..100", options.temperature));
  if (options.top_k < 0) return InvalidArgumentError(fmt::format("top_k: {} is below 0", options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1))
    return InvalidArgumentError(fmt::format("top_p: {} is not above 0 and at most 1", options.top_p));
  if (!(options.min_p >= 0 && options.min_p <= 1))
    return InvalidArgumentError(fmt::format("min_p: {} is outside 0..1", options.min_p));
  if (options.choice < 0) return InvalidArgumentError(fmt::format("choice: {} is below 0", options.choice));
  return {};
}

kernels::SampleParams MakeSampleParams(const SamplingOptions& options, bool write_logits, int vocab_used) {
  kernels::SampleParams params{};
  params.seed = options.seed;
  params.choice = options.choice;
  params.top_k = options.top_k;
  params.temperature = options.temperature;
  params.top_p = options.top_p;
  params.min_p = options.min_p;
  params.vocab_used = vocab_used;
  params.mask = -1;  // none
  // Below this the quotients leave what f32 tells apart.
  if (options.temperature < 1e-5f) params.flags |= kernels::kSampleGreedy;
  if (write_logits) params.flags |= kernels::kSampleWriteLogits;
  return params;
}

}  // namespace qwen::engine
