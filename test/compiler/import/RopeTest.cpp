// Expected frequencies come from transformers 5.23.0 (Qwen3RotaryEmbedding, torch, f32) for a head of 32 channels, not
// from this code. They may differ in the last bit: its vectorised power is not rounded as ours.

#include "ImportTesting.h"

namespace qwen::compiler::testing {
namespace {

struct Expected {
  const char *name;
  Fields changes;
  std::vector<float> frequencies;
  double factor;
};

const std::vector<float> kPlain = {
    0x1.0000000000000p+0,  0x1.afd1360000000p-2,  0x1.6c310e0000000p-3,  0x1.33281a0000000p-4,
    0x1.030dc60000000p-5,  0x1.b4f7e40000000p-7,  0x1.7089380000000p-8,  0x1.36d21a0000000p-9,
    0x1.0624de0000000p-10, 0x1.ba2e4a0000000p-12, 0x1.74eea60000000p-13, 0x1.3a87480000000p-14,
    0x1.0945640000000p-15, 0x1.bf749e0000000p-17, 0x1.7961820000000p-18, 0x1.3e47c80000000p-19};

const Expected kCases[] = {
    {"old spelling", {{"rope_theta", "1000000.0"}, {"rope_scaling", "null"}}, kPlain, 1},
    {"new spelling",
     {{"rope_theta", ""}, {"rope_parameters", R"({"rope_theta": 1e6, "rope_type": "default"})"}},
     kPlain,
     1},
    {"rope_parameters win", {{"rope_theta", "5"}, {"rope_parameters", R"({"rope_theta": 1000000})"}}, kPlain, 1},
    {"multimodal positions of text",
     {{"rope_theta", "1000000"}, {"rope_scaling", R"({"type": "mrope", "mrope_section": [6, 5, 5]})"}},
     kPlain,
     1},
    {"yarn, old spelling",
     {{"rope_theta", "10000.0"},
      {"rope_scaling", R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128})"}},
     {0x1.0000000000000p+0, 0x1.f7db9a0000000p-2, 0x1.e5b9d00000000p-3, 0x1.c73d520000000p-4, 0x1.9999980000000p-5,
      0x1.5980a40000000p-6, 0x1.030dc60000000p-7, 0x1.235a720000000p-8, 0x1.47ae140000000p-9, 0x1.7089380000000p-10,
      0x1.9e7c700000000p-11, 0x1.d22a500000000p-12, 0x1.0624de0000000p-12, 0x1.26d42c0000000p-13, 0x1.4b96c00000000p-14,
      0x1.74eea60000000p-15},
     1.138629436111989},
    {"yarn, every parameter",
     {{"max_position_embeddings", "131072"},
      {"rope_parameters", R"({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "beta_fast": 16, "beta_slow": 2,
                              "original_max_position_embeddings": 32768, "truncate": false, "mscale": 1.0,
                              "mscale_all_dim": 0.5})"}},
     {0x1.0000000000000p+0, 0x1.afd1360000000p-2, 0x1.6c310e0000000p-3, 0x1.33281a0000000p-4, 0x1.030dc60000000p-5,
      0x1.b4f7e40000000p-7, 0x1.7089380000000p-8, 0x1.19f2e20000000p-9, 0x1.384ed00000000p-11, 0x1.f6c2140000000p-14,
      0x1.74eea60000000p-15, 0x1.3a87480000000p-16, 0x1.0945640000000p-17, 0x1.bf749e0000000p-19, 0x1.7961820000000p-20,
      0x1.3e47c80000000p-21},
     1.0648216253695715},
    {"yarn, a factor of its own",
     {{"max_position_embeddings", "131072"},
      {"rope_parameters", R"({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "attention_factor": 1.25,
                              "original_max_position_embeddings": 32768})"}},
     {0x1.0000000000000p+0, 0x1.afd1360000000p-2, 0x1.6c310e0000000p-3, 0x1.33281a0000000p-4, 0x1.030dc60000000p-5,
      0x1.b4f7e40000000p-7, 0x1.3941700000000p-8, 0x1.b326240000000p-10, 0x1.205bc00000000p-11, 0x1.61bea00000000p-13,
      0x1.74eea60000000p-15, 0x1.3a87480000000p-16, 0x1.0945640000000p-17, 0x1.bf749e0000000p-19, 0x1.7961820000000p-20,
      0x1.3e47c80000000p-21},
     1.25},
};

ir::model::RopeOp firstRope(Imported &imported) {
  ir::model::RopeOp found;
  imported.op().walk([&](ir::model::RopeOp op) {
    if (!found)
      found = op;
  });
  return found;
}

TEST(Rope, FrequenciesAreThoseOfTransformers) {
  Folder folder;
  for (const Expected &expected : kCases) {
    Imported imported(folder.write("config.json", render(with(with(dense(), {{"head_dim", "32"}}), expected.changes))));
    ASSERT_TRUE(imported.module.ok()) << expected.name << ": " << imported.module.status().message();
    ir::model::RopeOp op = firstRope(imported);
    EXPECT_NEAR(op.getAttentionFactor().convertToDouble(), expected.factor, 1e-14) << expected.name;
    ASSERT_EQ(op.getInvFreq().size(), expected.frequencies.size()) << expected.name;
    for (size_t j = 0; j < expected.frequencies.size(); ++j)
      EXPECT_NEAR(op.getInvFreq()[j] / expected.frequencies[j], 1.0, 1.2e-7) << expected.name << ", frequency " << j;
  }
}

TEST(Rope, TheFamilySaysHowMuchOfAHeadTurns) {
  Folder folder;
  Imported full(folder.write("config.json", render(dense())));
  EXPECT_EQ(firstRope(full).getInvFreq().size(), 8u); // 16 of 16 channels
  Imported quarter(folder.write("config.json", render(hybrid())));
  EXPECT_EQ(firstRope(quarter).getInvFreq().size(), 2u); // 4 of 16
  Imported half(folder.write("config.json", render(with(hybrid(), {{"partial_rotary_factor", "0.5"}}))));
  EXPECT_EQ(firstRope(half).getInvFreq().size(), 4u);
  Imported inner(folder.write(
      "config.json",
      render(with(hybrid(), {{"partial_rotary_factor", "0.5"}, {"rope_parameters", R"({"partial_rotary_factor": 1.0,
                                                                     "rope_theta": 10000})"}}))));
  EXPECT_EQ(firstRope(inner).getInvFreq().size(), 8u);
}

} // namespace
} // namespace qwen::compiler::testing
