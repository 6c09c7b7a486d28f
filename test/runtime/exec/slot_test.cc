// Saved and loaded recurrent slots, through the real kernels: one delta-rule layer fed straight from tables.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "runtime/exec/executor.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/all_reduce/all_reduce.h"
#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/formats/convert.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/spec_fields.h"
#include "runtime/plan/layout.h"
#include "test/runtime/exec/plan_builder.h"

namespace qwen::exec {
namespace {

using plan::Layout, plan::Part, plan::Range;
using test::AddKernel, test::ProgramBuilder;

constexpr int kKeyHeads = 2, kValueHeads = 6, kKeyDim = 16, kValueDim = 8, kWidth = 4, kVocab = 50, kMaxRows = 3;
constexpr int kRatio = kValueHeads / kKeyHeads, kKeys = kKeyHeads * kKeyDim, kValues = kValueHeads * kValueDim;
constexpr int kChannels = 2 * kKeys + kValues;

// Key heads go round the ranks; with three ranks the last has none.
plan::Plan MakePlan(DType dtype, int tp) {
  plan::Plan plan;
  plan.targets = {"cpu"};
  plan.tp = tp;
  plan.capacity = {.max_num_seqs = 4, .max_num_batched_tokens = 32, .max_rows = kMaxRows, .max_logit_rows = 32};
  auto weight = [&](const char* name, DType type, std::vector<int64_t> shape) {
    plan::Weight w{};
    w.name = name, w.dtype = type, w.shape = std::move(shape);
    plan.weights.push_back(std::move(w));
  };
  weight("table.qkv", dtype, {kVocab, kChannels});
  weight("table.b", DType::kF32, {kVocab, kValueHeads});
  weight("table.a", DType::kF32, {kVocab, kValueHeads});
  weight("layers.0.gdn.conv", DType::kF32, {kChannels, kWidth});
  weight("layers.0.gdn.a_log", DType::kF32, {kValueHeads});
  weight("layers.0.gdn.dt_bias", DType::kF32, {kValueHeads});

  kernels::AllGatherSpec gather{.ranks = tp, .counts = {}};
  auto heads = [&](int rank) {
    return Range{std::min(kKeyHeads, (kKeyHeads + tp - 1) / tp * rank),
                 std::min(kKeyHeads, (kKeyHeads + tp - 1) / tp * (rank + 1))};
  };
  for (int r = 0; r < tp; ++r) gather.counts[r] = static_cast<int>(heads(r).end - heads(r).begin) * kRatio * kValueDim;

  for (int rank = 0; rank < tp; ++rank) {
    const Range keys = heads(rank), values = {keys.begin * kRatio, keys.end * kRatio};
    const int key_heads = static_cast<int>(keys.end - keys.begin), value_heads = key_heads * kRatio;
    const int channels = 2 * key_heads * kKeyDim + value_heads * kValueDim;
    const std::vector<Range> channel_slices = {
        {keys.begin * kKeyDim, keys.end * kKeyDim},
        {kKeys + keys.begin * kKeyDim, kKeys + keys.end * kKeyDim},
        {2 * kKeys + values.begin * kValueDim, 2 * kKeys + values.end * kValueDim}};
    plan::State state{};
    state.max_rows = kMaxRows;
    state.delta_layers.push_back({.name = "layers.0.gdn",
                                  .offset = 0,
                                  .key_heads = key_heads,
                                  .value_heads = value_heads,
                                  .key_dim = kKeyDim,
                                  .value_dim = kValueDim,
                                  .width = kWidth,
                                  .dtype = dtype});
    plan::LayOutState(&state);
    plan.states.push_back(state);

    ProgramBuilder b(&plan, "verify", rank);
    auto packed = [&](int32_t index, Layout layout, std::vector<std::vector<Range>> slices) {
      plan::Packed p{};
      p.weight = index, p.rank = rank, p.layout = layout, p.slices = std::move(slices);
      p.bytes = plan::PackedBytes(plan.weights[index], p)->bytes;
      plan.packed.push_back(p);
      return b.Weight(static_cast<int32_t>(plan.packed.size()) - 1);
    };
    auto table = [&](int32_t weight, int columns, std::vector<Range> slices, DType type, int32_t to) {
      kernels::EmbedSpec spec{.hidden = columns, .vocab = kVocab, .w_type = type, .y_type = type, .tiled = 0};
      b.Launch(AddKernel(&plan, "embed_rows", "embed", kernels::ToFields(spec)),
               {packed(weight, Layout::kRows, {{}, std::move(slices)}), to}, Part::kAll, /*waits=*/false);
    };
    const int32_t qkv = b.Arena("qkv", dtype, channels), beta = b.Arena("b", DType::kF32, value_heads);
    const int32_t alpha = b.Arena("a", DType::kF32, value_heads);
    const int32_t o = b.Output("final_hidden", dtype, value_heads * kValueDim);
    table(0, channels, channel_slices, dtype, qkv);
    table(1, value_heads, {values}, DType::kF32, beta);
    table(2, value_heads, {values}, DType::kF32, alpha);

    kernels::GdnSpec gdn{.key_heads = key_heads,
                         .value_heads = value_heads,
                         .key_dim = kKeyDim,
                         .value_dim = kValueDim,
                         .width = kWidth,
                         .l2_eps = 1e-6f,
                         .q_scale = 0.25f,
                         .x_type = dtype,
                         .ba_type = DType::kF32};
    const plan::State& laid = plan.states.back();
    const std::vector<int32_t> args = {qkv,
                                       beta,
                                       alpha,
                                       packed(3, Layout::kVector, {channel_slices, {}}),
                                       packed(4, Layout::kVector, {{values}}),
                                       packed(5, Layout::kVector, {{values}}),
                                       b.Cache("layers.0.gdn", laid.delta_layers[0].offset, laid.slot_bytes),
                                       o};
    b.Launch(AddKernel(&plan, "gdn_decode", "gdn", kernels::ToFields(gdn)), args, Part::kShort, /*waits=*/true);
    b.Launch(AddKernel(&plan, "gdn_scan", "gdn", kernels::ToFields(gdn)), args, Part::kLong, /*waits=*/false);
    if (dtype == DType::kF32)
      b.Collective(AddKernel(&plan, "all_gather", "all_reduce", kernels::ToFields(gather)),
                   {o, b.Output("logits", DType::kF32, kValues)}, Part::kLogitRows);
    b.Finish();
  }
  return plan;
}

/// The engine's part: where a sequence stands.
struct Sequence {
  int slot = 0, position = 0, ring_fill = 0;
};

class SlotTest : public testing::TestWithParam<std::tuple<DType, int>> {
 protected:
  void SetUp() override {
    const auto [dtype, tp] = GetParam();
    plan_ = MakePlan(dtype, tp);
    ExecutorOptions options;
    options.threads = 2, options.num_slots = kSlots;
    auto executor = Executor::Create(plan_, *RandomWeights(plan_, 5), options);
    ASSERT_TRUE(executor.ok()) << executor.status().message();
    executor_ = *std::move(executor);
  }

  /// Runs `tokens` as one short or long sequence, keeps `commit` of them, returns the rows' outputs as they are.
  std::vector<uint8_t> Append(Sequence* sequence, std::span<const int32_t> tokens, bool is_long, int commit) {
    const int count = static_cast<int>(tokens.size());
    BatchBlock block(plan_.capacity, 1);
    std::vector<int32_t> all(count);
    for (int i = 0; i < count; ++i) all[i] = i;
    std::vector<kernels::SampleParams> sample(count);
    SequenceRows rows;
    rows.tokens = tokens, rows.logit_rows = all, rows.sample = sample;
    rows.position = sequence->position, rows.state_slot = sequence->slot, rows.ring_fill = sequence->ring_fill;
    rows.fold = is_long || sequence->ring_fill + count > plan_.states[0].fold_rows;
    Status added = is_long ? block.AddLong(rows) : block.AddShort(rows);
    EXPECT_TRUE(added.ok()) << added.message();
    auto outputs = executor_->Run("verify", block.View());
    EXPECT_TRUE(outputs.ok()) << outputs.status().message();
    sequence->position += commit;
    sequence->ring_fill = is_long ? 0 : (rows.fold ? 0 : sequence->ring_fill) + commit;
    std::vector<uint8_t> bytes(outputs->hidden.begin(), outputs->hidden.end());
    const uint8_t* gathered = reinterpret_cast<const uint8_t*>(outputs->logits.data());
    bytes.insert(bytes.end(), gathered, gathered + outputs->logits.size_bytes());
    return bytes;
  }

  std::vector<uint8_t> Save(const Sequence& sequence) {
    std::vector<uint8_t> saved(executor_->slot_copy_bytes());
    executor_->SaveSlot(sequence.slot, sequence.position, sequence.ring_fill, saved);
    return saved;
  }
  bool AllFinite(const std::vector<uint8_t>& outputs) const {
    const DType dtype = std::get<0>(GetParam());
    std::vector<float> values(outputs.size() / DTypeBytes(dtype));
    kernels::ToF32(dtype, outputs.data(), static_cast<int64_t>(values.size()), values.data());
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  }
  // What another sequence may have left: every part that could be read by mistake is NaN.
  void Spoil(int slot) {
    std::vector<uint8_t> bytes(executor_->slot_copy_bytes(), 0xff);
    for (int position = 4; position < 4 + 6; ++position) executor_->LoadSlot(slot, position, bytes);
  }

  static constexpr int kSlots = 4;
  plan::Plan plan_;
  std::unique_ptr<Executor> executor_;
};
INSTANTIATE_TEST_SUITE_P(All, SlotTest,
                         testing::Values(std::tuple(DType::kF32, 1), std::tuple(DType::kF32, 2),
                                         std::tuple(DType::kF32, 3), std::tuple(DType::kBF16, 1)),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<0>(info.param))) + "_tp" +
                                  std::to_string(std::get<1>(info.param));
                         });

// With the workspace of the folds that snapshots make.
TEST_P(SlotTest, TakesTheStatedMemory) {
  EXPECT_EQ(executor_->allocated_bytes(), test::StatedBytes(plan_, 0, kSlots, 2));
}

// Three sequences see the same rows: one is never touched, one is saved at every step, one is the other's saved state,
// loaded into a used slot at every step. All three have the same bits, also across dropped rows, folds and chunks.
TEST_P(SlotTest, LoadedSlotsContinueBitForBit) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    std::mt19937 random(seed);
    auto below = [&random](int n) { return static_cast<int>(random() % n); };
    Sequence plain{.slot = 0}, saved{.slot = 1}, restored{.slot = 2};
    for (int slot = 0; slot < 3; ++slot) Spoil(slot);
    for (int step = 0; step < 15; ++step) {
      const bool is_long = below(5) == 0;
      std::vector<int32_t> tokens(is_long ? 2 + below(20) : 1 + below(kMaxRows));
      for (int32_t& token : tokens) token = below(kVocab);
      const int commit = is_long ? static_cast<int>(tokens.size()) : below(static_cast<int>(tokens.size()) + 1);

      const std::vector<uint8_t> snapshot = Save(saved);
      Spoil(restored.slot);
      restored.position = saved.position, restored.ring_fill = 0;
      executor_->LoadSlot(restored.slot, restored.position, snapshot);

      const std::vector<uint8_t> want = Append(&plain, tokens, is_long, commit);
      ASSERT_TRUE(AllFinite(want));
      ASSERT_EQ(Append(&saved, tokens, is_long, commit), want)
          << "seed " << seed << ", step " << step << ": saving disturbed it";
      ASSERT_EQ(Append(&restored, tokens, is_long, commit), want) << "seed " << seed << ", step " << step;
      ASSERT_EQ(Save(saved), Save(restored)) << "seed " << seed << ", step " << step;
    }
  }
}

// The conv rows are the last three positions' inputs, oldest first; before the start they are zero.
TEST_P(SlotTest, ConvRowsAreTheLastPositions) {
  if (plan_.tp != 1) return;  // with more ranks the rows are cut; the bits above cover them
  const DType dtype = std::get<0>(GetParam());
  const size_t row_bytes = kChannels * DTypeBytes(dtype), base_bytes = 4 * kValues * kKeyDim;
  ASSERT_EQ(executor_->slot_copy_bytes(), static_cast<int64_t>(base_bytes + 3 * row_bytes));
  auto weights = RandomWeights(plan_, 5);
  Sequence sequence{.slot = 3};
  Spoil(sequence.slot);
  EXPECT_EQ(Save(sequence), std::vector<uint8_t>(base_bytes + 3 * row_bytes, 0));
  std::vector<int32_t> seen;
  for (int32_t token : {9, 3, 49, 0, 7, 12, 30, 1, 1, 5}) {
    Append(&sequence, {&token, 1}, false, 1);
    seen.push_back(token);
    const std::vector<uint8_t> snapshot = Save(sequence);
    for (int i = 0; i < 3; ++i) {
      const int position = sequence.position - 3 + i;
      std::vector<uint8_t> want(row_bytes, 0);
      if (position >= 0) std::memcpy(want.data(), weights->packed[0].get() + seen[position] * row_bytes, row_bytes);
      const uint8_t* at = snapshot.data() + base_bytes + i * row_bytes;
      EXPECT_EQ(std::vector<uint8_t>(at, at + row_bytes), want) << "position " << position;
    }
  }
}

}  // namespace
}  // namespace qwen::exec
