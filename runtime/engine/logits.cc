#include "runtime/engine/logits.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <numeric>
#include <utility>

#include "fmt/format.h"

namespace qwen::engine {
namespace {

constexpr int kMaxRandomCall = 64;

// SplitMix64: a stream a case, the same on every machine.
uint64_t NextRandom(uint64_t& state) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

template <class T>
bool ParseAll(std::string_view text, T& value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

struct Running {
  size_t index;  // of the case
  Sequence sequence;
  std::deque<int> calls;  // left
  int reserved;           // pages
};

}  // namespace

StatusOr<SplitRule> SplitRule::Parse(std::string_view text) {
  SplitRule rule;
  if (text.empty()) return rule;
  constexpr std::string_view kRandom = "random:";
  if (text.starts_with(kRandom)) {
    rule.random = true;
    if (ParseAll(text.substr(kRandom.size()), rule.seed)) return rule;
    return InvalidArgumentError(fmt::format("'{}' is not random:SEED", text));
  }
  while (true) {
    size_t comma = text.find(',');
    int64_t size = 0;
    if (!ParseAll(text.substr(0, comma), size) || size < 1)
      return InvalidArgumentError(fmt::format("'{}' is no number of rows above 0", text.substr(0, comma)),
                                  "splits look like 5,1,64 or random:SEED");
    rule.sizes.push_back(size);
    if (comma == std::string_view::npos) return rule;
    text.remove_prefix(comma + 1);
  }
}

std::vector<int> SplitRule::Calls(size_t index, int64_t tokens) const {
  std::vector<int> calls;
  uint64_t state = seed + 0xD1342543DE82EF95u * (index + 1);
  for (size_t i = 0; tokens > 0; ++i) {
    int64_t rows = tokens;
    if (random)
      rows = 1 + static_cast<int64_t>(NextRandom(state) % kMaxRandomCall);
    else if (!sizes.empty())
      rows = sizes[i % sizes.size()];
    rows = std::min(rows, tokens);
    calls.push_back(static_cast<int>(rows));
    tokens -= rows;
  }
  return calls;
}

Status RunLogits(Engine& engine, std::span<const std::vector<int32_t>> cases, const LogitsOptions& options,
                 const std::function<void(size_t, int64_t, std::span<const float>)>& sink) {
  for (size_t i = 0; i < cases.size(); ++i)
    QWEN_RETURN_IF_ERROR(CheckPrompt(engine.plan(), cases[i]).Annotate(fmt::format("case {}", i)));
  const int max_rows = std::min(engine.capacity().max_num_batched_tokens, engine.capacity().max_logit_rows);
  const size_t vocab = static_cast<size_t>(engine.vocab());
  const size_t at_once = options.batch ? static_cast<size_t>(engine.max_sequences()) : 1;
  const kernels::SampleParams sample = MakeSampleParams({}, /*write_logits=*/true);
  std::vector<int32_t> all_rows(static_cast<size_t>(max_rows));
  std::iota(all_rows.begin(), all_rows.end(), 0);

  std::deque<Running> running;
  size_t waiting = 0;
  int reserved_pages = 0;
  while (true) {
    if (options.stop && options.stop->load(std::memory_order_relaxed)) return CancelledError("stopped");
    for (; waiting < cases.size() && running.size() < at_once; ++waiting) {
      int pages = PagesFor(static_cast<int64_t>(cases[waiting].size()));
      if (pages > engine.pools().pages.count())
        return ResourceExhaustedError(fmt::format("case {}: {} pages of KV cache are needed, there are {}", waiting,
                                                  pages, engine.pools().pages.count()));
      if (reserved_pages + pages > engine.pools().pages.count()) break;
      QWEN_ASSIGN_OR_RETURN(Sequence sequence, engine.Begin());
      std::vector<int> calls = options.split.Calls(waiting, static_cast<int64_t>(cases[waiting].size()));
      running.push_back({waiting, std::move(sequence), {calls.begin(), calls.end()}, pages});
      reserved_pages += pages;
    }
    if (running.empty()) return {};

    std::vector<StepEntry> entries;
    std::vector<Running*> owners;
    int budget = max_rows;
    for (Running& r : running) {
      // A call that does not fit waits whole; the first one fits or is cut, so every step gets on.
      int rows = std::min(r.calls.front(), max_rows);
      if (rows > budget) continue;
      StepEntry entry;
      entry.sequence = &r.sequence;
      entry.tokens =
          std::span(cases[r.index]).subspan(static_cast<size_t>(r.sequence.position()), static_cast<size_t>(rows));
      entry.logit_rows = std::span(all_rows).first(static_cast<size_t>(rows));
      entry.sample = sample;
      entries.push_back(entry);
      owners.push_back(&r);
      budget -= rows;
    }
    QWEN_ASSIGN_OR_RETURN(exec::Outputs outputs, engine.Step(entries));

    for (size_t i = 0; i < entries.size(); ++i) {
      Running& r = *owners[i];
      int rows = static_cast<int>(entries[i].tokens.size());
      for (int row = 0; row < rows; ++row) {
        size_t at = static_cast<size_t>(entries[i].first_logit_row + row);
        sink(r.index, r.sequence.position() + row, outputs.logits.subspan(at * vocab, vocab));
      }
      r.sequence.Commit(rows);
      r.calls.front() -= rows;
      if (r.calls.front() == 0) r.calls.pop_front();
      if (!r.calls.empty()) continue;
      r.sequence.Release();
      reserved_pages -= r.reserved;
    }
    std::erase_if(running, [](const Running& r) { return r.calls.empty(); });
  }
}

}  // namespace qwen::engine
