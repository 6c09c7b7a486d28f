// Completion scripts: the table once more, in the words of three shells. What the scripts know is fixed when they are
// made; they never start the program.
#include <algorithm>
#include <array>
#include <cassert>

#include "fmt/format.h"
#include "runtime/base/flags.h"

namespace qwen {
namespace {

struct TopFlag {
  std::string_view name, help;
};
constexpr TopFlag kTopFlags[] = {{"help", "what there is"},
                                 {"help-all", "the same with everything"},
                                 {"version", "this build and what it found here"}};

/// Whether values of a flag, or an argument, called `unit` are files or folders.
bool IsPath(std::string_view unit) {
  constexpr std::array kPaths = {"FILE", "DIR", "PATH", "PLAN", "PACK", "A", "B"};
  std::string_view word = unit.substr(0, unit.find_first_of("|_"));
  return std::find(kPaths.begin(), kPaths.end(), word) != kPaths.end() ||
         unit.find("_OR_DIR") != std::string_view::npos;
}

/// "base avx2 avx512"; "" where the words are not known.
std::string ValuesOf(const FlagRow& row) {
  return row.type == FlagType::kChoice ? fmt::format("{}", fmt::join(CutAt(row.unit, '|'), " ")) : std::string();
}

/// A command's arguments as choices, if they are: "bash zsh fish".
std::string ChoicesOf(const CommandRow& command) {
  return command.arguments.find('|') == std::string_view::npos
             ? std::string()
             : fmt::format("{}", fmt::join(CutAt(command.arguments, '|'), " "));
}

/// "--output", "-o": what is offered and shown in help.
std::vector<std::string> NamesOf(const FlagRow& row) {
  std::vector<std::string> names = {fmt::format("--{}", row.LongName())};
  if (!row.ShortName().empty()) names.push_back(fmt::format("-{}", row.ShortName()));
  return names;
}

/// Experts type their flags.
std::vector<const FlagRow*> OfferedRows(const FlagTable& table, const CommandRow& command) {
  std::vector<const FlagRow*> rows = RowsOf(table, command.name);
  std::erase_if(rows, [](const FlagRow* row) { return row->group == kExpertGroup; });
  return rows;
}

std::string Bash(const FlagTable& table) {
  std::string commands, cases;
  for (const CommandRow* command : CommandsOf(table)) {
    commands += fmt::format("{} ", command->name);
    std::string flags, values;
    std::vector<std::string> paths, others;
    for (const FlagRow* row : OfferedRows(table, *command)) {
      flags += fmt::format("--{} ", row->LongName());
      if (row->type == FlagType::kBool) {
        flags += fmt::format("--no-{} ", row->LongName());
        continue;
      }
      std::string names = fmt::format("{}", fmt::join(NamesOf(*row), " | "));
      if (std::string words = ValuesOf(*row); !words.empty())
        values += fmt::format("        {}) words='{}' ;;\n", names, words);
      else
        (IsPath(row->unit) ? paths : others).push_back(names);
    }
    if (!paths.empty()) values += fmt::format("        {}) files=1 ;;\n", fmt::join(paths, " | "));
    if (!others.empty()) values += fmt::format("        {}) return ;;\n", fmt::join(others, " | "));
    std::string choices = ChoicesOf(*command);
    cases += fmt::format(
        "    {})\n      case $previous in\n{}        *) if [[ $current == -* ]]; then words='{}--help --help-all'; "
        "else "
        "{}; fi ;;\n      esac ;;\n",
        command->name, values, flags, choices.empty() ? "files=1" : fmt::format("words='{}'", choices));
  }
  std::string top;
  for (const TopFlag& flag : kTopFlags) top += fmt::format("--{} ", flag.name);
  std::string out = R"(# bash completion of PROGRAM, written by: PROGRAM completion bash
_PROGRAM() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= files=
  # Bash cuts --flag=value at the sign.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]]; then
    previous=${COMP_WORDS[COMP_CWORD-2]}
  fi
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    words='COMMANDS'
  else case ${COMP_WORDS[1]} in
CASES  esac fi
  if [[ $files ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}
complete -F _PROGRAM PROGRAM
)";
  auto replace = [&](std::string_view from, std::string_view to) {
    for (size_t at = 0; (at = out.find(from, at)) != std::string::npos; at += to.size())
      out.replace(at, from.size(), to);
  };
  replace("PROGRAM", table.program);
  replace("COMMANDS", commands + top);
  replace("CASES", cases);
  return out;
}

/// Inside single quotes of a shell; zsh's _arguments also gives brackets and colons a meaning.
std::string Quoted(std::string_view text, std::string_view special = "") {
  std::string out;
  for (char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (special.find(c) != std::string_view::npos)
      out += fmt::format("\\{}", c);
    else
      out += c;
  }
  return out;
}

std::string Zsh(const FlagTable& table) {
  std::string commands, cases;
  auto action = [](std::string_view words, bool path) {
    return !words.empty() ? fmt::format("({})", words) : path ? std::string("_files") : std::string(" ");
  };
  for (const CommandRow* command : CommandsOf(table)) {
    commands += fmt::format("    '{}:{}'\n", command->name, Quoted(command->summary));
    cases += fmt::format("    {}) _arguments -S '--help[what there is]' '--help-all[everything]'", command->name);
    for (const FlagRow* row : OfferedRows(table, *command)) {
      std::string help = Quoted(row->help, "[]:\\");
      if (row->type == FlagType::kBool) {
        cases += fmt::format(" \\\n      '--{0}[{1}]' '--no-{0}[not so]'", row->LongName(), help);
        continue;
      }
      std::string value =
          fmt::format("[{}]:{}:{}", help, Quoted(row->unit, ":\\"), action(ValuesOf(*row), IsPath(row->unit)));
      std::string many = row->type == FlagType::kTexts ? "*" : "";
      cases += fmt::format(" \\\n      '{}--{}={}'", many, row->LongName(), value);
      if (!row->ShortName().empty()) cases += fmt::format(" '{}-{}+{}'", many, row->ShortName(), value);
    }
    std::vector<std::string_view> arguments = BlankWords(command->arguments);
    for (size_t i = 0; i < arguments.size(); ++i)
      cases +=
          fmt::format(" \\\n      '{}:{}:{}'", i + 1, Quoted(arguments[i], ":\\"), action(ChoicesOf(*command), true));
    cases += " ;;\n";
  }
  for (const TopFlag& flag : kTopFlags) commands += fmt::format("    '--{}:{}'\n", flag.name, flag.help);
  return fmt::format(
      "#compdef {0}\n# zsh completion of {0}, written by: {0} completion zsh\n_{0}() {{\n  local -a commands=(\n{1}  "
      ")\n"
      "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n{2}  esac\n}}\n"
      "# As a file of $fpath, or from source <(...).\n"
      "if [[ $funcstack[1] == _{0} ]]; then _{0} \"$@\"; else compdef _{0} {0}; fi\n",
      table.program, commands, cases);
}

std::string Fish(const FlagTable& table) {
  std::string out =
      fmt::format("# fish completion of {0}, written by: {0} completion fish\ncomplete -c {0} -f\n", table.program);
  auto line = [&](std::string_view when, std::string_view rest) {
    out += fmt::format("complete -c {} -n '{}' {}\n", table.program, when, rest);
  };
  for (const TopFlag& flag : kTopFlags)
    line("__fish_use_subcommand", fmt::format("-l {} -d '{}'", flag.name, flag.help));
  for (const CommandRow* command : CommandsOf(table)) {
    line("__fish_use_subcommand", fmt::format("-a {} -d '{}'", command->name, Quoted(command->summary, "\\")));
    std::string when = fmt::format("__fish_seen_subcommand_from {}", command->name);
    if (std::string choices = ChoicesOf(*command); !choices.empty())
      line(when, fmt::format("-a '{}'", choices));
    else if (!command->arguments.empty())
      line(when, "-F");
    for (const FlagRow* row : OfferedRows(table, *command)) {
      std::string flag = fmt::format("-l {}", row->LongName());
      if (!row->ShortName().empty()) flag += fmt::format(" -s {}", row->ShortName());
      if (std::string words = ValuesOf(*row); !words.empty())
        flag += fmt::format(" -x -a '{}'", words);
      else if (row->type != FlagType::kBool)
        flag += IsPath(row->unit) ? " -r -F" : " -x";
      line(when, fmt::format("{} -d '{}'", flag, Quoted(row->help, "\\")));
      if (row->type == FlagType::kBool) line(when, fmt::format("-l no-{} -d 'not so'", row->LongName()));
    }
  }
  return out;
}

}  // namespace

std::string CompletionScript(const FlagTable& table, std::string_view shell) {
  if (shell == "bash") return Bash(table);
  if (shell == "zsh") return Zsh(table);
  assert(shell == "fish");
  return Fish(table);
}

}  // namespace qwen
