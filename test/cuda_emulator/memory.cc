#include "test/cuda_emulator/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

namespace qwen::emu {
namespace {

constexpr uint64_t kAlignment = 256, kGap = 256;

void* Reserve(uint64_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}
/// Whole pages of [begin, end) go back to the system and read as zero; the addresses stay ours.
void GiveBack(const void* begin, const void* end) {
  constexpr uint64_t kPage = 4096;
  const uint64_t from = (reinterpret_cast<uint64_t>(begin) + kPage - 1) / kPage * kPage;
  const uint64_t to = reinterpret_cast<uint64_t>(end) / kPage * kPage;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}
uint64_t RoundUp(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

bool HostRanges::Add(uint64_t begin, uint64_t bytes, unsigned flags, bool owned) {
  std::lock_guard lock(mutex_);
  auto next = ranges_.lower_bound(begin);
  if (next != ranges_.end() && next->first < begin + bytes) return false;
  if (next != ranges_.begin() && std::prev(next)->first + std::prev(next)->second.bytes > begin) return false;
  ranges_[begin] = {bytes, flags, owned};
  ++count_;
  return true;
}

uint64_t HostRanges::Remove(uint64_t begin, bool owned) {
  std::lock_guard lock(mutex_);
  auto it = ranges_.find(begin);
  if (it == ranges_.end() || it->second.owned != owned) return 0;
  uint64_t bytes = it->second.bytes;
  ranges_.erase(it);
  --count_;
  return bytes;
}

bool HostRanges::Contains(uint64_t address, uint64_t bytes) const {
  std::lock_guard lock(mutex_);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return false;
  --it;
  uint64_t offset = address - it->first;
  return offset < it->second.bytes && bytes <= it->second.bytes - offset;
}

bool HostRanges::Flags(uint64_t address, unsigned* flags) const {
  std::lock_guard lock(mutex_);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return false;
  --it;
  if (address - it->first >= it->second.bytes) return false;
  *flags = it->second.flags;
  return true;
}

StatusOr<std::unique_ptr<DeviceMemory>> DeviceMemory::Create(uint64_t bytes) {
  std::unique_ptr<DeviceMemory> memory(new DeviceMemory);
  memory->capacity_ = bytes;
  uint64_t reserved = RoundUp(bytes) * 4;
  void* base = Reserve(reserved);
  memory->shadow_ = static_cast<uint8_t*>(Reserve(reserved));
  memory->read_tags_ = static_cast<uint32_t*>(Reserve(reserved / 8));
  memory->write_tags_ = static_cast<uint32_t*>(Reserve(reserved / 8));
  memory->base_ = reinterpret_cast<uint64_t>(base);
  memory->reserved_ = reserved;
  memory->next_ = memory->base_ + kGap;
  if (!base || !memory->shadow_ || !memory->read_tags_ || !memory->write_tags_)
    return ResourceExhaustedError(fmt::format("cannot reserve {} bytes of addresses for a device", reserved));
  return memory;
}

DeviceMemory::~DeviceMemory() {
  if (base_) munmap(reinterpret_cast<void*>(base_), reserved_);
  if (shadow_) munmap(shadow_, reserved_);
  if (read_tags_) munmap(read_tags_, reserved_ / 8);
  if (write_tags_) munmap(write_tags_, reserved_ / 8);
}

StatusOr<uint64_t> DeviceMemory::Allocate(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (bytes == 0 || bytes > capacity_ || used_ + bytes > capacity_)
    return ResourceExhaustedError(fmt::format("{} bytes wanted, {} of {} free", bytes, capacity_ - used_, capacity_));
  uint64_t room = RoundUp(bytes) + kGap, address = 0;
  if (next_ + room <= base_ + reserved_) {
    address = next_;
    next_ += room;
  } else {
    // The reservation is used up: the first freed range that is large enough.
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      if (it->second.live || RoundUp(it->second.bytes) < RoundUp(bytes)) continue;
      address = it->first;
      blocks_.erase(it);
      break;
    }
    if (!address) return ResourceExhaustedError(fmt::format("no range of {} bytes left", bytes));
  }
  blocks_[address] = {bytes, true};
  used_ += bytes;
  ++allocations_;
  std::memset(shadow_ + (address - base_), kAllocated, bytes);
  return address;
}

Status DeviceMemory::Free(uint64_t address) {
  std::lock_guard lock(mutex_);
  auto it = blocks_.find(address);
  if (it == blocks_.end() || !it->second.live)
    return InvalidArgumentError(fmt::format("no allocation begins at {:#x}", address));
  it->second.live = false;
  used_ -= it->second.bytes;
  // The shadow and the tags too: a plan's kernels one after the other take many times a card's memory.
  const uint64_t begin = address - base_, end = begin + it->second.bytes;
  GiveBack(reinterpret_cast<void*>(address), reinterpret_cast<void*>(base_ + end));
  GiveBack(shadow_ + begin, shadow_ + end);
  const uint64_t lead = std::min(end - begin, uint64_t{4096});  // what a page of the shadow may hold of others stays
  std::memset(shadow_ + begin, 0, lead);
  std::memset(shadow_ + end - lead, 0, lead);
  for (uint32_t* tags : {read_tags_, write_tags_}) GiveBack(tags + begin / 32, tags + end / 32);
  return {};
}

bool DeviceMemory::Find(uint64_t address, uint64_t* base, uint64_t* bytes) const {
  std::lock_guard lock(mutex_);
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return false;
  --it;
  if (!it->second.live || address - it->first >= it->second.bytes) return false;
  *base = it->first;
  *bytes = it->second.bytes;
  return true;
}

bool DeviceMemory::Freed(uint64_t address) const {
  std::lock_guard lock(mutex_);
  auto it = blocks_.upper_bound(address);
  return it != blocks_.begin() && !(--it)->second.live && address - it->first < it->second.bytes;
}

std::string DeviceMemory::Describe(uint64_t address) const {
  std::lock_guard lock(mutex_);
  if (!Contains(address)) return "not an address of this device";
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return "in front of every allocation";
  --it;
  uint64_t offset = address - it->first, bytes = it->second.bytes;
  const char* state = it->second.live ? "allocated" : "freed";
  if (offset < bytes) return fmt::format("byte {} of the {} bytes {} at {:#x}", offset, bytes, state, it->first);
  return fmt::format("{} bytes past the end of the {} bytes {} at {:#x}", offset - bytes, bytes, state, it->first);
}

}  // namespace qwen::emu
