// Plans written by hand: buffers one after the other, nothing shared, a barrier where the caller says so.
#ifndef QWEN_TEST_RUNTIME_EXEC_PLAN_BUILDER_H_
#define QWEN_TEST_RUNTIME_EXEC_PLAN_BUILDER_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/kernels/catalog.h"
#include "runtime/plan/memory.h"
#include "runtime/plan/plan.h"

namespace qwen::exec::test {

/// What an executor of the plan takes beside the weights, as the memory statement has it.
inline int64_t StatedBytes(const plan::Plan& plan, int num_pages, int num_slots, int threads) {
  const plan::MemoryStatement s =
      plan::StateMemory(plan, "cpu", {.num_slots = num_slots, .num_pages = num_pages, .threads = threads});
  int64_t bytes = 0;
  for (const plan::RankMemory& m : s.ranks)
    bytes += m.arena_bytes + m.workspace_bytes + m.output_bytes + num_pages * m.page_bytes + num_slots * m.slot_bytes;
  return bytes;
}

/// Adds a record, or finds the equal one, and returns its index.
inline int32_t AddKernel(plan::Plan* plan, const std::string& entry, const std::string& family, plan::Fields spec) {
  for (size_t i = 0; i < plan->kernels.size(); ++i)
    if (plan->kernels[i].entry == entry && plan->kernels[i].spec == spec) return static_cast<int32_t>(i);
  const std::string name = entry + "__" + std::to_string(plan->kernels.size());
  plan->kernels.push_back({.name = name, .family = family, .entry = entry, .target = "cpu", .spec = std::move(spec)});
  return static_cast<int32_t>(plan->kernels.size()) - 1;
}

class ProgramBuilder {
 public:
  ProgramBuilder(plan::Plan* plan, const std::string& name, int32_t rank) : plan_(*plan) {
    program_.name = name, program_.target = "cpu", program_.rank = rank, program_.max_rows = plan->capacity.max_rows;
  }

  /// Room for `row` elements a token, or a logit row.
  int32_t Arena(const std::string& name, DType dtype, int64_t row) {
    const int64_t at = program_.arena_bytes;
    const int32_t buffer = Add(name, plan::BufferKind::kArena, -1, dtype, row);
    program_.buffers[buffer].offset = at;
    program_.arena_bytes += (program_.buffers[buffer].bytes + 63) / 64 * 64;
    return buffer;
  }
  int32_t Output(const std::string& name, DType dtype, int64_t row) {
    const int32_t index = static_cast<int32_t>(program_.outputs.size());
    const int32_t buffer = Add(name, plan::BufferKind::kOutput, index, dtype, row);
    program_.outputs.push_back({.name = name, .buffer = buffer});
    return buffer;
  }
  int32_t Input(const std::string& name, DType dtype, int64_t row) {
    const int32_t index = static_cast<int32_t>(program_.inputs.size());
    const int32_t buffer = Add(name, plan::BufferKind::kInput, index, dtype, row);
    program_.inputs.push_back({.name = name, .buffer = buffer});
    return buffer;
  }
  int32_t Cache(const std::string& name, int64_t offset, int64_t bytes) {
    plan::Buffer buffer{};
    buffer.name = name, buffer.kind = plan::BufferKind::kCache, buffer.offset = offset, buffer.bytes = bytes;
    program_.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(program_.buffers.size()) - 1;
  }
  int32_t Weight(int32_t packed) {
    plan::Buffer buffer{};
    buffer.name = plan_.weights[plan_.packed[packed].weight].name, buffer.kind = plan::BufferKind::kWeight;
    buffer.index = packed, buffer.bytes = plan_.packed[packed].bytes;
    program_.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(program_.buffers.size()) - 1;
  }

  void Launch(int32_t kernel, std::vector<int32_t> args, plan::Part part = plan::Part::kAll, bool waits = true,
              plan::StepKind kind = plan::StepKind::kLaunch) {
    plan::Step step{};
    step.kind = kind, step.kernel = kernel, step.args = std::move(args), step.part = part, step.waits = waits;
    step.origin = "op" + std::to_string(program_.steps.size());
    program_.steps.push_back(std::move(step));
  }
  void Collective(int32_t kernel, std::vector<int32_t> args, plan::Part part = plan::Part::kAll) {
    Launch(kernel, std::move(args), part, true, plan::StepKind::kCollective);
  }

  plan::Program& program() { return program_; }
  /// Room for what the kernels say they need, then into the plan.
  void Finish() {
    for (const plan::Step& step : program_.steps) {
      const plan::Kernel& kernel = plan_.kernels[step.kernel];
      const kernels::KernelInfo* info = kernels::FindKernel(kernel.entry);
      if (!info) continue;
      auto spec = info->decode(kernel.spec);
      if (!spec.ok()) continue;
      kernels::Workspace need = info->workspace(spec->get(), plan_.capacity.max_num_batched_tokens);
      program_.scratch_bytes = std::max(program_.scratch_bytes, need.scratch);
      program_.shared_bytes = std::max(program_.shared_bytes, need.shared);
    }
    plan_.programs.push_back(program_);
  }

 private:
  int32_t Add(const std::string& name, plan::BufferKind kind, int32_t index, DType dtype, int64_t row) {
    plan::Buffer buffer{};
    buffer.name = name, buffer.kind = kind, buffer.index = index, buffer.dtype = dtype, buffer.shape = {-1, row};
    buffer.bytes = plan_.capacity.max_num_batched_tokens * row * DTypeBytes(dtype);
    program_.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(program_.buffers.size()) - 1;
  }

  plan::Plan& plan_;
  plan::Program program_;
};

}  // namespace qwen::exec::test

#endif  // QWEN_TEST_RUNTIME_EXEC_PLAN_BUILDER_H_
