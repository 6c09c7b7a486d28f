// A model of hashes behind the executor's interface: every bit of state that a sequence may rely on changes its output.
//
// It keeps state where the contract keeps it (base state, ring, conv ring, pages), starts from garbage, never clears,
// and its outputs are also a plain function of the tokens alone (ToyNext). So a lost record, a stale page, a shared
// partial page, a fold too many or a restore at the wrong position all show as a wrong token.
#ifndef QWEN_TEST_RUNTIME_ENGINE_TOY_EXECUTOR_H_
#define QWEN_TEST_RUNTIME_ENGINE_TOY_EXECUTOR_H_

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/engine/logits_processor.h"
#include "runtime/exec/executor.h"

namespace qwen::engine {

inline uint64_t ToyMix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9E3779B97F4A7C15u + b + 0x94D049BB133111EBu;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  return z ^ (z >> 27);
}

constexpr int kToyVocab = 97;
constexpr int kToyTaps = 3;  // conv rows before a row's own

// One row of the model: what it leaves behind, and what it says.
struct ToyRow {
  uint64_t conv, record, kv, out;
};
// `state` is the state before the row, `taps` the three conv rows before it, `context` the K/V rows before it.
inline ToyRow ToyCompute(int32_t token, uint64_t state, const uint64_t (&taps)[kToyTaps], uint64_t context) {
  ToyRow row;
  row.conv = ToyMix(1, static_cast<uint64_t>(token));
  uint64_t window = row.conv;
  for (uint64_t tap : taps) window = ToyMix(window, tap);
  row.record = ToyMix(ToyMix(2, window), state);
  row.kv = ToyMix(ToyMix(3, window), state);
  row.out = ToyMix(ToyMix(state, row.record), ToyMix(context, row.kv));
  return row;
}
inline uint64_t ToyFold(uint64_t state, uint64_t record) { return ToyMix(state ^ 0xF01D, record); }
inline uint64_t ToyContext(uint64_t context, uint64_t kv) { return ToyMix(context ^ 0xA77E, kv); }
// Between 0 and 16, in 24 bits.
inline float ToyLogit(uint64_t out, int id) {
  return static_cast<float>(ToyMix(out, static_cast<uint64_t>(id)) >> 40) * 0x1p-20f;
}
inline int32_t ToyToken(uint64_t out) {
  int32_t best = 0;
  for (int32_t id = 1; id < kToyVocab; ++id)
    if (ToyLogit(out, id) > ToyLogit(out, best)) best = id;
  return best;
}

/// What every row of `tokens` says, from the tokens alone.
inline std::vector<uint64_t> ToyOutputs(std::span<const int32_t> tokens) {
  std::vector<uint64_t> outs;
  uint64_t state = 0, context = 0, taps[kToyTaps] = {0, 0, 0};
  for (int32_t token : tokens) {
    ToyRow row = ToyCompute(token, state, taps, context);
    outs.push_back(row.out);
    state = ToyFold(state, row.record);
    context = ToyContext(context, row.kv);
    taps[2] = taps[1], taps[1] = taps[0], taps[0] = row.conv;
  }
  return outs;
}
inline int32_t ToyNext(std::span<const int32_t> tokens) { return ToyToken(ToyOutputs(tokens).back()); }

inline plan::Plan ToyPlan(int max_rows, int max_num_seqs = 4, int max_num_batched_tokens = 256,
                          int max_model_len = 400) {
  plan::Plan plan;
  plan.model.vocab = kToyVocab;
  plan.model.max_model_len = max_model_len;
  plan.capacity.max_num_seqs = max_num_seqs;
  plan.capacity.max_num_batched_tokens = max_num_batched_tokens;
  plan.capacity.max_rows = max_rows;
  plan.states.resize(1);
  plan.states[0].max_rows = max_rows;
  plan.states[0].fold_rows = std::max(max_rows, 8);
  plan.states[0].ring_rows = plan.states[0].fold_rows + max_rows;
  plan.states[0].conv_rows = kToyTaps + max_rows;
  return plan;
}

class ToyExecutor : public exec::Executor {
 public:
  ToyExecutor(const plan::Plan& plan, int num_pages, int num_slots, uint64_t garbage = 7) : state_(plan.states[0]) {
    std::mt19937_64 random(garbage);
    slots_.resize(static_cast<size_t>(num_slots));
    for (Slot& slot : slots_) {
      slot.base = random();
      slot.ring.resize(static_cast<size_t>(state_.ring_rows));
      slot.conv.resize(static_cast<size_t>(state_.conv_rows));
      for (uint64_t& x : slot.ring) x = random();
      for (uint64_t& x : slot.conv) x = random();
    }
    pages_.resize(static_cast<size_t>(num_pages) * plan::kPageTokens);
    for (uint64_t& x : pages_) x = random();
  }

  /// The next Run spoils the state of its sequences half way and fails.
  bool fail_next = false;
  std::vector<std::string> programs;     // that ran
  std::vector<std::vector<int>> chunks;  // rows of each long sequence, a vector a step
  int max_tokens_seen = 0;

  bool HasProgram(const std::string& name) const override {
    return name == "step" || (name == "verify" && state_.max_rows > 1);
  }

  StatusOr<exec::Outputs> Run(const std::string& program, const kernels::BatchView& batch,
                              std::span<const uint8_t>) override {
    EXPECT_TRUE(HasProgram(program));
    programs.push_back(program);
    chunks.emplace_back();
    max_tokens_seen = std::max(max_tokens_seen, batch.num_tokens);
    std::set<int> slots, table_rows;
    std::vector<uint64_t> outs;
    for (int s = 0; s < batch.num_seqs; ++s) {
      EXPECT_TRUE(slots.insert(batch.state_slot[s]).second);
      EXPECT_TRUE(table_rows.insert(batch.table_row[s]).second);
      int rows = batch.cu_tokens[s + 1] - batch.cu_tokens[s];
      if (s < batch.num_short) {
        EXPECT_LE(rows, program == "step" ? 1 : state_.max_rows);
      } else {
        EXPECT_EQ(batch.fold[s], 1);
        EXPECT_GT(rows, 1);
        chunks.back().push_back(rows);
      }
      RunSequence(batch, s, rows, outs);
    }
    if (fail_next) {
      fail_next = false;
      for (int slot : slots) slots_[static_cast<size_t>(slot)].base ^= 1;
      return InternalError("toy: told to fail");
    }
    next_.clear();
    logits_.clear();
    for (int i = 0; i < batch.num_logit_rows; ++i) {
      uint64_t out = outs[static_cast<size_t>(batch.logit_rows[i])];
      for (int id = 0; id < kToyVocab; ++id) logits_.push_back(ToyLogit(out, id));
      next_.push_back(Draw(batch, i));
    }
    exec::Outputs outputs;
    outputs.next = next_;
    outputs.logits = logits_;
    return outputs;
  }

  int64_t allocated_bytes() const override { return 0; }
  int64_t page_bytes() const override { return plan::kPageTokens * 8; }
  int64_t slot_copy_bytes() const override { return (1 + kToyTaps) * 8; }
  void SaveSlot(int index, int position, int ring_fill, std::span<uint8_t> to) const override {
    const Slot& slot = slots_[static_cast<size_t>(index)];
    EXPECT_LE(ring_fill, state_.fold_rows);
    uint64_t values[1 + kToyTaps] = {State(slot, position, ring_fill)};
    for (int i = 1; i <= kToyTaps; ++i) values[i] = Conv(slot, position - i);
    ASSERT_EQ(to.size(), sizeof values);
    std::memcpy(to.data(), values, sizeof values);
  }
  void LoadSlot(int index, int position, std::span<const uint8_t> from) override {
    Slot& slot = slots_[static_cast<size_t>(index)];
    uint64_t values[1 + kToyTaps];
    ASSERT_EQ(from.size(), sizeof values);
    std::memcpy(values, from.data(), sizeof values);
    slot.base = values[0];
    for (int i = 1; i <= kToyTaps && position - i >= 0; ++i)
      slot.conv[static_cast<size_t>((position - i) % state_.conv_rows)] = values[i];
  }
  void SavePage(int page, std::span<uint8_t> to) const override {
    ASSERT_EQ(to.size(), static_cast<size_t>(page_bytes()));
    std::memcpy(to.data(), &pages_[static_cast<size_t>(page) * plan::kPageTokens], to.size());
  }
  void LoadPage(int page, std::span<const uint8_t> from) override {
    ASSERT_EQ(from.size(), static_cast<size_t>(page_bytes()));
    std::memcpy(&pages_[static_cast<size_t>(page) * plan::kPageTokens], from.data(), from.size());
  }

 private:
  struct Slot {
    uint64_t base;
    std::vector<uint64_t> ring, conv;
  };

  // As a plan does: the sample kernel, with the row's own parameters.
  int32_t Draw(const kernels::BatchView& batch, int logit_row) {
    const int row = batch.logit_rows[logit_row];
    int s = 0;
    while (batch.cu_tokens[s + 1] <= row) ++s;
    return sampler_.Draw(batch.sample[logit_row], std::span(logits_).last(kToyVocab),
                         batch.position[s] + row - batch.cu_tokens[s]);
  }

  // The state at `position`: base and the ring's committed records. At position = ring_fill the base counts as zero.
  uint64_t State(const Slot& slot, int position, int ring_fill) const {
    uint64_t state = position == ring_fill ? 0 : slot.base;
    for (int p = position - ring_fill; p < position; ++p)
      state = ToyFold(state, slot.ring[static_cast<size_t>(p % state_.ring_rows)]);
    return state;
  }
  uint64_t Conv(const Slot& slot, int position) const {
    return position < 0 ? 0 : slot.conv[static_cast<size_t>(position % state_.conv_rows)];
  }

  void RunSequence(const kernels::BatchView& batch, int s, int rows, std::vector<uint64_t>& outs) {
    Slot& slot = slots_[static_cast<size_t>(batch.state_slot[s])];
    int position = batch.position[s], fill = batch.ring_fill[s];
    bool is_long = s >= batch.num_short;
    EXPECT_LE(fill, std::min(position, state_.fold_rows));
    EXPECT_TRUE(is_long || batch.fold[s] || fill + rows <= state_.fold_rows);
    uint64_t state = State(slot, position, fill);
    if (batch.fold[s]) slot.base = state;
    uint64_t taps[kToyTaps];
    for (int i = 0; i < kToyTaps; ++i) taps[i] = Conv(slot, position - 1 - i);
    auto kv = [&](int p) -> uint64_t& {
      int page = batch.page_table[batch.table_row[s] * batch.max_pages + p / plan::kPageTokens];
      return pages_[static_cast<size_t>(page) * plan::kPageTokens + static_cast<size_t>(p % plan::kPageTokens)];
    };
    uint64_t context = 0;
    for (int p = 0; p < position; ++p) context = ToyContext(context, kv(p));
    for (int p = position; p < position + rows; ++p) {
      ToyRow row = ToyCompute(batch.token_ids[batch.cu_tokens[s] + p - position], state, taps, context);
      outs.push_back(row.out);
      kv(p) = row.kv;
      state = ToyFold(state, row.record);
      context = ToyContext(context, row.kv);
      taps[2] = taps[1], taps[1] = taps[0], taps[0] = row.conv;
      slot.conv[static_cast<size_t>(p % state_.conv_rows)] = row.conv;
      if (is_long)
        slot.base = state;
      else
        slot.ring[static_cast<size_t>(p % state_.ring_rows)] = row.record;
    }
  }

  plan::State state_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> pages_;
  RowSampler sampler_{kToyVocab, kernels::Isa::kBase};
  std::vector<int32_t> next_;
  std::vector<float> logits_;
};

}  // namespace qwen::engine

#endif  // QWEN_TEST_RUNTIME_ENGINE_TOY_EXECUTOR_H_
