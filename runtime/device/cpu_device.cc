// The CPU: a program is one Run of the rank's threads, which walk the steps side by side.
//
// Every thread decides alone which steps have rows, from the same batch, so all leave out the same ones. A barrier that
// a left-out step asked for is owed by the next one: what that step would have waited for is not finished sooner.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>

#include "runtime/base/thread_pool.h"
#include "runtime/device/device.h"

namespace qwen::device {
namespace {

struct CpuKernel : Kernel {
  kernels::CpuBody body = nullptr;
};

int Rows(plan::Part part, const kernels::BatchView& batch) {
  switch (part) {
    case plan::Part::kAll:
      return batch.num_tokens;
    case plan::Part::kShort:
      return batch.num_short;
    case plan::Part::kLong:
      return batch.num_seqs - batch.num_short;
    case plan::Part::kLogitRows:
      return batch.num_logit_rows;
  }
  return 0;
}

class CpuDevice : public Device {
 public:
  explicit CpuDevice(const CpuOptions& options)
      : options_(options), pool_(options.threads, options.spins), barrier_(options.threads, options.spins) {}

  std::string_view target() const override { return "cpu"; }
  bool is_host() const override { return true; }

  int64_t memory_bytes() const override { return CpuMemoryBytes(); }

  StatusOr<Memory> Allocate(int64_t bytes) override {
    const size_t length = std::max<int64_t>(bytes, 1);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (options_.populate ? MAP_POPULATE : 0);
    void* at = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED)
      return ResourceExhaustedError(fmt::format("{} bytes, the machine has {}", bytes, memory_bytes()));
    return Memory(static_cast<uint8_t*>(at), [length](uint8_t* p) { munmap(p, length); });
  }

  Status CopyIn(void* to, const uint8_t* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return {};
  }
  Status CopyOut(uint8_t* to, const void* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return {};
  }

  StatusOr<std::unique_ptr<const Kernel>> Load(const plan::Kernel& kernel, std::string_view) override {
    constexpr const char* kHint = "the plan was made for another build; compile it again";
    auto loaded = std::make_unique<CpuKernel>();
    loaded->info = kernels::FindKernel(kernel.entry);
    loaded->body = kernels::FindBody(kernel.entry, options_.isa);
    if (!loaded->info || !loaded->body)
      return UnimplementedError(fmt::format("this build has no kernel {}", kernel.entry), kHint);
    if (loaded->info->family != kernel.family)
      return DataLossError(
          fmt::format("{} is of family {}, the plan says {}", kernel.entry, loaded->info->family, kernel.family),
          kHint);
    QWEN_ASSIGN_OR_RETURN(loaded->spec, loaded->info->decode(kernel.spec));
    loaded->num_args = loaded->info->num_args(loaded->spec.get());
    const kernels::Workspace space =
        loaded->info->workspace(loaded->spec.get(), options_.capacity.max_num_batched_tokens);
    loaded->scratch_bytes = space.scratch, loaded->shared_bytes = space.shared;
    return std::unique_ptr<const Kernel>(std::move(loaded));
  }

  StatusOr<int64_t> Reserve(int64_t scratch_bytes, int64_t shared_bytes) override {
    // Whole pages a thread: each thread touches its own first, and no prefetcher crosses into another.
    constexpr int64_t kPage = 4096;
    scratch_stride_ = (scratch_bytes + kPage - 1) / kPage * kPage;
    QWEN_ASSIGN_OR_RETURN(scratch_, Allocate(scratch_stride_ * options_.threads));
    QWEN_ASSIGN_OR_RETURN(shared_, Allocate(shared_bytes));
    return scratch_stride_ * options_.threads + shared_bytes;
  }

  Status Run(const Program& program, const kernels::BatchView& batch, comm::Comm& comm) override {
    // For kernels that know only tokens, where they run over the wanted rows.
    kernels::BatchView wanted = batch;
    wanted.num_tokens = batch.num_logit_rows;
    pool_.Run([&](int thread) { Walk(program, batch, wanted, comm, thread); });
    return {};
  }

 private:
  void Walk(const Program& program, const kernels::BatchView& batch, const kernels::BatchView& wanted, comm::Comm& comm,
            int thread) {
    kernels::Launch launch{};
    launch.state = &program.state;
    launch.rank = options_.rank, launch.ranks = comm.ranks();
    launch.thread = thread, launch.threads = options_.threads;
    launch.scratch = scratch_.get() + thread * scratch_stride_;
    launch.shared = shared_.get();
    bool owed = false;
    for (const Step& step : program.steps) {
      owed |= step.waits;
      if (Rows(step.part, batch) == 0) continue;
      const kernels::KernelInfo& info = *step.kernel->info;
      launch.batch = step.part == plan::Part::kLogitRows && info.part == plan::Part::kAll ? &wanted : &batch;
      launch.args = step.args.data();
      if (info.collective)
        launch.peers = comm.Enter(options_.rank, thread, step.args[0]);
      else if (owed)
        barrier_.Wait();
      static_cast<const CpuKernel*>(step.kernel)->body(step.kernel->spec.get(), launch);
      if (info.collective) comm.Leave();
      launch.peers = nullptr;
      owed = false;
    }
  }

  const CpuOptions options_;
  ThreadPool pool_;
  Barrier barrier_;
  int64_t scratch_stride_ = 0;
  Memory scratch_, shared_;
};

}  // namespace

int64_t CpuMemoryBytes() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  // The process's group and those around it, of the second version's single tree (kernel: cgroup-v2.rst).
  std::string line, path;
  for (std::ifstream groups("/proc/self/cgroup"); std::getline(groups, line);)
    if (line.starts_with("0::/")) path = line.substr(3);
  for (; !path.empty(); path.resize(path.rfind('/'))) {
    int64_t limit = 0;  // "max" is no number
    if (std::ifstream("/sys/fs/cgroup" + path + "/memory.max") >> limit) bytes = std::min(bytes, limit);
  }
  return bytes;
}

StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuOptions& options) {
  if (!kernels::IsaSupported(options.isa))
    return UnimplementedError(fmt::format("this machine cannot run {}, its best is {}", kernels::IsaName(options.isa),
                                          kernels::IsaName(kernels::DetectIsa())));
  try {
    return std::unique_ptr<Device>(std::make_unique<CpuDevice>(options));
  } catch (const std::system_error& error) {
    return ResourceExhaustedError(fmt::format("{} threads: {}", options.threads, error.what()), "use fewer --threads");
  }
}

}  // namespace qwen::device
