// What becomes text, and when. A reference that looks at the whole output at once says what must come out; random
// token streams say how it may arrive.
#include "runtime/server/api/output.h"

#include <gtest/gtest.h>

#include <random>

#include "test/runtime/server/api/harness.h"

namespace qwen::server {
namespace {

using Start = OutputOptions::Start;

/// The token of each byte, so that text can be cut anywhere.
std::vector<int32_t> ByteTokens(std::string_view bytes) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < bytes.size(); ++i) tokens.push_back(*DemoTokenizer().Find(bytes.substr(i, 1)));
  return tokens;
}

struct Result {
  std::string reasoning, content, stopped_by, entry_bytes;
  std::vector<OutputDelta> deltas;
  bool in_reasoning = false;
};

Result Feed(const std::vector<int32_t>& tokens, const OutputOptions& options) {
  OutputParser parser(DemoTokenizer(), options);
  Result result;
  const engine::TokenLogprobs values{-1, {}};
  auto take = [&](OutputDelta delta) {
    result.reasoning += delta.reasoning;
    result.content += delta.content;
    for (const TokenEntry& entry : delta.entries) result.entry_bytes += entry.bytes;
    result.deltas.push_back(std::move(delta));
  };
  for (int32_t token : tokens) {
    OutputDelta delta;
    const bool goes_on = parser.Push({token, &values}, &delta);
    take(std::move(delta));
    if (!goes_on) break;
  }
  OutputDelta delta;
  parser.Finish(&delta);
  take(std::move(delta));
  if (parser.stopped_by()) result.stopped_by = *parser.stopped_by();
  result.in_reasoning = parser.in_reasoning();
  return result;
}

Result RunText(std::string_view text, Start start, std::vector<std::string> stop = {}) {
  return Feed(ByteTokens(text), {.start = start, .stop = std::move(stop)});
}

TEST(Output, SplitsReasoningFromTheAnswer) {
  struct Case {
    const char* text;
    Start start;
    const char *reasoning, *content;
    bool in_reasoning = false;
  };
  const Case cases[] = {
      {"plain", Start::kAnswer, "", "plain"},
      {"<think>x</think>y", Start::kAnswer, "", "<think>x</think>y"},
      {"a\nb\n</think>\n\ny", Start::kReasoning, "a\nb", "y"},
      {"\n\na</think>y", Start::kReasoning, "a", "y"},
      {"a\n\n", Start::kReasoning, "a\n\n", "", true},
      {"a</thin", Start::kReasoning, "a</thin", "", true},
      {"a</thinker></think>y", Start::kReasoning, "a</thinker>", "y"},
      {"a<</think>y", Start::kReasoning, "a<", "y"},
      {"</think>", Start::kReasoning, "", ""},
      {"a</think>b</think>c", Start::kReasoning, "a", "b</think>c"},
      {"<think>\na\n</think>\n\ny", Start::kUndecided, "a", "y"},
      {" \n<think>a</think>y", Start::kUndecided, "a", "y"},
      {"  answer", Start::kUndecided, "", "  answer"},
      {"<thin", Start::kUndecided, "", "<thin"},
      {"<thing>", Start::kUndecided, "", "<thing>"},
      {"", Start::kUndecided, "", ""},
      {"", Start::kReasoning, "", "", true},
  };
  for (const Case& c : cases) {
    const Result got = RunText(c.text, c.start);
    EXPECT_EQ(got.reasoning, c.reasoning) << c.text;
    EXPECT_EQ(got.content, c.content) << c.text;
    EXPECT_EQ(got.in_reasoning, c.in_reasoning) << c.text;
  }
}

TEST(Output, AnEndlessBlankIsAnAnswer) {
  const OutputOptions options{.start = Start::kUndecided};
  OutputParser parser(DemoTokenizer(), options);
  OutputDelta delta;
  for (int32_t token : ByteTokens(std::string(100, ' '))) parser.Push({token, nullptr}, &delta);
  EXPECT_GT(delta.content.size(), 64u);
}

TEST(Output, StopsAtTheMatchThatEndsFirst) {
  struct Case {
    const char* text;
    std::vector<std::string> stop;
    const char *content, *stopped_by;
  };
  const Case cases[] = {
      {"abcdef", {"cd"}, "ab", "cd"},
      {"abcdef", {"cdef", "d"}, "abc", "d"},
      {"abcdef", {"cd", "bcd", "d"}, "a", "bcd"},
      {"aab", {"ab"}, "a", "ab"},
      {"abab abac", {"abac"}, "abab ", "abac"},
      {"abc", {"bcd"}, "abc", ""},
      {"abc", {"abc"}, "", "abc"},
      {"gr\xc3\xbc\xc3\x9f", {"\xc3\xbc"}, "gr", "\xc3\xbc"},
  };
  for (const Case& c : cases) {
    const Result got = RunText(c.text, Start::kAnswer, c.stop);
    EXPECT_EQ(got.content, c.content) << c.text;
    EXPECT_EQ(got.stopped_by, c.stopped_by) << c.text;
  }
}

TEST(Output, StopStringsAreOfTheAnswerAlone) {
  const Result got = RunText("a STOP b</think>c STOP d", Start::kReasoning, {"STOP"});
  EXPECT_EQ(got.reasoning, "a STOP b");
  EXPECT_EQ(got.content, "c ");
}

TEST(Output, TheStopStringStaysWhereAsked) {
  EXPECT_EQ(Feed(ByteTokens("abXYcd"), {.stop = {"XY"}, .include_stop = true}).content, "abXY");
}

TEST(Output, NoStopStringBeforeMinTokens) {
  EXPECT_EQ(Feed(ByteTokens("a.b.c."), {.stop = {"."}, .min_tokens = 4}).content, "a.b");
  EXPECT_EQ(Feed(ByteTokens("a.b.c."), {.stop = {"."}, .min_tokens = 5}).content, "a.b.c");
}

TEST(Output, HoldsNoMoreThanAStopStringCouldTake) {
  const OutputOptions options{.stop = {"\n\nUser:"}};
  OutputParser parser(DemoTokenizer(), options);
  OutputDelta delta;
  for (int32_t token : ByteTokens("one\n")) parser.Push({token, nullptr}, &delta);
  EXPECT_EQ(delta.content, "one");
  for (int32_t token : ByteTokens("\nUse")) parser.Push({token, nullptr}, &delta);
  EXPECT_EQ(delta.content, "one");
  for (int32_t token : ByteTokens("ful")) parser.Push({token, nullptr}, &delta);
  EXPECT_EQ(delta.content, "one\n\nUseful");
}

TEST(Output, SpecialTokensHaveNoTextUnlessAsked) {
  std::vector<int32_t> tokens = ByteTokens("a");
  tokens.push_back(kImStart);
  tokens.push_back(ByteTokens("b")[0]);
  EXPECT_EQ(Feed(tokens, {}).content, "ab");
  EXPECT_EQ(Feed(tokens, {.skip_special = false}).content, "a<|im_start|>b");
}

TEST(Output, IdsWithoutATokenHaveNoText) {
  std::vector<int32_t> tokens = {-1, 8185, 1 << 30};
  tokens.push_back(ByteTokens("b")[0]);
  EXPECT_EQ(Feed(tokens, {.entries = true}).content, "b");
}

TEST(Output, AnEntryHasItsTokensPartOfTheAnswer) {
  // "world" is cut in two by the stop string inside it.
  const std::vector<int32_t> tokens = DemoTokenizer().Encode("Hello world");
  const Result got = Feed(tokens, {.stop = {"rl"}, .entries = true});
  EXPECT_EQ(got.content, "Hello wo");
  EXPECT_EQ(got.entry_bytes, "Hello wo");
}

TEST(Output, EntriesComeWithTheTextTheyEndIn) {
  // Three bytes of one character: the text comes with the third, and so do all three entries.
  const std::vector<int32_t> tokens = ByteTokens("\xe2\x82\xac!");
  const Result got = Feed(tokens, {.entries = true});
  EXPECT_TRUE(got.deltas[0].empty());
  EXPECT_TRUE(got.deltas[1].empty());
  EXPECT_EQ(got.deltas[2].content, "\xe2\x82\xac");
  ASSERT_EQ(got.deltas[2].entries.size(), 3u);
  EXPECT_EQ(got.deltas[2].entries[1].bytes, "\x82");
}

// --- Random streams ---

bool IsWhole(std::string_view text) { return text::ReplaceIllFormed(text) == text; }

/// The answer as one who has all of it would cut it.
std::string Reference(const std::string& bytes, const OutputOptions& options) {
  size_t best_end = bytes.npos, best_begin = 0;
  for (size_t end = 1; end <= bytes.size() && best_end == bytes.npos; ++end)
    for (const std::string& word : options.stop)
      if (end >= word.size() && bytes.compare(end - word.size(), word.size(), word) == 0 &&
          (best_end == bytes.npos || end - word.size() < best_begin)) {
        best_end = end;
        best_begin = end - word.size();
      }
  const size_t cut = options.include_stop ? best_end : best_begin;
  return best_end == bytes.npos ? bytes : bytes.substr(0, cut);
}

TEST(OutputProperty, AnyCutGivesTheSameText) {
  std::mt19937 random(1);
  auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  const std::string pieces[] = {"a",        "ab",       "b",  "\n",       "\n\n",         "<think>",
                                "</think>", "</",       "th", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                "\xff",     "\xe2\x82", " "};
  const text::Tokenizer& tokenizer = DemoTokenizer();
  for (int round = 0; round < 4000; ++round) {
    std::string bytes;
    for (size_t i = below(30); i > 0; --i) bytes += pieces[below(std::size(pieces))];
    OutputOptions options{.start = static_cast<Start>(below(3)), .include_stop = below(2) == 0, .entries = true};
    for (size_t i = below(4); i > 0; --i) {
      std::string word;
      for (size_t k = 1 + below(3); k > 0; --k) word += pieces[below(12)];
      options.stop.push_back(word);
    }
    // The same bytes byte by byte, and as tokens of any size.
    const std::vector<int32_t> single = ByteTokens(bytes);
    std::vector<int32_t> cut;
    for (size_t at = 0; at < bytes.size();) {
      size_t length = std::min(bytes.size() - at, 1 + below(8));
      std::optional<int32_t> token;
      while (!(token = tokenizer.Find(std::string_view(bytes).substr(at, length)))) --length;
      cut.push_back(*token);
      at += length;
    }
    const Result one = Feed(single, options), other = Feed(cut, options);
    ASSERT_EQ(one.content, other.content) << round;
    ASSERT_EQ(one.reasoning, other.reasoning) << round;
    ASSERT_EQ(one.stopped_by, other.stopped_by) << round;
    ASSERT_EQ(text::ReplaceIllFormed(one.entry_bytes), one.content) << round;
    ASSERT_EQ(one.entry_bytes, other.entry_bytes) << round;
    for (const OutputDelta& delta : other.deltas) {
      ASSERT_TRUE(IsWhole(delta.content) && IsWhole(delta.reasoning)) << round;
    }
    if (options.start == Start::kAnswer) {
      ASSERT_EQ(one.content, text::ReplaceIllFormed(Reference(bytes, options))) << round;
    }
    if (!options.include_stop)
      for (const std::string& word : options.stop) ASSERT_EQ(one.content.find(word), std::string::npos) << round;
  }
}

}  // namespace
}  // namespace qwen::server
