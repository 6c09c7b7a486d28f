//===- Checkpoint.cpp ------------------------------------------------------===//

#include "Checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "compiler/import/Import.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include <nlohmann/json.hpp>

using namespace mlir;
using namespace qwen::ir;
using nlohmann::json;

namespace qwen::golden {

static const char *const kDir = QWEN_GOLDEN_DIR;

static StatusOr<std::string> readFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  if (!in || !(out << in.rdbuf()))
    return ResourceExhaustedError(path + ": cannot be read");
  return out.str();
}

int64_t StoredTensor::elements() const {
  int64_t count = 1;
  for (int64_t size : shape)
    count *= size;
  return count;
}

float StoredTensor::at(int64_t index) const {
  reference::Weight view{data, dtype == "BF16" ? reference::Type::kBf16 : reference::Type::kF32, elements(), 1};
  float value;
  view.Row(index, &value);
  return value;
}

StatusOr<TensorFiles> TensorFiles::open(const std::string &dir, const std::string &prefix) {
  TensorFiles files;
  for (const auto &entry : std::filesystem::directory_iterator(dir)) {
    std::string name = entry.path().filename();
    if (name.rfind(prefix, 0) != 0 || entry.path().extension() != ".safetensors")
      continue;
    QWEN_ASSIGN_OR_RETURN(std::string text, readFile(entry.path()));
    auto held = std::make_shared<const std::string>(std::move(text));
    uint64_t header;
    std::memcpy(&header, held->data(), 8);
    json root = json::parse(held->begin() + 8, held->begin() + 8 + header);
    for (const auto &[key, value] : root.items())
      if (key != "__metadata__")
        files.tensors[key] = {value["dtype"], value["shape"],
                              held->data() + 8 + header + value["data_offsets"][0].get<uint64_t>()};
    files.bytes.push_back(held);
  }
  if (files.bytes.empty())
    return ResourceExhaustedError(dir + ": has no " + prefix + "*.safetensors");
  return files;
}

const StoredTensor *TensorFiles::find(const std::string &name) const {
  auto it = tensors.find(name);
  return it == tensors.end() ? nullptr : &it->second;
}

std::vector<std::string> TensorFiles::names() const {
  std::vector<std::string> out;
  for (const auto &[name, tensor] : tensors)
    out.push_back(name);
  return out;
}

//===----------------------------------------------------------------------===//
// Weight map
//===----------------------------------------------------------------------===//

static int64_t integer(DictionaryAttr piece, StringRef key) { return piece.getAs<IntegerAttr>(key).getInt(); }

static std::string tensorName(DictionaryAttr piece, const std::string &prefix, int64_t e) {
  std::string name = piece.getAs<StringAttr>("tensor").str();
  for (auto [mark, text] : {std::pair<std::string, std::string>("{P}", prefix), {"{e}", std::to_string(e)}})
    if (size_t at = name.find(mark); at != std::string::npos)
      name.replace(at, mark.size(), text);
  return name;
}

static StatusOr<reference::OwnedWeight> resolve(model::ParamOp param, const TensorFiles &files,
                                                const std::string &prefix) {
  auto type = cast<RankedTensorType>(param.getType());
  int64_t cols = type.getShape().back(), rows = type.getNumElements() / cols;
  std::vector<float> numbers(rows * cols);
  std::vector<bool> written(rows * cols);
  for (Attribute alternative : param.getSources()) {
    auto pieces = cast<ArrayAttr>(alternative);
    bool all = llvm::all_of(pieces, [&](Attribute piece) {
      return files.find(tensorName(cast<DictionaryAttr>(piece), prefix, 0));
    });
    if (!all)
      continue;
    for (Attribute attribute : pieces) {
      auto piece = cast<DictionaryAttr>(attribute);
      for (int64_t e = 0; e < integer(piece, "e_count"); ++e) {
        const StoredTensor *tensor = files.find(tensorName(piece, prefix, e));
        if (!tensor || ArrayRef<int64_t>(tensor->shape) != piece.getAs<DenseI64ArrayAttr>("shape").asArrayRef())
          return DataLossError(tensorName(piece, prefix, e) + ": missing, or not of the shape that the map says");
        for (int64_t r = 0; r < integer(piece, "rows"); ++r)
          for (int64_t c = 0; c < integer(piece, "cols"); ++c) {
            int64_t from = (integer(piece, "src_row") + r) * integer(piece, "view_cols") + integer(piece, "src_col") + c;
            int64_t to = (integer(piece, "dst_row") + e * integer(piece, "dst_row_step") + r) * cols +
                         integer(piece, "dst_col") + c;
            numbers[to] = tensor->at(from) + (param.getTransform() == "one_plus" ? 1 : 0);
            written[to] = true;
          }
      }
    }
    if (llvm::is_contained(written, false))
      return DataLossError(param.getSymName().str() + ": its pieces leave a hole");
    return reference::OwnedWeight::copyOf(std::move(numbers), rows, cols);
  }
  return DataLossError(param.getSymName().str() + ": the checkpoint has none of its alternatives");
}

reference::WeightSource checkpointWeights(ModuleOp module, std::shared_ptr<const TensorFiles> files) {
  std::string prefix;
  if (auto prefixes = module->getAttrOfType<ArrayAttr>("model.prefixes"))
    for (Attribute attribute : prefixes)
      if (std::string candidate = cast<StringAttr>(attribute).str(); files->find(candidate + "embed_tokens.weight"))
        prefix = candidate;
  auto resolved = std::make_shared<std::map<std::string, reference::OwnedWeight>>();
  return [=](const std::string &name) mutable -> StatusOr<reference::OwnedWeight> {
    auto param = module.lookupSymbol<model::ParamOp>(name);
    if (!param)
      return InvalidArgumentError("the module has no param " + name);
    auto it = resolved->find(name);
    if (it == resolved->end()) {
      QWEN_ASSIGN_OR_RETURN(reference::OwnedWeight weight, resolve(param, *files, prefix));
      it = resolved->emplace(name, std::move(weight)).first;
    }
    return it->second;
  };
}

//===----------------------------------------------------------------------===//
// Goldens
//===----------------------------------------------------------------------===//

std::vector<std::string> goldenNames() {
  std::ifstream in(std::string(kDir) + "golden_list.txt");
  std::vector<std::string> names;
  for (std::string name; in >> name;)
    names.push_back(name);
  return names;
}

StatusOr<Golden> Golden::open(const std::string &name) {
  Golden golden;
  golden.name = name;
  golden.dir = kDir + name;
  QWEN_ASSIGN_OR_RETURN(std::string cases, readFile(golden.dir + "/cases.json"));
  golden.cases = json::parse(cases).get<std::vector<std::vector<int32_t>>>();
  QWEN_ASSIGN_OR_RETURN(golden.numbers, TensorFiles::open(golden.dir, "golden"));
  return golden;
}

reference::Tensor<float> Golden::tensor(const std::string &key) const {
  reference::Tensor<float> out;
  const StoredTensor *stored = numbers.find(key);
  if (!stored)
    return out;
  out.shape = {stored->shape[0], stored->elements() / stored->shape[0]};
  for (int64_t i = 0; i < stored->elements(); ++i)
    out.values.push_back(stored->at(i));
  return out;
}

std::vector<int32_t> Golden::ids(const std::string &key) const {
  const StoredTensor *stored = numbers.find(key);
  std::vector<int32_t> out(stored ? stored->elements() : 0);
  if (stored)
    std::memcpy(out.data(), stored->data, out.size() * 4);
  return out;
}

StatusOr<std::unique_ptr<Model>> Model::open(const Golden &golden) {
  auto model = std::make_unique<Model>();
  compiler::ImportOptions options;
  options.dtype = "f32";
  std::vector<std::string> warnings;
  QWEN_ASSIGN_OR_RETURN(model->module, compiler::importModel(model->context, golden.dir, options, warnings));
  QWEN_ASSIGN_OR_RETURN(TensorFiles files, TensorFiles::open(golden.dir, "model"));
  model->weights = checkpointWeights(*model->module, std::make_shared<const TensorFiles>(std::move(files)));
  return model;
}

bool Model::hasProgram(llvm::StringRef name) {
  return llvm::any_of(module->getOps<func::FuncOp>(), [&](func::FuncOp function) {
    auto program = function->getAttrOfType<StringAttr>(model::kProgramAttr);
    return program && program.getValue() == name;
  });
}

} // namespace qwen::golden
