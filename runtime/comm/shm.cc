// Ranks in one address space: addresses are handed over as they are, and both meetings are one barrier of all threads.
#include <vector>

#include "runtime/base/thread_pool.h"
#include "runtime/comm/comm.h"

namespace qwen::comm {
namespace {

class Shm : public Comm {
 public:
  Shm(int ranks, int threads, int spins) : peers_(ranks), barrier_(ranks * threads, spins) {}

  int ranks() const override { return static_cast<int>(peers_.size()); }

  const void* const* Enter(int rank, int thread, const void* mine) override {
    if (thread == 0) peers_[rank] = mine;
    barrier_.Wait();
    return peers_.data();
  }

  void Leave() override { barrier_.Wait(); }

 private:
  std::vector<const void*> peers_;
  Barrier barrier_;
};

}  // namespace

std::unique_ptr<Comm> MakeShm(int ranks, int threads, int spins) {
  return std::make_unique<Shm>(ranks, threads, spins);
}

}  // namespace qwen::comm
