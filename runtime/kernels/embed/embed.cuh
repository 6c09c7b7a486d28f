// embed_rows: a block owns a token.
#ifndef QWEN_RUNTIME_KERNELS_EMBED_EMBED_CUH_
#define QWEN_RUNTIME_KERNELS_EMBED_EMBED_CUH_

#include "runtime/kernels/cuda/types.cuh"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/formats/tile16.h"

namespace qwen::kernels::cuda {

template <class Spec>
__device__ void EmbedRows(const Launch<kEmbedArgs>& launch) {
  using W = Element<Spec::w_type>;
  using Y = Element<Spec::y_type>;
  const int row = blockIdx.x;
  if (row >= *launch.rows) return;
  const W* table = static_cast<const W*>(launch.args[kEmbedTable]);
  Y* y = static_cast<Y*>(launch.args[kEmbedY]) + static_cast<long long>(row) * Spec::hidden;
  const long long id = launch.batch.token_ids[row];
  for (int c = threadIdx.x; c < Spec::hidden; c += Spec::kThreads) {
    const long long at = Spec::tiled ? Tile16Index(Spec::w_type, Spec::hidden, id, c) : id * Spec::hidden + c;
    y[c] = FromFloat<Y>(ToFloat(table[at]));
  }
}

}  // namespace qwen::kernels::cuda

#endif  // QWEN_RUNTIME_KERNELS_EMBED_EMBED_CUH_
