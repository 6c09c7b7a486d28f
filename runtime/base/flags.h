// Command lines from one table: parser, help, man page, reference page, shell completion, environment and config names
// of both programs, and the usage errors.
//
// A program keeps its table in flags.def, one row a command, a flag, an example:
//
//     COMMAND("run", "PLAN", "continues a prompt given as token ids")
//     FLAG("run logits", "max-tokens,n,--n-predict", kInt, "16", "N", "1..", "Sampling", "tokens to generate")
//     EXAMPLE("run", "qwenrt run model.plan --prompt-tokens 1,2,3")
//
// and hands it to RunTool, which does everything a user sees around the command itself: `--flag value`, `--flag=value`,
// `-f value`, `--flag` and `--no-flag`, `--`, QWENRT_MAX_TOKENS in the environment, `--config FILE`, `--print-config`,
// `--help`, `--help-all`, `--version`, `--man`, `--reference`, `completion SHELL`, error lines, Ctrl-C and exit codes
// (serving design, 1.1). CLI11 splits the words; the rows give them meaning. Every command has the common rows of
// flags.cc too; a table may have a --json of its own.
#ifndef QWEN_RUNTIME_BASE_FLAGS_H_
#define QWEN_RUNTIME_BASE_FLAGS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace qwen {

struct CommandRow {
  std::string_view name;
  std::string_view arguments;  // "PLAN", "A B": all required; "bash|zsh|fish" is one of these words
  std::string_view summary;    // one line of the program's --help
};

enum class FlagType {
  kBool,      // --name, --no-name, --name=on|off|true|false|1|0
  kInt,       // int64
  kReal,      // finite
  kSize,      // bytes: 4096, 64K, 1.5G, 24Gi, 8GiB
  kDuration,  // 250ms, 30s, 5m, 1h; a bare number is seconds
  kText,      // anything but nothing
  kSecret,    // the same, never printed by --print-config
  kTexts,     // text, any number of times
  kChoice,    // one of the words of `unit`: "base|avx2|avx512"
};

/// Rows of this group are in --help-all, not in --help.
inline constexpr std::string_view kExpertGroup = "Expert";
/// The fallback of a flag whose value the plan has.
inline constexpr std::string_view kPlanFallback = "(the plan's)";

struct FlagRow {
  std::string_view commands;  // "run logits"; "*": all
  /// The long name, perhaps a short one ("output,o"), then what else is accepted in silence, as the user would type it:
  /// "max-model-len,--ctx-size,-c". A boolean's "!--disable-x" turns it off.
  std::string_view name;
  FlagType type;
  std::string_view fallback;  // what an absent flag means: a value; "(words)": only shown, no value; "": off or absent
  std::string_view unit;      // shown after the name: N, FILE, tokens; of kChoice the words
  std::string_view range;     // of numbers: "1..4096", "0..", "" any
  std::string_view group;     // heading in --help, in the order of the rows
  std::string_view help;      // one sentence, lower case, no full stop

  std::string_view LongName() const;               // "output"
  std::string_view ShortName() const;              // "o", "" when it has none
  std::vector<std::string_view> Aliases() const;   // "--ctx-size", "-c", "!--disable-x"
  bool AppliesTo(std::string_view command) const;  // a command's name
};

struct ExampleRow {
  std::string_view command;
  std::string_view line;  // runnable as it stands
};

struct EnvironmentRow {
  std::string_view name;  // of a variable that no flag stands for
  std::string_view help;  // one sentence
};

struct FlagTable {
  std::string_view program;  // "qwenrt"; in capitals the prefix of its environment names
  std::string_view summary;
  std::span<const CommandRow> commands;
  std::span<const FlagRow> flags;
  std::span<const ExampleRow> examples;
  std::span<const EnvironmentRow> environment = {};
};

/// The values of one command line: parsed, in range, defaults filled in. Asking for a flag that the command does not
/// have, or as another type, is our bug (an assert); so is asking for the value of one that has none.
class Flags {
 public:
  const std::string& command() const { return command_; }
  const std::string& Argument(size_t index) const { return arguments_[index]; }

  /// Set by the user: on the command line, in the environment or in a config file.
  bool Given(std::string_view name) const;
  /// Given, or with a default that is a value.
  bool HasValue(std::string_view name) const;
  bool Bool(std::string_view name) const;
  int64_t Int(std::string_view name) const;
  double Real(std::string_view name) const;
  int64_t Size(std::string_view name) const;
  std::chrono::milliseconds Duration(std::string_view name) const;
  const std::string& Text(std::string_view name) const;  // of a secret too; "" when absent
  const std::vector<std::string>& Texts(std::string_view name) const;
  const std::string& Choice(std::string_view name) const;

  /// Every flag with its value and where that comes from, a line or a JSON member each: --print-config.
  std::string Settings(bool json) const;

  /// For stderr: names in the environment that no flag has.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  friend class FlagParser;
  enum class Origin { kBuiltIn, kPlan, kConfig, kEnvironment, kFlag };  // a later one wins
  struct Value {
    FlagType type = FlagType::kBool;
    Origin origin = Origin::kBuiltIn;
    std::string from;  // the file or the variable
    bool present = false;
    bool boolean = false;
    int64_t integer = 0;  // of a duration milliseconds
    double real = 0;
    std::vector<std::string> texts;  // of every type: as it was written
    std::string absent;              // shown when there is no value
  };
  const Value& Find(std::string_view name) const;
  const Value& Find(std::string_view name, FlagType type) const;

  std::string command_;
  std::vector<std::string> arguments_;
  std::map<std::string, Value, std::less<>> values_;
  std::vector<std::string> warnings_;
};

/// A flag's value as the file that a command opens has it.
struct PlanValue {
  std::string flag, text;
};

/// What surrounds the table when words become values.
struct FlagSources {
  std::span<const std::string> environment;  // NAME=value
  /// Reads the file that --config names; ParseFlags uses ReadFile with a limit when it is empty.
  std::function<StatusOr<std::string>(const std::string& path)> read_config = {};
  /// For --print-config, when the command has its arguments: values of flags whose fallback is kPlanFallback.
  std::function<StatusOr<std::vector<PlanValue>>(const Flags&)> plan_values = {};
};

/// Parses `args`, the words after the command's name. kInvalidArgument, with the nearest name as the hint, for anything
/// the table does not allow; kDataLoss for a config file that is not a JSON object. Under --print-config arguments may
/// be missing.
StatusOr<Flags> ParseFlags(const FlagTable& table, std::string_view command, std::span<const std::string> args,
                           const FlagSources& sources);

/// What is wrong with a table's rows, for tests: a range or default that does not parse, an unknown command, a name
/// used twice, a command without three examples.
Status CheckFlagTable(const FlagTable& table);

/// QWENRT_MAX_TOKENS.
std::string EnvironmentName(std::string_view program, std::string_view flag);

// --- Programs --------------------------------------------------------------------------------------------------------

/// A line of --version: `text` as people read it, `json` as a JSON value.
struct VersionField {
  std::string key, text, json;
};

struct Tool {
  FlagTable table;
  std::function<Status(const Flags&)> body;
  std::function<std::vector<VersionField>()> version = {};  // what only the program knows
  std::function<StatusOr<std::vector<PlanValue>>(const Flags&)> plan_values = {};
};

/// A main function: finds the command, parses, prints pages or calls the body, prints its error and returns the exit
/// code. Signals as in signals.h. Nothing thrown leaves it, unless QWENRT_DEBUG=1 asks for the place of a crash.
int RunTool(const Tool& tool, int argc, char** argv);

// --- What the table says, as pages -----------------------------------------------------------------------------------

/// The rows that `command` has: its own in their order, then the common ones.
std::vector<const FlagRow*> RowsOf(const FlagTable& table, std::string_view command);
/// The table's commands, then those every program has.
std::vector<const CommandRow*> CommandsOf(const FlagTable& table);
/// Null when the program has no such command.
const CommandRow* FindCommand(const FlagTable& table, std::string_view name);

/// "usage: qwenrt run PLAN [options]".
std::string UsageLine(const FlagTable& table, const CommandRow& command);
/// Usage and commands: what no arguments at all print.
std::string ShortUsage(const FlagTable& table);
/// What --help prints: at most 100 columns. Of the whole program when `command` is empty. `all`: with expert flags,
/// aliases, environment and exit codes.
std::string HelpText(const FlagTable& table, std::string_view command, bool all = false);
/// man(7) source of the whole program, section 1.
std::string ManPage(const FlagTable& table);
/// The same as Markdown.
std::string ReferencePage(const FlagTable& table);
/// A completion script for bash, zsh or fish.
std::string CompletionScript(const FlagTable& table, std::string_view shell);

// --- Values that are more than one word ------------------------------------------------------------------------------

/// 4096, 64K, 1.5G, 24Gi, 24GiB. K, M, G, T are powers of 1000, Ki ... of 1024.
StatusOr<int64_t> ParseSize(std::string_view text);
/// 250ms, 30s, 5m, 1.5h; a bare number is seconds. Below a millisecond nothing is left.
StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text);
/// All of `text` as a decimal integer of int64.
StatusOr<int64_t> ParseInteger(std::string_view text);
/// "1,2,3". Empty text and empty items are refused.
StatusOr<std::vector<int64_t>> ParseIntegers(std::string_view text);
/// "cpu,sm_89" cut at the commas. Empty items are refused.
StatusOr<std::vector<std::string>> ParseWords(std::string_view text);

/// `text` cut at every `at`: one part more than there are of those.
std::vector<std::string_view> CutAt(std::string_view text, char at);
/// `text` cut at its blanks, without empty parts.
std::vector<std::string_view> BlankWords(std::string_view text);

/// The candidate nearest to `word`, within edit distance 2; "" when none is.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_FLAGS_H_
