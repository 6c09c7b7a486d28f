// Device memory: a reservation of addresses per device, an allocator, and a shadow byte for every byte.
//
// A device address is an address of this process, so a checked access is a plain load or store. The reservation is
// four times the memory, and a freed range is not given out again before the rest is used up, which is what makes a use
// after free visible. Host memory that kernels may see (cuMemHostAlloc, cuMemHostRegister) has no shadow: the host
// writes it unseen.
#ifndef QWEN_TEST_CUDA_EMULATOR_MEMORY_H_
#define QWEN_TEST_CUDA_EMULATOR_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::emu {

// Windows of the generic address space that are no host addresses.
constexpr uint64_t kSharedWindow = 0x0100'0000'0000, kLocalWindow = 0x0200'0000'0000, kParamWindow = 0x0300'0000'0000;
constexpr uint64_t kWindowBytes = uint64_t{1} << 32;

/// Page-locked host ranges of the process, seen by every device.
class HostRanges {
 public:
  /// False when the range overlaps one that is there.
  bool Add(uint64_t begin, uint64_t bytes, unsigned flags, bool owned);
  /// The range's size, or 0 when no range begins there.
  uint64_t Remove(uint64_t begin, bool owned);
  /// Any thread.
  bool Contains(uint64_t address, uint64_t bytes) const;
  bool Flags(uint64_t address, unsigned* flags) const;
  bool empty() const { return count_.load(std::memory_order_relaxed) == 0; }

 private:
  struct Range {
    uint64_t bytes;
    unsigned flags;
    bool owned;
  };
  mutable std::mutex mutex_;
  std::map<uint64_t, Range> ranges_;
  std::atomic<int> count_ = 0;
};

class DeviceMemory {
 public:
  // Bits of a shadow byte.
  static constexpr uint8_t kAllocated = 1, kWritten = 2;

  static StatusOr<std::unique_ptr<DeviceMemory>> Create(uint64_t bytes);
  ~DeviceMemory();

  /// 256-byte aligned, at least 256 bytes away from any other. kResourceExhausted when the memory is full.
  StatusOr<uint64_t> Allocate(uint64_t bytes);
  /// kInvalidArgument unless a live allocation begins at `address`.
  Status Free(uint64_t address);
  /// The live allocation that holds `address`.
  bool Find(uint64_t address, uint64_t* base, uint64_t* bytes) const;

  bool Contains(uint64_t address) const { return address - base_ < reserved_; }
  uint64_t base() const { return base_; }
  uint64_t reserved() const { return reserved_; }
  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }
  uint64_t allocations() const { return allocations_; }

  /// All of [address, address + bytes) is allocated. Any thread.
  bool Writable(uint64_t address, uint64_t bytes) const { return All(address, bytes, kAllocated); }
  bool Readable(uint64_t address, uint64_t bytes) const { return All(address, bytes, kWritten); }
  void MarkWritten(uint64_t address, uint64_t bytes) {
    std::memset(shadow_ + (address - base_), kAllocated | kWritten, bytes);
  }
  /// The shadow of `dst` becomes that of `src`, which lies in this memory too.
  void CopyShadow(uint64_t dst, uint64_t src, uint64_t bytes) {
    std::memmove(shadow_ + (dst - base_), shadow_ + (src - base_), bytes);
  }
  uint8_t shadow(uint64_t address) const { return shadow_[address - base_]; }

  /// The address was given back, and nothing is there now.
  bool Freed(uint64_t address) const;
  /// Where an address lies: `16 bytes past the 1024 bytes allocated at 0x…`.
  std::string Describe(uint64_t address) const;

  /// Counts a sector of 32 bytes once per launch and direction. True the first time; what the launch wrote before it
  /// reads it is in L2 and no read of DRAM. Any thread; a tie between threads may count twice.
  bool FirstTouch(uint64_t address, uint32_t launch, bool write) {
    const uint64_t sector = (address - base_) / 32;
    if (write) __atomic_store_n(&read_tags_[sector], launch, __ATOMIC_RELAXED);
    uint32_t& tag = (write ? write_tags_ : read_tags_)[sector];
    if (__atomic_load_n(&tag, __ATOMIC_RELAXED) == launch) return false;
    __atomic_store_n(&tag, launch, __ATOMIC_RELAXED);
    return true;
  }

 private:
  DeviceMemory() = default;
  bool All(uint64_t address, uint64_t bytes, uint8_t bit) const {
    uint64_t offset = address - base_;
    if (offset >= reserved_ || bytes > reserved_ - offset) return false;
    const uint8_t* s = shadow_ + offset;
    uint64_t all = ~uint64_t{0}, word;
    uint64_t pattern = 0x0101010101010101ull * bit;
    for (; bytes >= 8; bytes -= 8, s += 8) std::memcpy(&word, s, 8), all &= word;
    if (bytes >= 4) {
      uint32_t half;
      std::memcpy(&half, s, 4), all &= half | uint64_t{half} << 32, bytes -= 4, s += 4;
    }
    for (; bytes; --bytes, ++s) all &= 0x0101010101010101ull * *s;
    return (all & pattern) == pattern;
  }

  struct Block {
    uint64_t bytes;
    bool live;
  };
  uint64_t base_ = 0, reserved_ = 0, capacity_ = 0, next_ = 0;
  uint8_t* shadow_ = nullptr;
  uint32_t *read_tags_ = nullptr, *write_tags_ = nullptr;
  mutable std::mutex mutex_;
  std::map<uint64_t, Block> blocks_;
  std::atomic<uint64_t> used_ = 0, allocations_ = 0;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_MEMORY_H_
