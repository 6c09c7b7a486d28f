// Plans to bytes and back.
#include <gtest/gtest.h>

#include <algorithm>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/base/file.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/plan/check.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/dump.h"
#include "runtime/plan/file_format.h"
#include "runtime/plan/layout.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/writer.h"
#include "test/runtime/plan/test_plan.h"

namespace qwen::plan {
namespace {

namespace fs = std::filesystem;

std::vector<uint8_t> Serialize(const Plan& plan) {
  StatusOr<std::vector<uint8_t>> bytes = SerializePlan(plan);
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  return bytes.ok() ? *bytes : std::vector<uint8_t>();
}

class PlanFile : public testing::Test {
 protected:
  PlanFile() : folder_(fs::temp_directory_path() / ("plan_file_test." + std::to_string(getpid()))) {
    fs::create_directory(folder_);
  }
  ~PlanFile() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ / name; }

 private:
  fs::path folder_;
};

TEST_F(PlanFile, RoundTripKeepsEverything) {
  for (int tp : {1, 2, 3, 8}) {
    Plan plan = MakeTestPlan(tp);
    AddPtxKernel(plan);
    const std::vector<uint8_t> bytes = Serialize(plan);
    StatusOr<Plan> read = ParsePlan(bytes, "p");
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_NE(read->digest, 0u);
    EXPECT_EQ(read->weights_digest, WeightsDigest(plan));
    // The dump has every field; the digests are the writer's.
    Plan want = plan;
    want.digest = read->digest;
    want.weights_digest = read->weights_digest;
    EXPECT_EQ(DumpJson(*read), DumpJson(want));
    EXPECT_EQ(read->blobs[0].bytes, plan.blobs[0].bytes);
    EXPECT_EQ(Serialize(*read), bytes);
  }
}

TEST_F(PlanFile, SamePlanSameBytesWhateverTheLocale) {
  const std::vector<uint8_t> bytes = Serialize(MakeTestPlan());
  for (const char* locale : {"C", "de_DE.UTF-8", "tr_TR.UTF-8"}) {
    setlocale(LC_ALL, locale);  // where it is installed
    EXPECT_EQ(Serialize(MakeTestPlan()), bytes);
  }
  setlocale(LC_ALL, "C");
}

TEST_F(PlanFile, LayoutIsAsFormatSays) {
  const std::vector<uint8_t> bytes = Serialize(MakeTestPlan());
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  EXPECT_EQ(std::string(header.magic, 8), "QWENPLAN");
  EXPECT_EQ(header.version, 2u);
  EXPECT_EQ(header.flags, 0u);
  EXPECT_EQ(header.file_bytes, bytes.size());
  EXPECT_EQ(header.root_offset, 64u);
  EXPECT_EQ(header.root_xxh3, Xxh3(std::span(bytes).subspan(64, header.root_bytes)));
  // The config blob, two bytes, is the last one: at a multiple of 64, behind three bytes of IR.
  EXPECT_EQ((bytes.size() - 2) % 64, 0u);
  EXPECT_EQ(std::string(bytes.end() - 2, bytes.end()), "{}");
  EXPECT_EQ(bytes[bytes.size() - 2 - 64], 1);
}

TEST_F(PlanFile, DigestsSayWhatChanged) {
  const Plan plan = MakeTestPlan();
  auto digests = [](const Plan& p) {
    const StatusOr<Plan> read = ParsePlan(EncodeUnchecked(p), "p");
    return std::pair(read->digest, read->weights_digest);
  };
  const auto base = digests(plan);
  Plan other = plan;
  other.blobs[1].bytes.push_back(' ');
  EXPECT_NE(digests(other).first, base.first);
  EXPECT_EQ(digests(other).second, base.second);
  other = plan;
  other.weights[2].transform = Transform::kNone;
  EXPECT_NE(digests(other).first, base.first);
  EXPECT_NE(digests(other).second, base.second);
}

TEST_F(PlanFile, WriterRefusesWhatReaderWould) {
  Plan plan = MakeTestPlan();
  plan.programs[0].steps[1].args[0] = 97;
  const Status status = SerializePlan(plan).status();
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_EQ(WritePlan(plan, Path("p"), true).message(), status.message());
  EXPECT_FALSE(fs::exists(Path("p")));
}

TEST_F(PlanFile, WritesAllOrNothing) {
  const Plan plan = MakeTestPlan();
  ASSERT_TRUE(WritePlan(plan, Path("p"), false).ok());
  EXPECT_EQ(WritePlan(plan, Path("p"), false).code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(WritePlan(plan, Path("p"), true).ok());
  StatusOr<Plan> read = ReadPlan(Path("p"));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->programs.size(), 2u);
  EXPECT_EQ(WritePlan(plan, Path("no/p"), true).code(), StatusCode::kResourceExhausted);
}

TEST_F(PlanFile, UnreadableFileIsNotDamage) {
  EXPECT_EQ(ReadPlan(Path("absent")).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadPlan(Path("")).status().code(), StatusCode::kResourceExhausted);
  std::ofstream(Path("text")) << "QWENPLAY and more";
  const Status status = ReadPlan(Path("text")).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), Path("text") + ": is not a plan file: it does not begin with QWENPLAN");
}

TEST_F(PlanFile, NoBlobs) {
  Plan plan = MakeTestPlan();
  plan.blobs.clear();
  EXPECT_TRUE(ParsePlan(Serialize(plan), "p").ok());
  plan.blobs = {{BlobKind::kTokenizer, {}}};
  const StatusOr<Plan> read = ParsePlan(Serialize(plan), "p");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_TRUE(read->blobs[0].bytes.empty());
}

// The bytes of all weight fields, by hand: FORMAT.md's definition and not the code's.
TEST_F(PlanFile, WeightsDigestIsAsFormatSays) {
  Plan plan;
  plan.weights.push_back(
      {.name = "w", .dtype = DType::kBF16, .shape = {2}, .alternatives = {{{WholeTensor("t", {2})}}}});
  plan.packed.push_back(
      {.weight = 0, .rank = 0, .layout = Layout::kRows, .slices = {{{0, 1}}}, .bytes = 2, .net_bytes = 2});
  std::vector<uint8_t> bytes;
  auto integer = [&](int64_t v) {
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(v >> (8 * i)));
  };
  auto text = [&](const std::string& s) {
    integer(static_cast<int64_t>(s.size()));
    bytes.insert(bytes.end(), s.begin(), s.end());
  };
  integer(1), text("w"), text(""), integer(1), integer(1), integer(2);  // weights; name, scheme, type, shape
  integer(0), integer(0), integer(-1), integer(1), integer(1);          // group, transform, alias; alternatives, pieces
  text("t"), integer(1), integer(2), text("BF16"), text("F32"), integer(1), integer(2);
  for (int64_t v : {1, 2, 0, 0, 1, 2, 0, 0, 0}) integer(v);  // view, source, size, target, step
  integer(1), integer(0), integer(0), integer(0), integer(1), integer(1), integer(0), integer(1), integer(2),
      integer(2);
  EXPECT_EQ(WeightsDigest(plan), Xxh3(bytes));
}

TEST(Layouts, PackedBytesPadTiles) {
  const Weight f32{.name = "w", .dtype = DType::kF32, .shape = {17, 33}};
  const Weight bf16{.name = "w", .dtype = DType::kBF16, .shape = {17, 33}};
  auto size = [](const Weight& weight, Layout layout, std::vector<std::vector<Range>> slices = {}) {
    const PackedSize s = *PackedBytes(weight, {.layout = layout, .slices = std::move(slices)});
    return std::pair(s.bytes, s.net_bytes);
  };
  EXPECT_EQ(size(f32, Layout::kTile16), std::pair(int64_t{32 * 33 * 4}, int64_t{17 * 33 * 4}));
  EXPECT_EQ(size(bf16, Layout::kTile16), std::pair(int64_t{32 * 64 * 2}, int64_t{17 * 33 * 2}));
  EXPECT_EQ(size(bf16, Layout::kRows), std::pair(int64_t{17 * 33 * 2}, int64_t{17 * 33 * 2}));
  EXPECT_EQ(size(bf16, Layout::kVector), std::pair(int64_t{17 * 33 * 4}, int64_t{17 * 33 * 4}));
  EXPECT_EQ(size(bf16, Layout::kTile16, {{{0, 3}, {5, 6}}, {}}), std::pair(int64_t{16 * 64 * 2}, int64_t{4 * 33 * 2}));
  EXPECT_EQ(size(bf16, Layout::kTile16, {{{5, 5}}, {}}), std::pair(int64_t{0}, int64_t{0}));  // an empty share
  const Weight cube{.name = "w", .dtype = DType::kBF16, .shape = {3, 17, 33}};
  EXPECT_EQ(size(cube, Layout::kTile16, {{{1, 3}}, {}, {{0, 32}}}),
            std::pair(int64_t{2 * 32 * 32 * 2}, int64_t{2 * 17 * 32 * 2}));
}

TEST(Layouts, DeltaLayerIsWhatTheKernelsUse) {
  for (const auto& [key_heads, value_heads, dim, rows] :
       {std::tuple{1, 1, 16, 1}, {3, 9, 24, 8}, {16, 32, 128, 16}, {0, 0, 128, 4}, {5, 5, 7, 3}})
    for (DType type : {DType::kF32, DType::kBF16}) {
      State state;
      state.max_rows = rows;
      state.delta_layers = {{.name = "a",
                             .key_heads = key_heads,
                             .value_heads = value_heads,
                             .key_dim = dim,
                             .value_dim = dim + 1,
                             .width = 4,
                             .dtype = type}};
      LayOutState(&state);
      const kernels::SlotLayout want =
          kernels::MakeSlotLayout(key_heads, value_heads, dim, dim + 1, type, state.ring_rows, state.conv_rows);
      EXPECT_EQ(state.slot_bytes, want.bytes);
      EXPECT_EQ(state.base_bytes, want.ring);
      EXPECT_EQ(state.ring_bytes, want.conv - want.ring);
      EXPECT_EQ(state.conv_bytes, want.bytes - want.conv);
    }
}

// Contracts, section 9: 35B, m = 8: 60 + 9.4 + 5.2 MiB (there with k^ in f16); on the CPU the ring is f32.
TEST(Layouts, SlotOf35B) {
  State state;
  state.max_rows = 8;
  for (int i = 0; i < 30; ++i)
    state.delta_layers.push_back({.name = "layers." + std::to_string(i),
                                  .key_heads = 16,
                                  .value_heads = 32,
                                  .key_dim = 128,
                                  .value_dim = 128,
                                  .width = 4,
                                  .dtype = DType::kBF16});
  LayOutState(&state);
  EXPECT_EQ(state.base_bytes, 60 << 20);
  EXPECT_NEAR(static_cast<double>(state.conv_bytes) / (1 << 20), 5.2, 0.05);
  EXPECT_NEAR(static_cast<double>(state.ring_bytes) / (1 << 20), 30 * 16 * (16 * 128 + 32 * 128 + 32) * 4.0 / (1 << 20),
              0.05);
}

TEST(Layouts, ProductsStopBeforeTheyOverflow) {
  EXPECT_EQ(CheckedProduct({3, 4}), 12);
  EXPECT_EQ(CheckedProduct({}), 1);
  EXPECT_EQ(CheckedProduct({kMaxBytes, 1}), kMaxBytes);
  EXPECT_EQ(CheckedProduct({kMaxBytes, 2}), std::nullopt);
  EXPECT_EQ(CheckedProduct({int64_t{1} << 32, int64_t{1} << 32}), std::nullopt);
  EXPECT_EQ(CheckedProduct({0, int64_t{1} << 62}), std::nullopt);
  EXPECT_EQ(CheckedProduct({-1, 0}), std::nullopt);
  EXPECT_EQ(CheckedProduct({0, 5, kMaxBytes}), std::nullopt);
  EXPECT_EQ(CheckedProduct({5, 0, 7}), 0);
}

}  // namespace
}  // namespace qwen::plan
