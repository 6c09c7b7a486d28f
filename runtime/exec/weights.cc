#include "runtime/exec/weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <string_view>
#include <tuple>

#include "runtime/base/thread_pool.h"
#include "runtime/exec/mapped_file.h"
#include "runtime/kernels/formats/convert.h"
#include "runtime/kernels/formats/pack.h"
#include "runtime/plan/weight_map.h"

namespace qwen::exec {
namespace {

// A weight is a matrix: its last dimension's columns, all other dimensions' rows.
int64_t Columns(const plan::Weight& weight) { return weight.shape.back(); }
int64_t MatrixRows(const plan::Weight& weight) {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < weight.shape.size(); ++d) rows *= weight.shape[d];
  return rows;
}

/// Where a weight's rows come from, in the weight's type.
class RowSource {
 public:
  virtual ~RowSource() = default;
  /// Row `row` of the matrix: in place where it lies as it is wanted, else made in `buffer`. `floats` is room for a row
  /// in f32. No alignment. Called by several threads.
  virtual const uint8_t* Row(int64_t row, uint8_t* buffer, float* floats) const = 0;
};

class PlainRows : public RowSource {
 public:
  PlainRows(const uint8_t* bytes, int64_t row_bytes) : bytes_(bytes), row_bytes_(row_bytes) {}
  const uint8_t* Row(int64_t row, uint8_t*, float*) const override { return bytes_ + row * row_bytes_; }

 private:
  const uint8_t* bytes_;
  int64_t row_bytes_;
};

// --- Packing ---------------------------------------------------------------------------------------------------------

/// What `packed` takes of dimension `d`.
std::vector<plan::Range> RangesOf(const plan::Weight& weight, const plan::Packed& packed, size_t d) {
  if (d < packed.slices.size() && !packed.slices[d].empty()) return packed.slices[d];
  return {{0, weight.shape[d]}};
}

/// The rows and columns that a rank takes of a weight, and the pieces its work falls into: groups of 16 rows for tiles,
/// else rows. Any thread can pack any unit.
class Packer {
 public:
  Packer(const plan::Weight& weight, const plan::Packed& packed) : weight_(weight), layout_(packed.layout) {
    const size_t dims = weight.shape.size();
    auto ranges = [&](size_t d) { return RangesOf(weight, packed, d); };
    columns_ = ranges(dims - 1);
    for (const plan::Range& range : columns_) num_columns_ += range.end - range.begin;
    // The dimension in front of the columns, and what is in front of that: experts.
    if (dims >= 2) rows_ = Indices(ranges(dims - 2));
    int64_t matrix_rows = dims >= 2 ? weight.shape[dims - 2] : 1;
    for (size_t d = 0; d + 2 < dims; ++d) {
      std::vector<int64_t> outer;
      for (int64_t o : outer_)
        for (int64_t i : Indices(ranges(d))) outer.push_back(o * weight.shape[d] + i);
      outer_ = std::move(outer);
    }
    for (int64_t& o : outer_) o *= matrix_rows;
    rows_per_unit_ = layout_ == plan::Layout::kTile16 ? kernels::kTileRows : 1;
    units_per_matrix_ = (static_cast<int64_t>(rows_.size()) + rows_per_unit_ - 1) / rows_per_unit_;
    const int64_t element = layout_ == plan::Layout::kVector ? 4 : DTypeBytes(weight.dtype);
    unit_bytes_ = layout_ == plan::Layout::kTile16 ? kernels::Tile16GroupBytes(weight.dtype, num_columns_)
                                                   : num_columns_ * element;
  }

  int64_t units() const { return static_cast<int64_t>(outer_.size()) * units_per_matrix_; }
  int64_t unit_bytes() const { return unit_bytes_; }

  void Pack(const RowSource& source, int64_t begin, int64_t end, uint8_t* to) const {
    if (unit_bytes_ == 0) return;  // a share without columns
    const int64_t element = DTypeBytes(weight_.dtype), row_bytes = Columns(weight_) * element;
    const int64_t share_bytes = num_columns_ * element;
    std::vector<uint8_t> buffer((row_bytes + share_bytes) * rows_per_unit_);
    std::vector<float> floats(Columns(weight_));
    const uint8_t* rows[kernels::kTileRows];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t outer = outer_[unit / units_per_matrix_], first = unit % units_per_matrix_ * rows_per_unit_;
      for (int64_t i = 0; i < rows_per_unit_; ++i) {
        rows[i] = nullptr;
        if (first + i >= static_cast<int64_t>(rows_.size())) continue;
        uint8_t* row_buffer = buffer.data() + i * (row_bytes + share_bytes);
        rows[i] = source.Row(outer + rows_[first + i], row_buffer, floats.data());
        if (columns_.size() == 1) {
          rows[i] += columns_[0].begin * element;
        } else {
          uint8_t* at = row_buffer + row_bytes;
          for (const plan::Range& range : columns_) {
            std::memcpy(at, rows[i] + range.begin * element, (range.end - range.begin) * element);
            at += (range.end - range.begin) * element;
          }
          rows[i] = row_buffer + row_bytes;
        }
      }
      uint8_t* unit_to = to + unit * unit_bytes_;
      switch (layout_) {
        case plan::Layout::kTile16:
          kernels::PackTile16(weight_.dtype, rows, num_columns_, unit_to);
          break;
        case plan::Layout::kRows:
          std::memcpy(unit_to, rows[0], share_bytes);
          break;
        case plan::Layout::kVector:
          kernels::ToF32(weight_.dtype, rows[0], num_columns_, floats.data());
          std::memcpy(unit_to, floats.data(), unit_bytes_);
          break;
      }
    }
  }

 private:
  static std::vector<int64_t> Indices(const std::vector<plan::Range>& ranges) {
    std::vector<int64_t> indices;
    for (const plan::Range& range : ranges)
      for (int64_t i = range.begin; i < range.end; ++i) indices.push_back(i);
    return indices;
  }

  const plan::Weight& weight_;
  const plan::Layout layout_;
  std::vector<int64_t> outer_ = {0};  // first rows of the matrices taken
  std::vector<int64_t> rows_ = {0};   // rows taken of each
  std::vector<plan::Range> columns_;
  int64_t num_columns_ = 0, rows_per_unit_ = 1, units_per_matrix_ = 0, unit_bytes_ = 0;
};

/// Packs every blob of a sink, weight by weight.
class PackAll {
 public:
  PackAll(const plan::Plan& plan, const LoadOptions& options)
      : plan_(plan), options_(options), pool_(AvailableCores(), SpinsFor(AvailableCores())) {}

  /// `source(weight)` is asked once for every weight with a blob; `done(weight)` hears that nobody needs it any more.
  Status Run(const BlobPlaces& places, const std::function<std::unique_ptr<RowSource>(int32_t)>& source,
             const std::function<void(int32_t)>& done, BlobSink* sink) {
    // By the weight that has the bytes.
    std::map<int32_t, std::vector<size_t>> of_weight;
    for (size_t b = 0; b < places.blobs.size(); ++b) {
      const int32_t weight = plan_.packed[places.blobs[b].packed].weight, alias = plan_.weights[weight].alias;
      of_weight[alias < 0 ? weight : alias].push_back(b);
      total_ += places.blobs[b].bytes;
    }
    if (options_.progress) options_.progress(0, total_);
    for (const auto& [weight, blobs] : of_weight) {
      const std::unique_ptr<RowSource> rows = source(weight);
      if (!rows) return DataLossError(fmt::format("weight {}: nothing says where it comes from", NameOf(weight)));
      for (size_t b : blobs) {
        const Packer packer(plan_.weights[weight], plan_.packed[places.blobs[b].packed]);
        if (packer.units() * packer.unit_bytes() != places.blobs[b].bytes)
          return DataLossError(fmt::format("weight {}: packs into {} bytes, the plan has {}", NameOf(weight),
                                           packer.units() * packer.unit_bytes(), places.blobs[b].bytes));
        QWEN_ASSIGN_OR_RETURN(uint8_t* to, sink->Room(b));
        PackOne(packer, *rows, to);
        QWEN_RETURN_IF_ERROR(sink->Done(b));
        bytes_ += places.blobs[b].bytes;
        if (options_.progress) options_.progress(bytes_, total_);
      }
      done(weight);
    }
    return {};
  }

 private:
  const std::string& NameOf(int32_t weight) const { return plan_.weights[weight].name; }

  void PackOne(const Packer& packer, const RowSource& rows, uint8_t* to) {
    // Whoever is free takes the next megabyte or so: threads wait for the disk at different times.
    const int64_t chunk = std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(packer.unit_bytes(), 1));
    if (packer.units() <= chunk) {
      packer.Pack(rows, 0, packer.units(), to);
      return;
    }
    std::atomic<int64_t> next{0};
    pool_.Run([&](int thread) {
      for (int64_t begin; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < packer.units();) {
        packer.Pack(rows, begin, std::min(begin + chunk, packer.units()), to);
        if (thread == 0 && options_.progress) options_.progress(bytes_ + begin * packer.unit_bytes(), total_);
      }
    });
  }

  const plan::Plan& plan_;
  const LoadOptions& options_;
  ThreadPool pool_;
  int64_t bytes_ = 0, total_ = 0;
};

/// Packs into memory of the process.
class MemorySink : public BlobSink {
 public:
  explicit MemorySink(const plan::Plan& plan) : plan_(plan) {}

  StatusOr<BlobPlaces> Begin(const Groups& groups) override {
    QWEN_ASSIGN_OR_RETURN(places_, PlaceBlobs(plan_, groups, 0));
    // One region: what lies between two blobs is never touched and costs nothing.
    const size_t length = places_.end + kHugePage;
    void* at = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return ResourceExhaustedError(fmt::format("weights: there are no {} bytes", length));
    owner_ = std::shared_ptr<void>(at, [length](void* p) { munmap(p, length); });
    base_ = static_cast<uint8_t*>(at) + (-reinterpret_cast<uintptr_t>(at) & (kHugePage - 1));
    // Whole huge pages only: the rest of the last one would be touched for nothing.
    for (const BlobPlaces::Blob& blob : places_.blobs)
      if (blob.bytes >= kHugePage) madvise(base_ + blob.offset, blob.bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return places_;
  }
  StatusOr<uint8_t*> Room(size_t blob) override { return base_ + places_.blobs[blob].offset; }
  Status Done(size_t) override { return {}; }

  std::vector<std::shared_ptr<uint8_t[]>> Packed() const { return AddressesOf(places_, owner_, base_); }

 private:
  const plan::Plan& plan_;
  BlobPlaces places_;
  std::shared_ptr<void> owner_;
  uint8_t* base_ = nullptr;
};

// --- From a checkpoint -----------------------------------------------------------------------------------------------

/// A weight as pieces of checkpoint tensors, converted row by row: no tensor is ever held whole.
class CheckpointRows : public RowSource {
 public:
  explicit CheckpointRows(const plan::Weight& weight) : weight_(weight) {}

  /// kDataLoss when the rectangle leaves the tensor or the weight: the plan's checks and the headers' are not ours.
  Status Add(const plan::Piece& piece, int64_t e, DType dtype, std::span<const uint8_t> tensor) {
    Segment segment;
    segment.row = piece.dst_row + e * piece.dst_row_step;
    segment.rows = piece.rows, segment.column = piece.dst_col, segment.columns = piece.cols;
    segment.dtype = dtype;
    segment.stride = piece.view_cols * DTypeBytes(dtype);
    segment.bytes = tensor.data() + piece.src_row * segment.stride + piece.src_col * DTypeBytes(dtype);
    if (!kernels::ConvertsToF32(dtype) ||
        piece.view_rows * piece.view_cols * DTypeBytes(dtype) != static_cast<int64_t>(tensor.size()) ||
        piece.src_row + piece.rows > piece.view_rows || piece.src_col + piece.cols > piece.view_cols ||
        segment.row + segment.rows > MatrixRows(weight_) || segment.column + segment.columns > Columns(weight_))
      return DataLossError(fmt::format("weight {}: tensor {} of {} bytes is not the {} x {} {} that the plan expects",
                                       weight_.name, piece.tensor, tensor.size(), piece.view_rows, piece.view_cols,
                                       DTypeName(dtype)));
    longest_ = std::max(longest_, segment.rows);
    segments_.push_back(segment);
    return {};
  }

  void Sort() {
    std::sort(segments_.begin(), segments_.end(),
              [](const Segment& a, const Segment& b) { return std::tie(a.row, a.column) < std::tie(b.row, b.column); });
  }

  const uint8_t* Row(int64_t row, uint8_t* buffer, float* floats) const override {
    const int64_t element = DTypeBytes(weight_.dtype);
    bool begun = false;
    auto it = std::upper_bound(segments_.begin(), segments_.end(), row,
                               [](int64_t r, const Segment& segment) { return r < segment.row; });
    while (it != segments_.begin() && (--it)->row + longest_ > row) {
      if (row >= it->row + it->rows) continue;
      const uint8_t* from = it->bytes + (row - it->row) * it->stride;
      const bool as_is = it->dtype == weight_.dtype && weight_.transform != plan::Transform::kOnePlus;
      if (as_is && it->columns == Columns(weight_)) return from;
      if (!begun && it->columns != Columns(weight_)) std::memset(buffer, 0, Columns(weight_) * element);
      begun = true;
      uint8_t* to = buffer + it->column * element;
      if (as_is) {
        std::memcpy(to, from, it->columns * element);
        continue;
      }
      kernels::ToF32(it->dtype, from, it->columns, floats);
      if (weight_.transform == plan::Transform::kOnePlus)
        for (int64_t c = 0; c < it->columns; ++c) floats[c] += 1.0f;
      kernels::FromF32(floats, it->columns, weight_.dtype, to);
    }
    if (!begun) std::memset(buffer, 0, Columns(weight_) * element);
    return buffer;
  }

 private:
  struct Segment {
    int64_t row, rows, column, columns;  // of the weight
    const uint8_t* bytes;                // of the first element
    int64_t stride;
    DType dtype;
  };
  const plan::Weight& weight_;
  std::vector<Segment> segments_;  // by first row
  int64_t longest_ = 0;
};

// --- Made up ---------------------------------------------------------------------------------------------------------

uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// Uniform values, one of kValues each: finer than bf16 tells apart over most of the range, and a look-up is several
/// times as fast as arithmetic and rounding.
class RandomRows : public RowSource {
 public:
  RandomRows(const plan::Weight& weight, uint64_t seed) : weight_(weight), key_(Mix(seed)) {
    for (char c : weight.name) key_ = Mix(key_ ^ static_cast<uint8_t>(c));
    std::string_view name = weight.name;
    name = name.substr(name.rfind('.') + 1);  // npos + 1 is 0
    float low, high;
    if (name == "a_log")
      low = 0, high = 2.77f;  // a decay rate of 1 to 16
    else if (name == "dt_bias")
      low = -4, high = -1;  // steps of 0.02 to 0.3
    else if (weight.shape.size() == 1)
      low = 0.9f, high = 1.1f;
    else
      high = std::sqrt(3.0f) * 0.9f / std::sqrt(static_cast<float>(Columns(weight))), low = -high;
    std::vector<float> floats(kValues);
    for (int i = 0; i < kValues; ++i)
      floats[i] = low + (static_cast<float>(i) + 0.5f) * (high - low) / static_cast<float>(kValues);
    values_.resize(kValues * DTypeBytes(weight.dtype));
    kernels::FromF32(floats.data(), kValues, weight.dtype, values_.data());
  }

  const uint8_t* Row(int64_t row, uint8_t* buffer, float*) const override {
    const uint64_t key = Mix(key_ ^ static_cast<uint64_t>(row));
    if (weight_.dtype == DType::kF32)
      Fill<uint32_t>(key, buffer);
    else
      Fill<uint16_t>(key, buffer);
    return buffer;
  }

 private:
  static constexpr int kValues = 4096;

  template <class T>
  void Fill(uint64_t key, uint8_t* to) const {
    const T* values = reinterpret_cast<const T*>(values_.data());
    const int64_t columns = Columns(weight_);
    auto store = [&](int64_t column, uint64_t bits) {
      std::memcpy(to + column * sizeof(T), &values[bits % kValues], sizeof(T));
    };
    int64_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      const uint64_t bits = Mix(key + static_cast<uint64_t>(c));
      store(c, bits), store(c + 1, bits >> 16), store(c + 2, bits >> 32), store(c + 3, bits >> 48);
    }
    for (uint64_t bits = Mix(key + static_cast<uint64_t>(c)); c < columns; ++c, bits >>= 16) store(c, bits);
  }

  const plan::Weight& weight_;
  uint64_t key_;
  std::vector<uint8_t> values_;  // of the weight's type
};

Status CheckTypes(const plan::Plan& plan) {
  for (const plan::Weight& weight : plan.weights) {
    if (weight.shape.empty() || (weight.dtype != DType::kF32 && weight.dtype != DType::kBF16))
      return UnimplementedError(fmt::format("weight {}: {} with {} dimensions cannot be packed", weight.name,
                                            DTypeName(weight.dtype), weight.shape.size()));
    if (weight.alias >= 0 &&
        (weight.dtype != plan.weights[weight.alias].dtype || weight.shape != plan.weights[weight.alias].shape))
      return DataLossError(
          fmt::format("weight {}: is {}, but of another type or shape", weight.name, plan.weights[weight.alias].name));
  }
  return {};
}

}  // namespace

void PackWeight(const plan::Weight& weight, const plan::Packed& packed, const uint8_t* source, uint8_t* to) {
  const Packer packer(weight, packed);
  packer.Pack(PlainRows(source, Columns(weight) * DTypeBytes(weight.dtype)), 0, packer.units(), to);
}

std::vector<std::shared_ptr<uint8_t[]>> AddressesOf(const BlobPlaces& places, const std::shared_ptr<void>& owner,
                                                    uint8_t* base) {
  std::vector<std::shared_ptr<uint8_t[]>> packed(places.blob_of.size());
  for (size_t i = 0; i < packed.size(); ++i)
    if (const int32_t blob = places.blob_of[i]; blob >= 0)
      packed[i] = std::shared_ptr<uint8_t[]>(owner, base + places.blobs[blob].offset);
  return packed;
}

StatusOr<CheckpointFacts> PackCheckpoint(const plan::Plan& plan, const std::string& dir, const LoadOptions& options,
                                         BlobSink* sink) {
  QWEN_RETURN_IF_ERROR(CheckTypes(plan));
  QWEN_ASSIGN_OR_RETURN(const plan::Checkpoint checkpoint, plan::OpenCheckpoint(dir));
  QWEN_ASSIGN_OR_RETURN(plan::WeightMap map, plan::ResolveWeights(plan, checkpoint));
  std::vector<MappedFile> files(map.files.size());
  for (size_t i = 0; i < files.size(); ++i) QWEN_RETURN_IF_ERROR(files[i].Open(map.files[i]));

  std::vector<std::unique_ptr<RowSource>> sources(plan.weights.size());
  for (size_t w = 0; w < plan.weights.size(); ++w) {
    const plan::ResolvedWeight& resolved = map.weights[w];
    if (!resolved.present || resolved.weight != static_cast<int32_t>(w)) continue;
    auto rows = std::make_unique<CheckpointRows>(plan.weights[w]);
    for (const plan::ResolvedPiece& piece : resolved.pieces) {
      for (size_t e = 0; e < piece.sources.size(); ++e) {
        const plan::Source& source = piece.sources[e];
        const MappedFile& file = files[source.file];
        if (source.begin < 0 || source.end < source.begin || source.end > file.size())
          return DataLossError(
              fmt::format("{}: a tensor ends at {}, the file at {}", map.files[source.file], source.end, file.size()));
        QWEN_RETURN_IF_ERROR(rows->Add(map.PieceOf(plan, w, piece), e, piece.dtype,
                                       file.bytes().subspan(source.begin, source.end - source.begin)));
      }
    }
    rows->Sort();
    sources[w] = std::move(rows);
  }

  auto each_source = [&](int32_t weight, auto visit) {
    for (const plan::ResolvedPiece& piece : map.weights[weight].pieces)
      for (const plan::Source& source : piece.sources) visit(files[source.file], source);
  };
  auto take = [&](int32_t weight) {
    each_source(weight, [](const MappedFile& file, const plan::Source& s) { file.Want(s.begin, s.end); });
    return std::move(sources[weight]);
  };
  auto drop = [&](int32_t weight) {
    each_source(weight, [](const MappedFile& file, const plan::Source& s) { file.Drop(s.begin, s.end); });
  };
  const Groups groups{.mtp = map.has_mtp, .draft = map.has_draft};
  QWEN_ASSIGN_OR_RETURN(const BlobPlaces places, sink->Begin(groups));
  QWEN_RETURN_IF_ERROR(PackAll(plan, options).Run(places, take, drop, sink));
  return CheckpointFacts{.groups = groups,
                         .digest = checkpoint.digest,
                         .ignored_tensors = map.ignored_tensors,
                         .warnings = std::move(map.warnings)};
}

StatusOr<Weights> LoadWeights(const plan::Plan& plan, const std::string& dir, const LoadOptions& options) {
  MemorySink sink(plan);
  QWEN_ASSIGN_OR_RETURN(CheckpointFacts checkpoint, PackCheckpoint(plan, dir, options, &sink));
  return Weights{.packed = sink.Packed(),
                 .has_mtp = checkpoint.groups.mtp,
                 .ignored_tensors = checkpoint.ignored_tensors,
                 .warnings = std::move(checkpoint.warnings)};
}

StatusOr<Weights> RandomWeights(const plan::Plan& plan, uint64_t seed, const LoadOptions& options) {
  QWEN_RETURN_IF_ERROR(CheckTypes(plan));
  MemorySink sink(plan);
  QWEN_ASSIGN_OR_RETURN(const BlobPlaces places, sink.Begin(Groups()));
  auto make = [&](int32_t weight) { return std::make_unique<RandomRows>(plan.weights[weight], seed); };
  QWEN_RETURN_IF_ERROR(PackAll(plan, options).Run(places, make, [](int32_t) {}, &sink));
  return Weights{.packed = sink.Packed()};
}

}  // namespace qwen::exec
