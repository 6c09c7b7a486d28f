#include "runtime/text/utf8_stream.h"

#include <gtest/gtest.h>

#include <random>

namespace qwen::text {
namespace {

constexpr char kR[] = "\uFFFD";

std::string Stream(std::string_view bytes, const std::vector<size_t>& cuts) {
  Utf8Stream stream;
  std::string text;
  size_t at = 0;
  for (size_t cut : cuts) {
    stream.Push(bytes.substr(at, cut - at), &text);
    at = cut;
  }
  stream.Push(bytes.substr(at), &text);
  stream.Flush(&text);
  return text;
}

/// What Python 3.11's bytes.decode(errors="replace") gives, written down from there.
TEST(Utf8Stream, ReplacesWhatPythonReplaces) {
  const std::string r = kR;
  const std::pair<std::string, std::string> cases[] = {
      {"plain", "plain"},
      {"\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80", "é中😀"},
      {"\xFF", r},
      {"\x80\x80", r + r},
      {"\xC0\xAF", r + r},  // overlong
      {"\xC1\xBF", r + r},
      {"\xE0\x80\xAF", r + r + r},  // overlong
      {"\xE0\xA0", r},
      {"\xE0\xA0x", r + "x"},
      {"\xED\xA0\x80", r + r + r},  // a surrogate
      {"\xED\x9F\xBF", "\uD7FF"},
      {"\xF0\x8F\xBF\xBF", r + r + r + r},
      {"\xF0\x90\x80", r},
      {"\xF0\x90\x80\xF0\x90\x80\x80", r + "\U00010000"},
      {"\xF4\x8F\xBF\xBF", "\U0010FFFF"},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xF5\x80", r + r},
      {"a\xE4\xB8z", "a" + r + "z"},
      {"\xE4\xB8\xE4\xB8\xAD", r + "中"},
      {"\xC3\xC3\xA9", r + "é"},
      {"\xF0\x9F\x98", r},
      {std::string("\0\xC3", 2), std::string("\0", 1) + r},
  };
  for (const auto& [bytes, text] : cases) EXPECT_EQ(ReplaceIllFormed(bytes), text) << testing::PrintToString(bytes);
}

TEST(Utf8Stream, GivesOnlyWholeCodePointsAndAsSoonAsTheyAre) {
  Utf8Stream stream;
  std::string text;
  stream.Push("a\xF0\x9F", &text);
  EXPECT_EQ(text, "a");
  stream.Push("\x98", &text);
  EXPECT_EQ(text, "a");
  stream.Push("\x80", &text);
  EXPECT_EQ(text, "a😀");
  stream.Push("\xE4", &text);
  stream.Push("z", &text);  // decides that the byte before is no beginning
  EXPECT_EQ(text, std::string("a😀") + kR + "z");
  stream.Push("\xC3", &text);
  stream.Flush(&text);
  EXPECT_EQ(text, std::string("a😀") + kR + "z" + kR);
  stream.Flush(&text);
  stream.Push("\xA9", &text);  // not the second half of what was flushed
  EXPECT_EQ(text, std::string("a😀") + kR + "z" + kR + kR);
}

TEST(Utf8Stream, AnyCutGivesTheSameText) {
  std::mt19937 random(1);
  const std::string_view atoms[] = {
      "a", "é", "中", "😀", "\xFF", "\xC3", "\xE4\xB8", "\xF0\x9F\x98", "\xED\xA0\x80", "\x80", "\xF4\x90", "\xE0\x80"};
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (int i = random() % 12; i > 0; --i) bytes += atoms[random() % std::size(atoms)];
    const std::string whole = Stream(bytes, {});
    EXPECT_EQ(whole, ReplaceIllFormed(bytes));
    std::vector<size_t> cuts, every;
    for (size_t at = 0; at <= bytes.size(); ++at) {
      every.push_back(at);
      if (random() % 3 == 0) cuts.push_back(at);
    }
    EXPECT_EQ(Stream(bytes, cuts), whole);
    EXPECT_EQ(Stream(bytes, every), whole);
  }
}

}  // namespace
}  // namespace qwen::text
