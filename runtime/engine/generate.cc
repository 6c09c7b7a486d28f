#include "runtime/engine/generate.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "fmt/format.h"

namespace qwen::engine {
namespace {

struct Running {
  size_t index;  // of the prompt
  Sequence sequence;
  int reserved;               // pages
  std::vector<int32_t> rows;  // to feed in this step
};

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "";
}

int ChunkRows(int64_t position, int64_t left, int64_t budget, bool alone) {
  if (left <= budget) return static_cast<int>(left);
  int64_t rows = (position + budget) / plan::kStateAlign * plan::kStateAlign - position;
  if (rows <= 0) rows = alone ? budget : 0;
  return static_cast<int>(rows);
}

StatusOr<int32_t> Feed(Engine& engine, Sequence& sequence, std::span<const int32_t> tokens,
                       const kernels::SampleParams& sample, const std::atomic<bool>* stop) {
  while (!(stop && stop->load(std::memory_order_relaxed))) {
    const int64_t left = static_cast<int64_t>(tokens.size());
    const int rows = ChunkRows(sequence.position(), left, engine.capacity().max_num_batched_tokens, /*alone=*/true);
    const int32_t last = rows - 1;
    StepEntry entry{.sequence = &sequence, .tokens = tokens.first(rows), .sample = sample};
    if (rows == left) entry.logit_rows = {&last, 1};
    QWEN_ASSIGN_OR_RETURN(exec::Outputs outputs, engine.Step({&entry, 1}));
    sequence.Commit(rows);
    tokens = tokens.subspan(rows);
    if (tokens.empty()) return outputs.next[0];
  }
  return CancelledError("stopped");
}

StatusOr<Generated> Continue(Engine& engine, Sequence& sequence, std::span<const int32_t> tokens,
                             const GenerateOptions& options) {
  QWEN_RETURN_IF_ERROR(CheckSampling(options.sampling));
  QWEN_RETURN_IF_ERROR(CheckPrompt(engine.plan(), tokens));
  const kernels::SampleParams sample = MakeSampleParams(options.sampling);
  Generated result;
  for (std::span<const int32_t> next = tokens;;) {
    StatusOr<int32_t> token = Feed(engine, sequence, next, sample, options.stop);
    if (token.status().code() == StatusCode::kCancelled) return result;
    if (!token.ok()) return token.status();
    result.tokens.push_back(*token);
    if (options.on_token) options.on_token(0, *token);
    const bool ends = std::find(options.eos_ids.begin(), options.eos_ids.end(), *token) != options.eos_ids.end();
    const bool full = static_cast<int>(result.tokens.size()) >= options.max_tokens ||
                      sequence.position() + 1 >= engine.max_model_len();
    if (ends || full) {
      result.reason = ends ? FinishReason::kStop : FinishReason::kLength;
      return result;
    }
    next = {&result.tokens.back(), 1};
  }
}

StatusOr<std::vector<Generated>> Generate(Engine& engine, std::span<const std::vector<int32_t>> prompts,
                                          const GenerateOptions& options) {
  QWEN_RETURN_IF_ERROR(CheckSampling(options.sampling));
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::string where = prompts.size() > 1 ? fmt::format("prompt {}", i) : "prompt";
    QWEN_RETURN_IF_ERROR(CheckPrompt(engine.plan(), prompts[i]).Annotate(where));
  }
  const kernels::SampleParams sample = MakeSampleParams(options.sampling);
  std::vector<Generated> results(prompts.size());
  std::deque<Running> running;
  size_t waiting = 0;
  int reserved_pages = 0;
  auto stopped = [&] { return options.stop && options.stop->load(std::memory_order_relaxed); };
  // Of one step; out here, so that the next one allocates nothing.
  std::vector<StepEntry> entries;
  std::vector<Running*> owners;
  std::vector<int32_t> last_row;  // the logit row of each

  while (!stopped()) {
    // Admit in order. The last drawn token is never fed.
    for (; waiting < prompts.size(); ++waiting) {
      int64_t longest = std::min<int64_t>(static_cast<int64_t>(prompts[waiting].size()) + options.max_tokens - 1,
                                          engine.max_model_len());
      int pages = PagesFor(longest);
      if (pages > engine.pools().pages.count())
        return ResourceExhaustedError(fmt::format("prompt {}: {} pages of KV cache are needed, there are {}", waiting,
                                                  pages, engine.pools().pages.count()));
      if (static_cast<int>(running.size()) == engine.max_sequences() ||
          reserved_pages + pages > engine.pools().pages.count())
        break;
      QWEN_ASSIGN_OR_RETURN(Sequence sequence, engine.Begin());
      results[waiting].tokens.reserve(static_cast<size_t>(longest + 1) - prompts[waiting].size());
      running.push_back({waiting, std::move(sequence), pages, {}});
      reserved_pages += pages;
    }
    if (running.empty()) break;

    // Decode rows first: a running text never waits for a prompt. Then prompts, while rows are left.
    entries.clear();
    owners.clear();
    last_row.resize(running.size());
    int64_t budget = engine.capacity().max_num_batched_tokens;
    for (bool decode : {true, false}) {
      for (Running& r : running) {
        const std::vector<int32_t>& prompt = prompts[r.index];
        int64_t position = r.sequence.position(), prompt_tokens = static_cast<int64_t>(prompt.size());
        if ((position >= prompt_tokens) != decode || budget == 0) continue;
        int rows = decode ? 1 : ChunkRows(position, prompt_tokens - position, budget, entries.empty());
        if (rows == 0) continue;
        if (decode)
          r.rows = {results[r.index].tokens.back()};
        else
          r.rows.assign(prompt.begin() + position, prompt.begin() + position + rows);
        StepEntry entry;
        entry.sequence = &r.sequence;
        entry.tokens = r.rows;
        entry.sample = sample;
        // Only the row behind which a token is missing.
        last_row[entries.size()] = rows - 1;
        if (position + rows >= prompt_tokens) entry.logit_rows = {&last_row[entries.size()], 1};
        entries.push_back(entry);
        owners.push_back(&r);
        budget -= rows;
      }
    }
    QWEN_ASSIGN_OR_RETURN(exec::Outputs outputs, engine.Step(entries));

    for (size_t i = 0; i < entries.size(); ++i) {
      Running& r = *owners[i];
      r.sequence.Commit(static_cast<int>(entries[i].tokens.size()));
      if (entries[i].logit_rows.empty()) continue;
      int32_t token = outputs.next[static_cast<size_t>(entries[i].first_logit_row)];
      Generated& result = results[r.index];
      result.tokens.push_back(token);
      if (options.on_token) options.on_token(r.index, token);
      bool ends = std::find(options.eos_ids.begin(), options.eos_ids.end(), token) != options.eos_ids.end();
      bool full = static_cast<int>(result.tokens.size()) >= options.max_tokens ||
                  r.sequence.position() + 1 >= engine.max_model_len();
      if (!ends && !full) continue;
      result.reason = ends ? FinishReason::kStop : FinishReason::kLength;
      r.sequence.Release();
      reserved_pages -= r.reserved;
    }
    std::erase_if(running, [](const Running& r) { return r.sequence.slot() < 0; });
  }
  return results;
}

}  // namespace qwen::engine
