// The CUDA bodies: a Spec through NVRTC, arguments and batch into device memory, one launch, everything back.
//
// QWENRT_CUDA_DRIVER names the driver: the emulator without it, a card's libcuda.so.1 with it.
#include <fmt/format.h>

#include <cstring>
#include <map>

#include "compiler/codegen/Nvrtc.h"
#include "compiler/codegen/SpecEmitter.h"
#include "runtime/kernels/cuda/launch.h"
#include "test/conformance/harness.h"
#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::kernels::conformance {
namespace {

namespace abi = emu::abi;

std::map<uintptr_t, size_t>& Blocks() {
  static auto* blocks = new std::map<uintptr_t, size_t>;
  return *blocks;
}

struct Gpu {
  std::string missing;
  const emu::Api* cu = nullptr;
  const compiler::Nvrtc* nvrtc = nullptr;
  std::map<std::string, abi::Function*> kernels;  // by source: a table asks for the same Spec many times

  static Gpu& Get() {
    static auto* gpu = new Gpu;
    return *gpu;
  }
  Gpu() {
    auto opened = compiler::Nvrtc::open();
    cu = &emu::Api::Get();
    if (!opened.ok())
      missing = opened.status().message();
    else if (!cu->missing.empty())
      missing = cu->missing;
    else if (abi::Context* context; cu->cuInit(0) != abi::kSuccess ||
                                    cu->cuDevicePrimaryCtxRetain(&context, 0) != abi::kSuccess ||
                                    cu->cuCtxSetCurrent(context) != abi::kSuccess)
      missing = "no CUDA device";
    else
      nvrtc = *opened;
  }
  std::string Fault() const { return cu->last_fault ? cu->last_fault() : ""; }
};

/// Device memory for the length of a run; goes back to the host's on Return.
class Upload {
 public:
  Upload(const void* host, size_t bytes) : host_(host), bytes_(bytes) {
    EXPECT_EQ(Gpu::Get().cu->cuMemAlloc_v2(&at_, bytes ? bytes : 1), abi::kSuccess);
    if (bytes && host) EXPECT_EQ(Gpu::Get().cu->cuMemcpyHtoD_v2(at_, host, bytes), abi::kSuccess);
  }
  Upload(const Upload&) = delete;
  ~Upload() { Gpu::Get().cu->cuMemFree_v2(at_); }
  void Return() {
    if (bytes_) EXPECT_EQ(Gpu::Get().cu->cuMemcpyDtoH_v2(const_cast<void*>(host_), at_, bytes_), abi::kSuccess);
  }
  template <class T = void>
  T* At(size_t offset = 0) const {
    return reinterpret_cast<T*>(at_ + offset);
  }

 private:
  const void* host_;
  size_t bytes_;
  abi::DevicePtr at_ = 0;
};

int Blocks(const plan::GridDim& dim, const BatchView& batch, int rows) {
  int64_t count = 1;
  switch (dim.count) {
    case plan::Count::kOne: count = 1; break;
    case plan::Count::kRows: count = rows; break;
    case plan::Count::kSeqs: count = batch.num_seqs; break;
    case plan::Count::kShortSeqs: count = batch.num_short; break;
    case plan::Count::kLongSeqs: count = batch.num_seqs - batch.num_short; break;
  }
  const int64_t blocks = (count * dim.mul + dim.div - 1) / dim.div;
  return static_cast<int>(std::clamp<int64_t>(blocks, 1, dim.max));
}

}  // namespace

void TrackBlock(const void* at, size_t bytes) { Blocks()[reinterpret_cast<uintptr_t>(at)] = bytes; }
void ForgetBlock(const void* at) { Blocks().erase(reinterpret_cast<uintptr_t>(at)); }

std::string WhyNoCuda() { return Gpu::Get().missing; }

void RunOnCuda(const BodyCall& run, const KernelInfo& info, const plan::Fields& fields, const void* spec) {
  Gpu& gpu = Gpu::Get();
  const emu::Api& cu = *gpu.cu;
  const CudaKernelInfo* cuda = FindCudaKernel(run.entry);
  ASSERT_NE(cuda, nullptr) << run.entry;
  ASSERT_TRUE(cuda->check(spec).ok()) << cuda->check(spec).message();
  const plan::LaunchShape shape = cuda->shape(spec);
  const int num_args = static_cast<int>(run.args.size());
  const std::string name = std::string(run.entry) + "__table";
  const std::string source =
      compiler::emitCudaSource({.name = name, .entry = std::string(run.entry), .spec = fields}, *cuda, shape, num_args);
  abi::Function*& function = gpu.kernels[source];
  if (!function) {
    auto ptx = gpu.nvrtc->compile(name, source);
    ASSERT_TRUE(ptx.ok()) << ptx.status().message() << "\n" << source;
    std::string log(4096, '\0');
    int options[] = {abi::kJitErrorLogBuffer, abi::kJitErrorLogBufferSizeBytes};
    void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
    abi::Module* module = nullptr;
    ASSERT_EQ(cu.cuModuleLoadDataEx(&module, ptx->c_str(), 2, options, values), abi::kSuccess) << log.c_str();
    ASSERT_EQ(cu.cuModuleGetFunction(&function, module, name.c_str()), abi::kSuccess);
    if (shape.shared_bytes > 48 << 10)
      ASSERT_EQ(cu.cuFuncSetAttribute(function, abi::kFuncMaxDynamicSharedSizeBytes, shape.shared_bytes), abi::kSuccess);
  }

  std::map<uintptr_t, Upload> memory;  // by the block's address
  auto device = [&](const void* host) -> void* {
    if (!host) return nullptr;
    const auto at = reinterpret_cast<uintptr_t>(host);
    auto block = Blocks().upper_bound(at);
    EXPECT_NE(block, Blocks().begin()) << "an argument is no Array";
    --block;
    EXPECT_LE(at, block->first + block->second) << "an argument is no Array";
    auto [entry, added] =
        memory.try_emplace(block->first, reinterpret_cast<const void*>(block->first), block->second);
    return entry->second.At(at - block->first);
  };
  const BatchView& b = *run.batch;
  const bool wanted = info.part == plan::Part::kLogitRows;
  const int rows = wanted ? b.num_logit_rows : b.num_tokens;
  int table_rows = 0, longest = 1;  // rows of a short sequence
  for (int s = 0; s < b.num_short; ++s) longest = std::max(longest, b.cu_tokens[s + 1] - b.cu_tokens[s]);
  for (int s = 0; s < b.num_seqs; ++s) table_rows = std::max(table_rows, b.table_row[s] + 1);
  const int counts[] = {b.num_seqs, b.num_short, b.num_tokens, b.num_logit_rows};
  Upload count_copy(counts, sizeof counts), cu_tokens(b.cu_tokens, 4 * (b.num_seqs + 1)),
      token_ids(b.token_ids, 4 * b.num_tokens), position(b.position, 4 * b.num_seqs),
      state_slot(b.state_slot, 4 * b.num_seqs), table_row(b.table_row, 4 * b.num_seqs),
      ring_fill(b.ring_fill, 4 * b.num_seqs), fold(b.fold, 4 * b.num_seqs),
      logit_rows(b.logit_rows, 4 * b.num_logit_rows), sample(b.sample, sizeof(SampleParams) * b.num_logit_rows),
      page_table(b.page_table, 4LL * table_rows * b.max_pages);

  // As Launch<N> lies in memory, N being known only now.
  cuda::Launch<1> head{};
  head.batch = {.counts = count_copy.At<int>(),
                .cu_tokens = cu_tokens.At<int>(),
                .token_ids = token_ids.At<int>(),
                .position = position.At<int>(),
                .state_slot = state_slot.At<int>(),
                .table_row = table_row.At<int>(),
                .ring_fill = ring_fill.At<int>(),
                .fold = fold.At<int>(),
                .logit_rows = logit_rows.At<int>(),
                .sample = sample.At<SampleParams>(),
                .page_table = page_table.At<int>(),
                .max_pages = b.max_pages};
  head.state = run.state;
  head.rows = count_copy.At<int>() + (wanted ? cuda::kNumLogitRows : cuda::kNumTokens);
  const CudaWorkspace space = cuda->workspace(spec, {.max_num_seqs = std::max(b.num_seqs, 1),
                                                     .max_num_batched_tokens = std::max(b.num_tokens, 1),
                                                     .max_rows = longest});
  std::vector<uint8_t> zeros(space.shared), garbage(space.scratch, 0xff);
  Upload shared(zeros.data(), zeros.size()), scratch(garbage.data(), garbage.size());
  head.shared = shared.At<unsigned char>();
  head.scratch = scratch.At<unsigned char>();
  head.ranks = static_cast<int>(run.peers.size());
  for (size_t r = 0; r < run.peers.size(); ++r) head.peers[r] = device(run.peers[r]);
  std::vector<uint8_t> params(sizeof head + 8 * (num_args - 1));
  for (int a = 0; a < num_args; ++a) {
    void* at = device(run.args[a]);
    std::memcpy(params.data() + offsetof(cuda::Launch<1>, args) + 8 * a, &at, 8);
  }
  std::memcpy(params.data(), &head, offsetof(cuda::Launch<1>, args));

  void* pointers[] = {params.data()};
  const unsigned x = Blocks(shape.grid[0], b, rows), y = Blocks(shape.grid[1], b, rows), z = Blocks(shape.grid[2], b, rows);
  ASSERT_EQ(cu.cuLaunchKernel(function, x, y, z, shape.threads, 1, 1, shape.shared_bytes, nullptr, pointers, nullptr),
            abi::kSuccess)
      << gpu.Fault() << "\n" << source;
  ASSERT_EQ(cu.cuCtxSynchronize(), abi::kSuccess) << gpu.Fault() << "\n" << source;
  for (auto& [at, upload] : memory) upload.Return();
  shared.Return();
  EXPECT_EQ(std::count(zeros.begin(), zeros.end(), 0), space.shared) << run.entry << " left its shared bytes not zero";
}

}  // namespace qwen::kernels::conformance
