#include "runtime/server/api/output.h"

#include <algorithm>

namespace qwen::server {
namespace {

constexpr std::string_view kThinkOpens = "<think>", kThinkCloses = "</think>";
constexpr size_t kMaxLeadingSpace = 64;  // before <think>; more is an answer that begins with white space

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// Length of the longest end of `text` that is a beginning of `word`, but not all of it.
size_t HeldFor(std::string_view text, std::string_view word) {
  for (size_t length = std::min(text.size(), word.size() - 1); length > 0; --length)
    if (text.ends_with(word.substr(0, length))) return length;
  return 0;
}

}  // namespace

OutputParser::OutputParser(const text::Tokenizer& tokenizer, const OutputOptions& options)
    : tokenizer_(tokenizer),
      options_(options),
      state_(options.start == OutputOptions::Start::kAnswer      ? State::kAnswer
             : options.start == OutputOptions::Start::kReasoning ? State::kReasoning
                                                                 : State::kUndecided),
      drop_newlines_(state_ == State::kReasoning) {}

bool OutputParser::Push(const engine::TokenResult& token, OutputDelta* out) {
  if (done_) return false;
  ++tokens_;
  const bool reasoned = state_ == State::kReasoning;
  const std::string_view bytes =
      options_.skip_special && tokenizer_.IsSpecial(token.token) ? std::string_view() : tokenizer_.Bytes(token.token);
  if (options_.entries && !bytes.empty())
    open_.push_back(
        {{token.token, {}, token.logprobs ? *token.logprobs : engine::TokenLogprobs()}, received_ + bytes.size(), 0});
  received_ += bytes.size();
  split_ += bytes;
  Split(out);
  if (reasoned || state_ == State::kReasoning) ++reasoning_tokens_;
  return !done_;
}

void OutputParser::Finish(OutputDelta* out) {
  if (!done_) {
    const std::string rest = std::exchange(split_, {});
    if (state_ == State::kReasoning) {
      Decide(rest, Fate::kReasoning, out);
    } else {
      Answer(rest, out);
      CheckStop(out, true);
    }
    done_ = true;
  }
  reasoning_utf8_.Flush(&out->reasoning);
  answer_utf8_.Flush(&out->content);
  ReleaseEntries(out);
}

void OutputParser::Split(OutputDelta* out) {
  while (!done_) {
    if (drop_newlines_) {
      const size_t end = split_.find_first_not_of('\n');
      Decide(std::string_view(split_).substr(0, end), Fate::kDropped, out);
      split_.erase(0, end);
      if (split_.empty()) return;
      drop_newlines_ = false;
    }
    switch (state_) {
      case State::kUndecided: {
        const size_t begin = std::find_if_not(split_.begin(), split_.end(), IsSpace) - split_.begin();
        const std::string_view word = std::string_view(split_).substr(begin);
        if (word.starts_with(kThinkOpens)) {
          const size_t end = begin + kThinkOpens.size();
          Decide(std::string_view(split_).substr(0, end), Fate::kDropped, out);
          split_.erase(0, end);
          state_ = State::kReasoning;
          drop_newlines_ = true;
          break;
        }
        if (begin <= kMaxLeadingSpace && kThinkOpens.starts_with(word)) return;
        state_ = State::kAnswer;
        break;
      }
      case State::kReasoning: {
        const size_t tag = split_.find(kThinkCloses);
        size_t end = tag != split_.npos ? tag : split_.size() - HeldFor(split_, kThinkCloses);
        while (end > 0 && split_[end - 1] == '\n') --end;
        Decide(std::string_view(split_).substr(0, end), Fate::kReasoning, out);
        split_.erase(0, end);
        if (tag == split_.npos) return;
        const size_t drop = tag - end + kThinkCloses.size();
        Decide(std::string_view(split_).substr(0, drop), Fate::kDropped, out);
        split_.erase(0, drop);
        reasoning_utf8_.Flush(&out->reasoning);
        state_ = State::kAnswer;
        drop_newlines_ = true;
        break;
      }
      case State::kAnswer:
        Answer(std::exchange(split_, {}), out);
        return;
    }
  }
}

void OutputParser::Answer(std::string_view bytes, OutputDelta* out) {
  stop_ += bytes;
  CheckStop(out, options_.stop.empty() || tokens_ < options_.min_tokens);
}

void OutputParser::CheckStop(OutputDelta* out, bool flush) {
  if (flush) {
    Decide(std::exchange(stop_, {}), Fate::kAnswer, out);
    return;
  }
  // The match that ends first is the one that a client who gets byte after byte would stop at; of two that end
  // together, the one that began first.
  size_t begin = 0, end = stop_.npos;
  for (const std::string& word : options_.stop) {
    const size_t at = stop_.find(word);
    if (at == stop_.npos) continue;
    if (at + word.size() < end || (at + word.size() == end && at < begin)) {
      begin = at, end = at + word.size();
      stopped_by_ = &word;
    }
  }
  if (stopped_by_) {
    const std::string held = std::exchange(stop_, {});
    const size_t kept = options_.include_stop ? end : begin;
    done_ = true;
    Decide(std::string_view(held).substr(0, kept), Fate::kAnswer, out);
    Decide(std::string_view(held).substr(kept), Fate::kDropped, out);
    return;
  }
  size_t held = 0;
  for (const std::string& word : options_.stop) held = std::max(held, HeldFor(stop_, word));
  Decide(std::string_view(stop_).substr(0, stop_.size() - held), Fate::kAnswer, out);
  stop_.erase(0, stop_.size() - held);
}

void OutputParser::Decide(std::string_view bytes, Fate fate, OutputDelta* out) {
  if (bytes.empty()) return;
  if (fate == Fate::kReasoning) reasoning_utf8_.Push(bytes, &out->reasoning);
  if (fate == Fate::kAnswer) answer_utf8_.Push(bytes, &out->content);
  for (Open& open : open_) {
    if (bytes.empty() || open.end <= decided_) continue;
    const size_t count = std::min<uint64_t>(bytes.size(), open.end - decided_);
    decided_ += count;
    if (fate == Fate::kAnswer) {
      open.entry.bytes += bytes.substr(0, count);
      kept_ += count;
    }
    open.kept_end = kept_;
    bytes.remove_prefix(count);
  }
  ReleaseEntries(out);
}

void OutputParser::ReleaseEntries(OutputDelta* out) {
  while (!open_.empty() && open_.front().end <= decided_ && open_.front().kept_end <= kept_ - answer_utf8_.waiting()) {
    if (!open_.front().entry.bytes.empty()) out->entries.push_back(std::move(open_.front().entry));
    open_.pop_front();
  }
}

}  // namespace qwen::server
