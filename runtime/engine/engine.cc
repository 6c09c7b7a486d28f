#include "runtime/engine/engine.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "fmt/format.h"

namespace qwen::engine {
namespace {

// A plan may leave the limit open.
plan::Capacity Resolve(plan::Capacity capacity) {
  if (capacity.max_logit_rows == 0) capacity.max_logit_rows = capacity.max_num_batched_tokens;
  return capacity;
}

}  // namespace

Engine::Engine(const plan::Plan& plan, std::unique_ptr<exec::Executor> executor, int num_pages, int num_slots)
    : plan_(plan),
      capacity_(Resolve(plan.capacity)),
      executor_(std::move(executor)),
      batch_(capacity_, PagesFor(plan.model.max_model_len)),
      pools_(*executor_, batch_, plan, num_pages, num_slots) {}

int Engine::max_sequences() const { return std::min(pools_.slots.count(), capacity_.max_num_seqs); }

Status CheckPrompt(const plan::Plan& plan, std::span<const int32_t> tokens) {
  const int64_t vocab = plan.model.vocab, max_model_len = plan.model.max_model_len;
  if (tokens.empty()) return InvalidArgumentError("the prompt has no tokens");
  if (static_cast<int64_t>(tokens.size()) > max_model_len)
    return InvalidArgumentError(
        fmt::format("the prompt has {} tokens, the plan takes {}", tokens.size(), max_model_len),
        "compile with a larger --max-model-len");
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocab)
      return InvalidArgumentError(fmt::format("token {} is {}, the vocabulary has {}", i, tokens[i], vocab));
  return {};
}

StatusOr<exec::Outputs> Engine::Step(std::span<StepEntry> entries) {
  // Short sequences go first; apart from that the caller's order.
  std::vector<StepEntry*>& order = order_;
  order.clear();
  for (StepEntry& entry : entries) {
    if (entry.tokens.size() == 1) entry.part = Part::kShort;
    if (entry.part == Part::kShort) order.push_back(&entry);
  }
  for (StepEntry& entry : entries)
    if (entry.part == Part::kLong) order.push_back(&entry);

  Status status;
  size_t appended = 0;
  for (; appended < order.size() && status.ok(); ++appended) {
    StepEntry& entry = *order[appended];
    for (int32_t token : entry.tokens)
      if (token < 0 || token >= vocab())
        status = InvalidArgumentError(fmt::format("step: token {}, the vocabulary has {}", token, vocab()));
    if (status.ok()) status = entry.sequence->Append(entry.tokens, entry.part);
    if (!status.ok()) break;
  }

  batch_.Clear();
  bool several_rows = false;
  int row = 0, logit_row = 0, short_index = 0;
  for (size_t i = 0; i < order.size() && status.ok(); ++i) {
    StepEntry& entry = *order[i];
    bool is_short = entry.part == Part::kShort;
    entry.first_row = row;
    entry.first_logit_row = logit_row;
    entry.short_index = is_short ? short_index++ : -1;
    row += static_cast<int>(entry.tokens.size());
    logit_row += static_cast<int>(entry.logit_rows.size());
    several_rows |= is_short && entry.tokens.size() > 1;
    sample_.assign(entry.logit_rows.size(), entry.sample);
    exec::SequenceRows rows = entry.sequence->Rows();
    rows.logit_rows = entry.logit_rows;
    rows.sample = sample_;
    status = is_short ? batch_.AddShort(rows) : batch_.AddLong(rows);
  }
  if (!status.ok()) {
    for (size_t i = 0; i < appended; ++i) order[i]->sequence->Retract();
    return status;
  }

  StatusOr<exec::Outputs> outputs = executor_->Run(several_rows ? "verify" : "step", batch_.View());
  if (!outputs.ok())
    for (StepEntry* entry : order) entry->sequence->Poison();
  return outputs;
}

}  // namespace qwen::engine
