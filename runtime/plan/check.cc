#include "runtime/plan/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "runtime/base/json.h"
#include "runtime/plan/layout.h"
#include "runtime/plan/safetensors.h"

namespace qwen::plan {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxName = 1024;  // bytes
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxRanges = 64;  // slices of one dimension
constexpr int32_t kMaxCapacity = 1 << 24;
constexpr int32_t kMaxRows = 1024;  // rows of a short sequence
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int32_t kMaxHeads = 1 << 16, kMaxHeadDim = 1 << 16;
// Of any device there is; the driver knows its own.
constexpr int32_t kMaxBlockThreads = 1024, kMaxBlockSharedBytes = 1 << 20;

template <class... Args>
Status Fail(fmt::format_string<Args...> format, Args&&... args) {
  return DataLossError("section " + fmt::format(format, std::forward<Args>(args)...));
}

/// Names reach terminals and logs: UTF-8 without control characters. That is what a JSON literal shows as it is but for
/// quotes and backslashes.
bool IsPrintable(const std::string& name) {
  const auto escaped = std::count_if(name.begin(), name.end(), [](char c) { return c == '"' || c == '\\'; });
  return JsonQuote(name).size() == name.size() + static_cast<size_t>(escaped) + 2;
}

Status CheckName(const std::string& name, const char* section, const char* what, bool may_be_empty = false) {
  if (name.empty() && !may_be_empty) return Fail("{}: {} has no name", section, what);
  if (name.size() > kMaxName)
    return Fail("{}: the name of {} has {} bytes, at most {}", section, what, name.size(), kMaxName);
  if (!IsPrintable(name)) return Fail("{}: the name of {} is not printable: {}", section, what, JsonQuote(name));
  return Status();
}

Status CheckRange(int64_t value, int64_t low, int64_t high, const char* section, std::string_view what) {
  if (value < low || value > high) return Fail("{}: {} is {}, want {} to {}", section, what, value, low, high);
  return Status();
}

Status CheckModel(const Plan& plan) {
  const Model& m = plan.model;
  QWEN_RETURN_IF_ERROR(CheckName(plan.producer, "plan", "its producer"));
  QWEN_RETURN_IF_ERROR(CheckName(m.family, "model", "its family"));
  if (m.dtype != DType::kF32 && m.dtype != DType::kBF16)
    return Fail("model: its type is {}, want f32 or bf16", DTypeName(m.dtype));
  QWEN_RETURN_IF_ERROR(CheckRange(m.hidden, 1, kMaxInt32, "model", "hidden"));
  QWEN_RETURN_IF_ERROR(CheckRange(m.layers, 1, kMaxInt32, "model", "layers"));
  QWEN_RETURN_IF_ERROR(CheckRange(m.vocab, 1, kMaxInt32, "model", "vocab"));
  QWEN_RETURN_IF_ERROR(CheckRange(m.max_model_len, 1, kMaxInt32, "model", "max_model_len"));
  for (int64_t id : m.eos_ids) QWEN_RETURN_IF_ERROR(CheckRange(id, 0, kMaxInt32, "model", "an eos id"));
  for (const std::string& prefix : m.prefixes)
    QWEN_RETURN_IF_ERROR(CheckName(prefix, "model", "a prefix", /*may_be_empty=*/true));
  // A path may be any bytes.
  if (m.weights_dir.size() > kMaxPath || m.weights_dir.find('\0') != std::string::npos)
    return Fail("model: weights_dir has {} bytes, at most {} and none of them 0", m.weights_dir.size(), kMaxPath);
  if (m.weights_dir.rfind('/', 0) == 0) return Fail("model: weights_dir is absolute, want relative to the plan");

  const Capacity& c = plan.capacity;
  QWEN_RETURN_IF_ERROR(CheckRange(c.max_num_seqs, 1, kMaxCapacity, "capacity", "max_num_seqs"));
  QWEN_RETURN_IF_ERROR(CheckRange(c.max_num_batched_tokens, 1, kMaxCapacity, "capacity", "max_num_batched_tokens"));
  QWEN_RETURN_IF_ERROR(CheckRange(c.max_rows, 1, kMaxRows, "capacity", "max_rows"));
  QWEN_RETURN_IF_ERROR(CheckRange(c.max_logit_rows, 0, c.max_num_batched_tokens, "capacity", "max_logit_rows"));

  QWEN_RETURN_IF_ERROR(CheckRange(plan.tp, 1, kMaxTp, "plan", "tp"));
  if (plan.targets.empty()) return Fail("plan: it has no target");
  std::set<std::string> targets;
  for (const std::string& target : plan.targets) {
    QWEN_RETURN_IF_ERROR(CheckName(target, "plan", "a target"));
    if (!targets.insert(target).second) return Fail("plan: target {} is there twice", target);
  }
  std::set<BlobKind> blobs;
  for (const Blob& blob : plan.blobs)
    if (blob.kind != BlobKind::kPtx && !blobs.insert(blob.kind).second) return Fail("blobs: kind {} is there twice", static_cast<int>(blob.kind));
  return Status();
}

// A kernel is built in and says nothing of a launch, or has PTX of its own and says how it is launched.
Status CheckLaunch(const Plan& plan, const Kernel& kernel, std::vector<bool>* used) {
  if (kernel.ptx == -1) {
    if (kernel.launch == LaunchShape{}) return {};
    return Fail("kernels: {} is built in, but says how it is launched", kernel.name);
  }
  QWEN_RETURN_IF_ERROR(CheckRange(kernel.ptx, 0, static_cast<int64_t>(plan.blobs.size()) - 1, "kernels", "a blob of PTX"));
  if (plan.blobs[kernel.ptx].kind != BlobKind::kPtx)
    return Fail("kernels: {} has blob {} for PTX, which is of kind {}", kernel.name, kernel.ptx,
                static_cast<int>(plan.blobs[kernel.ptx].kind));
  if ((*used)[kernel.ptx]) return Fail("kernels: {} shares blob {} with another", kernel.name, kernel.ptx);
  (*used)[kernel.ptx] = true;
  QWEN_RETURN_IF_ERROR(CheckRange(kernel.launch.threads, 1, kMaxBlockThreads, "kernels", "threads of a block"));
  QWEN_RETURN_IF_ERROR(
      CheckRange(kernel.launch.shared_bytes, 0, kMaxBlockSharedBytes, "kernels", "shared_bytes of a block"));
  for (const GridDim& dim : kernel.launch.grid)
    for (int64_t value : {dim.mul, dim.div, dim.max})
      QWEN_RETURN_IF_ERROR(CheckRange(value, 1, kMaxInt32, "kernels", "a number of a grid"));
  return {};
}

Status CheckKernels(const Plan& plan) {
  std::unordered_set<std::string_view> names;
  std::vector<bool> used(plan.blobs.size());
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const Kernel& kernel = plan.kernels[i];
    QWEN_RETURN_IF_ERROR(CheckName(kernel.name, "kernels", "a kernel"));
    QWEN_RETURN_IF_ERROR(CheckName(kernel.family, "kernels", "a family"));
    QWEN_RETURN_IF_ERROR(CheckName(kernel.entry, "kernels", "an entry"));
    if (!names.insert(kernel.name).second) return Fail("kernels: {} is there twice", kernel.name);
    if (std::find(plan.targets.begin(), plan.targets.end(), kernel.target) == plan.targets.end())
      return Fail("kernels: {} is for target {:?}, which the plan does not have", kernel.name, kernel.target);
    QWEN_RETURN_IF_ERROR(CheckLaunch(plan, kernel, &used));
    for (const Field& field : kernel.spec) {
      QWEN_RETURN_IF_ERROR(CheckName(field.name, "kernels", "a field"));
      using Kind = Field::Kind;
      const bool real = field.kind == Kind::kReal || field.kind == Kind::kReals;
      const size_t entries = real ? field.reals.size() : field.ints.size();
      if ((real ? field.ints.size() : field.reals.size()) != 0 ||
          ((field.kind == Kind::kInt || field.kind == Kind::kReal) && entries != 1))
        return Fail("kernels: field {} of {} has {} integers and {} reals, which is not its kind", field.name,
                    kernel.name, field.ints.size(), field.reals.size());
      for (double real_value : field.reals)
        if (!std::isfinite(real_value)) return Fail("kernels: field {} of {} is not finite", field.name, kernel.name);
    }
  }
  for (size_t i = 0; i < plan.blobs.size(); ++i)
    if (plan.blobs[i].kind == BlobKind::kPtx && !used[i]) return Fail("blobs: blob {} is PTX of no kernel", i);
  return Status();
}

Status CheckPiece(const Weight& weight, int64_t matrix_rows, int64_t matrix_cols, const Piece& p, int64_t* elements) {
  QWEN_RETURN_IF_ERROR(CheckName(p.tensor, "weights", "a tensor"));
  const std::string what = fmt::format("{}, tensor {}", weight.name, p.tensor);
  if (p.dtypes.empty()) return Fail("weights: {}: no type is accepted", what);
  for (const std::string& dtype : p.dtypes)
    if (!SafetensorsType(dtype)) return Fail("weights: {}: type {:?} is unknown", what, dtype);
  QWEN_RETURN_IF_ERROR(CheckRange(p.e_count, 1, kMaxExperts, "weights", what + ": e_count"));
  if (p.e_count > 1 && p.tensor.find("{e}") == std::string::npos)
    return Fail("weights: {}: stands for {} tensors, but has no {{e}}", what, p.e_count);
  if (p.shape.size() > kMaxDims)
    return Fail("weights: {}: has {} dimensions, at most {}", what, p.shape.size(), kMaxDims);
  for (int64_t value :
       {p.view_rows, p.view_cols, p.src_row, p.src_col, p.rows, p.cols, p.dst_row, p.dst_col, p.dst_row_step})
    QWEN_RETURN_IF_ERROR(CheckRange(value, 0, kMaxBytes, "weights", what + ": a row or column"));
  const std::optional<int64_t> stored = CheckedProduct(p.shape);
  const std::optional<int64_t> viewed = CheckedProduct({p.view_rows, p.view_cols});
  if (!stored || stored != viewed)
    return Fail("weights: {}: is seen as {} x {}, which is not its shape", what, p.view_rows, p.view_cols);
  // Every value is at most 2^48, so that sums of two cannot overflow.
  if (p.src_row + p.rows > p.view_rows || p.src_col + p.cols > p.view_cols)
    return Fail("weights: {}: takes rows [{}, {}) and columns [{}, {}) of {} x {}", what, p.src_row, p.src_row + p.rows,
                p.src_col, p.src_col + p.cols, p.view_rows, p.view_cols);
  const std::optional<int64_t> steps = CheckedProduct({p.e_count - 1, p.dst_row_step});
  if (!steps || *steps + p.dst_row + p.rows > matrix_rows || p.dst_col + p.cols > matrix_cols)
    return Fail("weights: {}: goes to rows [{}, {}) x {} every {} and columns [{}, {}) of {} x {}", what, p.dst_row,
                p.dst_row + p.rows, p.e_count, p.dst_row_step, p.dst_col, p.dst_col + p.cols, matrix_rows, matrix_cols);
  const std::optional<int64_t> filled = CheckedProduct({p.e_count, p.rows, p.cols});
  if (!filled) return Fail("weights: {}: is larger than {} elements", what, kMaxBytes);
  *elements += *filled;
  return Status();
}

Status CheckWeights(const Plan& plan) {
  std::unordered_set<std::string_view> names;
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Weight& weight = plan.weights[i];
    QWEN_RETURN_IF_ERROR(CheckName(weight.name, "weights", "a weight"));
    if (!names.insert(weight.name).second) return Fail("weights: {} is there twice", weight.name);
    if (!weight.scheme.empty())
      return UnimplementedError(fmt::format("section weights: {} has scheme {:?}, this build has plain weights only",
                                            weight.name, weight.scheme));
    if (weight.shape.empty() || weight.shape.size() > kMaxDims)
      return Fail("weights: {} has {} dimensions, want 1 to {}", weight.name, weight.shape.size(), kMaxDims);
    const std::optional<int64_t> elements = CheckedProduct(weight.shape);
    if (!elements || *elements == 0)
      return Fail("weights: {} has the shape [{}]", weight.name, fmt::join(weight.shape, ", "));

    if (weight.alias != -1) {
      if (weight.alias < 0 || weight.alias >= static_cast<int64_t>(plan.weights.size()))
        return Fail("weights: {} is an alias of weight {}, but the plan has {}", weight.name, weight.alias,
                    plan.weights.size());
      const Weight& target = plan.weights[weight.alias];
      if (target.alias != -1)
        return Fail("weights: {} is an alias of {}, which is an alias itself", weight.name, target.name);
      if (target.shape != weight.shape || target.dtype != weight.dtype || target.group != weight.group)
        return Fail("weights: {} is an alias of {}, but not of its shape, type and group", weight.name, target.name);
      continue;  // its own alternatives are never read
    }
    if (weight.alternatives.empty()) return Fail("weights: {} has no alternative", weight.name);
    const int64_t cols = weight.shape.back(), rows = *elements / cols;
    for (const Alternative& alternative : weight.alternatives) {
      if (alternative.pieces.empty()) return Fail("weights: {} has an alternative without pieces", weight.name);
      int64_t filled = 0;
      for (const Piece& piece : alternative.pieces) {
        QWEN_RETURN_IF_ERROR(CheckPiece(weight, rows, cols, piece, &filled));
        if (filled > *elements) break;  // before sums of many could overflow
      }
      if (filled != *elements)
        return Fail("weights: {}: an alternative fills {} elements of {}", weight.name, filled, *elements);
    }
  }
  return Status();
}

Status CheckPacked(const Plan& plan) {
  for (size_t i = 0; i < plan.packed.size(); ++i) {
    const Packed& packed = plan.packed[i];
    if (packed.weight < 0 || packed.weight >= static_cast<int64_t>(plan.weights.size()))
      return Fail("packed: entry {} is of weight {}, but the plan has {}", i, packed.weight, plan.weights.size());
    if (packed.rank < 0 || packed.rank >= plan.tp)
      return Fail("packed: entry {} is of rank {}, but the plan has {}", i, packed.rank, plan.tp);
    for (const std::vector<Range>& ranges : packed.slices)
      if (ranges.size() > kMaxRanges)
        return Fail("packed: entry {} has {} slices of a dimension, at most {}", i, ranges.size(), kMaxRanges);
    StatusOr<PackedSize> size = PackedBytes(plan.weights[packed.weight], packed);
    if (!size.ok()) return Fail("packed: entry {}: {}", i, size.status().message());
    if (packed.bytes != size->bytes || packed.net_bytes != size->net_bytes)
      return Fail("packed: entry {} ({}) has {} bytes, {} net; want {} and {}", i, plan.weights[packed.weight].name,
                  packed.bytes, packed.net_bytes, size->bytes, size->net_bytes);
  }
  return Status();
}

Status CheckState(const Plan& plan, int rank) {
  const State& s = plan.states[rank];
  State want;
  want.max_rows = plan.capacity.max_rows;
  LayOutState(&want);
  if (s.max_rows != want.max_rows || s.fold_rows != want.fold_rows || s.ring_rows != want.ring_rows ||
      s.conv_rows != want.conv_rows)
    return Fail("state: rank {} has {} rows, {} to fold, {} in the ring, {} in the convolution; want {}, {}, {}, {}",
                rank, s.max_rows, s.fold_rows, s.ring_rows, s.conv_rows, want.max_rows, want.fold_rows, want.ring_rows,
                want.conv_rows);
  for (int64_t bytes : {s.page_bytes, s.slot_bytes, s.base_bytes, s.ring_bytes, s.conv_bytes})
    QWEN_RETURN_IF_ERROR(CheckRange(bytes, 0, kMaxBytes, "state", fmt::format("a size of rank {}", rank)));
  if (s.page_bytes % kAlignment != 0 || s.slot_bytes % kAlignment != 0)
    return Fail("state: rank {} has pages of {} bytes and slots of {}, want multiples of {}", rank, s.page_bytes,
                s.slot_bytes, kAlignment);
  if (s.base_bytes + s.ring_bytes + s.conv_bytes != s.slot_bytes)
    return Fail("state: rank {} has slots of {} bytes, but parts of {}, {} and {}", rank, s.slot_bytes, s.base_bytes,
                s.ring_bytes, s.conv_bytes);

  std::unordered_set<std::string_view> names;
  // Layers lie one behind the other: no two share a byte.
  auto place = [&](const std::string& name, int64_t offset, int64_t bytes, int64_t limit, const char* of,
                   int64_t* end) -> Status {
    QWEN_RETURN_IF_ERROR(CheckName(name, "state", "a layer"));
    if (!names.insert(name).second) return Fail("state: rank {} has layer {} twice", rank, name);
    if (offset < *end || offset % kAlignment != 0 || offset > limit || bytes > limit - offset)
      return Fail("state: layer {} of rank {} has {} bytes at byte {}; the one before ends at {}, a {} has {}", name,
                  rank, bytes, offset, *end, of, limit);
    *end = offset + bytes;
    return Status();
  };
  int64_t end = 0;
  for (const KvLayer& layer : s.kv_layers) {
    QWEN_RETURN_IF_ERROR(CheckRange(layer.kv_heads, 0, kMaxHeads, "state", "kv_heads"));
    QWEN_RETURN_IF_ERROR(CheckRange(layer.head_dim, 1, kMaxHeadDim, "state", "head_dim"));
    QWEN_RETURN_IF_ERROR(place(layer.name, layer.offset, KvLayerBytes(layer), s.page_bytes, "page", &end));
  }
  end = 0;
  for (const DeltaLayer& layer : s.delta_layers) {
    QWEN_RETURN_IF_ERROR(CheckRange(layer.key_heads, 0, kMaxHeads, "state", "key_heads"));
    QWEN_RETURN_IF_ERROR(CheckRange(layer.value_heads, 0, kMaxHeads, "state", "value_heads"));
    if (layer.key_heads == 0 ? layer.value_heads != 0 : layer.value_heads % layer.key_heads != 0)
      return Fail("state: layer {} of rank {} has {} value heads, not a multiple of its {} key heads", layer.name, rank,
                  layer.value_heads, layer.key_heads);
    QWEN_RETURN_IF_ERROR(CheckRange(layer.key_dim, 1, kMaxHeadDim, "state", "key_dim"));
    QWEN_RETURN_IF_ERROR(CheckRange(layer.value_dim, 1, kMaxHeadDim, "state", "value_dim"));
    // A step keeps the last three rows of its predecessor.
    QWEN_RETURN_IF_ERROR(CheckRange(layer.width, 1, 4, "state", "width"));
    QWEN_RETURN_IF_ERROR(place(layer.name, layer.offset, DeltaLayerBytes(layer, s.ring_rows, s.conv_rows).bytes(),
                               s.slot_bytes, "slot", &end));
  }
  return Status();
}

/// Checks one program; `where` names it in messages.
class ProgramCheck {
 public:
  ProgramCheck(const Plan& plan, const Program& program)
      : plan_(plan), program_(program), where_(fmt::format("program {}, rank {}", program.name, program.rank)) {
    const State& state = plan.states[program.rank];
    for (const KvLayer& layer : state.kv_layers) caches_[layer.name] = {layer.offset, KvLayerBytes(layer)};
    for (const DeltaLayer& layer : state.delta_layers)
      caches_[layer.name] = {layer.offset, DeltaLayerBytes(layer, state.ring_rows, state.conv_rows).bytes()};
    // What a dimension of -1 counts is the kernel's business; it is one of these. Capacity 0 for logit rows means
    // tokens.
    const Capacity& c = plan.capacity;
    const int32_t logit_rows = c.max_logit_rows > 0 ? c.max_logit_rows : c.max_num_batched_tokens;
    least_rows_ = std::min({c.max_num_seqs, c.max_num_batched_tokens, logit_rows});
  }

  Status Run() {
    // A drafter keeps no recurrent state, so its block may be longer than what a ring can roll back.
    const bool drafts = program_.name.rfind("draft_", 0) == 0;
    QWEN_RETURN_IF_ERROR(CheckRange(program_.max_rows, 1, drafts ? kMaxRows : plan_.capacity.max_rows, "programs",
                                    where_ + ": max_rows"));
    for (int64_t bytes : {program_.arena_bytes, program_.scratch_bytes, program_.shared_bytes})
      QWEN_RETURN_IF_ERROR(CheckRange(bytes, 0, kMaxBytes, "programs", where_ + ": a size"));
    for (size_t i = 0; i < program_.buffers.size(); ++i) QWEN_RETURN_IF_ERROR(CheckBuffer(i));
    QWEN_RETURN_IF_ERROR(CheckPorts(program_.inputs, BufferKind::kInput, "input"));
    QWEN_RETURN_IF_ERROR(CheckPorts(program_.outputs, BufferKind::kOutput, "output"));
    for (size_t i = 0; i < program_.steps.size(); ++i) QWEN_RETURN_IF_ERROR(CheckStep(i));
    return Status();
  }

 private:
  Status CheckBuffer(size_t i) {
    const Buffer& b = program_.buffers[i];
    QWEN_RETURN_IF_ERROR(CheckName(b.name, "buffers", "a buffer", /*may_be_empty=*/true));
    const std::string what = fmt::format("{}: buffer {} ({})", where_, i, b.name);
    QWEN_RETURN_IF_ERROR(CheckRange(b.bytes, 0, kMaxBytes, "buffers", what + ": bytes"));
    QWEN_RETURN_IF_ERROR(CheckRange(b.offset, 0, kMaxBytes, "buffers", what + ": offset"));
    if (b.shape.size() > kMaxDims)
      return Fail("buffers: {} has {} dimensions, at most {}", what, b.shape.size(), kMaxDims);
    const bool indexed = b.kind == BufferKind::kWeight || b.kind == BufferKind::kInput || b.kind == BufferKind::kOutput;
    if (!indexed && b.index != -1) return Fail("buffers: {} has index {}, want -1", what, b.index);
    if (indexed && b.offset != 0) return Fail("buffers: {} has offset {}, want 0", what, b.offset);

    switch (b.kind) {
      case BufferKind::kArena:
        if (b.offset % kAlignment != 0)
          return Fail("buffers: {} is at byte {}, not a multiple of {}", what, b.offset, kAlignment);
        if (b.offset + b.bytes > program_.arena_bytes)
          return Fail("buffers: {} has {} bytes at byte {}, but the arena has {}", what, b.bytes, b.offset,
                      program_.arena_bytes);
        break;
      case BufferKind::kCache: {
        auto layer = caches_.find(b.name);
        if (layer == caches_.end()) return Fail("buffers: {} names no layer of the rank's state", what);
        if (b.offset != layer->second.first || b.bytes != layer->second.second)
          return Fail("buffers: {} has {} bytes at byte {}, but the layer has {} at {}", what, b.bytes, b.offset,
                      layer->second.second, layer->second.first);
        return Status();  // its order is the kernel's, not a shape
      }
      case BufferKind::kWeight: {
        if (b.index < 0 || b.index >= static_cast<int64_t>(plan_.packed.size()))
          return Fail("buffers: {} is packed weight {}, but the plan has {}", what, b.index, plan_.packed.size());
        const Packed& packed = plan_.packed[b.index];
        if (packed.rank != program_.rank) return Fail("buffers: {} is a weight of rank {}", what, packed.rank);
        if (packed.bytes != b.bytes)
          return Fail("buffers: {} has {} bytes, but the weight has {}", what, b.bytes, packed.bytes);
        break;
      }
      case BufferKind::kInput:
      case BufferKind::kOutput: {
        const std::vector<Port>& ports = b.kind == BufferKind::kInput ? program_.inputs : program_.outputs;
        if (b.index < 0 || b.index >= static_cast<int64_t>(ports.size()))
          return Fail("buffers: {} is port {}, but the program has {}", what, b.index, ports.size());
        if (ports[b.index].buffer != static_cast<int64_t>(i))
          return Fail("buffers: {} is port {}, but that is buffer {}", what, b.index, ports[b.index].buffer);
        break;
      }
    }

    std::vector<int64_t> factors = {DTypeBytes(b.dtype)};
    for (int64_t size : b.shape) {
      if (size < -1) return Fail("buffers: {} has a dimension of {}", what, size);
      factors.push_back(size == -1 ? least_rows_ : size);
    }
    const std::optional<int64_t> bytes = CheckedProduct(factors);
    if (!bytes || *bytes > b.bytes)
      return Fail("buffers: {} has {} bytes, too few for {} [{}]", what, b.bytes, DTypeName(b.dtype),
                  fmt::join(b.shape, ", "));
    return Status();
  }

  Status CheckPorts(const std::vector<Port>& ports, BufferKind kind, const char* what) {
    std::set<std::string_view> names;
    for (size_t i = 0; i < ports.size(); ++i) {
      QWEN_RETURN_IF_ERROR(CheckName(ports[i].name, "programs", "a port"));
      if (!names.insert(ports[i].name).second)
        return Fail("programs: {}: {} {} is there twice", where_, what, ports[i].name);
      const int64_t index = ports[i].buffer;
      if (index < 0 || index >= static_cast<int64_t>(program_.buffers.size()))
        return Fail("programs: {}: {} {} is buffer {}, but the program has {}", where_, what, ports[i].name, index,
                    program_.buffers.size());
      const Buffer& buffer = program_.buffers[index];
      if (buffer.kind != kind || buffer.index != static_cast<int64_t>(i))
        return Fail("programs: {}: {} {} is buffer {}, which is not that", where_, what, ports[i].name, index);
    }
    return Status();
  }

  Status CheckStep(size_t i) {
    const Step& step = program_.steps[i];
    if (step.kernel < 0 || step.kernel >= static_cast<int64_t>(plan_.kernels.size()))
      return Fail("steps: {}: step {} runs kernel {}, but the plan has {}", where_, i, step.kernel,
                  plan_.kernels.size());
    const Kernel& kernel = plan_.kernels[step.kernel];
    if (kernel.target != program_.target)
      return Fail("steps: {}: step {} runs {}, a kernel for target {}", where_, i, kernel.name, kernel.target);
    for (int32_t arg : step.args)
      if (arg < -1 || arg >= static_cast<int64_t>(program_.buffers.size()))
        return Fail("steps: {}: step {} reads buffer {}, but the program has {}", where_, i, arg,
                    program_.buffers.size());
    QWEN_RETURN_IF_ERROR(CheckRange(step.bytes, 0, std::numeric_limits<int64_t>::max(), "steps", "bytes of a step"));
    QWEN_RETURN_IF_ERROR(CheckRange(step.flops, 0, std::numeric_limits<int64_t>::max(), "steps", "flops of a step"));
    return CheckName(step.origin, "steps", "an origin", /*may_be_empty=*/true);
  }

  const Plan& plan_;
  const Program& program_;
  const std::string where_;
  std::unordered_map<std::string_view, std::pair<int64_t, int64_t>> caches_;  // offset, bytes
  int64_t least_rows_ = 0;
};

Status CheckPrograms(const Plan& plan) {
  // (target, name) → its rank's programs: every rank takes part in every program, and they meet at the same
  // collectives.
  std::map<std::pair<std::string_view, std::string_view>, std::vector<const Program*>> all;
  for (const Program& program : plan.programs) {
    QWEN_RETURN_IF_ERROR(CheckName(program.name, "programs", "a program"));
    if (std::find(plan.targets.begin(), plan.targets.end(), program.target) == plan.targets.end())
      return Fail("programs: {} is for target {:?}, which the plan does not have", program.name, program.target);
    if (program.rank < 0 || program.rank >= plan.tp)
      return Fail("programs: {} is of rank {}, but the plan has {}", program.name, program.rank, plan.tp);
    std::vector<const Program*>& ranks = all[{program.target, program.name}];
    ranks.resize(plan.tp);
    if (ranks[program.rank])
      return Fail("programs: {} of rank {} is there twice for {}", program.name, program.rank, program.target);
    ranks[program.rank] = &program;
  }
  for (const auto& [key, ranks] : all) {
    std::vector<std::string_view> first;
    for (int32_t rank = 0; rank < plan.tp; ++rank) {
      if (!ranks[rank])
        return Fail("programs: {} for {} has no rank {}, but the plan has {}", key.second, key.first, rank, plan.tp);
      QWEN_RETURN_IF_ERROR(ProgramCheck(plan, *ranks[rank]).Run());
      std::vector<std::string_view> collectives;
      for (const Step& step : ranks[rank]->steps)
        if (step.kind == StepKind::kCollective) collectives.push_back(plan.kernels[step.kernel].entry);
      if (rank == 0) {
        first = std::move(collectives);
      } else if (collectives != first) {
        return Fail("steps: program {}: rank {} has {} collectives, which are not the {} of rank 0", key.second, rank,
                    collectives.size(), first.size());
      }
    }
  }
  return Status();
}

}  // namespace

Status CheckPlan(const Plan& plan) {
  QWEN_RETURN_IF_ERROR(CheckModel(plan));
  QWEN_RETURN_IF_ERROR(CheckKernels(plan));
  QWEN_RETURN_IF_ERROR(CheckWeights(plan));
  QWEN_RETURN_IF_ERROR(CheckPacked(plan));
  if (plan.states.size() != static_cast<size_t>(plan.tp))
    return Fail("state: there are {} states, but {} ranks", plan.states.size(), plan.tp);
  for (int rank = 0; rank < plan.tp; ++rank) QWEN_RETURN_IF_ERROR(CheckState(plan, rank));
  return CheckPrograms(plan);
}

}  // namespace qwen::plan
