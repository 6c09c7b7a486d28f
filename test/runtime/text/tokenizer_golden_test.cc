// Ids, pieces and text of the real Qwen3 tokenizer, and of a toy one full of corner cases, against PyPI `tokenizers`.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <sstream>

#include "runtime/base/json.h"
#include "runtime/text/unicode/nfc.h"
#include "runtime/text/unicode/utf8.h"
#include "test/runtime/text/goldens.h"

namespace qwen::text {
namespace {

using Ids = std::vector<int32_t>;
using Texts = std::vector<std::string>;

GoldenEncoding Summary(const EncodedText& encoded) {
  GoldenEncoding summary{encoded.ids, {}};
  for (const EncodedText::Piece& piece : encoded.pieces) summary.tokens.push_back(piece.tokens);
  return summary;
}

Texts Pieces(const Tokenizer& tokenizer, const std::string& text) {
  const EncodedText encoded = tokenizer.EncodeWithPieces(text);
  Texts pieces;
  for (const EncodedText::Piece& piece : encoded.pieces)
    pieces.push_back(encoded.normalized.substr(piece.bytes.begin, piece.bytes.end - piece.bytes.begin));
  return pieces;
}

/// Every line three ways; also that pieces are what their tokens say, and that the other form of Encode agrees.
void Check(const std::string& folder, const Tokenizer& words, const Tokenizer& marks, size_t lines) {
  const Goldens goldens = GoldenReader(folder + "/goldens.bin").Read();
  ASSERT_EQ(goldens.lines.size(), lines);
  int wrong = 0;
  const auto check = [&](const Tokenizer& tokenizer, const char* name, const std::string& text,
                         const EncodeOptions& options, const GoldenEncoding& want) {
    const EncodedText got = tokenizer.EncodeWithPieces(text, options);
    bool same = Summary(got) == want;
    same &= tokenizer.Encode(text, options) == want.ids;
    size_t end = 0, tokens = 0;
    for (const EncodedText::Piece& piece : got.pieces) {
      std::string bytes;
      for (size_t i = 0; i < piece.tokens; ++i) bytes += tokenizer.Bytes(got.ids[piece.first_token + i]);
      same &= piece.bytes.begin == end && piece.first_token == tokens &&
              bytes == got.normalized.substr(end, piece.bytes.end - end);
      end = piece.bytes.end;
      tokens += piece.tokens;
    }
    same &= end == got.normalized.size() && tokens == got.ids.size();
    same &= tokenizer.Decode(got.ids) == got.normalized;
    if (!same && ++wrong <= 10)
      ADD_FAILURE() << name << ": " << JsonQuote(text) << "\n got " << testing::PrintToString(got.ids) << "\nwant "
                    << testing::PrintToString(want.ids) << "\npieces " << testing::PrintToString(Summary(got).tokens)
                    << "\n  want " << testing::PrintToString(want.tokens);
  };
  for (const GoldenLine& line : goldens.lines) {
    check(words, "words", line.text, {}, line.words);
    check(marks, "marks", line.text, {}, line.marks);
    check(words, "unmarked", line.text, {.parse_special = false}, line.unmarked);
  }
  EXPECT_EQ(wrong, 0);
}

TEST(TokenizerGolden, Qwen3LinesGiveTheSameIdsAndPieces) { Check("qwen3", Qwen3(), Qwen35(), 10'000); }

TEST(TokenizerGolden, ToyLinesGiveTheSameIdsAndPieces) { Check("toy", Load("toy"), Load("toy", true), 500); }

TEST(TokenizerGolden, TheCompiledFormIsTheSameTokenizer) {
  const std::span<const uint8_t> blob = Qwen3().Serialize();
  const Tokenizer read = ValueOrDie(Tokenizer::FromBlob(blob, "blob"));
  EXPECT_TRUE(std::ranges::equal(read.Serialize(), blob));
  for (const GoldenLine& line : GoldenReader("qwen3/goldens.bin").Read().lines)
    ASSERT_EQ(read.Encode(line.text), line.words.ids) << JsonQuote(line.text);
}

TEST(TokenizerGolden, DecodesAnyIds) {
  const Goldens goldens = GoldenReader("qwen3/goldens.bin").Read();
  ASSERT_EQ(goldens.decodes.size(), 1000u);
  for (const GoldenDecode& decode : goldens.decodes) {
    EXPECT_EQ(Qwen3().Decode(decode.ids), decode.text) << testing::PrintToString(decode.ids);
    EXPECT_EQ(Qwen3().Decode(decode.ids, true), decode.without_special) << testing::PrintToString(decode.ids);
  }
}

/// Published vectors of the serving design, section 15.
TEST(TokenizerGolden, Vectors) {
  const std::pair<const char*, Ids> vectors[] = {
      {"Hello world", {9707, 1879}},
      {"I'LL don'T we'Ve", {40, 6, 4086, 1513, 17323, 582, 6, 42612}},
      {"12345", {16, 17, 18, 19, 20}},
      {"e\u0301", {963}},
      {"  \n\n  x", {18611, 220, 856}},
      {"tab\tend \n", {6192, 6246, 715}},
      {"नमस्ते", {60096, 87244, 78368, 30484, 97, 34370}},
      {"ไทย", {125451}},
      {"🧑‍💻 ok", {148738, 378, 235, 145851, 5394}},
      {"<|im_start|>user\nhi<|im_end|>", {151644, 872, 198, 6023, 151645}},
      {"<think>x</think>", {151667, 87, 151668}},
      {"<|im_startx|>", {27, 91, 318, 4906, 87, 91, 29}},
      {"½ ² ①", {26062, 220, 29456, 220, 48312, 254}},
      {"\u200Bzero", {15692, 14154}},
      {"日本語テスト", {101059, 102819, 140592}},
      {"fn(x)=>{return x;}\r\n", {8822, 2075, 27166, 90, 689, 856, 39528}},
      {"", {}},
  };
  for (const auto& [text, ids] : vectors) EXPECT_EQ(Qwen3().Encode(text), ids) << text;
}

TEST(TokenizerGolden, PieceVectors) {
  struct Vector {
    const char* text;
    Texts words, marks;
  };
  const Vector vectors[] = {
      {"नमस्ते", {"नमस", "्त", "े"}, {"नमस्ते"}},
      {"x\u0300\u0301y z", {"x", "\u0300\u0301", "y", " z"}, {"x\u0300\u0301y", " z"}},
      {"$$\u0301$", {"$$\u0301$"}, {"$$", "\u0301", "$"}},
      {"I'LL don'T", {"I", "'LL", " don", "'T"}, {}},
      {"a  b   c", {"a", " ", " b", "  ", " c"}, {}},
      {"  \n\n  x \n", {"  \n\n", " ", " x", " \n"}, {}},
      {"3.14%\r\n!", {"3", ".", "1", "4", "%\r\n", "!"}, {}},
  };
  for (const Vector& vector : vectors) {
    EXPECT_EQ(Pieces(Qwen3(), vector.text), vector.words);
    EXPECT_EQ(Pieces(Qwen35(), vector.text), vector.marks.empty() ? vector.words : vector.marks);
  }
}

/// As zlib computes it.
uint32_t Crc32(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0xEDB88320 : 0);
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

/// As make_goldens.py's block_text.
std::string BlockText(char32_t first) {
  std::string text;
  for (char32_t c = first; c < first + 1024; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    for (const char* before :
         {"", "\na", "\n", "\u0301\n", "\u0323\u0302b\ne\u0323", "\u0302\n\u1100", "\u11a8\n 1", " ", "$", "'s ", ""}) {
      text += before;
      AppendUtf8(c, &text);
    }
    text += "\n";
  }
  return text;
}

TEST(TokenizerGolden, EveryCodePointNormalizesAndSplitsTheSame) {
  std::istringstream stored(Data("unicode_goldens.txt"));
  std::string line;
  int blocks = 0;
  while (std::getline(stored, line)) {
    if (line[0] == '#') continue;
    ++blocks;
    uint32_t first, nfc;
    std::array<uint32_t, 2> pieces;
    ASSERT_EQ(std::sscanf(line.c_str(), "%x %x %x %x", &first, &nfc, &pieces[0], &pieces[1]), 4);
    const std::string text = BlockText(first);
    std::string storage;
    EXPECT_EQ(Crc32(ToNfc(text, &storage)), nfc) << "NFC from " << line;
    for (Pattern pattern : {Pattern::kWords, Pattern::kWordsWithMarks}) {
      std::string lengths;
      for (size_t at = 0; at < text.size();) {
        const auto length = static_cast<uint32_t>(PieceEnd(text, at, pattern) - at);
        lengths.append(reinterpret_cast<const char*>(&length), 4);
        at += length;
      }
      EXPECT_EQ(Crc32(lengths), pieces[static_cast<int>(pattern)]) << "pieces from " << line;
    }
  }
  EXPECT_EQ(blocks, 1088);
}

/// A figure, not a limit: the clock of a shared machine says little.
TEST(TokenizerGolden, RateOnAMegabyte) {
  std::string mixed;
  for (const GoldenLine& line : GoldenReader("qwen3/goldens.bin").Read().lines) mixed += line.text;
  const std::pair<const char*, std::string> texts[] = {{"mixed text", mixed},
                                                       {"one piece of one letter", std::string(1 << 20, 'a')}};
  for (const auto& [name, text] : texts) {
    const auto begin = std::chrono::steady_clock::now();
    const size_t tokens = Qwen3().Encode(text).size();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_GT(tokens, 0u);
    std::printf("figure: tokenizer, %s: %.1f MB/s (%zu bytes, %.3f s)\n", name, text.size() / seconds.count() / 1e6,
                text.size(), seconds.count());
  }
}

}  // namespace
}  // namespace qwen::text
