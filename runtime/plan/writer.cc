#include "runtime/plan/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/plan/check.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/file_format.h"
#include "runtime/plan/plan.fbs.h"

namespace qwen::plan {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

/// The list of what `make` makes of each item.
template <class T, class Make>
auto List(FlatBufferBuilder& b, const std::vector<T>& items, Make make) {
  std::vector<decltype(make(items[0]))> offsets;
  offsets.reserve(items.size());
  for (const T& item : items) offsets.push_back(make(item));
  return b.CreateVector(offsets);
}

auto Strings(FlatBufferBuilder& b, const std::vector<std::string>& items) {
  return List(b, items, [&](const std::string& item) { return b.CreateString(item); });
}

fb::TensorType ToTensorType(std::string_view name) {
  for (fb::TensorType type : fb::EnumValuesTensorType())
    if (name == fb::EnumNameTensorType(type)) return type;
  return static_cast<fb::TensorType>(255);  // the reader refuses it
}

Offset<fb::Piece> Encode(FlatBufferBuilder& b, const Piece& piece) {
  auto tensor = b.CreateString(piece.tensor);
  std::vector<fb::TensorType> types;
  for (const std::string& dtype : piece.dtypes) types.push_back(ToTensorType(dtype));
  auto dtypes = b.CreateVector(types);
  auto shape = b.CreateVector(piece.shape);
  return fb::CreatePiece(b, tensor, piece.e_count, dtypes, shape, piece.view_rows, piece.view_cols, piece.src_row,
                         piece.src_col, piece.rows, piece.cols, piece.dst_row, piece.dst_col, piece.dst_row_step);
}

Offset<fb::Weight> Encode(FlatBufferBuilder& b, const Weight& weight) {
  auto name = b.CreateString(weight.name);
  auto scheme = b.CreateString(weight.scheme);
  auto shape = b.CreateVector(weight.shape);
  auto alternatives = List(b, weight.alternatives, [&](const Alternative& alternative) {
    auto pieces = List(b, alternative.pieces, [&](const Piece& piece) { return Encode(b, piece); });
    return fb::CreateAlternative(b, pieces);
  });
  return fb::CreateWeight(b, name, scheme, static_cast<fb::DType>(weight.dtype), shape,
                          static_cast<fb::Group>(weight.group), static_cast<fb::Transform>(weight.transform),
                          alternatives, weight.alias);
}

Offset<fb::Packed> Encode(FlatBufferBuilder& b, const Packed& packed) {
  auto slices = List(b, packed.slices, [&](const std::vector<Range>& list) {
    std::vector<fb::Range> ranges;
    for (const Range& range : list) ranges.emplace_back(range.begin, range.end);
    return fb::CreateSlices(b, b.CreateVectorOfStructs(ranges));
  });
  return fb::CreatePacked(b, packed.weight, packed.rank, static_cast<fb::Layout>(packed.layout), slices, packed.bytes,
                          packed.net_bytes);
}

Offset<fb::Kernel> Encode(FlatBufferBuilder& b, const Kernel& kernel) {
  auto name = b.CreateString(kernel.name);
  auto family = b.CreateString(kernel.family);
  auto entry = b.CreateString(kernel.entry);
  auto target = b.CreateString(kernel.target);
  auto spec = List(b, kernel.spec, [&](const Field& field) {
    auto field_name = b.CreateString(field.name);
    auto ints = b.CreateVector(field.ints);
    auto reals = b.CreateVector(field.reals);
    return fb::CreateField(b, field_name, static_cast<fb::FieldKind>(field.kind), ints, reals);
  });
  std::vector<fb::GridDim> grid;
  for (const GridDim& dim : kernel.launch.grid)
    grid.emplace_back(static_cast<fb::Count>(dim.count), dim.mul, dim.div, dim.max);
  return fb::CreateKernel(b, name, family, entry, target, spec, kernel.ptx, kernel.launch.threads,
                          kernel.launch.shared_bytes, b.CreateVectorOfStructs(grid));
}

Offset<fb::Buffer> Encode(FlatBufferBuilder& b, const Buffer& buffer) {
  auto name = b.CreateString(buffer.name);
  auto shape = b.CreateVector(buffer.shape);
  return fb::CreateBuffer(b, name, static_cast<fb::BufferKind>(buffer.kind), buffer.index, buffer.offset, buffer.bytes,
                          static_cast<fb::DType>(buffer.dtype), shape);
}

Offset<fb::Step> Encode(FlatBufferBuilder& b, const Step& step) {
  auto args = b.CreateVector(step.args);
  auto origin = b.CreateString(step.origin);
  return fb::CreateStep(b, static_cast<fb::StepKind>(step.kind), step.kernel, args, static_cast<fb::Part>(step.part),
                        step.waits, step.bytes, step.flops, origin);
}

Offset<fb::Port> Encode(FlatBufferBuilder& b, const Port& port) {
  return fb::CreatePort(b, b.CreateString(port.name), port.buffer);
}

Offset<fb::Program> Encode(FlatBufferBuilder& b, const Program& program) {
  auto name = b.CreateString(program.name);
  auto target = b.CreateString(program.target);
  auto buffers = List(b, program.buffers, [&](const Buffer& buffer) { return Encode(b, buffer); });
  auto inputs = List(b, program.inputs, [&](const Port& port) { return Encode(b, port); });
  auto outputs = List(b, program.outputs, [&](const Port& port) { return Encode(b, port); });
  auto steps = List(b, program.steps, [&](const Step& step) { return Encode(b, step); });
  return fb::CreateProgram(b, name, target, program.rank, program.max_rows, program.arena_bytes, program.scratch_bytes,
                           program.shared_bytes, buffers, inputs, outputs, steps);
}

Offset<fb::State> Encode(FlatBufferBuilder& b, const State& state) {
  auto kv_layers = List(b, state.kv_layers, [&](const KvLayer& layer) {
    return fb::CreateKvLayer(b, b.CreateString(layer.name), layer.offset, layer.kv_heads, layer.head_dim,
                             static_cast<fb::DType>(layer.dtype));
  });
  auto delta_layers = List(b, state.delta_layers, [&](const DeltaLayer& layer) {
    return fb::CreateDeltaLayer(b, b.CreateString(layer.name), layer.offset, layer.key_heads, layer.value_heads,
                                layer.key_dim, layer.value_dim, layer.width, static_cast<fb::DType>(layer.dtype));
  });
  return fb::CreateState(b, state.max_rows, state.fold_rows, state.ring_rows, state.conv_rows, state.page_bytes,
                         state.slot_bytes, state.base_bytes, state.ring_bytes, state.conv_bytes, kv_layers,
                         delta_layers);
}

void EncodeRoot(FlatBufferBuilder& b, const Plan& plan, const std::vector<fb::Blob>& blobs) {
  auto producer = b.CreateString(plan.producer);
  auto family = b.CreateString(plan.model.family);
  auto eos_ids = b.CreateVector(plan.model.eos_ids);
  auto prefixes = Strings(b, plan.model.prefixes);
  auto weights_dir = b.CreateString(plan.model.weights_dir);
  auto model =
      fb::CreateModel(b, family, static_cast<fb::DType>(plan.model.dtype), plan.model.hidden, plan.model.layers,
                      plan.model.vocab, plan.model.max_model_len, eos_ids, prefixes, weights_dir);
  const Capacity& c = plan.capacity;
  auto capacity = fb::CreateCapacity(b, c.max_num_seqs, c.max_num_batched_tokens, c.max_rows, c.max_logit_rows);
  auto targets = Strings(b, plan.targets);
  auto kernels = List(b, plan.kernels, [&](const Kernel& kernel) { return Encode(b, kernel); });
  auto weights = List(b, plan.weights, [&](const Weight& weight) { return Encode(b, weight); });
  auto packed = List(b, plan.packed, [&](const Packed& p) { return Encode(b, p); });
  auto programs = List(b, plan.programs, [&](const Program& program) { return Encode(b, program); });
  auto states = List(b, plan.states, [&](const State& state) { return Encode(b, state); });
  auto blob_list = b.CreateVectorOfStructs(blobs);
  // The digest is put in later; ForceDefaults keeps its place.
  b.Finish(fb::CreatePlan(b, producer, 0, plan.weights_digest, model, capacity, targets, plan.tp, kernels, weights,
                          packed, programs, states, blob_list));
}

}  // namespace

std::vector<uint8_t> EncodeUnchecked(Plan plan) {
  plan.weights_digest = WeightsDigest(plan);
  // Blobs lie behind the root, whose size does not depend on the values in it: encode once for the size.
  std::vector<fb::Blob> blobs(plan.blobs.size());
  uint64_t root_bytes = 0, file_bytes = 0;
  std::vector<uint8_t> file;
  for (bool sizing : {true, false}) {
    uint64_t at = kRootOffset + root_bytes;
    for (size_t i = 0; i < plan.blobs.size(); ++i) {
      const Blob& blob = plan.blobs[i];
      at = AlignFile(at);
      blobs[i] = fb::Blob(static_cast<fb::BlobKind>(blob.kind), at, blob.bytes.size(), Xxh3(blob.bytes));
      at += blob.bytes.size();
    }
    file_bytes = at;
    FlatBufferBuilder b(1 << 16);
    b.ForceDefaults(true);
    EncodeRoot(b, plan, blobs);
    root_bytes = b.GetSize();
    if (sizing) continue;

    std::span<uint8_t> root(b.GetBufferPointer(), b.GetSize());
    fb::GetMutablePlan(root.data())->mutate_digest(Xxh3(root));
    FileHeader header{.version = kPlanVersion,
                      .flags = 0,
                      .file_bytes = file_bytes,
                      .root_offset = kRootOffset,
                      .root_bytes = root_bytes,
                      .root_xxh3 = Xxh3(root)};
    std::memcpy(header.magic, kMagic, sizeof(header.magic));
    file.resize(file_bytes);
    std::memcpy(file.data(), &header, sizeof(header));
    std::memcpy(file.data() + kRootOffset, root.data(), root.size());
    for (size_t i = 0; i < plan.blobs.size(); ++i)
      std::copy(plan.blobs[i].bytes.begin(), plan.blobs[i].bytes.end(), file.begin() + blobs[i].offset());
  }
  return file;
}

StatusOr<std::vector<uint8_t>> SerializePlan(Plan plan) {
  if (Status status = CheckPlan(plan); !status.ok())
    return InternalError("plan to be written: " + status.message(), "this is a bug in the compiler");
  std::vector<uint8_t> file = EncodeUnchecked(std::move(plan));
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  if (header.root_bytes > kMaxRootBytes)
    return InternalError(
        fmt::format("plan to be written: root is {} bytes, the limit is {}", header.root_bytes, kMaxRootBytes));
  return file;
}

Status WritePlan(const Plan& plan, const std::string& path, bool overwrite) {
  QWEN_ASSIGN_OR_RETURN(std::vector<uint8_t> file, SerializePlan(plan));
  return WriteFileAtomic(path, std::string_view(reinterpret_cast<const char*>(file.data()), file.size()), overwrite);
}

}  // namespace qwen::plan
