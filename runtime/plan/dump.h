// Plans as text and as JSON: what `inspect` and `diff` print.
//
// Both forms come from the same tables. JSON is UTF-8 and ends in a newline; its keys keep their order.
#ifndef QWEN_RUNTIME_PLAN_DUMP_H_
#define QWEN_RUNTIME_PLAN_DUMP_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/plan/memory.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

/// All of it; blobs as kind, size and checksum. Digests and checksums are hexadecimal strings.
std::string DumpJson(const Plan& plan);

/// A page: model, capacity, programs, kernels, weights, state.
std::string DumpSummary(const Plan& plan);

struct StepsOptions {
  std::string program;  // only this one; empty: all
  int32_t rank = 0;     // -1: all
  // The machine of the floor: a step takes at least max(bytes / bytes_per_second, flops / flops_per_second).
  double bytes_per_second = 30e9, flops_per_second = 400e9;
};
/// One line a step: kernel, origin, part, barrier, bytes and flops of one decode token, floor, share of the program's
/// floor. Below it the barriers of each layer.
std::string DumpSteps(const Plan& plan, const StepsOptions& options = {});
std::string DumpStepsJson(const Plan& plan, const StepsOptions& options = {});

/// Barriers that a decode token meets: steps that wait (collectives do), long parts left out, by the layer that
/// `origin` names ("layers.3", "mtp.layers.0", or the first word of what is in no layer, as "lm_head"). In order of
/// their first step.
struct LayerBarriers {
  std::string layer;
  int barriers = 0;
};
std::vector<LayerBarriers> CountBarriers(const Plan& plan, const Program& program);

/// A kernel on a card: what its assembler says of it, and the least a launch takes there.
struct KernelOnCard {
  int32_t registers = -1;  // of a thread; -1: nobody assembled it, and the next five say nothing
  int64_t spill_bytes = 0, stack_bytes = 0, shared_bytes = 0;
  int32_t blocks = 0;               // that a multiprocessor holds
  double occupancy = 0;             // share of its warps that those are
  int64_t bytes = 0, flops = 0;     // of one decode token, of the step that moves most
  double floor_us = 0;
};
/// One line a kernel record: family, entry, target, steps that run it, Spec. With `cards`, one for each kernel, those that
/// have PTX are listed a second time with these figures.
std::string DumpKernels(const Plan& plan, std::span<const KernelOnCard> cards = {});
std::string DumpKernelsJson(const Plan& plan, std::span<const KernelOnCard> cards = {});

/// The memory statement of every target, and the weights that ranks replicate.
std::string DumpMemory(const Plan& plan, const MemoryOptions& options = {});
std::string DumpMemoryJson(const Plan& plan, const MemoryOptions& options = {});

/// One line a difference; "no difference" when there is none. Kernels, weights, programs and buffers are matched by
/// name, steps by kernel and origin, so that one more of them is one line.
std::string Diff(const Plan& a, const Plan& b);
std::string DiffJson(const Plan& a, const Plan& b);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_DUMP_H_
