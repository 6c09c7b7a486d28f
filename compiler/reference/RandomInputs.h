//===- RandomInputs.h - weights and tokens out of a seed -------------------===//
//
// For "same numbers before and after" tests and for `qwenc verify`. What a parameter is drawn from follows from its
// canonical name (contracts, section 6), so that nothing is trivially one or zero and decays cover half-lives from
// less than a token to hundreds: with plain normals everywhere, wrong mathematics passes.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_COMPILER_REFERENCE_RANDOMINPUTS_H
#define QWEN_COMPILER_REFERENCE_RANDOMINPUTS_H

#include <cmath>

#include "compiler/reference/Interpreter.h"

namespace qwen::reference {

/// The params of `module`, drawn when asked for, in the type that their `model.param` has. The numbers depend on the
/// seed and the name alone: two modules with the same params see the same weights.
WeightSource randomWeights(mlir::ModuleOp module, uint64_t seed);

/// One weight [rows, cols] by the canonical name's rule; a vector is one row.
OwnedWeight randomWeight(const std::string &name, Type type, int64_t rows, int64_t cols, uint64_t seed);

std::vector<int32_t> randomIds(int64_t count, int64_t vocab, uint64_t seed);

/// The largest over rows of |got - want|_2 / |want|_2; infinite where shapes differ or a number is not finite.
/// `row`, if given, receives which one.
template <class A, class B>
double worstRowError(const Tensor<A> &got, const Tensor<B> &want, int64_t *row = nullptr) {
  if (got.shape != want.shape)
    return INFINITY;
  double worst = 0;
  for (int64_t t = 0; t < want.rows(); ++t) {
    double off = 0, size = 0;
    for (int64_t c = 0; c < want.channels(); ++c) {
      double a = got.row(t)[c], b = want.row(t)[c];
      off += (a - b) * (a - b);
      size += b * b;
    }
    double error = off == 0 ? 0 : std::sqrt(off / size);
    if (!(error <= worst)) { // a NaN is never below
      worst = std::isfinite(error) ? error : INFINITY;
      if (row)
        *row = t;
    }
  }
  return worst;
}

} // namespace qwen::reference

#endif
