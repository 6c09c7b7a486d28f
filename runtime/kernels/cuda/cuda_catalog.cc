#include "runtime/kernels/cuda/cuda_catalog.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/rms_norm/rms_norm.h"

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
  template <class Spec>
  static Status Check(const Spec&) {
    return {};
  }
  template <class Spec>
  static CudaWorkspace Space(const Spec&, int64_t) {
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

struct LmHead : Plain {
  static LaunchShape Shape(const LmHeadSpec& s) { return ProductShape(ItemsOf(s.vocab)); }
};

template <class Kernel, class Spec>
constexpr CudaKernelInfo MakeInfo(std::string_view entry, std::string_view header, std::string_view body) {
  return {entry, header, body, [](const void* spec) { return Kernel::Check(*static_cast<const Spec*>(spec)); },
          [](const void* spec) { return Kernel::Shape(*static_cast<const Spec*>(spec)); },
          [](const void* spec, int max_tokens) {
            return Kernel::Space(*static_cast<const Spec*>(spec), max_tokens);
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
