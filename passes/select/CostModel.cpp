//===- CostModel.cpp - peaks and floors -----------------------------------===//

#include "passes/select/CostModel.h"

#include <algorithm>
#include <cassert>

namespace qwen::passes {

// cpu: best read bandwidth and bf16 rate seen with two threads (toolchain notes); sm_89: RTX 4090, 92 % of 1008 GB/s.
static constexpr TargetPeak kPeaks[] = {{"cpu", 36e9, 428e9}, {"sm_89", 927e9, 165.2e12}};

const TargetPeak &peakOf(llvm::StringRef target) {
  for (const TargetPeak &peak : kPeaks)
    if (peak.name == target)
      return peak;
  assert(false && "a target without a peak");
  return kPeaks[0];
}

double floorMicroseconds(const TargetPeak &peak, double bytes, double flops) {
  return 1e6 * std::max(bytes / peak.bytesPerSecond, flops / peak.flopsPerSecond);
}

} // namespace qwen::passes
