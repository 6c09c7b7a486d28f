// all_reduce: what ranks exchange. Sums are in rank order in f32, so all ranks hold the same bits (parallelism, section 9).
//
// The executor publishes argument 0 of every rank in Launch::peers and brackets the body with group barriers.
#ifndef QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_H_
#define QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

inline constexpr int kMaxRanks = 8;

/// sum = round(x_0 + x_1 + ...) [+ residual, rounded again]; y = norm(sum) where there is a norm.
struct AllReduceSpec {
  int channels;
  int residual, norm, round_first;
  float eps;
  DType y_type;

  template <class V>
  void Visit(V& v) {
    v("channels", channels), v("residual", residual), v("norm", norm), v("round_first", round_first), v("eps", eps);
    v("y_type", y_type);
  }
};
enum AllReduceArg {
  kReduceX,  // f32 [tokens, channels]: this rank's partial sum
  kReduceResidual,
  kReduceNormWeight,  // f32 [channels]
  kReduceSum,         // [tokens, channels]
  kReduceY,           // [tokens, channels]: normed; absent without norm
  kReduceArgs
};

/// y = x_0 | x_1 | ..., rank r's share being counts[r] channels.
struct AllGatherSpec {
  int ranks;
  int counts[kMaxRanks];

  template <class V>
  void Visit(V& v) {
    v("ranks", ranks), v("counts", counts, ranks);
  }
};
enum AllGatherArg { kGatherX /* f32 [logit rows, counts[rank]] */, kGatherY /* f32 [logit rows, sum] */, kGatherArgs };

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_ALL_REDUCE_ALL_REDUCE_H_
