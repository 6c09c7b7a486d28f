#include "runtime/engine/measure.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <random>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/thread_pool.h"
#include "runtime/engine/generate.h"

namespace qwen::engine {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<int32_t> RandomIds(int64_t vocab, int count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab);
  return ids;
}

kernels::SampleParams Greedy() {
  kernels::SampleParams greedy{};
  greedy.flags = kernels::kSampleGreedy;
  return greedy;
}

}  // namespace

kernels::Work StepWork(const plan::Plan& plan, const std::string& name, const StepShape& shape) {
  kernels::Work sum;
  for (const plan::Program& program : plan.programs) {
    // Every target has the same steps.
    if (program.name != name || program.rank != 0 || program.target != plan.targets.front()) continue;
    for (const plan::Step& step : program.steps) {
      const plan::Kernel& kernel = plan.kernels[step.kernel];
      const kernels::KernelInfo* info = kernels::FindKernel(kernel.entry);
      if (!info) continue;
      StatusOr<kernels::SpecPtr> spec = info->decode(kernel.spec);
      if (!spec.ok()) continue;
      double rows = shape.short_rows + shape.long_rows;
      if (step.part == plan::Part::kShort) rows = shape.short_rows;
      if (step.part == plan::Part::kLong) rows = shape.long_rows;
      if (step.part == plan::Part::kLogitRows) rows = shape.logit_rows;
      if (rows == 0) continue;
      const kernels::Work work = info->work(spec->get(), rows, shape.context);
      sum.bytes += work.bytes, sum.flops += work.flops;
    }
  }
  return sum;
}

StatusOr<Measured> MeasurePrefill(Engine& engine, int tokens, int repeat, const std::atomic<bool>* stop) {
  Measured measured;
  for (int i = 0; i <= repeat; ++i) {
    const std::vector<int32_t> ids = RandomIds(engine.vocab(), tokens, 1 + i);
    QWEN_ASSIGN_OR_RETURN(Sequence sequence, engine.Begin());
    const Clock::time_point start = Clock::now();
    QWEN_ASSIGN_OR_RETURN([[maybe_unused]] int32_t token, Feed(engine, sequence, ids, Greedy(), stop));
    if (i > 0) measured.seconds.push_back(SecondsSince(start));
  }
  for (int64_t at = 0; at < tokens;) {
    const int rows = ChunkRows(at, tokens - at, engine.capacity().max_num_batched_tokens, /*alone=*/true);
    const double context = static_cast<double>(at) + (rows + 1) / 2.0, wanted = at + rows == tokens ? 1 : 0;
    const kernels::Work work =
        StepWork(engine.plan(), "step",
                 rows == 1 ? StepShape{.short_rows = 1, .logit_rows = wanted, .context = context}
                           : StepShape{.long_rows = 1.0 * rows, .logit_rows = wanted, .context = context});
    measured.work.bytes += work.bytes, measured.work.flops += work.flops;
    at += rows;
  }
  return measured;
}

StatusOr<Measured> MeasureDecode(Engine& engine, int sequences, int context, int steps, const std::atomic<bool>* stop) {
  std::vector<Sequence> running;
  std::vector<int32_t> tokens(sequences);
  for (int s = 0; s < sequences; ++s) {
    QWEN_ASSIGN_OR_RETURN(Sequence sequence, engine.Begin());
    QWEN_ASSIGN_OR_RETURN(tokens[s], Feed(engine, sequence, RandomIds(engine.vocab(), context, 1 + s), Greedy(), stop));
    running.push_back(std::move(sequence));
  }
  constexpr int32_t kOnlyRow = 0;
  Measured measured;
  std::vector<StepEntry> entries(sequences);
  for (int step = 0; step <= steps; ++step) {
    if (stop && stop->load(std::memory_order_relaxed)) return CancelledError("stopped");
    for (int s = 0; s < sequences; ++s)
      entries[s] = {
          .sequence = &running[s], .tokens = {&tokens[s], 1}, .logit_rows = {&kOnlyRow, 1}, .sample = Greedy()};
    const Clock::time_point start = Clock::now();
    QWEN_ASSIGN_OR_RETURN(exec::Outputs outputs, engine.Step(entries));
    for (int s = 0; s < sequences; ++s) {
      running[s].Commit(1);
      tokens[s] = outputs.next[entries[s].first_logit_row];
    }
    if (step > 0) measured.seconds.push_back(SecondsSince(start));
  }
  measured.work =
      StepWork(engine.plan(), "step",
               {.short_rows = 1.0 * sequences, .logit_rows = 1.0 * sequences, .context = context + 1 + steps / 2.0});
  return measured;
}

double Percentile(std::vector<double> samples, double p) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const double at = p * static_cast<double>(samples.size() - 1);
  const size_t low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, samples.size() - 1);
  return samples[low] + (at - static_cast<double>(low)) * (samples[high] - samples[low]);
}

StatusOr<Ceilings> MeasureCeilings(kernels::Isa isa, int threads, int64_t bytes) {
  constexpr int kPasses = 7;
  constexpr int64_t kPage = 4096;
  constexpr long long kRounds = 4'000'000;
  const kernels::CpuCeilings& bodies = kernels::FindCeilings(isa);
  const int64_t each = bytes / threads / kPage * kPage;
  const size_t length = each * threads;
  void* at = mmap(nullptr, length + 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return ResourceExhaustedError(fmt::format("{} bytes to read for the ceiling", length));
  std::unique_ptr<void, std::function<void(void*)>> owner(at, [=](void* p) { munmap(p, length + 2 * kPage); });
  madvise(at, length, MADV_HUGEPAGE);
  uint8_t* base = static_cast<uint8_t*>(at);
  ThreadPool pool(threads, SpinsFor(threads));
  pool.Run([&](int thread) { std::fill_n(base + thread * each, each, static_cast<uint8_t>(thread + 1)); });

  Ceilings best;
  std::vector<unsigned> parity(threads);
  std::vector<double> flops(threads);
  std::vector<float> sink(threads);
  for (int pass = 0; pass < kPasses; ++pass) {
    Clock::time_point start = Clock::now();
    pool.Run([&](int thread) { parity[thread] = bodies.read(base + thread * each, each); });
    best.bytes_per_second = std::max(best.bytes_per_second, static_cast<double>(length) / SecondsSince(start));
    start = Clock::now();
    pool.Run([&](int thread) { flops[thread] = bodies.multiply(kRounds, &sink[thread]); });
    const double seconds = SecondsSince(start);
    double sum = 0;
    for (double f : flops) sum += f;
    best.flops_per_second = std::max(best.flops_per_second, sum / seconds);
  }
  for (unsigned word : parity)
    if (word != 0) return InternalError(fmt::format("an even number of equal words has parity {}", word));
  return best;
}

}  // namespace qwen::engine
