//===- Verify.h - every kernel of a plan against the ops it stands for ----===//

#ifndef QWEN_COMPILER_VERIFY_VERIFY_H
#define QWEN_COMPILER_VERIFY_VERIFY_H

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

#include <optional>
#include <string>
#include <vector>

namespace qwen::compiler {

struct VerifyOptions {
  uint64_t seed = 1;
  bool cuda = false;              // the programs for sm_89 on the first card instead of the processor's
  std::optional<std::string> isa; // base, avx2, avx512, amx; the best one here when absent
  int promptRows = 65;            // of the first prompt: 65 cross a chunk's border, fewer suit a slow device
  std::string breakFamily;        // test hook: spoils what this family's kernels computed
};

/// One kernel record of the plan.
struct KernelReport {
  std::string kernel, family, entry;
  double error = 0;     // worst relative L2 over what the kernel writes: results and cached state; 1 for a wrong integer
  double tolerance = 0; // of that output
  std::string output;   // which one
  int64_t rows = 0;
  uint64_t bits = 0; // XXH3 of all it wrote: equal where two runs agree to the bit
  bool ok() const { return error <= tolerance; }
};

struct VerifyReport {
  std::string where; // the code path, or cuda
  std::vector<KernelReport> kernels; // as in the plan, each once

  std::string text() const;
  std::string json() const;
  /// kCheckFailed, naming the kernels, when one is beyond its tolerance.
  Status status() const;
};

/// Runs every distinct kernel record of the target on random weights and states, and the model ops of its region in f64 on
/// the same numbers (contracts, section 8). Three ragged batches: short sequences of 1 and max_rows rows with an empty, a
/// nearly full and a folding ring beside prompts of 65 and 5 rows; one row behind 2,999 others; nine short sequences.
/// kDataLoss when the plan's IR does not fit its kernels, kUnimplemented when there is no program or card to ask.
StatusOr<VerifyReport> verifyPlan(const plan::Plan &plan, const VerifyOptions &options);

} // namespace qwen::compiler

#endif
