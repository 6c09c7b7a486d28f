// The plan that spoiled pack files are packed for; the fuzzer's too.
#ifndef QWEN_TEST_RUNTIME_EXEC_PACK_PLAN_H_
#define QWEN_TEST_RUNTIME_EXEC_PACK_PLAN_H_

#include <cstdint>

#include "test/runtime/plan/test_plan.h"

namespace qwen::exec::test {

/// The made-up plan on two ranks, with one more share, of an odd size: something is between two blobs.
inline plan::Plan MakePackPlan() {
  plan::Plan plan = plan::MakeTestPlan(2);
  for (int32_t w = 0; w < static_cast<int32_t>(plan.weights.size()); ++w)
    if (plan.weights[w].name == "final_norm")
      plan.packed.insert(plan.packed.begin(), {.weight = w,
                                               .rank = 0,
                                               .layout = plan::Layout::kVector,
                                               .slices = {{{3, 8}}},
                                               .bytes = 20,
                                               .net_bytes = 20});
  return plan;
}

}  // namespace qwen::exec::test

#endif  // QWEN_TEST_RUNTIME_EXEC_PACK_PLAN_H_
