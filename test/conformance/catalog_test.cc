// The catalogue: names, Specs there and back, refusals with both numbers, figures that follow from shapes.
#include "runtime/kernels/catalog.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "runtime/kernels/attention/attention.h"
#include "runtime/kernels/elementwise/elementwise.h"
#include "runtime/kernels/experts/experts.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/kernels/linear/linear.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/router/router.h"
#include "runtime/kernels/spec_fields.h"

namespace qwen::kernels {
namespace {

TEST(Catalog, EveryKernelHasABodyForEveryIsaThatRuns) {
  std::set<std::string_view> entries, families;
  for (const KernelInfo& info : Catalog()) {
    EXPECT_TRUE(entries.insert(info.entry).second) << info.entry;
    families.insert(info.family);
    EXPECT_EQ(FindKernel(info.entry), &info);
    for (Isa isa : kAllIsas) EXPECT_NE(FindBody(info.entry, isa), nullptr) << info.entry;
  }
  EXPECT_EQ(families, (std::set<std::string_view>{"embed", "rms_norm", "linear", "gdn", "attention", "router",
                                                  "experts", "lm_head", "all_reduce", "elementwise"}));
  EXPECT_EQ(FindKernel("no_such"), nullptr);
  EXPECT_EQ(FindBody("no_such", Isa::kBase), nullptr);
  EXPECT_TRUE(IsaSupported(Isa::kBase));
  EXPECT_TRUE(IsaSupported(DetectIsa()));
}

LinearSpec Projection() {
  LinearSpec s{};
  s.k = 40, s.outputs = 2, s.n[0] = 96, s.n[1] = 24;
  return s;
}
GdnSpec DeltaRule() { return {2, 4, 8, 8, 4, 1e-6f, 0.35f, DType::kF32, DType::kF32}; }
AttentionSpec Heads() {
  AttentionSpec s{};
  s.q_heads = 2, s.kv_heads = 1, s.head_dim = 8, s.freqs = 4, s.attention_factor = 1, s.scale = 1,
  s.append = s.attend = 1;
  return s;
}

std::string Refusal(std::string_view entry, const plan::Fields& fields) {
  auto spec = FindKernel(entry)->decode(fields);
  return spec.ok() ? "" : spec.status().message();
}

TEST(Catalog, SpecsComeBackFromTheirFields) {
  LinearSpec linear = Projection();
  linear.residual = 0, linear.prologue = kPrologueRmsNorm, linear.eps = 1e-5f, linear.y_type[1] = DType::kBF16;
  auto spec = FindKernel("linear")->decode(ToFields(linear));
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const auto& back = *static_cast<const LinearSpec*>(spec->get());
  EXPECT_EQ(ToFields(back), ToFields(linear));
  EXPECT_EQ(back.eps, 1e-5f);
  EXPECT_EQ(FindKernel("linear")->num_args(spec->get()), 4 + 2 + 2);
}

TEST(Catalog, RefusalsNameTheFieldAndBothNumbers) {
  LinearSpec linear = Projection();
  linear.silu_mul = 1;
  EXPECT_EQ(Refusal("linear", ToFields(linear)), "silu_mul joins 2 outputs of 96 and 24 channels, want 2 of one width");
  linear = Projection(), linear.residual = 1;
  EXPECT_EQ(Refusal("linear", ToFields(linear)), "a residual is added to 2 results, want 1");
  linear = Projection(), linear.prologue = 7;
  EXPECT_EQ(Refusal("linear", ToFields(linear)), "field prologue is 7, want 0 to 2");
  linear = Projection(), linear.prologue = kPrologueGatedRmsNorm, linear.head_dim = 16, linear.eps = 1e-6f;
  EXPECT_EQ(Refusal("linear", ToFields(linear)), "field k is 40, not a multiple of head_dim (16)");
  linear = Projection(), linear.w_type = DType::kF16;
  EXPECT_EQ(Refusal("linear", ToFields(linear)), "field w_type is f16, cpu kernels take f32 and bf16");
  plan::Fields many = ToFields(Projection());
  for (plan::Field& field : many) {
    if (field.name == "outputs") field.ints = {kMaxLinearOutputs + 1};
    if (field.name == "n") field.ints.assign(kMaxLinearOutputs + 1, 16);
  }
  EXPECT_EQ(Refusal("linear", many),
            fmt::format("field n has {} entries, at most {}", kMaxLinearOutputs + 1, kMaxLinearOutputs));

  GdnSpec gdn = DeltaRule();
  gdn.value_heads = 5;
  EXPECT_EQ(Refusal("gdn_scan", ToFields(gdn)), "field value_heads is 5, not a multiple of key_heads (2)");
  gdn = DeltaRule(), gdn.width = 5;
  EXPECT_EQ(Refusal("gdn_decode", ToFields(gdn)), "field width is 5, gdn kernels take at most 4");
  EXPECT_EQ(FindKernel("gdn_decode")->decode(ToFields(gdn)).status().code(), StatusCode::kUnimplemented);

  AttentionSpec attention = Heads();
  attention.kv_map[1] = 1;
  EXPECT_EQ(Refusal("attn_decode", ToFields(attention)), "query head 1 reads KV head 1, the cache has 1");
  attention = Heads(), attention.freqs = 5;
  EXPECT_EQ(Refusal("attn_prefill", ToFields(attention)), "field freqs is 5, want at most half of head_dim (8)");
  plan::Fields heads = ToFields(Heads());
  for (plan::Field& field : heads) {
    if (field.name == "q_heads") field.ints = {300};
    if (field.name == "kv_map") field.ints.assign(300, 0);
  }
  EXPECT_EQ(Refusal("attn_decode", heads), "field kv_map has 300 entries, at most 256");

  EXPECT_EQ(Refusal("router", ToFields(RouterSpec{40, 7, 8, 1, 0, 0, 0, DType::kF32, DType::kF32})),
            "field top_k is 8, want 1 to 7");
  EXPECT_EQ(Refusal("add_rms_norm", ToFields(RmsNormSpec{40, 0, 0, 0, DType::kF32})),
            "field eps is 0, want more than 0");

  ElementwiseSpec op{};
  op.op = 99, op.inputs = op.outputs = 1;
  EXPECT_EQ(Refusal("elementwise", ToFields(op)), "field op is 99, want 0 to 8");
  op = {}, op.inputs = 2, op.outputs = 1, op.in_channels[0] = 8, op.in_channels[1] = 7, op.out_channels[0] = 8;
  EXPECT_EQ(Refusal("elementwise", ToFields(op)), "an input has 7 channels, the output 8");
}

TEST(Catalog, FiguresFollowFromShapes) {
  // A decoded row of linear reads its weights; a batch reads them once.
  auto linear = FindKernel("linear")->decode(ToFields(Projection()));
  const KernelInfo* info = FindKernel("linear");
  EXPECT_EQ(info->work(linear->get(), 1, 0).bytes, 120 * 40 * 4 + (40 + 120) * 4);
  EXPECT_EQ(info->work(linear->get(), 10, 0).bytes, 120 * 40 * 4 + 10 * (40 + 120) * 4);
  EXPECT_EQ(info->work(linear->get(), 10, 0).flops, 2 * 10 * 120 * 40);
  EXPECT_EQ(info->workspace(linear->get(), 2048).scratch, 0) << "f32 rows are read where they are";
  // Attention reads the visible keys and values.
  auto attention = FindKernel("attn_decode")->decode(ToFields(Heads()));
  const double near = FindKernel("attn_decode")->work(attention->get(), 1, 1000).bytes;
  EXPECT_EQ(FindKernel("attn_decode")->work(attention->get(), 1, 2000).bytes - near, 1000 * 2 * 8 * 4);
  // One token reads its own experts, many read all.
  ExpertsSpec experts{.hidden = 64, .experts = 16, .top_k = 2, .inter = 32};
  auto moe = FindKernel("experts_down")->decode(ToFields(experts));
  const double one = FindKernel("experts_down")->work(moe->get(), 1, 0).bytes;
  EXPECT_EQ(one, 2 * 64 * 32 * 4 + 64 * 4 + 4 * 2 * 32);
  EXPECT_EQ(FindKernel("experts_down")->workspace(moe->get(), 10).temp, 4 * 10 * 2 * 32);
}

}  // namespace
}  // namespace qwen::kernels
