//===- Faults.cpp - their table, and the loops too different for a hook ----===//

#include "compiler/reference/Faults.h"

#include <cmath>

namespace qwen::reference {

llvm::ArrayRef<FaultInfo> allFaults() {
  static const FaultInfo list[] = {
#define QWEN_FAULT(name, text, what) {Fault::name, text, what},
#include "compiler/reference/Faults.def"
#undef QWEN_FAULT
  };
  return list;
}

template <class Real>
void faultyDeltaRule(Fault fault, const Real *q, const Real *k, const Real *v, const Real *beta, const Real *g,
                     Real *state, Real *y, int64_t rows, const DeltaShape &shape) {
  int64_t dk = shape.key_dim, dv = shape.value_dim, heads = shape.value_heads;
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      int64_t head = t * heads + h;
      int64_t keyHead = fault == Fault::KeyHeadModulo ? h % shape.key_heads : h / (heads / shape.key_heads);
      const Real *qh = q + (t * shape.key_heads + keyHead) * dk, *kh = k + (t * shape.key_heads + keyHead) * dk;
      Real *s = state + h * dk * dv, decay = std::exp(g[head]);
      Real before = fault == Fault::ReadBeforeDecay || fault == Fault::DecayAfterUpdate ? 1 : decay;
      for (int64_t j = 0; j < dv; ++j) {
        Real read = 0, out = 0;
        for (int64_t i = 0; i < dk; ++i)
          read += before * s[i * dv + j] * kh[i];
        Real u = beta[head] * (v[head * dv + j] - (fault == Fault::DeltaDropped ? 0 : read));
        for (int64_t i = 0; i < dk; ++i) {
          Real &cell = s[i * dv + j], old = cell * decay;
          cell = fault == Fault::DecayAfterUpdate ? decay * (cell + kh[i] * u) : old + kh[i] * u;
          out += (fault == Fault::OutputBeforeUpdate ? old : cell) * qh[i];
        }
        y[head * dv + j] = out;
      }
    }
}

template <class Real>
void interleavedRope(const Real *x, const int64_t *positions, Real *y, int64_t tokens, int64_t heads, int64_t headDim,
                     const std::vector<float> &invFreq, double factor) {
  std::copy(x, x + tokens * heads * headDim, y);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h, x += headDim, y += headDim)
      for (size_t j = 0; j < invFreq.size(); ++j) {
        Real angle = float(positions[t]) * invFreq[j];
        Real cos = std::cos(angle) * Real(factor), sin = std::sin(angle) * Real(factor);
        y[2 * j] = x[2 * j] * cos - x[2 * j + 1] * sin;
        y[2 * j + 1] = x[2 * j + 1] * cos + x[2 * j] * sin;
      }
}

template <class Real>
void convWithoutSilu(const Real *x, const Real *weight, const std::vector<Real> &history, Real *y, int64_t rows,
                     int64_t channels, int64_t width, int64_t plainFrom) {
  std::vector<Real> u = history;
  u.insert(u.end(), x, x + rows * channels);
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t c = plainFrom; c < channels; ++c) {
      Real sum = 0;
      for (int64_t j = 0; j < width; ++j)
        sum += weight[c * width + j] * u[(t + j) * channels + c];
      y[t * channels + c] = sum;
    }
}

template void faultyDeltaRule(Fault, const float *, const float *, const float *, const float *, const float *, float *,
                              float *, int64_t, const DeltaShape &);
template void faultyDeltaRule(Fault, const double *, const double *, const double *, const double *, const double *,
                              double *, double *, int64_t, const DeltaShape &);
template void convWithoutSilu(const float *, const float *, const std::vector<float> &, float *, int64_t, int64_t,
                              int64_t, int64_t);
template void convWithoutSilu(const double *, const double *, const std::vector<double> &, double *, int64_t, int64_t,
                              int64_t, int64_t);
template void interleavedRope(const float *, const int64_t *, float *, int64_t, int64_t, int64_t,
                              const std::vector<float> &, double);
template void interleavedRope(const double *, const int64_t *, double *, int64_t, int64_t, int64_t,
                              const std::vector<float> &, double);

} // namespace qwen::reference
