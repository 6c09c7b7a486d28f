// A catalogue of four kernels that show who ran when. It stands in for the real one in executor_test.
#ifndef QWEN_TEST_RUNTIME_EXEC_FAKE_CATALOG_H_
#define QWEN_TEST_RUNTIME_EXEC_FAKE_CATALOG_H_

#include "runtime/plan/plan.h"

namespace qwen::exec::test {

inline constexpr int kFakeThreads = 8;  // at most
inline constexpr int kFakeScratch = 256, kFakeShared = 64;

/// `relay` (in, out): out[thread] = add + sum over all threads of in, which may be absent. Cells are i64, row 0 only.
/// `meet`  (in, out): collective. out[thread] = add + sum over ranks r and threads of (r + 1) * in of rank r.
/// `rows`  (out): i32 out[0] = num_tokens, as the kernel sees it.
/// `copy`  (in, out): the batch's rows of 4 bytes.
inline plan::Fields FakeSpec(int64_t add) {
  plan::Field field;
  field.name = "add";
  field.ints = {add};
  return {field};
}

}  // namespace qwen::exec::test

#endif  // QWEN_TEST_RUNTIME_EXEC_FAKE_CATALOG_H_
