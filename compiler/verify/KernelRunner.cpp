//===- KernelRunner.cpp - one launch of one kernel ------------------------===//

#include "compiler/verify/KernelRunner.h"

#include "runtime/device/device.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <thread>

namespace qwen::compiler {
namespace {

class CpuRunner : public KernelRunner {
public:
  explicit CpuRunner(kernels::Isa isa) : isa(isa) {}

  Status run(const KernelCall &call) override {
    std::vector<void *> args;
    for (const Argument &argument : call.args)
      args.push_back(argument.data);
    std::vector<const void *> peers;
    for (const Argument &argument : call.peers)
      peers.push_back(argument.data);
    kernels::Workspace space = call.info->workspace(call.spec, call.batch->num_tokens);
    constexpr int kThreads = 2;
    Aligned scratch[kThreads] = {Aligned(space.scratch), Aligned(space.scratch)}, shared(space.shared);
    kernels::CpuBody body = kernels::FindBody(call.info->entry, isa);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread)
      threads.emplace_back([&, thread] {
        kernels::Launch launch{call.batch, call.state, args.data(), peers.data(), call.rank, int(peers.size()), thread,
                               kThreads, scratch[thread].data(), shared.data()};
        body(call.spec, launch);
      });
    for (std::thread &thread : threads)
      thread.join();
    return {};
  }

private:
  class Aligned { // zeroed
  public:
    explicit Aligned(int64_t size) : storage(size_t(size) + 64) {}
    uint8_t *data() { return storage.data() + (-reinterpret_cast<uintptr_t>(storage.data()) & 63); }

  private:
    std::vector<uint8_t> storage;
  };

  kernels::Isa isa;
};

class CudaRunner : public KernelRunner {
public:
  explicit CudaRunner(const plan::Plan &plan) : plan(plan) {}

  Status open() { return makeDevice(plan.capacity).status(); }

  Status run(const KernelCall &call) override {
    // Workspaces are sized for the batch at hand, not for the plan's largest.
    plan::Capacity capacity = plan.capacity;
    capacity.max_num_seqs = call.batch->num_seqs;
    capacity.max_num_batched_tokens = call.batch->num_tokens;
    capacity.max_logit_rows = std::max(1, call.batch->num_logit_rows);
    QWEN_ASSIGN_OR_RETURN(std::unique_ptr<device::Device> card, makeDevice(capacity));

    auto record = std::find_if(plan.kernels.begin(), plan.kernels.end(),
                               [&](const plan::Kernel &kernel) { return kernel.name == call.name; });
    if (record == plan.kernels.end() || record->ptx < 0)
      return DataLossError(fmt::format("kernel {}: the plan has no PTX of it", call.name));
    const std::vector<uint8_t> &ptx = plan.blobs[size_t(record->ptx)].bytes;
    QWEN_ASSIGN_OR_RETURN(auto kernel,
                          card->Load(*record, {reinterpret_cast<const char *>(ptx.data()), ptx.size()}));
    QWEN_RETURN_IF_ERROR(card->Reserve(kernel->scratch_bytes, kernel->shared_bytes).status());

    std::map<uint8_t *, device::Memory> there;
    auto upload = [&](const Argument &argument) -> StatusOr<void *> {
      if (!argument.data)
        return nullptr;
      device::Memory &memory = there[argument.data];
      if (!memory) {
        QWEN_ASSIGN_OR_RETURN(memory, card->Allocate(argument.bytes));
        QWEN_RETURN_IF_ERROR(card->CopyIn(memory.get(), argument.data, argument.bytes));
      }
      return memory.get();
    };
    device::Program program;
    program.state = *call.state;
    device::Step &step = program.steps.emplace_back();
    step.kernel = kernel.get();
    step.part = call.part;
    for (const Argument &argument : call.args) {
      QWEN_ASSIGN_OR_RETURN(void *at, upload(argument));
      step.args.push_back(at);
    }
    for (const Argument &argument : call.peers) {
      QWEN_ASSIGN_OR_RETURN(void *at, upload(argument));
      step.peers.push_back(at);
    }
    std::unique_ptr<comm::Comm> nobody = comm::MakeShm(1, 1, 0);
    QWEN_RETURN_IF_ERROR(card->Run(program, *call.batch, *nobody));
    for (const Argument &argument : call.args)
      if (argument.data && argument.written)
        QWEN_RETURN_IF_ERROR(card->CopyOut(argument.data, there[argument.data].get(), argument.bytes));
    return {};
  }

private:
  static StatusOr<std::unique_ptr<device::Device>> makeDevice(const plan::Capacity &capacity) {
    return device::MakeCudaDevice({.capacity = capacity});
  }
  const plan::Plan &plan;
};

} // namespace

std::unique_ptr<KernelRunner> makeCpuRunner(kernels::Isa isa) { return std::make_unique<CpuRunner>(isa); }

StatusOr<std::unique_ptr<KernelRunner>> makeCudaRunner(const plan::Plan &plan) {
  auto runner = std::make_unique<CudaRunner>(plan);
  QWEN_RETURN_IF_ERROR(runner->open());
  return std::unique_ptr<KernelRunner>(std::move(runner));
}

} // namespace qwen::compiler
