#include "runtime/exec/weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <span>
#include <string_view>
#include <tuple>

#include "runtime/base/thread_pool.h"
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

bool SameBytes(const plan::Weight& weight, const plan::Packed& a, const plan::Packed& b) {
  if (a.layout != b.layout) return false;
  for (size_t d = 0; d < weight.shape.size(); ++d)
    if (RangesOf(weight, a, d) != RangesOf(weight, b, d)) return false;
  return true;
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

/// 64-byte aligned; large ones in huge pages where the system has them. Null when there is no memory.
std::shared_ptr<uint8_t[]> AllocatePacked(int64_t bytes) {
  constexpr int64_t kHugePage = 2 << 20;
  const int64_t align = bytes < 2 * kHugePage ? int64_t{plan::kAlignment} : kHugePage;
  void* at = nullptr;
  if (posix_memalign(&at, align, std::max<int64_t>(bytes, 1)) != 0) return nullptr;
  // Whole pages only: the rest of the last one would be touched for nothing.
  if (align == kHugePage) madvise(at, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return std::shared_ptr<uint8_t[]>(static_cast<uint8_t*>(at), [](uint8_t* p) { std::free(p); });
}

/// Packs every entry of plan.packed whose weight has a source, weight by weight. `source(weight)` is null for one that
/// is absent, `done(weight)` hears that nobody needs its source any more.
class PackAll {
 public:
  PackAll(const plan::Plan& plan, const std::function<void(int64_t, int64_t)>& progress)
      : plan_(plan), progress_(progress), pool_(AvailableCores(), SpinsFor(AvailableCores())) {}

  Status Run(const std::function<std::unique_ptr<RowSource>(int32_t)>& source, const std::function<void(int32_t)>& done,
             Weights* weights) {
    weights->packed.resize(plan_.packed.size());
    // By the weight that has the bytes.
    std::map<int32_t, std::vector<size_t>> of_weight;
    for (size_t i = 0; i < plan_.packed.size(); ++i) {
      const int32_t weight = plan_.packed[i].weight, alias = plan_.weights[weight].alias;
      of_weight[alias < 0 ? weight : alias].push_back(i);
      total_ += plan_.packed[i].bytes;
    }
    for (const auto& [weight, entries] : of_weight) {
      std::unique_ptr<RowSource> rows = source(weight);
      for (size_t n = 0; n < entries.size(); ++n) {
        const plan::Packed& packed = plan_.packed[entries[n]];
        std::shared_ptr<uint8_t[]>& to = weights->packed[entries[n]];
        if (rows) {
          for (size_t m = 0; m < n && !to; ++m) {
            if (SameBytes(plan_.weights[weight], plan_.packed[entries[m]], packed)) to = weights->packed[entries[m]];
          }
          if (!to) QWEN_RETURN_IF_ERROR(PackOne(plan_.weights[weight], packed, *rows, &to));
        }
        bytes_ += packed.bytes;
        if (progress_) progress_(bytes_, total_);
      }
      if (rows) done(weight);
    }
    return {};
  }

 private:
  Status PackOne(const plan::Weight& weight, const plan::Packed& packed, const RowSource& rows,
                 std::shared_ptr<uint8_t[]>* to) {
    const Packer packer(weight, packed);
    if (packer.units() * packer.unit_bytes() != packed.bytes)
      return DataLossError(fmt::format("weight {}: packs into {} bytes, the plan has {}", weight.name,
                                       packer.units() * packer.unit_bytes(), packed.bytes));
    *to = AllocatePacked(packed.bytes);
    if (!*to)
      return ResourceExhaustedError(
          fmt::format("weight {}: {} bytes after {} of {}", weight.name, packed.bytes, bytes_, total_));
    // Whoever is free takes the next megabyte or so: threads wait for the disk at different times.
    const int64_t chunk = std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(packer.unit_bytes(), 1));
    if (packer.units() <= chunk) {
      packer.Pack(rows, 0, packer.units(), to->get());
      return {};
    }
    std::atomic<int64_t> next{0};
    pool_.Run([&](int) {
      for (int64_t begin; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < packer.units();)
        packer.Pack(rows, begin, std::min(begin + chunk, packer.units()), to->get());
    });
    return {};
  }

  const plan::Plan& plan_;
  const std::function<void(int64_t, int64_t)> progress_;
  ThreadPool pool_;
  int64_t bytes_ = 0, total_ = 0;
};

// --- From a checkpoint -----------------------------------------------------------------------------------------------

/// A file, mapped to be read once.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const MappedFile&) = delete;
  ~MappedFile() {
    if (bytes_) munmap(bytes_, size_);
  }

  Status Open(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ResourceExhaustedError(fmt::format("{}: {}", path, std::strerror(errno)));
    struct stat info{};
    void* at = MAP_FAILED;
    if (fstat(fd, &info) == 0 && info.st_size > 0) at = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (at == MAP_FAILED)
      return ResourceExhaustedError(fmt::format("{}: cannot be mapped: {}", path, std::strerror(error)));
    bytes_ = static_cast<uint8_t*>(at), size_ = info.st_size;
    return {};
  }

  const uint8_t* bytes() const { return bytes_; }
  int64_t size() const { return size_; }

  /// What will be read soon, and what will not be read again. Whole pages around the range: a neighbour that is still
  /// wanted comes back from the page cache.
  void Want(int64_t begin, int64_t end) const { Advise(begin, end, MADV_WILLNEED); }
  void Drop(int64_t begin, int64_t end) const { Advise(begin, end, MADV_DONTNEED); }

 private:
  void Advise(int64_t begin, int64_t end, int advice) const {
    const int64_t page = sysconf(_SC_PAGE_SIZE);
    begin = begin / page * page;
    if (end > begin) madvise(bytes_ + begin, end - begin, advice);
  }

  uint8_t* bytes_ = nullptr;
  int64_t size_ = 0;
};

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

class RandomRows : public RowSource {
 public:
  RandomRows(const plan::Weight& weight, uint64_t seed) : weight_(weight), key_(Mix(seed)) {
    for (char c : weight.name) key_ = Mix(key_ ^ static_cast<uint8_t>(c));
    std::string_view name = weight.name;
    name = name.substr(name.rfind('.') + 1);  // npos + 1 is 0
    if (name == "a_log")
      low_ = 0, high_ = 2.77f;  // a decay rate of 1 to 16
    else if (name == "dt_bias")
      low_ = -4, high_ = -1;  // steps of 0.02 to 0.3
    else if (weight.shape.size() == 1)
      low_ = 0.9f, high_ = 1.1f;
    else
      high_ = std::sqrt(3.0f) * 0.9f / std::sqrt(static_cast<float>(Columns(weight))), low_ = -high_;
  }

  const uint8_t* Row(int64_t row, uint8_t* buffer, float* floats) const override {
    const int64_t columns = Columns(weight_);
    const uint64_t key = Mix(key_ ^ static_cast<uint64_t>(row));
    const float step = (high_ - low_) / 65536;
    for (int64_t c = 0; c < columns; c += 4) {
      uint64_t bits = Mix(key + static_cast<uint64_t>(c));
      for (int64_t i = c; i < std::min(c + 4, columns); ++i, bits >>= 16)
        floats[i] = low_ + (static_cast<float>(bits & 0xffff) + 0.5f) * step;
    }
    kernels::FromF32(floats, columns, weight_.dtype, buffer);
    return buffer;
  }

 private:
  const plan::Weight& weight_;
  uint64_t key_;
  float low_ = 0, high_ = 0;
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

StatusOr<Weights> LoadWeights(const plan::Plan& plan, const std::string& dir,
                              const std::function<void(int64_t, int64_t)>& progress) {
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
        if (source.begin < 0 || source.end < source.begin || source.end > files[source.file].size())
          return DataLossError(fmt::format("{}: a tensor ends at {}, the file at {}", map.files[source.file],
                                           source.end, files[source.file].size()));
        QWEN_RETURN_IF_ERROR(
            rows->Add(map.PieceOf(plan, w, piece), e, piece.dtype,
                      {files[source.file].bytes() + source.begin, static_cast<size_t>(source.end - source.begin)}));
      }
    }
    rows->Sort();
    sources[w] = std::move(rows);
  }

  auto each_source = [&](int32_t weight, auto visit) {
    for (const plan::ResolvedPiece& piece : map.weights[weight].pieces)
      for (const plan::Source& source : piece.sources) visit(files[source.file], source);
  };
  Weights weights;
  PackAll pack(plan, progress);
  QWEN_RETURN_IF_ERROR(pack.Run(
      [&](int32_t weight) {
        if (sources[weight])
          each_source(weight, [](const MappedFile& file, const plan::Source& s) { file.Want(s.begin, s.end); });
        return std::move(sources[weight]);
      },
      [&](int32_t weight) {
        each_source(weight, [](const MappedFile& file, const plan::Source& s) { file.Drop(s.begin, s.end); });
      },
      &weights));
  weights.has_mtp = map.has_mtp;
  weights.ignored_tensors = map.ignored_tensors;
  weights.warnings = std::move(map.warnings);
  return weights;
}

StatusOr<Weights> RandomWeights(const plan::Plan& plan, uint64_t seed) {
  QWEN_RETURN_IF_ERROR(CheckTypes(plan));
  Weights weights;
  PackAll pack(plan, {});
  QWEN_RETURN_IF_ERROR(
      pack.Run([&](int32_t weight) { return std::make_unique<RandomRows>(plan.weights[weight], seed); }, [](int32_t) {},
               &weights));
  return weights;
}

}  // namespace qwen::exec
