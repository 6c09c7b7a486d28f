#include "test/conformance/harness.h"

#include <fmt/format.h>

#include <cstring>

#include "runtime/kernels/reference/types.h"

namespace qwen::kernels {
namespace amx_emulated {
extern const CpuBody kBodies[];
}
namespace conformance {
namespace {

constexpr int kGuard = 64;
constexpr uint8_t kGuardByte = 0xa5;

}  // namespace

CpuBody BodyOf(const KernelInfo& info, Isa isa) {
  return isa == kAmxEmulated ? amx_emulated::kBodies[&info - Catalog().data()] : FindBody(info.entry, isa);
}

std::string WhyNot(Isa isa) {
  if (isa == kCuda) return WhyNoCuda();
  return isa == kAmxEmulated || IsaSupported(isa) ? "" : fmt::format("this machine has no {}", NameOf(isa));
}

Values Random::Fill(int64_t count, double scale) {
  Values values(count);
  for (double& value : values) value = Uniform(-scale, scale);
  return values;
}

Array::Array(DType type, int64_t count) : type_(type), count_(count) {
  bytes_.assign(count * DTypeBytes(type), 0xff);  // a NaN of either type
  bytes_.insert(bytes_.end(), kGuard, kGuardByte);
}

Array::Array(DType type, const Values& values) : Array(type, static_cast<int64_t>(values.size())) {
  for (int64_t i = 0; i < count_; ++i) {
    uint8_t* to = bytes_.data() + i * DTypeBytes(type);
    float value = static_cast<float>(values[i]);
    int32_t integer = type == DType::kI32 ? static_cast<int32_t>(values[i]) : 0;
    uint16_t half = reference::ToBf16(value);
    if (type == DType::kF32)
      std::memcpy(to, &value, 4);
    else if (type == DType::kBF16)
      std::memcpy(to, &half, 2);
    else
      std::memcpy(to, &integer, 4);
  }
}

Array::~Array() {
  for (size_t i = count_ * DTypeBytes(type_); i < bytes_.size(); ++i)
    EXPECT_EQ(bytes_[i], kGuardByte) << "written " << i - count_ * DTypeBytes(type_) << " bytes behind an array of "
                                     << count_;
}

double Array::At(int64_t i) const {
  const uint8_t* from = bytes_.data() + i * DTypeBytes(type_);
  if (type_ == DType::kBF16) {
    uint16_t half;
    std::memcpy(&half, from, 2);
    return reference::FromBf16(half);
  }
  if (type_ == DType::kI32) {
    int32_t integer;
    std::memcpy(&integer, from, 4);
    return integer;
  }
  float value;
  std::memcpy(&value, from, 4);
  return value;
}

Values Array::Get(int64_t first, int64_t count) const {
  Values values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = At(first + i);
  return values;
}

Array Tile16(DType type, int64_t rows, int64_t cols, const Values& values, int64_t experts) {
  const int64_t each = Tile16Bytes(type, rows, cols) / DTypeBytes(type);
  Values tiled(experts * each);
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; ++col)
        tiled[e * each + Tile16Index(type, cols, row, col)] = values[(e * rows + row) * cols + col];
  return Array(type, tiled);
}

void Batch::Add(int rows, int first_position, int slot, int row, int fill, bool fold_now) {
  cu_tokens.push_back(cu_tokens.back() + rows);
  token_ids.resize(cu_tokens.back());
  position.push_back(first_position);
  state_slot.push_back(slot);
  table_row.push_back(row);
  ring_fill.push_back(fill);
  fold.push_back(fold_now);
}

BatchView Batch::View() const {
  BatchView view{};
  view.num_seqs = static_cast<int>(position.size());
  view.num_short = num_short;
  view.num_tokens = cu_tokens.back();
  view.num_logit_rows = static_cast<int>(logit_rows.size());
  view.cu_tokens = cu_tokens.data();
  view.token_ids = token_ids.data();
  view.position = position.data();
  view.state_slot = state_slot.data();
  view.table_row = table_row.data();
  view.ring_fill = ring_fill.data();
  view.fold = fold.data();
  view.logit_rows = logit_rows.data();
  view.sample = sample.data();
  view.page_table = page_table.data();
  view.max_pages = max_pages;
  return view;
}

Batch Batch::OfRows(int tokens) {
  Batch batch;
  for (int t = 0; t < tokens; ++t) batch.Add(1);
  batch.num_short = tokens;
  return batch;
}

void RunDecoded(Isa isa, const BodyCall& run, const plan::Fields& fields, int threads, bool backwards) {
  const KernelInfo* info = FindKernel(run.entry);
  ASSERT_NE(info, nullptr) << run.entry;
  auto spec = info->decode(fields);
  ASSERT_TRUE(spec.ok()) << run.entry << ": " << spec.status().message();
  ASSERT_EQ(info->num_args(spec->get()), static_cast<int>(run.args.size())) << run.entry;
  if (isa == kCuda) return RunOnCuda(run, *info, fields, spec->get());
  const Workspace space = info->workspace(spec->get(), run.batch->num_tokens);
  // Scratch full of NaN: what a body has not written it must not read.
  auto aligned = [](std::vector<uint8_t>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  };
  std::vector<uint8_t> shared(space.shared + 128);
  Launch launch{};
  launch.batch = run.batch;
  launch.state = &run.state;
  launch.args = run.args.data();
  launch.peers = run.peers.data();
  launch.rank = run.rank;
  launch.ranks = static_cast<int>(run.peers.size());
  launch.threads = threads;
  launch.shared = aligned(shared);
  for (int i = 0; i < threads; ++i) {
    std::vector<uint8_t> scratch(space.scratch + 64 + kGuard, 0xff);
    launch.scratch = aligned(scratch);
    std::memset(launch.scratch + space.scratch, kGuardByte, kGuard);
    launch.thread = backwards ? threads - 1 - i : i;
    BodyOf(*info, isa)(spec->get(), launch);
    for (int g = 0; g < kGuard; ++g)
      ASSERT_EQ(launch.scratch[space.scratch + g], kGuardByte)
          << run.entry << " wrote " << g << " bytes behind its " << space.scratch << " bytes of scratch";
  }
  for (int64_t i = 0; i < space.shared; ++i) ASSERT_EQ(launch.shared[i], 0) << run.entry << " left byte " << i;
}

double RelativeL2(const Values& y, const Values& want) {
  EXPECT_EQ(y.size(), want.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < y.size() && i < want.size(); ++i) {
    if (std::isnan(y[i]) != std::isnan(want[i])) return std::numeric_limits<double>::infinity();
    if (std::isnan(y[i]) || y[i] == want[i]) continue;
    error += (y[i] - want[i]) * (y[i] - want[i]);
  }
  for (double value : want)
    if (!std::isnan(value)) norm += value * value;
  return error == 0 ? 0 : std::sqrt(error / norm);
}

double Tolerance(DType type, double terms) {
  return type == DType::kBF16 ? 0x1p-8 : std::sqrt(std::max(terms, 1.0)) * 0x1p-22;
}

void ExpectNear(const Values& y, const Values& want, double tolerance, const std::string& what) {
  EXPECT_LE(RelativeL2(y, want), tolerance) << what;
}

}  // namespace conformance
}  // namespace qwen::kernels
