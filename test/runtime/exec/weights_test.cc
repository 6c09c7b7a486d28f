#include "runtime/exec/weights.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "runtime/kernels/formats/convert.h"
#include "runtime/kernels/formats/pack.h"
#include "runtime/plan/layout.h"
#include "runtime/plan/safetensors.h"

namespace qwen::exec {
namespace {

using kernels::Bf16FromF32, kernels::F32FromBf16;
using plan::Layout, plan::Range, plan::Transform;

template <class T>
T At(const uint8_t* bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <class T>
std::vector<uint8_t> Bytes(const std::vector<T>& values) {
  const uint8_t* begin = reinterpret_cast<const uint8_t*>(values.data());
  return {begin, begin + values.size() * sizeof(T)};
}

plan::Weight MakeWeight(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  plan::Weight weight{};
  weight.name = name, weight.dtype = dtype, weight.shape = std::move(shape);
  return weight;
}

plan::Packed MakePacked(const plan::Weight& weight, Layout layout, std::vector<std::vector<Range>> slices = {},
                        int32_t index = 0, int32_t rank = 0) {
  plan::Packed packed{};
  packed.weight = index, packed.rank = rank, packed.layout = layout, packed.slices = std::move(slices);
  auto size = plan::PackedBytes(weight, packed);
  EXPECT_TRUE(size.ok()) << size.status().message();
  packed.bytes = size->bytes, packed.net_bytes = size->net_bytes;
  return packed;
}

// --- Packing ---------------------------------------------------------------------------------------------------------

struct PackCase {
  const char* name;
  std::vector<int64_t> shape;
  std::vector<std::vector<Range>> slices;
};

// Element i of the weight has the value i + 1, so that no element is a padding zero; below 2^8 also in bf16.
class PackTest : public testing::TestWithParam<PackCase> {
 protected:
  std::vector<uint8_t> Source(DType dtype) const {
    int64_t count = 1;
    for (int64_t d : GetParam().shape) count *= d;
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 251 + 1);
    std::vector<uint8_t> bytes(count * DTypeBytes(dtype));
    kernels::FromF32(values.data(), count, dtype, bytes.data());
    return bytes;
  }

  // The slice as a plain [experts][rows][columns] array, by the plainest of loops.
  struct Slice {
    int64_t experts = 0, rows = 0, columns = 0;
    std::vector<float> values;
  };
  Slice Expected() const {
    std::vector<int64_t> shape = GetParam().shape;
    std::vector<std::vector<Range>> slices = GetParam().slices;
    slices.resize(shape.size());
    while (shape.size() < 3) shape.insert(shape.begin(), 1), slices.insert(slices.begin(), std::vector<Range>{});
    auto taken = [&](int d, int64_t i) {
      if (slices[d].empty()) return true;
      for (const Range& range : slices[d])
        if (range.begin <= i && i < range.end) return true;
      return false;
    };
    Slice slice;
    std::set<int64_t> experts, rows, columns;
    for (int64_t e = 0; e < shape[0]; ++e)
      for (int64_t n = 0; n < shape[1]; ++n)
        for (int64_t k = 0; k < shape[2]; ++k)
          if (taken(0, e) && taken(1, n) && taken(2, k)) {
            slice.values.push_back(static_cast<float>(((e * shape[1] + n) * shape[2] + k) % 251 + 1));
            experts.insert(e), rows.insert(n), columns.insert(k);
          }
    slice.experts = experts.size(), slice.rows = rows.size(), slice.columns = columns.size();
    return slice;
  }

  // Packed between guard bytes.
  std::vector<uint8_t> Pack(const plan::Weight& weight, Layout layout) const {
    const plan::Packed packed = MakePacked(weight, layout, GetParam().slices);
    std::vector<uint8_t> to(packed.bytes + 64, 0xcc);
    PackWeight(weight, packed, Source(weight.dtype).data(), to.data());
    for (int i = 0; i < 64; ++i) EXPECT_EQ(to[packed.bytes + i], 0xcc) << "wrote behind its end";
    to.resize(packed.bytes);
    return to;
  }
};
const PackCase kMatrices[] = {
    {"one_tile", {16, 32}, {}},
    {"odd", {19, 37}, {}},
    {"one_row", {1, 8}, {}},
    {"rows", {70, 40}, {{{5, 38}}, {}}},
    {"row_ranges", {70, 40}, {{{0, 3}, {5, 6}, {30, 60}}, {}}},
    {"columns", {20, 70}, {{}, {{7, 50}}}},
    {"column_ranges", {20, 70}, {{{1, 18}}, {{0, 5}, {9, 40}, {69, 70}}}},
    {"empty_share", {20, 70}, {{{3, 3}}, {}}},
    {"cube", {3, 18, 33}, {}},
    {"cube_slices", {5, 40, 48}, {{{1, 2}, {3, 5}}, {{0, 9}, {20, 29}}, {{16, 32}}}},
};
const PackCase kVectors[] = {{"vector", {37}, {}}, {"vector_slices", {37}, {{{3, 7}, {20, 21}}}}};
auto CaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Matrices, PackTest, testing::ValuesIn(kMatrices), CaseName);
INSTANTIATE_TEST_SUITE_P(Vectors, PackTest, testing::ValuesIn(kVectors), CaseName);
class TileTest : public PackTest {};
INSTANTIATE_TEST_SUITE_P(Matrices, TileTest, testing::ValuesIn(kMatrices), CaseName);

TEST_P(PackTest, RowsAreAsInTheFile) {
  const Slice want = Expected();
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<uint8_t> to = Pack(MakeWeight("w", dtype, GetParam().shape), Layout::kRows);
    ASSERT_EQ(to.size(), want.values.size() * DTypeBytes(dtype));
    std::vector<float> have(want.values.size());
    kernels::ToF32(dtype, to.data(), have.size(), have.data());
    EXPECT_EQ(have, want.values);
  }
}

TEST_P(PackTest, VectorsAreF32) {
  const Slice want = Expected();
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<uint8_t> to = Pack(MakeWeight("w", dtype, GetParam().shape), Layout::kVector);
    EXPECT_EQ(to, Bytes(want.values));
  }
}

// The formulas of the contract, and every byte that is no element is zero.
TEST_P(TileTest, TilesAreAsInTheContract) {
  const Slice want = Expected();
  const int64_t groups = (want.rows + 15) / 16;
  {
    const std::vector<uint8_t> to = Pack(MakeWeight("w", DType::kF32, GetParam().shape), Layout::kTile16);
    std::vector<float> expected(want.experts * groups * want.columns * 16);
    size_t i = 0;
    for (int64_t e = 0; e < want.experts; ++e)
      for (int64_t n = 0; n < want.rows; ++n)
        for (int64_t k = 0; k < want.columns; ++k)
          expected[((e * groups + n / 16) * want.columns + k) * 16 + n % 16] = want.values[i++];
    EXPECT_EQ(to, Bytes(expected));
  }
  {
    const std::vector<uint8_t> to = Pack(MakeWeight("w", DType::kBF16, GetParam().shape), Layout::kTile16);
    const int64_t tiles = (want.columns + 31) / 32;
    std::vector<uint16_t> expected(want.experts * groups * tiles * 512);
    size_t i = 0;
    for (int64_t e = 0; e < want.experts; ++e)
      for (int64_t n = 0; n < want.rows; ++n)
        for (int64_t k = 0; k < want.columns; ++k)
          expected[((e * groups + n / 16) * tiles + k / 32) * 512 + k % 32 / 2 * 32 + n % 16 * 2 + k % 2] =
              Bf16FromF32(want.values[i++]);
    EXPECT_EQ(to, Bytes(expected));
  }
}

TEST(Formats, Tile16IndexFindsWhatPackTile16Wrote) {
  constexpr int64_t kRows = 35, kColumns = 45;
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<float> values(kRows * kColumns);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 256);
    std::vector<uint8_t> plain(values.size() * DTypeBytes(dtype)), tiles(kernels::Tile16Bytes(dtype, kRows, kColumns));
    kernels::FromF32(values.data(), values.size(), dtype, plain.data());
    const plan::Weight weight = MakeWeight("w", dtype, {kRows, kColumns});
    PackWeight(weight, MakePacked(weight, Layout::kTile16), plain.data(), tiles.data());
    for (int64_t n = 0; n < kRows; ++n)
      for (int64_t k = 0; k < kColumns; ++k) {
        const int64_t at = kernels::Tile16Index(dtype, kColumns, n, k);
        const float have =
            dtype == DType::kF32 ? At<float>(tiles.data(), at) : F32FromBf16(At<uint16_t>(tiles.data(), at));
        ASSERT_EQ(have, values[n * kColumns + k]) << n << ", " << k;
      }
  }
}

TEST(Formats, ConvertsToTheNearest) {
  auto bf16 = [](float x) { return F32FromBf16(Bf16FromF32(x)); };
  EXPECT_EQ(bf16(1.0f + 0x1p-8f), 1.0f);                // a tie goes to even
  EXPECT_EQ(bf16(1.0f + 3 * 0x1p-8f), 1.0f + 0x1p-6f);  // so does this one
  EXPECT_EQ(bf16(std::nextafter(1.0f + 0x1p-8f, 2.0f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(bf16(-3.4e38f), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(bf16(std::bit_cast<float>(0x7f800001u))));

  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x8400, 0x7c00, 0x7bff};
  float floats[6];
  kernels::ToF32(DType::kF16, reinterpret_cast<const uint8_t*>(halves), 6, floats);
  EXPECT_EQ(floats[0], 1.0f);
  EXPECT_EQ(floats[1], -2.0f);
  EXPECT_EQ(floats[2], 0x1p-24f);
  EXPECT_EQ(floats[3], -0x1p-14f);
  EXPECT_EQ(floats[4], std::numeric_limits<float>::infinity());
  EXPECT_EQ(floats[5], 65504.0f);
}

// --- Loading ---------------------------------------------------------------------------------------------------------

/// A checkpoint folder of one file, made for one test.
class LoadTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("qwen_weights_test_" + std::to_string(::getpid()) + "_" +
                                                     testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directory(dir_);
    plan_.model.prefixes = {"model."};
    Tensor("model.embed_tokens.weight", DType::kF32, {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
    AddWeight(MakeWeight("embed", DType::kF32, {4, 2}), {Whole("{P}embed_tokens.weight", {4, 2})});
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Tensor(const std::string& name, DType dtype, std::vector<int64_t> shape, const std::vector<float>& values) {
    std::vector<uint8_t>& bytes = bytes_[name];
    bytes.resize(values.size() * DTypeBytes(dtype));
    kernels::FromF32(values.data(), values.size(), dtype, bytes.data());
    tensors_.push_back({.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes});
  }

  static plan::Piece Whole(const std::string& tensor, std::vector<int64_t> shape) {
    plan::Piece piece{};
    piece.tensor = tensor, piece.dtypes = {"F32", "BF16"}, piece.shape = shape;
    piece.cols = piece.view_cols = shape.back();
    piece.rows = piece.view_rows = shape.size() == 2 ? shape[0] : 1;
    return piece;
  }

  int32_t AddWeight(plan::Weight weight, std::vector<plan::Piece> pieces) {
    weight.alternatives.push_back({.pieces = std::move(pieces)});
    plan_.weights.push_back(std::move(weight));
    return static_cast<int32_t>(plan_.weights.size()) - 1;
  }
  int32_t AddPacked(int32_t weight, Layout layout, std::vector<std::vector<Range>> slices = {}, int32_t rank = 0) {
    plan_.packed.push_back(MakePacked(plan_.weights[weight], layout, std::move(slices), weight, rank));
    return static_cast<int32_t>(plan_.packed.size()) - 1;
  }

  StatusOr<Weights> Load() {
    Status written = plan::WriteSafetensors((dir_ / "model.safetensors").string(), tensors_);
    EXPECT_TRUE(written.ok()) << written.message();
    return LoadWeights(plan_, dir_.string(),
                       {.progress = [this](int64_t done, int64_t total) { progress_.push_back({done, total}); }});
  }
  static std::vector<float> Floats(const Weights& weights, int32_t packed, int64_t count) {
    std::vector<float> values(count);
    std::memcpy(values.data(), weights.packed[packed].get(), count * 4);
    return values;
  }

  std::filesystem::path dir_;
  plan::Plan plan_;
  std::map<std::string, std::vector<uint8_t>> bytes_;
  std::vector<plan::TensorToWrite> tensors_;
  std::vector<std::pair<int64_t, int64_t>> progress_;
};

TEST_F(LoadTest, TransformsAndConverts) {
  Tensor("n1", DType::kBF16, {3}, {0.5f, -0.25f, 0});
  Tensor("n2", DType::kF32, {3}, {1, 2, 3});
  Tensor("w", DType::kF32, {1, 3}, {1.0f + 0x1p-8f, 2, -3});
  plan::Weight one_plus = MakeWeight("norm1", DType::kF32, {3});
  one_plus.transform = Transform::kOnePlus;
  plan::Weight plain = MakeWeight("norm2", DType::kF32, {3});
  plain.transform = Transform::kToF32;
  const int32_t p1 = AddPacked(AddWeight(one_plus, {Whole("n1", {3})}), Layout::kVector);
  const int32_t p2 = AddPacked(AddWeight(plain, {Whole("n2", {3})}), Layout::kVector);
  const int32_t p3 = AddPacked(AddWeight(MakeWeight("w", DType::kBF16, {1, 3}), {Whole("w", {1, 3})}), Layout::kRows);
  auto weights = Load();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(Floats(*weights, p1, 3), (std::vector<float>{1.5f, 0.75f, 1}));
  EXPECT_EQ(Floats(*weights, p2, 3), (std::vector<float>{1, 2, 3}));
  std::vector<float> w(3);
  kernels::ToF32(DType::kBF16, weights->packed[p3].get(), 3, w.data());
  EXPECT_EQ(w, (std::vector<float>{1, 2, -3}));
  for (const auto& packed : weights->packed) EXPECT_EQ(reinterpret_cast<uintptr_t>(packed.get()) % 64, 0u);
}

// Fused experts are cut apart, single experts are put together, rows interleave: one rule, pieces.
TEST_F(LoadTest, PiecesOfManyTensorsMakeOneWeight) {
  for (int e = 0; e < 2; ++e) {
    const float base = 100.0f * e;
    Tensor("experts." + std::to_string(e) + ".gate", DType::kF32, {1, 2}, {base + 1, base + 2});
    Tensor("experts." + std::to_string(e) + ".up", DType::kF32, {1, 2}, {base + 3, base + 4});
  }
  plan::Piece gate = Whole("experts.{e}.gate", {1, 2}), up = Whole("experts.{e}.up", {1, 2});
  gate.e_count = up.e_count = 2;
  gate.dst_row_step = up.dst_row_step = 2;
  up.dst_row = 1;
  const int32_t cube = AddWeight(MakeWeight("moe.gate_up", DType::kF32, {2, 2, 2}), {gate, up});
  const int32_t all = AddPacked(cube, Layout::kRows), second = AddPacked(cube, Layout::kRows, {{{1, 2}}, {}, {{1, 2}}});

  // Columns [0, 1) from one tensor's last column, [1, 3) from another's first two.
  Tensor("left", DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6});
  Tensor("right", DType::kBF16, {3, 2}, {7, 8, 9, 10, 11, 12});
  plan::Piece left = Whole("left", {2, 3}), right = Whole("right", {3, 2});
  left.src_col = 2, left.cols = 1;
  right.src_row = 1, right.rows = 2, right.dst_col = 1;
  const int32_t joined = AddPacked(AddWeight(MakeWeight("joined", DType::kF32, {2, 3}), {left, right}), Layout::kRows);

  Tensor("visual.patch", DType::kF32, {1}, {1});

  auto weights = Load();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(Floats(*weights, all, 8), (std::vector<float>{1, 2, 3, 4, 101, 102, 103, 104}));
  EXPECT_EQ(Floats(*weights, second, 2), (std::vector<float>{102, 104}));
  EXPECT_EQ(Floats(*weights, joined, 6), (std::vector<float>{3, 9, 10, 6, 11, 12}));
  EXPECT_EQ(weights->ignored_tensors, 1);  // not the embedding: a weight names it, though nobody packs it
}

// A tied head is one copy when it is packed the same way; so is what every rank has.
TEST_F(LoadTest, SameBytesAreKeptOnce) {
  plan::Weight head = MakeWeight("lm_head", DType::kF32, {4, 2});
  head.alias = 0;
  plan_.weights.push_back(head);
  const int32_t embed = AddPacked(0, Layout::kTile16), tied = AddPacked(1, Layout::kTile16, {{{0, 4}}, {}});
  const int32_t rows = AddPacked(0, Layout::kRows), half = AddPacked(1, Layout::kTile16, {{{0, 2}}, {}});
  const int32_t other_rank = AddPacked(0, Layout::kRows, {}, 1);
  auto weights = Load();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->packed[embed], weights->packed[tied]);
  EXPECT_EQ(weights->packed[rows], weights->packed[other_rank]);
  EXPECT_NE(weights->packed[embed], weights->packed[rows]);
  EXPECT_NE(weights->packed[embed], weights->packed[half]);
  EXPECT_EQ(Floats(*weights, rows, 8), (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(At<float>(weights->packed[half].get(), 1), 3);
}

TEST_F(LoadTest, ProgressEndsAtTheSum) {
  AddPacked(0, Layout::kRows), AddPacked(0, Layout::kTile16);
  ASSERT_TRUE(Load().ok());
  ASSERT_EQ(progress_.size(), 3u);
  EXPECT_EQ(progress_[0], std::pair(int64_t{0}, int64_t{160}));
  EXPECT_EQ(progress_[1], std::pair(int64_t{32}, int64_t{160}));
  EXPECT_EQ(progress_[2], std::pair(int64_t{160}, int64_t{160}));
}

// Bytes of the checkpoint's mapping that are resident.
int64_t ResidentBytes(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  int64_t bytes = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' '))
      inside = line.find(path) != std::string::npos;
    else if (inside && line.rfind("Rss:", 0) == 0)
      bytes += std::stoll(line.substr(4)) * 1024;
  }
  return bytes;
}

// At most one tensor of the checkpoint is in memory beside what is packed. 64 KiB on each side: the kernel maps around
// a page that is touched.
TEST_F(LoadTest, SourcePagesAreDropped) {
  constexpr int64_t kRows = 1024, kColumns = 512, kTensorBytes = kRows * kColumns * 4;
  for (int i = 0; i < 6; ++i) {
    const std::string name = "w" + std::to_string(i);
    Tensor(name, DType::kF32, {kRows, kColumns}, std::vector<float>(kRows * kColumns, 1));
    AddPacked(AddWeight(MakeWeight(name, DType::kF32, {kRows, kColumns}), {Whole(name, {kRows, kColumns})}),
              Layout::kTile16);
  }
  ASSERT_TRUE(plan::WriteSafetensors((dir_ / "model.safetensors").string(), tensors_).ok());
  int64_t most = 0;
  auto weights = LoadWeights(plan_, dir_.string(), {.progress = [&](int64_t, int64_t) {
                               most = std::max(most, ResidentBytes((dir_ / "model.safetensors").string()));
                             }});
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_GT(most, kTensorBytes / 2);
  EXPECT_LE(most, kTensorBytes + 2 * (64 << 10));
}

TEST_F(LoadTest, WithoutAnMtpGroupItsWeightsAreNull) {
  plan::Weight mtp = MakeWeight("mtp.norm", DType::kF32, {2});
  mtp.group = plan::Group::kMtp;
  const int32_t absent = AddPacked(AddWeight(mtp, {Whole("mtp.norm.weight", {2})}), Layout::kVector);
  const int32_t present = AddPacked(0, Layout::kRows);
  auto weights = Load();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_FALSE(weights->has_mtp);
  EXPECT_EQ(weights->packed[absent], nullptr);
  EXPECT_NE(weights->packed[present], nullptr);
  EXPECT_EQ(weights->warnings.size(), 1u);
}

TEST_F(LoadTest, MissingAndMisshapenTensorsAreListedTogether) {
  Tensor("narrow", DType::kF32, {2, 2}, {1, 2, 3, 4});
  AddPacked(AddWeight(MakeWeight("a", DType::kF32, {2, 3}), {Whole("absent", {2, 3})}), Layout::kRows);
  AddPacked(AddWeight(MakeWeight("b", DType::kF32, {2, 3}), {Whole("narrow", {2, 3})}), Layout::kRows);
  auto weights = Load();
  EXPECT_EQ(weights.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(weights.status().message().find("absent: missing"), std::string::npos) << weights.status().message();
  EXPECT_NE(weights.status().message().find("narrow: is F32 [2, 2], want F32 or BF16 [2, 3]"), std::string::npos)
      << weights.status().message();
}

// A plan that contradicts itself is caught before a byte is read where it should not be.
TEST_F(LoadTest, PiecesBeyondTheirTensorAreRefused) {
  plan::Piece piece = Whole("{P}embed_tokens.weight", {4, 2});
  piece.src_row = 1;
  AddPacked(AddWeight(MakeWeight("w", DType::kF32, {4, 2}), {piece}), Layout::kRows);
  auto weights = Load();
  EXPECT_EQ(weights.status().code(), StatusCode::kDataLoss);
  plan_.weights.pop_back(), plan_.packed.pop_back();
  plan_.packed.push_back(MakePacked(plan_.weights[0], Layout::kRows));
  plan_.packed[0].bytes = 16;
  EXPECT_EQ(Load().status().message(), "weight embed: packs into 32 bytes, the plan has 16");
}

// --- Made up ---------------------------------------------------------------------------------------------------------

TEST(RandomWeights, DependOnSeedNameAndPlaceOnly) {
  plan::Plan plan;
  plan.weights = {MakeWeight("layers.0.mlp.up", DType::kF32, {40, 100}),
                  MakeWeight("layers.1.mlp.up", DType::kF32, {40, 100})};
  plan.packed = {MakePacked(plan.weights[0], Layout::kRows), MakePacked(plan.weights[1], Layout::kRows, {}, 1),
                 MakePacked(plan.weights[0], Layout::kRows, {{{10, 30}}, {{50, 100}}}, 0, 1)};
  auto a = RandomWeights(plan, 1), again = RandomWeights(plan, 1), b = RandomWeights(plan, 2);
  ASSERT_TRUE(a.ok() && again.ok() && b.ok());
  auto value = [](const StatusOr<Weights>& w, int packed, int64_t i) { return At<float>(w->packed[packed].get(), i); };
  int same_seed = 0, same_name = 0;
  for (int64_t i = 0; i < 4000; ++i) {
    ASSERT_EQ(value(a, 0, i), value(again, 0, i));
    same_seed += value(a, 0, i) == value(b, 0, i);
    same_name += value(a, 0, i) == value(a, 1, i);
  }
  EXPECT_LT(same_seed, 5);
  EXPECT_LT(same_name, 5);
  for (int64_t n = 0; n < 20; ++n)
    for (int64_t k = 0; k < 50; ++k) ASSERT_EQ(value(a, 2, n * 50 + k), value(a, 0, (n + 10) * 100 + k + 50));
}

TEST(RandomWeights, HaveSaneScales) {
  plan::Plan plan;
  const std::pair<const char*, std::vector<int64_t>> weights[] = {{"layers.0.mlp.up", {300, 100}},
                                                                  {"layers.0.norm1", {500}},
                                                                  {"layers.0.gdn.a_log", {500}},
                                                                  {"layers.0.gdn.dt_bias", {500}},
                                                                  {"layers.0.gdn.conv", {500, 4}}};
  for (const auto& [name, shape] : weights) {
    plan.weights.push_back(MakeWeight(name, DType::kF32, shape));
    plan.packed.push_back(
        MakePacked(plan.weights.back(), Layout::kVector, {}, static_cast<int32_t>(plan.packed.size())));
  }
  auto random = RandomWeights(plan, 7);
  ASSERT_TRUE(random.ok());
  auto stats = [&](int packed) {
    double sum = 0, squares = 0, low = 1e9, high = -1e9;
    const int64_t count = plan.packed[packed].bytes / 4;
    for (int64_t i = 0; i < count; ++i) {
      double v = At<float>(random->packed[packed].get(), i);
      sum += v, squares += v * v, low = std::min(low, v), high = std::max(high, v);
    }
    return std::array{sum / count, std::sqrt(squares / count), low, high};
  };
  EXPECT_NEAR(stats(0)[0], 0, 0.002);
  EXPECT_NEAR(stats(0)[1], 0.09, 0.002);
  EXPECT_NEAR(stats(1)[0], 1, 0.01);
  EXPECT_GT(stats(1)[2], 0.89);
  EXPECT_GE(stats(2)[2], 0);
  EXPECT_LE(stats(2)[3], std::log(16.0));
  EXPECT_LE(stats(3)[3], -1);
  EXPECT_NEAR(stats(4)[1], 0.45, 0.02);
}

}  // namespace
}  // namespace qwen::exec
