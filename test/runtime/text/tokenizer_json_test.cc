// What a tokenizer.json may say: both forms of merges, and a message for everything that is refused.
#include "runtime/text/tokenizer_json.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/base/json.h"
#include "runtime/text/unicode/utf8.h"
#include "test/runtime/text/goldens.h"

namespace qwen::text {
namespace {

/// The toy file with one spot changed.
std::string Toy(std::string_view from, std::string_view to) { return Replaced(Data("toy/tokenizer.json"), from, to); }

Status StatusOf(const std::string& json) {
  const StatusOr<Tokenizer> tokenizer = ParseTokenizerJson(json, "t.json");
  return tokenizer.ok() ? Status() : tokenizer.status();
}
void ExpectRefusal(const std::string& json, StatusCode code, const std::string& message) {
  const Status status = StatusOf(json);
  EXPECT_EQ(status.message(), message);
  EXPECT_EQ(status.code(), code) << message;
}
void ExpectMalformed(const std::string& json, const std::string& message) {
  ExpectRefusal(json, StatusCode::kDataLoss, message);
}
void ExpectUnsupported(const std::string& json, const std::string& message) {
  ExpectRefusal(json, StatusCode::kUnimplemented, message);
}

/// A file of the 256 bytes and these, with ids from 256 on.
std::string File(const std::vector<std::string>& tokens, const std::string& merges, const std::string& added = "") {
  std::string vocab;
  int id = 0;
  char32_t other = 0x100;
  const auto add = [&](const std::string& token) {
    vocab += (id ? "," : "") + JsonQuote(token) + ":" + std::to_string(id);
    ++id;
  };
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    AppendUtf8(printable ? static_cast<char32_t>(byte) : other++, &token);
    add(token);
  }
  for (const std::string& token : tokens) add(token);
  const std::string words = JsonQuote(PatternRegexes()[0]);
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" + added +
         R"(],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split",)"
         R"("pattern":{"Regex":)" +
         words +
         R"(},"behavior":"Isolated","invert":false},{"type":"ByteLevel",)"
         R"("add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},"post_processor":null,"decoder":)"
         R"({"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
         vocab + R"(},"merges":[)" + merges + "]}}";
}

std::string Added(const std::string& content, int64_t id, bool special = true) {
  return "{\"id\":" + std::to_string(id) + ",\"content\":" + JsonQuote(content) +
         ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":" +
         (special ? "true}" : "false}");
}

TEST(TokenizerJson, BothFormsOfMerges) {
  const Tokenizer pairs = ValueOrDie(ParseTokenizerJson(File({"ab", "abc"}, R"(["a","b"],["ab","c"])"), "t"));
  const Tokenizer strings = ValueOrDie(ParseTokenizerJson(File({"ab", "abc"}, R"("a b","ab c")"), "t"));
  EXPECT_TRUE(std::ranges::equal(pairs.Serialize(), strings.Serialize()));
  EXPECT_EQ(pairs.Encode("abcab"), (std::vector<int32_t>{257, 256}));
}

TEST(TokenizerJson, WhatMayBeMissingOrNull) {
  for (const auto& [from, to] : {std::pair{R"("version":"1.0",)", ""},
                                 {R"("truncation":null,)", ""},
                                 {R"("post_processor":null,)", ""},
                                 {R"("added_tokens":[],)", ""},
                                 {R"("type":"BPE",)", R"("type":"BPE","dropout":null,"unk_token":null,)"},
                                 {R"("type":"BPE",)", R"("type":"BPE","continuing_subword_prefix":null,)"},
                                 {R"("type":"BPE",)", R"("type":"BPE","ignore_merges":false,"fuse_unk":false,)"}})
    EXPECT_TRUE(StatusOf(Replaced(File({}, ""), from, to)).ok()) << from << " " << to;
  EXPECT_FALSE(ValueOrDie(ParseTokenizerJson(Replaced(File({}, ""), R"({"type":"NFC"})", "null"), "t"))
                   .EncodeWithPieces("e\u0301")
                   .normalized == "é");
}

TEST(TokenizerJson, RefusesWhatItWouldHaveToPassOver) {
  ExpectUnsupported(Toy(R"("truncation": null)", R"("truncation": {"max_length": 5})"),
                    "t.json:/truncation: is not supported, only null is");
  ExpectUnsupported(Toy(R"("padding": null)", R"("padding": {})"), "t.json:/padding: is not supported, only null is");
  ExpectUnsupported(Toy(R"("padding": null)", R"("padding": null, "later": 1)"),
                    "t.json:/later: is not a key this build knows");
  ExpectUnsupported(Toy(R"("version": "1.0")", R"("version": "2.0")"),
                    "t.json:/version: is \"2.0\", this build reads \"1.0\"");
  ExpectUnsupported(Toy(R"("type": "NFC")", R"("type": "NFKC")"),
                    "t.json:/normalizer/type: \"NFKC\" is not supported, only NFC is");
  ExpectUnsupported(Toy(R"("type": "Sequence")", R"("type": "ByteLevel")"),
                    "t.json:/pre_tokenizer/type: \"ByteLevel\" is not supported, only Sequence is");
  ExpectUnsupported(Toy(R"("type": "Split")", R"("type": "Digits")"),
                    "t.json:/pre_tokenizer/pretokenizers/0/type: \"Digits\" is not supported, only Split is");
  ExpectUnsupported(
      Toy(R"("behavior": "Isolated")", R"("behavior": "Removed")"),
      "t.json:/pre_tokenizer/pretokenizers/0/behavior: \"Removed\" is not supported, only \"Isolated\" is");
  ExpectUnsupported(Toy(R"("invert": false)", R"("invert": true)"),
                    "t.json:/pre_tokenizer/pretokenizers/0/invert: true is not supported");
  ExpectUnsupported(Toy(R"(|\\s+(?!\\S))", ""),
                    R"(t.json:/pre_tokenizer/pretokenizers/0/pattern/Regex: the pattern )"
                    R"("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+)"
                    R"([\\r\\n]*|\\s*[\\r\\n]+|\\s+" is not one this build has a scanner for)");
  ExpectUnsupported(Toy(R"("add_prefix_space": false)", R"("add_prefix_space": true)"),
                    "t.json:/pre_tokenizer/pretokenizers/1/add_prefix_space: true is not supported");
  ExpectUnsupported(Toy(R"("use_regex": false)", R"("use_regex": true)"),
                    "t.json:/pre_tokenizer/pretokenizers/1/use_regex: true is not supported");
  ExpectUnsupported(Toy("\"type\": \"ByteLevel\",\n    \"add_prefix_space\"",
                        "\"type\": \"ByteLevel\", \"more\": 1,\n    \"add_prefix_space\""),
                    "t.json:/pre_tokenizer/pretokenizers/1/more: is not a key this build knows");
  ExpectUnsupported(Toy("\"post_processor\": {\n  \"type\": \"ByteLevel\"",
                        "\"post_processor\": {\n  \"type\": \"TemplateProcessing\""),
                    "t.json:/post_processor/type: \"TemplateProcessing\" is not supported, only ByteLevel is");
  ExpectUnsupported(Toy("\"decoder\": {\n  \"type\": \"ByteLevel\"", "\"decoder\": {\n  \"type\": \"Metaspace\""),
                    "t.json:/decoder/type: \"Metaspace\" is not supported, only ByteLevel is");
  ExpectUnsupported(Toy(R"("type": "BPE")", R"("type": "Unigram")"),
                    "t.json:/model/type: \"Unigram\" is not supported, only BPE is");
  ExpectUnsupported(Toy(R"("dropout": null)", R"("dropout": 0.1)"),
                    "t.json:/model/dropout: is not supported, only null is");
  ExpectUnsupported(Toy(R"("end_of_word_suffix": "")", R"("end_of_word_suffix": "</w>")"),
                    "t.json:/model/end_of_word_suffix: \"</w>\" is not supported, only \"\" is");
  ExpectUnsupported(Toy(R"("ignore_merges": false)", R"("ignore_merges": true)"),
                    "t.json:/model/ignore_merges: true is not supported");
  for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"})
    ExpectUnsupported(Toy(std::string("\"") + key + "\": false", std::string("\"") + key + "\": true"),
                      std::string("t.json:/added_tokens/0/") + key + ": true is not supported");
}

TEST(TokenizerJson, RefusesWhatIsMalformed) {
  EXPECT_EQ(StatusOf("").ExitCode(), 3);
  ExpectMalformed("[]", "t.json:/: is an array, want an object");
  ExpectMalformed("{}", "t.json:/pre_tokenizer: is missing, want an object");
  ExpectMalformed(Toy(R"("version": "1.0")", R"("version": 1)"), "t.json:/version: is an integer, want a string");
  ExpectMalformed(Toy("\"decoder\": {\n  \"type\": \"ByteLevel\",", "\"decoder\": {\n"),
                  "t.json:/decoder/type: is missing, want a string");
  ExpectMalformed(Toy(R"("add_prefix_space": false)", R"("add_prefix_space": 0)"),
                  "t.json:/pre_tokenizer/pretokenizers/1/add_prefix_space: is an integer, want a boolean");
  ExpectMalformed(Toy(R"("Regex")", R"("String")"),
                  "t.json:/pre_tokenizer/pretokenizers/0/pattern/Regex: is missing, want a string");
  ExpectMalformed(Replaced(File({}, ""), R"(,"merges":[])", ""), "t.json:/model/merges: is missing, want an array");
  ExpectMalformed(Replaced(File({}, ""), R"("merges":[])", R"("merges":{})"),
                  "t.json:/model/merges: is an object, want an array");
}

TEST(TokenizerJson, Vocabularies) {
  const std::string file = File({"ab"}, R"("a b")");
  EXPECT_TRUE(StatusOf(file).ok());
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":7)"),
                  "t.json:/model/vocab/ab: is 7, which is the id of \"\\u0007\" too");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":-1)"), "t.json:/model/vocab/ab: is -1, want 0 to 4194303");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":4194304)"),
                  "t.json:/model/vocab/ab: is 4194304, want 0 to 4194303");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":2147483647)"),
                  "t.json:/model/vocab/ab: is 2147483647, want 0 to 4194303");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":1e3)"),
                  "t.json:/model/vocab/ab: is a number with a fraction or an exponent, want an integer");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":"256")"),
                  "t.json:/model/vocab/ab: is a string, want an integer");
  ExpectMalformed(Replaced(file, R"("ab":256)", R"("ab":256,"ab":257)"),
                  "t.json:/model/vocab/ab: stands twice in its object");
  ExpectMalformed(Replaced(file, R"("a":97,)", ""), "t.json:/model/vocab: no token is the single byte 0x61");
  ExpectUnsupported(Replaced(file, R"("ab":256)", R"("ab":256,"a b":257)"),
                    "t.json:/model/vocab/a b: is not written in the alphabet of bytes");
  ExpectUnsupported(Replaced(file, R"("ab":256)", R"("ab":256,"日本":257)"),
                    "t.json:/model/vocab/日本: is not written in the alphabet of bytes");
  // A hole is no token, and the highest id that is allowed is.
  const Tokenizer holes = ValueOrDie(ParseTokenizerJson(Replaced(file, R"("ab":256)", R"("ab":4194303)"), "t"));
  EXPECT_EQ(holes.vocab_size(), 4194304);
  EXPECT_EQ(holes.Encode("ab"), (std::vector<int32_t>{4194303}));
}

TEST(TokenizerJson, Merges) {
  ExpectMalformed(File({"ab"}, R"("a b","ab zz")"), "t.json:/model/merges/1: merges \"zz\", which is not a token");
  ExpectMalformed(File({"ab"}, R"(["x","y"])"), "t.json:/model/merges/0: makes \"xy\", which is not a token");
  ExpectMalformed(File({"ab"}, R"("a b",["a","b"])"), "t.json:/model/merges/1: repeats merge 0");
  for (const char* merge : {R"("ab")", R"("a b c")", R"("a  b")", R"(" b")", R"("a ")", R"("")", R"(["a"])",
                            R"(["a","b","c"])", R"(["a",1])", R"(["","b"])", R"([])", "7", "null", R"(["a\n","b"])"})
    ExpectMalformed(File({"ab"}, std::string(R"("a b",)") + merge),
                    "t.json:/model/merges/1: is not a pair of tokens in the alphabet of bytes");
  // Two ways to one token, and merges that feed each other: legal.
  EXPECT_TRUE(StatusOf(File({"aa", "aaa"}, R"("a a","aa a","a aa")")).ok());
}

TEST(TokenizerJson, AddedTokens) {
  EXPECT_TRUE(StatusOf(File({}, "", Added("<s>", 256) + "," + Added("<t>", 300, false))).ok());
  ExpectMalformed(File({}, "", Added("<s>", 97)), "t.json:/model/vocab/a: is 97, which is the id of \"<s>\" too");
  ExpectMalformed(File({}, "", Added("<s>", 256) + "," + Added("<t>", 256)),
                  "t.json:/added_tokens/1/id: is 256, which is the id of \"<s>\" too");
  ExpectMalformed(File({}, "", Added("<s>", 256) + "," + Added("<s>", 257)),
                  "t.json:/added_tokens/1/content: repeats /added_tokens/0/content");
  ExpectMalformed(File({}, "", Added("", 256)), "t.json:/added_tokens/0/content: is empty");
  ExpectMalformed(File({}, "", Added("<s>", int64_t{1} << 31)),
                  "t.json:/added_tokens/0/id: is 2147483648, want 0 to 4194303");
  ExpectMalformed(File({}, "", "7"), "t.json:/added_tokens/0: is an integer, want an object");
  ExpectMalformed(File({}, "", "{}"), "t.json:/added_tokens/0/content: is missing, want a string");
  // Also in the vocabulary: one token, and it must have one id.
  const Tokenizer both = ValueOrDie(ParseTokenizerJson(File({"<s>"}, "", Added("<s>", 256)), "t"));
  EXPECT_EQ(both.Encode("<s>"), (std::vector<int32_t>{256}));
  EXPECT_TRUE(both.IsSpecial(256));
  ExpectMalformed(File({"<s>"}, "", Added("<s>", 300)),
                  "t.json:/added_tokens/0/id: is 300, but t.json:/model/vocab/<s> has another");
  // Its bytes are those of the vocabulary's "Ã©Ã¨".
  ExpectMalformed(File({"Ã©Ã¨"}, "", Added("éè", 300)), "t.json:/model/vocab: ids 256 and 300 are both \"éè\"");
}

TEST(TokenizerJson, TypedTextCannotMakeASpecialToken) {
  ExpectUnsupported(File({"<s", "<s>"}, R"("< s","<s >")", Added("<s>", 257)),
                    "t.json:/model/merges/1: makes \"<s>\", which is special");
  ExpectUnsupported(File({}, "", Added("a", 97)), "t.json:/model/vocab: the token of the single byte 0x61 is special");
  EXPECT_TRUE(StatusOf(File({"<s", "<s>"}, R"("< s","<s >")", Added("<s>", 257, false))).ok());
}

TEST(TokenizerJson, HugeStrings) {
  const std::string huge(2'000'000, 'x');
  EXPECT_TRUE(StatusOf(File({huge}, "", Added("<" + huge, 257))).ok());
  const Tokenizer tokenizer = ValueOrDie(ParseTokenizerJson(File({huge}, "", Added("<" + huge, 257)), "t"));
  EXPECT_EQ(tokenizer.Encode("<" + huge), (std::vector<int32_t>{257}));
  EXPECT_EQ(tokenizer.Encode("<" + huge.substr(1)).size(), huge.size());
}

TEST(TokenizerJson, EveryTruncationIsRefused) {
  const std::string json = Data("toy/tokenizer.json");
  ASSERT_TRUE(StatusOf(json).ok());
  const size_t last = json.rfind('}');
  for (size_t size = 0; size <= last; size += size < last - 300 ? 7 : 1)
    EXPECT_EQ(StatusOf(json.substr(0, size)).code(), StatusCode::kDataLoss) << size;
}

/// Where the fuzzer starts. QWEN_UPDATE=1 writes it anew.
TEST(TokenizerJson, FuzzerSeedIsCurrent) {
  const std::string json =
      File({"ab", "abc"}, R"(["a","b"],"ab c")", Added("<s>", 258) + "," + Added("<t>", 260, false));
  ASSERT_TRUE(StatusOf(json).ok());
  const std::string path = QWEN_SOURCE_DIR "/test/fuzz/corpus/fuzz_tokenizer_json/small.json";
  if (getenv("QWEN_UPDATE")) {
    ASSERT_TRUE(WriteFileAtomic(path, json, true).ok());
  }
  EXPECT_EQ(ValueOrDie(ReadFile(path, 1 << 20)), json) << "QWEN_UPDATE=1 writes it anew";
}

TEST(TokenizerJson, FilesThatCannotBeRead) {
  EXPECT_EQ(ReadTokenizerJson("/nonexistent/tokenizer.json").status().ExitCode(), 5);
}

}  // namespace
}  // namespace qwen::text
