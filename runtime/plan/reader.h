// Reads plan files (FORMAT.md) and trusts nothing in them.
#ifndef QWEN_RUNTIME_PLAN_READER_H_
#define QWEN_RUNTIME_PLAN_READER_H_

#include <cstdint>
#include <span>
#include <string>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

struct ReaderOptions {
  bool check_sums = true;  // off for fuzzers and tests, which spoil what checksums and digests would hide from them
};

/// The plan in `file`. Every byte of it is either checked against a checksum or required to have one value, and the
/// plan passes CheckPlan. kDataLoss with `name` and the section in front; kUnimplemented for another version. Time and
/// memory are bounded by a small multiple of the file's size.
StatusOr<Plan> ParsePlan(std::span<const uint8_t> file, const std::string& name, const ReaderOptions& options = {});

/// kResourceExhausted when the file cannot be read.
StatusOr<Plan> ReadPlan(const std::string& path);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_READER_H_
