#include "runtime/kernels/cuda/cuda_catalog.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/attention/attention_shape.h"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/router/router.h"

namespace qwen::kernels {
namespace {

using plan::Count;
using plan::GridDim;
using plan::LaunchShape;

constexpr int kWarp = 32;

/// A whole number of warps that covers `items`, at most `max` threads.
int ThreadsFor(int items, int max) { return std::clamp((items + kWarp - 1) / kWarp * kWarp, kWarp, max); }

/// What most kernels say: nothing that they refuse, no workspace.
struct Plain {
  static constexpr int kMinBlocks = 0;
  template <class Spec>
  static Status Check(const Spec&) {
    return {};
  }
  template <class Spec>
  static CudaWorkspace Space(const Spec&, const plan::Capacity&) {
    return {};
  }
};

// One struct a kernel, named as its body: what cuda_catalog.def's line stands for.

struct EmbedRows : Plain {
  static LaunchShape Shape(const EmbedSpec& s) {
    return {.threads = ThreadsFor(s.hidden, 256), .grid = {{Count::kRows}}};
  }
};

struct AddRmsNorm : Plain {
  static LaunchShape Shape(const RmsNormSpec& s) {
    return {.threads = ThreadsFor(s.channels, 512), .grid = {{Count::kRows}}};
  }
};

// Products with tile16 (cuda/tile16.cuh). Blocks stay for all their items, so that the rows' norms are made once: two an
// SM of a 4090 are all that its bandwidth asks for.
constexpr int kProductThreads = 256, kItemRows = 32, kBlockTokens = 16, kMaxProductBlocks = 2 * 128;
int ItemsOf(int rows, int each = kItemRows) { return (rows + each - 1) / each; }
LaunchShape ProductShape(int items) {
  return {.threads = kProductThreads,
          .grid = {{.mul = std::max(items, 1), .max = kMaxProductBlocks},
                   {.count = Count::kRows, .div = kBlockTokens}}};
}

struct Linear : Plain {
  static LaunchShape Shape(const LinearSpec& s) {
    int items = 0;
    for (int o = 0; o < s.outputs; ++o) items += ItemsOf(s.n[o]);
    return ProductShape(s.silu_mul ? ItemsOf(s.n[0], kItemRows / 2) : items);
  }
};

struct Router : Plain {
  static LaunchShape Shape(const RouterSpec& s) { return ProductShape(ItemsOf(s.experts, kItemRows / 2)); }
  // A ticket for sixteen rows.
  static CudaWorkspace Space(const RouterSpec&, const plan::Capacity& c) {
    return {.shared = int64_t{4} * ItemsOf(c.max_num_batched_tokens, kBlockTokens)};
  }
};

struct ExpertsGateUp : Plain {
  // As many as one row has: more rows have more active experts, and the same blocks.
  static LaunchShape Shape(const ExpertsSpec& s) {
    return ProductShape(std::min(s.top_k, s.experts) * ItemsOf(s.inter, kItemRows / 2) +
                        (s.shared ? ItemsOf(s.shared_inter, kItemRows / 2) + 1 : 0));
  }
};
struct ExpertsDown : Plain {
  static LaunchShape Shape(const ExpertsSpec& s) { return ProductShape(ItemsOf(s.hidden, kItemRows / 2)); }
};

struct LmHead : Plain {
  static LaunchShape Shape(const LmHeadSpec& s) { return ProductShape(ItemsOf(s.vocab)); }
};

// A block owns 32 rows of a value head's state (gdn/gdn.cuh).
struct Gdn : Plain {
  static constexpr int kThreads = 128, kPartRows = 32;
  static int Blocks(const GdnSpec& s) {
    return std::max(s.value_heads * ((s.value_dim + kPartRows - 1) / kPartRows), 1);
  }
};
struct GdnDecode : Gdn {
  // 128 registers a thread, the budget: left alone, ptxas takes 130 where the heads are no power of two.
  static constexpr int kMinBlocks = 4;
  static LaunchShape Shape(const GdnSpec& s) {
    return {.threads = kThreads, .grid = {{Count::kShortSeqs, Blocks(s)}}};
  }
};
struct GdnScan : Gdn {
  static LaunchShape Shape(const GdnSpec& s) {
    return {.threads = kThreads, .grid = {{Count::kLongSeqs, Blocks(s)}}};
  }
  // A ticket a sequence and key head.
  static CudaWorkspace Space(const GdnSpec& s, const plan::Capacity& c) {
    return {.shared = int64_t{4} * c.max_num_seqs * s.key_heads};
  }
};
struct GdnFold : Gdn {
  static LaunchShape Shape(const GdnSpec& s) { return {.threads = kThreads, .grid = {{.mul = Blocks(s)}}}; }
};

struct Attention : Plain {
  static int Group(const AttentionSpec& s) {
    return cuda::AttnLargestGroup(s.q_heads, s.kv_heads, [&](int h) { return s.kv_map[h]; });
  }
};
struct AttnDecode : Attention {
  // The sums of eight heads are 64 registers: two blocks have all 255, and nothing is spilled.
  static constexpr int kMinBlocks = 2;
  static int Blocks(const AttentionSpec& s) { return std::max(s.kv_heads, 1) * (cuda::AttnSplits(s.kv_heads) + 1); }
  static LaunchShape Shape(const AttentionSpec& s) {
    return {.threads = cuda::kAttnThreads,
            .shared_bytes = cuda::AttnDecodeShared(s.head_dim, Group(s)),
            .grid = {{Count::kShortSeqs, Blocks(s)}}};
  }
  // Parts of every short row and head, and a ticket a sequence and KV head.
  static CudaWorkspace Space(const AttentionSpec& s, const plan::Capacity& c) {
    const int64_t rows = int64_t{c.max_num_seqs} * c.max_rows;
    return {.scratch = 4 * rows * s.q_heads * (cuda::AttnSplits(s.kv_heads) + 1) * cuda::AttnPartFloats(s.head_dim),
            .shared = int64_t{4} * c.max_num_seqs * s.kv_heads};
  }
};
struct AttnPrefill : Attention {
  static LaunchShape Shape(const AttentionSpec& s) {
    return {.threads = cuda::kAttnPrefillThreads,
            .shared_bytes = cuda::AttnPrefillShared(s.head_dim, DTypeBytes(s.cache_type)),
            .grid = {{Count::kRows, std::max(s.kv_heads, 1)}}};
  }
  static Status Check(const AttentionSpec& s) {
    constexpr int kMost = 101376;  // of a block on compute capability 8.9
    const int bytes = cuda::AttnPrefillShared(s.head_dim, DTypeBytes(s.cache_type));
    if (bytes <= kMost) return {};
    return UnimplementedError(fmt::format("head_dim {} with a cache of {} takes {} bytes of shared memory, at most {}",
                                          s.head_dim, DTypeName(s.cache_type), bytes, kMost));
  }
};

struct Sample : Plain {
  static LaunchShape Shape(const SampleSpec&) { return {.threads = 1024, .grid = {{Count::kRows}}}; }
};

struct AllReduce : Plain {
  static LaunchShape Shape(const AllReduceSpec& s) {
    return {.threads = ThreadsFor(s.channels, 512), .grid = {{Count::kRows}}};
  }
};
struct AllGather : Plain {
  static LaunchShape Shape(const AllGatherSpec&) { return {.threads = 512, .grid = {{Count::kRows}}}; }
};

struct Elementwise : Plain {
  static LaunchShape Shape(const ElementwiseSpec& s) {
    switch (static_cast<ElementwiseOp>(s.op)) {
      case ElementwiseOp::kAccept:
        return {.threads = kWarp, .grid = {{Count::kShortSeqs}}};
      case ElementwiseOp::kCandidateWalk:
        return {.threads = 512, .grid = {{Count::kSeqs}}};
      default:
        return {.threads = ThreadsFor(s.out_channels[0], 256), .grid = {{Count::kRows}}};
    }
  }
};

template <class Kernel, class Spec>
constexpr CudaKernelInfo MakeInfo(std::string_view entry, std::string_view header, std::string_view body) {
  return {entry, header, body, Kernel::kMinBlocks,
          [](const void* spec) { return Kernel::Check(*static_cast<const Spec*>(spec)); },
          [](const void* spec) { return Kernel::Shape(*static_cast<const Spec*>(spec)); },
          [](const void* spec, const plan::Capacity& capacity) {
            return Kernel::Space(*static_cast<const Spec*>(spec), capacity);
          }};
}

constexpr CudaKernelInfo kCatalog[] = {
#define QWEN_CUDA_KERNEL(entry, header, Spec, Body) MakeInfo<Body, Spec>(#entry, header, #Body),
#include "runtime/kernels/cuda/cuda_catalog.def"
};

}  // namespace

std::span<const CudaKernelInfo> CudaCatalog() { return kCatalog; }

const CudaKernelInfo* FindCudaKernel(std::string_view entry) {
  for (const CudaKernelInfo& info : kCatalog)
    if (info.entry == entry) return &info;
  return nullptr;
}

}  // namespace qwen::kernels
