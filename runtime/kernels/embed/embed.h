// embed: one row of the embedding table a token. Bound by bytes: hidden elements read and written a token.
#ifndef QWEN_RUNTIME_KERNELS_EMBED_EMBED_H_
#define QWEN_RUNTIME_KERNELS_EMBED_EMBED_H_

#include "runtime/kernels/kernel.h"

namespace qwen::kernels {

/// Spec of `embed_rows`. A tied table is gathers from the packed lm_head: one copy of it in memory.
struct EmbedSpec {
  int hidden, vocab;
  DType w_type, y_type;
  int tiled;  // the table is packed as tile16 (tied heads), else plain rows

  template <class V>
  void Visit(V& v) {
    v("hidden", hidden), v("vocab", vocab), v("w_type", w_type), v("y_type", y_type), v("tiled", tiled);
  }
};
enum EmbedArg { kEmbedTable /* [vocab, hidden] */, kEmbedY /* [tokens, hidden] */, kEmbedArgs };

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_EMBED_EMBED_H_
