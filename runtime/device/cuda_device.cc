// A CUDA card: steps are kernel launches on one stream, in order, so a barrier costs nothing.
//
// A batch goes to the card as one block at fixed addresses, and kernels read their counts there. So the launches of a
// batch of short sequences do not depend on it but for their grids, and those are sized for a bucket: the launches are
// captured once a bucket and replayed as one graph. Batches with prompts are launched step by step.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <tuple>

#include "runtime/device/cuda_driver.h"
#include "runtime/device/device.h"
#include "runtime/kernels/cuda/cuda_catalog.h"
#include "runtime/kernels/cuda/launch.h"

namespace qwen::device {
namespace {

constexpr size_t kStagingBytes = size_t{8} << 20;  // of the two halves that uploads go through in turn
constexpr unsigned kNonBlocking = 1;
constexpr unsigned kNoTiming = 2;                 // CU_EVENT_DISABLE_TIMING
constexpr int kMaxDynamicSharedBytes = 8;         // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kErrorLog = 5, kErrorLogBytes = 6;  // CU_JIT_ERROR_LOG_BUFFER, its size

struct CudaKernel : Kernel {
  const CudaDriver* cu = nullptr;
  CudaModule module = nullptr;
  CudaFunction function = nullptr;
  plan::LaunchShape shape;
  ~CudaKernel() override {
    if (module) cu->cuModuleUnload(module);
  }
};

/// What a step's grid may count.
struct Rows {
  int all = 0, seqs = 0, short_seqs = 0, long_seqs = 0, wanted = 0;

  int Of(plan::Part part) const {
    switch (part) {
      case plan::Part::kAll:
        return all;
      case plan::Part::kShort:
        return short_seqs;
      case plan::Part::kLong:
        return long_seqs;
      case plan::Part::kLogitRows:
        return wanted;
    }
    return 0;
  }
  unsigned Blocks(const plan::GridDim& dim, plan::Part part) const {
    int64_t count = 1;
    switch (dim.count) {
      case plan::Count::kOne:
        break;
      case plan::Count::kRows:
        count = part == plan::Part::kLogitRows ? wanted : all;
        break;
      case plan::Count::kSeqs:
        count = seqs;
        break;
      case plan::Count::kShortSeqs:
        count = short_seqs;
        break;
      case plan::Count::kLongSeqs:
        count = long_seqs;
        break;
    }
    return static_cast<unsigned>(std::clamp<int64_t>((count * dim.mul + dim.div - 1) / dim.div, 1, dim.max));
  }
};

/// The next power of two: 1, 2, 4 ... sequences share a graph with those just above them.
int Bucket(int count) { return static_cast<int>(std::bit_ceil(static_cast<unsigned>(count))); }

class CudaDevice : public Device {
 public:
  CudaDevice(const CudaDriver* cu, const CudaOptions& options) : cu_(cu), options_(options) {}
  ~CudaDevice() override {
    if (!context_) return;
    cu_->cuCtxSetCurrent(context_);
    if (stream_) cu_->cuStreamSynchronize(stream_);  // uploads may still read pinned memory
    for (auto& [key, exec] : graphs_) cu_->cuGraphExecDestroy(exec);
    for (CudaEvent event : uploaded_)
      if (event) cu_->cuEventDestroy_v2(event);
    batch_.reset(), shared_.reset(), scratch_.reset(), page_table_.reset();
    for (void* host : {static_cast<void*>(block_), static_cast<void*>(table_), static_cast<void*>(staging_)})
      if (host) cu_->cuMemFreeHost(host);
    if (stream_) cu_->cuStreamDestroy_v2(stream_);
    cu_->cuDevicePrimaryCtxRelease_v2(device_);
  }

  Status Init() {
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuDeviceGet(&device_, options_.ordinal), "cuDeviceGet"));
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain"));
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuCtxSetCurrent(context_), "cuCtxSetCurrent"));
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuStreamCreate(&stream_, kNonBlocking), "cuStreamCreate"));
    QWEN_RETURN_IF_ERROR(HostAllocate(kStagingBytes, &staging_));
    for (CudaEvent& event : uploaded_)
      QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuEventCreate(&event, kNoTiming), "cuEventCreate"));
    // The batch's arrays, one behind the other, at the capacity.
    const plan::Capacity& c = options_.capacity;
    const int64_t seqs = c.max_num_seqs, wanted = c.max_logit_rows ? c.max_logit_rows : c.max_num_batched_tokens;
    int64_t at = 0;
    auto take = [&](int64_t bytes) { return std::exchange(at, (at + bytes + 15) / 16 * 16); };
    at_.counts = take(4 * kernels::cuda::kBatchCounts);
    at_.cu_tokens = take(4 * (seqs + 1));
    at_.token_ids = take(4 * int64_t{c.max_num_batched_tokens});
    for (int64_t* field : {&at_.position, &at_.state_slot, &at_.table_row, &at_.ring_fill, &at_.fold})
      *field = take(4 * seqs);
    at_.logit_rows = take(4 * wanted);
    at_.sample = take(static_cast<int64_t>(sizeof(kernels::SampleParams)) * wanted);
    block_bytes_ = at;
    QWEN_RETURN_IF_ERROR(HostAllocate(block_bytes_, &block_));
    std::memset(block_, 0, block_bytes_);
    QWEN_ASSIGN_OR_RETURN(batch_, Allocate(block_bytes_));
    return {};
  }

  std::string_view target() const override { return "sm_89"; }
  bool is_host() const override { return false; }

  int64_t memory_bytes() const override {
    size_t free = 0, total = 0;
    cu_->cuCtxSetCurrent(context_);
    return cu_->cuMemGetInfo_v2(&free, &total) == 0 ? static_cast<int64_t>(total) : 0;
  }

  StatusOr<Memory> Allocate(int64_t bytes) override {
    cu_->cuCtxSetCurrent(context_);
    const size_t length = std::max<int64_t>(bytes, 16);
    CudaAddress at = 0;
    if (CudaResult result = cu_->cuMemAlloc_v2(&at, length); result != 0) {
      size_t free = 0, total = 0;
      cu_->cuMemGetInfo_v2(&free, &total);
      return ResourceExhaustedError(fmt::format("{} bytes, the card has {} of {} free", bytes, free, total));
    }
    Memory memory(reinterpret_cast<uint8_t*>(at), [cu = cu_, context = context_](uint8_t* p) {
      cu->cuCtxSetCurrent(context);
      cu->cuMemFree_v2(reinterpret_cast<CudaAddress>(p));
    });
    // All that uses the memory is on the stream, behind this.
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuMemsetD8Async(at, 0, length, stream_), "cuMemsetD8"));
    return memory;
  }

  // Through pinned memory: a half is filled while the other one is on its way, also over several calls.
  Status CopyIn(void* to, const uint8_t* from, int64_t bytes) override {
    cu_->cuCtxSetCurrent(context_);
    constexpr int64_t kHalf = kStagingBytes / 2;
    for (int64_t done = 0; done < bytes; done += kHalf) {
      uint8_t* staged = staging_ + half_ * kHalf;
      const int64_t count = std::min(kHalf, bytes - done);
      // What this half held has left it; an event that was never recorded does not wait.
      QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuEventSynchronize(uploaded_[half_]), "cuMemcpyHtoD"));
      std::memcpy(staged, from + done, count);
      QWEN_RETURN_IF_ERROR(cu_->Check(
          cu_->cuMemcpyHtoDAsync_v2(reinterpret_cast<CudaAddress>(to) + done, staged, count, stream_), "cuMemcpyHtoD"));
      QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuEventRecord(uploaded_[half_], stream_), "cuEventRecord"));
      half_ ^= 1;
    }
    return {};
  }
  Status CopyOut(uint8_t* to, const void* from, int64_t bytes) override {
    if (bytes == 0) return {};
    cu_->cuCtxSetCurrent(context_);
    QWEN_RETURN_IF_ERROR(
        cu_->Check(cu_->cuMemcpyDtoHAsync_v2(to, reinterpret_cast<CudaAddress>(from), bytes, stream_), "cuMemcpyDtoH"));
    return cu_->Check(cu_->cuStreamSynchronize(stream_), "cuMemcpyDtoH");
  }

  StatusOr<std::unique_ptr<const Kernel>> Load(const plan::Kernel& kernel, std::string_view ptx) override {
    constexpr const char* kHint = "the plan was made for another build; compile it again";
    auto loaded = std::make_unique<CudaKernel>();
    loaded->info = kernels::FindKernel(kernel.entry);
    const kernels::CudaKernelInfo* cuda = kernels::FindCudaKernel(kernel.entry);
    if (!loaded->info || !cuda || kernel.launch.threads == 0 || ptx.empty())
      return UnimplementedError(fmt::format("this build has no kernel {} for CUDA", kernel.entry), kHint);
    QWEN_ASSIGN_OR_RETURN(loaded->spec, loaded->info->decode(kernel.spec));
    loaded->num_args = loaded->info->num_args(loaded->spec.get());
    const kernels::CudaWorkspace space = cuda->workspace(loaded->spec.get(), options_.capacity);
    loaded->scratch_bytes = space.scratch, loaded->shared_bytes = space.shared;
    loaded->shape = kernel.launch;
    loaded->cu = cu_;

    cu_->cuCtxSetCurrent(context_);
    const std::string text(ptx);  // with a NUL behind it
    std::string log(8192, '\0');
    int options[] = {kErrorLog, kErrorLogBytes};
    void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
    if (Status status =
            cu_->Check(cu_->cuModuleLoadDataEx(&loaded->module, text.c_str(), 2, options, values), "cuModuleLoadData");
        !status.ok())
      return InternalError(fmt::format("{}: {}", status.message(), log.c_str()));
    QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuModuleGetFunction(&loaded->function, loaded->module, kernel.name.c_str()),
                                    "cuModuleGetFunction"));
    if (kernel.launch.shared_bytes > 48 << 10)  // what a block may have without asking
      QWEN_RETURN_IF_ERROR(
          cu_->Check(cu_->cuFuncSetAttribute(loaded->function, kMaxDynamicSharedBytes, kernel.launch.shared_bytes),
                     "cuFuncSetAttribute"));
    return std::unique_ptr<const Kernel>(std::move(loaded));
  }

  StatusOr<int64_t> Reserve(int64_t scratch_bytes, int64_t shared_bytes) override {
    QWEN_ASSIGN_OR_RETURN(scratch_, Allocate(scratch_bytes));
    QWEN_ASSIGN_OR_RETURN(shared_, Allocate(shared_bytes));
    return scratch_bytes + shared_bytes;
  }

  Status Run(const Program& program, const kernels::BatchView& batch, comm::Comm&) override {
    cu_->cuCtxSetCurrent(context_);
    QWEN_RETURN_IF_ERROR(SendBatch(batch));
    const Rows rows{.all = batch.num_tokens,
                    .seqs = batch.num_seqs,
                    .short_seqs = batch.num_short,
                    .long_seqs = batch.num_seqs - batch.num_short,
                    .wanted = batch.num_logit_rows};
    if (rows.long_seqs > 0 || rows.short_seqs == 0)
      QWEN_RETURN_IF_ERROR(LaunchSteps(program, rows));
    else
      QWEN_RETURN_IF_ERROR(Replay(program, rows));
    return cu_->Check(cu_->cuStreamSynchronize(stream_), "a kernel of the step");
  }

 private:
  Status HostAllocate(size_t bytes, uint8_t** at) {
    return cu_->Check(cu_->cuMemHostAlloc(reinterpret_cast<void**>(at), bytes, 0), "cuMemHostAlloc");
  }

  template <class T>
  T* OnCard(int64_t offset) const {
    return reinterpret_cast<T*>(batch_.get() + offset);
  }

  // The last Run has ended, so the pinned block is free.
  Status SendBatch(const kernels::BatchView& batch) {
    const int counts[] = {batch.num_seqs, batch.num_short, batch.num_tokens, batch.num_logit_rows};
    auto put = [&](int64_t at, const void* from, size_t bytes) {
      if (bytes) std::memcpy(block_ + at, from, bytes);
    };
    const size_t seqs = 4 * static_cast<size_t>(batch.num_seqs), wanted = static_cast<size_t>(batch.num_logit_rows);
    put(at_.counts, counts, sizeof counts);
    put(at_.cu_tokens, batch.cu_tokens, seqs + 4);
    put(at_.token_ids, batch.token_ids, 4 * static_cast<size_t>(batch.num_tokens));
    put(at_.position, batch.position, seqs);
    put(at_.state_slot, batch.state_slot, seqs);
    put(at_.table_row, batch.table_row, seqs);
    put(at_.ring_fill, batch.ring_fill, seqs);
    put(at_.fold, batch.fold, seqs);
    put(at_.logit_rows, batch.logit_rows, 4 * wanted);
    put(at_.sample, batch.sample, sizeof(kernels::SampleParams) * wanted);
    QWEN_RETURN_IF_ERROR(cu_->Check(
        cu_->cuMemcpyHtoDAsync_v2(reinterpret_cast<CudaAddress>(batch_.get()), block_, block_bytes_, stream_),
        "cuMemcpyHtoD"));
    return SendPages(batch);
  }

  // What changed since the last time, of the pages that the batch's rows reach.
  Status SendPages(const kernels::BatchView& batch) {
    if (batch.max_pages == 0) return {};
    const int rows = options_.capacity.max_num_seqs;
    if (!table_) {
      max_pages_ = batch.max_pages;
      const int64_t bytes = 4LL * rows * max_pages_;
      uint8_t* table = nullptr;
      QWEN_RETURN_IF_ERROR(HostAllocate(bytes, &table));
      table_ = reinterpret_cast<int*>(table);
      std::memset(table_, 0, bytes);
      QWEN_ASSIGN_OR_RETURN(page_table_, Allocate(bytes));
    }
    if (batch.max_pages != max_pages_)
      return InternalError(fmt::format("a page table of {} pages a row, it had {}", batch.max_pages, max_pages_));
    for (int s = 0; s < batch.num_seqs; ++s) {
      const int row = batch.table_row[s];
      if (row < 0) continue;
      if (row >= rows) return InternalError(fmt::format("row {} of the page table, it has {}", row, rows));
      const int tokens = batch.position[s] + batch.cu_tokens[s + 1] - batch.cu_tokens[s];
      const int pages = std::min((tokens + plan::kPageTokens - 1) / plan::kPageTokens, max_pages_);
      const int* from = batch.page_table + int64_t{row} * max_pages_;
      int* to = table_ + int64_t{row} * max_pages_;
      int begin = 0, end = pages;
      while (begin < end && to[begin] == from[begin]) ++begin;
      while (end > begin && to[end - 1] == from[end - 1]) --end;
      if (begin == end) continue;
      std::copy(from + begin, from + end, to + begin);
      QWEN_RETURN_IF_ERROR(
          cu_->Check(cu_->cuMemcpyHtoDAsync_v2(
                         reinterpret_cast<CudaAddress>(page_table_.get()) + 4 * (int64_t{row} * max_pages_ + begin),
                         to + begin, 4 * static_cast<size_t>(end - begin), stream_),
                     "cuMemcpyHtoD"));
    }
    return {};
  }

  Status LaunchSteps(const Program& program, const Rows& rows) {
    using Head = kernels::cuda::Launch<1>;
    kernels::cuda::Batch batch{.counts = OnCard<int>(at_.counts),
                               .cu_tokens = OnCard<int>(at_.cu_tokens),
                               .token_ids = OnCard<int>(at_.token_ids),
                               .position = OnCard<int>(at_.position),
                               .state_slot = OnCard<int>(at_.state_slot),
                               .table_row = OnCard<int>(at_.table_row),
                               .ring_fill = OnCard<int>(at_.ring_fill),
                               .fold = OnCard<int>(at_.fold),
                               .logit_rows = OnCard<int>(at_.logit_rows),
                               .sample = OnCard<kernels::SampleParams>(at_.sample),
                               .page_table = reinterpret_cast<const int*>(page_table_.get()),
                               .max_pages = max_pages_};
    for (size_t i = 0; i < program.steps.size(); ++i) {
      const Step& step = program.steps[i];
      if (rows.Of(step.part) == 0) continue;
      const CudaKernel& kernel = *static_cast<const CudaKernel*>(step.kernel);
      // As Launch<N> lies in memory, N being known only now.
      Head head{};
      head.batch = batch;
      head.state = program.state;
      head.rows = batch.counts +
                  (step.part == plan::Part::kLogitRows ? kernels::cuda::kNumLogitRows : kernels::cuda::kNumTokens);
      head.shared = shared_.get(), head.scratch = scratch_.get();
      head.ranks = static_cast<int>(step.peers.size());
      std::copy(step.peers.begin(), step.peers.end(), head.peers);
      parameters_.resize(offsetof(Head, args) + sizeof(void*) * step.args.size());
      std::memcpy(parameters_.data(), &head, offsetof(Head, args));
      std::memcpy(parameters_.data() + offsetof(Head, args), step.args.data(), sizeof(void*) * step.args.size());
      void* pointers[] = {parameters_.data()};
      const plan::GridDim* grid = kernel.shape.grid;
      if (Status status = cu_->Check(
              cu_->cuLaunchKernel(kernel.function, rows.Blocks(grid[0], step.part), rows.Blocks(grid[1], step.part),
                                  rows.Blocks(grid[2], step.part), kernel.shape.threads, 1, 1,
                                  kernel.shape.shared_bytes, stream_, pointers, nullptr),
              "cuLaunchKernel");
          !status.ok())
        return std::move(status).Annotate(fmt::format("step {} ({})", i, kernel.info->entry));
    }
    return {};
  }

  Status Replay(const Program& program, const Rows& rows) {
    const Rows bucket{.all = Bucket(rows.all),
                      .seqs = Bucket(rows.seqs),
                      .short_seqs = Bucket(rows.short_seqs),
                      .wanted = rows.wanted ? Bucket(rows.wanted) : 0};
    CudaGraphExec& exec = graphs_[{&program, bucket.all, bucket.short_seqs, bucket.wanted}];
    if (!exec) {
      constexpr int kThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
      QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuStreamSynchronize(stream_), "cuStreamSynchronize"));
      QWEN_RETURN_IF_ERROR(cu_->Check(cu_->cuStreamBeginCapture_v2(stream_, kThreadLocal), "cuStreamBeginCapture"));
      Status launched = LaunchSteps(program, bucket);
      CudaGraph graph = nullptr;
      Status ended = cu_->Check(cu_->cuStreamEndCapture(stream_, &graph), "cuStreamEndCapture");
      if (launched.ok() && ended.ok())
        ended = cu_->Check(cu_->cuGraphInstantiateWithFlags(&exec, graph, 0), "cuGraphInstantiate");
      if (graph) cu_->cuGraphDestroy(graph);
      QWEN_RETURN_IF_ERROR(launched);
      QWEN_RETURN_IF_ERROR(ended);
    }
    return cu_->Check(cu_->cuGraphLaunch(exec, stream_), "cuGraphLaunch");
  }

  const CudaDriver* const cu_;
  const CudaOptions options_;
  int device_ = 0;
  CudaContext context_ = nullptr;
  CudaStream stream_ = nullptr;
  uint8_t *staging_ = nullptr, *block_ = nullptr;  // pinned
  CudaEvent uploaded_[2] = {};                     // a half's last copy has left it
  int half_ = 0;                                   // of the next copy
  int* table_ = nullptr;                           // pinned: the page table as the card has it
  int max_pages_ = 0;
  int64_t block_bytes_ = 0;
  struct {
    int64_t counts, cu_tokens, token_ids, position, state_slot, table_row, ring_fill, fold, logit_rows, sample;
  } at_{};
  Memory batch_, page_table_, scratch_, shared_;
  std::vector<uint8_t> parameters_;
  std::map<std::tuple<const Program*, int, int, int>, CudaGraphExec> graphs_;  // rows, short sequences, wanted rows
};

}  // namespace

StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options) {
  QWEN_ASSIGN_OR_RETURN(const CudaDriver* cu, CudaDriver::Open());
  auto device = std::make_unique<CudaDevice>(cu, options);
  QWEN_RETURN_IF_ERROR(device->Init());
  return std::unique_ptr<Device>(std::move(device));
}

}  // namespace qwen::device
