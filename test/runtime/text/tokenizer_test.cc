// What the goldens of the real tokenizer do not show: where special tokens may be recognised, merges in every order,
// bytes that are no text, hostile lengths, threads.
#include "runtime/text/tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "test/runtime/text/goldens.h"

namespace qwen::text {
namespace {

using Ids = std::vector<int32_t>;

/// The 256 bytes as tokens 0 to 255 and what `merges` make of them, in order.
TokenizerParts PartsOf(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerParts parts;
  std::map<std::string, uint32_t> ids;
  const auto add = [&](const std::string& bytes) {
    if (ids.try_emplace(bytes, parts.tokens.size()).second) parts.tokens.push_back({TokenKind::kVocab, bytes});
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : merges) {
    add(left + right);
    parts.merges.push_back({left, right});
  }
  return parts;
}

Tokenizer Make(const TokenizerParts& parts) { return ValueOrDie(Tokenizer::FromParts(parts, "model")); }

// ---- special tokens and where text comes from ----

constexpr int32_t kStart = 151644, kEnd = 151645, kThink = 151667;

TEST(EncodeOptions, SpecialTokensOnlyInTemplateText) {
  const std::string text = "<|im_start|>user\n<|im_end|><think><|im_end|>";
  const size_t user = text.find("user\n") + 5, last = text.rfind("<|im_end|>");
  const auto count = [&](const Ids& ids, int32_t id) { return std::count(ids.begin(), ids.end(), id); };

  const Ids all = Qwen3().Encode(text);
  EXPECT_EQ(count(all, kEnd), 2);
  const std::vector<ByteRange> ranges = {{0, user}, {last, text.size()}};
  const Ids marked = Qwen3().Encode(text, {.parse_special = false, .template_ranges = ranges});
  EXPECT_EQ(count(marked, kStart), 1);
  EXPECT_EQ(count(marked, kEnd), 1);
  EXPECT_EQ(marked.back(), kEnd);
  EXPECT_EQ(count(marked, kThink), 1);  // not special: matched in the words of the user too
  EXPECT_EQ(Qwen3().Decode(marked), text);
  const Ids none = Qwen3().Encode(text, {.parse_special = false});
  EXPECT_EQ(count(none, kStart) + count(none, kEnd), 0);
  EXPECT_EQ(count(none, kThink), 1);
  EXPECT_EQ(Qwen3().Decode(none), text);
}

TEST(EncodeOptions, AllOfTheTokenMustLieInTemplateText) {
  const std::string text = "x<|im_end|>y";
  const size_t begin = 1, end = 11;
  const auto special = [&](const std::vector<ByteRange>& ranges) {
    const Ids ids = Qwen3().Encode(text, {.parse_special = false, .template_ranges = ranges});
    return std::count(ids.begin(), ids.end(), kEnd) == 1;
  };
  EXPECT_TRUE(special({{begin, end}}));
  EXPECT_TRUE(special({{0, text.size()}}));
  EXPECT_FALSE(special({{begin + 1, end}}));
  EXPECT_FALSE(special({{begin, end - 1}}));
  EXPECT_FALSE(special({{0, 0}, {end, text.size()}}));
  EXPECT_FALSE(special({{begin, 5}, {6, end}}));
  for (size_t cut = begin; cut <= end; ++cut) EXPECT_TRUE(special({{0, begin}, {begin, cut}, {cut, end}})) << cut;
}

TEST(EncodeOptions, TextIsCutOnlyAtWhatIsRecognised) {
  // The user's last line end and the template's belong to one piece, though they are of different origin.
  const std::string text = "<|im_start|>a\n\n<|im_end|>";
  const std::vector<ByteRange> ranges = {{0, 12}, {14, text.size()}};
  const EncodedText encoded = Qwen3().EncodeWithPieces(text, {.parse_special = false, .template_ranges = ranges});
  ASSERT_EQ(encoded.pieces.size(), 4u);
  EXPECT_EQ(encoded.pieces[2].bytes, (ByteRange{13, 15}));
}

TEST(EncodeOptions, WordsOfTheUserCannotTakeATokenFromTheTemplate) {
  TokenizerParts parts = PartsOf({});
  parts.tokens.push_back({TokenKind::kSpecial, "ab"});
  parts.tokens.push_back({TokenKind::kSpecial, "bc"});
  const Tokenizer tokenizer = Make(parts);
  // The user's "a" would begin "ab", whose end is the template's.
  const std::vector<ByteRange> ranges = {{1, 3}};
  EXPECT_EQ(tokenizer.Encode("abc", {.parse_special = false, .template_ranges = ranges}), (Ids{'a', 257}));
  EXPECT_EQ(tokenizer.Encode("abc"), (Ids{256, 'c'}));
}

// ---- merges ----

/// The definition: as long as any neighbours merge, do the leftmost of lowest rank.
std::vector<std::string> MergeByDefinition(const std::string& piece,
                                           const std::vector<std::pair<std::string, std::string>>& merges) {
  std::vector<std::string> symbols;
  for (char c : piece) symbols.emplace_back(1, c);
  while (true) {
    size_t best = merges.size(), where = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const size_t rank =
          std::find(merges.begin(), merges.end(), std::pair(symbols[i], symbols[i + 1])) - merges.begin();
      if (rank < best) best = rank, where = i;
    }
    if (best == merges.size()) return symbols;
    symbols[where] += symbols[where + 1];
    symbols.erase(symbols.begin() + where + 1);
  }
}

TEST(BytePair, AgreesWithTheDefinition) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    // Random merges of random depth; some results are reached in several ways, some never.
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = random() % 40; i > 0; --i) {
      const std::pair<std::string, std::string> merge = {tokens[random() % tokens.size()],
                                                         tokens[random() % tokens.size()]};
      if (merge.first.size() + merge.second.size() > 12 ||
          std::find(merges.begin(), merges.end(), merge) != merges.end())
        continue;
      merges.push_back(merge);
      const std::string result = merge.first + merge.second;
      if (std::find(tokens.begin(), tokens.end(), result) == tokens.end()) tokens.push_back(result);
    }
    const Tokenizer tokenizer = Make(PartsOf(merges));
    for (int line = 0; line < 20; ++line) {
      std::string piece(1 + random() % 50, 'a');
      for (char& c : piece) c += random() % 3;
      if (line < static_cast<int>(tokens.size())) piece = tokens[line];  // a token, but do the merges get there?
      std::vector<std::string> got;
      for (int32_t id : tokenizer.Encode(piece)) got.emplace_back(tokenizer.Bytes(id));
      EXPECT_EQ(got, MergeByDefinition(piece, merges)) << piece;
    }
  }
}

TEST(BytePair, ATokenThatMergesDoNotReachIsNotTaken) {
  TokenizerParts parts = PartsOf({{"b", "c"}});
  parts.tokens.push_back({TokenKind::kVocab, "abc"});  // 257, no merge makes it
  const Tokenizer tokenizer = Make(parts);
  EXPECT_EQ(tokenizer.Encode("abc"), (Ids{'a', 256}));
  EXPECT_EQ(tokenizer.Find("abc"), 257);
  EXPECT_EQ(tokenizer.Decode(Ids{257}), "abc");
}

TEST(BytePair, LongPiecesTakeNoSquareOfTheirLength) {
  // A million bytes in one piece: were it quadratic, this would take hours.
  for (const char* unit : {"a", "ab", "qz", "中", "=", " ", "\n"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(Qwen3().Decode(Qwen3().Encode(text)), text) << unit;
  }
}

// ---- any bytes, any ids ----

TEST(Tokenizer, AnyBytesBecomeTokensOfTheSameBytes) {
  std::mt19937 random(5);
  const std::string_view atoms[] = {"\xFF",  "\xC3", "\xE4\xB8", "é",  "e\u0301", "<|im_",
                                    "end|>", "a",    " ",        "\n", "\u0323"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = random() % 20; i > 0; --i)
      if (random() % 2 == 0) {
        text += atoms[random() % std::size(atoms)];
      } else {
        text += static_cast<char>(random());
      }
    const EncodedText encoded = Qwen3().EncodeWithPieces(text);
    std::string bytes;
    for (int32_t id : encoded.ids) bytes += Qwen3().Bytes(id);
    EXPECT_EQ(bytes, encoded.normalized);
    EXPECT_EQ(Qwen3().Encode(text), encoded.ids);
  }
}

TEST(Tokenizer, LooksTokensUp) {
  const Tokenizer& t = Qwen3();
  EXPECT_EQ(t.vocab_size(), 151669);
  EXPECT_EQ(t.Find("<|im_end|>"), kEnd);
  EXPECT_EQ(t.Find("</think>"), 151668);
  EXPECT_EQ(t.Find(" world"), 1879);
  EXPECT_EQ(t.Find(std::string_view("\0", 1)), 188);  // U+0100 in the file
  EXPECT_EQ(t.Find(""), std::nullopt);
  EXPECT_EQ(t.Find("<|im_end|"), std::nullopt);
  EXPECT_EQ(t.Find(std::string(10'000, 'x')), std::nullopt);
  EXPECT_EQ(t.Bytes(1879), " world");
  EXPECT_EQ(t.Bytes(kEnd), "<|im_end|>");
  EXPECT_TRUE(t.IsSpecial(kEnd));
  EXPECT_FALSE(t.IsSpecial(kThink));
  EXPECT_EQ(t.Kind(kThink), TokenKind::kAdded);
  EXPECT_EQ(t.Kind(1879), TokenKind::kVocab);
  int special = 0, added = 0;
  for (int32_t id = 0; id < t.vocab_size(); ++id) {
    special += t.Kind(id) == TokenKind::kSpecial;
    added += t.Kind(id) == TokenKind::kAdded;
    EXPECT_EQ(t.Find(t.Bytes(id)), id);
  }
  EXPECT_EQ(special, 14);
  EXPECT_EQ(added, 12);
  // Rows of a padded embedding, and nonsense.
  for (int32_t id : {151669, 151935, INT32_MAX, -1, INT32_MIN}) {
    EXPECT_EQ(t.Kind(id), TokenKind::kNone);
    EXPECT_EQ(t.Bytes(id), "");
    EXPECT_EQ(t.Decode(Ids{9707, id, 1879}), "Hello world");
  }
}

TEST(Tokenizer, DecodeLeavesOutSpecialTokensOnlyOnRequest) {
  const Ids ids = {kStart, 872, 198, kThink, 6023, kEnd};
  EXPECT_EQ(Qwen3().Decode(ids), "<|im_start|>user\n<think>hi<|im_end|>");
  EXPECT_EQ(Qwen3().Decode(ids, true), "user\n<think>hi");
}

TEST(Tokenizer, IdsMayHaveHoles) {
  TokenizerParts parts = PartsOf({});
  parts.tokens.resize(1000);
  parts.tokens.push_back({TokenKind::kSpecial, "<x>"});
  const Tokenizer tokenizer = Make(parts);
  EXPECT_EQ(tokenizer.vocab_size(), 1001);
  EXPECT_EQ(tokenizer.Encode("a<x>"), (Ids{'a', 1000}));
  EXPECT_EQ(tokenizer.Decode(Ids{'a', 500, 1000}), "a<x>");
  EXPECT_EQ(tokenizer.Kind(500), TokenKind::kNone);
}

TEST(Tokenizer, WithoutNormalizerTextStays) {
  TokenizerParts parts = PartsOf({});
  EXPECT_EQ(Make(parts).EncodeWithPieces("e\u0301").normalized, "é");
  parts.nfc = false;
  EXPECT_EQ(Make(parts).EncodeWithPieces("e\u0301").normalized, "e\u0301");
}

TEST(Tokenizer, ManyThreadsShareOne) {
  const std::vector<GoldenLine> lines = GoldenReader("qwen3/goldens.bin").Read().lines;
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (size_t thread = 0; thread < wrong.size(); ++thread)
    threads.emplace_back([&, thread] {
      for (size_t i = thread; i < lines.size(); i += 3)  // overlapping shares
        wrong[thread] += Qwen3().Encode(lines[i].text) != lines[i].words.ids;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, (std::array<int, 4>{}));
}

}  // namespace
}  // namespace qwen::text
