#include "runtime/base/json.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qwen {
namespace {

Json Parse(std::string_view text) {
  StatusOr<Json> json = ParseJson(text, "f.json");
  EXPECT_TRUE(json.ok()) << json.status().message();
  return json.ok() ? *std::move(json) : Json();
}

/// The message of a refusal.
std::string Refused(std::string_view text, const JsonLimits& limits = {}) {
  StatusOr<Json> json = ParseJson(text, "f.json", limits);
  EXPECT_FALSE(json.ok()) << text;
  if (json.ok()) return "";
  EXPECT_EQ(json.status().code(), StatusCode::kDataLoss);
  return json.status().message();
}

TEST(Json, KeepsKindsValuesAndOrder) {
  Json json = Parse(R"({"z": null, "b": true, "i": -7, "d": 2.5, "e": 1e3, "s": "\u00e4\n", "a": [1, []], "o": {}})");
  ASSERT_TRUE(json.IsObject());
  EXPECT_EQ(json.members()[0].first, "z");
  EXPECT_EQ(json.members()[7].first, "o");
  EXPECT_TRUE(json.Find("z")->IsNull());
  EXPECT_TRUE(json.Find("b")->AsBool());
  EXPECT_EQ(json.Find("i")->AsInteger(), -7);
  EXPECT_EQ(json.Find("d")->AsNumber(), 2.5);
  EXPECT_EQ(json.Find("s")->AsString(), "ä\n");
  EXPECT_EQ(json.Find("a")->items().size(), 2u);
  EXPECT_EQ(json.Find("nothing"), nullptr);
  EXPECT_EQ(json.Find("a")->Find("x"), nullptr);
}

TEST(Json, AnIntegerIsALiteralThatInt64Holds) {
  Json json = Parse("[9223372036854775807, -9223372036854775808, 9223372036854775808, 1.0, 1e2, -0]");
  EXPECT_EQ(json.items()[0].AsInteger(), INT64_MAX);
  EXPECT_EQ(json.items()[1].AsInteger(), INT64_MIN);
  EXPECT_FALSE(json.items()[2].IsInteger());
  EXPECT_EQ(json.items()[2].AsNumber(), 9223372036854775808.0);
  EXPECT_FALSE(json.items()[3].IsInteger());
  EXPECT_FALSE(json.items()[4].IsInteger());
  EXPECT_TRUE(json.items()[5].IsInteger());
}

TEST(Json, RefusesWhatIsNotJson) {
  EXPECT_EQ(Refused(""),
            "f.json: byte 1: syntax error while parsing value - unexpected end of input; expected '[', '{', "
            "or a literal");
  EXPECT_EQ(Refused("{\"a\": 1,}"),
            "f.json: byte 9: syntax error while parsing object key - unexpected '}'; expected "
            "string literal");
  EXPECT_NE(Refused("[1, 2").find("byte 6: "), std::string::npos);
  EXPECT_NE(Refused("{} {}").find("byte 4: "), std::string::npos);
  for (const char* text :
       {"nul", "NaN", "[01]", "[1.]", "[+1]", "[.5]", "// c\n1", "'a'", "[1 2]", "\"\\x\"", "\"\t\"", "{1: 2}", "[,]"})
    Refused(text);
}

TEST(Json, RefusesTextThatIsNotUtf8) {
  EXPECT_NE(Refused("{\"a\": \"\xff\"}").find("byte 8: syntax error while parsing value - invalid string: ill-formed"),
            std::string::npos);
  Refused("\"\xc0\x80\"");          // overlong
  Refused("\"\xed\xa0\x80\"");      // a surrogate
  Refused("\"\xf4\x90\x80\x80\"");  // beyond U+10FFFF
  Refused("\"\\ud800\"");           // half a pair
  EXPECT_EQ(Parse("\"\\ud83d\\ude00\"").AsString(), "😀");
}

TEST(Json, RefusesANumberThatNoDoubleHolds) {
  EXPECT_NE(Refused("[1e999]").find("number overflow"), std::string::npos);
}

TEST(Json, RefusesAKeyGivenTwice) {
  EXPECT_EQ(Refused(R"({"a": {"b": 1, "c": [{"d/e": 1, "x": 2, "d/e": 3}]}})"),
            "f.json:/a/c/0/d~1e: stands twice in its object");
}

TEST(Json, TheLastOfEqualKeysWinsWhereAsked) {
  const JsonLimits limits = {.last_key_wins = true};
  StatusOr<Json> json =
      ParseJson(R"({"a": 1, "b": 2, "a": {"c": 3, "c": 4}, "b": 5, "d": 6, "a": 7})", "f.json", limits);
  ASSERT_TRUE(json.ok()) << json.status().message();
  ASSERT_EQ(json->members().size(), 3u);
  EXPECT_EQ(json->members()[0].first, "a");
  EXPECT_EQ(json->members()[1].first, "b");
  EXPECT_EQ(json->members()[2].first, "d");
  EXPECT_EQ(json->Find("a")->AsInteger(), 7);
  EXPECT_EQ(json->Find("b")->AsInteger(), 5);
  EXPECT_EQ(json->Find("d")->AsInteger(), 6);
}

TEST(Json, TellsALimitFromABrokenText) {
  JsonFault fault = JsonFault::kText;
  EXPECT_FALSE(ParseJson(std::string(65, '['), "f.json", {}, &fault).ok());
  EXPECT_EQ(fault, JsonFault::kLimit);
  EXPECT_FALSE(ParseJson("[1, 2", "f.json", {}, &fault).ok());
  EXPECT_EQ(fault, JsonFault::kText);
  EXPECT_FALSE(ParseJson("[1, 2, 3, 4]", "f.json", {.max_values = 4}, &fault).ok());
  EXPECT_EQ(fault, JsonFault::kLimit);
}

TEST(Json, LimitsDepthSizeAndCount) {
  JsonLimits limits;
  EXPECT_TRUE(ParseJson(std::string(64, '[') + std::string(64, ']'), "f.json", limits).ok());
  EXPECT_NE(Refused(std::string(65, '[') + std::string(65, ']')).find("nests deeper than 64 levels"),
            std::string::npos);
  Refused(std::string(1000000, '['));  // an open bracket a byte must not cost a stack frame a byte
  limits.max_bytes = 10;
  EXPECT_EQ(Refused("[1, 2, 3, 4]", limits), "f.json: is 12 bytes of JSON, the limit is 10");
  limits = {};
  limits.max_values = 4;
  EXPECT_TRUE(ParseJson("[1, 2, 3]", "f.json", limits).ok());
  EXPECT_EQ(Refused("[1, 2, 3, 4]", limits), "f.json:/3: is beyond the limit of 4 values");
}

TEST(Json, MessagesHoldNoControlCharacters) {
  for (const std::string& text :
       {std::string("{\"a\x1b[31m"), std::string("\x1b[2J"), std::string("{\"\\u001b\":1,\"\\u001b\":1}")})
    for (char c : Refused(text)) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
}

TEST(Json, QuotesWhatItReads) {
  EXPECT_EQ(JsonQuote("a\"b\\c\n\x01ä\x7f"), "\"a\\\"b\\\\c\\n\\u0001ä\\u007f\"");
  EXPECT_EQ(JsonQuote("x\xff"), "\"x\xEF\xBF\xBD\"");
  EXPECT_EQ(JsonQuote("\xc2\x9b"), "\"\\u009b\"");  // a terminal's CSI
  EXPECT_EQ(Parse(JsonQuote("a\"b\\c\n\x01ä")).AsString(), "a\"b\\c\n\x01ä");
  EXPECT_EQ(JsonPointer("/a", "b/c~d"), "/a/b~1c~0d");
}

TEST(Json, FindsKeysInLargeObjects) {
  std::string text = "{";
  for (int i = 0; i < 5000; ++i) text += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":" + std::to_string(i);
  Json json = Parse(text + "}");
  for (int i = 0; i < 5000; i += 97) EXPECT_EQ(json.Find("k" + std::to_string(i))->AsInteger(), i);
}

TEST(Json, AClonesTreeIsItsOwn) {
  auto json = ParseJson(R"({"b": [null, true, -7, 0.5, "x"], "a": {"deep": [[]]}})", "x");
  ASSERT_TRUE(json.ok());
  const Json copy = json->Clone();
  *json = Json();
  ASSERT_TRUE(copy.IsObject());
  EXPECT_EQ(copy.members()[0].first, "b");  // in the order of the file
  const std::vector<Json>& items = copy.Find("b")->items();
  ASSERT_EQ(items.size(), 5u);
  EXPECT_TRUE(items[0].IsNull());
  EXPECT_TRUE(items[1].AsBool());
  EXPECT_EQ(items[2].AsInteger(), -7);
  EXPECT_FALSE(items[3].IsInteger());
  EXPECT_EQ(items[3].AsNumber(), 0.5);
  EXPECT_EQ(items[4].AsString(), "x");
  EXPECT_TRUE(copy.Find("a")->Find("deep")->items()[0].IsArray());
}

}  // namespace
}  // namespace qwen
