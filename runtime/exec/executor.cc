#include "runtime/exec/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>

#include "runtime/base/thread_pool.h"
#include "runtime/comm/comm.h"
#include "runtime/device/cuda_driver.h"
#include "runtime/device/device.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/spec_fields.h"
#include "runtime/plan/memory.h"

namespace qwen::exec {
namespace {

// Each record that a decode step carries is a product and an fma an element of S, in registers; a fold writes S once.
// 16 sequences of the demo checkpoint on a Xeon's two cores: 1.74, 1.70, 1.71, 1.73, 1.84 and 2.06 ms a step for
// folds after 1, 2, 3, 4, 8 and 16 records.
constexpr int kCpuFoldAfter = 3;

constexpr char kFold[] = "gdn_fold";
constexpr char kOtherBuild[] = "the plan was made for another build; compile it again";
constexpr int kMaxThreads = 1024;

int64_t Aligned(int64_t bytes) { return (bytes + plan::kAlignment - 1) / plan::kAlignment * plan::kAlignment; }

// A delta-rule layer's part of a slot, and of a saved slot: S0, then the conv rows of the last width - 1 positions.
struct SavedLayer {
  int64_t offset = 0;  // in the slot
  kernels::SlotLayout layout{};
  int64_t base_bytes = 0;
  int conv_rows = 0;
  std::unique_ptr<const device::Kernel> fold;
  int64_t bytes() const { return base_bytes + conv_rows * layout.conv_row_bytes; }
};

// One program on one rank, bound.
struct BoundProgram {
  struct Input {
    int step, arg;
  };
  struct Port {
    uint8_t* data = nullptr;
    int64_t bytes = 0, row_bytes = 0;
  };
  const plan::Program* plan = nullptr;
  device::Program steps;
  std::vector<Input> hidden;  // arguments that take the address of the run's `hidden`
  Port hidden_port;
  std::map<std::string, Port, std::less<>> output_ports;
};

struct Rank {
  const plan::State* state = nullptr;
  std::unique_ptr<device::Device> device;
  std::unique_ptr<device::Device> host;  // beside a device that is not: folds snapshots
  std::vector<uint8_t> slot_copy;        // a layer's part of a slot, for the same
  device::Device& folder() const { return host ? *host : *device; }
  std::vector<device::Memory> weights;   // as plan.packed, where the device reads them
  std::vector<uint8_t> host_outputs;     // a device's, as far as they were asked for
  device::Memory hidden;                 // a device's copy of the input
  std::vector<std::unique_ptr<const device::Kernel>> kernels;  // index as in plan.kernels; null: of another target
  device::Memory arena, outputs, pages, slots, fold_out;
  int64_t allocated_bytes = 0;
  Status status;  // of the Run under way
  std::vector<SavedLayer> saved_layers;
  int64_t saved_bytes = 0;
  std::map<std::string, BoundProgram, std::less<>> programs;
};

int64_t RowBytes(const plan::Buffer& buffer) {
  int64_t bytes = DTypeBytes(buffer.dtype);
  for (size_t d = 1; d < buffer.shape.size(); ++d) bytes *= buffer.shape[d];
  return bytes;
}

kernels::StateView StateOf(const plan::State& state) {
  return {
      .page_tokens = plan::kPageTokens,
      .page_bytes = state.page_bytes,
      .slot_bytes = state.slot_bytes,
      .max_rows = state.max_rows,
      .fold_rows = state.fold_rows,
      .ring_rows = state.ring_rows,
      .conv_rows = state.conv_rows,
  };
}

class DeviceExecutor : public Executor {
 public:
  DeviceExecutor(const plan::Plan& plan, Weights weights, const ExecutorOptions& options)
      : plan_(plan), weights_(std::move(weights)), options_(options), target_(TargetOf(options.device)) {}

  Status Init();

  bool HasProgram(const std::string& name) const override { return ranks_[0].programs.contains(name); }
  StatusOr<Outputs> Run(const std::string& program, const kernels::BatchView& batch,
                        std::span<const uint8_t> hidden) override;

  int64_t page_bytes() const override {
    int64_t bytes = 0;
    for (const Rank& rank : ranks_) bytes += rank.state->page_bytes;
    return bytes;
  }
  int64_t slot_copy_bytes() const override {
    int64_t bytes = 0;
    for (const Rank& rank : ranks_) bytes += rank.saved_bytes;
    return bytes;
  }
  int64_t allocated_bytes() const override {
    int64_t bytes = 0;
    for (const Rank& rank : ranks_) bytes += rank.allocated_bytes;
    return bytes;
  }
  int fold_after() const override { return cuda() ? std::numeric_limits<int>::max() : kCpuFoldAfter; }
  void SaveSlot(int slot, int position, int ring_fill, std::span<uint8_t> to) const override;
  void LoadSlot(int slot, int position, std::span<const uint8_t> from) override;
  void SavePage(int page, std::span<uint8_t> to) const override;
  void LoadPage(int page, std::span<const uint8_t> from) override;

 private:
  Status InitRank(int index);
  Status CheckWorkspace(const plan::Program& program, const Rank& rank) const;
  Status BindProgram(const plan::Program& program, std::span<const int64_t> output_at, Rank* rank);
  Status CheckCollectives() const;
  Status CheckBatch(const BoundProgram& program, const kernels::BatchView& batch,
                    std::span<const uint8_t> hidden) const;
  Status WhyNot(const std::string& program) const;
  bool Left(const plan::Program& program) const;
  bool cuda() const { return options_.device == DeviceKind::kCuda; }
  Status PlaceWeights(int index);
  Status FetchOutputs(const BoundProgram& program, const kernels::BatchView& batch);
  const uint8_t* Readable(const BoundProgram::Port& port) const;
  // A copy that failed says so at the next Run: the device is lost, whoever asked for the copy can do nothing.
  void Remember(Status status) const {
    if (lost_.ok()) lost_ = std::move(status);
  }

  // By value: nobody has to keep the caller's. Without blobs, which are the text side's, and other targets' programs.
  const plan::Plan plan_;
  Weights weights_;
  const ExecutorOptions options_;
  const std::string target_;
  mutable Status lost_;
  int threads_ = 1;
  mutable std::vector<Rank> ranks_;
  std::unique_ptr<comm::Comm> comm_;
  mutable std::unique_ptr<ThreadPool> workers_;  // one a rank, thread 0 of the rank's device
};

plan::Plan ForTarget(plan::Plan plan, std::string_view target) {
  for (plan::Blob& blob : plan.blobs)  // kernels count them
    if (blob.kind != plan::BlobKind::kPtx) blob.bytes.clear();
  std::erase_if(plan.programs, [&](const plan::Program& program) { return program.target != target; });
  return plan;
}

// --- Binding ---------------------------------------------------------------------------------------------------------

Status DeviceExecutor::Init() {
  if (plan_.programs.empty())
    return UnimplementedError(
        fmt::format("the plan has no program for {}, only for {}", target_, fmt::join(plan_.targets, ", ")),
        fmt::format("compile with --target={}", target_));
  if (cuda() && plan_.tp > 1)
    return UnimplementedError(fmt::format("{} ranks on CUDA cards: this build runs one", plan_.tp),
                              "compile with --tp 1, or use --device cpu");
  if (plan_.tp < 1 || plan_.states.size() != static_cast<size_t>(plan_.tp))
    return DataLossError(
        fmt::format("the plan is for {} ranks and has the state of {}", plan_.tp, plan_.states.size()));
  if (weights_.packed.size() != plan_.packed.size())
    return InvalidArgumentError(
        fmt::format("{} packed weights, the plan has {}", weights_.packed.size(), plan_.packed.size()));
  if (options_.threads < 0 || options_.threads > kMaxThreads)
    return InvalidArgumentError(fmt::format("{} threads, want 0 to {}", options_.threads, kMaxThreads));
  if (options_.num_pages < 0 || options_.num_slots < 0)
    return InvalidArgumentError(fmt::format("{} pages and {} slots", options_.num_pages, options_.num_slots));
  QWEN_RETURN_IF_ERROR(CheckMemory(plan_, options_));
  threads_ = ThreadsFor(plan_, options_.threads);

  device::CpuOptions options;
  options.capacity = plan_.capacity;
  options.threads = threads_;
  options.spins = SpinsFor(plan_.tp * threads_);
  options.populate = options_.preallocate;
  options.isa = options_.isa.value_or(kernels::DetectIsa());
  std::vector<Card> cards;  // those that can run it: the driver's first may be none of them
  if (cuda()) {
    QWEN_ASSIGN_OR_RETURN(cards, CudaCards());
  }
  ranks_.resize(plan_.tp);
  for (Rank& rank : ranks_) {
    if (cuda()) {
      QWEN_ASSIGN_OR_RETURN(rank.device,
                            device::MakeCudaDevice({.ordinal = cards[0].ordinal, .capacity = plan_.capacity}));
      // Snapshots are host memory's, and so are their folds.
      QWEN_ASSIGN_OR_RETURN(rank.host, device::MakeCpuDevice({.isa = options.isa}));
    } else {
      QWEN_ASSIGN_OR_RETURN(rank.device, device::MakeCpuDevice(options));
    }
    ++options.rank;
  }
  for (int rank = 0; rank < plan_.tp; ++rank) {
    Status status = InitRank(rank);
    if (!status.ok()) return plan_.tp == 1 ? status : std::move(status).Annotate(fmt::format("rank {}", rank));
  }
  for (const auto& [name, program] : ranks_[0].programs)
    for (int rank = 1; rank < plan_.tp; ++rank)
      if (!ranks_[rank].programs.contains(name))
        return DataLossError(fmt::format("program {}: rank {} does not have it", name, rank));
  QWEN_RETURN_IF_ERROR(CheckCollectives());
  if (cuda())  // the card has its own
    for (std::shared_ptr<uint8_t[]>& packed : weights_.packed) packed.reset();

  comm_ = comm::MakeShm(plan_.tp, threads_, options.spins);
  try {
    workers_ = std::make_unique<ThreadPool>(plan_.tp, options.spins);
  } catch (const std::exception& error) {
    return ResourceExhaustedError(fmt::format("{} ranks: {}", plan_.tp, error.what()));
  }
  return {};
}

Status DeviceExecutor::InitRank(int index) {
  Rank& rank = ranks_[index];
  rank.state = &plan_.states[index];
  rank.kernels.resize(plan_.kernels.size());
  for (size_t i = 0; i < plan_.kernels.size(); ++i) {
    const plan::Kernel& kernel = plan_.kernels[i];
    if (kernel.target != target_) continue;
    std::string_view ptx;
    if (kernel.ptx >= 0) {
      const std::vector<uint8_t>& bytes = plan_.blobs[kernel.ptx].bytes;
      ptx = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    auto loaded = rank.device->Load(kernel, ptx);
    if (!loaded.ok()) return loaded.status().Annotate(fmt::format("kernel {}", kernel.name));
    rank.kernels[i] = *std::move(loaded);
  }

  // What the plan states, also of a program that is left out: whoever read the statement finds it true.
  int64_t arena_bytes = 0, scratch_bytes = 0, shared_bytes = 0, fold_bytes = 0, host_scratch = 0, host_shared = 0;
  for (const plan::Program& program : plan_.programs) {
    if (program.rank != index) continue;
    QWEN_RETURN_IF_ERROR(CheckWorkspace(program, rank).Annotate(fmt::format("program {}", program.name)));
    arena_bytes = std::max(arena_bytes, program.arena_bytes);
    scratch_bytes = std::max(scratch_bytes, program.scratch_bytes);
    shared_bytes = std::max(shared_bytes, program.shared_bytes);
  }

  const plan::State& state = *rank.state;
  for (const plan::DeltaLayer& layer : state.delta_layers) {
    SavedLayer saved;
    saved.offset = layer.offset;
    saved.layout = kernels::MakeSlotLayout(layer.key_heads, layer.value_heads, layer.key_dim, layer.value_dim,
                                           layer.dtype, state.ring_rows, state.conv_rows);
    saved.base_bytes = 4LL * layer.value_heads * layer.value_dim * layer.key_dim;
    saved.conv_rows = layer.width - 1;
    if (layer.offset + saved.layout.bytes > state.slot_bytes || saved.conv_rows > state.conv_rows)
      return DataLossError(fmt::format("state {}: ends at {} with {} conv rows, a slot has {} bytes and {} conv rows",
                                       layer.name, layer.offset + saved.layout.bytes, saved.conv_rows, state.slot_bytes,
                                       state.conv_rows));
    if (saved.base_bytes == 0) continue;  // a rank's share may be empty
    const kernels::GdnSpec spec{.key_heads = layer.key_heads,
                                .value_heads = layer.value_heads,
                                .key_dim = layer.key_dim,
                                .value_dim = layer.value_dim,
                                .width = layer.width,
                                .l2_eps = 1e-6f,
                                .q_scale = 1,
                                .x_type = layer.dtype,
                                .ba_type = layer.dtype};
    auto fold = rank.folder().Load(
        {.name = kFold, .family = "gdn", .entry = kFold, .target = "cpu", .spec = kernels::ToFields(spec)}, {});
    if (!fold.ok()) return fold.status().Annotate(fmt::format("state {}", layer.name));
    saved.fold = *std::move(fold);
    if (!rank.host) {
      scratch_bytes = std::max(scratch_bytes, saved.fold->scratch_bytes);
      shared_bytes = std::max(shared_bytes, saved.fold->shared_bytes);
    }
    host_scratch = std::max(host_scratch, saved.fold->scratch_bytes);
    host_shared = std::max(host_shared, saved.fold->shared_bytes);
    if (rank.host && rank.slot_copy.size() < static_cast<size_t>(saved.layout.bytes))
      rank.slot_copy.resize(saved.layout.bytes);
    fold_bytes = std::max(fold_bytes, Aligned(saved.base_bytes));
    rank.saved_bytes += saved.bytes();
    rank.saved_layers.push_back(std::move(saved));
  }

  auto allocate = [&rank](const char* what, int64_t bytes, device::Memory* memory) -> Status {
    auto allocated = rank.device->Allocate(bytes);
    if (!allocated.ok()) return allocated.status().Annotate(what);
    *memory = *std::move(allocated);
    rank.allocated_bytes += bytes;
    return {};
  };
  const plan::OutputPlaces outputs = plan::PlaceOutputs(plan_, target_, index);
  QWEN_RETURN_IF_ERROR(allocate("arena", arena_bytes, &rank.arena));
  QWEN_RETURN_IF_ERROR(allocate("outputs", outputs.bytes, &rank.outputs));
  QWEN_RETURN_IF_ERROR(allocate("KV pages", options_.num_pages * state.page_bytes, &rank.pages));
  QWEN_RETURN_IF_ERROR(allocate("recurrent slots", options_.num_slots * state.slot_bytes, &rank.slots));
  if (rank.host) {
    QWEN_ASSIGN_OR_RETURN(rank.fold_out, rank.host->Allocate(fold_bytes));
    QWEN_RETURN_IF_ERROR(rank.host->Reserve(host_scratch, host_shared).status());
    rank.host_outputs.resize(outputs.bytes);
  } else {
    QWEN_RETURN_IF_ERROR(allocate("snapshots", fold_bytes, &rank.fold_out));
  }
  QWEN_RETURN_IF_ERROR(PlaceWeights(index));
  auto reserved = rank.device->Reserve(scratch_bytes, shared_bytes);
  if (!reserved.ok()) return reserved.status().Annotate("scratch");
  rank.allocated_bytes += *reserved;

  for (size_t p = 0; p < plan_.programs.size(); ++p) {
    const plan::Program& program = plan_.programs[p];
    if (program.rank != index || Left(program)) continue;
    QWEN_RETURN_IF_ERROR(
        BindProgram(program, outputs.offsets[p], &rank).Annotate(fmt::format("program {}", program.name)));
  }
  return {};
}

// On a device that is the host the weights stay where they were packed. Weights whose bytes are the same share them.
Status DeviceExecutor::PlaceWeights(int index) {
  Rank& rank = ranks_[index];
  rank.weights.resize(plan_.packed.size());
  std::map<const uint8_t*, device::Memory> placed;
  for (size_t i = 0; i < plan_.packed.size(); ++i) {
    if (plan_.packed[i].rank != index || !weights_.packed[i]) continue;
    uint8_t* host = weights_.packed[i].get();
    if (rank.device->is_host()) {
      rank.weights[i] = device::Memory(weights_.packed[i], host);
      continue;
    }
    device::Memory& memory = placed[host];
    if (!memory) {
      auto allocated = rank.device->Allocate(plan_.packed[i].bytes);
      if (!allocated.ok()) return allocated.status().Annotate("weights");
      memory = *std::move(allocated);
      rank.allocated_bytes += plan_.packed[i].bytes;
      QWEN_RETURN_IF_ERROR(rank.device->CopyIn(memory.get(), host, plan_.packed[i].bytes).Annotate("weights"));
    }
    rank.weights[i] = memory;
  }
  return {};
}

// A program whose weights the checkpoint does not have.
bool DeviceExecutor::Left(const plan::Program& program) const {
  for (const plan::Buffer& buffer : program.buffers) {
    if (buffer.kind != plan::BufferKind::kWeight || buffer.index < 0) continue;
    if (static_cast<size_t>(buffer.index) >= plan_.packed.size()) continue;
    plan::Group group = plan_.weights[plan_.packed[buffer.index].weight].group;
    if (group == plan::Group::kMtp && !weights_.has_mtp) return true;
    if (group == plan::Group::kDraft && !weights_.packed[buffer.index]) return true;
  }
  return false;
}

// The plan's figures come from a compiler whose kernels may have needed less.
Status DeviceExecutor::CheckWorkspace(const plan::Program& program, const Rank& rank) const {
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const int32_t index = program.steps[i].kernel;
    if (index < 0 || static_cast<size_t>(index) >= rank.kernels.size() || !rank.kernels[index])
      return DataLossError(
          fmt::format("step {}: kernel {}, the plan has {} for {}", i, index,
                      std::ranges::count_if(rank.kernels, [](const auto& k) { return k != nullptr; }), target_));
    const device::Kernel& kernel = *rank.kernels[index];
    if (kernel.scratch_bytes > program.scratch_bytes || kernel.shared_bytes > program.shared_bytes)
      return DataLossError(fmt::format("kernel {}: needs {} bytes of scratch and {} shared, the plan has {} and {}",
                                       plan_.kernels[index].name, kernel.scratch_bytes, kernel.shared_bytes,
                                       program.scratch_bytes, program.shared_bytes),
                           kOtherBuild);
  }
  return {};
}

Status DeviceExecutor::BindProgram(const plan::Program& program, std::span<const int64_t> output_at, Rank* rank) {
  BoundProgram bound;
  bound.plan = &program;
  const plan::State& state = *rank->state;
  bound.steps.state = StateOf(state);

  // `slots`: the argument is a recurrent layer's, else a KV layer's. nullptr for an input.
  auto address = [&](int32_t index, bool slots, uint8_t** at) -> Status {
    if (index < 0 || static_cast<size_t>(index) >= program.buffers.size())
      return DataLossError(fmt::format("buffer {}, the program has {}", index, program.buffers.size()));
    const plan::Buffer& buffer = program.buffers[index];
    const int64_t end = buffer.offset + buffer.bytes;
    switch (buffer.kind) {
      case plan::BufferKind::kArena:
        if (buffer.offset < 0 || buffer.bytes < 0 || end > program.arena_bytes)
          return DataLossError(
              fmt::format("buffer {} ends at {}, the arena has {} bytes", buffer.name, end, program.arena_bytes));
        *at = rank->arena.get() + buffer.offset;
        return {};
      case plan::BufferKind::kCache: {
        const int64_t limit = slots ? state.slot_bytes : state.page_bytes;
        if (buffer.offset < 0 || buffer.bytes < 0 || end > limit)
          return DataLossError(
              fmt::format("cache {} ends at {}, a {} has {} bytes", buffer.name, end, slots ? "slot" : "page", limit));
        *at = (slots ? rank->slots : rank->pages).get() + buffer.offset;
        return {};
      }
      case plan::BufferKind::kWeight: {
        if (buffer.index < 0 || static_cast<size_t>(buffer.index) >= weights_.packed.size())
          return DataLossError(fmt::format("buffer {} is packed weight {}, the plan has {}", buffer.name, buffer.index,
                                           plan_.packed.size()));
        const plan::Packed& packed = plan_.packed[buffer.index];
        if (packed.rank != program.rank)
          return DataLossError(fmt::format("buffer {} is a weight of rank {}, the program's is {}", buffer.name,
                                           packed.rank, program.rank));
        // A share of no rows has no bytes; its address is never read.
        if (!weights_.packed[buffer.index] && packed.bytes > 0)
          return InvalidArgumentError(fmt::format("weight {} was not loaded", plan_.weights[packed.weight].name));
        *at = rank->weights[buffer.index].get();
        return {};
      }
      case plan::BufferKind::kInput:
        *at = rank->hidden.get();  // the host's is known at each Run
        return {};
      case plan::BufferKind::kOutput:
        *at = rank->outputs.get() + output_at[index];
        return {};
    }
    return InternalError("a buffer of no kind");
  };

  for (const plan::Port& port : program.inputs) {
    if (port.name != "hidden")
      return UnimplementedError(fmt::format("input {} is not one this build can feed", port.name), kOtherBuild);
    if (port.buffer < 0 || static_cast<size_t>(port.buffer) >= program.buffers.size())
      return DataLossError(
          fmt::format("input {} is buffer {}, the program has {}", port.name, port.buffer, program.buffers.size()));
    const plan::Buffer& buffer = program.buffers[port.buffer];
    bound.hidden_port = {.bytes = buffer.bytes, .row_bytes = RowBytes(buffer)};
    if (!rank->device->is_host() && !rank->hidden) {
      QWEN_ASSIGN_OR_RETURN(rank->hidden, rank->device->Allocate(buffer.bytes));
      rank->allocated_bytes += buffer.bytes;
    }
  }
  for (const plan::Port& port : program.outputs) {
    BoundProgram::Port& out = bound.output_ports[port.name];
    QWEN_RETURN_IF_ERROR(address(port.buffer, false, &out.data).Annotate(fmt::format("output {}", port.name)));
    const plan::Buffer& buffer = program.buffers[port.buffer];
    out.bytes = buffer.bytes, out.row_bytes = RowBytes(buffer);
  }

  for (size_t i = 0; i < program.steps.size(); ++i) {
    const plan::Step& step = program.steps[i];
    const device::Kernel& kernel = *rank->kernels[step.kernel];
    const std::string where = fmt::format("step {} ({})", i, step.origin);
    if (step.args.size() != static_cast<size_t>(kernel.num_args))
      return DataLossError(fmt::format("{}: kernel {} takes {} arguments, the step has {}", where,
                                       plan_.kernels[step.kernel].name, kernel.num_args, step.args.size()),
                           kOtherBuild);
    if (kernel.info->collective != (step.kind == plan::StepKind::kCollective))
      return DataLossError(fmt::format("{}: kernel {} is {}a collective, the step says otherwise", where,
                                       plan_.kernels[step.kernel].name, kernel.info->collective ? "" : "not "));
    device::Step out;
    out.kernel = &kernel;
    out.part = step.part;
    out.waits = step.waits;
    for (size_t a = 0; a < step.args.size(); ++a) {
      uint8_t* at = nullptr;
      if (step.args[a] >= 0) {
        QWEN_RETURN_IF_ERROR(address(step.args[a], kernel.info->family == "gdn", &at).Annotate(where));
        if (rank->device->is_host() && program.buffers[step.args[a]].kind == plan::BufferKind::kInput)
          bound.hidden.push_back({static_cast<int>(i), static_cast<int>(a)});
      }
      out.args.push_back(at);
    }
    bound.steps.steps.push_back(std::move(out));
  }
  rank->programs[program.name] = std::move(bound);
  return {};
}

// Ranks that meet a different number of times would wait for ever.
Status DeviceExecutor::CheckCollectives() const {
  for (const auto& [name, first] : ranks_[0].programs) {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      auto collectives = [](const BoundProgram& program) {
        std::vector<const device::Step*> steps;
        for (const device::Step& step : program.steps.steps)
          if (step.kernel->info->collective) steps.push_back(&step);
        return steps;
      };
      auto want = collectives(first), have = collectives(ranks_[r].programs.at(name));
      if (have.size() != want.size())
        return DataLossError(
            fmt::format("program {}: rank {} has {} collectives, rank 0 has {}", name, r, have.size(), want.size()));
      for (size_t i = 0; i < want.size(); ++i) {
        if (have[i]->kernel->info != want[i]->kernel->info || have[i]->part != want[i]->part)
          return DataLossError(fmt::format("program {}: collective {} of rank {} is {}, of rank 0 {}{}", name, i, r,
                                           have[i]->kernel->info->entry, want[i]->kernel->info->entry,
                                           have[i]->part != want[i]->part ? " over other rows" : ""));
        if (have[i]->args.empty() || !have[i]->args[0])
          return DataLossError(fmt::format("program {}: collective {} of rank {} has no argument 0", name, i, r));
      }
    }
  }
  return {};
}

// --- Running ---------------------------------------------------------------------------------------------------------

Status DeviceExecutor::WhyNot(const std::string& program) const {
  for (const plan::Program& known : plan_.programs)
    if (known.name == program)
      return UnimplementedError(fmt::format("program {}: the checkpoint does not have its weights", program));
  std::string names;
  for (const auto& [name, bound] : ranks_[0].programs) names += (names.empty() ? "" : ", ") + name;
  return InvalidArgumentError(fmt::format("program {}: the plan has {}", program, names));
}

// What would write or read outside of a buffer. Ids and pages are the engine's.
Status DeviceExecutor::CheckBatch(const BoundProgram& program, const kernels::BatchView& batch,
                               std::span<const uint8_t> hidden) const {
  const plan::Capacity& capacity = plan_.capacity;
  if (batch.num_short < 0 || batch.num_short > batch.num_seqs || batch.num_seqs > capacity.max_num_seqs)
    return InvalidArgumentError(fmt::format("{} short of {} sequences, the plan takes {}", batch.num_short,
                                            batch.num_seqs, capacity.max_num_seqs));
  if (batch.num_tokens < 0 || batch.num_tokens > capacity.max_num_batched_tokens)
    return InvalidArgumentError(
        fmt::format("{} rows, the plan takes {}", batch.num_tokens, capacity.max_num_batched_tokens));
  for (const char* name : {"next", "logits"}) {
    auto port = program.output_ports.find(name);
    if (port != program.output_ports.end() && batch.num_logit_rows * port->second.row_bytes > port->second.bytes)
      return InvalidArgumentError(fmt::format("{} logit rows, the plan takes {}", batch.num_logit_rows,
                                              port->second.bytes / std::max<int64_t>(port->second.row_bytes, 1)));
  }
  for (int s = 0; s < batch.num_seqs; ++s) {
    const int rows = batch.cu_tokens[s + 1] - batch.cu_tokens[s];
    if (rows < 1 || (s < batch.num_short && rows > program.plan->max_rows))
      return InvalidArgumentError(
          fmt::format("sequence {}: {} rows, a short one has 1 to {}", s, rows, program.plan->max_rows));
    if (batch.state_slot[s] >= options_.num_slots && !plan_.states[0].delta_layers.empty())
      return InvalidArgumentError(
          fmt::format("sequence {}: slot {}, the pool has {}", s, batch.state_slot[s], options_.num_slots));
  }
  const int64_t want = batch.num_tokens * program.hidden_port.row_bytes;
  if (static_cast<int64_t>(hidden.size()) != want)
    return InvalidArgumentError(fmt::format("hidden: {} bytes, want {}", hidden.size(), want));
  for (const auto& [name, port] : program.output_ports) {
    if (!cuda() && !hidden.empty() && hidden.data() < port.data + port.bytes && port.data < hidden.data() + hidden.size())
      return InvalidArgumentError(fmt::format("hidden: lies in output {}, which the program overwrites", name));
  }
  return {};
}

StatusOr<Outputs> DeviceExecutor::Run(const std::string& name, const kernels::BatchView& batch,
                                   std::span<const uint8_t> hidden) {
  auto found = ranks_[0].programs.find(name);
  if (found == ranks_[0].programs.end()) return WhyNot(name);
  const BoundProgram& first = found->second;
  if (Status status = CheckBatch(first, batch, hidden); !status.ok())
    return std::move(status).Annotate(fmt::format("program {}: batch", name));

  // Everything that can be refused has been: from here on all ranks go through, so none waits in vain.
  if (!lost_.ok()) return lost_;
  workers_->Run([&](int r) {
    Rank& rank = ranks_[r];
    BoundProgram& program = rank.programs.find(name)->second;
    for (const BoundProgram::Input& input : program.hidden)
      program.steps.steps[input.step].args[input.arg] = const_cast<uint8_t*>(hidden.data());
    if (rank.hidden && !hidden.empty()) {
      rank.status = rank.device->CopyIn(rank.hidden.get(), hidden.data(), static_cast<int64_t>(hidden.size()));
      if (!rank.status.ok()) return;
    }
    rank.status = rank.device->Run(program.steps, batch, *comm_);
  });
  for (Rank& rank : ranks_)
    if (!rank.status.ok()) return std::move(rank.status).Annotate(fmt::format("program {}", name));
  if (cuda()) QWEN_RETURN_IF_ERROR(FetchOutputs(first, batch).Annotate(fmt::format("program {}", name)));

  Outputs outputs;
  auto port = [&first](const char* output) -> const BoundProgram::Port* {
    auto it = first.output_ports.find(output);
    return it == first.output_ports.end() ? nullptr : &it->second;
  };
  auto ints = [&](const char* output, int count) {
    const BoundProgram::Port* p = port(output);
    return p ? std::span(reinterpret_cast<const int32_t*>(Readable(*p)), count) : std::span<const int32_t>();
  };
  auto rows = [&](const char* output, int count) {
    const BoundProgram::Port* p = port(output);
    return p ? std::span<const uint8_t>(Readable(*p), count * p->row_bytes) : std::span<const uint8_t>();
  };
  outputs.next = ints("next", batch.num_logit_rows);
  outputs.accepted = ints("accepted", batch.num_short);
  outputs.emitted = ints("emitted", batch.num_short);
  if (const BoundProgram::Port* p = port("logits"))
    outputs.logits = {reinterpret_cast<const float*>(Readable(*p)), batch.num_logit_rows * p->row_bytes / sizeof(float)};
  outputs.hidden = rows(port("hidden_out") ? "hidden_out" : "final_hidden", batch.num_tokens);
  outputs.features = rows("features", batch.num_tokens);
  return outputs;
}

// Where the host reads an output of rank 0.
const uint8_t* DeviceExecutor::Readable(const BoundProgram::Port& port) const {
  const Rank& rank = ranks_[0];
  return cuda() ? rank.host_outputs.data() + (port.data - rank.outputs.get()) : port.data;
}

// What the batch asked for. Rows of logits are a megabyte each, and mostly nobody reads one.
Status DeviceExecutor::FetchOutputs(const BoundProgram& program, const kernels::BatchView& batch) {
  Rank& rank = ranks_[0];
  auto fetch = [&](const BoundProgram::Port& port, int64_t first, int64_t count) {
    const int64_t at = first * port.row_bytes;
    return rank.device->CopyOut(const_cast<uint8_t*>(Readable(port)) + at, port.data + at, count * port.row_bytes);
  };
  for (const auto& [name, port] : program.output_ports) {
    if (name != "logits") {
      const bool by_sequence = name == "accepted" || name == "emitted";
      QWEN_RETURN_IF_ERROR(
          fetch(port, 0, by_sequence ? batch.num_short : name == "next" ? batch.num_logit_rows : batch.num_tokens));
      continue;
    }
    for (int n = 0; n < batch.num_logit_rows; ++n)
      if (batch.sample[n].flags & kernels::kSampleWriteLogits) QWEN_RETURN_IF_ERROR(fetch(port, n, 1));
  }
  return {};
}

// --- Copies of state -------------------------------------------------------------------------------------------------

// One sequence without anything to run: what the fold kernel needs to know of a slot.
struct SlotBatch {
  SlotBatch(int slot, int position, int ring_fill) : slot(slot), position(position), ring_fill(ring_fill) {}
  kernels::BatchView View() const {
    kernels::BatchView view{};
    view.num_seqs = view.num_short = view.num_tokens = 1;
    view.cu_tokens = cu_tokens, view.token_ids = &token, view.position = &position, view.state_slot = &slot;
    view.table_row = &table_row, view.ring_fill = &ring_fill, view.fold = &fold;
    return view;
  }
  const int cu_tokens[2] = {0, 1}, token = 0, slot, position, table_row = -1, ring_fill, fold = 1;
};

void DeviceExecutor::SaveSlot(int slot, int position, int ring_fill, std::span<uint8_t> to) const {
  assert(0 <= slot && slot < options_.num_slots && static_cast<int64_t>(to.size()) == slot_copy_bytes());
  if (position == 0) {  // nothing was ever written: the slot's bytes are another sequence's
    std::ranges::fill(to, uint8_t{0});
    return;
  }
  uint8_t* at = to.data();
  for (Rank& rank : ranks_) {
    SlotBatch sequence(rank.host ? 0 : slot, position, ring_fill);
    device::Program fold;
    fold.state = StateOf(*rank.state);
    fold.steps.resize(1);
    fold.steps[0].part = plan::Part::kShort;
    for (const SavedLayer& layer : rank.saved_layers) {
      uint8_t* pool = rank.slots.get() + layer.offset;
      const uint8_t* mine = pool + slot * rank.state->slot_bytes;
      if (rank.host) {
        Remember(rank.device->CopyOut(rank.slot_copy.data(), mine, layer.layout.bytes));
        mine = pool = rank.slot_copy.data();
      }
      fold.steps[0].kernel = layer.fold.get();
      fold.steps[0].args.resize(kernels::kGdnFoldArgs);
      fold.steps[0].args[kernels::kGdnFoldState] = pool;
      fold.steps[0].args[kernels::kGdnFoldBase] = rank.fold_out.get();
      Remember(rank.folder().Run(fold, sequence.View(), *comm_));
      std::memcpy(at, rank.fold_out.get(), layer.base_bytes);
      at += layer.base_bytes;
      for (int p = position - layer.conv_rows; p < position; ++p) {
        const int64_t row_bytes = layer.layout.conv_row_bytes;
        if (p < 0)
          std::memset(at, 0, row_bytes);
        else
          std::memcpy(at, mine + layer.layout.conv + p % rank.state->conv_rows * row_bytes, row_bytes);
        at += row_bytes;
      }
    }
  }
}

void DeviceExecutor::LoadSlot(int slot, int position, std::span<const uint8_t> from) {
  assert(0 <= slot && slot < options_.num_slots && static_cast<int64_t>(from.size()) == slot_copy_bytes());
  if (position == 0) return;  // R = P: neither S0 nor a conv row is read
  const uint8_t* at = from.data();
  for (const Rank& rank : ranks_) {
    for (const SavedLayer& layer : rank.saved_layers) {
      uint8_t* mine = rank.slots.get() + slot * rank.state->slot_bytes + layer.offset;
      Remember(rank.device->CopyIn(mine + layer.layout.base, at, layer.base_bytes));
      at += layer.base_bytes;
      for (int p = position - layer.conv_rows; p < position; ++p) {
        const int64_t row_bytes = layer.layout.conv_row_bytes;
        if (p >= 0)
          Remember(
              rank.device->CopyIn(mine + layer.layout.conv + p % rank.state->conv_rows * row_bytes, at, row_bytes));
        at += row_bytes;
      }
    }
  }
}

void DeviceExecutor::SavePage(int page, std::span<uint8_t> to) const {
  assert(0 <= page && page < options_.num_pages && static_cast<int64_t>(to.size()) == page_bytes());
  uint8_t* at = to.data();
  for (const Rank& rank : ranks_) {
    Remember(rank.device->CopyOut(at, rank.pages.get() + page * rank.state->page_bytes, rank.state->page_bytes));
    at += rank.state->page_bytes;
  }
}

void DeviceExecutor::LoadPage(int page, std::span<const uint8_t> from) {
  assert(0 <= page && page < options_.num_pages && static_cast<int64_t>(from.size()) == page_bytes());
  const uint8_t* at = from.data();
  for (const Rank& rank : ranks_) {
    Remember(rank.device->CopyIn(rank.pages.get() + page * rank.state->page_bytes, at, rank.state->page_bytes));
    at += rank.state->page_bytes;
  }
}

}  // namespace

std::string_view TargetOf(DeviceKind device) { return device == DeviceKind::kCuda ? "sm_89" : "cpu"; }

int ThreadsFor(const plan::Plan& plan, int asked) { return asked ? asked : std::max(1, AvailableCores() / plan.tp); }

int64_t MachineMemoryBytes() { return device::CpuMemoryBytes(); }

StatusOr<std::vector<Card>> CudaCards() {
  QWEN_ASSIGN_OR_RETURN(const std::vector<device::CudaCard> found, device::CudaCards());
  std::vector<Card> cards;
  for (const device::CudaCard& card : found)
    cards.push_back({card.ordinal, card.name, card.memory_bytes, card.major, card.minor, card.bytes_per_second,
                     card.flops_per_second});
  return cards;
}

StatusOr<int64_t> DeviceMemoryBytes(DeviceKind device) {
  if (device == DeviceKind::kCpu) return MachineMemoryBytes();
  QWEN_ASSIGN_OR_RETURN(const std::vector<Card> cards, CudaCards());
  return cards.front().memory_bytes;
}

Status CheckMemory(const plan::Plan& plan, const ExecutorOptions& options) {
  QWEN_ASSIGN_OR_RETURN(const int64_t memory_bytes, DeviceMemoryBytes(options.device));
  return plan::CheckFit(plan, std::string(TargetOf(options.device)),
                        {.memory_bytes = memory_bytes,
                         .num_slots = options.num_slots,
                         .num_pages = options.num_pages,
                         .threads = ThreadsFor(plan, options.threads)});
}

StatusOr<std::unique_ptr<Executor>> Executor::Create(const plan::Plan& plan, Weights weights,
                                                     const ExecutorOptions& options) {
  auto executor = std::make_unique<DeviceExecutor>(ForTarget(plan, TargetOf(options.device)), std::move(weights),
                                                   options);
  QWEN_RETURN_IF_ERROR(executor->Init());
  return std::unique_ptr<Executor>(std::move(executor));
}

}  // namespace qwen::exec
