// Whether a plan makes sense in itself: what the reader demands of a file and the writer of the compiler.
#ifndef QWEN_RUNTIME_PLAN_CHECK_H_
#define QWEN_RUNTIME_PLAN_CHECK_H_

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

inline constexpr int32_t kMaxTp = 8;

/// Every index, offset, size and reference of the plan, whose enums must hold one of their values (the reader's decoder
/// sees to that). kDataLoss, `section steps: ...`. What a kernel demands of its
/// Spec and arguments is the catalogue's to check (runtime/kernels/catalog.h).
Status CheckPlan(const Plan& plan);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_CHECK_H_
