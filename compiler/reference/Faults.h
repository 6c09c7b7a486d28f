//===- Faults.h - wrong mathematics on purpose -----------------------------===//
//
// A golden is worth what it refuses. Each fault makes the interpreter compute one thing wrongly; a test then shows
// that the goldens notice. Nothing outside tests sets one.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_REFERENCE_FAULTS_H
#define QWEN_COMPILER_REFERENCE_FAULTS_H

#include "llvm/ADT/ArrayRef.h"
#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

enum class Fault {
  None,
#define QWEN_FAULT(name, text, what) name,
#include "compiler/reference/Faults.def"
#undef QWEN_FAULT
};

struct FaultInfo {
  Fault fault;
  const char *name; // as tests and `tools/dev accept` print it
  const char *what;
};

/// Every fault but None, in the order of Faults.def.
llvm::ArrayRef<FaultInfo> allFaults();

/// GatedDeltaRule with its steps in the wrong order, or one of them left out, or keys found by the wrong map.
template <class Real>
void faultyDeltaRule(Fault fault, const Real *q, const Real *k, const Real *v, const Real *beta, const Real *g,
                     Real *state, Real *y, int64_t rows, const DeltaShape &shape);

/// Overwrites the channels from `plainFrom` on with the convolution before silu.
template <class Real>
void convWithoutSilu(const Real *x, const Real *weight, const std::vector<Real> &history, Real *y, int64_t rows,
                     int64_t channels, int64_t width, int64_t plainFrom);

/// Rope with channels 2j and 2j + 1 paired.
template <class Real>
void interleavedRope(const Real *x, const int64_t *positions, Real *y, int64_t tokens, int64_t heads, int64_t headDim,
                     const std::vector<float> &invFreq, double factor);

} // namespace qwen::reference

#endif
