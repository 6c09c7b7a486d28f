// Where the ranks of a program meet.
//
// A collective is a kernel whose body reads argument 0 of every rank (runtime/kernels/all_reduce). This says when it
// may, and hands over the addresses. Sums are in rank order inside the body, so all ranks hold the same bits.
#ifndef QWEN_RUNTIME_COMM_COMM_H_
#define QWEN_RUNTIME_COMM_COMM_H_

#include <memory>

namespace qwen::comm {

/// Every thread of every rank calls Enter, then Leave, for every collective of a program: the same number of times on
/// all ranks, which the executor checks before anything runs.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int ranks() const = 0;

  /// Returns when all have come: argument 0 of every rank, in rank order, valid until Leave. All that any rank wrote
  /// before is visible. `mine` is the rank's own; thread 0's counts.
  virtual const void* const* Enter(int rank, int thread, const void* mine) = 0;

  /// Returns when all have finished reading, so that a rank may overwrite what the others read.
  virtual void Leave() = 0;
};

/// Ranks as `threads` threads each of this process. `spins` as SpinsFor(ranks * threads) gives them.
std::unique_ptr<Comm> MakeShm(int ranks, int threads, int spins);

}  // namespace qwen::comm

#endif  // QWEN_RUNTIME_COMM_COMM_H_
