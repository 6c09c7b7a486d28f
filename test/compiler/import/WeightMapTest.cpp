// The weight map against itself (every element of every weight has one source) and against real checkpoints: the
// headers of the golden ones, which transformers wrote.

#include "ImportTesting.h"
#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>

namespace qwen::compiler::testing {
namespace {

namespace fs = std::filesystem;

struct Piece {
  explicit Piece(mlir::Attribute attr) {
    auto dict = llvm::cast<mlir::DictionaryAttr>(attr);
    auto integer = [&](const char *name) { return dict.getAs<mlir::IntegerAttr>(name).getInt(); };
    tensor = dict.getAs<mlir::StringAttr>("tensor").str();
    for (mlir::Attribute dtype : dict.getAs<mlir::ArrayAttr>("dtypes"))
      dtypes.insert(llvm::cast<mlir::StringAttr>(dtype).str());
    shape = dict.getAs<mlir::DenseI64ArrayAttr>("shape").asArrayRef().vec();
    eCount = integer("e_count");
    viewRows = integer("view_rows");
    viewCols = integer("view_cols");
    srcRow = integer("src_row");
    srcCol = integer("src_col");
    rows = integer("rows");
    cols = integer("cols");
    dstRow = integer("dst_row");
    dstCol = integer("dst_col");
    dstRowStep = integer("dst_row_step");
    packed = dict.contains("packing");
  }
  std::string tensor;
  std::set<std::string> dtypes;
  std::vector<int64_t> shape;
  int64_t eCount, viewRows, viewCols, srcRow, srcCol, rows, cols, dstRow, dstCol, dstRowStep;
  bool packed;
};

std::vector<std::vector<Piece>> alternatives(ir::model::ParamOp param) {
  std::vector<std::vector<Piece>> result;
  for (mlir::Attribute alternative : param.getSources()) {
    result.emplace_back();
    for (mlir::Attribute piece : llvm::cast<mlir::ArrayAttr>(alternative))
      result.back().emplace_back(piece);
  }
  return result;
}

using Rows = std::vector<std::pair<int64_t, int64_t>>;

/// Whether the runs tile [0, end) without gap or overlap.
bool tiles(Rows rows, int64_t end) {
  std::sort(rows.begin(), rows.end());
  int64_t at = 0;
  for (auto [first, last] : rows) {
    if (first != at)
      return false;
    at = last;
  }
  return at == end;
}

void expectCovered(Imported &imported) {
  ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
  std::map<std::string, Rows> used; // rows of each tensor that some weight takes, over first alternatives
  std::map<std::string, int64_t> height;
  for (auto param : imported.op().getOps<ir::model::ParamOp>()) {
    auto type = llvm::cast<mlir::RankedTensorType>(param.getType());
    int64_t cols = type.getShape().back(), rows = type.getNumElements() / cols;
    bool first = true;
    for (const std::vector<Piece> &pieces : alternatives(param)) {
      Rows runs;
      for (const Piece &piece : pieces) {
        int64_t elements = 1;
        for (int64_t size : piece.shape)
          elements *= size;
        if (!piece.packed)
          EXPECT_EQ(elements, piece.viewRows * piece.viewCols) << piece.tensor;
        EXPECT_LE(piece.srcRow + piece.rows, piece.viewRows) << piece.tensor;
        EXPECT_EQ(piece.srcCol, 0) << piece.tensor;
        EXPECT_EQ(piece.dstCol, 0) << piece.tensor;
        EXPECT_EQ(piece.cols, piece.viewCols) << piece.tensor;
        EXPECT_EQ(piece.cols, cols) << piece.tensor;
        EXPECT_EQ(piece.eCount > 1, piece.tensor.find("{e}") != std::string::npos) << piece.tensor;
        for (int64_t e = 0; e < piece.eCount; ++e)
          runs.push_back({piece.dstRow + e * piece.dstRowStep, piece.dstRow + e * piece.dstRowStep + piece.rows});
        if (first) {
          used[piece.tensor].push_back({piece.srcRow, piece.srcRow + piece.rows});
          height[piece.tensor] = piece.viewRows;
        }
      }
      EXPECT_TRUE(tiles(runs, rows)) << param.getSymName().str() << " is not covered exactly once";
      first = false;
    }
    EXPECT_EQ(first, param.getAlias().has_value()) << param.getSymName().str();
  }
  for (const auto &[tensor, rows] : used)
    EXPECT_TRUE(tiles(rows, height[tensor])) << "not every row of " << tensor << " is used exactly once";
}

TEST(WeightMap, CoversEveryWeightOfEveryConfigOnce) {
  for (const fs::directory_entry &entry : fs::directory_iterator(source("configs"))) {
    std::string name = entry.path().filename();
    Imported imported(entry.path());
    if (entry.path().extension() != ".json" || !imported.module.ok())
      continue;
    SCOPED_TRACE(name);
    expectCovered(imported);
  }
  for (const fs::directory_entry &entry : fs::directory_iterator(source("test/golden")))
    if (fs::exists(entry.path() / "config.json")) {
      SCOPED_TRACE(entry.path().filename());
      Imported imported(entry.path());
      expectCovered(imported);
    }
}

TEST(WeightMap, CoversEveryWeightOfADrafterOnce) {
  ImportOptions options;
  options.drafterPath = source("configs/DFlash2-z-lab-Qwen3.8-27B.json");
  Imported imported(source("configs/Qwen3.8-27B.json"), options);
  expectCovered(imported);
  int count = 0;
  for (auto param : imported.op().getOps<ir::model::ParamOp>())
    count += param.getGroup() == "draft";
  EXPECT_EQ(count, 81); // tensors of the published file (model specification, 13)
}

TEST(WeightMap, AnMtpHeadHasTheTensorsOfTheReleases) {
  Imported dense(source("configs/Qwen3.6-27B.json")), moe(source("configs/Qwen3.6-35B-A3B.json"));
  auto tensors = [](Imported &imported) {
    int64_t count = 0;
    for (auto param : imported.op().getOps<ir::model::ParamOp>())
      if (param.getGroup() == "mtp") {
        auto all = alternatives(param);
        for (const Piece &piece : all.back())
          count += piece.eCount;
      }
    return count;
  };
  EXPECT_EQ(tensors(dense), 15);
  EXPECT_EQ(tensors(moe), 785); // with 256 experts stored one by one
}

/// Row of the stored tensor behind every row of a weight.
std::vector<int64_t> sourceRows(Imported &imported, llvm::StringRef name) {
  auto param = imported.param(name);
  std::vector<int64_t> rows(llvm::cast<mlir::RankedTensorType>(param.getType()).getDimSize(0), -1);
  auto all = alternatives(param);
  for (const Piece &piece : all.front())
    for (int64_t i = 0; i < piece.rows; ++i)
      rows[piece.dstRow + i] = piece.srcRow + i;
  return rows;
}

TEST(WeightMap, UndoesTheInterleavingOfQwen3Next) {
  // transformers views a projected row as [key heads, 2 dk + 2 R dv] and splits it into q, k, v, z; the values of a key
  // head are its R value heads. Likewise [key heads, 2 R] into b and a.
  constexpr int64_t kKeyHeads = 2, kRatio = 3, kKeyDim = 8, kValueDim = 12;
  constexpr int64_t kStride = 2 * kKeyDim + 2 * kRatio * kValueDim;
  Folder folder;
  Imported imported(folder.write("config.json", render(next())));
  std::vector<int64_t> q, k, v, z, b, a;
  for (int64_t head = 0; head < kKeyHeads; ++head) {
    for (int64_t i = 0; i < kKeyDim; ++i) {
      q.push_back(head * kStride + i);
      k.push_back(head * kStride + kKeyDim + i);
    }
    for (int64_t r = 0; r < kRatio; ++r) {
      for (int64_t i = 0; i < kValueDim; ++i) {
        v.push_back(head * kStride + 2 * kKeyDim + r * kValueDim + i);
        z.push_back(head * kStride + 2 * kKeyDim + (kRatio + r) * kValueDim + i);
      }
      b.push_back(head * 2 * kRatio + r);
      a.push_back(head * 2 * kRatio + kRatio + r);
    }
  }
  std::vector<int64_t> qkv = q;
  qkv.insert(qkv.end(), k.begin(), k.end());
  qkv.insert(qkv.end(), v.begin(), v.end());
  EXPECT_EQ(sourceRows(imported, "layers.0.gdn.qkv"), qkv);
  EXPECT_EQ(sourceRows(imported, "layers.0.gdn.z"), z);
  EXPECT_EQ(sourceRows(imported, "layers.0.gdn.b"), b);
  EXPECT_EQ(sourceRows(imported, "layers.0.gdn.a"), a);
}

TEST(WeightMap, ExpertsAreFusedOrOneByOne) {
  Folder folder;
  Imported imported(folder.write("config.json", render(experts())));
  auto both = alternatives(imported.param("layers.1.moe.gate_up"));
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0][0].tensor, "{P}layers.1.mlp.experts.gate_up_proj");
  EXPECT_EQ(both[0][0].shape, (std::vector<int64_t>{6, 48, 40}));
  EXPECT_EQ(both[1][0].tensor, "{P}layers.1.mlp.experts.{e}.gate_proj.weight");
  EXPECT_EQ(both[1][1].tensor, "{P}layers.1.mlp.experts.{e}.up_proj.weight");
  EXPECT_EQ(both[1][1].dstRow, 24); // gate rows first
  EXPECT_EQ(both[1][1].dstRowStep, 48);
}

//===----------------------------------------------------------------------===//
// Against headers that transformers wrote
//===----------------------------------------------------------------------===//

struct Stored {
  std::string dtype;
  std::vector<int64_t> shape;
};

std::map<std::string, Stored> readHeaders(const fs::path &folder) {
  std::map<std::string, Stored> tensors;
  for (const fs::directory_entry &entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors" || entry.path().filename() == "golden.safetensors")
      continue;
    std::ifstream file(entry.path(), std::ios::binary);
    uint64_t size = 0;
    file.read(reinterpret_cast<char *>(&size), sizeof(size));
    std::string text(size, '\0');
    file.read(text.data(), std::streamsize(size));
    StatusOr<Json> header = ParseJson(text, entry.path());
    EXPECT_TRUE(header.ok());
    for (const Json::Member &member : header->members()) {
      if (member.first == "__metadata__")
        continue;
      Stored stored{member.second.Find("dtype")->AsString(), {}};
      for (const Json &extent : member.second.Find("shape")->items())
        stored.shape.push_back(extent.AsInteger());
      tensors[member.first] = stored;
    }
  }
  return tensors;
}

std::string replaced(std::string text, const std::string &from, const std::string &to) {
  if (size_t at = text.find(from); at != std::string::npos)
    text.replace(at, from.size(), to);
  return text;
}

TEST(WeightMap, NamesTheTensorsOfRealCheckpoints) {
  int folders = 0;
  for (const fs::directory_entry &entry : fs::directory_iterator(source("test/golden"))) {
    if (!fs::exists(entry.path() / "config.json"))
      continue;
    SCOPED_TRACE(entry.path().filename());
    ++folders;
    Imported imported(entry.path());
    ASSERT_TRUE(imported.module.ok()) << imported.module.status().message();
    std::map<std::string, Stored> tensors = readHeaders(entry.path());
    std::string prefix;
    for (mlir::Attribute candidate : imported.op()->getAttrOfType<mlir::ArrayAttr>("model.prefixes"))
      if (tensors.count(llvm::cast<mlir::StringAttr>(candidate).str() + "embed_tokens.weight"))
        prefix = llvm::cast<mlir::StringAttr>(candidate).str();
    ASSERT_FALSE(prefix.empty());

    std::set<std::string> named;
    bool hasMtp = tensors.count("mtp.fc.weight");
    for (auto param : imported.op().getOps<ir::model::ParamOp>()) {
      if (param.getAlias() || (param.getGroup() == "mtp" && !hasMtp))
        continue;
      bool found = false;
      for (const std::vector<Piece> &pieces : alternatives(param)) {
        std::vector<std::pair<std::string, const Piece *>> wanted;
        for (const Piece &piece : pieces)
          for (int64_t e = 0; e < piece.eCount; ++e)
            wanted.push_back({replaced(replaced(piece.tensor, "{P}", prefix), "{e}", std::to_string(e)), &piece});
        if (!std::all_of(wanted.begin(), wanted.end(), [&](const auto &w) { return tensors.count(w.first); }))
          continue;
        found = true;
        for (const auto &[name, piece] : wanted) {
          EXPECT_EQ(tensors[name].shape, piece->shape) << name;
          EXPECT_TRUE(piece->dtypes.count(tensors[name].dtype)) << name << " " << tensors[name].dtype;
          named.insert(name);
        }
        break;
      }
      EXPECT_TRUE(found) << param.getSymName().str() << " has no source";
    }
    for (const auto &[name, stored] : tensors)
      EXPECT_TRUE(named.count(name) || name.find("visual") != std::string::npos) << name << " is not used";
  }
  EXPECT_GE(folders, 5);
}

} // namespace
} // namespace qwen::compiler::testing
