// Compiled tokenizers that somebody spoiled, by chance or on purpose.
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/text/tokenizer_blob.h"
#include "test/runtime/text/goldens.h"

namespace qwen::text {
namespace {

class TokenizerBlob : public testing::Test {
 protected:
  TokenizerBlob() : toy_(Load("toy")), blob_(toy_.Serialize().begin(), toy_.Serialize().end()) {
    std::memcpy(&header_, blob_.data(), sizeof(header_));
  }

  BlobLayout layout() const { return BlobLayout(header_); }

  /// The message for the blob with `value` at word `at`.
  std::string With(uint64_t at, uint32_t value) const {
    std::vector<uint8_t> blob = blob_;
    std::memcpy(blob.data() + at * 4, &value, 4);
    return Message(blob);
  }
  static std::string Message(std::span<const uint8_t> blob) {
    const StatusOr<Tokenizer> tokenizer = Tokenizer::FromBlob(blob, "blob");
    if (tokenizer.ok()) return "ok";
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kDataLoss);
    return tokenizer.status().message();
  }

  Tokenizer toy_;
  std::vector<uint8_t> blob_;
  BlobHeader header_;
};

TEST_F(TokenizerBlob, Header) {
  EXPECT_EQ(Message(blob_), "ok");
  EXPECT_EQ(Message({}), "blob: is 0 bytes, too few for a header of 1060");
  EXPECT_EQ(Message(std::span(blob_).first(1056)), "blob: is 1056 bytes, too few for a header of 1060");
  EXPECT_EQ(Message(std::span(blob_).first(1061)), "blob: is 1061 bytes, not a multiple of 4");
  EXPECT_EQ(With(0, 0), "blob: does not begin as a compiled tokenizer");
  EXPECT_EQ(With(3, 6), "blob: has flags 0x6, known are 0x1");
  EXPECT_EQ(With(4, 2), "blob: names pattern 2, there are 2");
  EXPECT_EQ(With(5, kMaxTokens + 1), "blob: has 4194305 token ids, the limit is 4194304");
  for (uint64_t count = 5; count < 9; ++count) {
    EXPECT_NE(With(count, UINT32_MAX), "ok");
    EXPECT_NE(With(count, 0), "ok");
  }
  std::vector<uint8_t> later = blob_;
  later[8] = 2;
  const Status status = Tokenizer::FromBlob(later, "blob").status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(), "blob: is a tokenizer of version 2, this build reads 1");
  EXPECT_EQ(status.hint(), "compile the model again");
}

TEST_F(TokenizerBlob, Sections) {
  const std::string tokens = std::to_string(header_.tokens);
  EXPECT_EQ(With(layout().ends + 5, 0),
            "blob: token 5 is at bytes [" +
                std::to_string(toy_.Bytes(0).size() + toy_.Bytes(1).size() + toy_.Bytes(2).size() +
                               toy_.Bytes(3).size() + toy_.Bytes(4).size()) +
                ", 0) of " + std::to_string(header_.bytes));
  EXPECT_NE(With(layout().ends + header_.tokens - 1, header_.bytes + 1).find("blob: token"), std::string::npos);
  EXPECT_EQ(With(9, header_.tokens), "blob: byte 0x00 is token " + tokens + ", but there are " + tokens);
  EXPECT_EQ(With(9, header_.byte_tokens[1]),
            "blob: token " + std::to_string(header_.byte_tokens[1]) + " is \"\\u0001\", not the byte 0x00");
  for (uint32_t value : {1u, UINT32_MAX}) {
    EXPECT_EQ(With(layout().index_starts, value), "blob: its index of tokens is damaged");
    EXPECT_EQ(With(layout().index_entries - 1, value), "blob: its index of tokens is damaged");
    EXPECT_EQ(With(layout().merge_starts, value), "blob: its index of merges is damaged");
    EXPECT_EQ(With(layout().merges - 1, value), "blob: its index of merges is damaged");
  }
  EXPECT_EQ(With(layout().index_starts + 7, header_.entries), "blob: its index of tokens is damaged");
  EXPECT_EQ(With(layout().index_entries, header_.tokens),
            "blob: its index names token " + tokens + ", but there are " + tokens);
  for (int field = 0; field < 3; ++field)
    EXPECT_NE(With(layout().merges + field, header_.tokens).find("names token " + tokens + ", but there are " + tokens),
              std::string::npos);
  EXPECT_EQ(With(layout().merges + 3, header_.merges),
            "blob: a merge has rank " + std::to_string(header_.merges) + " of " + std::to_string(header_.merges));
  EXPECT_EQ(With(layout().kinds, 0x04040404), "blob: token 0 is of kind 4");
}

TEST_F(TokenizerBlob, AddedTokensMustDiffer) {
  std::vector<uint32_t> ids;
  for (uint32_t id = 0; id < header_.tokens; ++id)
    if (toy_.Kind(static_cast<int32_t>(id)) >= TokenKind::kAdded) ids.push_back(id);
  const uint32_t last = ids.back();
  ASSERT_EQ(last, header_.tokens - 1);
  EXPECT_EQ(With(layout().ends + last, header_.bytes - static_cast<uint32_t>(toy_.Bytes(last).size())),
            "blob: added token " + std::to_string(last) + " is empty or repeats another: \"\"");
}

/// A bucket too long to search, as someone would make to be slow.
TEST_F(TokenizerBlob, LongBuckets) {
  std::vector<uint8_t> blob = blob_;
  auto* starts = reinterpret_cast<uint32_t*>(blob.data()) + layout().index_starts;
  for (uint32_t b = 1; b <= header_.entries; ++b) starts[b] = header_.entries;
  EXPECT_EQ(Message(blob), "blob: its index of tokens is damaged");
}

TEST_F(TokenizerBlob, EveryTruncationIsRefused) {
  for (size_t size = 0; size < blob_.size(); ++size) EXPECT_NE(Message(std::span(blob_).first(size)), "ok") << size;
  std::vector<uint8_t> longer = blob_;
  longer.resize(blob_.size() + 4);
  EXPECT_NE(Message(longer), "ok");
}

/// Where the fuzzer starts. QWEN_UPDATE=1 writes it anew.
TEST_F(TokenizerBlob, FuzzerSeedIsCurrent) {
  TokenizerParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.push_back({TokenKind::kVocab, std::string(1, char(byte))});
  for (const char* bytes : {"ab", "abc", " a"}) parts.tokens.push_back({TokenKind::kVocab, bytes});
  for (const char* bytes : {"<s>", "<st>"}) parts.tokens.push_back({TokenKind::kSpecial, bytes});
  parts.tokens.push_back({TokenKind::kAdded, "t>"});
  parts.merges = {{"a", "b"}, {"ab", "c"}, {" ", "a"}};
  const Tokenizer tokenizer = ValueOrDie(Tokenizer::FromParts(parts, "seed"));
  const std::span<const uint8_t> blob = tokenizer.Serialize();
  const std::string_view bytes(reinterpret_cast<const char*>(blob.data()), blob.size());
  const std::string path = QWEN_SOURCE_DIR "/test/fuzz/corpus/fuzz_tokenizer_blob/small.bin";
  if (getenv("QWEN_UPDATE")) {
    ASSERT_TRUE(WriteFileAtomic(path, bytes, true).ok());
  }
  EXPECT_TRUE(ValueOrDie(ReadFile(path, 1 << 20)) == bytes) << "QWEN_UPDATE=1 writes it anew";
}

/// A flipped bit is refused or leaves a tokenizer that does other things, but does them.
TEST_F(TokenizerBlob, EveryFlippedByteIsSurvived) {
  const std::string text = "abcdeabcde <s>bc<t><u> e\u0301 zz</s>\n1 don't";
  std::vector<int32_t> ids(600);
  for (int32_t id = 0; id < 600; ++id) ids[id] = id;
  int refused = 0, kept = 0;
  for (size_t at = 0; at < blob_.size(); ++at)
    for (uint8_t flip : {0x01, 0x10, 0x80, 0xFF}) {
      std::vector<uint8_t> blob = blob_;
      blob[at] ^= flip;
      const StatusOr<Tokenizer> tokenizer = Tokenizer::FromBlob(blob, "blob");
      ++(tokenizer.ok() ? kept : refused);
      if (!tokenizer.ok()) continue;
      EXPECT_LE(tokenizer->Encode(text).size(), text.size());
      (void)tokenizer->Decode(ids);
      (void)tokenizer->Find("abc");
    }
  EXPECT_GT(refused, 0);
  EXPECT_GT(kept, 0);
}

}  // namespace
}  // namespace qwen::text
