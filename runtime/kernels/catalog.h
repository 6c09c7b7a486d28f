// The catalogue: which kernels there are, what they take, what they cost, and their CPU bodies.
//
// One line a kernel in catalog.def. The compiler asks it for Specs, scratch and floors; the executor for bodies and checks.
#ifndef QWEN_RUNTIME_KERNELS_CATALOG_H_
#define QWEN_RUNTIME_KERNELS_CATALOG_H_

#include <memory>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/kernels/kernel.h"
#include "runtime/plan/plan.h"

namespace qwen::kernels {

/// What a kernel needs beside its arguments, for at most `max_tokens` rows. Bytes.
struct Workspace {
  int64_t scratch = 0;  // per thread
  int64_t shared = 0;   // per rank, zero between steps
  int64_t temp = 0;     // the family's arena argument (kRouterTemp, kExpertsTemp), shared by its kernels
};

/// Work of one launch on `rows` rows, `context` visible tokens a row: what the cost model and `inspect --steps` print.
struct Work {
  double bytes = 0, flops = 0;
};

/// A decoded and checked Spec, ready to be handed to bodies.
using SpecPtr = std::shared_ptr<const void>;

struct KernelInfo {
  std::string_view entry;   // "gdn_decode"
  std::string_view family;  // "gdn"
  plan::Part part;          // rows it runs over
  bool collective;
  StatusOr<SpecPtr> (*decode)(const plan::Fields&);          // and checks every value against the kernel's limits
  int (*num_args)(const void* spec);
  Workspace (*workspace)(const void* spec, int max_tokens);
  Work (*work)(const void* spec, double rows, double context);
};

/// All CPU kernels, in the order of catalog.def.
std::span<const KernelInfo> Catalog();
/// nullptr when there is none of that name.
const KernelInfo* FindKernel(std::string_view entry);

/// From the worst to the best.
enum class Isa { kBase, kAvx2, kAvx512, kAmx };
inline constexpr Isa kAllIsas[] = {Isa::kBase, Isa::kAvx2, Isa::kAvx512, Isa::kAmx};
std::string_view IsaName(Isa isa);
/// The best this machine has.
Isa DetectIsa();
bool IsaSupported(Isa isa);
/// nullptr when the catalogue has no such kernel.
CpuBody FindBody(std::string_view entry, Isa isa);
const CpuCeilings& FindCeilings(Isa isa);

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_CATALOG_H_
