#include "runtime/plan/memory.h"

#include <algorithm>
#include <limits>
#include <map>

#include "runtime/plan/layout.h"

namespace qwen::plan {
namespace {

/// Sums and products of a hostile plan stop at the largest integer.
class Bytes {
 public:
  Bytes(int64_t value = 0) : value_(value) {}  // NOLINT: implicit by design
  int64_t value() const { return value_; }
  friend Bytes operator+(Bytes a, Bytes b) { return Clamp(__int128{a.value_} + b.value_); }
  friend Bytes operator*(Bytes a, Bytes b) { return Clamp(__int128{a.value_} * b.value_); }
  Bytes& operator+=(Bytes b) { return *this = *this + b; }

 private:
  static Bytes Clamp(__int128 value) {
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
    return value > kMax ? kMax : static_cast<int64_t>(value);
  }
  int64_t value_;
};

int64_t RoundUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

RankMemory OfRank(const Plan& plan, const std::string& target, int32_t rank, int32_t threads) {
  RankMemory m;
  m.rank = rank;
  Bytes weights, net, outputs;
  int64_t scratch = 0, shared = 0;
  for (const Packed& packed : plan.packed) {
    if (packed.rank != rank) continue;
    weights += packed.bytes;
    net += packed.net_bytes;
  }
  m.weights_bytes = weights.value();
  m.weights_net_bytes = net.value();
  for (const Program& program : plan.programs) {
    if (program.rank != rank || program.target != target) continue;
    for (const Buffer& buffer : program.buffers)
      if (buffer.kind == BufferKind::kOutput) outputs += RoundUp(buffer.bytes);
    m.arena_bytes = std::max(m.arena_bytes, program.arena_bytes);
    scratch = std::max(scratch, program.scratch_bytes);
    shared = std::max(shared, program.shared_bytes);
  }
  m.output_bytes = outputs.value();
  const State& state = plan.states[rank];
  int64_t folded = 0;  // where a snapshot folds a layer
  for (const DeltaLayer& layer : state.delta_layers)
    folded = std::max(folded, DeltaLayerBytes(layer, state.ring_rows, state.conv_rows).base);
  m.workspace_bytes = (Bytes(scratch) * threads + shared + folded).value();
  m.page_bytes = state.page_bytes;
  m.slot_bytes = state.slot_bytes;
  m.base_bytes = state.base_bytes;
  m.ring_bytes = state.ring_bytes;
  m.conv_bytes = state.conv_bytes;
  return m;
}

Bytes Fixed(const RankMemory& m) {
  return Bytes(m.weights_bytes) + m.weights_mapped_bytes + m.arena_bytes + m.workspace_bytes + m.output_bytes +
         m.kernel_bytes;
}

/// What `memory` holds beside `fixed` when a page and a slot have these sizes.
MemoryFit Fit(int64_t memory, Bytes fixed, Bytes page, Bytes slot, int64_t seqs, int64_t pages_a_seq) {
  MemoryFit fit;
  const Bytes with_slots = fixed + slot * seqs;
  fit.fits = with_slots.value() <= memory;
  if (!fit.fits) return fit;
  if (page.value() > 0) {
    fit.pages = (memory - with_slots.value()) / page.value();
    fit.tokens = (Bytes(fit.pages) * kPageTokens).value();
  }
  const Bytes sequence = slot + page * pages_a_seq;
  fit.sequences = sequence.value() > 0 ? (memory - fixed.value()) / sequence.value() : seqs;
  return fit;
}

}  // namespace

int64_t BatchBytes(const Capacity& capacity, int64_t max_pages) {
  constexpr int64_t kSampleInts = 12;
  const Bytes seqs = capacity.max_num_seqs, tokens = capacity.max_num_batched_tokens;
  const Bytes logit_rows = capacity.max_logit_rows > 0 ? capacity.max_logit_rows : capacity.max_num_batched_tokens;
  Bytes bytes;
  // Counts; cu_tokens; ids; position, slot, table row, ring fill, fold; logit rows and how each is drawn; page table.
  for (Bytes ints : {Bytes(4), seqs + 1, tokens, seqs, seqs, seqs, seqs, seqs, logit_rows, logit_rows * kSampleInts,
                     seqs * max_pages})
    bytes += Bytes(RoundUp(std::min((ints * 4).value(), kMaxBytes)));
  return bytes.value();
}

MemoryStatement StateMemory(const Plan& plan, const std::string& target, const MemoryOptions& options) {
  MemoryStatement s;
  s.target = target;
  s.threads = std::max(1, options.threads);
  s.max_num_seqs = options.max_num_seqs > 0 ? options.max_num_seqs : plan.capacity.max_num_seqs;
  s.max_model_len = options.max_model_len > 0 ? options.max_model_len : plan.model.max_model_len;
  const int64_t pages_a_seq = s.max_model_len / kPageTokens + (s.max_model_len % kPageTokens != 0);
  Capacity capacity = plan.capacity;
  capacity.max_num_seqs = s.max_num_seqs;
  s.batch_bytes = BatchBytes(capacity, pages_a_seq);
  for (const Blob& blob : plan.blobs)
    if (blob.kind != BlobKind::kIr && blob.kind != BlobKind::kConfig) s.text_bytes += blob.bytes.size();
  s.runtime_bytes = kRuntimeBytes;

  const Bytes once = Bytes(s.batch_bytes) + s.text_bytes + s.runtime_bytes;
  Bytes fixed = once, page, slot;
  for (int32_t rank = 0; rank < plan.tp; ++rank) {
    s.ranks.push_back(OfRank(plan, target, rank, s.threads));
    fixed += Fixed(s.ranks.back());
    page += s.ranks.back().page_bytes;
    slot += s.ranks.back().slot_bytes;
  }
  s.fixed_bytes = fixed.value();
  s.total_bytes = (fixed + (slot + page * pages_a_seq) * s.max_num_seqs).value();
  if (options.memory_bytes <= 0) return s;

  if (target == "cpu") {  // ranks are threads of one process
    s.fit = Fit(options.memory_bytes, fixed, page, slot, s.max_num_seqs, pages_a_seq);
    return s;
  }
  for (const RankMemory& m : s.ranks) {  // a page takes its part on every device: the fullest one decides
    const MemoryFit fit =
        Fit(options.memory_bytes, once + Fixed(m), m.page_bytes, m.slot_bytes, s.max_num_seqs, pages_a_seq);
    if (!s.fit) {
      s.fit = fit;
    } else {
      s.fit->fits = s.fit->fits && fit.fits;
      s.fit->pages = std::min(s.fit->pages, fit.pages);
      s.fit->tokens = std::min(s.fit->tokens, fit.tokens);
      s.fit->sequences = std::min(s.fit->sequences, fit.sequences);
    }
  }
  return s;
}

namespace {

/// How many elements of `weight` at least one of `copies` has. Counts cells of the grid that all borders draw.
int64_t DistinctElements(const Weight& weight, const std::vector<const Packed*>& copies) {
  const size_t dims = weight.shape.size();
  // covered[d][cell] = copies, as bits, whose slices have the cell; equal cells are merged, since only their sum
  // counts.
  std::vector<std::map<std::vector<bool>, int64_t>> covered(dims);
  for (size_t d = 0; d < dims; ++d) {
    std::vector<int64_t> borders = {0, weight.shape[d]};
    auto ranges = [&](const Packed& p) {
      const bool all = p.slices.empty() || p.slices[d].empty();
      return all ? std::vector<Range>{{0, weight.shape[d]}} : p.slices[d];
    };
    for (const Packed* copy : copies)
      for (const Range& range : ranges(*copy)) borders.insert(borders.end(), {range.begin, range.end});
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    for (size_t i = 0; i + 1 < borders.size(); ++i) {
      std::vector<bool> who(copies.size());
      for (size_t c = 0; c < copies.size(); ++c)
        for (const Range& range : ranges(*copies[c]))
          if (range.begin <= borders[i] && borders[i + 1] <= range.end) who[c] = true;
      covered[d][who] += borders[i + 1] - borders[i];
    }
  }
  // Elements whose sets of copies, dimension by dimension, have one in common.
  std::map<std::vector<bool>, int64_t> sets = std::move(covered[0]);
  for (size_t d = 1; d < dims; ++d) {
    std::map<std::vector<bool>, int64_t> next;
    for (const auto& [a, count_a] : sets)
      for (const auto& [b, count_b] : covered[d]) {
        std::vector<bool> both(a.size());
        for (size_t c = 0; c < a.size(); ++c) both[c] = a[c] && b[c];
        next[both] += count_a * count_b;
      }
    sets = std::move(next);
  }
  int64_t distinct = 0;
  for (const auto& [who, count] : sets)
    if (std::find(who.begin(), who.end(), true) != who.end()) distinct += count;
  return distinct;
}

}  // namespace

std::vector<Replicated> ReplicatedWeights(const Plan& plan) {
  std::map<std::pair<int32_t, Layout>, std::vector<const Packed*>> by_weight;
  for (const Packed& packed : plan.packed) {
    const int32_t alias = plan.weights[packed.weight].alias;
    by_weight[{alias >= 0 ? alias : packed.weight, packed.layout}].push_back(&packed);
  }
  std::vector<Replicated> result;
  for (const auto& [key, copies] : by_weight) {
    const Weight& weight = plan.weights[key.first];
    const DType type = key.second == Layout::kVector ? DType::kF32 : weight.dtype;
    Replicated r{.weight = weight.name, .layout = key.second};
    r.by_rank.resize(plan.tp);
    for (const Packed* copy : copies) {
      r.net_bytes = AddBytes(r.net_bytes, copy->net_bytes);
      r.by_rank[copy->rank] = AddBytes(r.by_rank[copy->rank], copy->net_bytes);
    }
    r.distinct_bytes = DistinctElements(weight, copies) * DTypeBytes(type);
    if (r.net_bytes != r.distinct_bytes) result.push_back(std::move(r));
  }
  return result;
}

}  // namespace qwen::plan
