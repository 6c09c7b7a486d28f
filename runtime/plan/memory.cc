#include "runtime/plan/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string_view>

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

int64_t RoundUp(int64_t bytes, int64_t multiple = kAlignment) { return (bytes + multiple - 1) / multiple * multiple; }

constexpr int64_t kScratchAlign = 4096;  // a thread's scratch takes whole pages: nobody else touches them

/// Whether an output is read before the next run. What nobody knows stays.
bool IsTransient(const Program& program, const Buffer& output) {
  if (output.index < 0 || static_cast<size_t>(output.index) >= program.outputs.size()) return false;
  for (std::string_view known : {"next", "logits", "logprob", "accepted", "emitted"})
    if (program.outputs[output.index].name == known) return true;
  return false;
}

RankMemory OfRank(const Plan& plan, const std::string& target, int32_t rank, int32_t threads) {
  RankMemory m;
  m.rank = rank;
  Bytes weights, kept, net;
  int64_t scratch = 0, shared = 0;
  const std::vector<int32_t> first = FirstWithSameBytes(plan);
  for (size_t i = 0; i < plan.packed.size(); ++i) {
    const Packed& packed = plan.packed[i];
    if (packed.rank != rank) continue;
    weights += packed.bytes;
    net += packed.net_bytes;
    // Ranks of the cpu are threads of one process.
    if (first[i] == static_cast<int32_t>(i) || target != "cpu") kept += packed.bytes;
  }
  m.weights_bytes = weights.value();
  m.weights_net_bytes = net.value();
  m.weights_shared_bytes = weights.value() - kept.value();
  for (const Program& program : plan.programs) {
    if (program.rank != rank || program.target != target) continue;
    m.arena_bytes = std::max(m.arena_bytes, program.arena_bytes);
    scratch = std::max(scratch, program.scratch_bytes);
    shared = std::max(shared, program.shared_bytes);
  }
  m.output_bytes = PlaceOutputs(plan, target, rank).bytes;
  const State& state = plan.states[rank];
  int64_t folded = 0;  // where a snapshot folds a layer
  Bytes snapshot = state.page_bytes;
  for (const DeltaLayer& layer : state.delta_layers) {
    const int64_t base = DeltaLayerBytes(layer, state.ring_rows, state.conv_rows).base;
    folded = std::max(folded, base);
    const int64_t channels = 2LL * layer.key_heads * layer.key_dim + int64_t{layer.value_heads} * layer.value_dim;
    snapshot += Bytes(base) + Bytes(channels) * ((layer.width - 1) * DTypeBytes(layer.dtype));
  }
  m.workspace_bytes = (Bytes(RoundUp(scratch, kScratchAlign)) * (target == "cpu" ? threads : 1) + shared + folded).value();
  m.page_bytes = state.page_bytes;
  m.slot_bytes = state.slot_bytes;
  m.base_bytes = state.base_bytes;
  m.ring_bytes = state.ring_bytes;
  m.conv_bytes = state.conv_bytes;
  m.snapshot_bytes = snapshot.value();
  return m;
}

Bytes Fixed(const RankMemory& m) {
  return Bytes(m.weights_bytes - m.weights_shared_bytes) + m.weights_mapped_bytes + m.arena_bytes + m.workspace_bytes +
         m.output_bytes + m.kernel_bytes;
}

int64_t PagesOf(int64_t tokens) { return tokens / kPageTokens + (tokens % kPageTokens != 0); }

struct Asked {
  int64_t slots = 0, pages = 0, pages_a_seq = 0;
};

/// What `memory` holds beside `fixed` when a page and a slot have these sizes.
MemoryFit Fit(int64_t memory, Bytes fixed, Bytes page, Bytes slot, const Asked& asked) {
  MemoryFit fit;
  fit.least_bytes = (fixed + slot * asked.slots).value();
  fit.total_bytes = (Bytes(fit.least_bytes) + page * asked.pages).value();
  fit.fits = fit.least_bytes <= memory;
  if (!fit.fits) return fit;
  if (page.value() > 0) {
    fit.pages = (memory - fit.least_bytes) / page.value();
    fit.tokens = (Bytes(fit.pages) * kPageTokens).value();
  }
  const Bytes sequence = slot + page * asked.pages_a_seq;
  fit.sequences = sequence.value() > 0 ? (memory - fixed.value()) / sequence.value() : asked.slots;
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
  const int64_t pages_a_seq = PagesOf(s.max_model_len);
  s.num_slots = options.num_slots >= 0 ? options.num_slots : s.max_num_seqs;
  s.num_pages = options.num_pages >= 0 ? options.num_pages : (Bytes(pages_a_seq) * s.max_num_seqs).value();
  // The batch block is the plan's, whoever uses how much of it.
  s.batch_bytes = BatchBytes(plan.capacity, PagesOf(plan.model.max_model_len));
  for (const Blob& blob : plan.blobs)
    if (blob.kind != BlobKind::kIr && blob.kind != BlobKind::kConfig) s.text_bytes += blob.bytes.size();
  s.runtime_bytes = kRuntimeBytes;
  s.snapshot_bytes = options.snapshot_bytes;

  const Bytes once = Bytes(s.batch_bytes) + s.text_bytes + s.runtime_bytes + s.snapshot_bytes;
  Bytes fixed = once, page, slot;
  for (int32_t rank = 0; rank < plan.tp; ++rank) {
    s.ranks.push_back(OfRank(plan, target, rank, s.threads));
    fixed += Fixed(s.ranks.back());
    page += s.ranks.back().page_bytes;
    slot += s.ranks.back().slot_bytes;
  }
  s.fixed_bytes = fixed.value();
  s.total_bytes = (fixed + slot * s.num_slots + page * s.num_pages).value();
  if (options.memory_bytes <= 0) return s;

  const Asked asked{.slots = s.num_slots, .pages = s.num_pages, .pages_a_seq = pages_a_seq};
  if (target == "cpu") {  // ranks are threads of one process
    s.fit = Fit(options.memory_bytes, fixed, page, slot, asked);
    return s;
  }
  for (const RankMemory& m : s.ranks) {  // a page takes its part on every device: the fullest one decides
    const MemoryFit fit = Fit(options.memory_bytes, once + Fixed(m), m.page_bytes, m.slot_bytes, asked);
    if (!s.fit) {
      s.fit = fit;
    } else {
      s.fit->least_bytes = std::max(s.fit->least_bytes, fit.least_bytes);
      s.fit->total_bytes = std::max(s.fit->total_bytes, fit.total_bytes);
      s.fit->fits = s.fit->fits && fit.fits;
      s.fit->pages = std::min(s.fit->pages, fit.pages);
      s.fit->tokens = std::min(s.fit->tokens, fit.tokens);
      s.fit->sequences = std::min(s.fit->sequences, fit.sequences);
    }
  }
  return s;
}

Status CheckCapacity(const Plan& plan, const MemoryOptions& options) {
  auto check = [](const char* flag, int64_t asked, int64_t most) {
    if (asked <= most) return Status();
    return InvalidArgumentError(fmt::format("--{}: is {}, the plan takes {}", flag, asked, most),
                                fmt::format("compile with a larger --{}", flag));
  };
  QWEN_RETURN_IF_ERROR(check("max-num-seqs", options.max_num_seqs, plan.capacity.max_num_seqs));
  return check("max-model-len", options.max_model_len, plan.model.max_model_len);
}

Status CheckFit(const Plan& plan, const std::string& target, const MemoryOptions& options) {
  const MemoryStatement s = StateMemory(plan, target, options);
  if (!s.fit) return Status();
  const std::string have =
      fmt::format("there are {} ({} bytes)", HumanBytes(options.memory_bytes), options.memory_bytes);
  auto sizes = [](int64_t bytes) { return fmt::format("{} ({} bytes)", HumanBytes(bytes), bytes); };
  if (!s.fit->fits)
    return ResourceExhaustedError(fmt::format("{}: weights, buffers and {} slots take {}, {}", target, s.num_slots,
                                              sizes(s.fit->least_bytes), have),
                                  "use fewer sequences, or compile with smaller capacities");
  const bool all = options.max_num_seqs > 0 || options.max_model_len > 0 || options.num_pages >= 0;
  if (all && s.fit->total_bytes > options.memory_bytes)
    return ResourceExhaustedError(fmt::format("{}: {} slots and {} pages of {} tokens take {}, {}", target, s.num_slots,
                                              s.num_pages, s.page_tokens, sizes(s.fit->total_bytes), have),
                                  fmt::format("{} sequences of {} tokens fit, or {} tokens in all", s.fit->sequences,
                                              s.max_model_len, s.fit->tokens));
  return Status();
}

OutputPlaces PlaceOutputs(const Plan& plan, const std::string& target, int32_t rank) {
  OutputPlaces places;
  places.offsets.resize(plan.programs.size());
  Bytes shared;  // the largest program's transient outputs, at the front
  for (const bool transient : {true, false}) {
    Bytes end = shared;
    for (size_t p = 0; p < plan.programs.size(); ++p) {
      const Program& program = plan.programs[p];
      if (program.rank != rank || program.target != target) continue;
      std::vector<int64_t>& offsets = places.offsets[p];
      offsets.resize(program.buffers.size());
      if (transient) end = 0;
      for (size_t b = 0; b < program.buffers.size(); ++b) {
        const Buffer& buffer = program.buffers[b];
        if (buffer.kind != BufferKind::kOutput) continue;
        if (IsTransient(program, buffer) != transient) continue;
        offsets[b] = end.value();
        end += RoundUp(buffer.bytes);
      }
      if (transient) shared = std::max(shared.value(), end.value());
    }
    places.bytes = transient ? shared.value() : end.value();
  }
  return places;
}

std::vector<int32_t> FirstWithSameBytes(const Plan& plan) {
  std::vector<int32_t> first(plan.packed.size());
  std::map<std::vector<int64_t>, int32_t> seen;
  for (size_t i = 0; i < plan.packed.size(); ++i) {
    const Packed& packed = plan.packed[i];
    const Weight& weight = plan.weights[packed.weight];
    std::vector<int64_t> key = {weight.alias >= 0 ? weight.alias : packed.weight, static_cast<int64_t>(packed.layout)};
    for (size_t d = 0; d < weight.shape.size(); ++d) {
      const bool all = d >= packed.slices.size() || packed.slices[d].empty();
      const std::vector<Range> whole = {{0, weight.shape[d]}};
      for (const Range& range : all ? whole : packed.slices[d]) key.insert(key.end(), {range.begin, range.end});
      key.push_back(-1);  // the dimension's end
    }
    first[i] = seen.try_emplace(std::move(key), static_cast<int32_t>(i)).first->second;
  }
  return first;
}

std::string HumanBytes(int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.2f} {}", value, unit);
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
