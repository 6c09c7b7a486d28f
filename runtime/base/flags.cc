#include "runtime/base/flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "runtime/base/log.h"

namespace qwen {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kHelpColumn = 30;

std::vector<std::string_view> Cut(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::string_view word : Cut(text, ' '))
    if (!word.empty()) words.push_back(word);
  return words;
}

std::string_view LongName(const FlagRow& row) { return Cut(row.name, ',')[0]; }
std::string_view ShortName(const FlagRow& row) {
  auto names = Cut(row.name, ',');
  return names.size() > 1 ? names[1] : std::string_view();
}

bool AppliesTo(const FlagRow& row, std::string_view command) {
  for (std::string_view word : Words(row.commands))
    if (word == "*" || word == command) return true;
  return false;
}

const CommandRow* FindCommand(const FlagTable& table, std::string_view name) {
  for (const CommandRow& row : table.commands)
    if (row.name == name) return &row;
  return nullptr;
}

StatusOr<double> ParseReal(std::string_view text) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return InvalidArgumentError(fmt::format("'{}' is not a number", text));
  return value;
}

StatusOr<bool> ParseBool(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (std::string_view yes : {"1", "true", "on", "yes", "enabled"})
    if (lower == yes) return true;
  for (std::string_view no : {"0", "false", "off", "no", "disabled"})
    if (lower == no) return false;
  return InvalidArgumentError(fmt::format("'{}' is neither on nor off", text));
}

/// The ends of "1..4096", either of which may be missing.
struct Ends {
  std::string_view low, high;
};
std::optional<Ends> CutRange(std::string_view range) {
  if (range.empty()) return Ends{};
  size_t dots = range.find("..");
  if (dots == std::string_view::npos) return std::nullopt;
  return Ends{range.substr(0, dots), range.substr(dots + 2)};
}

template <class T, class Parse>
Status CheckRange(std::string_view text, T value, std::string_view range, Parse parse) {
  Ends ends = *CutRange(range);
  bool inside = (ends.low.empty() || value >= *parse(ends.low)) && (ends.high.empty() || value <= *parse(ends.high));
  if (inside) return {};
  if (ends.high.empty()) return InvalidArgumentError(fmt::format("{} is below {}", text, ends.low));
  if (ends.low.empty()) return InvalidArgumentError(fmt::format("{} is above {}", text, ends.high));
  return InvalidArgumentError(fmt::format("{} is outside {}", text, range));
}

bool IsWords(std::string_view fallback) { return fallback.starts_with('('); }

/// `text` broken at blanks into lines of at most `width`, with `indent` blanks in front of all but the first.
std::string Wrap(std::string_view text, size_t width, size_t indent) {
  std::string out;
  size_t column = 0;
  for (std::string_view word : Words(text)) {
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

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string Usage(const FlagTable& table, const CommandRow& command) {
  std::string out = fmt::format("usage: {} {}", table.program, command.name);
  if (!command.arguments.empty()) out += fmt::format(" {}", command.arguments);
  for (const FlagRow& row : table.flags)
    if (AppliesTo(row, command.name)) return out + " [options]";
  return out;
}

std::string ShortUsage(const FlagTable& table) {
  std::string out = fmt::format("usage: {} COMMAND [options]\n\ncommands:\n", table.program);
  for (const CommandRow& row : table.commands)
    out += fmt::format("  {:<12}{}\n", row.name, Wrap(row.summary, kColumns - 14, 14));
  return out + fmt::format("\n{} COMMAND --help says more.\n", table.program);
}

}  // namespace

// --- Values ----------------------------------------------------------------------------------------------------------

StatusOr<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range)
    return InvalidArgumentError(fmt::format("{} does not fit 64 bits", text));
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    return InvalidArgumentError(fmt::format("'{}' is not an integer", text));
  return value;
}

StatusOr<int64_t> ParseSize(std::string_view text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"Ki", 0x1p10},
                             {"Mi", 0x1p20},  {"Gi", 0x1p30},  {"Ti", 0x1p40},  {"KB", 1e3},     {"MB", 1e6},
                             {"GB", 1e9},     {"TB", 1e12},    {"K", 1e3},      {"M", 1e6},      {"G", 1e9},
                             {"T", 1e12},     {"B", 1}};
  std::string_view digits = text;
  double bytes = 1;
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.name)) continue;
    digits.remove_suffix(unit.name.size());
    bytes = unit.bytes;
    break;
  }
  if (StatusOr<int64_t> whole = ParseInteger(digits); whole.ok() && bytes == 1 && *whole >= 0) return whole;
  StatusOr<double> value = ParseReal(digits);
  if (!value.ok() || *value < 0)
    return InvalidArgumentError(fmt::format("'{}' is not a size", text), "sizes look like 4096, 512Mi, 1.5G or 24GiB");
  if (*value * bytes >= 0x1p63) return InvalidArgumentError(fmt::format("{} does not fit 64 bits", text));
  return static_cast<int64_t>(*value * bytes);
}

StatusOr<std::vector<int64_t>> ParseIntegers(std::string_view text) {
  std::vector<int64_t> values;
  for (std::string_view part : Cut(text, ',')) {
    StatusOr<int64_t> value = ParseInteger(part);
    if (!value.ok()) return value.status();
    values.push_back(*value);
  }
  return values;
}

StatusOr<std::vector<std::string>> ParseWords(std::string_view text) {
  std::vector<std::string> words;
  for (std::string_view part : Cut(text, ',')) {
    if (part.empty()) return InvalidArgumentError(fmt::format("'{}' has an empty item", text));
    words.emplace_back(part);
  }
  return words;
}

std::string_view NearestWord(std::string_view word, std::span<const std::string_view> candidates) {
  std::string_view best;
  size_t best_distance = 3;
  for (std::string_view candidate : candidates) {
    // A word as short as the distance resembles everything.
    size_t distance = EditDistance(word, candidate);
    if (distance < best_distance && distance < std::max<size_t>(candidate.size(), 2) - 1) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string EnvironmentName(std::string_view program, std::string_view flag) {
  std::string name = fmt::format("{}_{}", program, flag);
  for (char& c : name) c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

// --- Flags -----------------------------------------------------------------------------------------------------------

const Flags::Value& Flags::Find(std::string_view name, FlagType type) const {
  auto it = values_.find(name);
  assert(it != values_.end() && "the command has no such flag");
  assert(it->second.type == type && "the flag has another type");
  return it->second;
}

bool Flags::Given(std::string_view name) const {
  auto it = values_.find(name);
  assert(it != values_.end() && "the command has no such flag");
  return it->second.given;
}

bool Flags::HasValue(std::string_view name) const {
  auto it = values_.find(name);
  assert(it != values_.end() && "the command has no such flag");
  return it->second.present;
}

bool Flags::Bool(std::string_view name) const { return Find(name, FlagType::kBool).boolean; }

int64_t Flags::Int(std::string_view name) const {
  const Value& value = Find(name, FlagType::kInt);
  assert(value.present && "ask HasValue first");
  return value.integer;
}

double Flags::Real(std::string_view name) const {
  const Value& value = Find(name, FlagType::kReal);
  assert(value.present && "ask HasValue first");
  return value.real;
}

int64_t Flags::Size(std::string_view name) const {
  const Value& value = Find(name, FlagType::kSize);
  assert(value.present && "ask HasValue first");
  return value.integer;
}

const std::string& Flags::Text(std::string_view name) const {
  static const std::string kEmpty;
  const Value& value = Find(name, FlagType::kText);
  return value.present ? value.texts.back() : kEmpty;
}

const std::vector<std::string>& Flags::Texts(std::string_view name) const { return Find(name, FlagType::kTexts).texts; }

const std::string& Flags::Choice(std::string_view name) const {
  static const std::string kEmpty;
  const Value& value = Find(name, FlagType::kChoice);
  return value.present ? value.texts.back() : kEmpty;
}

// --- Parsing ---------------------------------------------------------------------------------------------------------

class FlagParser {
 public:
  FlagParser(const FlagTable& table, const CommandRow& command) : table_(table), command_(command) {
    flags_.command_ = std::string(command.name);
    for (const FlagRow& row : table.flags)
      if (AppliesTo(row, command.name)) rows_.push_back(&row);
  }

  StatusOr<Flags> Parse(std::span<const std::string> args, std::span<const std::string> environment) {
    CLI::App app;
    app.allow_extras();
    app.allow_windows_style_options(false);
    app.set_help_flag();
    std::vector<CLI::Option*> options;
    for (const FlagRow* row : rows_) {
      std::string names = fmt::format("--{}", LongName(*row));
      if (row->type == FlagType::kBool) {
        options.push_back(app.add_flag(fmt::format("{0},!--no-{1}", names, LongName(*row))));
      } else {
        if (!ShortName(*row).empty()) names = fmt::format("-{},{}", ShortName(*row), names);
        options.push_back(app.add_option(names)->allow_extra_args(false)->expected(1));
      }
      options.back()->take_all();
    }
    std::vector<CLI::Option*> arguments;
    for (std::string_view name : Words(command_.arguments)) {
      // A name CLI11 cannot take for a flag's.
      arguments.push_back(app.add_option("argument" + std::to_string(arguments.size()))->expected(1));
      argument_names_.push_back(name);
    }

    for (const std::string& arg : args) {
      if (arg == "--") break;
      // CLI11 would take the next word for the value.
      if (arg.starts_with("--") && arg.ends_with('=') && arg.find('=') == arg.size() - 1)
        return InvalidArgumentError(fmt::format("{}: the value is missing", arg.substr(0, arg.size() - 1)));
    }
    std::vector<std::string> reversed(args.rbegin(), args.rend());
    try {
      app.parse(std::move(reversed));
    } catch (const CLI::ArgumentMismatch&) {
      return InvalidArgumentError(fmt::format("{}: the value is missing", args.back()));
    } catch (const CLI::ParseError& error) {
      return InvalidArgumentError(error.what());
    }
    for (const std::string& word : app.remaining()) {
      if (word == "--") continue;
      if (word.size() > 1 && word.starts_with('-')) return UnknownFlag(word);
      return InvalidArgumentError(fmt::format("'{}' is one argument too many", word), Usage(table_, command_));
    }

    for (size_t i = 0; i < rows_.size(); ++i) {
      std::string where = fmt::format("--{}", LongName(*rows_[i]));
      QWEN_RETURN_IF_ERROR(SetFallback(*rows_[i]).Annotate(where));
      QWEN_RETURN_IF_ERROR(SetFromEnvironment(*rows_[i], environment));
      if (options[i]->results().empty()) continue;
      // The first word of the command line replaces what the environment said.
      flags_.values_.find(LongName(*rows_[i]))->second.texts.clear();
      for (const std::string& text : options[i]->results()) {
        if (IsFlag(text))
          return InvalidArgumentError(fmt::format("{}: the value is missing in front of {}", where, text));
        QWEN_RETURN_IF_ERROR(Set(*rows_[i], text, true).Annotate(where));
      }
    }
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i]->results().empty())
        return InvalidArgumentError(fmt::format("{} is missing", argument_names_[i]), Usage(table_, command_));
      if (arguments[i]->results().back().empty())
        return InvalidArgumentError(fmt::format("{} is empty", argument_names_[i]), Usage(table_, command_));
      flags_.arguments_.push_back(arguments[i]->results().back());
    }
    WarnOfUnknownNames(environment);
    return std::move(flags_);
  }

  Status SetFallback(const FlagRow& row) {
    Flags::Value& value = flags_.values_[std::string(LongName(row))];
    value.type = row.type;
    if (row.type == FlagType::kBool) value.present = true;
    if (row.fallback.empty() || IsWords(row.fallback)) return {};
    return Set(row, row.fallback, false);
  }

 private:
  Status Set(const FlagRow& row, std::string_view text, bool given) {
    Flags::Value& value = flags_.values_[std::string(LongName(row))];
    if (text.empty()) return InvalidArgumentError("the value is empty");
    switch (row.type) {
      case FlagType::kBool: {
        QWEN_ASSIGN_OR_RETURN(value.boolean, ParseBool(text));
        break;
      }
      case FlagType::kInt: {
        QWEN_ASSIGN_OR_RETURN(value.integer, ParseInteger(text));
        QWEN_RETURN_IF_ERROR(CheckRange(text, value.integer, row.range, ParseInteger));
        break;
      }
      case FlagType::kReal: {
        QWEN_ASSIGN_OR_RETURN(value.real, ParseReal(text));
        QWEN_RETURN_IF_ERROR(CheckRange(text, value.real, row.range, ParseReal));
        break;
      }
      case FlagType::kSize: {
        QWEN_ASSIGN_OR_RETURN(value.integer, ParseSize(text));
        QWEN_RETURN_IF_ERROR(CheckRange(text, value.integer, row.range, ParseSize));
        break;
      }
      case FlagType::kChoice: {
        std::vector<std::string_view> words = Cut(row.unit, '|');
        if (std::find(words.begin(), words.end(), text) == words.end()) {
          std::string_view nearest = NearestWord(text, words);
          std::string hint = nearest.empty() ? std::string() : fmt::format("did you mean {}?", nearest);
          return InvalidArgumentError(fmt::format("'{}' is none of {}", text, row.unit), std::move(hint));
        }
        value.texts = {std::string(text)};
        break;
      }
      case FlagType::kText:
        value.texts = {std::string(text)};
        break;
      case FlagType::kTexts:
        value.texts.emplace_back(text);
        break;
    }
    value.present = true;
    value.given |= given;
    return {};
  }

  Status SetFromEnvironment(const FlagRow& row, std::span<const std::string> environment) {
    std::string name = EnvironmentName(table_.program, LongName(row));
    for (const std::string& entry : environment) {
      // An empty variable is how a script says "not set".
      if (entry.size() <= name.size() + 1 || !entry.starts_with(name) || entry[name.size()] != '=') continue;
      if (row.type == FlagType::kTexts) flags_.values_.find(LongName(row))->second.texts.clear();
      QWEN_RETURN_IF_ERROR(Set(row, std::string_view(entry).substr(name.size() + 1), true).Annotate(name));
    }
    return {};
  }

  void WarnOfUnknownNames(std::span<const std::string> environment) {
    std::string prefix = EnvironmentName(table_.program, "");
    std::set<std::string> known;
    for (const FlagRow& row : table_.flags) known.insert(EnvironmentName(table_.program, LongName(row)));
    std::vector<std::string_view> candidates(known.begin(), known.end());
    std::string unknown;
    for (const std::string& entry : environment) {
      std::string name = entry.substr(0, entry.find('='));
      if (!name.starts_with(prefix) || known.count(name)) continue;
      unknown += (unknown.empty() ? "" : ", ") + name;
      if (std::string_view nearest = NearestWord(name, candidates); !nearest.empty())
        unknown += fmt::format(" (did you mean {}?)", nearest);
    }
    if (!unknown.empty())
      flags_.warnings_.push_back(fmt::format("the environment has {}, which no flag reads", unknown));
  }

  bool IsFlag(std::string_view word) const {
    if (!word.starts_with("--")) return false;
    word.remove_prefix(2);
    for (const FlagRow* row : rows_)
      if (LongName(*row) == word) return true;
    return false;
  }

  Status UnknownFlag(std::string_view word) const {
    std::string_view name = word.substr(0, word.find('='));
    if (name.starts_with("--")) {
      std::vector<std::string> names;
      for (const FlagRow* row : rows_) {
        names.push_back(fmt::format("--{}", LongName(*row)));
        if (row->type == FlagType::kBool) names.push_back(fmt::format("--no-{}", LongName(*row)));
      }
      std::vector<std::string_view> candidates(names.begin(), names.end());
      if (std::string_view nearest = NearestWord(name, candidates); !nearest.empty())
        return InvalidArgumentError(fmt::format("{}: unknown flag, did you mean {}?", name, nearest));
      for (const FlagRow& row : table_.flags)
        if (LongName(row) == name.substr(2))
          return InvalidArgumentError(
              fmt::format("{}: unknown flag here, it belongs to {}", name, fmt::join(Words(row.commands), ", ")));
    }
    return InvalidArgumentError(fmt::format("{}: unknown flag, see {} {} --help", name, table_.program, command_.name));
  }

  const FlagTable& table_;
  const CommandRow& command_;
  std::vector<const FlagRow*> rows_;
  std::vector<std::string_view> argument_names_;
  Flags flags_;
};

StatusOr<Flags> ParseFlags(const FlagTable& table, std::string_view command, std::span<const std::string> args,
                           std::span<const std::string> environment) {
  const CommandRow* row = FindCommand(table, command);
  if (row) return FlagParser(table, *row).Parse(args, environment);
  std::vector<std::string_view> names;
  for (const CommandRow& known : table.commands) names.push_back(known.name);
  std::string_view nearest = NearestWord(command, names);
  if (nearest.empty())
    return InvalidArgumentError(fmt::format("{}: unknown command, see {} --help", command, table.program));
  return InvalidArgumentError(fmt::format("{}: unknown command, did you mean {}?", command, nearest));
}

Status CheckFlagTable(const FlagTable& table) {
  auto wrong = [](std::string_view row, std::string_view why) {
    return InternalError(fmt::format("flag table: {}: {}", row, why));
  };
  for (const ExampleRow& row : table.examples) {
    if (!FindCommand(table, row.command)) return wrong(row.line, "no such command");
    if (row.line.size() + 2 > kColumns) return wrong(row.line, "longer than a help line");
  }
  for (const FlagRow& row : table.flags) {
    for (std::string_view word : Words(row.commands))
      if (word != "*" && !FindCommand(table, word)) return wrong(row.name, fmt::format("no command {}", word));
    bool full_stop = row.help.ends_with('.') && !row.help.ends_with("...");
    if (row.group.empty() || row.help.empty() || full_stop) return wrong(row.name, "group or sentence");
    bool number = row.type == FlagType::kInt || row.type == FlagType::kReal || row.type == FlagType::kSize;
    if (row.type != FlagType::kBool && row.unit.empty()) return wrong(row.name, "no unit");
    if (!number && !row.range.empty()) return wrong(row.name, "a range without a number");
    std::optional<Ends> ends = CutRange(row.range);
    if (!ends) return wrong(row.name, "range");
    for (std::string_view end : {ends->low, ends->high}) {
      bool ok = end.empty() || (row.type == FlagType::kInt    ? ParseInteger(end).ok()
                                : row.type == FlagType::kSize ? ParseSize(end).ok()
                                                              : ParseReal(end).ok());
      if (!ok) return wrong(row.name, "range");
    }
  }
  for (const CommandRow& command : table.commands) {
    std::set<std::string_view> names;
    FlagParser parser(table, command);
    for (const FlagRow& row : table.flags) {
      if (!AppliesTo(row, command.name)) continue;
      for (std::string_view name : Cut(row.name, ','))
        if (!names.insert(name).second || name == "help" || name == "version" || name.starts_with("no-"))
          return wrong(row.name, "name used twice or reserved");
      QWEN_RETURN_IF_ERROR(parser.SetFallback(row).Annotate(std::string(row.name)));
    }
    if (std::none_of(table.examples.begin(), table.examples.end(),
                     [&](const ExampleRow& row) { return row.command == command.name; }))
      return wrong(command.name, "no example");
  }
  return {};
}

// --- Help ------------------------------------------------------------------------------------------------------------

std::string HelpText(const FlagTable& table, std::string_view command) {
  const CommandRow* row = FindCommand(table, command);
  std::string out;
  if (!row) {
    out = Wrap(fmt::format("{}: {}", table.program, table.summary), kColumns - 2, 2) + "\n\n" + ShortUsage(table);
  } else {
    out = Wrap(fmt::format("{} {}: {}", table.program, row->name, row->summary), kColumns - 2, 2);
    out += fmt::format("\n\n{}\n", Usage(table, *row));
    std::vector<std::string_view> groups;
    for (const FlagRow& flag : table.flags)
      if (AppliesTo(flag, command) && std::find(groups.begin(), groups.end(), flag.group) == groups.end())
        groups.push_back(flag.group);
    for (std::string_view group : groups) {
      out += fmt::format("\n{}:\n", group);
      for (const FlagRow& flag : table.flags) {
        if (!AppliesTo(flag, command) || flag.group != group) continue;
        std::string left = "  ";
        if (!ShortName(flag).empty()) left += fmt::format("-{}, ", ShortName(flag));
        left += fmt::format("--{}{}", flag.type == FlagType::kBool ? "[no-]" : "", LongName(flag));
        if (flag.type != FlagType::kBool) left += fmt::format(" {}", flag.unit);
        std::string fallback(flag.fallback);
        if (IsWords(flag.fallback)) fallback = fallback.substr(1, fallback.size() - 2);
        if (flag.type == FlagType::kBool && fallback.empty()) fallback = "off";
        std::string right = fmt::format("{} [", flag.help);
        if (!fallback.empty()) right += fmt::format("default {}; ", fallback);
        if (!flag.range.empty()) right += fmt::format("range {}; ", flag.range);
        right += EnvironmentName(table.program, LongName(flag)) + "]";
        left += left.size() + 2 > kHelpColumn ? '\n' + std::string(kHelpColumn, ' ')
                                              : std::string(kHelpColumn - left.size(), ' ');
        out += left + Wrap(right, kColumns - kHelpColumn, kHelpColumn) + '\n';
      }
    }
  }
  out += "\nexamples:\n";
  int shown = 0;
  for (const ExampleRow& example : table.examples)
    if ((!row || example.command == command) && shown++ < 3) out += fmt::format("  {}\n", example.line);
  return out;
}

std::string BuildText(std::string_view program) {
#if defined(__clang__)
  std::string compiler = fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  std::string compiler = fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
  return fmt::format("{} {} ({}, {})", program, QWEN_VERSION, QWEN_BUILD_TYPE, compiler);
}

int RunTool(const FlagTable& table, std::string_view version, int argc, char** argv,
            const std::function<Status(const Flags&)>& body) {
  std::string command;
  try {
    if (argc < 2) {
      fmt::print(stderr, "{}", ShortUsage(table));
      return 2;
    }
    std::vector<std::string> args(argv + 2, argv + argc);
    std::string first = argv[1];
    std::optional<std::string> text;
    if (first == "--help" || first == "-h") text = HelpText(table, "");
    if (first == "--version") text = std::string(version);
    if (FindCommand(table, first)) {
      command = first;
      auto end = std::find(args.begin(), args.end(), "--");
      for (auto it = args.begin(); it != end && !text; ++it) {
        if (*it == "--help" || *it == "-h") text = HelpText(table, command);
        if (*it == "--version") text = std::string(version);
      }
    } else if (!text && first.starts_with('-')) {
      return PrintError(table.program, "",
                        InvalidArgumentError(fmt::format("{}: expected a command first", first),
                                             fmt::format("see {} --help", table.program)));
    }

    Status status;
    if (text) {
      fmt::print("{}", *text);
    } else {
      std::vector<std::string> environment;
      for (char** entry = environ; *entry; ++entry) environment.emplace_back(*entry);
      StatusOr<Flags> flags = ParseFlags(table, first, args, environment);
      if (!flags.ok()) return PrintError(table.program, command, flags.status());
      for (const std::string& warning : flags->warnings()) PrintWarning(table.program, warning);
      status = body(*flags);
    }
    // A full disk shows only here.
    if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout)))
      status = ResourceExhaustedError("stdout: the results could not be written");
    return status.ok() ? 0 : PrintError(table.program, command, status);
  } catch (const std::bad_alloc&) {
    return PrintError(table.program, command, ResourceExhaustedError("out of memory"));
  } catch (const std::exception& error) {
    return PrintError(table.program, command, InternalError(error.what(), "this is a bug, please report it"));
  }
}

}  // namespace qwen
