//===- RandomInputs.cpp ----------------------------------------------------===//

#include "compiler/reference/RandomInputs.h"

#include <random>

namespace qwen::reference {

OwnedWeight randomWeight(const std::string &name, Type type, int64_t rows, int64_t cols, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325 ^ seed; // FNV-1a
  for (char c : name)
    hash = (hash ^ uint8_t(c)) * 0x100000001b3;
  std::mt19937_64 generator(hash);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> unit;
  llvm::StringRef id = name;
  auto draw = [&]() -> float {
    if (id.ends_with("a_log"))
      return std::log(0.01f) + unit(generator) * std::log(1600.0f);
    if (id.ends_with("dt_bias"))
      return -4 + 6 * unit(generator);
    if (id.contains("norm"))
      return 1 + 0.2f * normal(generator);
    if (id == "embed")
      return normal(generator);
    // Router logits far apart: fewer tokens whose choice of experts hangs on the last bits.
    return normal(generator) * (id.ends_with("moe.router") ? 2.0f : 0.9f) / std::sqrt(float(cols));
  };
  auto bytes = std::make_shared<std::vector<char>>(rows * cols * BytesOf(type));
  for (int64_t i = 0; i < rows * cols; ++i) {
    float value = draw();
    uint16_t half = ToBf16(value);
    if (type == Type::kBf16)
      std::memcpy(bytes->data() + 2 * i, &half, 2);
    else
      std::memcpy(bytes->data() + 4 * i, &value, 4);
  }
  return {{bytes->data(), type, rows, cols}, bytes};
}

WeightSource randomWeights(mlir::ModuleOp module, uint64_t seed) {
  return [module, seed](const std::string &name) mutable -> StatusOr<OwnedWeight> {
    auto param = module.lookupSymbol<ir::model::ParamOp>(name);
    if (!param)
      return InvalidArgumentError("the module has no param " + name);
    auto type = mlir::cast<mlir::RankedTensorType>(param.getType());
    int64_t cols = type.getShape().back(), rows = cols ? type.getNumElements() / cols : 0;
    return randomWeight(name, type.getElementType().isBF16() ? Type::kBf16 : Type::kF32, rows, cols, seed);
  };
}

std::vector<int32_t> randomIds(int64_t count, int64_t vocab, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> ids(count);
  for (int32_t &id : ids)
    id = int32_t(generator() % uint64_t(vocab));
  return ids;
}

} // namespace qwen::reference
