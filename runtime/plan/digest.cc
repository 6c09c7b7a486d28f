#include "runtime/plan/digest.h"

#include <xxhash.h>

#include <new>

namespace qwen::plan {

uint64_t Xxh3(std::span<const uint8_t> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct Digest::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() {
    if (!xxh || XXH3_64bits_reset(xxh) == XXH_ERROR) throw std::bad_alloc();
  }
  ~State() { XXH3_freeState(xxh); }
};

Digest::Digest() : state_(std::make_unique<State>()) {}
Digest::~Digest() = default;

void Digest::Bytes(std::span<const uint8_t> bytes) { XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size()); }

void Digest::Int(int64_t value) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
  Bytes(bytes);
}

void Digest::String(std::string_view value) {
  Int(static_cast<int64_t>(value.size()));
  Bytes({reinterpret_cast<const uint8_t*>(value.data()), value.size()});
}

uint64_t Digest::Finish() const { return XXH3_64bits_digest(state_->xxh); }

namespace {

void Add(Digest& d, std::span<const int64_t> values) {
  d.Int(static_cast<int64_t>(values.size()));
  for (int64_t value : values) d.Int(value);
}

void Add(Digest& d, const Piece& piece) {
  d.String(piece.tensor);
  d.Int(piece.e_count);
  d.Int(static_cast<int64_t>(piece.dtypes.size()));
  for (const std::string& dtype : piece.dtypes) d.String(dtype);
  Add(d, piece.shape);
  for (int64_t value : {piece.view_rows, piece.view_cols, piece.src_row, piece.src_col, piece.rows, piece.cols,
                        piece.dst_row, piece.dst_col, piece.dst_row_step})
    d.Int(value);
}

}  // namespace

uint64_t WeightsDigest(const Plan& plan) {
  Digest d;
  d.Int(static_cast<int64_t>(plan.weights.size()));
  for (const Weight& weight : plan.weights) {
    d.String(weight.name);
    d.String(weight.scheme);
    d.Int(static_cast<int64_t>(weight.dtype));
    Add(d, weight.shape);
    d.Int(static_cast<int64_t>(weight.group));
    d.Int(static_cast<int64_t>(weight.transform));
    d.Int(weight.alias);
    d.Int(static_cast<int64_t>(weight.alternatives.size()));
    for (const Alternative& alternative : weight.alternatives) {
      d.Int(static_cast<int64_t>(alternative.pieces.size()));
      for (const Piece& piece : alternative.pieces) Add(d, piece);
    }
  }
  d.Int(static_cast<int64_t>(plan.packed.size()));
  for (const Packed& packed : plan.packed) {
    d.Int(packed.weight);
    d.Int(packed.rank);
    d.Int(static_cast<int64_t>(packed.layout));
    d.Int(static_cast<int64_t>(packed.slices.size()));
    for (const std::vector<Range>& ranges : packed.slices) {
      d.Int(static_cast<int64_t>(ranges.size()));
      for (const Range& range : ranges) d.Int(range.begin), d.Int(range.end);
    }
    d.Int(packed.bytes);
    d.Int(packed.net_bytes);
  }
  return d.Finish();
}

}  // namespace qwen::plan
