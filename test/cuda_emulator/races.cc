#include "test/cuda_emulator/races.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace qwen::emu {
namespace {

void JoinClocks(std::vector<uint32_t>* into, const std::vector<uint32_t>& other) {
  if (into->size() < other.size()) into->resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) (*into)[i] = std::max((*into)[i], other[i]);
}

}  // namespace

Knowledge Join(const Knowledge& a, const Knowledge& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  auto joined = std::make_shared<KnownBlocks>(*a);
  for (const auto& [block, clocks] : *b) JoinClocks(&(*joined)[block], clocks);
  return joined;
}

void WarpClock::Reset(uint32_t block, int warp, int warps) {
  block_ = block, warp_ = warp, now_ = 1, floor_ = 0;
  seen_.assign(static_cast<size_t>(warps), 0);
  lanes_.reset();
  blocks_ = fenced_ = observed_ = nullptr;
}

bool WarpClock::OrderedAcrossBlocks(const Access& access) const {
  if (!blocks_) return false;
  auto it = blocks_->find(access.block());
  return it != blocks_->end() && static_cast<size_t>(access.warp()) < it->second.size() &&
         access.clock() <= it->second[access.warp()];
}

void WarpClock::SyncLanes(uint32_t mask, uint32_t live) {
  if ((mask & live) == live) {
    floor_ = now_;
    lanes_.reset();
  } else {
    if (!lanes_) lanes_ = std::make_unique<std::array<std::array<uint32_t, kLanes>, kLanes>>();
    std::array<uint32_t, kLanes> joined{};
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(mask >> lane & 1)) continue;
      for (int i = 0; i < kLanes; ++i) joined[i] = std::max(joined[i], (*lanes_)[lane][i]);
      joined[lane] = now_;
    }
    for (int lane = 0; lane < kLanes; ++lane)
      if (mask >> lane & 1) (*lanes_)[lane] = joined;
  }
  ++now_;
}

void WarpClock::Arrive(Meeting* meeting) {
  seen_[warp_] = now_;
  JoinClocks(&meeting->seen, seen_);
  meeting->blocks = Join(meeting->blocks, Join(blocks_, observed_));
  meeting->latest = std::max(meeting->latest, now_);
  // Lanes meet at a barrier too, and later accesses are not part of this arrival.
  floor_ = now_++;
  lanes_.reset();
}

void WarpClock::Leave(const Meeting& meeting) {
  JoinClocks(&seen_, meeting.seen);
  blocks_ = Join(blocks_, meeting.blocks);
  now_ = std::max(now_, meeting.latest + 1);
}

Knowledge WarpClock::All() const {
  auto all = blocks_ ? std::make_shared<KnownBlocks>(*blocks_) : std::make_shared<KnownBlocks>();
  std::vector<uint32_t>& own = (*all)[block_];
  JoinClocks(&own, seen_);
  own[warp_] = now_;
  return all;
}

void WarpClock::Fence() {
  blocks_ = Join(blocks_, observed_);
  observed_ = nullptr;
  fenced_ = All();
  ++now_;
}

Knowledge WarpClock::Publish(bool release) {
  if (!release) return fenced_;
  Knowledge all = All();
  ++now_;
  return all;
}

void WarpClock::Observe(const Knowledge& published, bool acquire) {
  if (!published) return;
  uint32_t latest = 0;
  for (const auto& [block, clocks] : *published)
    for (uint32_t clock : clocks) latest = std::max(latest, clock);
  now_ = std::max(now_, latest + 1);
  Knowledge& into = acquire ? blocks_ : observed_;
  into = Join(into, published);
  if (!acquire) return;
  // What another warp of this block released is known like any other.
  if (auto own = published->find(block_); own != published->end()) JoinClocks(&seen_, own->second);
}

GlobalShadow::GlobalShadow(uint64_t base, uint64_t bytes) : base_(base) {
  table_bytes_ = (bytes / kPageBytes + 1) * sizeof(std::atomic<Page*>);
  void* table = mmap(nullptr, table_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  pages_ = table == MAP_FAILED ? nullptr : static_cast<std::atomic<Page*>*>(table);
}

GlobalShadow::~GlobalShadow() {
  for (std::atomic<Page*>* slot : made_) delete slot->load();
  if (pages_) munmap(pages_, table_bytes_);
}

GlobalShadow::Page* GlobalShadow::Make(std::atomic<Page*>* slot) {
  std::lock_guard lock(mutex_);
  Page* page = slot->load(std::memory_order_acquire);
  if (!page) {
    page = new Page;
    slot->store(page, std::memory_order_release);
    made_.push_back(slot);
  }
  return page;
}

void GlobalShadow::Publish(uint64_t address, const Knowledge& knowledge) {
  if (!knowledge) return;
  Knowledge& published = shards_[address / 4 % kShards].published[address];
  published = Join(published, knowledge);
}

Knowledge GlobalShadow::Published(uint64_t address) {
  auto& published = shards_[address / 4 % kShards].published;
  auto it = published.find(address);
  return it == published.end() ? nullptr : it->second;
}

}  // namespace qwen::emu
