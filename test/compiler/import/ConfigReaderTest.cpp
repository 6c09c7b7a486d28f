#include "compiler/import/ConfigReader.h"
#include "ImportTesting.h"

namespace qwen::compiler {
namespace {

struct Opened {
  explicit Opened(const std::string &text)
      : json(*ParseJson(text, "dir/config.json")), reader("dir/config.json", json) {}
  Json json;
  ConfigReader reader;
};

TEST(ConfigReader, ReadsTheTextConfigAndFallsBackToTheOuterObject) {
  Opened nested(R"({"a": 1, "b": 2, "text_config": {"a": 10, "c": null}})");
  EXPECT_TRUE(nested.reader.nested());
  EXPECT_EQ(nested.reader.integer(nested.reader["a"], 0, 100), 10);
  EXPECT_FALSE(nested.reader["b"]);
  EXPECT_EQ(nested.reader.integer(nested.reader.inherited("b"), 0, 100), 2);
  EXPECT_EQ(nested.reader.inherited("a").pointer, "/text_config/a");
  EXPECT_EQ(nested.reader.inherited("nowhere").pointer, "/text_config/nowhere");
  EXPECT_FALSE(nested.reader["c"]);
  EXPECT_TRUE(nested.reader.ok());
}

TEST(ConfigReader, AWrongTypeIsADamagedFile) {
  struct Case {
    const char *json, *message;
    void (*read)(ConfigReader &);
  } cases[] = {
      {R"({"n": "8"})", "dir/config.json:/n: is a string, not an integer",
       [](ConfigReader &r) { r.integer(r["n"], 0, 9); }},
      {R"({"n": 8.0})", "dir/config.json:/n: is a number with a fraction or an exponent, not an integer",
       [](ConfigReader &r) { r.integer(r["n"], 0, 9); }},
      {R"({"n": 1})", "dir/config.json:/n: is an integer, not a boolean", [](ConfigReader &r) { r.boolean(r["n"]); }},
      {R"({"n": true})", "dir/config.json:/n: is a boolean, not a number",
       [](ConfigReader &r) { r.number(r["n"], 0, 9); }},
      {R"({"n": [1]})", "dir/config.json:/n: is an array, not a string", [](ConfigReader &r) { r.string(r["n"]); }},
      {R"({"n": {}})", "dir/config.json:/n: is an object, not an array", [](ConfigReader &r) { r.items(r["n"]); }},
      {R"({"n": 3})", "dir/config.json:/n: is an integer, not an object",
       [](ConfigReader &r) { r.member(r["n"], "x"); }},
      {R"({})", "dir/config.json:/n: is missing", [](ConfigReader &r) { r.integer(r["n"], 0, 9); }},
      {R"([1])", "dir/config.json:/: is an array, not an object", [](ConfigReader &) {}},
      {R"({"text_config": 3})", "dir/config.json:/text_config: is an integer, not an object", [](ConfigReader &) {}},
  };
  for (const Case &c : cases) {
    Opened opened(c.json);
    c.read(opened.reader);
    EXPECT_EQ(opened.reader.status().message(), c.message);
    EXPECT_EQ(opened.reader.status().ExitCode(), 3) << c.message;
  }
}

TEST(ConfigReader, AValueOutOfRangeIsUnsupported) {
  Opened opened(R"({"text_config": {"n": -1}})");
  EXPECT_EQ(opened.reader.integer(opened.reader["n"], 1, 64), 1); // usable, so that reading can go on
  EXPECT_EQ(opened.reader.status().message(), "dir/config.json:/text_config/n: -1 is not in [1, 64]");
  EXPECT_EQ(opened.reader.status().ExitCode(), 4);

  Opened real(R"({"x": 1e30})");
  real.reader.number(real.reader["x"], 1e-12, 1);
  EXPECT_EQ(real.reader.status().message(), "dir/config.json:/x: 1e+30 is not in [1e-12, 1]");
}

TEST(ConfigReader, TheFirstComplaintStays) {
  Opened opened(R"({"a": "x", "b": -1})");
  opened.reader.integer(opened.reader["a"], 0, 1);
  opened.reader.integer(opened.reader["b"], 0, 1);
  EXPECT_EQ(opened.reader.status().message(), "dir/config.json:/a: is a string, not an integer");
}

} // namespace
} // namespace qwen::compiler
