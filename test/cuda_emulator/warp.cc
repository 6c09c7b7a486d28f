#include "test/cuda_emulator/warp.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace qwen::emu {
namespace {

constexpr size_t kMaxRegisterBytes = size_t{256} << 20;  // of one warp: a runaway recursion ends here

}  // namespace

void Warp::Start(Block* of, int warp_index, uint32_t lanes) {
  block = of;
  index = warp_index;
  live = active_ = lanes;
  mask = 0;
  state = WarpState::kReady;
  stop_ = failed_ = waits_for_host = false;
  barrier = -1;
  barrier_result = kNoRef;
  polls = 0;
  paths_.clear();
  frames_.clear();
  async_copies.clear();
  async_groups.fill(0);
  const Launch& launch = *block->launch;
  clock.Reset(block->id, index, static_cast<int>(block->warps.size()));

  specials_.assign(static_cast<size_t>(Special::kCount) * kLanes, 0);
  auto set = [&](Special special, int lane, uint32_t value) {
    specials_[static_cast<size_t>(special) * kLanes + static_cast<size_t>(lane)] = value;
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    uint32_t thread = static_cast<uint32_t>(index) * kLanes + static_cast<uint32_t>(lane);
    set(Special::kTidX, lane, thread % launch.block.x);
    set(Special::kTidY, lane, thread / launch.block.x % launch.block.y);
    set(Special::kTidZ, lane, thread / launch.block.x / launch.block.y);
    set(Special::kNtidX, lane, launch.block.x);
    set(Special::kNtidY, lane, launch.block.y);
    set(Special::kNtidZ, lane, launch.block.z);
    set(Special::kCtaidX, lane, block->position.x);
    set(Special::kCtaidY, lane, block->position.y);
    set(Special::kCtaidZ, lane, block->position.z);
    set(Special::kNctaidX, lane, launch.grid.x);
    set(Special::kNctaidY, lane, launch.grid.y);
    set(Special::kNctaidZ, lane, launch.grid.z);
    set(Special::kLaneId, lane, static_cast<uint32_t>(lane));
    set(Special::kWarpId, lane, static_cast<uint32_t>(index));
    set(Special::kNwarpId, lane, static_cast<uint32_t>(block->warps.size()));
    set(Special::kSmId, lane, block->id % 128);
    set(Special::kNsmId, lane, 128);
    set(Special::kGridId, lane, launch.id);
    uint32_t bit = 1u << lane, below = bit - 1;
    set(Special::kLanemaskEq, lane, bit);
    set(Special::kLanemaskLe, lane, below | bit);
    set(Special::kLanemaskLt, lane, below);
    set(Special::kLanemaskGe, lane, ~below);
    set(Special::kLanemaskGt, lane, ~(below | bit));
    set(Special::kDynamicSmemSize, lane, launch.shared_bytes - launch.kernel->shared_bytes);
    set(Special::kTotalSmemSize, lane, launch.shared_bytes);
  }
  Enter(launch.kernel);
  pc_ = 0;
  reconverge_ = -1;
}

void Warp::Enter(const Function* function) {
  size_t base = frames_.empty() ? 0 : frames_.back().base + frames_.back().function->frame_bytes;
  uint64_t local =
      frames_.empty() ? 0 : (frames_.back().local_base + frames_.back().function->local_bytes + 15) & ~15ull;
  frames_.push_back({function, base, local, nullptr});
  if (registers_.size() < base + function->frame_bytes) registers_.resize(base + function->frame_bytes);
  local_.resize(((local + function->local_bytes + 15) & ~15ull) * kLanes);
  SetBases();
}

void Warp::SetBases() {
  const Frame& frame = frames_.back();
  function_ = frame.function;
  local_base_ = frame.local_base;
  bases_[kFrameBase >> 30] = registers_.data() + frame.base;
  bases_[kConstantBase >> 30] = const_cast<uint8_t*>(function_->constants.data());
  bases_[kSpecialBase >> 30] = reinterpret_cast<uint8_t*>(specials_.data());
}

std::string Warp::Where(int lane) const {
  const Instruction& instruction = function_->code[static_cast<size_t>(current_)];
  const Launch& launch = *block->launch;
  uint32_t thread = static_cast<uint32_t>(index) * kLanes + static_cast<uint32_t>(lane);
  std::string where =
      fmt::format("kernel {}, ptx line {}: `{}`, block ({}, {}, {}), thread ({}, {}, {}), warp {}, lane {}",
                  launch.kernel->name, instruction.line, function_->text[static_cast<size_t>(current_)],
                  block->position.x, block->position.y, block->position.z, thread % launch.block.x,
                  thread / launch.block.x % launch.block.y, thread / launch.block.x / launch.block.y, index, lane);
  if (frames_.size() > 1) where += fmt::format(", in function {}", function_->name);
  return where;
}

void Warp::Fail(FaultKind kind, int lane, const std::string& what) {
  if (failed_) return;
  failed_ = stop_ = true;
  block->fault = {kind, fmt::format("{}: {}: {}", FaultName(kind), what, Where(lane))};
}

int Warp::Run(int budget) {
  int ran = 0;
  stop_ = false;
  Counters& counters = *block->counters;
  const Launch& launch = *block->launch;
  while (ran < budget && !stop_) {
    if (pc_ == reconverge_ || active_ == 0) {
      if (paths_.empty()) {
        state = WarpState::kExited;
        break;
      }
      PopPath();
      continue;
    }
    const Instruction& instruction = function_->code[static_cast<size_t>(pc_)];
    current_ = pc_;
    mask = active_;
    if (instruction.guard != kNoRef) {
      uint32_t p = Predicate(instruction.guard);
      mask &= instruction.guard_negated ? ~p : p;
    }
    ++pc_;
    ++ran;
    if (!mask) continue;
    ++counters.executed[static_cast<size_t>(function_->index)][static_cast<size_t>(current_)];
    counters.lane_instructions += static_cast<uint64_t>(std::popcount(mask));
    instruction.run(*this, instruction);
  }
  counters.warp_instructions += static_cast<uint64_t>(ran);
  (void)launch;
  return ran;
}

void Warp::Diverge(uint32_t taken, int target, int reconverge) {
  uint32_t rest = active_ & ~taken;
  if (!rest) {
    pc_ = target;
    return;
  }
  DivergeMany({{rest, pc_}, {taken, target}}, reconverge);
}

void Warp::DivergeMany(const std::vector<std::pair<uint32_t, int>>& groups, int reconverge) {
  int depth = static_cast<int>(frames_.size());
  paths_.push_back({active_, reconverge, reconverge_, depth});
  for (const auto& [lanes, target] : groups) paths_.push_back({lanes, target, reconverge, depth});
  PopPath();
}

void Warp::PopPath() {
  Path path = paths_.back();
  paths_.pop_back();
  active_ = path.mask & live;
  pc_ = path.pc;
  reconverge_ = path.reconverge;
  bool changed = false;
  while (static_cast<int>(frames_.size()) > path.depth) frames_.pop_back(), changed = true;
  if (changed) SetBases();
}

void Warp::Call(const CallSite& site) {
  const Function* function = site.callee;
  // The rest of the active lanes, if the call is guarded, wait at the instruction behind it.
  paths_.push_back({active_, pc_, reconverge_, static_cast<int>(frames_.size())});
  const Frame caller = frames_.back();
  if (caller.base + caller.function->frame_bytes + function->frame_bytes > kMaxRegisterBytes)
    return Fail(FaultKind::kOutOfBounds, std::countr_zero(mask), "the call stack overflows");
  Enter(function);
  frames_.back().site = &site;
  active_ = mask;
  pc_ = 0;
  reconverge_ = -1;
  for (size_t i = 0; i < function->parameters.size(); ++i) {
    const Function::Parameter& formal = function->parameters[i];
    std::memcpy(At<uint8_t>(formal.ref), registers_.data() + caller.base + site.arguments[i],
                size_t{formal.bytes} * kLanes);
  }
}

void Warp::Return() {
  if (frames_.size() == 1) return Exit();
  const Frame callee = frames_.back();
  const Frame& caller = frames_[frames_.size() - 2];
  for (size_t i = 0; i < callee.function->returns.size(); ++i) {
    const Function::Parameter& formal = callee.function->returns[i];
    const uint8_t* from = At<uint8_t>(formal.ref);
    uint8_t* to = registers_.data() + caller.base + callee.site->results[i];
    for (int lane = 0; lane < kLanes; ++lane) {
      size_t at = static_cast<size_t>(lane) * formal.bytes;
      if (mask >> lane & 1) std::memcpy(to + at, from + at, formal.bytes);
    }
  }
  PopPath();
}

void Warp::Exit() {
  live &= ~mask;
  active_ &= ~mask;
  ++block->launch->progress;
  // Threads that wait at a barrier for all threads of the block wait for one less.
  if (!live) {
    state = WarpState::kExited;
    stop_ = true;
  }
}

// ---- blocks

void Block::Start(Launch* of, uint32_t linear) {
  launch = of;
  id = linear;
  position = {linear % of->grid.x, linear / of->grid.x % of->grid.y, linear / of->grid.x / of->grid.y};
  uint64_t threads = of->block.count();
  warps.resize((threads + kLanes - 1) / kLanes);
  for (size_t w = 0; w < warps.size(); ++w) {
    uint64_t lanes = std::min<uint64_t>(kLanes, threads - w * kLanes);
    warps[w].Start(this, static_cast<int>(w), lanes == kLanes ? kFullMask : (1u << lanes) - 1);
  }
  shared.assign((of->shared_bytes + 15) & ~15u, 0xcd);
  shared_words.assign(shared.size() / 4, SharedWord());
  barriers = {};
  mbarriers.clear();
  exited = 0;
  fault = {};
}

uint32_t Block::LiveThreads() const {
  uint32_t threads = 0;
  for (const Warp& warp : warps)
    if (warp.state != WarpState::kExited) threads += kLanes;
  return threads;
}

void Block::TryRelease(int number) {
  NamedBarrier& barrier = barriers[static_cast<size_t>(number)];
  if (!barrier.in_use) return;
  uint32_t expected = barrier.expected ? barrier.expected : LiveThreads();
  if (barrier.arrived < expected) return;
  for (Warp& warp : warps) {
    if (warp.state != WarpState::kAtBarrier || warp.barrier != number) continue;
    warp.clock.Leave(barrier.meeting);
    warp.state = WarpState::kReady;
    warp.barrier = -1;
    if (warp.barrier_result != kNoRef) {
      uint32_t* out = warp.At<uint32_t>(warp.barrier_result);
      if (warp.barrier_reduction == 0) {
        for (int lane = 0; lane < kLanes; ++lane)
          if (warp.barrier_mask >> lane & 1) out[lane] = barrier.count;
      } else {
        bool truth = warp.barrier_reduction == 1 ? barrier.all : barrier.any;
        *out = (*out & ~warp.barrier_mask) | (truth ? warp.barrier_mask : 0);
      }
      warp.barrier_result = kNoRef;
    }
  }
  barrier = {};
  ++launch->progress;
}

Block::Turn Block::Run(int64_t budget) {
  int quantum = launch->options->warp_quantum;
  for (Warp& warp : warps) warp.polls = 0, warp.waits_for_host = false;
  while (budget > 0) {
    bool any_ready = false, all_poll = true;
    for (Warp& warp : warps) {
      if (warp.state != WarpState::kReady) continue;
      any_ready = true;
      uint64_t polls = warp.polls;
      budget -= warp.Run(quantum);
      if (warp.failed()) return Turn::kFailed;
      if (warp.polls == polls) all_poll = false;
      if (warp.state == WarpState::kExited)
        for (int barrier = 0; barrier < 16; ++barrier) TryRelease(barrier);
    }
    if (!any_ready) {
      if (LiveThreads() == 0) return Turn::kDone;
      // Nobody can run: every warp left waits at a barrier that no one will complete.
      for (Warp& warp : warps) {
        if (warp.state != WarpState::kAtBarrier) continue;
        const NamedBarrier& barrier = barriers[static_cast<size_t>(warp.barrier)];
        warp.Fail(FaultKind::kDeadlock, std::countr_zero(warp.live),
                  fmt::format("barrier {} has {} of {} threads, and no other warp of the block can run", warp.barrier,
                              barrier.arrived, barrier.expected ? barrier.expected : LiveThreads()));
        return Turn::kFailed;
      }
    }
    if (all_poll && launch->stopped) return Turn::kWaits;
    if (any_ready && all_poll) return Turn::kWaits;
  }
  return Turn::kRuns;
}

}  // namespace qwen::emu
