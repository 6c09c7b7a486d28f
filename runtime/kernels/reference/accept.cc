#include "runtime/kernels/reference/ops.h"

namespace qwen::reference {

int64_t Accept(const int32_t* next, const int32_t* ids, int64_t rows) {
  int64_t accepted = 0;
  while (accepted + 1 < rows && next[accepted] == ids[accepted + 1]) ++accepted;
  return accepted;
}

}  // namespace qwen::reference
