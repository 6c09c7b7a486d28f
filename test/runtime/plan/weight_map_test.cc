// The plan's weight map against checkpoints that fit, nearly fit and do not.
#include "runtime/plan/weight_map.h"

#include <gtest/gtest.h>

#include "test/runtime/plan/test_plan.h"

namespace qwen::plan {
namespace {

/// A checkpoint without files: headers are all that is asked.
class FakeCheckpoint {
 public:
  explicit FakeCheckpoint(std::string dir = "dir") {
    checkpoint.dir = std::move(dir);
    checkpoint.files = {"model.safetensors"};
    checkpoint.digest = 7;
  }
  FakeCheckpoint& Add(const std::string& name, std::vector<int64_t> shape, const std::string& dtype = "BF16") {
    TensorInfo info{.name = name, .dtype = dtype, .shape = std::move(shape), .begin = next_, .end = next_ + 10};
    next_ += 10;
    checkpoint.tensors[name] = {0, std::move(info)};
    return *this;
  }
  FakeCheckpoint& Drop(const std::string& name) {
    EXPECT_EQ(checkpoint.tensors.erase(name), 1u) << name;
    return *this;
  }
  Checkpoint checkpoint;

 private:
  int64_t next_ = 100;
};

/// Everything that the test plan names, under a prefix.
FakeCheckpoint Whole(const std::string& prefix = "model.", bool fused = true, bool mtp = true) {
  FakeCheckpoint c;
  c.Add(prefix + "embed_tokens.weight", {80, 32}).Add(prefix + "norm.weight", {32}, "F32");
  c.Add(prefix + "layers.0.linear_attn.in_proj_qkv.weight", {96, 32});
  if (fused) c.Add(prefix + "layers.0.mlp.experts.gate_up_proj", {2, 32, 32});
  for (int e = 0; e < 2 && !fused; ++e)
    for (const char* part : {"gate", "up"})
      c.Add(prefix + "layers.0.mlp.experts." + std::to_string(e) + "." + part + "_proj.weight", {16, 32});
  if (mtp) c.Add("mtp.fc.weight", {32, 64});
  return c;
}

TEST(WeightMap, Names) {
  EXPECT_EQ(TensorName("{P}layers.3.experts.{e}.up", "model.", 12), "model.layers.3.experts.12.up");
  EXPECT_EQ(TensorName("mtp.fc", "model.", 0), "mtp.fc");
}

TEST(WeightMap, FindsEverything) {
  const Plan plan = MakeTestPlan();
  for (const char* prefix : {"model.", "model.language_model."}) {
    FakeCheckpoint c = Whole(prefix);
    c.Add("model.visual.blocks.0.weight", {3}).Add("lm_head.weight", {80, 32});  // tied: ignored
    StatusOr<WeightMap> map = ResolveWeights(plan, c.checkpoint);
    ASSERT_TRUE(map.ok()) << map.status().message();
    EXPECT_EQ(map->prefix, prefix);
    EXPECT_TRUE(map->has_mtp);
    EXPECT_TRUE(map->warnings.empty());
    EXPECT_EQ(map->ignored_tensors, 2);
    EXPECT_EQ(map->files, std::vector<std::string>{"dir/model.safetensors"});
    for (const ResolvedWeight& weight : map->weights) EXPECT_TRUE(weight.present);
    // The alias has its target's bytes.
    EXPECT_EQ(map->weights[1].weight, 0);
    EXPECT_EQ(map->weights[1].pieces[0].sources[0].begin, map->weights[0].pieces[0].sources[0].begin);
    EXPECT_EQ(map->PieceOf(plan, 1, map->weights[1].pieces[0]).tensor, "{P}embed_tokens.weight");
    EXPECT_EQ(map->weights[0].pieces[0].dtype, DType::kBF16);
    EXPECT_EQ(map->weights[2].pieces[0].dtype, DType::kF32);
  }
}

TEST(WeightMap, TakesTheFirstPrefixOfThePlan) {
  FakeCheckpoint c = Whole("model.language_model.");
  c.Add("model.embed_tokens.weight", {1});
  EXPECT_EQ(ResolveWeights(MakeTestPlan(), c.checkpoint)->prefix, "model.language_model.");
}

TEST(WeightMap, FusedOrAnExpertEach) {
  const Plan plan = MakeTestPlan();
  FakeCheckpoint fused = Whole("model.", true), apart = Whole("model.", false);
  StatusOr<WeightMap> a = ResolveWeights(plan, fused.checkpoint), b = ResolveWeights(plan, apart.checkpoint);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->weights[4].alternative, 0);
  EXPECT_EQ(b->weights[4].alternative, 1);
  ASSERT_EQ(b->weights[4].pieces.size(), 2u);
  const ResolvedPiece& up = b->weights[4].pieces[1];
  ASSERT_EQ(up.sources.size(), 2u);
  EXPECT_EQ(up.sources[1].begin, apart.checkpoint.Find("model.layers.0.mlp.experts.1.up_proj.weight")->info.begin);
  EXPECT_EQ(b->PieceOf(plan, 4, up).dst_row, 16);
  // Both there: the first is taken, the other is ignored.
  for (int e = 0; e < 2; ++e)
    for (const char* part : {"gate", "up"})
      fused.Add("model.layers.0.mlp.experts." + std::to_string(e) + "." + part + "_proj.weight", {16, 32});
  a = ResolveWeights(plan, fused.checkpoint);
  EXPECT_EQ(a->weights[4].alternative, 0);
  EXPECT_EQ(a->ignored_tensors, 4);
}

TEST(WeightMap, HalfPresentNamesTheMissingTensor) {
  FakeCheckpoint c = Whole("model.", false).Drop("model.layers.0.mlp.experts.1.up_proj.weight");
  const Status status = ResolveWeights(MakeTestPlan(), c.checkpoint).status();
  EXPECT_EQ(status.ExitCode(), 3);
  EXPECT_EQ(status.message(),
            "dir: of the plan's tensors 1 is missing, 0 of another type or shape:\n"
            "model.layers.0.mlp.experts.{e}.up_proj.weight: missing for e = 1");
}

TEST(WeightMap, ListsAllThatIsWrong) {
  FakeCheckpoint c = Whole();
  c.Drop("model.norm.weight").Drop("model.layers.0.mlp.experts.gate_up_proj");
  c.Add("model.layers.0.linear_attn.in_proj_qkv.weight", {96, 31}, "F16");
  const Status status = ResolveWeights(MakeTestPlan(), c.checkpoint).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(status.message(),
            "dir: of the plan's tensors 2 are missing, 1 of another type or shape:\n"
            "model.norm.weight: missing\n"
            "model.layers.0.mlp.experts.gate_up_proj: missing\n"
            "model.layers.0.linear_attn.in_proj_qkv.weight: is F16 [96, 31], want BF16 or F32 [96, 32]");
  EXPECT_FALSE(status.hint().empty());
}

TEST(WeightMap, MissingExpertsAreRuns) {
  Plan plan = MakeTestPlan();
  plan.weights[4].alternatives.erase(plan.weights[4].alternatives.begin());
  for (Piece& piece : plan.weights[4].alternatives[0].pieces) piece.e_count = 12;
  FakeCheckpoint c = Whole("model.", false);
  for (int e : {4, 9}) c.Add("model.layers.0.mlp.experts." + std::to_string(e) + ".gate_proj.weight", {16, 32});
  const std::string message = ResolveWeights(plan, c.checkpoint).status().message();
  EXPECT_NE(message.find("gate_proj.weight: missing for e = 2-3, 5-8, 10-11\n"), std::string::npos) << message;
  EXPECT_NE(message.find("up_proj.weight: missing for e = 2-11"), std::string::npos) << message;
}

TEST(WeightMap, ExpertsMustAgreeOnTheirType) {
  FakeCheckpoint c = Whole("model.", false);
  c.Add("model.layers.0.mlp.experts.1.gate_proj.weight", {16, 32}, "F32");
  const std::string message = ResolveWeights(MakeTestPlan(), c.checkpoint).status().message();
  EXPECT_NE(
      message.find("experts.1.gate_proj.weight: is F32, but model.layers.0.mlp.experts.0.gate_proj.weight is BF16"),
      std::string::npos)
      << message;
}

TEST(WeightMap, WithoutMtpGroupItsProgramIsOff) {
  FakeCheckpoint c = Whole("model.", true, /*mtp=*/false);
  StatusOr<WeightMap> map = ResolveWeights(MakeTestPlan(), c.checkpoint);
  ASSERT_TRUE(map.ok()) << map.status().message();
  EXPECT_FALSE(map->has_mtp);
  EXPECT_FALSE(map->weights[5].present);
  EXPECT_EQ(map->warnings,
            std::vector<std::string>{"dir: has none of the MTP head's tensors; the plan's draft_mtp is off"});
}

TEST(WeightMap, HalfAnMtpGroupIsAnError) {
  Plan plan = MakeTestPlan();
  plan.weights.push_back(plan.weights[5]);
  plan.weights[6].name = "mtp.norm";
  plan.weights[6].alternatives[0].pieces[0].tensor = "mtp.norm.weight";
  const std::string message = ResolveWeights(plan, Whole().checkpoint).status().message();
  EXPECT_NE(message.find("\nmtp.norm.weight: missing"), std::string::npos) << message;
}

TEST(WeightMap, OtherModelHasNoPrefix) {
  FakeCheckpoint c;
  c.Add("transformer.wte.weight", {80, 32});
  const Status status = ResolveWeights(MakeTestPlan(), c.checkpoint).status();
  EXPECT_EQ(status.ExitCode(), 3);
  EXPECT_EQ(
      status.message(),
      "dir: has 1 tensors, but none is named model.language_model.embed_tokens.weight or model.embed_tokens.weight");
}

TEST(WeightMap, DrafterHasAFolderOfItsOwn) {
  Plan plan = MakeTestPlan();
  plan.weights[5].group = Group::kDraft;
  plan.weights[5].alternatives[0].pieces[0].tensor = "fc.weight";
  FakeCheckpoint target = Whole("model.", true, /*mtp=*/false), drafter("drafter");
  drafter.Add("fc.weight", {32, 64}).Add("other.weight", {1});
  StatusOr<WeightMap> map = ResolveWeights(plan, target.checkpoint, &drafter.checkpoint);
  ASSERT_TRUE(map.ok()) << map.status().message();
  EXPECT_TRUE(map->has_draft);
  EXPECT_EQ(map->files, (std::vector<std::string>{"dir/model.safetensors", "drafter/model.safetensors"}));
  EXPECT_EQ(map->weights[5].pieces[0].sources[0].file, 1);
  EXPECT_EQ(map->ignored_tensors, 1);
  map = ResolveWeights(plan, target.checkpoint);
  ASSERT_TRUE(map.ok());
  EXPECT_FALSE(map->has_draft);
  EXPECT_EQ(map->warnings.size(), 1u);
}

// Two weights may be parts of one tensor (interleaved projections): both find it, and it is listed once.
TEST(WeightMap, SharedTensors) {
  Plan plan = MakeTestPlan();
  plan.weights.push_back(plan.weights[3]);
  plan.weights.back().name = "layers.0.gdn.z";
  FakeCheckpoint c = Whole();
  ASSERT_TRUE(ResolveWeights(plan, c.checkpoint).ok());
  c.Drop("model.layers.0.linear_attn.in_proj_qkv.weight");
  EXPECT_EQ(ResolveWeights(plan, c.checkpoint).status().message(),
            "dir: of the plan's tensors 1 is missing, 0 of another type or shape:\n"
            "model.layers.0.linear_attn.in_proj_qkv.weight: missing");
}

}  // namespace
}  // namespace qwen::plan
