// Happens-before, and the shadow that finds accesses without it.
//
// Every warp has a clock, which advances at each of its synchronisations, and remembers up to which clock of every
// other warp it has seen all accesses: a vector clock. A warp of the same block is learned of at barriers; other blocks
// through acquire and release, where a Knowledge travels by the address that was written. Lanes of one warp are ordered
// by bar.warp.sync. Clocks are Lamport's as well: a synchronised warp's clock is above all it has seen, so that a later
// clock is never an earlier event. FastTrack (Flanagan and Freund 2009) is the model: the last write to a word is kept
// exactly; of the reads only those of the latest clock. So an alarm is always a race, and a race that is missed in one
// order of blocks shows in another.
//
// What orders, apart from barriers: fence then a strong write (volatile, relaxed, atomic) releases what was before the
// fence; a strong read then a fence acquires, and so does a strong read followed by a block barrier. .release and
// .acquire do it alone. The last case is wider than the PTX memory model, which wants the fence: the last-block ticket
// is written without it everywhere.
#ifndef QWEN_TEST_CUDA_EMULATOR_RACES_H_
#define QWEN_TEST_CUDA_EMULATOR_RACES_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "test/cuda_emulator/program.h"

namespace qwen::emu {

/// For each block, the clocks of its warps up to which everything has been seen.
using KnownBlocks = std::map<uint32_t, std::vector<uint32_t>>;
using Knowledge = std::shared_ptr<const KnownBlocks>;

Knowledge Join(const Knowledge& a, const Knowledge& b);

/// Who made an access, in a word. Zero is nobody.
struct Access {
  uint64_t bits = 0;

  static Access Make(uint32_t block, uint32_t clock, int warp, int lane, unsigned bytes, bool strong) {
    return {uint64_t{clock & 0xffffff} << 40 | uint64_t{block & 0xffffff} << 16 | uint64_t(warp) << 11 |
            uint64_t(lane) << 6 | uint64_t{bytes} << 2 | uint64_t{strong} << 1 | 1};
  }
  uint32_t clock() const { return static_cast<uint32_t>(bits >> 40); }
  uint32_t block() const { return bits >> 16 & 0xffffff; }
  int warp() const { return bits >> 11 & 31; }
  int lane() const { return bits >> 6 & 31; }
  unsigned bytes() const { return bits >> 2 & 15; }  // of the word, one bit each
  bool strong() const { return bits >> 1 & 1; }
  explicit operator bool() const { return bits != 0; }
};

class WarpClock {
 public:
  void Reset(uint32_t block, int warp, int warps);

  uint32_t now() const { return now_; }
  uint32_t block() const { return block_; }
  int warp() const { return warp_; }

  /// True when `access` happened before what `lane` does now.
  bool Ordered(const Access& access, int lane) const {
    if (access.block() != block_) return OrderedAcrossBlocks(access);
    if (access.warp() != warp_) return access.clock() <= seen_[access.warp()];
    return access.lane() == lane || access.clock() <= floor_ ||
           (lanes_ && access.clock() <= (*lanes_)[lane][access.lane()]);
  }
  /// The same for a read kept as a clock, warps and lanes (SharedWord).
  bool WarpOrdered(int warp, uint32_t clock) const { return clock <= seen_[warp]; }
  bool LaneOrdered(int other, int lane, uint32_t clock) const {
    return other == lane || clock <= floor_ || (lanes_ && clock <= (*lanes_)[lane][other]);
  }

  /// bar.warp.sync of the lanes in `mask`; `live` are those that have not exited.
  void SyncLanes(uint32_t mask, uint32_t live);
  /// Joins what the warp knows into a barrier, and the barrier into the warp.
  struct Meeting {
    std::vector<uint32_t> seen;
    Knowledge blocks;
    uint32_t latest = 0;
  };
  void Arrive(Meeting* meeting);
  void Leave(const Meeting& meeting);

  void Fence();
  /// What a strong write publishes: all that is known with `release`, else what was known at the last fence.
  Knowledge Publish(bool release);
  /// A strong read found `published`.
  void Observe(const Knowledge& published, bool acquire);

 private:
  bool OrderedAcrossBlocks(const Access& access) const;
  Knowledge All() const;

  uint32_t block_ = 0, now_ = 1, floor_ = 0;
  int warp_ = 0;
  std::vector<uint32_t> seen_;
  // For each lane, the clock up to which it has seen the others; only after a bar.warp.sync of some lanes.
  std::unique_ptr<std::array<std::array<uint32_t, kLanes>, kLanes>> lanes_;
  Knowledge blocks_, fenced_, observed_;
};

/// The shadow of four bytes of shared memory.
struct SharedWord {
  Access write;
  uint32_t read_clock = 0, read_warps = 0, read_lanes = 0;
  uint8_t read_bytes = 0;
  uint8_t written = 0;  // one bit a byte
  uint8_t pending = 0;  // bytes that a cp.async is under way to
};

/// The shadow of global memory during one launch: pages of words, made when first touched.
class GlobalShadow {
 public:
  struct Word {
    std::atomic<uint64_t> write = 0, read = 0;
  };
  static constexpr uint64_t kPageBytes = 4096;
  struct Page {
    Word words[kPageBytes / 4];
  };

  GlobalShadow(uint64_t base, uint64_t bytes);
  ~GlobalShadow();
  GlobalShadow(const GlobalShadow&) = delete;

  /// The page of an address inside [base, base + bytes); null when nobody touched it and `make` is false. Any thread.
  Page* Find(uint64_t address, bool make) {
    std::atomic<Page*>& slot = pages_[(address - base_) / kPageBytes];
    Page* page = slot.load(std::memory_order_acquire);
    return page || !make ? page : Make(&slot);
  }

  /// The lock that makes a strong access and its part in a synchronisation one step.
  std::mutex& LockOf(uint64_t address) { return shards_[address / 4 % kShards].mutex; }
  /// Both under LockOf(address).
  void Publish(uint64_t address, const Knowledge& knowledge);
  Knowledge Published(uint64_t address);

 private:
  Page* Make(std::atomic<Page*>* slot);

  uint64_t base_, table_bytes_;
  std::atomic<Page*>* pages_;
  std::mutex mutex_;
  std::vector<std::atomic<Page*>*> made_;
  static constexpr int kShards = 64;
  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, Knowledge> published;
  };
  Shard shards_[kShards];
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_RACES_H_
