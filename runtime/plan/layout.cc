#include "runtime/plan/layout.h"

#include <fmt/format.h>

#include <algorithm>

namespace qwen::plan {
namespace {

constexpr int64_t kTileRows = 16, kTileColumnsBf16 = 32;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

std::optional<int64_t> CheckedProduct(std::span<const int64_t> factors) {
  int64_t product = 1;
  bool zero = false;
  for (int64_t factor : factors) {
    if (factor < 0 || factor > kMaxBytes) return std::nullopt;
    if (factor == 0) {
      zero = true;
    } else if (product > kMaxBytes / factor) {
      return std::nullopt;
    } else {
      product *= factor;
    }
  }
  return zero ? 0 : product;
}

StatusOr<std::vector<int64_t>> PackedShape(const Weight& weight, const Packed& packed) {
  if (!packed.slices.empty() && packed.slices.size() != weight.shape.size())
    return DataLossError(fmt::format("{} has {} dimensions, but {} lists of slices", weight.name, weight.shape.size(),
                                     packed.slices.size()));
  std::vector<int64_t> shape = weight.shape;
  for (size_t d = 0; d < packed.slices.size(); ++d) {
    if (packed.slices[d].empty()) continue;
    int64_t rows = 0, end = 0;
    for (const Range& range : packed.slices[d]) {
      if (range.begin < end || range.end < range.begin || range.end > weight.shape[d])
        return DataLossError(fmt::format("{} slices [{}, {}) of dimension {} after {}, which has {} rows", weight.name,
                                         range.begin, range.end, d, end, weight.shape[d]));
      rows += range.end - range.begin;
      end = range.end;
    }
    shape[d] = rows;
  }
  return shape;
}

StatusOr<PackedSize> PackedBytes(const Weight& weight, const Packed& packed) {
  QWEN_ASSIGN_OR_RETURN(std::vector<int64_t> shape, PackedShape(weight, packed));
  const int64_t element = packed.layout == Layout::kVector ? DTypeBytes(DType::kF32) : DTypeBytes(weight.dtype);
  std::vector<int64_t> factors = shape;
  factors.push_back(element);
  std::optional<int64_t> net = CheckedProduct(factors);
  std::optional<int64_t> bytes = net;
  if (net && packed.layout == Layout::kTile16) {
    if (shape.size() < 2) return DataLossError(fmt::format("{} is a vector, tiles need a matrix", weight.name));
    if (weight.dtype != DType::kF32 && weight.dtype != DType::kBF16)
      return DataLossError(fmt::format("{} is {}, tiles are f32 or bf16", weight.name, DTypeName(weight.dtype)));
    int64_t& rows = factors[shape.size() - 2];
    int64_t& columns = factors[shape.size() - 1];
    rows = RoundUp(rows, kTileRows);
    if (weight.dtype == DType::kBF16) columns = RoundUp(columns, kTileColumnsBf16);
    bytes = CheckedProduct(factors);
  }
  if (!net || !bytes) return DataLossError(fmt::format("{} is larger than {} bytes", weight.name, kMaxBytes));
  return PackedSize{.bytes = *bytes, .net_bytes = *net};
}

int64_t KvLayerBytes(const KvLayer& layer) {
  return 2LL * layer.kv_heads * kPageTokens * layer.head_dim * DTypeBytes(layer.dtype);
}

DeltaLayerSize DeltaLayerBytes(const DeltaLayer& layer, int32_t ring_rows, int32_t conv_rows) {
  const int64_t key = int64_t{layer.key_heads} * layer.key_dim, value = int64_t{layer.value_heads} * layer.value_dim;
  DeltaLayerSize size;
  size.base = RoundUp(4 * value * layer.key_dim, kAlignment);
  size.ring = RoundUp(4 * (key + value + layer.value_heads) * ring_rows, kAlignment);
  size.conv = RoundUp(DTypeBytes(layer.dtype) * (2 * key + value) * conv_rows, kAlignment);
  return size;
}

void LayOutState(State* state) {
  state->fold_rows = std::max(state->max_rows, 8);
  state->ring_rows = state->fold_rows + state->max_rows;
  state->conv_rows = 3 + state->max_rows;
  int64_t at = 0;
  for (KvLayer& layer : state->kv_layers) {
    layer.offset = at;
    at += RoundUp(KvLayerBytes(layer), kAlignment);
  }
  state->page_bytes = at;
  at = 0;
  state->base_bytes = state->ring_bytes = state->conv_bytes = 0;
  for (DeltaLayer& layer : state->delta_layers) {
    const DeltaLayerSize size = DeltaLayerBytes(layer, state->ring_rows, state->conv_rows);
    layer.offset = at;
    at += size.bytes();
    state->base_bytes += size.base;
    state->ring_bytes += size.ring;
    state->conv_bytes += size.conv;
  }
  state->slot_bytes = at;
}

}  // namespace qwen::plan
