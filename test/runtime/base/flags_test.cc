// The flag machinery on a table of its own: values, ranges, environment, mistakes, help.
#include "runtime/base/flags.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/base/signals.h"
#include "runtime/base/version.h"
#include "test/sanitizers.h"

namespace qwen {
namespace {

constexpr CommandRow kCommands[] = {{"run", "PLAN", "continues a prompt given as token ids"},
                                    {"diff", "A B",
                                     "compares two plans and says what differs in them, field by field, "
                                     "in as many words as it takes to need a second line"}};
constexpr FlagRow kRows[] = {
    {"run", "weights", FlagType::kText, "(beside the plan)", "DIR", "", "Model", "folder of the checkpoint"},
    {"run", "max-tokens,-n,--n-predict,-np", FlagType::kInt, "16", "N", "1..4096", "Sampling", "tokens to generate"},
    {"run", "temperature", FlagType::kReal, "0", "T", "0..", "Sampling",
     "divides the logits; 0 always takes the likeliest token, and this sentence goes on long enough to be wrapped"},
    {"run", "memory", FlagType::kSize, "", "SIZE", "1Ki..", "Limits", "memory for caches"},
    {"run", "isa", FlagType::kChoice, "", "base|avx2|avx512", "", "Limits", "instructions to use"},
    {"run diff", "json", FlagType::kBool, "", "", "", "Output", "prints one JSON object"},
    {"run", "echo,--show,!--disable-echo", FlagType::kBool, "on", "", "", "Output", "the prompt too"},
    {"run", "output,o", FlagType::kText, "", "FILE", "", "Output", "where the result goes"},
    {"run", "stop", FlagType::kTexts, "", "TEXT", "", "Sampling", "ends the text, may be given several times"},
    {"run", "timeout", FlagType::kDuration, "30s", "TIME", "100ms..1h", "Limits", "time that a reply may take"},
    {"run", "key", FlagType::kSecret, "", "KEY", "", "Limits", "who may ask"},
    {"run", "length", FlagType::kInt, kPlanFallback, "N", "1..", "Limits", "tokens of a sequence"},
    {"run", "spoil", FlagType::kText, "", "NAME", "", kExpertGroup, "spoils a result"},
};
constexpr ExampleRow kExamples[] = {
    {"run", "tool run model.plan --max-tokens 4"}, {"run", "tool run model.plan --timeout 5m"},
    {"run", "tool run model.plan --json"},         {"diff", "tool diff a.plan b.plan"},
    {"diff", "tool diff a.plan b.plan --json"},    {"diff", "tool diff b.plan a.plan"}};
constexpr EnvironmentRow kEnvironment[] = {{"TOOL_DRIVER", "a library to use instead"}};
constexpr FlagTable kTable{"tool", "a tool for tests", kCommands, kRows, kExamples, kEnvironment};

StatusOr<Flags> Parse(std::vector<std::string> args, std::vector<std::string> environment = {}) {
  std::string command = args[0];
  args.erase(args.begin());
  return ParseFlags(kTable, command, args, {.environment = environment});
}

/// With `text` as the file that --config names.
StatusOr<Flags> ParseWithConfig(std::string text, std::vector<std::string> args,
                                std::vector<std::string> environment = {}) {
  args.insert(args.begin() + 1, {"--config", "c.json"});
  std::string command = args[0];
  args.erase(args.begin());
  auto read = [&](const std::string& path) -> StatusOr<std::string> {
    EXPECT_EQ(path, "c.json");
    return text;
  };
  return ParseFlags(kTable, command, args, {.environment = environment, .read_config = read});
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
  EXPECT_EQ(check(row), "");
  FlagRow twice[] = {good, good};
  EXPECT_EQ(CheckFlagTable({"tool", "", kCommands, twice, kExamples}).message(),
            "flag table: max-tokens: --max-tokens is used twice");
  // "--no-echo" is how --echo is turned off.
  FlagRow shadow[] = {kRows[6], kRows[6]};
  shadow[1].name = "no-echo";
  EXPECT_EQ(CheckFlagTable({"tool", "", kCommands, shadow, kExamples}).message(),
            "flag table: no-echo: --no-echo is used twice");
  for (const char* name : {"help", "config", "print-config", "color", "debug"}) {
    row.name = name;
    EXPECT_EQ(check(row), fmt::format("flag table: {}: the name is reserved", name));
  }
  row.name = "max-tokens,predict";
  EXPECT_EQ(check(row), "flag table: max-tokens: an alias needs its dashes");
  FlagRow rows[] = {good};
  EXPECT_EQ(CheckFlagTable({"tool", "", kCommands, rows, std::span(kExamples).first(5)}).message(),
            "flag table: diff: fewer than three examples");
}

TEST(Flags, Defaults) {
  StatusOr<Flags> flags = Parse({"run", "m.plan"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->command(), "run");
  EXPECT_EQ(flags->Argument(0), "m.plan");
  EXPECT_EQ(flags->Int("max-tokens"), 16);
  EXPECT_EQ(flags->Real("temperature"), 0);
  EXPECT_FALSE(flags->Bool("json"));
  EXPECT_TRUE(flags->Bool("echo"));
  EXPECT_EQ(flags->Duration("timeout"), std::chrono::seconds(30));
  EXPECT_EQ(flags->Choice("progress"), "auto");
  EXPECT_EQ(flags->Choice("color"), "auto");
  EXPECT_FALSE(flags->HasValue("weights"));
  EXPECT_EQ(flags->Text("weights"), "");
  EXPECT_FALSE(flags->Given("max-tokens"));
  EXPECT_FALSE(flags->HasValue("memory"));
  EXPECT_TRUE(flags->Texts("stop").empty());
}

TEST(Flags, EveryWayToGiveAValue) {
  StatusOr<Flags> flags = Parse({"run",
                                 "--max-tokens=7",
                                 "--temperature",
                                 "1e-1",
                                 "--json",
                                 "--no-echo",
                                 "-o",
                                 "out",
                                 "--memory=1.5Ki",
                                 "--isa",
                                 "avx2",
                                 "--stop",
                                 "a",
                                 "--stop=b c",
                                 "--weights",
                                 "-",
                                 "--timeout",
                                 "250ms",
                                 "--key=k",
                                 "--",
                                 "--odd-name.plan"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->Argument(0), "--odd-name.plan");
  EXPECT_EQ(flags->Int("max-tokens"), 7);
  EXPECT_DOUBLE_EQ(flags->Real("temperature"), 0.1);
  EXPECT_TRUE(flags->Bool("json"));
  EXPECT_FALSE(flags->Bool("echo"));
  EXPECT_EQ(flags->Duration("timeout"), std::chrono::milliseconds(250));
  EXPECT_EQ(flags->Text("key"), "k");
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
      "TOOL_MAX_TOKENS=9", "TOOL_JSON=enabled", "TOOL_ISA=", "TOOL_STOP=x", "TOOL_MAX_TOKEN=3", "HOME=/",
      "TOOL_DRIVER=/x",    "TOOL_COLOR=never"};
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
  EXPECT_EQ(Refusal({"run", "p", "--no-ecco"}), "--no-ecco: unknown flag, did you mean --no-echo?");
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
  EXPECT_EQ(Refusal({"run", "p", "--timeout", "5d"}), "--timeout: '5d' is not a duration");
  EXPECT_EQ(Refusal({"run", "p", "--timeout", "2h"}), "--timeout: 2h is outside 100ms..1h");
  EXPECT_EQ(Refusal({"run", "p", "--n-predict", "0"}), "--max-tokens: 0 is outside 1..4096");
  EXPECT_EQ(Refusal({"run", "p", "--n-predictt", "1"}), "--n-predictt: unknown flag, did you mean --n-predict?");
  EXPECT_EQ(Refusal({"run", "p", "-np"}), "--max-tokens: the value is missing");
  EXPECT_EQ(Refusal({"run", "p", "--color", "alway"}), "--color: 'alway' is none of auto|always|never");
  EXPECT_EQ(Refusal({"completion"}), "bash|zsh|fish is missing");
  EXPECT_EQ(Refusal({"completion", "csh"}), "'csh' is none of bash|zsh|fish");
  EXPECT_EQ(Refusal({"completio", "bash"}), "completio: unknown command, did you mean completion?");
  EXPECT_EQ(Refusal({"run", "p", "--isa", "avx"}), "--isa: 'avx' is none of base|avx2|avx512");
  EXPECT_EQ(Parse({"run", "p", "--isa", "avx"}).status().hint(), "did you mean avx2?");
}

TEST(Flags, AliasesAreTheFlag) {
  auto tokens = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"run", "p"});
    StatusOr<Flags> flags = Parse(words);
    EXPECT_TRUE(flags.ok()) << flags.status().message();
    return flags.ok() ? flags->Int("max-tokens") : -1;
  };
  EXPECT_EQ(tokens({"-n", "3"}), 3);
  EXPECT_EQ(tokens({"--n-predict", "4"}), 4);
  EXPECT_EQ(tokens({"--n-predict=5"}), 5);
  EXPECT_EQ(tokens({"-np", "6"}), 6);
  EXPECT_EQ(tokens({"-np=7"}), 7);
  EXPECT_EQ(tokens({"-np", "6", "--max-tokens", "8"}), 8);
  // In a value's place, and behind --, words are what they are.
  EXPECT_EQ(Parse({"run", "p", "--stop", "-np"})->Texts("stop"), std::vector<std::string>{"-np"});
  EXPECT_EQ(Parse({"run", "--", "-np"})->Argument(0), "-np");
  auto echo = [](const char* word) { return Parse({"run", "p", word})->Bool("echo"); };
  EXPECT_TRUE(echo("--show"));
  EXPECT_FALSE(echo("--no-show"));
  EXPECT_FALSE(echo("--disable-echo"));
  EXPECT_FALSE(echo("--no-echo"));
  EXPECT_TRUE(echo("--echo"));
}

TEST(Flags, ConfigFile) {
  const char* text = R"({"max-tokens": 5, "temperature": 0.5, "json": true, "memory": "2Ki", "stop": ["a", "b"],
                         "timeout": 1.5, "show": false, "isa": "avx2", "key": "k"})";
  StatusOr<Flags> flags = ParseWithConfig(text, {"run", "p"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->Int("max-tokens"), 5);
  EXPECT_TRUE(flags->Given("max-tokens"));
  EXPECT_EQ(flags->Real("temperature"), 0.5);
  EXPECT_TRUE(flags->Bool("json"));
  EXPECT_EQ(flags->Size("memory"), 2048);
  EXPECT_EQ(flags->Texts("stop"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(flags->Duration("timeout"), std::chrono::milliseconds(1500));
  EXPECT_FALSE(flags->Bool("echo"));
  EXPECT_EQ(flags->Choice("isa"), "avx2");
  // Flags of other commands are theirs; this one is not spoilt by a value it never reads.
  EXPECT_TRUE(ParseWithConfig(R"({"max-tokens": "many"})", {"diff", "a", "b"}).ok());
  EXPECT_TRUE(ParseWithConfig("{}", {"run", "p"}).ok());
}

TEST(Flags, FlagBeatsEnvironmentBeatsConfigBeatsBuiltIn) {
  const char* text = R"({"max-tokens": 5, "stop": ["c"]})";
  EXPECT_EQ(Parse({"run", "p"})->Int("max-tokens"), 16);
  EXPECT_EQ(ParseWithConfig(text, {"run", "p"})->Int("max-tokens"), 5);
  EXPECT_EQ(ParseWithConfig(text, {"run", "p"}, {"TOOL_MAX_TOKENS=6"})->Int("max-tokens"), 6);
  EXPECT_EQ(ParseWithConfig(text, {"run", "p", "-n7"}, {"TOOL_MAX_TOKENS=6"})->Int("max-tokens"), 7);
  // Lists replace each other whole.
  EXPECT_EQ(ParseWithConfig(text, {"run", "p"})->Texts("stop"), std::vector<std::string>{"c"});
  EXPECT_EQ(ParseWithConfig(text, {"run", "p"}, {"TOOL_STOP=e"})->Texts("stop"), std::vector<std::string>{"e"});
  EXPECT_EQ(ParseWithConfig(text, {"run", "p", "--stop=f", "--stop=g"}, {"TOOL_STOP=e"})->Texts("stop"),
            (std::vector<std::string>{"f", "g"}));
  // The file's own name comes from the environment too.
  auto read = [](const std::string& path) -> StatusOr<std::string> {
    return std::string(path == "e.json" ? R"({"max-tokens": 9})" : R"({"max-tokens": 8})");
  };
  std::vector<std::string> environment = {"TOOL_CONFIG=e.json"}, words = {"p"}, more = {"p", "--config=f.json"};
  EXPECT_EQ(ParseFlags(kTable, "run", words, {environment, read})->Int("max-tokens"), 9);
  EXPECT_EQ(ParseFlags(kTable, "run", more, {environment, read})->Int("max-tokens"), 8);
}

TEST(Flags, ConfigMistakes) {
  auto refusal = [](std::string text, int exit_code) {
    StatusOr<Flags> flags = ParseWithConfig(std::move(text), {"run", "p"});
    if (flags.ok()) return std::string("accepted");
    EXPECT_EQ(flags.status().ExitCode(), exit_code);
    return flags.status().message();
  };
  EXPECT_EQ(refusal(R"({"max-tokens": 0})", 2), "c.json:/max-tokens: 0 is outside 1..4096");
  EXPECT_EQ(refusal(R"({"max-tokens": 1.5})", 2), "c.json:/max-tokens: '1.5' is not an integer");
  EXPECT_EQ(refusal(R"({"max-tokens": true})", 2), "c.json:/max-tokens: expected a number, got a boolean");
  EXPECT_EQ(refusal(R"({"max-tokens": null})", 2), "c.json:/max-tokens: expected a number, got null");
  EXPECT_EQ(refusal(R"({"json": 1})", 2), "c.json:/json: expected true or false, got an integer");
  EXPECT_EQ(refusal(R"({"weights": {}})", 2), "c.json:/weights: expected a string, got an object");
  EXPECT_EQ(refusal(R"({"weights": ""})", 2), "c.json:/weights: the value is empty");
  EXPECT_EQ(refusal(R"({"stop": 3})", 2), "c.json:/stop: expected an array of strings, got an integer");
  EXPECT_EQ(refusal(R"({"stop": ["a", 3]})", 2), "c.json:/stop: expected strings in the array, got an integer");
  EXPECT_EQ(refusal(R"({"max-token": 3})", 2), "c.json:/max-token: no flag has this name");
  EXPECT_EQ(ParseWithConfig(R"({"max-token": 3})", {"run", "p"}).status().hint(), "did you mean max-tokens?");
  // Only the names, not what else the command line would take.
  for (const char* key : {"no-json", "disable-echo", "o", "-n", "--json", "json=on", "", "help"})
    EXPECT_EQ(refusal(fmt::format(R"({{"{}": true}})", key), 2), fmt::format("c.json:/{}: no flag has this name", key));
  EXPECT_EQ(refusal(R"({"config": "x"})", 2), "c.json:/config: a config file cannot set it");
  EXPECT_EQ(refusal(R"({"print-config": true})", 2), "c.json:/print-config: a config file cannot set it");
  EXPECT_EQ(refusal("[]", 3), "c.json: expected an object of flags, got an array");
  EXPECT_NE(refusal(R"({"json": true, "json": true})", 3), "accepted");
  EXPECT_NE(refusal("{", 3), "accepted");
  EXPECT_NE(refusal(R"({"stop": [[[[[[]]]]]]})", 3), "accepted");
  std::vector<std::string> words = {"p", "--config", "/nowhere/c.json"};
  EXPECT_EQ(ParseFlags(kTable, "run", words, {}).status().ExitCode(), 5);
}

TEST(Flags, PrintConfig) {
  const char* text = R"({"temperature": 0.5, "stop": ["a", "b"]})";
  StatusOr<Flags> flags =
      ParseWithConfig(text, {"run", "--print-config", "--key=k", "--weights", "a\x1b"}, {"TOOL_MAX_TOKENS=6"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();  // without its PLAN
  EXPECT_EQ(flags->Settings(false),
            "color         auto          built-in\n"
            "config        c.json        flag\n"
            "debug         off           built-in\n"
            "echo          on            built-in\n"
            "isa           (none)        built-in\n"
            "json          off           built-in\n"
            "key           (hidden)      flag\n"
            "length        (the plan's)  built-in\n"
            "max-tokens    6             environment TOOL_MAX_TOKENS\n"
            "memory        (none)        built-in\n"
            "output        (none)        built-in\n"
            "print-config  on            flag\n"
            "progress      auto          built-in\n"
            "spoil         (none)        built-in\n"
            "stop          a b           config c.json\n"
            "temperature   0.5           config c.json\n"
            "timeout       30s           built-in\n"
            "weights       a\\x1b         flag\n");
  StatusOr<Json> json = ParseJson(flags->Settings(true), "settings");
  ASSERT_TRUE(json.ok()) << json.status().message();
  auto value = [&](const char* flag) { return json->Find(flag)->Find("value"); };
  auto member = [&](const char* flag, const char* key) { return json->Find(flag)->Find(key)->AsString(); };
  EXPECT_EQ(value("max-tokens")->AsInteger(), 6);
  EXPECT_EQ(member("max-tokens", "origin"), "environment");
  EXPECT_EQ(member("max-tokens", "from"), "TOOL_MAX_TOKENS");
  EXPECT_EQ(value("temperature")->AsNumber(), 0.5);
  EXPECT_EQ(member("temperature", "from"), "c.json");
  EXPECT_TRUE(value("echo")->AsBool());
  EXPECT_TRUE(value("memory")->IsNull());
  EXPECT_EQ(value("stop")->items().size(), 2u);
  EXPECT_EQ(value("timeout")->AsString(), "30s");
  EXPECT_EQ(value("key")->AsString(), "(hidden)");
  EXPECT_EQ(value("weights")->AsString(), "a\\x1b");
}

TEST(Flags, PrintConfigAsksThePlan) {
  auto plan = [](const Flags& flags) -> StatusOr<std::vector<PlanValue>> {
    if (flags.Argument(0) == "bad") return DataLossError("bad: no plan");
    return std::vector<PlanValue>{
        {"length", flags.Argument(0) == "odd" ? "0" : "12"}, {"max-tokens", "7"}, {"not-here", "1"}};
  };
  auto parse = [&](std::vector<std::string> words) { return ParseFlags(kTable, "run", words, {.plan_values = plan}); };
  StatusOr<Flags> flags = parse({"p", "--print-config"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_NE(flags->Settings(false).find("length        12                 plan\n"), std::string::npos)
      << flags->Settings(false);
  EXPECT_FALSE(flags->Given("length"));
  EXPECT_EQ(flags->Int("max-tokens"), 16);  // has a value of its own
  EXPECT_EQ(parse({"p", "--print-config", "--length", "9"})->Int("length"), 9);
  EXPECT_EQ(parse({"odd", "--print-config"}).status().message(), "plan: length: 0 is below 1");
  EXPECT_EQ(parse({"bad", "--print-config"}).status().message(), "bad: no plan");
  // Only when there is a plan to ask, and somebody wants to know.
  EXPECT_TRUE(parse({"--print-config"}).ok());
  EXPECT_FALSE(parse({"bad"})->HasValue("length"));
}

TEST(Flags, Help) {
  for (auto [command, all] : {std::pair("", false), {"run", false}, {"diff", false}, {"", true}, {"run", true}}) {
    std::string text = HelpText(kTable, command, all);
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
  std::string all = HelpText(kTable, "run", true);
  for (const char* part :
       {"--spoil NAME", "Expert:", "--n-predict, -np]", "also --show, --disable-echo", "dumb or missing", "TOOL_DRIVER",
        "exit codes:\n  0    success", "143  stopped by SIGTERM"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " is missing in\n" << all;
    EXPECT_EQ(text.find(part), std::string::npos) << part << " is in\n" << text;
  }
}

TEST(Flags, ExitCodesOfTheHelpAreThoseOfStatus) {
  std::string help = HelpText(kTable, "", true);
  for (Status status : {FailedError(""), InvalidArgumentError(""), DataLossError(""), UnimplementedError(""),
                        ResourceExhaustedError(""), CheckFailedError(""), CancelledError(""), InternalError("")})
    EXPECT_NE(help.find(fmt::format("\n  {:<5}", status.ExitCode())), std::string::npos) << status.ExitCode();
}

TEST(Flags, PagesHaveEveryRow) {
  std::string man = ManPage(kTable), reference = ReferencePage(kTable);
  for (const FlagRow& row : kRows) {
    std::string dashed;
    for (char c : row.LongName()) dashed += c == '-' ? std::string("\\-") : std::string(1, c);
    EXPECT_NE(man.find(dashed + "\\fR"), std::string::npos) << row.name;
    EXPECT_NE(reference.find(std::string(row.LongName())), std::string::npos) << row.name;
    for (const char* shell : {"bash", "zsh", "fish"})
      EXPECT_EQ(CompletionScript(kTable, shell).find(std::string(row.LongName())) != std::string::npos,
                row.group != kExpertGroup)
          << shell << row.name;
  }
  // A cell's bar is no column, and no line of text is taken for a request.
  EXPECT_NE(reference.find("base\\|avx2\\|avx512"), std::string::npos);
  for (const char* part : {".SH EXIT STATUS", ".SH ENVIRONMENT", "TOOL_DRIVER", "tool run model.plan \\-\\-json"})
    EXPECT_NE(man.find(part), std::string::npos) << part;
}

TEST(Flags, Durations) {
  using std::chrono::milliseconds;
  EXPECT_EQ(*ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(*ParseDuration("30s"), milliseconds(30'000));
  EXPECT_EQ(*ParseDuration("5m"), milliseconds(300'000));
  EXPECT_EQ(*ParseDuration("1h"), milliseconds(3'600'000));
  EXPECT_EQ(*ParseDuration("1.001"), milliseconds(1001));  // 1000.9999999999999 in binary
  EXPECT_EQ(*ParseDuration("0"), milliseconds(0));
  for (const char* bad : {"", "s", "-1s", "1 s", "1d", "1min", "nan", "1e300h", "inf"})
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  EXPECT_EQ(ParseDuration("1d").status().hint(), "durations look like 250ms, 30s, 5m or 1h");
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

int RunTest(std::vector<std::string> words, std::function<Status(const Flags&)> body = {}) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  if (!body) body = [](const Flags&) { return Status(); };
  auto version = [] { return std::vector<VersionField>{{"plan_versions", "1 to 2", "[1, 2]"}}; };
  return RunTool({kTable, body, version}, static_cast<int>(argv.size()), argv.data());
}

std::string Printed(std::vector<std::string> words) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(RunTest(std::move(words)), 0);
  return testing::internal::GetCapturedStdout();
}

TEST(RunTool, Pages) {
  EXPECT_EQ(Printed({"tool", "--help"}), HelpText(kTable, ""));
  EXPECT_EQ(Printed({"tool", "-h"}), HelpText(kTable, ""));
  EXPECT_EQ(Printed({"tool", "--help-all"}), HelpText(kTable, "", true));
  EXPECT_EQ(Printed({"tool", "run", "--bad", "--help"}), HelpText(kTable, "run"));
  EXPECT_EQ(Printed({"tool", "run", "--help-all"}), HelpText(kTable, "run", true));
  EXPECT_EQ(Printed({"tool", "--man"}), ManPage(kTable));
  EXPECT_EQ(Printed({"tool", "--reference"}), ReferencePage(kTable));
  EXPECT_EQ(Printed({"tool", "completion", "zsh"}), CompletionScript(kTable, "zsh"));
  EXPECT_EQ(Printed({"tool", "run", "--print-config"}).substr(0, 5), "color");
  EXPECT_EQ(Printed({"tool", "diff", "--print-config", "--json"}).substr(0, 10), "{\"color\": ");
}

TEST(RunTool, Version) {
  BuildInfo build = ThisBuild();
  std::string first =
      fmt::format("tool {} ({}, {})\ncommit {}\n", build.version, build.build_type, build.compiler, build.commit);
  EXPECT_EQ(Printed({"tool", "--version"}), first + "plan versions 1 to 2\n");
  EXPECT_EQ(Printed({"tool", "run", "--version"}), first + "plan versions 1 to 2\n");
  StatusOr<Json> json = ParseJson(Printed({"tool", "--version", "--json"}), "version");
  ASSERT_TRUE(json.ok()) << json.status().message();
  EXPECT_EQ(json->Find("program")->AsString(), "tool");
  EXPECT_EQ(json->Find("version")->AsString(), build.version);
  EXPECT_EQ(json->Find("plan_versions")->items()[1].AsInteger(), 2);
  EXPECT_TRUE(build.commit == "unknown" || build.commit.size() == 12) << build.commit;
}

TEST(RunTool, ExitCodes) {
  auto fail = [](Status status) { return [status](const Flags&) { return status; }; };
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_EQ(RunTest({"tool"}), 2);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), ShortUsage(kTable));

  testing::internal::CaptureStderr();
  EXPECT_EQ(RunTest({"tool", "run", "p"}), 0);
  EXPECT_EQ(RunTest({"tool", "--json"}), 2);
  EXPECT_EQ(RunTest({"tool", "rum", "p"}), 2);
  EXPECT_EQ(RunTest({"tool", "run", "p"}, fail(DataLossError("x"))), 3);
  EXPECT_EQ(RunTest({"tool", "run", "p"}, fail(CancelledError("x"))), 130);
  EXPECT_EQ(RunTest({"tool", "run", "p"}, [](const Flags&) -> Status { throw std::bad_alloc(); }), 5);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "tool: error: --json: expected a command first\nhint: see tool --help\n"
            "tool: error: rum: unknown command, did you mean run?\n"
            "tool: error: run: x\ntool: error: run: x\ntool: error: run: out of memory\n");
}

TEST(RunTool, BugsHaveAName) {
  auto report = [](std::function<Status(const Flags&)> body) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(RunTest({"tool", "run", "p"}, std::move(body)), 70);
    return testing::internal::GetCapturedStderr();
  };
  std::string text = report([](const Flags&) -> Status { throw std::runtime_error("lost"); });
  // FNV-1a of "lost" by an independent calculation.
  EXPECT_EQ(text, fmt::format("tool: error: run: lost\nhint: this is a bug, please report it with crash id {}-{}\n",
                              ThisBuild().commit, "e234733b"));
  EXPECT_EQ(text, report([](const Flags&) { return InternalError("lost"); }));
  EXPECT_NE(text, report([](const Flags&) { return InternalError("found"); }));
}

TEST(RunTool, ColourFlagCountsBeforeAndAfterParsing) {
  auto errors = [](std::vector<std::string> words) {
    testing::internal::CaptureStderr();
    RunTest(std::move(words), [](const Flags&) { return FailedError("no"); });
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(errors({"tool", "rum", "--color=always"}).substr(0, 13), "tool: \x1b[1;31m");
  EXPECT_EQ(errors({"tool", "rum", "--color", "never"}).substr(0, 12), "tool: error:");
  EXPECT_EQ(errors({"tool", "run", "p", "--color=always"}).substr(0, 13), "tool: \x1b[1;31m");
  setenv("TOOL_COLOR", "always", 1);
  EXPECT_EQ(errors({"tool", "run", "p"}).substr(0, 13), "tool: \x1b[1;31m");
  EXPECT_EQ(errors({"tool", "run", "p", "--color=auto"}).substr(0, 12), "tool: error:");
  unsetenv("TOOL_COLOR");
}

TEST(RunTool, SignalsDecideHowACancelledCommandEnds) {
  auto cancelled = [](int signal) {
    int code = RunTest({"tool", "run", "p"}, [&](const Flags&) -> Status {
      GracefulStop stop;
      raise(signal);
      return Interrupted() ? CancelledError("stopped") : Status();
    });
    std::_Exit(code);
  };
  EXPECT_EXIT(cancelled(SIGINT), testing::ExitedWithCode(130), "tool: error: run: stopped");
  EXPECT_EXIT(cancelled(SIGTERM), testing::ExitedWithCode(143), "tool: error: run: stopped");
  // A drain that ends well is a success.
  auto drained = [] {
    std::_Exit(RunTest({"tool", "run", "p"}, [](const Flags&) {
      GracefulStop stop;
      raise(SIGTERM);
      return Status();
    }));
  };
  EXPECT_EXIT(drained(), testing::ExitedWithCode(0), "");
}

TEST(RunTool, DebugShowsWhereAnExceptionCameFrom) {
  if (QWEN_SANITIZED) GTEST_SKIP() << "the sanitizer has its own handlers";
  auto thrown = [] {
    setenv("TOOL_DEBUG", "1", 1);
    RunTest({"tool", "run", "p"}, [](const Flags&) -> Status { throw std::runtime_error("lost"); });
  };
  EXPECT_EXIT(thrown(), testing::KilledBySignal(SIGABRT), "lost(.|\n)*crash: ABRT\n");
}

}  // namespace
}  // namespace qwen
