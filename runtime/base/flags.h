// Command lines from one table: parser, --help, environment names and the usage errors of both programs.
//
// A program keeps its table in flags.def, one row a command, a flag, an example:
//
//     COMMAND("run", "PLAN", "continues a prompt given as token ids")
//     FLAG("run logits", "max-tokens", kInt, "16", "N", "1..", "Sampling", "tokens to generate")
//     EXAMPLE("run", "qwenrt run model.plan --prompt-tokens 1,2,3")
//
// and hands it to RunTool, which does everything a user sees around the command itself: `--flag value`, `--flag=value`,
// `-f value`, `--flag` and `--no-flag`, `--`, QWENRT_MAX_TOKENS in the environment (the command line wins), `--help`,
// `--version`, error lines and exit codes (serving design, 1.1). CLI11 splits the words; the rows give them meaning.
#ifndef QWEN_RUNTIME_BASE_FLAGS_H_
#define QWEN_RUNTIME_BASE_FLAGS_H_

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
  std::string_view arguments;  // "PLAN", "A B": all required
  std::string_view summary;    // one line of the program's --help
};

enum class FlagType {
  kBool,    // --name, --no-name, --name=on|off|true|false|1|0
  kInt,     // int64
  kReal,    // finite
  kSize,    // bytes: 4096, 64K, 1.5G, 24Gi, 8GiB
  kText,    // anything but nothing
  kTexts,   // the same, any number of times
  kChoice,  // one of the words of `unit`: "base|avx2|avx512"
};

struct FlagRow {
  std::string_view commands;  // "run logits"; "*": all
  std::string_view name;      // "max-tokens"; "output,o" also has the short name -o
  FlagType type;
  std::string_view fallback;  // what an absent flag means: a value; "(words)": only shown, no value; "": off or absent
  std::string_view unit;      // shown after the name: N, FILE, tokens; of kChoice the words
  std::string_view range;     // of numbers: "1..4096", "0..", "" any
  std::string_view group;     // heading in --help, in the order of the rows
  std::string_view help;      // one sentence, lower case, no full stop
};

struct ExampleRow {
  std::string_view command;
  std::string_view line;  // runnable as it stands
};

struct FlagTable {
  std::string_view program;  // "qwenrt"; in capitals the prefix of its environment names
  std::string_view summary;
  std::span<const CommandRow> commands;
  std::span<const FlagRow> flags;
  std::span<const ExampleRow> examples;
};

/// The values of one command line: parsed, in range, defaults filled in. Asking for a flag that the command does not
/// have, or as another type, is our bug (an assert); so is asking for the value of one that has none.
class Flags {
 public:
  const std::string& command() const { return command_; }
  const std::string& Argument(size_t index) const { return arguments_[index]; }

  /// Set by the user, on the command line or in the environment.
  bool Given(std::string_view name) const;
  /// Given, or with a default that is a value.
  bool HasValue(std::string_view name) const;
  bool Bool(std::string_view name) const;
  int64_t Int(std::string_view name) const;
  double Real(std::string_view name) const;
  int64_t Size(std::string_view name) const;
  const std::string& Text(std::string_view name) const;  // "" when absent
  const std::vector<std::string>& Texts(std::string_view name) const;
  const std::string& Choice(std::string_view name) const;

  /// For stderr: names in the environment that no flag has.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  friend class FlagParser;
  struct Value {
    FlagType type = FlagType::kBool;
    bool given = false, present = false;
    bool boolean = false;
    int64_t integer = 0;
    double real = 0;
    std::vector<std::string> texts;
  };
  const Value& Find(std::string_view name, FlagType type) const;

  std::string command_;
  std::vector<std::string> arguments_;
  std::map<std::string, Value, std::less<>> values_;
  std::vector<std::string> warnings_;
};

/// Parses `args`, the words after the command's name. `environment` has NAME=value strings. kInvalidArgument, with the
/// nearest name as the hint, for anything the table does not allow.
StatusOr<Flags> ParseFlags(const FlagTable& table, std::string_view command, std::span<const std::string> args,
                           std::span<const std::string> environment);

/// What is wrong with a table's rows, for tests: a range or default that does not parse, an unknown command, a name
/// used twice, a command without an example.
Status CheckFlagTable(const FlagTable& table);

/// What --help prints: at most 100 columns. Of the whole program when `command` is empty.
std::string HelpText(const FlagTable& table, std::string_view command);

/// QWENRT_MAX_TOKENS.
std::string EnvironmentName(std::string_view program, std::string_view flag);

/// A main function: finds the command, parses, prints help or `version` (which ends in a newline), calls `body`,
/// prints its error and returns the exit code. Nothing thrown leaves it.
int RunTool(const FlagTable& table, std::string_view version, int argc, char** argv,
            const std::function<Status(const Flags&)>& body);

/// "program 0.1.0 (Release, g++ 12.2.0)" without a newline: the first line of every --version.
std::string BuildText(std::string_view program);

// --- Values that are more than one word ------------------------------------------------------------------------------

/// 4096, 64K, 1.5G, 24Gi, 24GiB. K, M, G, T are powers of 1000, Ki ... of 1024.
StatusOr<int64_t> ParseSize(std::string_view text);
/// All of `text` as a decimal integer of int64.
StatusOr<int64_t> ParseInteger(std::string_view text);
/// "1,2,3". Empty text and empty items are refused.
StatusOr<std::vector<int64_t>> ParseIntegers(std::string_view text);
/// "cpu,sm_89" cut at the commas. Empty items are refused.
StatusOr<std::vector<std::string>> ParseWords(std::string_view text);

/// The candidate nearest to `word`, within edit distance 2; "" when none is.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_FLAGS_H_
