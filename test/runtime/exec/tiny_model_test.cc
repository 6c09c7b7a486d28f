// A model of one feed-forward layer through the real kernels: embed, norm, gate and up, down, sum over ranks, head,
// draw. The expected numbers are plain loops in double over the same weights, unsharded.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/exec/executor.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/formats/convert.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/lm_head/lm_head.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/spec_fields.h"
#include "runtime/plan/layout.h"
#include "test/runtime/exec/plan_builder.h"

namespace qwen::exec {
namespace {

using plan::Layout, plan::Part, plan::Range;
using test::AddKernel, test::ProgramBuilder;

constexpr int kHidden = 40, kInter = 80, kVocab = 200;
constexpr float kEps = 1e-6f;
constexpr uint64_t kSeed = 3;

// The share of rank r when `units` go round: the first ranks get one more. May be empty.
Range Share(int units, int unit, int total, int rank, int ranks) {
  auto begin = [&](int r) {
    return std::min<int64_t>(total, int64_t{unit} * (units / ranks * r + std::min(r, units % ranks)));
  };
  return {begin(rank), begin(rank + 1)};
}

struct Tiny {
  plan::Plan plan;
  enum Weight { kEmbed, kNorm1, kGate, kUp, kDown, kFinalNorm, kHead };

  explicit Tiny(DType dtype, int tp) {
    plan.targets = {"cpu"};
    plan.tp = tp;
    plan.capacity = {.max_num_seqs = 4, .max_num_batched_tokens = 16, .max_rows = 1, .max_logit_rows = 16};
    plan.states.resize(tp);
    auto weight = [&](const char* name, DType type, std::vector<int64_t> shape) {
      plan::Weight w{};
      w.name = name, w.dtype = type, w.shape = std::move(shape);
      plan.weights.push_back(std::move(w));
    };
    weight("embed", dtype, {kVocab, kHidden});
    weight("layers.0.norm2", DType::kF32, {kHidden});
    weight("layers.0.mlp.gate", dtype, {kInter, kHidden});
    weight("layers.0.mlp.up", dtype, {kInter, kHidden});
    weight("layers.0.mlp.down", dtype, {kHidden, kInter});
    weight("final_norm", DType::kF32, {kHidden});
    weight("lm_head", dtype, {kVocab, kHidden});
    for (int rank = 0; rank < tp; ++rank) AddRank(dtype, rank, tp);
  }

  int32_t Pack(Weight weight, Layout layout, int32_t rank, std::vector<std::vector<Range>> slices = {}) {
    plan::Packed packed{};
    packed.weight = weight, packed.rank = rank, packed.layout = layout, packed.slices = std::move(slices);
    auto size = plan::PackedBytes(plan.weights[weight], packed);
    EXPECT_TRUE(size.ok()) << size.status().message();
    packed.bytes = size->bytes, packed.net_bytes = size->net_bytes;
    plan.packed.push_back(packed);
    return static_cast<int32_t>(plan.packed.size()) - 1;
  }

  void AddRank(DType dtype, int rank, int tp) {
    const Range inter = Share((kInter + 15) / 16, 16, kInter, rank, tp);
    const int n = static_cast<int>(inter.end - inter.begin);
    kernels::AllGatherSpec gather{.ranks = tp, .counts = {}};
    for (int r = 0; r < tp; ++r) {
      Range rows = Share((kVocab + 63) / 64, 64, kVocab, r, tp);
      gather.counts[r] = static_cast<int>(rows.end - rows.begin);
    }
    const Range vocab = Share((kVocab + 63) / 64, 64, kVocab, rank, tp);

    ProgramBuilder b(&plan, "step", rank);
    const int32_t x = b.Arena("x", dtype, kHidden), h = b.Arena("h", dtype, kHidden), act = b.Arena("act", dtype, n);
    const int32_t partial = b.Arena("partial", DType::kF32, kHidden), sum = b.Output("final_hidden", dtype, kHidden);
    const int32_t share = b.Arena("share", DType::kF32, vocab.end - vocab.begin);
    const int32_t logits = b.Output("logits", DType::kF32, kVocab), next = b.Output("next", DType::kI32, 1);

    kernels::EmbedSpec embed{.hidden = kHidden, .vocab = kVocab, .w_type = dtype, .y_type = dtype, .tiled = 0};
    b.Launch(AddKernel(&plan, "embed_rows", "embed", kernels::ToFields(embed)),
             {b.Weight(Pack(kEmbed, Layout::kRows, rank)), x});
    kernels::RmsNormSpec norm{.channels = kHidden, .eps = kEps, .round_first = 0, .add = 0, .type = dtype};
    b.Launch(AddKernel(&plan, "add_rms_norm", "rms_norm", kernels::ToFields(norm)),
             {x, -1, b.Weight(Pack(kNorm1, Layout::kVector, rank)), -1, h});

    kernels::LinearSpec up{};
    up.k = kHidden, up.outputs = 2, up.n[0] = up.n[1] = n, up.y_type[0] = up.y_type[1] = dtype;
    up.x_type = up.w_type = dtype, up.eps = kEps, up.silu_mul = 1;
    b.Launch(AddKernel(&plan, "linear", "linear", kernels::ToFields(up)),
             {h, -1, -1, -1, b.Weight(Pack(kGate, Layout::kTile16, rank, {{inter}, {}})),
              b.Weight(Pack(kUp, Layout::kTile16, rank, {{inter}, {}})), act});
    kernels::LinearSpec down{};
    down.k = n, down.outputs = 1, down.n[0] = kHidden, down.y_type[0] = tp > 1 ? DType::kF32 : dtype;
    down.x_type = down.w_type = dtype, down.eps = kEps, down.residual = tp == 1;
    const int32_t w_down = b.Weight(Pack(kDown, Layout::kTile16, rank, {{}, {inter}}));
    b.Launch(AddKernel(&plan, "linear", "linear", kernels::ToFields(down)),
             {act, -1, -1, tp == 1 ? x : -1, w_down, tp > 1 ? partial : sum});
    if (tp > 1) {
      kernels::AllReduceSpec reduce{
          .channels = kHidden, .residual = 1, .norm = 0, .round_first = 0, .eps = kEps, .y_type = dtype};
      b.Collective(AddKernel(&plan, "all_reduce", "all_reduce", kernels::ToFields(reduce)), {partial, x, -1, sum, -1});
    }

    kernels::LmHeadSpec head{.hidden = kHidden,
                             .vocab = static_cast<int>(vocab.end - vocab.begin),
                             .norm = 1,
                             .round_first = 0,
                             .eps = kEps,
                             .gather = 1,
                             .x_type = dtype,
                             .w_type = dtype};
    const int32_t w_head = b.Weight(Pack(kHead, Layout::kTile16, rank, {{vocab}, {}}));
    b.Launch(AddKernel(&plan, "lm_head", "lm_head", kernels::ToFields(head)),
             {sum, b.Weight(Pack(kFinalNorm, Layout::kVector, rank)), w_head, tp > 1 ? share : logits},
             Part::kLogitRows);
    if (tp > 1)
      b.Collective(AddKernel(&plan, "all_gather", "all_reduce", kernels::ToFields(gather)), {share, logits},
                   Part::kLogitRows);
    b.Launch(AddKernel(&plan, "sample", "lm_head", kernels::ToFields(kernels::SampleSpec{.vocab = kVocab})),
             {logits, next}, Part::kLogitRows);
    b.Finish();
  }

  // The weight as the ranks see it together, in double.
  std::vector<double> Plain(Weight weight) const {
    plan::Plan whole;
    whole.weights = plan.weights;
    plan::Packed packed{};
    packed.weight = weight, packed.layout = Layout::kVector;
    packed.bytes = plan::PackedBytes(plan.weights[weight], packed)->bytes;
    whole.packed = {packed};
    auto random = RandomWeights(whole, kSeed);
    std::vector<float> values(packed.bytes / 4);
    std::memcpy(values.data(), random->packed[0].get(), packed.bytes);
    return {values.begin(), values.end()};
  }
};

// Rounds where the model's type does.
double Round(DType dtype, double x) {
  float f = static_cast<float>(x);
  return dtype == DType::kBF16 ? kernels::F32FromBf16(kernels::Bf16FromF32(f)) : f;
}

struct Expected {
  std::vector<double> hidden, logits;
};
Expected PlainLoops(const Tiny& tiny, DType dtype, int token) {
  const auto embed = tiny.Plain(Tiny::kEmbed), norm1 = tiny.Plain(Tiny::kNorm1), gate = tiny.Plain(Tiny::kGate),
             up = tiny.Plain(Tiny::kUp), down = tiny.Plain(Tiny::kDown), norm = tiny.Plain(Tiny::kFinalNorm),
             head = tiny.Plain(Tiny::kHead);
  auto rms_norm = [&](const std::vector<double>& x, const std::vector<double>& w) {
    double sum = 0;
    for (double v : x) sum += v * v;
    std::vector<double> y(x.size());
    for (size_t c = 0; c < x.size(); ++c) y[c] = Round(dtype, x[c] / std::sqrt(sum / x.size() + kEps) * w[c]);
    return y;
  };
  auto dot = [](const double* w, const std::vector<double>& x) {
    double sum = 0;
    for (size_t k = 0; k < x.size(); ++k) sum += w[k] * x[k];
    return sum;
  };
  Expected out;
  std::vector<double> x(embed.begin() + token * kHidden, embed.begin() + (token + 1) * kHidden);
  const std::vector<double> h = rms_norm(x, norm1);
  std::vector<double> act(kInter);
  for (int i = 0; i < kInter; ++i) {
    double g = dot(&gate[i * kHidden], h);
    act[i] = Round(dtype, g / (1 + std::exp(-g)) * dot(&up[i * kHidden], h));
  }
  for (int c = 0; c < kHidden; ++c) out.hidden.push_back(Round(dtype, dot(&down[c * kInter], act) + x[c]));
  const std::vector<double> n = rms_norm(out.hidden, norm);
  for (int v = 0; v < kVocab; ++v) out.logits.push_back(dot(&head[v * kHidden], n));
  return out;
}

double RelativeError(const float* have, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (have[i] - want[i]) * (have[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / norm);
}

// Two short sequences and a long one; logits of the second, and of rows 0 and 2 of the long one.
const std::vector<int32_t> kTokens = {7, 199, 0, 63, 64, 128};
const std::vector<int32_t> kWanted = {1, 2, 4};
BatchBlock Batch(const plan::Plan& plan) {
  static const std::vector<int32_t> first = {0}, both = {0, 2};
  static const std::vector<kernels::SampleParams> greedy(
      2, kernels::SampleParams{0, 0, 0, kernels::kSampleGreedy | kernels::kSampleWriteLogits, 1, 1, 0, -1, 0, 0, 0});
  BatchBlock block(plan.capacity, 1);
  SequenceRows rows;
  rows.tokens = std::span(kTokens).subspan(0, 1);
  EXPECT_TRUE(block.AddShort(rows).ok());
  rows.tokens = std::span(kTokens).subspan(1, 1), rows.logit_rows = first, rows.sample = std::span(greedy).first(1);
  EXPECT_TRUE(block.AddShort(rows).ok());
  rows.tokens = std::span(kTokens).subspan(2, 4), rows.logit_rows = both, rows.sample = greedy;
  EXPECT_TRUE(block.AddLong(rows).ok());
  return block;
}

struct Result {
  std::vector<float> hidden, logits;
  std::vector<int32_t> next;
  bool operator==(const Result&) const = default;
};
Result RunTiny(const plan::Plan& plan, DType dtype, int threads, int runs = 1) {
  Result result;
  auto weights = RandomWeights(plan, kSeed);
  ExecutorOptions options;
  options.threads = threads;
  auto executor = Executor::Create(plan, *std::move(weights), options);
  EXPECT_TRUE(executor.ok()) << executor.status().message();
  if (!executor.ok()) return result;
  const BatchBlock batch = Batch(plan);
  for (int i = 0; i < runs; ++i) {
    auto outputs = (*executor)->Run("step", batch.View());
    EXPECT_TRUE(outputs.ok()) << outputs.status().message();
    Result one;
    one.hidden.resize(kTokens.size() * kHidden);
    kernels::ToF32(dtype, outputs->hidden.data(), one.hidden.size(), one.hidden.data());
    one.logits.assign(outputs->logits.begin(), outputs->logits.end());
    one.next.assign(outputs->next.begin(), outputs->next.end());
    if (i > 0) {
      EXPECT_EQ(one, result) << "run " << i;
    }
    result = one;
  }
  return result;
}

class TinyModel : public testing::TestWithParam<std::tuple<DType, int>> {};
INSTANTIATE_TEST_SUITE_P(All, TinyModel,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16), testing::Values(1, 2, 3, 5, 7)),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<0>(info.param))) + "_tp" +
                                  std::to_string(std::get<1>(info.param));
                         });

// f32: rounding of sums of at most 80 products. bf16: one flipped rounding of a stored value is 2^-8 of it.
TEST_P(TinyModel, AgreesWithPlainLoops) {
  const auto [dtype, tp] = GetParam();
  const Tiny tiny(dtype, tp);
  const double bound = dtype == DType::kF32 ? 1e-5 : 1e-2;
  const Result result = RunTiny(tiny.plan, dtype, 1);
  ASSERT_EQ(result.next.size(), kWanted.size());
  ASSERT_EQ(result.logits.size(), kWanted.size() * kVocab);
  for (size_t t = 0; t < kTokens.size(); ++t)
    EXPECT_LE(RelativeError(&result.hidden[t * kHidden], PlainLoops(tiny, dtype, kTokens[t]).hidden), bound) << t;
  for (size_t n = 0; n < kWanted.size(); ++n) {
    const Expected want = PlainLoops(tiny, dtype, kTokens[kWanted[n]]);
    EXPECT_LE(RelativeError(&result.logits[n * kVocab], want.logits), bound) << n;
    // The draw is over what was computed, ties to the lowest id.
    const float* row = &result.logits[n * kVocab];
    EXPECT_EQ(result.next[n], std::max_element(row, row + kVocab) - row);
  }
}

// What is taken is what the memory statement says, to the byte.
TEST_P(TinyModel, TakesTheStatedMemory) {
  const auto [dtype, tp] = GetParam();
  const Tiny tiny(dtype, tp);
  for (int threads : {1, 3}) {
    auto executor = Executor::Create(tiny.plan, *RandomWeights(tiny.plan, kSeed), {.threads = threads});
    ASSERT_TRUE(executor.ok()) << executor.status().message();
    EXPECT_EQ((*executor)->allocated_bytes(), test::StatedBytes(tiny.plan, 0, 0, threads));
  }
}

// How many threads share the rows changes no bit, nor does running again over used arenas.
TEST_P(TinyModel, ThreadsChangeNoBit) {
  const auto [dtype, tp] = GetParam();
  const Tiny tiny(dtype, tp);
  const Result one = RunTiny(tiny.plan, dtype, 1, 3);
  for (int threads : {2, 3, 4}) EXPECT_EQ(RunTiny(tiny.plan, dtype, threads, 3), one) << threads << " threads";
}

// Without one rank's collective nothing runs; without the collective on all ranks the sum is a part of itself.
TEST(TinyModelFaults, AMissingAllReduceShows) {
  Tiny tiny(DType::kF32, 2);
  auto drop = [&](int rank) {
    std::erase_if(tiny.plan.programs[rank].steps, [&](const plan::Step& step) {
      return step.kind == plan::StepKind::kCollective && step.part == Part::kAll;
    });
  };
  const Result whole = RunTiny(tiny.plan, DType::kF32, 1);
  drop(1);
  auto refused = Executor::Create(tiny.plan, *RandomWeights(tiny.plan, kSeed), {});
  EXPECT_EQ(refused.status().message(), "program step: rank 1 has 1 collectives, rank 0 has 2");
  drop(0);
  const Result part = RunTiny(tiny.plan, DType::kF32, 1);
  EXPECT_GT(RelativeError(part.hidden.data(), {whole.hidden.begin(), whole.hidden.end()}), 0.1);
}

}  // namespace
}  // namespace qwen::exec
