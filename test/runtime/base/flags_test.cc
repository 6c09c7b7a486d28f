// The flag machinery on a table of its own: values, ranges, environment, mistakes, help.
#include "runtime/base/flags.h"

#include <gtest/gtest.h>

#include "runtime/base/log.h"

namespace qwen {
namespace {

constexpr CommandRow kCommands[] = {{"run", "PLAN", "continues a prompt given as token ids"},
                                    {"diff", "A B",
                                     "compares two plans and says what differs in them, field by field, "
                                     "in as many words as it takes to need a second line"}};
constexpr FlagRow kRows[] = {
    {"run", "weights", FlagType::kText, "(beside the plan)", "DIR", "", "Model", "folder of the checkpoint"},
    {"run", "max-tokens", FlagType::kInt, "16", "N", "1..4096", "Sampling", "tokens to generate"},
    {"run", "temperature", FlagType::kReal, "0", "T", "0..", "Sampling",
     "divides the logits; 0 always takes the likeliest token, and this sentence goes on long enough to be wrapped"},
    {"run", "memory", FlagType::kSize, "", "SIZE", "1Ki..", "Limits", "memory for caches"},
    {"run", "isa", FlagType::kChoice, "", "base|avx2|avx512", "", "Limits", "instructions to use"},
    {"run diff", "json", FlagType::kBool, "", "", "", "Output", "prints one JSON object"},
    {"run", "color", FlagType::kBool, "on", "", "", "Output", "colours"},
    {"run", "output,o", FlagType::kText, "", "FILE", "", "Output", "where the result goes"},
    {"run", "stop", FlagType::kTexts, "", "TEXT", "", "Sampling", "ends the text, may be given several times"},
};
constexpr ExampleRow kExamples[] = {{"run", "tool run model.plan --max-tokens 4"}, {"diff", "tool diff a.plan b.plan"}};
constexpr FlagTable kTable{"tool", "a tool for tests", kCommands, kRows, kExamples};

StatusOr<Flags> Parse(std::vector<std::string> args, std::vector<std::string> environment = {}) {
  std::string command = args[0];
  args.erase(args.begin());
  return ParseFlags(kTable, command, args, environment);
}

std::string Refusal(std::vector<std::string> args, std::vector<std::string> environment = {}) {
  StatusOr<Flags> flags = Parse(std::move(args), std::move(environment));
  if (flags.ok()) return "accepted";
  EXPECT_EQ(flags.status().ExitCode(), 2);
  return flags.status().message();
}

TEST(Flags, TableIsSound) {
  Status status = CheckFlagTable(kTable);
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(Flags, TableMistakesAreFound) {
  auto check = [](FlagRow row) {
    FlagRow rows[] = {row};
    return CheckFlagTable({"tool", "", kCommands, rows, kExamples}).message();
  };
  FlagRow good = kRows[1];
  EXPECT_EQ(check(good), "");
  FlagRow row = good;
  row.fallback = "5000";
  EXPECT_EQ(check(row), "max-tokens: 5000 is outside 1..4096");
  row = good, row.range = "1-4";
  EXPECT_EQ(check(row), "flag table: max-tokens: range");
  row = good, row.commands = "walk";
  EXPECT_EQ(check(row), "flag table: max-tokens: no command walk");
  row = good, row.name = "no-tokens";
  EXPECT_EQ(check(row), "flag table: no-tokens: name used twice or reserved");
}

TEST(Flags, Defaults) {
  StatusOr<Flags> flags = Parse({"run", "m.plan"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->command(), "run");
  EXPECT_EQ(flags->Argument(0), "m.plan");
  EXPECT_EQ(flags->Int("max-tokens"), 16);
  EXPECT_EQ(flags->Real("temperature"), 0);
  EXPECT_FALSE(flags->Bool("json"));
  EXPECT_TRUE(flags->Bool("color"));
  EXPECT_FALSE(flags->HasValue("weights"));
  EXPECT_EQ(flags->Text("weights"), "");
  EXPECT_FALSE(flags->Given("max-tokens"));
  EXPECT_FALSE(flags->HasValue("memory"));
  EXPECT_TRUE(flags->Texts("stop").empty());
}

TEST(Flags, EveryWayToGiveAValue) {
  StatusOr<Flags> flags =
      Parse({"run", "--max-tokens=7", "--temperature", "1e-1", "--json", "--no-color", "-o", "out", "--memory=1.5Ki",
             "--isa", "avx2", "--stop", "a", "--stop=b c", "--weights", "-", "--", "--odd-name.plan"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->Argument(0), "--odd-name.plan");
  EXPECT_EQ(flags->Int("max-tokens"), 7);
  EXPECT_DOUBLE_EQ(flags->Real("temperature"), 0.1);
  EXPECT_TRUE(flags->Bool("json"));
  EXPECT_FALSE(flags->Bool("color"));
  EXPECT_EQ(flags->Text("output"), "out");
  EXPECT_EQ(flags->Size("memory"), 1536);
  EXPECT_EQ(flags->Choice("isa"), "avx2");
  EXPECT_EQ(flags->Texts("stop"), (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(flags->Text("weights"), "-");
}

TEST(Flags, BooleansAndRepeats) {
  auto json = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"run", "p"});
    StatusOr<Flags> flags = Parse(words);
    EXPECT_TRUE(flags.ok()) << flags.status().message();
    return flags.ok() && flags->Bool("json");
  };
  EXPECT_TRUE(json({"--json=on"}));
  EXPECT_FALSE(json({"--json=0"}));
  EXPECT_FALSE(json({"--no-json=true"}));
  EXPECT_FALSE(json({"--json", "--no-json"}));
  EXPECT_TRUE(json({"--no-json", "--json"}));
  EXPECT_EQ(Refusal({"run", "p", "--json=maybe"}), "--json: 'maybe' is neither on nor off");
  // The last one counts.
  EXPECT_EQ(Parse({"run", "p", "--max-tokens", "1", "--max-tokens=2"})->Int("max-tokens"), 2);
}

TEST(Flags, Environment) {
  std::vector<std::string> environment = {
      "TOOL_MAX_TOKENS=9", "TOOL_JSON=enabled", "TOOL_ISA=", "TOOL_STOP=x", "TOOL_MAX_TOKEN=3", "HOME=/"};
  StatusOr<Flags> flags = Parse({"run", "p"}, environment);
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->Int("max-tokens"), 9);
  EXPECT_TRUE(flags->Given("max-tokens"));
  EXPECT_TRUE(flags->Bool("json"));
  EXPECT_EQ(flags->Choice("isa"), "");
  EXPECT_EQ(flags->warnings(),
            std::vector<std::string>{
                "the environment has TOOL_MAX_TOKEN (did you mean TOOL_MAX_TOKENS?), which no flag reads"});
  flags = Parse({"run", "p", "--max-tokens=2", "--no-json", "--stop=y"}, environment);
  EXPECT_EQ(flags->Int("max-tokens"), 2);
  EXPECT_FALSE(flags->Bool("json"));
  EXPECT_EQ(flags->Texts("stop"), std::vector<std::string>{"y"});
  EXPECT_EQ(Refusal({"run", "p"}, {"TOOL_MAX_TOKENS=many"}), "TOOL_MAX_TOKENS: 'many' is not an integer");
}

TEST(Flags, Mistakes) {
  EXPECT_EQ(Refusal({"runn", "p"}), "runn: unknown command, did you mean run?");
  EXPECT_EQ(Refusal({"serve", "p"}), "serve: unknown command, see tool --help");
  EXPECT_EQ(Refusal({"run"}), "PLAN is missing");
  EXPECT_EQ(Refusal({"run", ""}), "PLAN is empty");
  EXPECT_EQ(Refusal({"diff", "a"}), "B is missing");
  EXPECT_EQ(Refusal({"run", "a", "b"}), "'b' is one argument too many");
  EXPECT_EQ(Refusal({"run", "p", "--max-token=3"}), "--max-token: unknown flag, did you mean --max-tokens?");
  EXPECT_EQ(Refusal({"run", "p", "--no-colour"}), "--no-colour: unknown flag, did you mean --no-color?");
  EXPECT_EQ(Refusal({"diff", "a", "b", "--isa", "avx2"}), "--isa: unknown flag here, it belongs to run");
  EXPECT_EQ(Refusal({"run", "p", "--gpu-layers", "3"}), "--gpu-layers: unknown flag, see tool run --help");
  EXPECT_EQ(Refusal({"run", "p", "-x"}), "-x: unknown flag, see tool run --help");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens"}), "--max-tokens: the value is missing");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens="}), "--max-tokens: the value is missing");
  EXPECT_EQ(Refusal({"run", "p", "--weights", "--json"}), "--weights: the value is missing in front of --json");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens", "0"}), "--max-tokens: 0 is outside 1..4096");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens", "-3"}), "--max-tokens: -3 is outside 1..4096");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens", "3x"}), "--max-tokens: '3x' is not an integer");
  EXPECT_EQ(Refusal({"run", "p", "--max-tokens", "99999999999999999999"}),
            "--max-tokens: 99999999999999999999 does not fit 64 bits");
  EXPECT_EQ(Refusal({"run", "p", "--temperature", "-0.5"}), "--temperature: -0.5 is below 0");
  EXPECT_EQ(Refusal({"run", "p", "--temperature", "nan"}), "--temperature: 'nan' is not a number");
  EXPECT_EQ(Refusal({"run", "p", "--memory", "12Q"}), "--memory: '12Q' is not a size");
  EXPECT_EQ(Refusal({"run", "p", "--isa", "avx"}), "--isa: 'avx' is none of base|avx2|avx512");
  EXPECT_EQ(Parse({"run", "p", "--isa", "avx"}).status().hint(), "did you mean avx2?");
}

TEST(Flags, Help) {
  for (std::string_view command : {"", "run", "diff"}) {
    std::string text = HelpText(kTable, command);
    for (size_t at = 0; at < text.size();) {
      size_t end = text.find('\n', at);
      EXPECT_LE(end - at, 100u) << text.substr(at, end - at);
      at = end + 1;
    }
  }
  std::string text = HelpText(kTable, "run");
  for (const char* part : {"usage: tool run PLAN [options]", "Sampling:", "--max-tokens N", "default 16",
                           "range 1..4096", "TOOL_MAX_TOKENS", "-o, --output FILE", "--[no-]json", "default off",
                           "default beside the plan", "examples:\n  tool run model.plan --max-tokens 4"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in\n" << text;
  EXPECT_EQ(HelpText(kTable, "diff").find("--isa"), std::string::npos);
}

TEST(Flags, Sizes) {
  EXPECT_EQ(*ParseSize("0"), 0);
  EXPECT_EQ(*ParseSize("9007199254740993"), 9007199254740993);  // 2^53 + 1 is no double
  EXPECT_EQ(*ParseSize("4K"), 4000);
  EXPECT_EQ(*ParseSize("4Ki"), 4096);
  EXPECT_EQ(*ParseSize("24GiB"), int64_t{24} << 30);
  EXPECT_EQ(*ParseSize("2GB"), 2'000'000'000);
  EXPECT_EQ(*ParseSize("0.5M"), 500'000);
  for (const char* bad : {"", "K", "-1", "1 K", "1e", "9999999999G", "nan", "0x10"})
    EXPECT_FALSE(ParseSize(bad).ok()) << bad;
}

TEST(Flags, Lists) {
  EXPECT_EQ(*ParseIntegers("1,-2,3"), (std::vector<int64_t>{1, -2, 3}));
  for (const char* bad : {"", ",", "1,", "1 2", "1,,2", "a"}) EXPECT_FALSE(ParseIntegers(bad).ok()) << bad;
  EXPECT_EQ(*ParseWords("cpu,sm_89"), (std::vector<std::string>{"cpu", "sm_89"}));
  EXPECT_FALSE(ParseWords("cpu,").ok());
}

TEST(Log, ControlCharactersAreEscaped) {
  EXPECT_EQ(EscapeControl("a\x1b[31mb\r\n\t\x7f"), "a\\x1b[31mb\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(EscapeControl("gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80"),
            "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80");
  EXPECT_EQ(EscapeControl("\xc2\x9b"
                          "31m"),
            "\\xc2\\x9b31m");  // CSI as one character
  EXPECT_EQ(EscapeControl("\xff\xc0\x80\xed\xa0\x80\xc3"), "\\xff\\xc0\\x80\\xed\\xa0\\x80\\xc3");
}

TEST(Log, ErrorLines) {
  EXPECT_EQ(ErrorText("tool", "run", InvalidArgumentError("a.plan: 3 is not 4\nand\x1b", "try 4")),
            "tool: error: run: a.plan: 3 is not 4\n  and\\x1b\nhint: try 4\n");
  EXPECT_EQ(ErrorText("tool", "", FailedError("no")), "tool: error: no\n");
}

TEST(RunTool, ExitCodes) {
  auto run = [](std::vector<std::string> words, Status status = {}) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    return RunTool(kTable, "tool 1\n", static_cast<int>(argv.size()), argv.data(),
                   [&](const Flags&) { return status; });
  };
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_EQ(run({"tool"}), 2);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr().substr(0, 12), "usage: tool ");

  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"tool", "--version"}), 0);
  EXPECT_EQ(run({"tool", "run", "--version"}), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "tool 1\ntool 1\n");

  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"tool", "run", "--bad", "--help"}), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), HelpText(kTable, "run"));

  testing::internal::CaptureStderr();
  EXPECT_EQ(run({"tool", "run", "p"}), 0);
  EXPECT_EQ(run({"tool", "--json"}), 2);
  EXPECT_EQ(run({"tool", "rum", "p"}), 2);
  EXPECT_EQ(run({"tool", "run", "p"}, DataLossError("x")), 3);
  EXPECT_EQ(run({"tool", "run", "p"}, CancelledError("x")), 130);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "tool: error: --json: expected a command first\nhint: see tool --help\n"
            "tool: error: rum: unknown command, did you mean run?\n"
            "tool: error: run: x\ntool: error: run: x\n");
}

}  // namespace
}  // namespace qwen
