// What `qwenrt run` and `qwenrt logits` are given, and the flag tables of both programs.
#include "tools/qwenrt/args.h"

#include <gtest/gtest.h>

#include "runtime/base/flags.h"

namespace qwen::qwenrt {
namespace {

TEST(Args, Prompt) {
  EXPECT_EQ(*ParsePrompt("1,2,3"), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(*ParsePrompt("0"), std::vector<int32_t>{0});
  EXPECT_EQ(ParsePrompt("").status().message(), "'' is not an integer");
  EXPECT_EQ(ParsePrompt("1,,2").status().message(), "'' is not an integer");
  EXPECT_EQ(ParsePrompt("1, 2").status().message(), "' 2' is not an integer");
  EXPECT_EQ(ParsePrompt("1,-2").status().message(), "-2 is no token id, they run from 0 to 2147483647");
  EXPECT_EQ(ParsePrompt("2147483648").status().ExitCode(), 2);
}

TEST(Args, Cases) {
  EXPECT_EQ(*ParseCases("[[1], [2, 3],\n[]]", "c.json"), (std::vector<std::vector<int32_t>>{{1}, {2, 3}, {}}));
  EXPECT_TRUE(ParseCases("[]", "c.json")->empty());
  auto refusal = [](std::string_view text, int exit_code) {
    StatusOr<std::vector<std::vector<int32_t>>> cases = ParseCases(text, "c.json");
    EXPECT_FALSE(cases.ok()) << text;
    EXPECT_EQ(cases.status().ExitCode(), exit_code) << text;
    return cases.status().message();
  };
  EXPECT_EQ(refusal("{}", 3), "c.json: expected an array of arrays of ids, got an object");
  EXPECT_EQ(refusal("[1]", 3), "c.json:/0: expected an array of ids, got an integer");
  EXPECT_EQ(refusal("[[], [1, 2.5]]", 3),
            "c.json:/1/1: expected an integer, got a number with a fraction or an exponent");
  EXPECT_EQ(refusal("[[], [1, -2]]", 2), "c.json:/1/1: -2 is no token id, they run from 0 to 2147483647");
  refusal("[[1]", 3);
  refusal("", 3);
}

TEST(Args, Weights) {
  EXPECT_EQ(ParseWeights("w", "a/m.plan", "../c")->dir, "w");
  EXPECT_EQ(ParseWeights("", "a/m.plan", "../c")->dir, "c");
  EXPECT_EQ(ParseWeights("", "m.plan", "")->dir, ".");
  EXPECT_EQ(ParseWeights("", "/x/m.plan", "/y/z")->dir, "/y/z");
  EXPECT_EQ(ParseWeights("random:7", "m.plan", "c")->seed, 7u);
  EXPECT_FALSE(ParseWeights("w", "m.plan", "c")->seed.has_value());
  EXPECT_EQ(ParseWeights("random:", "m.plan", "c").status().message(), "--weights: 'random:' is not random:SEED");
  EXPECT_EQ(ParseWeights("random:-1", "m.plan", "c").status().ExitCode(), 2);
}

struct Rows {
  std::vector<CommandRow> commands;
  std::vector<FlagRow> flags;
  std::vector<ExampleRow> examples;
};
#define COMMAND(...) rows.commands.push_back({__VA_ARGS__});
#define FLAG(commands, name, type, ...) rows.flags.push_back({commands, name, FlagType::type, __VA_ARGS__});
#define EXAMPLE(...) rows.examples.push_back({__VA_ARGS__});
Rows RuntimeRows() {
  Rows rows;
#include "tools/qwenrt/flags.def"
  return rows;
}
Rows CompilerRows() {
  Rows rows;
#include "tools/qwenc/flags.def"
  return rows;
}
#undef COMMAND
#undef FLAG
#undef EXAMPLE

TEST(FlagTables, AreSoundAndFitTheScreen) {
  for (auto [program, rows] : {std::pair("qwenrt", RuntimeRows()), std::pair("qwenc", CompilerRows())}) {
    FlagTable table{program, "", rows.commands, rows.flags, rows.examples};
    Status status = CheckFlagTable(table);
    EXPECT_TRUE(status.ok()) << program << ": " << status.message();
    std::vector<std::string_view> pages = {""};
    for (const CommandRow& row : rows.commands) pages.push_back(row.name);
    for (std::string_view page : pages) {
      std::string text = HelpText(table, page);
      for (size_t at = 0; at < text.size();) {
        size_t end = text.find('\n', at);
        EXPECT_LE(end - at, 100u) << program << ": " << text.substr(at, end - at);
        at = end + 1;
      }
    }
  }
}

}  // namespace
}  // namespace qwen::qwenrt
