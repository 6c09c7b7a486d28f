#include "test/runtime/exec/fake_catalog.h"

#include <cassert>
#include <cstdint>
#include <cstring>

#include "runtime/kernels/catalog.h"

namespace qwen::kernels {
namespace {

using exec::test::kFakeScratch, exec::test::kFakeShared, exec::test::kFakeThreads;

StatusOr<SpecPtr> Decode(const plan::Fields& fields) {
  if (fields.size() != 1)
    return DataLossError("spec has " + std::to_string(fields.size()) + " fields, the kernel takes 1");
  return SpecPtr(std::make_shared<int64_t>(fields[0].ints[0]));
}
template <int kArgs>
int NumArgs(const void*) {
  return kArgs;
}
Workspace Space(const void*, int) { return {.scratch = kFakeScratch, .shared = kFakeShared}; }
kernels::Work NoWork(const void*, double, double) { return {}; }

const KernelInfo kKernels[] = {
    {"relay", "fake", plan::Part::kAll, false, Decode, NumArgs<2>, Space, NoWork},
    {"meet", "fake", plan::Part::kAll, true, Decode, NumArgs<2>, Space, NoWork},
    {"rows", "fake", plan::Part::kAll, false, Decode, NumArgs<1>, Space, NoWork},
    {"copy", "fake", plan::Part::kAll, false, Decode, NumArgs<2>, Space, NoWork},
};

// Every body first uses all of the scratch it was promised, so that too little shows under ASan and TSan.
int64_t Begin(const void* spec, const Launch& l) {
  assert(l.threads <= kFakeThreads && reinterpret_cast<uintptr_t>(l.scratch) % 64 == 0);
  std::memset(l.scratch, l.thread, kFakeScratch);
  for (int i = 0; i < kFakeShared; ++i) assert(l.shared[i] == 0);
  return *static_cast<const int64_t*>(spec);
}

void Relay(const void* spec, const Launch& l) {
  int64_t sum = Begin(spec, l);
  if (const int64_t* in = static_cast<const int64_t*>(l.args[0]))
    for (int t = 0; t < l.threads; ++t) sum += in[t];
  static_cast<int64_t*>(l.args[1])[l.thread] = sum;
}

void Meet(const void* spec, const Launch& l) {
  int64_t sum = Begin(spec, l);
  for (int r = 0; r < l.ranks; ++r)
    for (int t = 0; t < l.threads; ++t) sum += (r + 1) * static_cast<const int64_t*>(l.peers[r])[t];
  static_cast<int64_t*>(l.args[1])[l.thread] = sum;
}

void Rows(const void* spec, const Launch& l) {
  Begin(spec, l);
  if (l.thread == 0) *static_cast<int32_t*>(l.args[0]) = l.batch->num_tokens;
}

void Copy(const void* spec, const Launch& l) {
  Begin(spec, l);
  if (l.thread == 0) std::memcpy(l.args[1], l.args[0], l.batch->num_tokens * 4);
}

}  // namespace

std::span<const KernelInfo> Catalog() { return kKernels; }
const KernelInfo* FindKernel(std::string_view entry) {
  for (const KernelInfo& info : kKernels)
    if (info.entry == entry) return &info;
  return nullptr;
}
std::string_view IsaName(Isa isa) { return isa == Isa::kBase ? "base" : isa == Isa::kAvx2 ? "avx2" : "avx512"; }
Isa DetectIsa() { return Isa::kBase; }
bool IsaSupported(Isa isa) { return isa == Isa::kBase; }
CpuBody FindBody(std::string_view entry, Isa) {
  return entry == "relay" ? Relay : entry == "meet" ? Meet : entry == "rows" ? Rows : entry == "copy" ? Copy : nullptr;
}

}  // namespace qwen::kernels
