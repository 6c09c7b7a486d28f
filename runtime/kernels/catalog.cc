#include "runtime/kernels/catalog.h"

#include <fmt/format.h>
#if defined(QWEN_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cmath>
#include <iterator>

#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/cpu/bodies.h"
#include "runtime/kernels/cpu/scratch.h"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/router/router.h"
#include "runtime/kernels/spec_fields.h"

namespace qwen::kernels {
namespace {

static_assert(cpu::kPageTokens == plan::kPageTokens);

double Bytes(DType type) { return DTypeBytes(type); }

/// Floating values: what every CPU body can load and store.
Status CheckFloat(const char* field, DType type) {
  if (type == DType::kF32 || type == DType::kBF16) return {};
  return UnimplementedError(fmt::format("field {} is {}, cpu kernels take f32 and bf16", field, DTypeName(type)));
}
Status CheckRange(const char* field, int value, int low, int high) {
  if (value >= low && value <= high) return {};
  return DataLossError(fmt::format("field {} is {}, want {} to {}", field, value, low, high));
}
Status CheckPositive(const char* field, int value) {
  return value > 0 ? Status() : DataLossError(fmt::format("field {} is {}, want at least 1", field, value));
}
Status CheckEps(float eps) {
  return eps > 0 ? Status() : DataLossError(fmt::format("field eps is {}, want more than 0", eps));
}

// One struct a kernel, named as its body: what catalog.def's line stands for. Check sees values that are not negative.

struct EmbedRows {
  static Status Check(const EmbedSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckPositive("vocab", s.vocab));
    QWEN_RETURN_IF_ERROR(CheckFloat("w_type", s.w_type));
    return CheckFloat("y_type", s.y_type);
  }
  static int Args(const EmbedSpec&) { return kEmbedArgs; }
  static Workspace Space(const EmbedSpec&, int64_t) { return {}; }
  static Work Cost(const EmbedSpec& s, double rows, double) {
    return {rows * s.hidden * (Bytes(s.w_type) + Bytes(s.y_type)), 0};
  }
};

struct AddRmsNorm {
  static Status Check(const RmsNormSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    return CheckFloat("type", s.type);
  }
  static int Args(const RmsNormSpec&) { return kNormArgs; }
  static Workspace Space(const RmsNormSpec& s, int64_t) { return {.scratch = 4 * cpu::PadTo16(s.channels)}; }
  static Work Cost(const RmsNormSpec& s, double rows, double) {
    return {rows * s.channels * Bytes(s.type) * (s.add ? 4 : 2) + 4.0 * s.channels, 4 * rows * s.channels};
  }
};

struct Linear {
  static Status Check(const LinearSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckPositive("outputs", s.outputs));
    QWEN_RETURN_IF_ERROR(CheckFloat("x_type", s.x_type));
    QWEN_RETURN_IF_ERROR(CheckFloat("w_type", s.w_type));
    for (int o = 0; o < s.outputs; ++o) QWEN_RETURN_IF_ERROR(CheckFloat("y_type", s.y_type[o]));
    QWEN_RETURN_IF_ERROR(CheckRange("prologue", s.prologue, kPrologueNone, kPrologueGatedRmsNorm));
    if (s.prologue != kPrologueNone) QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    if (s.prologue == kPrologueGatedRmsNorm && (s.head_dim < 1 || s.k % s.head_dim != 0))
      return DataLossError(fmt::format("field k is {}, not a multiple of head_dim ({})", s.k, s.head_dim));
    if (s.silu_mul && (s.outputs != 2 || s.n[0] != s.n[1]))
      return DataLossError(fmt::format("silu_mul joins {} outputs of {} and {} channels, want 2 of one width",
                                       s.outputs, s.n[0], s.n[1]));
    if (s.residual && s.results() != 1)
      return DataLossError(fmt::format("a residual is added to {} results, want 1", s.results()));
    if (s.residual && s.silu_mul) return DataLossError("a residual is added behind silu_mul, want one of the two");
    return {};
  }
  static int Args(const LinearSpec& s) { return kLinearFirstWeight + s.outputs + s.results(); }
  static Workspace Space(const LinearSpec& s, int64_t) {
    const bool as_they_are = s.prologue == kPrologueNone && s.x_type == DType::kF32;
    const int rows = cpu::TileChunk(s.k);
    return {.scratch = 4 * ((as_they_are ? 0 : cpu::RowScratch(s.k, rows)) + cpu::PlaneScratch(s.w_type, s.k, rows))};
  }
  static Work Cost(const LinearSpec& s, double rows, double) {
    double weights = 0, results = 0;
    for (int o = 0; o < s.outputs; ++o) weights += 1.0 * s.n[o] * s.k;
    for (int o = 0; o < s.results(); ++o) results += s.n[o] * Bytes(s.y_type[o]) * (s.residual ? 2 : 1);
    double inputs = s.k * Bytes(s.x_type) * (s.prologue == kPrologueGatedRmsNorm ? 2 : 1);
    return {weights * Bytes(s.w_type) + rows * (inputs + results), 2 * rows * weights};
  }
};

struct Gdn {
  // The conv ring keeps three rows of the past (contracts, section 5).
  static constexpr int kMaxWidth = 4;

  static Status Check(const GdnSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckFloat("x_type", s.x_type));
    QWEN_RETURN_IF_ERROR(CheckFloat("ba_type", s.ba_type));
    QWEN_RETURN_IF_ERROR(CheckPositive("key_dim", s.key_dim));
    QWEN_RETURN_IF_ERROR(CheckPositive("value_dim", s.value_dim));
    QWEN_RETURN_IF_ERROR(CheckPositive("width", s.width));
    if (s.width > kMaxWidth)
      return UnimplementedError(fmt::format("field width is {}, gdn kernels take at most {}", s.width, kMaxWidth));
    if (s.key_heads == 0 ? s.value_heads != 0 : s.value_heads == 0 || s.value_heads % s.key_heads != 0)
      return DataLossError(
          fmt::format("field value_heads is {}, not a multiple of key_heads ({})", s.value_heads, s.key_heads));
    return s.l2_eps > 0 ? Status() : DataLossError(fmt::format("field l2_eps is {}, want more than 0", s.l2_eps));
  }
  static int Args(const GdnSpec&) { return kGdnArgs; }
  static Workspace Space(const GdnSpec& s, int64_t) {
    return {.scratch = 4 * cpu::GdnScratch(s.key_heads, s.value_heads, s.key_dim, s.value_dim, s.width)};
  }
  static double StateBytes(const GdnSpec& s) { return 4.0 * s.value_heads * s.value_dim * s.key_dim; }
  static double RowBytes(const GdnSpec& s) {
    double values = 1.0 * s.value_heads * s.value_dim;
    return (2.0 * s.conv_channels() + values) * Bytes(s.x_type) + 2.0 * s.value_heads * Bytes(s.ba_type);
  }
  // Per element of S: decay, read, write, output.
  static double RowFlops(const GdnSpec& s) { return 7.0 * s.value_heads * s.value_dim * s.key_dim; }
};
struct GdnDecode : Gdn {
  // Every row is its own sequence: S0 is read, and written when eight records have gathered. One to eight of them are read,
  // and the convolution's rows of the past; its filter once.
  static Work Cost(const GdnSpec& s, double rows, double) {
    double record = 4.0 * (s.key_heads * s.key_dim + s.value_heads * (s.value_dim + 1.0)), records = 4.5;
    double fold = 3.0 * s.value_heads * s.value_dim * s.key_dim;
    double past = (s.width - 1.0) * s.conv_channels() * Bytes(s.x_type), filter = 4.0 * s.width * s.conv_channels();
    return {filter + rows * (StateBytes(s) * (1 + 1.0 / 8) + RowBytes(s) + past + (records + 1) * record),
            rows * (RowFlops(s) + records * fold)};
  }
};
struct GdnScan : Gdn {
  static Work Cost(const GdnSpec& s, double rows, double) {
    return {2 * StateBytes(s) + rows * RowBytes(s), rows * RowFlops(s)};
  }
};
struct GdnFold : Gdn {
  static int Args(const GdnSpec&) { return kGdnFoldArgs; }
  static Work Cost(const GdnSpec& s, double rows, double) { return {2 * StateBytes(s) * rows, 0}; }
};

struct Attention {
  static Status Check(const AttentionSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckPositive("head_dim", s.head_dim));
    for (int h = 0; h < s.q_heads; ++h)
      if (s.kv_map[h] >= s.kv_heads)
        return DataLossError(
            fmt::format("query head {} reads KV head {}, the cache has {}", h, s.kv_map[h], s.kv_heads));
    if (2 * s.freqs > s.head_dim)
      return DataLossError(fmt::format("field freqs is {}, want at most half of head_dim ({})", s.freqs, s.head_dim));
    if (s.qk_norm) QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    QWEN_RETURN_IF_ERROR(CheckFloat("cache_type", s.cache_type));
    return CheckFloat("type", s.type);
  }
  static int Args(const AttentionSpec&) { return kAttnArgs; }
  static Workspace Space(const AttentionSpec& s, int64_t) {
    int group = 0;
    for (int kv_head = 0; kv_head < s.kv_heads; ++kv_head)
      group = std::max(group, static_cast<int>(std::count(s.kv_map, s.kv_map + s.q_heads, kv_head)));
    return {.scratch = 4 * cpu::AttentionScratch(s.head_dim, s.freqs, group)};
  }
  static Work Part(const AttentionSpec& s, double rows, double context, double passes) {
    double token = 2.0 * s.kv_heads * s.head_dim * Bytes(s.cache_type);
    double row = s.q_heads * s.head_dim * Bytes(s.type) * (s.gate ? 3 : 2);
    return {(s.attend ? passes * context * token + rows * row : 0) + (s.append ? 2 * rows * token : 0),
            s.attend ? 4 * rows * context * s.q_heads * s.head_dim : 0};
  }
};
struct AttnDecode : Attention {
  static Work Cost(const AttentionSpec& s, double rows, double context) { return Part(s, rows, context, rows); }
};
struct AttnPrefill : Attention {
  // A page is read once for the rows that share it while it is in cache.
  static Work Cost(const AttentionSpec& s, double rows, double context) {
    return Part(s, rows, context, std::ceil(rows / cpu::kAttnRows));
  }
};

struct Router {
  static Status Check(const RouterSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckPositive("experts", s.experts));
    QWEN_RETURN_IF_ERROR(CheckRange("top_k", s.top_k, 1, s.experts));
    if (s.norm) QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    QWEN_RETURN_IF_ERROR(CheckFloat("x_type", s.x_type));
    return CheckFloat("w_type", s.w_type);
  }
  static int Args(const RouterSpec&) { return kRouterArgs; }
  static Workspace Space(const RouterSpec& s, int64_t tokens) {
    return {.scratch = 4 * (cpu::RowScratch(s.hidden) + cpu::PlaneScratch(s.w_type, s.hidden)), .shared = 64, .temp = 4 * tokens * s.experts};
  }
  static Work Cost(const RouterSpec& s, double rows, double) {
    double weights = 1.0 * s.experts * s.hidden, logits = 8.0 * s.experts;
    return {weights * Bytes(s.w_type) + rows * (s.hidden * Bytes(s.x_type) + logits + 8.0 * s.top_k),
            2 * rows * weights};
  }
};

struct Experts {
  static Status Check(const ExpertsSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckPositive("top_k", s.top_k));
    QWEN_RETURN_IF_ERROR(CheckFloat("x_type", s.x_type));
    QWEN_RETURN_IF_ERROR(CheckFloat("w_type", s.w_type));
    return CheckFloat("y_type", s.y_type);
  }
  static int Args(const ExpertsSpec&) { return kExpertsArgs; }
  static int64_t Temp(const ExpertsSpec& s, int64_t tokens) {
    return 4 * tokens * s.temp_row();
  }
  /// Experts that somebody picks, were all equally likely.
  static double Picked(const ExpertsSpec& s, double rows) {
    if (s.top_k >= s.experts) return s.experts;
    return s.experts * (1 - std::pow(1 - 1.0 * s.top_k / s.experts, rows));
  }
};
struct ExpertsGateUp : Experts {
  static Workspace Space(const ExpertsSpec& s, int64_t tokens) {
    const int64_t planes = cpu::PlaneScratch(s.w_type, s.hidden);
    return {.scratch = 4 * (cpu::ExpertsUpScratch(s.experts, s.top_k, tokens, s.hidden) + planes),
            .temp = Temp(s, tokens)};
  }
  static Work Cost(const ExpertsSpec& s, double rows, double) {
    double expert = 2.0 * s.inter * s.hidden, shared = s.shared ? (2.0 * s.shared_inter + 1) * s.hidden : 0;
    double row = s.hidden * Bytes(s.x_type) + 4.0 * (s.top_k * s.inter + s.shared_inter);
    return {(Picked(s, rows) * expert + shared) * Bytes(s.w_type) + rows * row, 2 * rows * (s.top_k * expert + shared)};
  }
};
struct ExpertsDown : Experts {
  static Workspace Space(const ExpertsSpec& s, int64_t tokens) {
    const int64_t planes = cpu::PlaneScratch(s.w_type, std::max(s.inter, s.shared_inter));
    return {.scratch = 4 * (cpu::ExpertsDownScratch(s.experts, s.top_k, tokens) + planes), .temp = Temp(s, tokens)};
  }
  static Work Cost(const ExpertsSpec& s, double rows, double) {
    double expert = 1.0 * s.inter * s.hidden, shared = s.shared ? 1.0 * s.shared_inter * s.hidden : 0;
    double row = s.hidden * Bytes(s.y_type) * (s.residual ? 2 : 1) + 4.0 * (s.top_k * s.inter + s.shared_inter);
    return {(Picked(s, rows) * expert + shared) * Bytes(s.w_type) + rows * row, 2 * rows * (s.top_k * expert + shared)};
  }
};

struct LmHead {
  static Status Check(const LmHeadSpec& s) {
    if (s.norm) QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    QWEN_RETURN_IF_ERROR(CheckFloat("x_type", s.x_type));
    return CheckFloat("w_type", s.w_type);
  }
  static int Args(const LmHeadSpec&) { return kLmHeadArgs; }
  static Workspace Space(const LmHeadSpec& s, int64_t) {
    return {.scratch = 4 * (cpu::RowScratch(s.hidden) + cpu::PlaneScratch(s.w_type, s.hidden))};
  }
  static Work Cost(const LmHeadSpec& s, double rows, double) {
    double weights = 1.0 * s.vocab * s.hidden;
    return {weights * Bytes(s.w_type) + rows * (s.hidden * Bytes(s.x_type) + 4.0 * s.vocab), 2 * rows * weights};
  }
};

struct Sample {
  static Status Check(const SampleSpec& s) { return CheckPositive("vocab", s.vocab); }
  static int Args(const SampleSpec&) { return kSampleArgs; }
  // A value and an id for every token that top-k or top-p may keep.
  static Workspace Space(const SampleSpec& s, int64_t) { return {.scratch = 8 * cpu::PadTo16(s.vocab)}; }
  static Work Cost(const SampleSpec& s, double rows, double) { return {rows * (4.0 * s.vocab + 4), rows * s.vocab}; }
};

struct AllReduce {
  static Status Check(const AllReduceSpec& s) {
    if (s.norm) QWEN_RETURN_IF_ERROR(CheckEps(s.eps));
    return CheckFloat("y_type", s.y_type);
  }
  static int Args(const AllReduceSpec&) { return kReduceArgs; }
  static Workspace Space(const AllReduceSpec& s, int64_t) { return {.scratch = 4 * cpu::PadTo16(s.channels)}; }
  // What one rank puts in and takes out.
  static Work Cost(const AllReduceSpec& s, double rows, double) {
    return {rows * s.channels * (4 + Bytes(s.y_type) * (1 + (s.residual ? 1 : 0) + (s.norm ? 1 : 0))),
            rows * s.channels};
  }
};

struct AllGather {
  static Status Check(const AllGatherSpec& s) { return CheckPositive("ranks", s.ranks); }
  static int Args(const AllGatherSpec&) { return kGatherArgs; }
  static Workspace Space(const AllGatherSpec&, int64_t) { return {}; }
  static Work Cost(const AllGatherSpec& s, double rows, double) {
    double channels = 0;
    for (int r = 0; r < s.ranks; ++r) channels += s.counts[r];
    return {8 * rows * channels, 0};
  }
};

struct Elementwise {
  struct Arity {
    int inputs, outputs;  // 0: any number, at least one
  };
  static constexpr Arity kArity[] = {{2, 1}, {2, 1}, {2, 1}, {1, 0}, {0, 1}, {1, 1}, {1, 2}, {3, 1}, {4, 1}};

  static Status Check(const ElementwiseSpec& s) {
    QWEN_RETURN_IF_ERROR(CheckRange("op", s.op, 0, static_cast<int>(std::size(kArity)) - 1));
    const ElementwiseOp op = static_cast<ElementwiseOp>(s.op);
    const Arity arity = kArity[s.op];
    QWEN_RETURN_IF_ERROR(
        CheckRange("inputs", s.inputs, std::max(arity.inputs, 1), arity.inputs > 0 ? arity.inputs : kMaxElementwise));
    QWEN_RETURN_IF_ERROR(CheckRange("outputs", s.outputs, std::max(arity.outputs, 1),
                                    arity.outputs > 0 ? arity.outputs : kMaxElementwise));
    const bool ids = op == ElementwiseOp::kAccept, walk = op == ElementwiseOp::kCandidateWalk;
    for (int i = 0; i < s.inputs && !ids; ++i) QWEN_RETURN_IF_ERROR(CheckFloat("in_type", s.in_type[i]));
    for (int o = 0; o < s.outputs && !ids && !walk; ++o) QWEN_RETURN_IF_ERROR(CheckFloat("out_type", s.out_type[o]));
    int64_t in = 0, out = 0;
    for (int i = 0; i < s.inputs; ++i) in += s.in_channels[i];
    for (int o = 0; o < s.outputs; ++o) out += s.out_channels[o];
    switch (op) {
      case ElementwiseOp::kAdd:
      case ElementwiseOp::kSiluMul:
      case ElementwiseOp::kSigmoidGate:
        for (int i = 0; i < s.inputs; ++i)
          if (s.in_channels[i] != s.out_channels[0])
            return DataLossError(
                fmt::format("an input has {} channels, the output {}", s.in_channels[i], s.out_channels[0]));
        return {};
      case ElementwiseOp::kSplit:
        QWEN_RETURN_IF_ERROR(CheckPositive("heads", s.heads));
        for (int o = 0; o < s.outputs; ++o)
          if (s.out_channels[o] % s.heads != 0)
            return DataLossError(
                fmt::format("a part has {} channels, not a multiple of heads ({})", s.out_channels[o], s.heads));
        [[fallthrough]];
      case ElementwiseOp::kConcat:
      case ElementwiseOp::kLogitRows:
        if (in != out) return DataLossError(fmt::format("inputs have {} channels, outputs {}", in, out));
        return {};
      case ElementwiseOp::kAccept:
        return {};
      case ElementwiseOp::kDynamicConv: {
        QWEN_RETURN_IF_ERROR(CheckPositive("group", s.group));
        QWEN_RETURN_IF_ERROR(CheckPositive("taps", s.taps));
        QWEN_RETURN_IF_ERROR(CheckRange("index", s.index, 0, 1));
        const int channels = s.out_channels[0];
        if (channels % s.group != 0)
          return DataLossError(fmt::format("{} channels are not a multiple of group ({})", channels, s.group));
        const int64_t coefs = int64_t{2} * s.taps * (channels / s.group);
        if (s.in_channels[0] != channels || s.in_channels[1] != coefs)
          return DataLossError(fmt::format("inputs have {} and {} channels, want {} and {}", s.in_channels[0],
                                           s.in_channels[1], channels, coefs));
        return {};
      }
      case ElementwiseOp::kCandidateWalk:
        for (int i = 2; i < 4; ++i)
          if (s.in_channels[i] != s.in_channels[1])
            return DataLossError(
                fmt::format("a codebook has {} channels, the hidden rows {}", s.in_channels[i], s.in_channels[1]));
        return CheckRange("candidates", s.candidates, 1, s.in_channels[0]);
    }
    return {};
  }
  static int Args(const ElementwiseSpec& s) { return s.inputs + s.outputs; }
  static Workspace Space(const ElementwiseSpec& s, int64_t) { return {.scratch = 8 * cpu::PadTo16(s.candidates)}; }
  static Work Cost(const ElementwiseSpec& s, double rows, double) {
    double bytes = 0;
    for (int i = 0; i < s.inputs; ++i) bytes += s.in_channels[i] * Bytes(s.in_type[i]);
    for (int o = 0; o < s.outputs; ++o) bytes += s.out_channels[o] * Bytes(s.out_type[o]);
    return {rows * bytes, rows * s.out_channels[0]};
  }
};

template <class Kernel, class Spec>
constexpr KernelInfo MakeInfo(std::string_view entry, std::string_view family, plan::Part part, bool collective) {
  return {entry,
          family,
          part,
          collective,
          [](const plan::Fields& fields) -> StatusOr<SpecPtr> {
            auto spec = std::make_shared<Spec>();
            QWEN_RETURN_IF_ERROR(FromFields(fields, spec.get()));
            QWEN_RETURN_IF_ERROR(Kernel::Check(*spec));
            return SpecPtr(std::move(spec));
          },
          [](const void* spec) { return Kernel::Args(*static_cast<const Spec*>(spec)); },
          [](const void* spec, int max_tokens) {
            // In whole cache lines, so that one thread's scratch never shares one with the next.
            Workspace space = Kernel::Space(*static_cast<const Spec*>(spec), max_tokens);
            space.scratch = (space.scratch + 63) / 64 * 64;
            return space;
          },
          [](const void* spec, double rows, double context) {
            return Kernel::Cost(*static_cast<const Spec*>(spec), rows, context);
          }};
}

constexpr KernelInfo kCatalog[] = {
#define QWEN_KERNEL(entry, family, part, collective, Spec, Body) \
  MakeInfo<Body, Spec>(#entry, #family, plan::Part::part, collective),
#include "runtime/kernels/catalog.def"
};

#if defined(QWEN_X86)
// Whether the CPU has bf16 tiles and the kernel lets this process use them. It must be asked before the first tile
// instruction, which is SIGILL otherwise; the answer holds for threads that already run.
bool AmxGranted() {
  constexpr unsigned kTile = 1u << 24, kBf16 = 1u << 22;  // CPUID 7.0, edx
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & (kTile | kBf16)) != (kTile | kBf16)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

std::span<const KernelInfo> Catalog() { return kCatalog; }

const KernelInfo* FindKernel(std::string_view entry) {
  for (const KernelInfo& info : kCatalog)
    if (info.entry == entry) return &info;
  return nullptr;
}

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kBase:
      return "base";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

bool IsaSupported(Isa isa) {
  if (isa == Isa::kBase) return true;
#if defined(QWEN_X86)
  __builtin_cpu_init();
  static const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  static const bool amx = avx512 && AmxGranted();
  return (isa == Isa::kAvx2 && avx2) || (isa == Isa::kAvx512 && avx512) || (isa == Isa::kAmx && amx);
#else
  return false;
#endif
}

Isa DetectIsa() {
  Isa best = Isa::kBase;
  for (Isa isa : kAllIsas)
    if (IsaSupported(isa)) best = isa;
  return best;
}

namespace {
struct IsaTables {
  const CpuBody* bodies;
  const CpuCeilings* ceilings;
};
IsaTables TablesOf(Isa isa) {
#if defined(QWEN_X86)
  if (isa == Isa::kAvx2) return {avx2::kBodies, &avx2::kCeilings};
  if (isa == Isa::kAvx512) return {avx512::kBodies, &avx512::kCeilings};
  if (isa == Isa::kAmx) return {amx::kBodies, &amx::kCeilings};
#endif
  return {base::kBodies, &base::kCeilings};
}
}  // namespace

CpuBody FindBody(std::string_view entry, Isa isa) {
  const KernelInfo* info = FindKernel(entry);
  return info ? TablesOf(isa).bodies[info - kCatalog] : nullptr;
}

const CpuCeilings& FindCeilings(Isa isa) { return *TablesOf(isa).ceilings; }

}  // namespace qwen::kernels
