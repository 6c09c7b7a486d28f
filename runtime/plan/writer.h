// Writes plan files (FORMAT.md). The same plan gives the same bytes.
#ifndef QWEN_RUNTIME_PLAN_WRITER_H_
#define QWEN_RUNTIME_PLAN_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

/// Sets `digest` and `weights_digest` and encodes. kInternal when the reader would refuse the plan: whoever made it has
/// a bug.
StatusOr<std::vector<uint8_t>> SerializePlan(Plan plan);

/// Serializes and writes all or nothing. kInvalidArgument when the file exists and `overwrite` is off.
Status WritePlan(const Plan& plan, const std::string& path, bool overwrite);

/// Encodes whatever it is given, with right checksums and digests. For tests of the reader. Field names of tensor types
/// that the format does not know become kinds that it does not know.
std::vector<uint8_t> EncodeUnchecked(Plan plan);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_WRITER_H_
