#include "test/cuda_emulator/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <numeric>
#include <random>
#include <thread>

namespace qwen::emu {
namespace {

constexpr int64_t kTurnInstructions = 1 << 16;  // of a block, before it is asked whether it waits for another

/// The blocks that have not begun, and those that have and wait for a turn. A block runs until it ends unless it only
/// polls: then a fresh block gets the worker, up to what the device holds at once, and after that the blocks take
/// turns.
class Schedule {
 public:
  Schedule(Launch* launch) : launch_(launch) {
    order_.resize(launch->grid.count());
    std::iota(order_.begin(), order_.end(), 0u);
    if (launch->options->block_order == BlockOrder::kReversed) std::reverse(order_.begin(), order_.end());
    if (launch->options->block_order == BlockOrder::kShuffled) {
      std::mt19937_64 random(launch->options->seed + launch->id);
      std::shuffle(order_.begin(), order_.end(), random);
    }
    capacity_ = static_cast<size_t>(std::max(ResidentBlocks(launch->block.count(), launch->shared_bytes), 1)) *
                kMultiprocessors;
    progress_time_ = std::chrono::steady_clock::now();
  }

  void Work(Counters* counters) {
    int64_t waited = 0;
    while (!launch_->stopped) {
      std::unique_ptr<Block> block = Next();
      if (!block) {
        if (Finished()) return;
        std::this_thread::yield();  // other workers hold the last blocks
        continue;
      }
      block->counters = counters;
      uint64_t before = counters->warp_instructions;
      Block::Turn turn = block->Run(kTurnInstructions);
      if (turn == Block::Turn::kFailed) {
        Stop(block->fault);
        return;
      }
      if (turn == Block::Turn::kWaits || turn == Block::Turn::kRuns) {
        waited += static_cast<int64_t>(counters->warp_instructions - before);
        if (turn == Block::Turn::kWaits && Stuck(&waited, block.get())) return;
      }
      Put(std::move(block), turn);
    }
  }

  const Fault& fault() const { return fault_; }

 private:
  std::unique_ptr<Block> Next() {
    std::unique_lock lock(mutex_);
    // A block that can run on comes first, then a fresh one, then one that was seen polling.
    if (!running_.empty()) return Take(&running_);
    if (next_ < order_.size() && resident_ < capacity_) {
      uint32_t id = order_[next_++];
      ++resident_;
      std::unique_ptr<Block> block = spare_.empty() ? std::make_unique<Block>() : Take(&spare_);
      lock.unlock();
      block->Start(launch_, id);
      return block;
    }
    if (!waiting_.empty()) return Take(&waiting_);
    return nullptr;
  }
  static std::unique_ptr<Block> Take(std::deque<std::unique_ptr<Block>>* from) {
    std::unique_ptr<Block> block = std::move(from->front());
    from->pop_front();
    return block;
  }
  void Put(std::unique_ptr<Block> block, Block::Turn turn) {
    std::lock_guard lock(mutex_);
    if (turn == Block::Turn::kDone) {
      ++done_, --resident_;
      spare_.push_back(std::move(block));
    } else {
      (turn == Block::Turn::kRuns ? running_ : waiting_).push_back(std::move(block));
    }
  }
  bool Finished() {
    std::lock_guard lock(mutex_);
    return done_ == order_.size();
  }
  void Stop(const Fault& fault) {
    std::lock_guard lock(mutex_);
    if (!launch_->stopped) fault_ = fault;
    launch_->stopped = true;
  }

  /// True when nothing but polling has happened for too long: then `block` says so as its fault.
  bool Stuck(int64_t* waited, Block* block) {
    std::lock_guard lock(mutex_);
    auto now = std::chrono::steady_clock::now();
    if (uint64_t progress = launch_->progress; progress != progress_) {
      progress_ = progress;
      progress_time_ = now;
      *waited = 0;
      return false;
    }
    if (launch_->polls_host) {
      // Another device or the host may still write: only time can tell.
      std::this_thread::yield();
      if (now - progress_time_ < std::chrono::milliseconds(launch_->options->host_wait_ms)) return false;
    } else if (*waited < launch_->options->spin_limit) {
      return false;
    }
    for (Warp& warp : block->warps) {
      if (warp.state != WarpState::kReady) continue;
      warp.Fail(FaultKind::kDeadlock, std::countr_zero(warp.live ? warp.live : 1u),
                fmt::format("{} resident blocks wait, none moves on, {} blocks are done and {} not begun", resident_,
                            done_, order_.size() - next_));
      break;
    }
    if (!launch_->stopped) fault_ = block->fault;
    launch_->stopped = true;
    return true;
  }

  Launch* launch_;
  std::mutex mutex_;
  std::vector<uint32_t> order_;
  size_t next_ = 0, resident_ = 0, done_ = 0, capacity_ = 0;
  std::deque<std::unique_ptr<Block>> running_, waiting_, spare_;
  Fault fault_;
  uint64_t progress_ = 0;
  std::chrono::steady_clock::time_point progress_time_;
};

}  // namespace

int ResidentBlocks(uint64_t threads, uint64_t shared_bytes) {
  uint64_t by_threads = kThreadsPerMultiprocessor / std::max<uint64_t>((threads + kLanes - 1) / kLanes * kLanes, 1);
  uint64_t by_shared = kSharedPerMultiprocessor / (shared_bytes + kSharedReserved);
  return static_cast<int>(std::min({by_threads, by_shared, uint64_t{kBlocksPerMultiprocessor}}));
}

Fault RunLaunch(Launch* launch, Counters* counters) {
  if (launch->options->races == RaceCheck::kAll)
    launch->shadow = std::make_unique<GlobalShadow>(launch->memory->base(), launch->memory->reserved());
  Schedule schedule(launch);
  std::vector<Counters> others(static_cast<size_t>(launch->options->threads - 1), Counters(*launch->program));
  std::vector<std::thread> threads;
  for (Counters& other : others) threads.emplace_back([&schedule, &other] { schedule.Work(&other); });
  schedule.Work(counters);
  for (std::thread& thread : threads) thread.join();
  for (const Counters& other : others) counters->Add(other);
  launch->shadow.reset();
  return schedule.fault();
}

}  // namespace qwen::emu
