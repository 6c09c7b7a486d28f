// Pack files: what is written is what loading gives, wherever it lies; and whose file it is.
#include "runtime/exec/pack.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "runtime/plan/layout.h"
#include "test/runtime/exec/test_checkpoint.h"
#include "test/runtime/plan/test_plan.h"

namespace qwen::exec {
namespace {

using test::TempFolder, test::WriteTestCheckpoint;

// --- Places ----------------------------------------------------------------------------------------------------------

plan::Plan PlanOfSizes(const std::vector<int64_t>& sizes) {
  plan::Plan plan;
  for (int64_t bytes : sizes) {
    plan.weights.push_back({.name = "w" + std::to_string(plan.weights.size()), .shape = {bytes / 4}});
    plan.packed.push_back({.weight = static_cast<int32_t>(plan.packed.size()), .bytes = bytes, .net_bytes = bytes});
  }
  return plan;
}

TEST(PlaceBlobs, SmallOnesFirstLargeOnesInHugePages) {
  const plan::Plan plan = PlanOfSizes({4, kHugePage, 100, kHugePage + 4, kHugePage - 4, 0, 8});
  auto places = PlaceBlobs(plan, {}, 192);
  ASSERT_TRUE(places.ok());
  std::vector<std::pair<int32_t, int64_t>> at;
  for (const BlobPlaces::Blob& blob : places->blobs) at.emplace_back(blob.packed, blob.offset);
  EXPECT_EQ(at, (std::vector<std::pair<int32_t, int64_t>>{{0, 192},
                                                          {2, 256},
                                                          {4, 384},
                                                          {5, 384 + kHugePage},
                                                          {6, 384 + kHugePage},
                                                          {1, 2 * kHugePage},
                                                          {3, 3 * kHugePage}}));
  EXPECT_EQ(places->end, 4 * kHugePage + 4);
  EXPECT_EQ(places->blob_of, (std::vector<int32_t>{0, 5, 1, 6, 2, 3, 4}));
  EXPECT_EQ(PlaceBlobs(PlanOfSizes({}), {}, 64)->end, 64);
}

TEST(PlaceBlobs, AbsentGroupsHaveNone) {
  plan::Plan plan = PlanOfSizes({64, 64, 64});
  plan.weights[1].group = plan::Group::kMtp;
  plan.weights[2].group = plan::Group::kDraft;
  EXPECT_EQ(PlaceBlobs(plan, {.mtp = false}, 0)->blob_of, (std::vector<int32_t>{0, -1, 1}));
  EXPECT_EQ(PlaceBlobs(plan, {.draft = false}, 0)->blob_of, (std::vector<int32_t>{0, 1, -1}));
}

TEST(PlaceBlobs, SumsEndAtTheLimit) {
  const plan::Plan plan = PlanOfSizes(std::vector<int64_t>(3, plan::kMaxBytes / 2));
  EXPECT_EQ(PlaceBlobs(plan, {}, 0).status().message(),
            "weights: 140737488355328 bytes behind the first 281474976710656, the limit is 281474976710656");
}

// --- Files -----------------------------------------------------------------------------------------------------------

class PackFile : public testing::Test {
 protected:
  void Write(const plan::Plan& plan, bool mtp = true) {
    WriteTestCheckpoint(temp_ / "model", mtp);
    auto facts = WritePack(plan, temp_ / "model", temp_ / "p.pack", /*overwrite=*/true);
    ASSERT_TRUE(facts.ok()) << facts.status().message();
  }
  TempFolder temp_;
};

// The same bytes as loading gives, shared where those are; the checkpoint need not be there any more.
TEST_F(PackFile, HoldsWhatLoadingGives) {
  for (int tp : {1, 2, 3}) {
    const plan::Plan plan = plan::MakeTestPlan(tp);
    Write(plan);
    auto loaded = LoadWeights(plan, temp_ / "model");
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    std::filesystem::remove_all(temp_ / "model");
    auto mapped = MapPack(plan, temp_ / "p.pack", {.checkpoint_dir = temp_ / "model"});
    ASSERT_TRUE(mapped.ok()) << mapped.status().message();
    EXPECT_TRUE(VerifyPack(plan, temp_ / "p.pack").ok());
    EXPECT_TRUE(mapped->warnings.empty());
    EXPECT_TRUE(mapped->has_mtp);
    ASSERT_EQ(mapped->packed.size(), plan.packed.size());
    for (size_t i = 0; i < plan.packed.size(); ++i) {
      const uint8_t* bytes = mapped->packed[i].get();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes) % 64, 0u);
      ASSERT_EQ(std::memcmp(bytes, loaded->packed[i].get(), plan.packed[i].bytes), 0) << i;
      for (size_t j = 0; j < i; ++j)
        EXPECT_EQ(mapped->packed[i] == mapped->packed[j], loaded->packed[i] == loaded->packed[j]) << i << " " << j;
    }
  }
}

TEST_F(PackFile, WeightsKeepTheMappingAlive) {
  const plan::Plan plan = plan::MakeTestPlan();
  Write(plan);
  auto mapped = MapPack(plan, temp_ / "p.pack", {.preallocate = true});
  ASSERT_TRUE(mapped.ok());
  const std::shared_ptr<uint8_t[]> one = mapped->packed[0];
  const uint8_t first = one[0];
  *mapped = Weights();
  std::filesystem::remove(temp_ / "p.pack");
  EXPECT_EQ(one[0], first);
}

// Nothing but the input's bytes is in it, and where it came from is not either.
TEST_F(PackFile, SameInputsGiveTheSameBytes) {
  const plan::Plan plan = plan::MakeTestPlan(2);
  Write(plan);
  WriteTestCheckpoint(temp_ / "elsewhere");
  ASSERT_TRUE(WritePack(plan, temp_ / "elsewhere", temp_ / "q.pack", false).ok());
  EXPECT_TRUE(test::ReadBytes(temp_ / "p.pack") == test::ReadBytes(temp_ / "q.pack"));
}

TEST_F(PackFile, KnowsThatThereIsNoMtpHead) {
  const plan::Plan plan = plan::MakeTestPlan();
  Write(plan, /*mtp=*/false);
  auto mapped = MapPack(plan, temp_ / "p.pack");
  ASSERT_TRUE(mapped.ok()) << mapped.status().message();
  EXPECT_FALSE(mapped->has_mtp);
  EXPECT_EQ(mapped->warnings,
            std::vector<std::string>{(temp_ / "p.pack") + ": has no MTP head; the plan's draft_mtp is off"});
  for (size_t i = 0; i < plan.packed.size(); ++i)
    EXPECT_EQ(mapped->packed[i] == nullptr, plan.weights[plan.packed[i].weight].group == plan::Group::kMtp) << i;
}

TEST_F(PackFile, OfAnotherPlanIsRefused) {
  Write(plan::MakeTestPlan());
  plan::Plan other = plan::MakeTestPlan();
  other.weights[0].name = "embedding";
  for (const Status& status : {MapPack(other, temp_ / "p.pack").status(), VerifyPack(other, temp_ / "p.pack")}) {
    EXPECT_EQ(status.ExitCode(), 4);
    EXPECT_EQ(status.message().rfind((temp_ / "p.pack") + ": was packed for a plan with weights ", 0), 0u)
        << status.message();
    EXPECT_EQ(status.hint(), "make it anew: qwenrt pack PLAN -o FILE --force");
  }
  EXPECT_EQ(MapPack(plan::MakeTestPlan(2), temp_ / "p.pack").status().ExitCode(), 4);
}

// A checkpoint that is there must be the one; a folder without one says nothing.
TEST_F(PackFile, OfAnotherCheckpointIsRefused) {
  const plan::Plan plan = plan::MakeTestPlan();
  Write(plan);
  const MapOptions beside{.checkpoint_dir = temp_ / "model"};
  EXPECT_TRUE(MapPack(plan, temp_ / "p.pack", beside).ok());
  WriteTestCheckpoint(temp_ / "model", true, "fine-tuned");
  const Status status = MapPack(plan, temp_ / "p.pack", beside).status();
  EXPECT_EQ(status.ExitCode(), 4);
  EXPECT_NE(status.message().find("p.pack: was packed from a checkpoint with headers "), std::string::npos);
  EXPECT_NE(status.message().find("/model has "), std::string::npos) << status.message();
  EXPECT_TRUE(MapPack(plan, temp_ / "p.pack").ok());
  std::ofstream(temp_ / "model/model.safetensors") << "damaged";
  EXPECT_EQ(MapPack(plan, temp_ / "p.pack", beside).status().ExitCode(), 3);
  std::filesystem::remove(temp_ / "model/model.safetensors");
  EXPECT_TRUE(MapPack(plan, temp_ / "p.pack", beside).ok());
}

TEST_F(PackFile, IsWrittenAllOrNothing) {
  const plan::Plan plan = plan::MakeTestPlan();
  Write(plan);
  const std::vector<uint8_t> before = test::ReadBytes(temp_ / "p.pack");
  EXPECT_EQ(WritePack(plan, temp_ / "model", temp_ / "p.pack", false).status().ExitCode(), 2);
  EXPECT_EQ(WritePack(plan, temp_ / "model", temp_ / "nowhere/p.pack", true).status().ExitCode(), 5);

  // A file size limit fails as a full disk does, once its signal is ignored.
  struct rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const struct rlimit small = {4096, limit.rlim_max};
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = WritePack(plan, temp_ / "model", temp_ / "p.pack", true).status();
  const Status fresh = WritePack(plan, temp_ / "model", temp_ / "q.pack", true).status();
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(full.ExitCode(), 5);
  EXPECT_EQ(full.message(), (temp_ / "p.pack") + ": cannot write: File too large");
  EXPECT_EQ(fresh.ExitCode(), 5);
  EXPECT_TRUE(test::ReadBytes(temp_ / "p.pack") == before);

  // A checkpoint that lacks something.
  std::filesystem::remove(temp_ / "model/model.safetensors");
  EXPECT_FALSE(WritePack(plan, temp_ / "model", temp_ / "p.pack", true).ok());
  EXPECT_TRUE(test::ReadBytes(temp_ / "p.pack") == before);
  EXPECT_EQ(temp_.Files(), 2u);  // the pack and the folder: nothing half written
}

TEST_F(PackFile, ProgressEndsAtTheSum) {
  const plan::Plan plan = plan::MakeTestPlan();
  WriteTestCheckpoint(temp_ / "model");
  std::vector<std::pair<int64_t, int64_t>> heard;
  const LoadOptions options{.progress = [&](int64_t done, int64_t total) { heard.emplace_back(done, total); }};
  int64_t sum = 0;
  for (const plan::Packed& packed : plan.packed) sum += packed.bytes;
  ASSERT_TRUE(WritePack(plan, temp_ / "model", temp_ / "p.pack", false, options).ok());
  EXPECT_EQ(heard.front(), std::pair(int64_t{0}, sum));
  EXPECT_EQ(heard.back(), std::pair(sum, sum));
  heard.clear();
  ASSERT_TRUE(VerifyPack(plan, temp_ / "p.pack", options).ok());
  EXPECT_EQ(heard.front().first, 0);
  EXPECT_EQ(heard.back().first, heard.back().second);
}

TEST_F(PackFile, WhatIsNoFileIsRefused) {
  const plan::Plan plan = plan::MakeTestPlan();
  EXPECT_EQ(MapPack(plan, temp_ / "none").status().message(),
            (temp_ / "none") + ": cannot open: No such file or directory");
  EXPECT_EQ(MapPack(plan, temp_ / ".").status().ExitCode(), 5);
  std::ofstream(temp_ / "empty");
  EXPECT_EQ(MapPack(plan, temp_ / "empty").status().message(),
            (temp_ / "empty") + ": is not a pack file: it does not begin with QWENPACK");
}

}  // namespace
}  // namespace qwen::exec
