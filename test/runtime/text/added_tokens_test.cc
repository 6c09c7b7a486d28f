#include "runtime/text/added_tokens.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace qwen::text {
namespace {

using Matches = std::vector<std::pair<size_t, int32_t>>;  // begin, id

template <class Allowed>
Matches Search(const AddedTokens& tokens, std::string_view text, Allowed&& allowed) {
  Matches matches;
  size_t at = 0;
  while (const auto match = tokens.Next(text, at, allowed)) {
    matches.emplace_back(match->begin, match->id);
    at = match->end;
  }
  return matches;
}

constexpr auto kAll = [](const AddedTokens::Match&) { return true; };

TEST(AddedTokens, LeftmostThenLongest) {
  AddedTokens tokens;
  const char* contents[] = {"ab", "abcd", "bc", "bcde", "d", "cdx"};
  for (int32_t i = 0; i < 6; ++i) EXPECT_TRUE(tokens.Add(contents[i], i));
  EXPECT_FALSE(tokens.Add("bc", 9));
  EXPECT_FALSE(tokens.Add("", 9));
  tokens.Finish();
  EXPECT_EQ(Search(tokens, "abcd", kAll), (Matches{{0, 1}}));
  EXPECT_EQ(Search(tokens, "abce", kAll), (Matches{{0, 0}}));  // bc begins later
  EXPECT_EQ(Search(tokens, "abcdx", kAll), (Matches{{0, 1}}));
  EXPECT_EQ(Search(tokens, "abcx", kAll), (Matches{{0, 0}}));
  EXPECT_EQ(Search(tokens, "xbcdx", kAll), (Matches{{1, 2}, {3, 4}}));  // the longer ones were begun in vain
  EXPECT_EQ(Search(tokens, "bbcded", kAll), (Matches{{1, 3}, {5, 4}}));
  EXPECT_EQ(Search(tokens, "", kAll), Matches{});
  EXPECT_EQ(Search(AddedTokens(), "abc", kAll), Matches{});
}

TEST(AddedTokens, WhatIsNotAllowedHidesNothing) {
  AddedTokens tokens;
  const char* contents[] = {"ab", "bc", "abcd", "b"};
  for (int32_t i = 0; i < 4; ++i) ASSERT_TRUE(tokens.Add(contents[i], i));
  tokens.Finish();
  const auto without = [](std::vector<int32_t> ids) {
    return [ids](const AddedTokens::Match& m) { return std::find(ids.begin(), ids.end(), m.id) == ids.end(); };
  };
  EXPECT_EQ(Search(tokens, "abcd", without({2})), (Matches{{0, 0}}));
  EXPECT_EQ(Search(tokens, "abcd", without({0, 2})), (Matches{{1, 1}}));
  EXPECT_EQ(Search(tokens, "abcd", without({0, 1, 2})), (Matches{{1, 3}}));
  EXPECT_EQ(Search(tokens, "abcd", without({0, 1, 2, 3})), Matches{});
}

/// Against the definition: at each place the longest that is allowed there.
TEST(AddedTokens, AgreesWithTryingEveryPlace) {
  std::mt19937 random(7);
  const auto word = [&](int letters, int longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c += random() % letters;
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const int letters = 1 + random() % 3;
    AddedTokens tokens;
    std::vector<std::string> contents;
    for (int i = 1 + random() % 6; i > 0; --i) {
      const std::string content = word(letters, 6);
      if (tokens.Add(content, static_cast<int32_t>(contents.size()))) contents.push_back(content);
    }
    tokens.Finish();
    const std::string text = word(letters, 40);
    const uint32_t salt = random();
    const auto allowed = [&](const AddedTokens::Match& m) { return (m.begin * 7 + m.id * 13 + salt) % 3 != 0; };
    Matches want;
    for (size_t at = 0; at < text.size();) {
      int32_t best = -1;
      for (int32_t id = 0; id < static_cast<int32_t>(contents.size()); ++id)
        if (text.compare(at, contents[id].size(), contents[id]) == 0 && allowed({at, at + contents[id].size(), id}) &&
            (best < 0 || contents[id].size() > contents[best].size()))
          best = id;
      if (best >= 0) want.emplace_back(at, best);
      at += best >= 0 ? contents[best].size() : 1;
    }
    EXPECT_EQ(Search(tokens, text, allowed), want) << text << " " << testing::PrintToString(contents);
  }
}

}  // namespace
}  // namespace qwen::text
