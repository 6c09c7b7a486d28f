//===- SpecEmitter.cpp - a kernel record as CUDA C++ ----------------------===//

#include "compiler/codegen/SpecEmitter.h"

#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace qwen::compiler {
namespace {

bool isType(const plan::Field &field) { return field.name == "type" || field.name.ends_with("_type"); }

std::string intLiteral(const plan::Field &field, int64_t value) {
  return isType(field) ? fmt::format("qwen::DType({})", value) : fmt::format("{}", value);
}

// The bits themselves: no reader of decimals can differ.
std::string realLiteral(double value) {
  float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  return fmt::format("__builtin_bit_cast(float, 0x{:08x}u)", bits);
}

} // namespace

std::string emitCudaSource(const plan::Kernel &kernel, const kernels::CudaKernelInfo &info,
                           const plan::LaunchShape &shape, int numArgs) {
  std::string constants, members;
  for (const plan::Field &field : kernel.spec) {
    using Kind = plan::Field::Kind;
    const bool real = field.kind == Kind::kReal || field.kind == Kind::kReals;
    const char *type = real ? "float" : isType(field) ? "qwen::DType" : "int";
    std::vector<std::string> values;
    for (int64_t value : field.ints)
      values.push_back(intLiteral(field, value));
    for (double value : field.reals)
      values.push_back(realLiteral(value));
    if (field.kind == Kind::kInt || field.kind == Kind::kReal) {
      members += fmt::format("  static constexpr {} {} = {};\n", type, field.name, values[0]);
      continue;
    }
    // A list may be empty, an array may not.
    std::string list = values.empty() ? fmt::format("{}{{}}", type) : fmt::format("{}", fmt::join(values, ", "));
    constants += fmt::format("__constant__ const {} kSpec_{}[] = {{{}}};\n", type, field.name, list);
    members += fmt::format("  static __device__ __forceinline__ constexpr {0} {1}(int i) {{\n    constexpr {0} values[] = {{{2}}};\n"
                           "    return values[i];\n  }}\n"
                           "  static __device__ __forceinline__ {0} {1}_at(int i) {{ return kSpec_{1}[i]; }}\n",
                           type, field.name, list);
  }
  return fmt::format("#include \"runtime/kernels/{header}\"\n\n"
                     "{constants}struct Spec {{\n  static constexpr int kThreads = {threads};\n{members}}};\n\n"
                     "extern \"C\" __global__ __launch_bounds__({bounds})\n"
                     "void {name}(const __grid_constant__ qwen::kernels::cuda::Launch<{args}> launch) {{\n"
                     "  qwen::kernels::cuda::{body}<Spec>(launch);\n}}\n",
                     fmt::arg("header", info.header), fmt::arg("constants", constants), fmt::arg("threads", shape.threads),
                     fmt::arg("bounds", info.min_blocks ? fmt::format("{}, {}", shape.threads, info.min_blocks)
                                                        : fmt::format("{}", shape.threads)),
                     fmt::arg("members", members), fmt::arg("name", kernel.name), fmt::arg("args", numArgs),
                     fmt::arg("body", info.body));
}

} // namespace qwen::compiler
