// Times prompts and decode steps, and counts the work they are: what `qwenrt bench` prints.
//
// Times are of whole engine steps, so they hold everything a token costs but text and sampling beyond greedy.
// Threads: as Engine.
#ifndef QWEN_RUNTIME_ENGINE_MEASURE_H_
#define QWEN_RUNTIME_ENGINE_MEASURE_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/kernels/catalog.h"

namespace qwen::engine {

/// Rows of one step: `context` tokens are visible to each.
struct StepShape {
  double short_rows = 0, long_rows = 0, logit_rows = 0, context = 0;
};
/// Bytes and flops of `program`'s steps on rank 0 by the catalogue's own account: what `qwenc inspect --steps` sums up,
/// for any shape.
kernels::Work StepWork(const plan::Plan& plan, const std::string& program, const StepShape& shape);

struct Measured {
  std::vector<double> seconds;  // one a repetition (prefill) or step (decode)
  kernels::Work work;           // of one of them, the average where they differ
};

/// `repeat` prompts of `tokens` random ids, one after the other, each behind one that is not counted.
StatusOr<Measured> MeasurePrefill(Engine& engine, int tokens, int repeat, const std::atomic<bool>* stop);
/// `sequences` with `context` tokens each decode `steps` tokens together, greedily.
StatusOr<Measured> MeasureDecode(Engine& engine, int sequences, int context, int steps, const std::atomic<bool>* stop);

/// The value that a share `p` of the sorted samples does not exceed; linear between neighbours.
double Percentile(std::vector<double> samples, double p);

/// What the machine does at best with `threads` threads, measured now.
struct Ceilings {
  double bytes_per_second = 0;  // reading memory: huge pages, prefetch, every thread its own part
  double flops_per_second = 0;  // f32 products and sums in registers
};
/// Reads `bytes` (rounded down to pages) some times over; kResourceExhausted when they cannot be had.
StatusOr<Ceilings> MeasureCeilings(kernels::Isa isa, int threads, int64_t bytes);

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_MEASURE_H_
