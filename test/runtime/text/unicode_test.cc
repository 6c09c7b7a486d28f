// Normalization and cutting where goldens do not reach: ill-formed bytes, long runs, no memory when nothing changes.
// That every code point is treated as PyPI `tokenizers` does is tokenizer_golden_test.cc's business.
#include <gtest/gtest.h>

#include "runtime/text/pretokenizer.h"
#include "runtime/text/unicode/nfc.h"
#include "runtime/text/unicode/properties.h"

namespace qwen::text {
namespace {

std::string Nfc(std::string_view text) {
  std::string storage = "left over";
  return std::string(ToNfc(text, &storage));
}

std::vector<std::string> Cut(std::string_view text, Pattern pattern = Pattern::kWords) {
  std::vector<std::string> pieces;
  for (size_t at = 0; at < text.size();) {
    const size_t end = PieceEnd(text, at, pattern);
    pieces.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

TEST(Nfc, TextInNfcIsNotCopied) {
  for (std::string_view text : {"", "plain", "é ü 中文 한글 नमस्ते", "a\u0334\u0305", "q\u0301\xFF\xC3"}) {
    std::string storage = "untouched";
    // The last one looks at a mark that may compose, so it is rewritten, to the same.
    const std::string_view nfc = ToNfc(text, &storage);
    EXPECT_EQ(nfc, text);
    if (text.find("\u0301") == text.npos) {
      EXPECT_EQ(nfc.data(), text.data());
      EXPECT_EQ(storage, "untouched");
    }
  }
}

TEST(Nfc, ComposesReordersAndBlocks) {
  EXPECT_EQ(Nfc("e\u0301"), "é");
  EXPECT_EQ(Nfc("xe\u0301 e\u0301y"), "xé éy");
  EXPECT_EQ(Nfc("u\u0308\u0304"), "\u01D6");
  EXPECT_EQ(Nfc("a\u0301\u0323"), "\u1EA1\u0301");  // 220 goes before 230
  EXPECT_EQ(Nfc("a\u0300\u0301"), "à\u0301");       // the second is blocked by nothing but has no composite
  EXPECT_EQ(Nfc("\u0301\u0323"), "\u0323\u0301");   // no starter
  EXPECT_EQ(Nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(Nfc("\uAC00\u11A7"), "\uAC00\u11A7");  // one before the first tail
  EXPECT_EQ(Nfc("\u212B\u2126"), "\u00C5\u03A9");
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093C");  // excluded from composition
}

TEST(Nfc, IllFormedBytesStayAndShield) {
  EXPECT_EQ(Nfc("\xFF\u0301"), "\xFF\u0301");
  EXPECT_EQ(Nfc("e\xC3\u0301"), "e\xC3\u0301");
  EXPECT_EQ(Nfc("e\u0301\xE4\xB8"), "é\xE4\xB8");
  EXPECT_EQ(Nfc("\xCC\xCC\x81"), "\xCC\u0301");
  EXPECT_EQ(Nfc("\x80\x80\u0323\u0301\u0323"), "\x80\x80\u0323\u0323\u0301");
}

TEST(Nfc, AMillionMarksAreSorted) {
  std::string marks, sorted;
  for (int i = 0; i < 500'000; ++i) marks += i % 2 ? "\u0334" : "\u0301";
  for (int i = 0; i < 250'000; ++i) sorted += "\u0334";
  for (int i = 0; i < 250'000; ++i) sorted += "\u0301";
  EXPECT_EQ(Nfc("q" + marks), "q" + sorted);
}

TEST(Properties, TheRowOfIllFormedBytes) {
  const CharProperties& properties = PropertiesOf(kIllFormed);
  EXPECT_EQ(properties.char_class, CharClass::kOther);
  EXPECT_EQ(properties.combining_class, 0);
  EXPECT_TRUE(properties.nfc_stable);
}

TEST(PieceEnd, IllFormedBytesAreSymbols) {
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(Cut("a\xFF\xFE\nb"), (Pieces{"a", "\xFF\xFE\n", "b"}));
  EXPECT_EQ(Cut(" \xE4\xB8"), (Pieces{" \xE4\xB8"}));
  EXPECT_EQ(Cut("\xE4\xB8z"), (Pieces{"\xE4\xB8z"}));  // one symbol in front of a word
  EXPECT_EQ(Cut("\xFF\xFEz"), (Pieces{"\xFF\xFE", "z"}));
  EXPECT_EQ(Cut("'\xC5"), (Pieces{"'\xC5"}));
  EXPECT_EQ(Cut("'\u017F"), (Pieces{"'\u017F"}));
  EXPECT_EQ(Cut("'\u017Fo"), (Pieces{"'\u017F", "o"}));
}

TEST(PieceEnd, CoversEveryTextOfThreeBytes) {
  // Every class, and bytes that are no text, in every order.
  const std::string_view atoms[] = {"a", "'", "s", " ", "\t", "\n", "\r", "1", "$", "\u0301", "\u00A0", "\xFF", "l"};
  for (std::string_view a : atoms)
    for (std::string_view b : atoms)
      for (std::string_view c : atoms)
        for (Pattern pattern : {Pattern::kWords, Pattern::kWordsWithMarks}) {
          const std::string text = std::string(a) + std::string(b) + std::string(c);
          std::string again;
          for (const std::string& piece : Cut(text, pattern)) {
            EXPECT_FALSE(piece.empty());
            again += piece;
          }
          EXPECT_EQ(again, text);
        }
}

TEST(FindPattern, KnowsTwo) {
  EXPECT_EQ(FindPattern(PatternRegexes()[0]), Pattern::kWords);
  EXPECT_EQ(FindPattern(PatternRegexes()[1]), Pattern::kWordsWithMarks);
  EXPECT_EQ(FindPattern(""), std::nullopt);
  EXPECT_EQ(FindPattern(std::string(PatternRegexes()[0]) + " "), std::nullopt);
}

}  // namespace
}  // namespace qwen::text
