// Help, man page and reference page: three forms of the same rows.
#include <algorithm>

#include "fmt/format.h"
#include "runtime/base/flags.h"
#include "runtime/base/version.h"

namespace qwen {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kHelpColumn = 30;

/// Exit codes of both programs; status.h has the classes behind 1 to 6.
struct ExitRow {
  std::string_view code, meaning;
};
constexpr ExitRow kExitRows[] = {
    {"0", "success, or everything finished after a request to stop"},
    {"1", "the operation failed, and none of the classes below fits"},
    {"2", "usage: a flag, a value, a missing argument, an unsafe combination that was refused"},
    {"3", "an input file is damaged or malformed"},
    {"4", "the input is valid, but not for this build or device"},
    {"5", "resources: memory, disk, a port in use, a file that cannot be opened"},
    {"6", "a check failed: a comparison beyond its tolerance, a measurement below what was required"},
    {"70", "internal error: a bug, with a crash id to report it with"},
    {"130", "stopped by Ctrl-C (SIGINT); the second one stops at once"},
    {"143", "stopped by SIGTERM; the second one stops at once"},
};

constexpr std::string_view kPrecedence =
    "A value comes from the command line, else the environment, else the file that --config names, else the plan, else "
    "it is the built-in one. The file is a JSON object whose keys are long names of flags: booleans are true or false, "
    "numbers are numbers or text with a unit, flags that may be repeated are arrays. It may have flags of other "
    "commands. "
    "--print-config prints every value and where it comes from.";
constexpr std::string_view kValues =
    "Sizes take K, M, G, T or Ki, Mi, Gi, Ti; durations ms, s, m or h, a bare number is seconds. A boolean is --flag, "
    "--no-flag, --flag=on or --flag=off. -- ends the flags.";

/// Variables that are no flag's.
std::vector<EnvironmentRow> EnvironmentOf(const FlagTable& table) {
  std::vector<EnvironmentRow> rows(table.environment.begin(), table.environment.end());
  rows.push_back({"NO_COLOR", "set and not empty: no colours, unless --color says otherwise"});
  rows.push_back({"TERM", "dumb or missing: no colours and no progress bar"});
  return rows;
}

std::vector<std::string> ExamplesOf(const FlagTable& table, std::string_view command) {
  std::vector<std::string> lines;
  for (const ExampleRow& row : table.examples)
    if (command.empty() || row.command == command) lines.emplace_back(row.line);
  if (command == "completion")
    lines = {fmt::format("source <({} completion bash)", table.program),
             fmt::format("{0} completion zsh >~/.zfunc/_{0}", table.program),
             fmt::format("{0} completion fish >~/.config/fish/completions/{0}.fish", table.program)};
  if (lines.size() > 3) lines.resize(3);
  return lines;
}

/// Headings in the order in which rows mention them, experts last.
std::vector<std::string_view> GroupsOf(std::span<const FlagRow* const> rows) {
  std::vector<std::string_view> groups;
  for (bool expert : {false, true})
    for (const FlagRow* row : rows)
      if ((row->group == kExpertGroup) == expert && std::find(groups.begin(), groups.end(), row->group) == groups.end())
        groups.push_back(row->group);
  return groups;
}

/// "16", "all cores", "off"; "" for nothing.
std::string_view DefaultOf(const FlagRow& row) {
  if (row.fallback.starts_with('(')) return row.fallback.substr(1, row.fallback.size() - 2);
  return row.type == FlagType::kBool && row.fallback.empty() ? "off" : row.fallback;
}

/// "--ctx-size, -c, --disable-x to turn it off".
std::string AliasText(const FlagRow& row) {
  std::string text;
  for (std::string_view alias : row.Aliases()) {
    bool off = alias.starts_with('!');
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", alias.substr(off), off ? " to turn it off" : "");
  }
  return text;
}

/// "default 16; range 1..4096; QWENRT_MAX_TOKENS; also --n-predict".
std::string Facts(const FlagTable& table, const FlagRow& row, bool aliases) {
  std::string facts;
  if (!DefaultOf(row).empty()) facts += fmt::format("default {}; ", DefaultOf(row));
  if (!row.range.empty()) facts += fmt::format("range {}; ", row.range);
  facts += EnvironmentName(table.program, row.LongName());
  return aliases && !row.Aliases().empty() ? fmt::format("{}; also {}", facts, AliasText(row)) : facts;
}

/// "--[no-]json", "-o, --output".
std::string NameOf(const FlagRow& row) {
  std::string name = row.ShortName().empty() ? std::string() : fmt::format("-{}, ", row.ShortName());
  return name + fmt::format("--{}{}", row.type == FlagType::kBool ? "[no-]" : "", row.LongName());
}

/// `text` broken at blanks into lines of at most `width`, with `indent` blanks in front of all but the first.
std::string Wrap(std::string_view text, size_t width, size_t indent) {
  std::string out;
  size_t column = 0;
  for (std::string_view word : BlankWords(text)) {
    if (column > 0 && column + 1 + word.size() > width) {
      out += '\n' + std::string(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

/// A line or more: `left`, then `right` from the help column on.
std::string Entry(std::string left, std::string_view right) {
  left += left.size() + 2 > kHelpColumn ? '\n' + std::string(kHelpColumn, ' ')
                                        : std::string(kHelpColumn - left.size(), ' ');
  return left + Wrap(right, kColumns - kHelpColumn, kHelpColumn) + '\n';
}

std::string CommandLines(const FlagTable& table) {
  std::string out;
  for (const CommandRow* row : CommandsOf(table))
    out += fmt::format("  {:<12}{}\n", row->name, Wrap(row->summary, kColumns - 14, 14));
  return out;
}

std::string FlagLines(const FlagTable& table, std::span<const FlagRow* const> rows, bool all) {
  std::string out;
  for (std::string_view group : GroupsOf(rows)) {
    if (group == kExpertGroup && !all) continue;
    out += fmt::format("\n{}:\n", group);
    for (const FlagRow* row : rows) {
      if (row->group != group) continue;
      std::string left = "  " + NameOf(*row);
      if (row->type != FlagType::kBool) left += fmt::format(" {}", row->unit);
      out += Entry(left, fmt::format("{} [{}]", row->help, Facts(table, *row, all)));
    }
  }
  return out;
}

// --- roff ------------------------------------------------------------------------------------------------------------

/// `text` as roff sets it letter by letter: nothing in it is a request, an escape or a typographic dash.
std::string Roff(std::string_view text) {
  std::string out;
  if (text.starts_with('.') || text.starts_with('\'')) out += "\\&";
  for (char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '\'')
      out += "\\(aq";
    else if (c == '~')
      out += "\\(ti";
    else if (c == '^')
      out += "\\(ha";
    else
      out += c;
  }
  return out;
}

std::string RoffFlag(const FlagTable& table, const FlagRow& row) {
  std::string out = fmt::format(".TP\n\\fB{}\\fR", Roff(NameOf(row)));
  if (row.type != FlagType::kBool) out += fmt::format(" \\fI{}\\fR", Roff(row.unit));
  return out + fmt::format("\n{}\n({})\n", Roff(row.help), Roff(Facts(table, row, /*aliases=*/true)));
}

std::string RoffExamples(std::span<const std::string> lines) {
  std::string out = ".PP\n.EX\n";
  for (const std::string& line : lines) out += Roff(line) + '\n';
  return out + ".EE\n";
}

// --- Markdown --------------------------------------------------------------------------------------------------------

/// A cell's code: a '|' would end the cell even there.
std::string Code(std::string_view text) {
  std::string out = "`";
  for (char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out + '`';
}

std::string MarkdownFlags(const FlagTable& table, std::span<const FlagRow* const> rows) {
  if (rows.empty()) return {};
  std::string out = "\n| flag | default | range | environment | |\n|---|---|---|---|---|\n";
  for (std::string_view group : GroupsOf(rows))
    for (const FlagRow* row : rows) {
      if (row->group != group) continue;
      std::string name = NameOf(*row);
      if (row->type != FlagType::kBool) name += fmt::format(" {}", row->unit);
      std::string help(row->help);
      if (!row->Aliases().empty()) help += fmt::format("; also {}", AliasText(*row));
      out += fmt::format("| {} | {} | {} | {} | {} |\n", Code(name), DefaultOf(*row), row->range,
                         Code(EnvironmentName(table.program, row->LongName())), help);
    }
  return out;
}

/// The rows of all commands that are the same in each: those that come last in RowsOf.
bool IsCommon(const FlagTable& table, const FlagRow* row) {
  return row < table.flags.data() || row >= table.flags.data() + table.flags.size();
}

std::vector<const FlagRow*> OwnRows(const FlagTable& table, std::string_view command) {
  std::vector<const FlagRow*> rows = RowsOf(table, command);
  std::erase_if(rows, [&](const FlagRow* row) { return IsCommon(table, row); });
  return rows;
}

/// Those of a command without rows of its own.
std::vector<const FlagRow*> CommonRows(const FlagTable& table) {
  std::vector<const FlagRow*> rows = RowsOf({.program = table.program}, "completion");
  return rows;
}

}  // namespace

std::string UsageLine(const FlagTable& table, const CommandRow& command) {
  return fmt::format("usage: {} {}{}{} [options]", table.program, command.name, command.arguments.empty() ? "" : " ",
                     command.arguments);
}

std::string ShortUsage(const FlagTable& table) {
  return fmt::format("usage: {0} COMMAND [options]\n\ncommands:\n{1}\n{0} COMMAND --help says more.\n", table.program,
                     CommandLines(table));
}

std::string HelpText(const FlagTable& table, std::string_view command, bool all) {
  const CommandRow* row = FindCommand(table, command);
  std::string out;
  if (row) {
    out = Wrap(fmt::format("{} {}: {}", table.program, row->name, row->summary), kColumns - 2, 2);
    out += fmt::format("\n\n{}\n{}", UsageLine(table, *row), FlagLines(table, RowsOf(table, command), all));
  } else {
    out = Wrap(fmt::format("{}: {}", table.program, table.summary), kColumns - 2, 2);
    out += fmt::format("\n\n{}\noptions:\n", ShortUsage(table));
    out += Entry("  --help, -h", "this page, or a command's");
    out += Entry("  --help-all", "the same with expert flags, other names of flags, environment and exit codes");
    out += Entry("  --version", "this build and what it found here; with --json as JSON");
    out += Entry("  --man, --reference", "source of the manual page; the same as Markdown");
    if (all) out += FlagLines(table, CommonRows(table), all);
  }
  if (all) {
    out += fmt::format("\nvalues:\n  {}\n\n  {}\n\nenvironment:\n", Wrap(kPrecedence, kColumns - 2, 2),
                       Wrap(kValues, kColumns - 2, 2));
    for (const EnvironmentRow& entry : EnvironmentOf(table)) out += Entry(fmt::format("  {}", entry.name), entry.help);
    out += "\nexit codes:\n";
    for (const ExitRow& exit : kExitRows)
      out += fmt::format("  {:<5}{}\n", exit.code, Wrap(exit.meaning, kColumns - 7, 7));
  }
  out += "\nexamples:\n";
  for (const std::string& line : ExamplesOf(table, row ? command : "")) out += fmt::format("  {}\n", line);
  return out;
}

std::string ManPage(const FlagTable& table) {
  std::string title(table.program);
  std::transform(title.begin(), title.end(), title.begin(), [](unsigned char c) { return std::toupper(c); });
  std::string out = fmt::format(
      ".\\\" Written by {0} --man from flags.def.\n.TH {1} 1 \"\" \"{0} {2}\" \"User Commands\"\n"
      ".SH NAME\n{0} \\- {3}\n.SH SYNOPSIS\n.B {0}\n.I COMMAND\n[options]\n.SH COMMANDS\n",
      table.program, title, ThisBuild().version, Roff(table.summary));
  for (const CommandRow* command : CommandsOf(table)) {
    out += fmt::format(".SS \"{} {}{}{}\"\n{}\n", table.program, command->name, command->arguments.empty() ? "" : " ",
                       Roff(command->arguments), Roff(command->summary));
    for (const FlagRow* row : OwnRows(table, command->name)) out += RoffFlag(table, *row);
    out += RoffExamples(ExamplesOf(table, command->name));
  }
  out +=
      ".SH COMMON OPTIONS\nEvery command has these, besides\n.BR \\-\\-help ,\n.B \\-\\-help\\-all\nand\n.BR "
      "\\-\\-version .\n";
  for (const FlagRow* row : CommonRows(table)) out += RoffFlag(table, *row);
  out += fmt::format(".SH VALUES\n{}\n.PP\n{}\n.SH ENVIRONMENT\n", Roff(kPrecedence), Roff(kValues));
  out += fmt::format("Every flag has a variable, named beside it; {} is that of\n.BR \\-\\-max\\-num\\-seqs .\n",
                     EnvironmentName(table.program, "max-num-seqs"));
  for (const EnvironmentRow& row : EnvironmentOf(table))
    out += fmt::format(".TP\n.B {}\n{}\n", row.name, Roff(row.help));
  out += ".SH EXIT STATUS\n";
  for (const ExitRow& row : kExitRows) out += fmt::format(".TP\n.B {}\n{}\n", row.code, Roff(row.meaning));
  return out;
}

std::string ReferencePage(const FlagTable& table) {
  std::string out = fmt::format("# {0}: reference\n\n`{0}` {1}. Written by `tools/dev docs` from `flags.def`.\n",
                                table.program, table.summary);
  for (const CommandRow* command : CommandsOf(table)) {
    out += fmt::format("\n## {} {}\n\n`{}`: {}.\n{}\nExamples:\n\n", table.program, command->name,
                       UsageLine(table, *command).substr(7), command->summary,
                       MarkdownFlags(table, OwnRows(table, command->name)));
    for (const std::string& line : ExamplesOf(table, command->name)) out += fmt::format("    {}\n", line);
  }
  out += fmt::format(
      "\n## Flags of every command\n{}\n## Values\n\n{}\n\n{}\n\n## Environment\n\n| variable | |\n|---|---|\n",
      MarkdownFlags(table, CommonRows(table)), kPrecedence, kValues);
  for (const EnvironmentRow& row : EnvironmentOf(table)) out += fmt::format("| `{}` | {} |\n", row.name, row.help);
  out += "\n## Exit codes\n\n| code | |\n|---|---|\n";
  for (const ExitRow& row : kExitRows) out += fmt::format("| {} | {} |\n", row.code, row.meaning);
  return out;
}

}  // namespace qwen
