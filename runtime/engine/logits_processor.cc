#include "runtime/engine/logits_processor.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "fmt/format.h"

namespace qwen::engine {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();
constexpr float kBanningBias = -100;  // and below

}  // namespace

// --- RowSampler ------------------------------------------------------------------------------------------------------

RowSampler::RowSampler(int vocab, kernels::Isa isa) : spec_{vocab}, body_(kernels::FindBody("sample", isa)) {
  const kernels::KernelInfo* info = kernels::FindKernel("sample");
  assert(info && body_);
  const int64_t bytes = info->workspace(&spec_, /*max_tokens=*/1).scratch;
  scratch_.resize(static_cast<size_t>((bytes + 7) / 8));
}

int32_t RowSampler::Draw(const kernels::SampleParams& params, std::span<const float> logits, int position) {
  assert(static_cast<int>(logits.size()) == spec_.vocab);
  const int cu_tokens[] = {0, 1}, logit_rows[] = {0};
  int32_t next = -1;
  kernels::BatchView batch{};
  batch.num_seqs = batch.num_short = batch.num_tokens = batch.num_logit_rows = 1;
  batch.cu_tokens = cu_tokens;
  batch.position = &position;
  batch.logit_rows = logit_rows;
  batch.sample = &params;
  void* args[kernels::kSampleArgs];
  args[kernels::kSampleLogits] = const_cast<float*>(logits.data());  // read only
  args[kernels::kSampleNext] = &next;
  kernels::Launch launch{};
  launch.batch = &batch;
  launch.args = args;
  launch.ranks = launch.threads = 1;
  launch.scratch = reinterpret_cast<unsigned char*>(scratch_.data());
  body_(&spec_, launch);
  return next;
}

// --- LogitsProcessor -------------------------------------------------------------------------------------------------

LogitsProcessor::LogitsProcessor(const Request& request)
    : request_(request),
      penalties_(request.repetition_penalty != 1 || request.frequency_penalty != 0 || request.presence_penalty != 0),
      only_bans_(!penalties_ && std::ranges::all_of(request.logit_bias,
                                                    [](const auto& bias) { return bias.second <= kBanningBias; })),
      highest_wins_((MakeSampleParams(request.sampling).flags & kernels::kSampleGreedy) != 0 ||
                    (request.sampling.top_k == 0 && request.sampling.top_p >= 1 && request.sampling.min_p <= 0)) {}

bool LogitsProcessor::Needed(int drawn, int32_t token) const {
  const bool banned_yet = drawn < request_.min_tokens && !request_.banned_until_min.empty();
  if (!penalties_ && request_.logit_bias.empty() && !banned_yet) return false;
  if (token < 0 || !only_bans_ || !highest_wins_) return true;
  return std::ranges::any_of(request_.logit_bias, [&](const auto& bias) { return bias.first == token; }) ||
         (banned_yet && std::ranges::find(request_.banned_until_min, token) != request_.banned_until_min.end());
}

LogitsProcessor::Seen& LogitsProcessor::Find(int32_t token) {
  int32_t& index = index_[static_cast<size_t>(token)];
  if (index < 0) {
    index = static_cast<int32_t>(seen_.size());
    seen_.push_back({token, 0});
  }
  return seen_[static_cast<size_t>(index)];
}

void LogitsProcessor::AddPrompt(std::span<const int32_t> prompt, int vocab) {
  if (!penalties_) return;
  index_.assign(static_cast<size_t>(vocab), -1);
  for (int32_t token : prompt) Find(token);
}

void LogitsProcessor::AddDrawn(int32_t token) {
  if (penalties_) ++Find(token).drawn;
}

void LogitsProcessor::Apply(std::span<float> logits, int drawn) const {
  if (drawn < request_.min_tokens)
    for (int32_t token : request_.banned_until_min) logits[static_cast<size_t>(token)] = kBanned;
  for (auto [token, bias] : request_.logit_bias) {
    float& logit = logits[static_cast<size_t>(token)];
    logit = bias <= kBanningBias ? kBanned : logit + bias;
  }
  if (!penalties_) return;
  for (const Seen& seen : seen_) {
    float& logit = logits[static_cast<size_t>(seen.token)];
    logit = logit > 0 ? logit / request_.repetition_penalty : logit * request_.repetition_penalty;
    if (seen.drawn > 0)
      logit -= request_.frequency_penalty * static_cast<float>(seen.drawn) + request_.presence_penalty;
  }
}

// --- Log-probabilities -----------------------------------------------------------------------------------------------

Status CheckLogits(std::span<const float> logits) {
  // One comparison a logit: false for NaN too.
  for (size_t id = 0; id < logits.size(); ++id)
    if (!(logits[id] < std::numeric_limits<float>::infinity()))
      return InternalError(fmt::format("logit {} of {} is {}", id, logits.size(), logits[id]));
  return {};
}

void ComputeLogprobs(std::span<const float> logits, int32_t token, int top, int vocab_used, TokenLogprobs* result) {
  const float highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  const double log_sum = highest + std::log(sum);
  auto logprob = [&](float logit) { return static_cast<float>(logit - log_sum); };
  result->logprob = logprob(logits[static_cast<size_t>(token)]);

  // The likeliest so far, best first; ids come ascending, so that a tie goes behind.
  auto& best = result->top;
  best.clear();
  const size_t used = vocab_used > 0 ? std::min(logits.size(), static_cast<size_t>(vocab_used)) : logits.size();
  const size_t wanted = std::min(used, static_cast<size_t>(std::max(top, 0)));
  for (size_t id = 0; id < used && wanted > 0; ++id) {
    if (best.size() == wanted && !(logits[id] > best.back().second)) continue;
    if (best.size() == wanted) best.pop_back();
    auto at = std::ranges::find_if(best, [&](const auto& other) { return logits[id] > other.second; });
    best.insert(at, {static_cast<int32_t>(id), logits[id]});
  }
  for (auto& [id, value] : best) value = logprob(value);
}

}  // namespace qwen::engine
