#include "test/cuda_emulator/access.h"

#include <fmt/format.h>

#include <bit>

namespace qwen::emu {
namespace {

/// The lanes of a mask, from the lowest.
template <class F>
bool EachLane(uint32_t mask, F f) {
  for (; mask; mask &= mask - 1)
    if (!f(std::countr_zero(mask))) return false;
  return true;
}

const char* Verb(const AccessKind& kind) { return kind.write ? (kind.read ? "updates" : "writes") : "reads"; }

bool FailAddress(Warp& w, int lane, const char* space, uint64_t address, unsigned bytes, const AccessKind& kind) {
  const DeviceMemory& memory = *w.block->launch->memory;
  std::string what = fmt::format("{} {} bytes of {} memory at {:#x}", Verb(kind), bytes, space, address);
  if (memory.Contains(address)) {
    for (unsigned i = 0; i < bytes; ++i) {
      uint8_t shadow = memory.Contains(address + i) ? memory.shadow(address + i) : 0;
      if (memory.Freed(address + i)) {
        w.Fail(FaultKind::kUseAfterFree, lane, what + ", " + memory.Describe(address + i));
        return false;
      }
      if (!(shadow & DeviceMemory::kAllocated)) {
        w.Fail(FaultKind::kOutOfBounds, lane, what + ", " + memory.Describe(address + i));
        return false;
      }
      if (kind.read && !(shadow & DeviceMemory::kWritten)) {
        w.Fail(FaultKind::kUnwritten, lane, what + ", " + memory.Describe(address + i));
        return false;
      }
    }
  }
  w.Fail(FaultKind::kOutOfBounds, lane, what + ", " + memory.Describe(address));
  return false;
}

bool FailRace(Warp& w, int lane, const char* space, uint64_t address, const AccessKind& kind, const Access& other,
              bool other_writes) {
  w.Fail(FaultKind::kRace, lane,
         fmt::format(
             "{} {} memory at {:#x}, which block {}, warp {}, lane {} {} without a synchronisation between them",
             Verb(kind), space, address, other.block(), other.warp(), other.lane(), other_writes ? "wrote" : "read"));
  return false;
}

void CountSectors(Warp& w, uint32_t mask, const uint64_t* addresses, const AccessKind& kind) {
  DeviceMemory& memory = *w.block->launch->memory;
  Counters& counters = *w.block->counters;
  uint32_t launch = w.block->launch->id;
  uint64_t sectors[kLanes];
  int count = 0;
  EachLane(mask, [&](int lane) {
    // An aligned access of up to 16 bytes lies in one sector.
    uint64_t sector = addresses[lane] / 32;
    for (int i = count - 1; i >= 0; --i)
      if (sectors[i] == sector) return true;
    sectors[count++] = sector;
    return true;
  });
  for (int i = 0; i < count; ++i) {
    uint64_t address = sectors[i] * 32;
    if (!memory.Contains(address)) continue;
    if (kind.read) counters.read_sectors_unique += memory.FirstTouch(address, launch, false);
    if (kind.write) counters.write_sectors_unique += memory.FirstTouch(address, launch, true);
  }
  if (kind.read) counters.read_sectors_requested += static_cast<uint64_t>(count);
  if (kind.write) counters.write_sectors_requested += static_cast<uint64_t>(count);
}

/// Checks and records one lane's words in the shadow of global memory.
bool CheckGlobalRace(Warp& w, int lane, uint64_t address, unsigned bytes, const AccessKind& kind) {
  GlobalShadow& shadow = *w.block->launch->shadow;
  GlobalShadow::Page* page = shadow.Find(address, kind.write || !kind.read_only);
  if (!page) return true;
  const WarpClock& clock = w.clock;
  uint64_t first = address / 4, last = (address + bytes - 1) / 4;
  for (uint64_t word = first; word <= last; ++word) {
    GlobalShadow::Word& cell = page->words[word % (GlobalShadow::kPageBytes / 4)];
    unsigned touched = 15;
    if (bytes < 4) touched = ((1u << bytes) - 1) << (address & 3);
    Access write{cell.write.load(std::memory_order_relaxed)};
    if (write && (write.bytes() & touched) && !(kind.strong && write.strong()) && !clock.Ordered(write, lane)) {
      // Lanes of one instruction that write the same value leave no doubt about the result: the caller decides.
      return FailRace(w, lane, "global", word * 4, kind, write, true);
    }
    if (kind.write) {
      Access read{cell.read.load(std::memory_order_relaxed)};
      if (read && (read.bytes() & touched) && !(kind.strong && read.strong()) && !clock.Ordered(read, lane))
        return FailRace(w, lane, "global", word * 4, kind, read, false);
      cell.write.store(Access::Make(clock.block(), clock.now(), w.index, lane, touched, kind.strong).bits,
                       std::memory_order_relaxed);
    } else if (!kind.read_only) {
      cell.read.store(Access::Make(clock.block(), clock.now(), w.index, lane, touched, kind.strong).bits,
                      std::memory_order_relaxed);
    }
  }
  return true;
}

}  // namespace

bool IsHostMemory(const Warp& w, uint64_t address, unsigned bytes) {
  const Launch& launch = *w.block->launch;
  return !launch.memory->Contains(address) && !launch.host->empty() && launch.host->Contains(address, bytes);
}

bool AccessGlobal(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes, const AccessKind& kind) {
  Launch& launch = *w.block->launch;
  DeviceMemory& memory = *launch.memory;
  bool races = launch.shadow != nullptr;
  bool check_unwritten = launch.options->check_unwritten;
  unsigned alignment = kind.alignment ? kind.alignment : bytes;
  bool fine = EachLane(mask, [&](int lane) {
    uint64_t address = addresses[lane];
    if (address % alignment != 0) {
      w.Fail(FaultKind::kMisaligned, lane,
             fmt::format("{} {} bytes of global memory at {:#x}, which is no multiple of {}", Verb(kind), bytes,
                         address, alignment));
      return false;
    }
    if (!memory.Contains(address)) {
      if (IsHostMemory(w, address, bytes)) return true;
      return FailAddress(w, lane, "global", address, bytes, kind);
    }
    bool good = kind.read && check_unwritten ? memory.Readable(address, bytes) : memory.Writable(address, bytes);
    if (!good) return FailAddress(w, lane, "global", address, bytes, kind);
    if (kind.write) memory.MarkWritten(address, bytes);
    return !races || CheckGlobalRace(w, lane, address, bytes, kind);
  });
  if (fine) CountSectors(w, mask, addresses, kind);
  return fine;
}

void CountWavefronts(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes) {
  // 32 lanes of 4 bytes fill the banks once; wider accesses go in as many parts.
  int lanes_at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  for (int first = 0; first < kLanes; first += lanes_at_once) {
    uint64_t words[32][8];  // of each bank, the distinct words seen; a ninth is counted without comparing
    int counts[32] = {}, most = 0;
    for (int lane = first; lane < first + lanes_at_once; ++lane) {
      if (!(mask >> lane & 1)) continue;
      for (uint64_t word = addresses[lane] / 4; word <= (addresses[lane] + bytes - 1) / 4; ++word) {
        int bank = static_cast<int>(word % 32);
        bool seen = false;
        for (int i = 0; i < std::min(counts[bank], 8); ++i) seen |= words[bank][i] == word;
        if (seen) continue;
        if (counts[bank] < 8) words[bank][counts[bank]] = word;
        most = std::max(most, ++counts[bank]);
      }
    }
    if (!most) continue;
    w.block->counters->shared_wavefronts += static_cast<uint64_t>(most);
    w.block->counters->bank_conflicts += static_cast<uint64_t>(most - 1);
  }
}

bool AccessShared(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes, const AccessKind& kind,
                  bool count) {
  Block& block = *w.block;
  const Options& options = *block.launch->options;
  bool races = options.races != RaceCheck::kOff;
  unsigned alignment = kind.alignment ? kind.alignment : bytes;
  uint64_t size = block.launch->shared_bytes;
  const WarpClock& clock = w.clock;
  bool fine = EachLane(mask, [&](int lane) {
    uint64_t address = addresses[lane];
    if (address % alignment != 0) {
      w.Fail(FaultKind::kMisaligned, lane,
             fmt::format("{} {} bytes of shared memory at {:#x}, which is no multiple of {}", Verb(kind), bytes,
                         address, alignment));
      return false;
    }
    if (address >= size || bytes > size - address) {
      w.Fail(FaultKind::kOutOfBounds, lane,
             fmt::format("{} {} bytes of shared memory at {:#x}, the block has {}", Verb(kind), bytes, address, size));
      return false;
    }
    unsigned touched = bytes < 4 ? ((1u << bytes) - 1) << (address & 3) : 15;
    for (uint64_t word = address / 4; word <= (address + bytes - 1) / 4; ++word) {
      SharedWord& cell = block.shared_words[word];
      if (races && (cell.pending & touched)) {
        w.Fail(FaultKind::kRace, lane,
               fmt::format("{} shared memory at {:#x}, which a cp.async is under way to: no wait_group yet", Verb(kind),
                           word * 4));
        return false;
      }
      if (kind.read && options.check_unwritten && (cell.written & touched) != touched) {
        w.Fail(FaultKind::kUnwritten, lane, fmt::format("reads {} bytes of shared memory at {:#x}", bytes, address));
        return false;
      }
      if (races) {
        const Access& write = cell.write;
        if (write && (write.bytes() & touched) && !(kind.strong && write.strong()) && !clock.Ordered(write, lane))
          return FailRace(w, lane, "shared", word * 4, kind, write, true);
        if (kind.write) {
          if (cell.read_warps && (cell.read_bytes & touched) && !kind.strong) {
            // Warps that read at the clock that is kept; of this warp, other lanes.
            for (uint32_t warps = cell.read_warps; warps; warps &= warps - 1) {
              int reader = std::countr_zero(warps);
              if (reader != w.index) {
                if (!clock.WarpOrdered(reader, cell.read_clock))
                  return FailRace(
                      w, lane, "shared", word * 4, kind,
                      Access::Make(block.id, cell.read_clock, reader, std::countr_zero(cell.read_lanes), 0, false),
                      false);
                continue;
              }
              for (uint32_t lanes = cell.read_lanes; lanes; lanes &= lanes - 1) {
                int other = std::countr_zero(lanes);
                if (!clock.LaneOrdered(other, lane, cell.read_clock))
                  return FailRace(w, lane, "shared", word * 4, kind,
                                  Access::Make(block.id, cell.read_clock, reader, other, 0, false), false);
              }
            }
          }
          cell.write = Access::Make(block.id, clock.now(), w.index, lane, touched, kind.strong);
        }
        if (kind.read && !kind.strong) {
          if (cell.read_clock != clock.now() || !cell.read_warps) {
            if (!cell.read_warps || clock.now() > cell.read_clock) {
              cell.read_clock = clock.now();
              cell.read_warps = 1u << w.index;
              cell.read_lanes = 1u << lane;
              cell.read_bytes = static_cast<uint8_t>(touched);
            }
          } else {
            cell.read_warps |= 1u << w.index;
            cell.read_lanes |= 1u << lane;
            cell.read_bytes |= static_cast<uint8_t>(touched);
          }
        }
      }
      if (kind.write) cell.written |= static_cast<uint8_t>(touched);
    }
    return true;
  });
  if (fine && count) CountWavefronts(w, mask, addresses, bytes);
  return fine;
}

bool AccessLocal(Warp& w, uint32_t mask, const uint64_t* addresses, unsigned bytes) {
  return EachLane(mask, [&](int lane) {
    uint64_t address = addresses[lane];
    if (address % bytes != 0) {
      w.Fail(FaultKind::kMisaligned, lane, fmt::format("{} bytes of local memory at {:#x}", bytes, address));
      return false;
    }
    if (address >= w.local_end() || bytes > w.local_end() - address) {
      w.Fail(FaultKind::kOutOfBounds, lane,
             fmt::format("{} bytes of local memory at {:#x}, the thread has {}", bytes, address, w.local_end()));
      return false;
    }
    return true;
  });
}

StrongAccess::StrongAccess(Warp& w, uint64_t address, const MemoryAccess& access)
    : w_(w), address_(address), access_(access) {
  if (GlobalShadow* shadow = w.block->launch->shadow.get()) lock_ = std::unique_lock(shadow->LockOf(address));
}
StrongAccess::~StrongAccess() = default;

void StrongAccess::Read() {
  if (!w_.block->launch->shadow) return;
  bool acquire =
      access_.order == MemoryAccess::Order::kAcquire || access_.order == MemoryAccess::Order::kAcquireRelease;
  w_.clock.Observe(w_.block->launch->shadow->Published(address_), acquire);
}
void StrongAccess::Wrote(bool changed) {
  if (changed) ++w_.block->launch->progress;
  if (!w_.block->launch->shadow) return;
  bool release =
      access_.order == MemoryAccess::Order::kRelease || access_.order == MemoryAccess::Order::kAcquireRelease;
  w_.block->launch->shadow->Publish(address_, w_.clock.Publish(release));
}

}  // namespace qwen::emu
