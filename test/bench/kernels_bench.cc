// CPU bodies on the shapes of a 4B model: bytes a second of what bounds decode, flops a second of what bounds prompts.
//
// The last argument is the number of threads. Weights are larger than any cache, so a decode figure is a memory figure.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "runtime/base/thread_pool.h"
#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/catalog.h"
#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/formats/pack.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/spec_fields.h"

namespace qwen::kernels {
namespace {

/// Zeroed cache lines. Small numbers in place of zeros: a body is as fast on either, but a denormal would not be.
struct Lines {
  explicit Lines(int64_t bytes) : lines((bytes + 63) / 64) {
    for (Line& line : lines)
      for (int i = 0; i < 16; ++i) line.words[i] = 0x3c003c00;
  }
  void* data() { return lines.data(); }
  struct alignas(64) Line {
    uint32_t words[16];
  };
  std::vector<Line> lines;
};

/// Runs a kernel over and over on a pool of threads.
class Runner {
 public:
  template <class Spec>
  Runner(std::string_view entry, const Spec& spec, int threads, const BatchView& batch, StateView state = {})
      : batch_(batch), state_(state), pool_(threads, SpinsFor(threads)), shared_(64) {
    const KernelInfo* info = FindKernel(entry);
    spec_ = *info->decode(ToFields(spec));
    body_ = FindBody(entry, DetectIsa());
    for (int i = 0; i < threads; ++i) scratch_.emplace_back(info->workspace(spec_.get(), batch.num_tokens).scratch);
    std::memset(shared_.data(), 0, 64);
    work_ = info->work(spec_.get(), std::max(batch.num_tokens, batch.num_logit_rows), 0);
  }
  std::vector<void*> args;

  void Run(benchmark::State& bench, double bytes, double flops) {
    for (auto _ : bench)
      pool_.Run([&](int thread) {
        Launch launch{};
        launch.batch = &batch_, launch.state = &state_, launch.args = args.data();
        launch.thread = thread, launch.threads = pool_.threads();
        launch.scratch = static_cast<unsigned char*>(scratch_[thread].data());
        launch.shared = static_cast<unsigned char*>(shared_.data());
        body_(spec_.get(), launch);
      });
    using benchmark::Counter;
    bench.counters["B/s"] = Counter(bytes, Counter::kIsIterationInvariantRate, Counter::kIs1000);
    bench.counters["flop/s"] = Counter(flops, Counter::kIsIterationInvariantRate, Counter::kIs1000);
  }
  const Work& work() const { return work_; }

 private:
  BatchView batch_;
  StateView state_;
  ThreadPool pool_;
  Lines shared_;
  std::vector<Lines> scratch_;
  SpecPtr spec_;
  CpuBody body_;
  Work work_;
};

/// `seqs` sequences of `rows` rows at `position`, one slot and one row of the page table each.
struct Batch {
  std::vector<int> cu{0}, ids, position, slot, fill, fold, table, logit_rows;
  BatchView view{};
  Batch(int seqs, int rows, int at, int ring_fill = 0) {
    const int pages = (at + rows + 31) / 32;
    for (int s = 0; s < seqs; ++s) {
      cu.push_back(cu.back() + rows);
      position.push_back(at), slot.push_back(s), fill.push_back(ring_fill), fold.push_back(0);
      logit_rows.push_back(cu.back() - 1);
      for (int p = 0; p < pages; ++p) table.push_back(s * pages + p);
    }
    ids.resize(cu.back());
    view = {seqs,        rows == 1 ? seqs : 0, cu.back(),   seqs,         cu.data(),
            ids.data(),  position.data(),      slot.data(), slot.data(),  fill.data(),
            fold.data(), logit_rows.data(),    nullptr,     table.data(), pages};
  }
};

// rows, threads
void Gemm(benchmark::State& bench, DType type) {
  LinearSpec s{};
  s.k = 2560, s.outputs = 2, s.n[0] = s.n[1] = 9216, s.silu_mul = 1,
  s.x_type = s.w_type = s.y_type[0] = s.y_type[1] = type;
  Batch batch(static_cast<int>(bench.range(0)), 1, 0);
  Runner run("linear", s, static_cast<int>(bench.range(1)), batch.view);
  Lines x(bench.range(0) * s.k * 4), w(2 * Tile16Bytes(type, s.n[0], s.k)), y(bench.range(0) * s.n[0] * 4);
  unsigned char* up = static_cast<unsigned char*>(w.data()) + Tile16Bytes(type, s.n[0], s.k);
  run.args = {x.data(), nullptr, nullptr, nullptr, w.data(), up, y.data()};
  run.Run(bench, run.work().bytes, run.work().flops);
}
void LinearF32(benchmark::State& bench) { Gemm(bench, DType::kF32); }
void LinearBf16(benchmark::State& bench) { Gemm(bench, DType::kBF16); }
BENCHMARK(LinearF32)->ArgsProduct({{1, 4, 64}, {1, 2}})->UseRealTime();
BENCHMARK(LinearBf16)->ArgsProduct({{1, 4, 64}, {1, 2}})->UseRealTime();

// rows of one sequence (1: decode on a half full ring), threads
void Gdn(benchmark::State& bench) {
  const GdnSpec s{16, 32, 128, 128, 4, 1e-6f, 0.088f, DType::kBF16, DType::kF32};
  const int rows = static_cast<int>(bench.range(0));
  StateView state{.page_tokens = 32, .max_rows = 1, .fold_rows = 8, .ring_rows = 9, .conv_rows = 4};
  const SlotLayout layout = MakeSlotLayout(16, 32, 128, 128, s.x_type, 9, 4);
  state.slot_bytes = layout.bytes;
  Batch batch(1, rows, 100, rows == 1 ? 4 : 0);
  Runner run(rows == 1 ? "gdn_decode" : "gdn_scan", s, static_cast<int>(bench.range(1)), batch.view, state);
  const int64_t channels = s.conv_channels();
  Lines qkv(rows * channels * 2), b(rows * 32 * 4), a(rows * 32 * 4), conv(channels * 16), log(128), dt(128),
      slot(layout.bytes), o(rows * 4096 * 2);
  run.args = {qkv.data(), b.data(), a.data(), conv.data(), log.data(), dt.data(), slot.data(), o.data()};
  run.Run(bench, run.work().bytes, run.work().flops);
}
BENCHMARK(Gdn)->ArgsProduct({{1, 64, 512}, {1, 2}})->UseRealTime();

// rows, context in front of them, threads
void Attention(benchmark::State& bench) {
  AttentionSpec s{};
  s.q_heads = 16, s.kv_heads = 4, s.head_dim = 256, s.gate = s.qk_norm = 1, s.eps = 1e-6f, s.freqs = 32;
  for (int h = 0; h < 16; ++h) s.kv_map[h] = h / 4;
  for (int j = 0; j < 32; ++j) s.inv_freq[j] = static_cast<float>(std::pow(1e7, -j / 32.0));
  s.attention_factor = 1, s.scale = 1 / 16.0f, s.append = s.attend = 1;
  s.type = s.cache_type = DType::kBF16;
  const int rows = static_cast<int>(bench.range(0)), context = static_cast<int>(bench.range(1));
  Batch batch(1, rows, context);
  StateView state{.page_tokens = 32, .page_bytes = 2LL * 4 * 32 * 256 * 2};
  Runner run(rows == 1 ? "attn_decode" : "attn_prefill", s, static_cast<int>(bench.range(2)), batch.view, state);
  Lines q(rows * 8192 * 2), k(rows * 1024 * 2), v(rows * 1024 * 2), norm(1024),
      cache(batch.view.max_pages * state.page_bytes), o(rows * 4096 * 2);
  run.args = {q.data(), k.data(), v.data(), norm.data(), norm.data(), cache.data(), o.data()};
  const double seen = context + (rows + 1) / 2.0;
  const Work work = FindKernel(rows == 1 ? "attn_decode" : "attn_prefill")->work(&s, rows, seen);
  run.Run(bench, work.bytes, work.flops);
}
BENCHMARK(Attention)
    ->Args({1, 4096, 1})
    ->Args({1, 4096, 2})
    ->Args({1, 65536, 1})
    ->Args({256, 0, 1})
    ->Args({256, 2048, 2})
    ->UseRealTime();

// rows, threads: 8 of 64 experts of the 35B model
void Experts(benchmark::State& bench) {
  ExpertsSpec s{2048, 64, 0, 8, 512, 1, 512, 1, DType::kBF16, DType::kBF16, DType::kBF16};
  const int rows = static_cast<int>(bench.range(0)), threads = static_cast<int>(bench.range(1));
  Batch batch(rows, 1, 0);
  Runner up("experts_gate_up", s, threads, batch.view), down("experts_down", s, threads, batch.view);
  Lines x(rows * 2048 * 2), w(rows * 8 * 4), gate_up(64 * Tile16Bytes(s.w_type, 1024, 2048)),
      d(64 * Tile16Bytes(s.w_type, 2048, 512)), shared(Tile16Bytes(s.w_type, 512, 2048)),
      shared_down(Tile16Bytes(s.w_type, 2048, 512)), scalar(Tile16Bytes(s.w_type, 1, 2048)),
      temp(4 * rows * s.temp_row()), y(rows * 2048 * 2);
  std::vector<int> ids;
  for (int i = 0; i < rows * 8; ++i) ids.push_back(i * 7 % 64);
  up.args = {x.data(),      w.data(),           ids.data(),    gate_up.data(), d.data(),    shared.data(),
             shared.data(), shared_down.data(), scalar.data(), x.data(),       temp.data(), y.data()};
  up.Run(bench, up.work().bytes, up.work().flops);
}
BENCHMARK(Experts)->ArgsProduct({{1, 64}, {1, 2}})->UseRealTime();

// top_k (0: greedy; -1: all of the vocabulary)
void Sample(benchmark::State& bench) {
  const SampleSpec s{248320};
  Batch batch(1, 1, 0);
  SampleParams params{.seed = 1,
                      .top_k = static_cast<int>(std::max<int64_t>(bench.range(0), 0)),
                      .flags = bench.range(0) == 0 ? kSampleGreedy : 0,
                      .temperature = 1,
                      .top_p = 1};
  batch.view.sample = &params;
  Runner run("sample", s, 1, batch.view);
  std::vector<float> logits(s.vocab);
  for (int v = 0; v < s.vocab; ++v) logits[v] = static_cast<float>(v * 2654435761u >> 8) * 0x1p-21f;  // 0 to 8
  int next;
  run.args = {logits.data(), &next};
  run.Run(bench, 4.0 * s.vocab, s.vocab);
}
BENCHMARK(Sample)->Arg(0)->Arg(20)->Arg(-1);

}  // namespace
}  // namespace qwen::kernels

BENCHMARK_MAIN();
