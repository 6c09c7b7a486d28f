// Tokens of one choice → the text a client gets, as it becomes certain.
//
//     token → bytes → reasoning or answer → stop strings → UTF-8 → OutputDelta
//
// A stage gives on what no later token can change and holds the rest: the beginning of `</think>`, the longest end that
// a stop string may begin with, a code point that is not whole. Answers in one piece go through the same machine, so
// both forms of an answer agree by construction. Tags and stop strings are looked for in bytes: they are valid UTF-8,
// so they match bytes exactly where they match text.
#ifndef QWEN_RUNTIME_SERVER_API_OUTPUT_H_
#define QWEN_RUNTIME_SERVER_API_OUTPUT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/engine/request.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::server {

/// A token of the answer with its rivals.
struct TokenEntry {
  int32_t token = 0;
  std::string bytes;  // those that are part of the answer; all entries' bytes together are the answer's
  engine::TokenLogprobs logprobs;
};

/// What became certain. `entries` are those tokens whose text ended in `content`.
struct OutputDelta {
  std::string reasoning, content;  // valid UTF-8
  std::vector<TokenEntry> entries;

  bool empty() const { return reasoning.empty() && content.empty() && entries.empty(); }
  size_t bytes() const { return reasoning.size() + content.size() + entries.size() * sizeof(TokenEntry); }
};

struct OutputOptions {
  enum class Start : uint8_t {
    kAnswer,     // no reasoning is looked for
    kReasoning,  // the prompt ends in an open <think>
    kUndecided,  // reasoning when the first thing said is <think>
  } start = Start::kAnswer;
  std::vector<std::string> stop;  // none empty; of the answer, not of the reasoning
  bool include_stop = false;      // the stop string is part of the answer
  int64_t min_tokens = 0;         // before, no stop string is looked for
  bool skip_special = true;       // special tokens have no text
  bool entries = false;           // keep entries
};

/// Threads: one at a time.
class OutputParser {
 public:
  /// `tokenizer` and `options` outlive it.
  OutputParser(const text::Tokenizer& tokenizer, const OutputOptions& options);

  /// Adds to `*out` what `token` makes certain. False: a stop string is complete, nothing follows.
  bool Push(const engine::TokenResult& token, OutputDelta* out);
  /// The end: what was held is text.
  void Finish(OutputDelta* out);

  /// The stop string that ended it, else null.
  const std::string* stopped_by() const { return stopped_by_; }
  /// Reasoning was not ended: there is no answer, not even an empty one.
  bool in_reasoning() const { return state_ == State::kReasoning; }
  int64_t tokens() const { return tokens_; }
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  enum class State : uint8_t { kUndecided, kReasoning, kAnswer };
  enum class Fate : uint8_t { kReasoning, kAnswer, kDropped };
  /// A token with bytes that are not decided.
  struct Open {
    TokenEntry entry;
    uint64_t end;       // of its bytes in all bytes
    uint64_t kept_end;  // of its last byte in the answer's
  };

  void Split(OutputDelta* out);
  void Answer(std::string_view bytes, OutputDelta* out);
  void CheckStop(OutputDelta* out, bool flush);
  /// The next undecided bytes of all, in order.
  void Decide(std::string_view bytes, Fate fate, OutputDelta* out);
  void ReleaseEntries(OutputDelta* out);

  const text::Tokenizer& tokenizer_;
  const OutputOptions& options_;
  State state_;
  bool drop_newlines_;        // the next bytes stand right behind a tag
  std::string split_, stop_;  // held by the two stages; split_ is behind stop_
  text::Utf8Stream reasoning_utf8_, answer_utf8_;
  const std::string* stopped_by_ = nullptr;
  bool done_ = false;
  int64_t tokens_ = 0, reasoning_tokens_ = 0;

  std::deque<Open> open_;
  uint64_t received_ = 0, decided_ = 0, kept_ = 0;  // bytes: in, through, of the answer
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_OUTPUT_H_
