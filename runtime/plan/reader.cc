#include "runtime/plan/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include "runtime/base/file.h"
#include "runtime/plan/check.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/file_format.h"
#include "runtime/plan/plan.fbs.h"

namespace qwen::plan {
namespace {

// The file's enums count like ours, so that a checked value can be cast.
static_assert(static_cast<int>(fb::DType::MAX) + 1 == kNumDTypes);
static_assert(static_cast<int>(fb::Group::MAX) == static_cast<int>(Group::kDraft));
static_assert(static_cast<int>(fb::Transform::MAX) == static_cast<int>(Transform::kToF32));
static_assert(static_cast<int>(fb::Layout::MAX) == static_cast<int>(Layout::kTile16));
static_assert(static_cast<int>(fb::FieldKind::MAX) == static_cast<int>(Field::Kind::kReals));
static_assert(static_cast<int>(fb::BufferKind::MAX) == static_cast<int>(BufferKind::kOutput));
static_assert(static_cast<int>(fb::StepKind::MAX) == static_cast<int>(StepKind::kCollective));
static_assert(static_cast<int>(fb::Part::MAX) == static_cast<int>(Part::kLogitRows));
static_assert(static_cast<int>(fb::BlobKind::MAX) == static_cast<int>(BlobKind::kPtx));
static_assert(static_cast<int>(fb::Count::MAX) == static_cast<int>(Count::kLongSeqs));

/// Copies the root into plain values. The first failure sticks; what is returned after it is thrown away.
///
/// FlatBuffers lets many references lead to one string or list, so a small file could unfold into a huge plan. Ours are
/// written without sharing: everything copied together is never more than the root, and that is the budget.
class Decoder {
 public:
  explicit Decoder(uint64_t budget) : root_bytes_(budget), budget_(budget) {}

  const Status& status() const { return status_; }

  /// The first one sticks.
  void Fail(std::string message) {
    if (status_.ok()) status_ = DataLossError(std::move(message));
  }

  template <class To, class From>
  To Enum(From value, const char* section, const char* what) {
    if (value < From::MIN || value > From::MAX)
      Fail(fmt::format("section {}: {} is {}, the last one known is {}", section, what, static_cast<int>(value),
                       static_cast<int>(From::MAX)));
    return static_cast<To>(value);
  }

  std::string String(const flatbuffers::String* s) {
    if (!Spend(s->size())) return {};
    return s->str();
  }

  /// Numbers or structs, copied as bytes: FlatBuffers' verifier does not see to it that their lists are aligned.
  template <class T>
  std::vector<std::remove_const_t<std::remove_pointer_t<T>>> Plain(const flatbuffers::Vector<T>* list) {
    using Item = std::remove_const_t<std::remove_pointer_t<T>>;
    if (!Spend(uint64_t{list->size()} * sizeof(Item))) return {};
    std::vector<Item> out(list->size());
    if (!out.empty()) std::memcpy(out.data(), list->Data(), out.size() * sizeof(Item));
    return out;
  }

  /// The list of what `make` makes of each entry.
  template <class List, class Make>
  auto Items(const List* list, Make make) {
    std::vector<decltype(make(list->Get(0)))> out;
    // An entry takes at least the four bytes of its offset.
    if (!Spend(uint64_t{list->size()} * 4)) return out;
    out.reserve(list->size());
    for (uint32_t i = 0; i < list->size() && status_.ok(); ++i) out.push_back(make(list->Get(i)));
    return out;
  }

  std::vector<std::string> Strings(const flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>* list) {
    return Items(list, [&](const flatbuffers::String* s) { return String(s); });
  }

 private:
  bool Spend(uint64_t bytes) {
    if (!status_.ok()) return false;
    if (bytes > budget_) {
      Fail(fmt::format("section root: its strings and lists unfold to more than its {} bytes", root_bytes_));
      return false;
    }
    budget_ -= bytes;
    return true;
  }

  uint64_t root_bytes_, budget_;
  Status status_;
};

Piece Decode(Decoder& d, const fb::Piece* piece) {
  Piece out;
  out.tensor = d.String(piece->tensor());
  out.e_count = piece->e_count();
  for (fb::TensorType type : d.Plain(piece->dtypes())) {
    d.Enum<fb::TensorType>(type, "weights", "a piece's type");
    out.dtypes.emplace_back(fb::EnumNameTensorType(type));
  }
  out.shape = d.Plain(piece->shape());
  out.view_rows = piece->view_rows();
  out.view_cols = piece->view_cols();
  out.src_row = piece->src_row();
  out.src_col = piece->src_col();
  out.rows = piece->rows();
  out.cols = piece->cols();
  out.dst_row = piece->dst_row();
  out.dst_col = piece->dst_col();
  out.dst_row_step = piece->dst_row_step();
  return out;
}

Weight Decode(Decoder& d, const fb::Weight* weight) {
  Weight out;
  out.name = d.String(weight->name());
  out.scheme = d.String(weight->scheme());
  out.dtype = d.Enum<DType>(weight->dtype(), "weights", "a type");
  out.shape = d.Plain(weight->shape());
  out.group = d.Enum<Group>(weight->group(), "weights", "a group");
  out.transform = d.Enum<Transform>(weight->transform(), "weights", "a transform");
  out.alternatives = d.Items(weight->alternatives(), [&](const fb::Alternative* alternative) {
    return Alternative{d.Items(alternative->pieces(), [&](const fb::Piece* piece) { return Decode(d, piece); })};
  });
  out.alias = weight->alias();
  return out;
}

Packed Decode(Decoder& d, const fb::Packed* packed) {
  Packed out;
  out.weight = packed->weight();
  out.rank = packed->rank();
  out.layout = d.Enum<Layout>(packed->layout(), "packed", "a layout");
  out.slices = d.Items(packed->slices(), [&](const fb::Slices* slices) {
    std::vector<Range> ranges;
    for (const fb::Range& range : d.Plain(slices->ranges())) ranges.push_back({range.begin(), range.end()});
    return ranges;
  });
  out.bytes = packed->bytes();
  out.net_bytes = packed->net_bytes();
  return out;
}

Kernel Decode(Decoder& d, const fb::Kernel* kernel) {
  Kernel out;
  out.name = d.String(kernel->name());
  out.family = d.String(kernel->family());
  out.entry = d.String(kernel->entry());
  out.target = d.String(kernel->target());
  out.spec = d.Items(kernel->spec(), [&](const fb::Field* field) {
    Field f;
    f.name = d.String(field->name());
    f.kind = d.Enum<Field::Kind>(field->kind(), "kernels", "a field's kind");
    f.ints = d.Plain(field->ints());
    f.reals = d.Plain(field->reals());
    return f;
  });
  out.ptx = kernel->ptx();
  out.launch.threads = kernel->threads();
  out.launch.shared_bytes = kernel->shared_bytes();
  const std::vector<fb::GridDim> grid = d.Plain(kernel->grid());
  if (grid.size() != std::size(out.launch.grid))
    d.Fail(fmt::format("section kernels: {} has a grid of {} dimensions, want {}", out.name, grid.size(),
                       std::size(out.launch.grid)));
  for (size_t i = 0; i < grid.size() && i < std::size(out.launch.grid); ++i)
    out.launch.grid[i] = {.count = d.Enum<Count>(grid[i].count(), "kernels", "what a grid counts"),
                          .mul = grid[i].mul(),
                          .div = grid[i].div(),
                          .max = grid[i].max()};
  return out;
}

Buffer Decode(Decoder& d, const fb::Buffer* buffer) {
  Buffer out;
  out.name = d.String(buffer->name());
  out.kind = d.Enum<BufferKind>(buffer->kind(), "buffers", "a kind");
  out.index = buffer->index();
  out.offset = buffer->offset();
  out.bytes = buffer->bytes();
  out.dtype = d.Enum<DType>(buffer->dtype(), "buffers", "a type");
  out.shape = d.Plain(buffer->shape());
  return out;
}

Step Decode(Decoder& d, const fb::Step* step) {
  Step out;
  out.kind = d.Enum<StepKind>(step->kind(), "steps", "a kind");
  out.kernel = step->kernel();
  out.args = d.Plain(step->args());
  out.part = d.Enum<Part>(step->part(), "steps", "a part");
  out.waits = step->waits();
  out.bytes = step->bytes();
  out.flops = step->flops();
  out.origin = d.String(step->origin());
  return out;
}

Program Decode(Decoder& d, const fb::Program* program) {
  auto port = [&](const fb::Port* p) { return Port{.name = d.String(p->name()), .buffer = p->buffer()}; };
  Program out;
  out.name = d.String(program->name());
  out.target = d.String(program->target());
  out.rank = program->rank();
  out.max_rows = program->max_rows();
  out.arena_bytes = program->arena_bytes();
  out.scratch_bytes = program->scratch_bytes();
  out.shared_bytes = program->shared_bytes();
  out.buffers = d.Items(program->buffers(), [&](const fb::Buffer* buffer) { return Decode(d, buffer); });
  out.inputs = d.Items(program->inputs(), port);
  out.outputs = d.Items(program->outputs(), port);
  out.steps = d.Items(program->steps(), [&](const fb::Step* step) { return Decode(d, step); });
  return out;
}

State Decode(Decoder& d, const fb::State* state) {
  State out;
  out.max_rows = state->max_rows();
  out.fold_rows = state->fold_rows();
  out.ring_rows = state->ring_rows();
  out.conv_rows = state->conv_rows();
  out.page_bytes = state->page_bytes();
  out.slot_bytes = state->slot_bytes();
  out.base_bytes = state->base_bytes();
  out.ring_bytes = state->ring_bytes();
  out.conv_bytes = state->conv_bytes();
  out.kv_layers = d.Items(state->kv_layers(), [&](const fb::KvLayer* layer) {
    return KvLayer{.name = d.String(layer->name()),
                   .offset = layer->offset(),
                   .kv_heads = layer->kv_heads(),
                   .head_dim = layer->head_dim(),
                   .dtype = d.Enum<DType>(layer->dtype(), "state", "a type")};
  });
  out.delta_layers = d.Items(state->delta_layers(), [&](const fb::DeltaLayer* layer) {
    return DeltaLayer{.name = d.String(layer->name()),
                      .offset = layer->offset(),
                      .key_heads = layer->key_heads(),
                      .value_heads = layer->value_heads(),
                      .key_dim = layer->key_dim(),
                      .value_dim = layer->value_dim(),
                      .width = layer->width(),
                      .dtype = d.Enum<DType>(layer->dtype(), "state", "a type")};
  });
  return out;
}

Plan Decode(Decoder& d, const fb::Plan* root) {
  Plan plan;
  plan.producer = d.String(root->producer());
  plan.digest = root->digest();
  plan.weights_digest = root->weights_digest();
  const fb::Model* model = root->model();
  plan.model.family = d.String(model->family());
  plan.model.dtype = d.Enum<DType>(model->dtype(), "model", "its type");
  plan.model.hidden = model->hidden();
  plan.model.layers = model->layers();
  plan.model.vocab = model->vocab();
  plan.model.max_model_len = model->max_model_len();
  plan.model.eos_ids = d.Plain(model->eos_ids());
  plan.model.prefixes = d.Strings(model->prefixes());
  plan.model.weights_dir = d.String(model->weights_dir());
  const fb::Capacity* capacity = root->capacity();
  plan.capacity = {.max_num_seqs = capacity->max_num_seqs(),
                   .max_num_batched_tokens = capacity->max_num_batched_tokens(),
                   .max_rows = capacity->max_rows(),
                   .max_logit_rows = capacity->max_logit_rows()};
  plan.targets = d.Strings(root->targets());
  plan.tp = root->tp();
  auto decode = [&](const auto* item) { return Decode(d, item); };
  plan.kernels = d.Items(root->kernels(), decode);
  plan.weights = d.Items(root->weights(), decode);
  plan.packed = d.Items(root->packed(), decode);
  plan.programs = d.Items(root->programs(), decode);
  plan.states = d.Items(root->states(), decode);
  return plan;
}

bool AllZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

/// Blobs lie behind the root in the order of their list, each at the next multiple of 64, and end the file.
Status ReadBlobs(std::span<const uint8_t> file, const FileHeader& header, const std::vector<fb::Blob>& list,
                 const ReaderOptions& options, Decoder& d, std::vector<Blob>* out) {
  uint64_t end = header.root_offset + header.root_bytes;
  for (size_t i = 0; i < list.size(); ++i) {
    const fb::Blob& blob = list[i];
    const uint64_t at = AlignFile(end);
    if (blob.offset() != at)
      return DataLossError(fmt::format("section blobs: blob {} is at byte {}, want {}", i, blob.offset(), at));
    if (at > file.size() || blob.bytes() > file.size() - at)
      return DataLossError(fmt::format("section blobs: blob {} has {} bytes at byte {}, but the file has {}", i,
                                       blob.bytes(), at, file.size()));
    if (!AllZero(file.subspan(end, at - end)))
      return DataLossError(fmt::format("section blobs: the bytes in front of blob {} are not zero", i));
    const std::span<const uint8_t> bytes = file.subspan(at, blob.bytes());
    if (uint64_t sum = Xxh3(bytes); options.check_sums && sum != blob.xxh3())
      return DataLossError(
          fmt::format("section blobs: blob {} has checksum {:016x}, want {:016x}", i, sum, blob.xxh3()));
    out->push_back({.kind = d.Enum<BlobKind>(blob.kind(), "blobs", "a kind"), .bytes = {bytes.begin(), bytes.end()}});
    end = at + blob.bytes();
  }
  if (end != file.size())
    return DataLossError(
        fmt::format("section blobs: the last one ends at byte {}, but the file has {}", end, file.size()));
  return Status();
}

StatusOr<FileHeader> ReadHeader(std::span<const uint8_t> file) {
  FileHeader header;
  if (file.size() < sizeof(header.magic) || std::memcmp(file.data(), kMagic, sizeof(header.magic)) != 0)
    return DataLossError("is not a plan file: it does not begin with QWENPLAN");
  if (file.size() < sizeof(header))
    return DataLossError(
        fmt::format("section header: the file has {} bytes, a header {}", file.size(), sizeof(header)));
  std::memcpy(&header, file.data(), sizeof(header));
  if (header.version != kPlanVersion)
    return UnimplementedError(
        fmt::format("is a plan of version {}, this build reads version {}", header.version, kPlanVersion),
        "compile it again with the qwenc of this build");
  if (header.file_bytes != file.size())
    return DataLossError(fmt::format("section header: the file has {} bytes, want {}", file.size(), header.file_bytes),
                         header.file_bytes > file.size() ? "it was cut off while being written or copied" : "");
  if (header.flags != 0)
    return DataLossError(
        fmt::format("section header: flags are {:#x}, version {} has none", header.flags, kPlanVersion));
  if (header.root_offset != kRootOffset)
    return DataLossError(
        fmt::format("section header: the root is at byte {}, want {}", header.root_offset, kRootOffset));
  if (file.size() < kRootOffset || header.root_bytes > file.size() - kRootOffset || header.root_bytes > kMaxRootBytes)
    return DataLossError(fmt::format("section header: the root has {} bytes, but the file has {} and the limit is {}",
                                     header.root_bytes, file.size(), kMaxRootBytes));
  if (!AllZero(file.subspan(sizeof(header), kRootOffset - sizeof(header))))
    return DataLossError("section header: the bytes between header and root are not zero");
  return header;
}

StatusOr<Plan> Parse(std::span<const uint8_t> file, const ReaderOptions& options) {
  QWEN_ASSIGN_OR_RETURN(const FileHeader header, ReadHeader(file));
  const std::span<const uint8_t> stored = file.subspan(header.root_offset, header.root_bytes);
  if (uint64_t sum = Xxh3(stored); options.check_sums && sum != header.root_xxh3)
    return DataLossError(fmt::format("section root: its checksum is {:016x}, want {:016x}", sum, header.root_xxh3));
  if (stored.size() < 8) return DataLossError(fmt::format("section root: it has {} bytes, too few", stored.size()));

  // A checksum proves that the file is as somebody wrote it, not that we did. The copy is aligned, as the accessors
  // need.
  std::unique_ptr<uint64_t[]> copy(new uint64_t[(stored.size() + 7) / 8]);
  const std::span<uint8_t> root(reinterpret_cast<uint8_t*>(copy.get()), stored.size());
  std::copy(stored.begin(), stored.end(), root.begin());
  flatbuffers::Verifier::Options limits;
  limits.max_depth = 16;
  // A table takes 8 bytes at least, with what refers to it; a file that counts more visits one more than once.
  limits.max_tables = static_cast<flatbuffers::uoffset_t>(root.size() / 8 + 1);
  flatbuffers::Verifier verifier(root.data(), root.size(), limits);
  if (!fb::VerifyPlanBuffer(verifier)) return DataLossError("section root: its offsets and sizes do not fit together");

  Decoder d(root.size());
  Plan plan = Decode(d, fb::GetPlan(root.data()));
  const std::vector<fb::Blob> blobs = d.Plain(fb::GetPlan(root.data())->blobs());
  QWEN_RETURN_IF_ERROR(d.status());
  QWEN_RETURN_IF_ERROR(ReadBlobs(file, header, blobs, options, d, &plan.blobs));
  QWEN_RETURN_IF_ERROR(d.status());

  if (options.check_sums) {
    if (uint64_t digest = WeightsDigest(plan); digest != plan.weights_digest)
      return DataLossError(
          fmt::format("section weights: their digest is {:016x}, want {:016x}", digest, plan.weights_digest));
    if (!fb::GetMutablePlan(root.data())->mutate_digest(0) || Xxh3(root) != plan.digest)
      return DataLossError(fmt::format("section root: its digest is not {:016x}", plan.digest));
  }
  QWEN_RETURN_IF_ERROR(CheckPlan(plan));
  return plan;
}

}  // namespace

StatusOr<Plan> ParsePlan(std::span<const uint8_t> file, const std::string& name, const ReaderOptions& options) {
  StatusOr<Plan> plan = Parse(file, options);
  if (plan.ok()) return plan;
  const Status& status = plan.status();
  // "model.plan, section steps: ...", but "model.plan: is not a plan file".
  const bool section = status.message().rfind("section ", 0) == 0;
  return Status(status.code(), name + (section ? ", " : ": ") + status.message(), status.hint());
}

StatusOr<Plan> ReadPlan(const std::string& path) {
  QWEN_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kMaxFileBytes));
  return ParsePlan({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, path);
}

}  // namespace qwen::plan
