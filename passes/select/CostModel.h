//===- CostModel.h - bytes and flops to a floor in microseconds -----------===//
//
// The floor of a step is the longer of its bytes over the target's bandwidth and its flops over the target's peak. It
// orders kernels that could serve the same dispatch, and is what `qwenc inspect --steps` prints beside each step.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_PASSES_SELECT_COSTMODEL_H
#define QWEN_PASSES_SELECT_COSTMODEL_H

#include "llvm/ADT/StringRef.h"

namespace qwen::passes {

struct TargetPeak {
  llvm::StringRef name;
  double bytesPerSecond;
  double flopsPerSecond;
};

/// The peak of a target: `cpu` is two cores of the machine the project is measured on, `sm_89` a 4090's data sheet.
const TargetPeak &peakOf(llvm::StringRef target);

/// Floor of a launch in microseconds.
double floorMicroseconds(const TargetPeak &peak, double bytes, double flops);

} // namespace qwen::passes

#endif
