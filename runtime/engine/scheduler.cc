#include "runtime/engine/scheduler.h"

#include <algorithm>
#include <cassert>
#include <deque>
#include <utility>

#include "fmt/format.h"

namespace qwen::engine {

const char* MissReasonName(MissReason reason) {
  static constexpr const char* kNames[] = {"none", "cold", "no_snapshot", "disabled"};
  return kNames[static_cast<size_t>(reason)];
}

// --- Choices and requests --------------------------------------------------------------------------------------------

struct Scheduler::Choice : WaitItem {
  enum class State : uint8_t { kNotYet /* its prompt is not in */, kWaiting, kRunning, kDone };

  Job* job = nullptr;
  State state = State::kNotYet;
  std::vector<int32_t> tokens;  // the prompt, then what was drawn
  std::optional<Sequence> sequence;
  kernels::SampleParams params{};
  std::optional<LogitsProcessor> processor;
  bool is_long = false;
  bool uses_fork = false;  // starts from the job's fork

  PrefixCache::Tip tip;
  PrefixCache::Ref answer_snapshot;  // the latest one taken while it was decoding
  std::vector<int> snapshots;        // positions to stop and save at, ascending
  std::vector<int32_t> logit_rows;   // of the planned entry

  int size() const { return static_cast<int>(tokens.size()); }
  int left() const { return size() - sequence->position(); }
};

struct Scheduler::Job {
  RequestId id = 0;
  Request request;  // its prompt is in the choices' tokens
  std::shared_ptr<RequestSink> sink;
  std::deque<Choice> choices;
  int open = 0;  // choices not finished
  int prompt_tokens = 0;
  bool admitted = false, prompt_done = false, cached = false;
  PromptResult prompt;
  RequestTimes times;
  std::optional<Snapshot> fork;  // behind the prompt, while choices have yet to start from it
  int fork_users = 0;
  int prompt_logprobs_sent = 0;

  int drawn(const Choice& choice) const { return choice.size() - prompt_tokens; }
};

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options, std::function<TimePoint()> now)
    : engine_(engine),
      options_(options),
      now_(std::move(now)),
      budget_(engine.capacity().max_num_batched_tokens),
      max_logit_rows_(engine.capacity().max_logit_rows),
      cache_(engine.pools(), options.cache),
      sampler_(static_cast<int>(engine.vocab()), options.isa),
      waiting_(engine.capacity().max_num_seqs) {
  options_.max_partial_prefills = std::max(options_.max_partial_prefills, 1);
  if (options.max_num_batched_tokens > 0) budget_ = std::min(budget_, options.max_num_batched_tokens);
  max_running_ = std::min({engine.max_sequences(), budget_, max_logit_rows_});
  unaligned_ = budget_ < plan::kStateAlign + max_running_;
  max_len_ =
      static_cast<int>(std::min(engine.max_model_len(), int64_t{plan::kPageTokens} * engine.pools().pages.count()));
}

Scheduler::~Scheduler() = default;

void Scheduler::Submit(RequestId id, Request request, std::shared_ptr<RequestSink> sink) {
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  assert(jobs_.empty() || jobs_.rbegin()->first < id);
  jobs_.emplace(id, std::move(owned));
  job.id = id;
  job.request = std::move(request);
  job.sink = std::move(sink);
  job.times.queued = now_();
  job.prompt_tokens = static_cast<int>(job.request.prompt.size());
  job.open = std::max(1, job.request.choices);
  job.cached = options_.prefix_cache && job.request.use_cache && job.request.prompt_logprobs < 0;
  for (int index = 0; index < job.open; ++index) {
    Choice& choice = job.choices.emplace_back();
    choice.job = &job;
    choice.arrival = id;
    choice.choice = index;
    choice.priority = job.request.priority;
    choice.flow = job.request.flow;
    choice.tokens.reserve(static_cast<size_t>(job.prompt_tokens) + std::min(job.request.max_tokens, 4096));
    SamplingOptions sampling = job.request.sampling;
    sampling.choice = index;
    choice.params = MakeSampleParams(sampling, false, job.request.vocab_used);
    choice.processor.emplace(job.request);
  }
  Choice& first = job.choices.front();
  first.tokens.assign(job.request.prompt.begin(), job.request.prompt.end());
  job.request.prompt = {};
  first.prefill_tokens = job.prompt_tokens;

  Status status = CheckPrompt(engine_.plan(), first.tokens);
  if (status.ok() && job.prompt_tokens >= max_len_ && job.request.max_tokens > 0)
    status = ResourceExhaustedError(
        fmt::format("the prompt has {} tokens, the cache and the model take {}", job.prompt_tokens, max_len_ - 1));
  if (status.ok() && job.prompt_tokens > max_len_)
    status = ResourceExhaustedError(
        fmt::format("the prompt has {} tokens, the cache takes {}", job.prompt_tokens, max_len_));
  if (failed_) status = InternalError("the device failed");
  if (status.ok()) {
    first.state = Choice::State::kWaiting;
    waiting_.Push(&first, /*resumed=*/false);
    return;
  }
  for (Choice& choice : job.choices) Finish(choice, FinishReason::kFailed, -1, status);
  Reap();
}

void Scheduler::Cancel(RequestId id, const Status& why) {
  auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  for (Choice& choice : found->second->choices) Finish(choice, FinishReason::kCancelled, -1, why);
  Reap();
}

void Scheduler::CancelAll(const Status& why) {
  for (auto& [id, job] : jobs_)
    for (Choice& choice : job->choices) Finish(choice, FinishReason::kCancelled, -1, why);
  Reap();
}

void Scheduler::Finish(Choice& choice, FinishReason reason, int32_t stop_id, const Status& status) {
  if (choice.state == Choice::State::kDone) return;
  if (choice.state == Choice::State::kWaiting) waiting_.Remove(&choice);
  choice.state = Choice::State::kDone;
  if (choice.sequence) {
    cache_.Touch(choice.tip.node);
    choice.sequence.reset();
  }
  LeaveFork(choice);
  ++counters_.finished[static_cast<size_t>(reason)];
  Job& job = *choice.job;
  if (--job.open == 0) {
    job.times.finished = now_();
    job.sink->OnTimes(job.times);
    dead_.push_back(job.id);
  }
  job.sink->OnFinish(choice.choice, reason, stop_id, status);
}

void Scheduler::LeaveFork(Choice& choice) {
  if (!std::exchange(choice.uses_fork, false)) return;
  if (--choice.job->fork_users == 0) choice.job->fork.reset();
}

void Scheduler::Reap() {
  std::erase_if(running_, [](const Choice* choice) { return choice->state != Choice::State::kRunning; });
  for (RequestId id : dead_) jobs_.erase(id);
  dead_.clear();
}

// --- Pages -----------------------------------------------------------------------------------------------------------

bool Scheduler::EnsureFree(int pages) {
  return cache_.EvictUntilFree(pages) || (DropForks() && cache_.EvictUntilFree(pages));
}

// Their choices prefill for themselves, then.
bool Scheduler::DropForks() {
  bool dropped = false;
  for (auto& [id, job] : jobs_) {
    dropped |= job->fork.has_value();
    job->fork.reset();
  }
  return dropped;
}

// What the prompts that are under way have yet to take.
int Scheduler::ReservedPages() const {
  int pages = 0;
  for (const Choice* choice : running_)
    if (choice->left() > 1)
      pages += std::min(PagesFor(choice->size()) + 1, engine_.pools().pages.count()) -
               static_cast<int>(choice->sequence->pages().size());
  return pages;
}

void Scheduler::PreemptOne() {
  Choice* victim = *std::ranges::max_element(running_, {}, [](const Choice* choice) {
    return std::tuple(-choice->priority, choice->arrival, choice->choice);
  });
  ++counters_.preemptions;
  Requeue(*victim);
}

void Scheduler::Requeue(Choice& choice) {
  std::erase(running_, &choice);
  cache_.Touch(choice.tip.node);
  choice.sequence.reset();
  choice.tip = {};
  choice.is_long = false;
  choice.state = Choice::State::kWaiting;
  waiting_.Push(&choice, /*resumed=*/true);
}

// --- Planning --------------------------------------------------------------------------------------------------------

void Scheduler::PlanDecodes() {
  auto decodes = [](const Choice& choice) { return choice.left() == 1 && choice.job->drawn(choice) > 0; };
  for (;;) {
    int pages = 0;
    for (const Choice* choice : running_)
      if (decodes(*choice)) pages += PagesFor(choice->size()) - static_cast<int>(choice->sequence->pages().size());
    if (EnsureFree(pages)) break;
    PreemptOne();
  }
  for (Choice* choice : running_) {
    bool cut;
    if (decodes(*choice)) PlanRows(*choice, 1, &cut);
  }
}

// Whether the rows from `position` on are drawn tokens that must be fed as they were the first time.
bool Scheduler::Replays(const Choice& choice, int position) const {
  return options_.deterministic && position >= choice.job->prompt_tokens;
}

// Rows from `position` on: to the next place to save at, else to the end, as far as the budget goes.
int Scheduler::ChunkFor(const Choice& choice, int position, int budget, bool* cut) const {
  const Job& job = *choice.job;
  int end = choice.size();
  if (auto stop = std::ranges::upper_bound(choice.snapshots, position); stop != choice.snapshots.end())
    end = std::min(end, *stop);
  if (options_.deterministic && position < job.prompt_tokens) end = std::min(end, job.prompt_tokens);
  if (Replays(choice, position)) {
    *cut = false;
    return std::min({choice.size() - position, budget, engine_.pools().max_rows});
  }
  bool alone = unaligned_;
  if (job.request.prompt_logprobs >= 0 && position < job.prompt_tokens) {
    const int most = max_logit_rows_ - max_running_ + 1;
    alone |= most < plan::kStateAlign;
    budget = std::min(budget, most - extra_logit_rows_);
  }
  const int rows = budget > 0 ? ChunkRows(position, end - position, budget, alone) : 0;
  *cut = position + rows < end;
  return rows;
}

int Scheduler::PlanRows(Choice& choice, int budget, bool* cut) {
  Job& job = *choice.job;
  Sequence& sequence = *choice.sequence;
  const int position = sequence.position(), have = static_cast<int>(sequence.pages().size());
  int rows = ChunkFor(choice, position, budget, cut);
  // Fewer rows where there are not as many pages; a running text then has what is left.
  const bool replays = Replays(choice, position);
  while (rows > 0 && !EnsureFree(promised_ + PagesFor(position + rows) - have)) {
    rows = replays ? rows - 1 : rows > plan::kStateAlign ? (rows - 1) / plan::kStateAlign * plan::kStateAlign : 0;
    *cut = true;
  }
  if (rows == 0) return 0;
  promised_ += PagesFor(position + rows) - have;

  StepEntry& entry = entries_.emplace_back();
  owners_.push_back(&choice);
  entry.sequence = &sequence;
  entry.tokens =
      std::span<const int32_t>(choice.tokens).subspan(static_cast<size_t>(position), static_cast<size_t>(rows));
  entry.sample = choice.params;
  entry.part = replays ? Part::kShort : Part::kLong;
  choice.logit_rows.clear();
  if (job.request.prompt_logprobs >= 0)
    for (int row = 0; row < rows; ++row) {
      const int target = position + row + 1;
      if (target < job.prompt_tokens && target > job.prompt_logprobs_sent) choice.logit_rows.push_back(row);
    }
  const bool draws = position + rows == choice.size() && job.request.max_tokens > 0;
  if (draws) choice.logit_rows.push_back(rows - 1);
  extra_logit_rows_ += std::max(0, static_cast<int>(choice.logit_rows.size()) - 1);
  const bool reads = job.request.logprobs >= 0 || job.request.prompt_logprobs >= 0 || job.choices.size() > 1 ||
                     choice.processor->Needed(job.drawn(choice), -1);
  if (reads) entry.sample.flags |= kernels::kSampleWriteLogits;
  entry.logit_rows = choice.logit_rows;
  return rows;
}

void Scheduler::PlanPrefills() {
  const bool beside_decode = !entries_.empty();
  int left = budget_ - static_cast<int>(entries_.size());
  if (beside_decode && options_.max_prefill_rows_beside_decode > 0)
    left = std::min(left, std::max(options_.max_prefill_rows_beside_decode, plan::kStateAlign));

  // Half of the rows are a long prompt's when others want them: neither waits for the other's end.
  Choice* long_one = nullptr;
  for (Choice* choice : running_)
    if (choice->is_long) long_one = choice;
  auto share_of_others = [&] {
    if (left < 2 * plan::kStateAlign) return counters_.steps % 2 == 0 ? left : 0;
    return left - left / 2 / plan::kStateAlign * plan::kStateAlign;
  };
  int others = long_one ? share_of_others() : left;
  int cut_ones = long_one ? 1 : 0;
  auto plan = [&](Choice& choice) {
    bool cut;
    const int rows = PlanRows(choice, std::min(others, left), &cut);
    others -= rows;
    left -= rows;
    cut_ones += cut;
  };
  for (Choice* choice : running_)
    if (choice != long_one && (choice->left() > 1 || choice->job->drawn(*choice) == 0)) plan(*choice);

  auto eligible = [&](const WaitItem& item) {
    const Choice& choice = static_cast<const Choice&>(item);
    const int tokens = choice.size();
    if (!long_one || tokens <= options_.long_prefill_tokens || (choice.uses_fork && choice.job->fork)) return true;
    return choice.job->cached &&
           tokens - cache_.Lookup(choice.job->request.cache_salt, choice.tokens).tokens <= options_.long_prefill_tokens;
  };
  while (std::min(others, left) > 0 && static_cast<int>(running_.size()) < max_running_) {
    WaitItem* next = waiting_.Next(eligible);
    if (!next) break;
    Choice& choice = static_cast<Choice&>(*next);
    if (!Admit(choice, std::min(others, left), cut_ones < options_.max_partial_prefills)) break;
    if (choice.is_long) {
      long_one = &choice;
      others = std::min(others, share_of_others());
      ++cut_ones;
    } else {
      plan(choice);
    }
  }
  bool cut;
  if (long_one && left > 0) PlanRows(*long_one, left, &cut);
}

// Gives the choice a sequence when its pages and its first rows are to be had. `may_cut`: it need not end in this step.
bool Scheduler::Admit(Choice& choice, int budget, bool may_cut) {
  Job& job = *choice.job;
  KvPages& pages = engine_.pools().pages;
  const bool fork = choice.uses_fork && job.fork;
  PrefixCache::Hit hit;
  if (!fork && job.cached) hit = cache_.Lookup(job.request.cache_salt, choice.tokens);
  const int position = fork ? job.fork->position() : hit.tokens;
  const int shared = fork ? static_cast<int>(job.fork->full_pages().size()) : hit.tokens / plan::kPageTokens;

  choice.snapshots.clear();
  if (job.cached && !fork) choice.snapshots = cache_.PlanSnapshots(hit, choice.size(), job.request.turn_ends);
  bool cut;
  if (ChunkFor(choice, position, budget, &cut) == 0 || (cut && !may_cut)) return false;
  const int wanted = std::min(PagesFor(choice.size()) + 1, pages.count()) - shared;
  if (wanted > pages.free() + pages.cached_only() - hit.idle_pages - promised_ - ReservedPages()) {
    // Nobody runs who could make room.
    if (!running_.empty() || !DropForks()) return false;
    return Admit(choice, budget, may_cut);
  }

  // The fork's last page is copied; anything else starts with pages that are there.
  const bool ready = !fork || EnsureFree(promised_ + 1);
  StatusOr<Sequence> sequence = InternalError("no page");
  if (ready) sequence = fork && job.fork ? engine_.Restore(*job.fork) : cache_.Restore(hit, choice.tokens, &choice.tip);
  if (!sequence.ok()) return false;
  waiting_.Take(&choice);
  choice.sequence = std::move(*sequence);
  choice.state = Choice::State::kRunning;
  choice.is_long = choice.left() > options_.long_prefill_tokens;
  if (fork) choice.tip = {};
  LeaveFork(choice);
  running_.push_back(&choice);

  if (std::exchange(job.admitted, true)) return true;
  job.times.scheduled = now_();
  job.prompt = {.prompt_tokens = job.prompt_tokens, .cached_tokens = hit.tokens};
  if (job.cached) {
    const int usable = std::min(hit.matched, job.prompt_tokens - 1) / plan::kStateAlign * plan::kStateAlign;
    if (hit.matched == 0) job.prompt.miss = MissReason::kCold;
    if (hit.tokens < usable) job.prompt.miss = MissReason::kNoSnapshot;
    counters_.cache_queries += static_cast<uint64_t>(job.prompt_tokens);
    counters_.cache_hits += static_cast<uint64_t>(hit.tokens);
    counters_.miss_no_snapshot += static_cast<uint64_t>(hit.matched - hit.tokens);
    counters_.miss_cold += static_cast<uint64_t>(job.prompt_tokens - hit.matched);
  } else {
    job.prompt.miss = MissReason::kDisabled;
    counters_.miss_disabled += static_cast<uint64_t>(job.prompt_tokens);
  }
  job.sink->OnPrompt(job.prompt, hit.tokens);
  return true;
}

// --- The step --------------------------------------------------------------------------------------------------------

bool Scheduler::Step() {
  if (jobs_.empty()) return false;
  for (;;) {
    entries_.clear();
    owners_.clear();
    promised_ = extra_logit_rows_ = 0;
    PlanDecodes();
    PlanPrefills();
    if (!entries_.empty() || running_.size() < 2) break;
    PreemptOne();  // prompts that stand in each other's way
  }
  if (entries_.empty()) {
    if (running_.empty() && waiting_.empty()) return false;
    // Alone, with every page to itself, and yet no row fits: not by what Submit has checked.
    HandleFailure(InternalError("scheduler: nobody can run"));
    return true;
  }

  int decode_rows = 0, prompt_rows = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const int rows = static_cast<int>(entries_[i].tokens.size());
    const bool decode = rows == 1 && owners_[i]->job->drawn(*owners_[i]) > 0;
    (decode ? decode_rows : prompt_rows) += rows;
  }
  const TimePoint begin = now_();
  StatusOr<exec::Outputs> outputs = engine_.Step(entries_);
  const double seconds = std::chrono::duration<double>(now_() - begin).count();
  const int rows = decode_rows + prompt_rows;
  ++counters_.steps;
  counters_.step_rows += static_cast<uint64_t>(rows);
  counters_.decode_rows += static_cast<uint64_t>(decode_rows);
  counters_.decode_steps += decode_rows > 0;
  counters_.prompt_seconds += seconds * prompt_rows / rows;
  counters_.generation_seconds += seconds * decode_rows / rows;
  if (prompt_rows > 0) {
    rate_tokens_ = rate_tokens_ * 0.9 + prompt_rows;
    rate_seconds_ = rate_seconds_ * 0.9 + seconds;
  }
  if (!outputs.ok()) {
    HandleFailure(outputs.status());
    return true;
  }
  failures_ = 0;

  for (size_t i = 0; i < entries_.size(); ++i) {
    owners_[i]->sequence->Commit(static_cast<int>(entries_[i].tokens.size()));
    owners_[i]->is_long = owners_[i]->is_long && owners_[i]->left() > 1;
    Save(*owners_[i]);
  }
  spoke_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    Deliver(*owners_[i], entries_[i], *outputs);
    spoke_.push_back(owners_[i]->job);
  }
  for (size_t i = 0; i < spoke_.size(); ++i)
    if (spoke_[i]->open > 0 && std::find(spoke_.begin(), spoke_.begin() + static_cast<std::ptrdiff_t>(i), spoke_[i]) ==
                                   spoke_.begin() + static_cast<std::ptrdiff_t>(i))
      spoke_[i]->sink->OnStep();
  Reap();
  return true;
}

void Scheduler::HandleFailure(const Status& status) {
  if (++failures_ < 2) {
    for (Choice* choice : owners_) Requeue(*choice);
    return;
  }
  failed_ = true;
  const Status why = InternalError("the device failed: " + status.message());
  for (auto& [id, job] : jobs_)
    for (Choice& choice : job->choices) Finish(choice, FinishReason::kFailed, -1, why);
  Reap();
}

void Scheduler::Save(Choice& choice) {
  const Job& job = *choice.job;
  if (!job.cached) return;
  const Sequence& sequence = *choice.sequence;
  if (options_.deterministic && sequence.position() > job.prompt_tokens) return;
  cache_.Publish(job.request.cache_salt, sequence, &choice.tip);
  const int position = sequence.position();
  if (std::ranges::binary_search(choice.snapshots, position)) {
    cache_.Save(sequence, choice.tip, {});
  } else if (position == choice.size() && position > job.prompt_tokens && position % plan::kStateAlign == 0) {
    // Only the last one will be the answer's end; each takes the place of the one before.
    PrefixCache::Ref saved = cache_.Save(sequence, choice.tip, choice.answer_snapshot);
    if (saved.node >= 0) choice.answer_snapshot = saved;
  }
}

// --- Tokens ----------------------------------------------------------------------------------------------------------

void Scheduler::Deliver(Choice& choice, const StepEntry& entry, const exec::Outputs& outputs) {
  Job& job = *choice.job;
  const int position = choice.sequence->position();
  if (!job.prompt_done) {
    if (job.request.prompt_logprobs >= 0) DeliverPromptLogprobs(choice, entry, outputs);
    if (choice.state == Choice::State::kDone) return;
    job.sink->OnPrompt(job.prompt, position);
  }
  if (position < choice.size()) return;
  if (!std::exchange(job.prompt_done, true)) {
    counters_.prompt_tokens += static_cast<uint64_t>(job.prompt_tokens);
    if (job.request.max_tokens == 0) {
      for (Choice& each : job.choices) Finish(each, FinishReason::kLength, -1, {});
      return;
    }
    DrawFirst(job, entry.first_logit_row + static_cast<int>(entry.logit_rows.size()) - 1, outputs);
    return;
  }
  Draw(choice, entry.first_logit_row + static_cast<int>(entry.logit_rows.size()) - 1, position - 1, /*in_plan=*/true,
       outputs);
}

void Scheduler::DeliverPromptLogprobs(Choice& choice, const StepEntry& entry, const exec::Outputs& outputs) {
  Job& job = *choice.job;
  const int first = choice.sequence->position() - static_cast<int>(entry.tokens.size());
  const size_t vocab = static_cast<size_t>(engine_.vocab());
  std::vector<TokenLogprobs> logprobs;
  for (size_t i = 0; i < entry.logit_rows.size(); ++i) {
    const int target = first + entry.logit_rows[i] + 1;
    if (target >= job.prompt_tokens) break;
    std::span<const float> row =
        outputs.logits.subspan((static_cast<size_t>(entry.first_logit_row) + i) * vocab, vocab);
    if (Status status = CheckLogits(row); !status.ok()) {
      for (Choice& each : job.choices) Finish(each, FinishReason::kFailed, -1, status);
      return;
    }
    ComputeLogprobs(row, choice.tokens[static_cast<size_t>(target)], job.request.prompt_logprobs,
                    job.request.vocab_used, &logprobs.emplace_back());
    job.prompt_logprobs_sent = target;
  }
  if (!logprobs.empty()) job.sink->OnPromptLogprobs(logprobs);
}

// The prompt's last row is every choice's first draw.
void Scheduler::DrawFirst(Job& job, int row, const exec::Outputs& outputs) {
  Choice& first = job.choices.front();
  const int position = job.prompt_tokens - 1;
  if (job.choices.size() > 1) job.fork = first.sequence->TakeSnapshot();
  job.times.first_token = now_();
  for (Choice& choice : job.choices) {
    if (&choice != &first) {
      choice.tokens.assign(first.tokens.begin(), first.tokens.begin() + job.prompt_tokens);
      choice.uses_fork = true;
      ++job.fork_users;
    }
    choice.processor->AddPrompt(std::span<const int32_t>(choice.tokens).first(static_cast<size_t>(job.prompt_tokens)),
                                static_cast<int>(engine_.vocab()));
  }
  for (Choice& choice : job.choices) {
    Draw(choice, row, position, /*in_plan=*/&choice == &first, outputs);
    if (choice.state != Choice::State::kNotYet) continue;
    choice.state = Choice::State::kWaiting;
    waiting_.Push(&choice, /*resumed=*/true);
  }
}

// `in_plan`: the plan has drawn this row with the choice's own parameters.
void Scheduler::Draw(Choice& choice, int row, int position, bool in_plan, const exec::Outputs& outputs) {
  Job& job = *choice.job;
  const Request& request = job.request;
  const size_t vocab = static_cast<size_t>(engine_.vocab());
  std::span<const float> raw;
  const int32_t planned = in_plan ? outputs.next[static_cast<size_t>(row)] : -1;
  const bool adjust = choice.processor->Needed(job.drawn(choice), planned);
  if (adjust || !in_plan || request.logprobs >= 0) {
    raw = outputs.logits.subspan(static_cast<size_t>(row) * vocab, vocab);
    if (Status status = CheckLogits(raw); !status.ok()) return Finish(choice, FinishReason::kFailed, -1, status);
  }
  int32_t token;
  if (adjust) {
    adjusted_.assign(raw.begin(), raw.end());
    choice.processor->Apply(adjusted_, job.drawn(choice));
    token = sampler_.Draw(choice.params, adjusted_, position);
  } else {
    token = in_plan ? planned : sampler_.Draw(choice.params, raw, position);
  }
  if (token < 0) return Finish(choice, FinishReason::kFailed, -1, InternalError("every token is ruled out"));

  ++counters_.generated_tokens;
  if (std::ranges::find(request.stop_ids, token) != request.stop_ids.end())
    return Finish(choice, FinishReason::kStop, token, {});
  choice.tokens.push_back(token);
  choice.processor->AddDrawn(token);
  TokenResult result{.token = token};
  if (request.logprobs >= 0) {
    ComputeLogprobs(raw, token, request.logprobs, request.vocab_used, &logprobs_);
    result.logprobs = &logprobs_;
  }
  if (!job.sink->OnToken(choice.choice, result)) return Finish(choice, FinishReason::kStop, -1, {});
  if (job.drawn(choice) >= request.max_tokens || choice.size() >= max_len_)
    Finish(choice, FinishReason::kLength, -1, {});
}

// --- Figures ---------------------------------------------------------------------------------------------------------

EngineStats Scheduler::Stats() const {
  EngineStats stats = counters_;
  const Pools& pools = engine_.pools();
  stats.running = static_cast<int>(running_.size());
  stats.waiting = waiting_.size();
  stats.waiting_tokens = waiting_.tokens();
  stats.pages = pools.pages.count();
  stats.pages_free = pools.pages.free() + pools.pages.cached_only();
  stats.slots = pools.slots.count();
  stats.slots_free = pools.slots.free();
  stats.snapshots = cache_.snapshots();
  stats.snapshot_bytes = cache_.snapshot_bytes();
  stats.snapshot_budget = cache_.snapshot_budget();
  stats.heartbeat = now_();
  stats.failed = failed_;
  return stats;
}

double Scheduler::PromptRate() const { return rate_seconds_ > 0 ? rate_tokens_ / rate_seconds_ : 0; }

Status Scheduler::Check() const {
  const Pools& pools = engine_.pools();
  std::vector<int> references(static_cast<size_t>(pools.pages.count()));
  cache_.CountReferences(&references);
  int sequences = 0, cached_only = 0;
  for (const auto& [id, job] : jobs_) {
    if (job->fork)
      for (int32_t page : job->fork->full_pages()) ++references[static_cast<size_t>(page)];
    int users = 0;
    for (const Choice& choice : job->choices) {
      users += choice.uses_fork;
      if (choice.sequence.has_value() != (choice.state == Choice::State::kRunning))
        return InternalError(fmt::format("request {}: a sequence that does not run, or none that does", id));
      if (!choice.sequence) continue;
      ++sequences;
      for (int32_t page : choice.sequence->pages()) ++references[static_cast<size_t>(page)];
    }
    if (users != job->fork_users) return InternalError(fmt::format("request {}: {} users of its fork", id, users));
  }
  if (sequences != static_cast<int>(running_.size())) return InternalError("running: not those with a sequence");
  for (int32_t page = 0; page < pools.pages.count(); ++page) {
    const int found = references[static_cast<size_t>(page)];
    if (found != pools.pages.references(page))
      return InternalError(
          fmt::format("page {}: {} references, {} are known", page, pools.pages.references(page), found));
    cached_only += found == 1 && pools.pages.cached(page);
  }
  if (cached_only != pools.pages.cached_only()) return InternalError("pages of the cache alone: miscounted");
  if (pools.slots.count() - pools.slots.free() != sequences) return InternalError("slots: some are lost");
  if (pools.table_rows.count() - pools.table_rows.free() != sequences)
    return InternalError("table rows: some are lost");
  return cache_.Check();
}

}  // namespace qwen::engine
