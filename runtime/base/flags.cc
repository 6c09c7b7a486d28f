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
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/signals.h"
#include "runtime/base/version.h"

namespace qwen {
namespace {

constexpr FlagRow kCommonRows[] = {
    {"*", "config", FlagType::kText, "", "FILE", "", "Common",
     "a JSON object of flags, long names as keys; environment and command line win over it"},
    {"*", "print-config", FlagType::kBool, "off", "", "", "Common",
     "prints every flag's value and where it comes from, and does nothing else"},
    {"*", "json", FlagType::kBool, "off", "", "", "Common", "--print-config and --version as JSON"},
    {"*", "progress", FlagType::kChoice, "auto", "auto|bar|plain|json|none", "", "Common",
     "how stderr shows long work; auto is a bar on a terminal, lines elsewhere"},
    {"*", "color", FlagType::kChoice, "auto", "auto|always|never", "", "Common",
     "colours on stderr; auto has them on a terminal, unless NO_COLOR is set or TERM is dumb"},
    {"*", "debug", FlagType::kBool, "off", "", "", kExpertGroup,
     "prints where a crash was; an exception that should not be counts as one"},
};
constexpr CommandRow kCommonCommands[] = {
    {"completion", "bash|zsh|fish", "prints the completion script of a shell"},
};

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr JsonLimits kConfigLimits = {.max_bytes = kMaxConfigBytes, .max_values = 4096, .max_depth = 4};

/// Every way to write a flag: "--json", "-j"; with a '!' in front where it turns a boolean off: "!--no-json".
std::vector<std::string> Spellings(const FlagRow& row) {
  std::vector<std::string> names = {fmt::format("--{}", row.LongName())};
  if (!row.ShortName().empty()) names.push_back(fmt::format("-{}", row.ShortName()));
  for (std::string_view alias : row.Aliases()) names.emplace_back(alias);
  if (row.type != FlagType::kBool) return names;
  for (size_t i = 0, end = names.size(); i < end; ++i)
    if (names[i].starts_with("--")) names.push_back("!--no-" + names[i].substr(2));
  return names;
}

/// "--json" of "!--json" and "--json=on".
std::string_view Spelled(std::string_view word) {
  if (word.starts_with('!')) word.remove_prefix(1);
  return word.substr(0, word.find('='));
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

}  // namespace

// --- Rows ------------------------------------------------------------------------------------------------------------

std::vector<std::string_view> CutAt(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string_view> BlankWords(std::string_view text) {
  std::vector<std::string_view> words = CutAt(text, ' ');
  std::erase(words, std::string_view());
  return words;
}

std::string_view FlagRow::LongName() const { return name.substr(0, name.find(',')); }

std::string_view FlagRow::ShortName() const {
  for (std::string_view part : CutAt(name, ','))
    if (part.size() == 1) return part;
  return {};
}

std::vector<std::string_view> FlagRow::Aliases() const {
  std::vector<std::string_view> aliases = CutAt(name, ',');
  std::erase_if(aliases, [](std::string_view part) { return !part.starts_with('-') && !part.starts_with('!'); });
  return aliases;
}

bool FlagRow::AppliesTo(std::string_view command) const {
  for (std::string_view word : BlankWords(commands))
    if (word == "*" || word == command) return true;
  return false;
}

std::vector<const FlagRow*> RowsOf(const FlagTable& table, std::string_view command) {
  std::vector<const FlagRow*> rows;
  for (const FlagRow& row : table.flags)
    if (row.AppliesTo(command)) rows.push_back(&row);
  size_t own = rows.size();
  for (const FlagRow& row : kCommonRows)
    if (std::none_of(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(own),
                     [&](const FlagRow* other) { return other->LongName() == row.LongName(); }))
      rows.push_back(&row);
  return rows;
}

std::vector<const CommandRow*> CommandsOf(const FlagTable& table) {
  std::vector<const CommandRow*> rows;
  for (const CommandRow& row : table.commands) rows.push_back(&row);
  for (const CommandRow& row : kCommonCommands) rows.push_back(&row);
  return rows;
}

const CommandRow* FindCommand(const FlagTable& table, std::string_view name) {
  for (const CommandRow* row : CommandsOf(table))
    if (row->name == name) return row;
  return nullptr;
}

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

StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  struct Unit {
    std::string_view name;
    double milliseconds;
  };
  constexpr Unit kUnits[] = {{"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
  std::string_view digits = text;
  double scale = 1e3;
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.name)) continue;
    digits.remove_suffix(unit.name.size());
    scale = unit.milliseconds;
    break;
  }
  StatusOr<double> value = ParseReal(digits);
  if (!value.ok() || *value < 0)
    return InvalidArgumentError(fmt::format("'{}' is not a duration", text),
                                "durations look like 250ms, 30s, 5m or 1h");
  if (*value * scale >= 0x1p63) return InvalidArgumentError(fmt::format("{} does not fit 64 bits", text));
  // Rounded: 1.001 s is 1000.9999999999999 ms in binary.
  return std::chrono::milliseconds(static_cast<int64_t>(*value * scale + 0.5));
}

StatusOr<std::vector<int64_t>> ParseIntegers(std::string_view text) {
  std::vector<int64_t> values;
  for (std::string_view part : CutAt(text, ',')) {
    StatusOr<int64_t> value = ParseInteger(part);
    if (!value.ok()) return value.status();
    values.push_back(*value);
  }
  return values;
}

StatusOr<std::vector<std::string>> ParseWords(std::string_view text) {
  std::vector<std::string> words;
  for (std::string_view part : CutAt(text, ',')) {
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

const Flags::Value& Flags::Find(std::string_view name) const {
  auto it = values_.find(name);
  assert(it != values_.end() && "the command has no such flag");
  return it->second;
}

const Flags::Value& Flags::Find(std::string_view name, FlagType type) const {
  const Value& value = Find(name);
  assert(value.type == type && "the flag has another type");
  return value;
}

bool Flags::Given(std::string_view name) const { return Find(name).origin > Origin::kPlan; }
bool Flags::HasValue(std::string_view name) const { return Find(name).present; }
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

std::chrono::milliseconds Flags::Duration(std::string_view name) const {
  const Value& value = Find(name, FlagType::kDuration);
  assert(value.present && "ask HasValue first");
  return std::chrono::milliseconds(value.integer);
}

const std::string& Flags::Text(std::string_view name) const {
  static const std::string kEmpty;
  const Value& value = Find(name);
  assert((value.type == FlagType::kText || value.type == FlagType::kSecret) && "the flag has another type");
  return value.present ? value.texts.back() : kEmpty;
}

const std::vector<std::string>& Flags::Texts(std::string_view name) const { return Find(name, FlagType::kTexts).texts; }

const std::string& Flags::Choice(std::string_view name) const {
  static const std::string kEmpty;
  const Value& value = Find(name, FlagType::kChoice);
  return value.present ? value.texts.back() : kEmpty;
}

std::string Flags::Settings(bool json) const {
  constexpr std::string_view kOrigins[] = {"built-in", "plan", "config", "environment", "flag"};
  auto text = [](const Value& value) -> std::string {
    if (!value.present) return value.absent;
    if (value.type == FlagType::kSecret) return "(hidden)";
    if (value.type == FlagType::kBool) return value.boolean ? "on" : "off";
    return EscapeControl(fmt::format("{}", fmt::join(value.texts, " ")));
  };
  auto literal = [&](const Value& value) -> std::string {
    if (!value.present) return "null";
    if (value.type == FlagType::kBool) return value.boolean ? "true" : "false";
    if (value.type == FlagType::kInt || value.type == FlagType::kSize) return std::to_string(value.integer);
    if (value.type == FlagType::kReal) return fmt::format("{}", value.real);
    if (value.type != FlagType::kTexts) return JsonQuote(text(value));
    std::vector<std::string> items;
    for (const std::string& item : value.texts) items.push_back(JsonQuote(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  };
  std::string out;
  size_t name_width = 0, text_width = 0;
  for (const auto& [name, value] : values_) {
    name_width = std::max(name_width, name.size());
    text_width = std::max(text_width, std::min<size_t>(text(value).size(), 40));
  }
  for (const auto& [name, value] : values_) {
    std::string_view origin = kOrigins[static_cast<size_t>(value.origin)];
    if (json)
      out += fmt::format("{}\"{}\": {{\"value\": {}, \"origin\": \"{}\"{}}}", out.empty() ? "" : ", ", name,
                         literal(value), origin, value.from.empty() ? "" : ", \"from\": " + JsonQuote(value.from));
    else
      out += fmt::format("{:<{}}  {:<{}}  {}{}\n", name, name_width, text(value), text_width, origin,
                         value.from.empty() ? "" : ' ' + EscapeControl(value.from));
  }
  return json ? fmt::format("{{{}}}\n", out) : out;
}

// --- Parsing ---------------------------------------------------------------------------------------------------------

class FlagParser {
 public:
  using Origin = Flags::Origin;

  FlagParser(const FlagTable& table, const CommandRow& command)
      : table_(table), command_(command), rows_(RowsOf(table, command.name)) {
    flags_.command_ = std::string(command.name);
  }

  StatusOr<Flags> Parse(std::span<const std::string> args, const FlagSources& sources) {
    QWEN_RETURN_IF_ERROR(Split(args));
    for (const FlagRow* row : rows_) QWEN_RETURN_IF_ERROR(SetFallback(*row).Annotate(Spellings(*row)[0]));
    // From the weakest source to the strongest, but for the name of the file to read.
    const FlagRow& config = *FindRow("--config");
    QWEN_RETURN_IF_ERROR(SetFromEnvironment(config, sources.environment));
    QWEN_RETURN_IF_ERROR(SetFromWords(config));
    if (flags_.HasValue("config")) QWEN_RETURN_IF_ERROR(SetFromConfig(flags_.Text("config"), sources.read_config));
    for (const FlagRow* row : rows_) {
      if (row == &config) continue;
      QWEN_RETURN_IF_ERROR(SetFromEnvironment(*row, sources.environment));
      QWEN_RETURN_IF_ERROR(SetFromWords(*row));
    }
    QWEN_RETURN_IF_ERROR(CheckArguments());
    WarnOfUnknownNames(sources.environment);
    if (flags_.Bool("print-config") && sources.plan_values &&
        flags_.arguments_.size() == BlankWords(command_.arguments).size()) {
      QWEN_ASSIGN_OR_RETURN(std::vector<PlanValue> values, sources.plan_values(flags_));
      for (const PlanValue& value : values)
        if (const FlagRow* row = FindRow("--" + value.flag);
            row && row->fallback == kPlanFallback && !flags_.Given(row->LongName()))
          QWEN_RETURN_IF_ERROR(Set(*row, value.text, Origin::kPlan).Annotate("plan: " + value.flag));
    }
    return std::move(flags_);
  }

  Status SetFallback(const FlagRow& row) {
    Flags::Value& value = flags_.values_[std::string(row.LongName())];
    value.type = row.type;
    value.absent = row.fallback.empty() ? "(none)" : row.fallback;
    if (row.type == FlagType::kBool) value.present = true;
    if (row.fallback.empty() || IsWords(row.fallback)) return {};
    return Set(row, row.fallback, Origin::kBuiltIn);
  }

 private:
  /// Which words are whose: words_ has a list for each of rows_.
  Status Split(std::span<const std::string> args) {
    CLI::App app;
    app.allow_extras();
    app.allow_windows_style_options(false);
    app.set_help_flag();
    std::vector<CLI::Option*> options;
    for (const FlagRow* row : rows_) {
      std::string names;
      for (const std::string& name : Spellings(*row))
        if (!IsSingleDashWord(Spelled(name))) names += (names.empty() ? "" : ",") + name;
      options.push_back(row->type == FlagType::kBool ? app.add_flag(names)
                                                     : app.add_option(names)->allow_extra_args(false)->expected(1));
      options.back()->take_all();
    }
    std::vector<CLI::Option*> arguments;
    // Names that CLI11 cannot take for a flag's.
    for (size_t i = 0; i < BlankWords(command_.arguments).size(); ++i)
      arguments.push_back(app.add_option("argument" + std::to_string(i))->expected(1));

    std::vector<std::string> words(args.begin(), args.end());
    for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
      // CLI11 would take the next word for the value.
      if (words[i].starts_with("--") && words[i].find('=') == words[i].size() - 1)
        return InvalidArgumentError(fmt::format("{}: the value is missing", Spelled(words[i])));
      const FlagRow* row = FindRow(words[i]);
      if (!row) continue;
      // Nor does it know names like -np.
      if (IsSingleDashWord(Spelled(words[i]))) words[i].replace(0, Spelled(words[i]).size(), Spellings(*row)[0]);
      if (row->type != FlagType::kBool && words[i].find('=') == std::string::npos) ++i;
    }
    try {
      app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    } catch (const CLI::ArgumentMismatch&) {
      return InvalidArgumentError(fmt::format("{}: the value is missing", words.back()));
    } catch (const CLI::ParseError& error) {
      return InvalidArgumentError(error.what());
    }
    for (const std::string& word : app.remaining()) {
      if (word == "--") continue;
      if (word.size() > 1 && word.starts_with('-')) return UnknownFlag(word);
      return InvalidArgumentError(fmt::format("'{}' is one argument too many", word), UsageLine(table_, command_));
    }
    for (CLI::Option* option : options) words_.push_back(option->results());
    for (CLI::Option* argument : arguments)
      if (!argument->results().empty()) flags_.arguments_.push_back(argument->results().back());
    return {};
  }

  static bool IsSingleDashWord(std::string_view name) {
    return name.size() > 2 && name.starts_with('-') && !name.starts_with("--");
  }

  /// The row that `word`, perhaps with a value behind a '=', is a spelling of.
  const FlagRow* FindRow(std::string_view word) const {
    for (const FlagRow* row : rows_)
      for (const std::string& name : Spellings(*row))
        if (Spelled(name) == Spelled(word)) return row;
    return nullptr;
  }

  Status Set(const FlagRow& row, std::string_view text, Origin origin, std::string_view from = {}) {
    Flags::Value& value = flags_.values_[std::string(row.LongName())];
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
      case FlagType::kDuration: {
        QWEN_ASSIGN_OR_RETURN(std::chrono::milliseconds duration, ParseDuration(text));
        QWEN_RETURN_IF_ERROR(CheckRange(text, duration, row.range, ParseDuration));
        value.integer = duration.count();
        break;
      }
      case FlagType::kChoice:
        QWEN_RETURN_IF_ERROR(CheckChoice(text, row.unit));
        break;
      case FlagType::kText:
      case FlagType::kSecret:
      case FlagType::kTexts:
        break;
    }
    // A list grows within a source; the next source starts it anew.
    if (row.type != FlagType::kTexts || origin != value.origin) value.texts.clear();
    value.texts.emplace_back(text);
    value.present = true;
    value.origin = origin;
    value.from = from;
    return {};
  }

  static Status CheckChoice(std::string_view text, std::string_view choices) {
    std::vector<std::string_view> words = CutAt(choices, '|');
    if (std::find(words.begin(), words.end(), text) != words.end()) return {};
    std::string_view nearest = NearestWord(text, words);
    std::string hint = nearest.empty() ? std::string() : fmt::format("did you mean {}?", nearest);
    return InvalidArgumentError(fmt::format("'{}' is none of {}", text, choices), std::move(hint));
  }

  Status SetFromWords(const FlagRow& row) {
    size_t index = static_cast<size_t>(std::find(rows_.begin(), rows_.end(), &row) - rows_.begin());
    std::string where = Spellings(row)[0];
    for (const std::string& text : words_[index]) {
      if (text.starts_with("--") && text.find('=') == std::string::npos && FindRow(text))
        return InvalidArgumentError(fmt::format("{}: the value is missing in front of {}", where, text));
      QWEN_RETURN_IF_ERROR(Set(row, text, Origin::kFlag).Annotate(where));
    }
    return {};
  }

  Status SetFromEnvironment(const FlagRow& row, std::span<const std::string> environment) {
    std::string name = EnvironmentName(table_.program, row.LongName());
    for (const std::string& entry : environment) {
      // An empty variable is how a script says "not set".
      if (entry.size() <= name.size() + 1 || !entry.starts_with(name) || entry[name.size()] != '=') continue;
      QWEN_RETURN_IF_ERROR(
          Set(row, std::string_view(entry).substr(name.size() + 1), Origin::kEnvironment, name).Annotate(name));
    }
    return {};
  }

  Status SetFromConfig(const std::string& path,
                       const std::function<StatusOr<std::string>(const std::string& path)>& read) {
    QWEN_ASSIGN_OR_RETURN(std::string text, read ? read(path) : ReadFile(path, kMaxConfigBytes));
    QWEN_ASSIGN_OR_RETURN(Json json, ParseJson(text, path, kConfigLimits));
    if (!json.IsObject())
      return DataLossError(fmt::format("{}: expected an object of flags, got {}", path, json.KindName()));
    for (const auto& [key, value] : json.members()) {
      std::string where = fmt::format("{}:{}", path, JsonPointer("", key));
      auto named = [&](const FlagRow& row) { return IsKeyOf(row, key); };
      auto found = std::find_if(rows_.begin(), rows_.end(), [&](const FlagRow* row) { return named(*row); });
      // One file serves all commands.
      if (found == rows_.end() && std::any_of(table_.flags.begin(), table_.flags.end(), named)) continue;
      if (found == rows_.end()) return UnknownKey(key).Annotate(where);
      const FlagRow* row = *found;
      if (row->LongName() == "config" || row->LongName() == "print-config")
        return InvalidArgumentError(fmt::format("{}: a config file cannot set it", where));
      StatusOr<std::vector<std::string>> texts = TextsOf(*row, value);
      if (!texts.ok()) return texts.status().Annotate(where);
      for (const std::string& one : *texts) QWEN_RETURN_IF_ERROR(Set(*row, one, Origin::kConfig, path).Annotate(where));
    }
    return {};
  }

  static bool IsKeyOf(const FlagRow& row, std::string_view key) {
    std::vector<std::string_view> aliases = row.Aliases();
    return row.LongName() == key || std::any_of(aliases.begin(), aliases.end(), [&](std::string_view alias) {
             return alias.starts_with("--") && alias.substr(2) == key;
           });
  }

  /// What the command line would say for a JSON value.
  static StatusOr<std::vector<std::string>> TextsOf(const FlagRow& row, const Json& value) {
    bool number = row.type == FlagType::kInt || row.type == FlagType::kReal || row.type == FlagType::kSize ||
                  row.type == FlagType::kDuration;
    if (value.IsString()) return std::vector{value.AsString()};
    if (value.IsBool() && row.type == FlagType::kBool) return std::vector<std::string>{value.AsBool() ? "on" : "off"};
    if (value.IsInteger() && number) return std::vector{std::to_string(value.AsInteger())};
    if (value.IsNumber() && number) return std::vector{fmt::format("{}", value.AsNumber())};
    if (value.IsArray() && row.type == FlagType::kTexts) {
      std::vector<std::string> texts;
      for (const Json& item : value.items()) {
        if (!item.IsString())
          return InvalidArgumentError(fmt::format("expected strings in the array, got {}", item.KindName()));
        texts.push_back(item.AsString());
      }
      return texts;
    }
    return InvalidArgumentError(fmt::format("expected {}, got {}",
                                            row.type == FlagType::kBool    ? "true or false"
                                            : row.type == FlagType::kTexts ? "an array of strings"
                                            : number                       ? "a number"
                                                                           : "a string",
                                            value.KindName()));
  }

  Status CheckArguments() {
    std::vector<std::string_view> names = BlankWords(command_.arguments);
    for (size_t i = 0; i < flags_.arguments_.size(); ++i) {
      if (flags_.arguments_[i].empty())
        return InvalidArgumentError(fmt::format("{} is empty", names[i]), UsageLine(table_, command_));
      if (names[i].find('|') != std::string_view::npos)
        QWEN_RETURN_IF_ERROR(CheckChoice(flags_.arguments_[i], names[i]));
    }
    if (flags_.arguments_.size() < names.size() && !flags_.Bool("print-config"))
      return InvalidArgumentError(fmt::format("{} is missing", names[flags_.arguments_.size()]),
                                  UsageLine(table_, command_));
    return {};
  }

  void WarnOfUnknownNames(std::span<const std::string> environment) {
    std::string prefix = EnvironmentName(table_.program, "");
    std::set<std::string> known;
    for (const FlagRow& row : table_.flags) known.insert(EnvironmentName(table_.program, row.LongName()));
    for (const FlagRow& row : kCommonRows) known.insert(EnvironmentName(table_.program, row.LongName()));
    for (const EnvironmentRow& row : table_.environment) known.emplace(row.name);
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

  Status UnknownFlag(std::string_view word) const {
    std::string_view name = Spelled(word);
    if (name.starts_with("--")) {
      std::vector<std::string> names;
      for (const FlagRow* row : rows_)
        for (const std::string& spelling : Spellings(*row)) names.emplace_back(Spelled(spelling));
      std::vector<std::string_view> candidates(names.begin(), names.end());
      if (std::string_view nearest = NearestWord(name, candidates); !nearest.empty())
        return InvalidArgumentError(fmt::format("{}: unknown flag, did you mean {}?", name, nearest));
      for (const FlagRow& row : table_.flags)
        if (row.LongName() == name.substr(2))
          return InvalidArgumentError(
              fmt::format("{}: unknown flag here, it belongs to {}", name, fmt::join(BlankWords(row.commands), ", ")));
    }
    return InvalidArgumentError(fmt::format("{}: unknown flag, see {} {} --help", name, table_.program, command_.name));
  }

  Status UnknownKey(std::string_view key) const {
    std::vector<std::string_view> candidates;
    for (const FlagRow& row : table_.flags) candidates.push_back(row.LongName());
    for (const FlagRow& row : kCommonRows) candidates.push_back(row.LongName());
    std::string_view nearest = NearestWord(key, candidates);
    return InvalidArgumentError("no flag has this name",
                                nearest.empty() ? std::string() : fmt::format("did you mean {}?", nearest));
  }

  const FlagTable& table_;
  const CommandRow& command_;
  const std::vector<const FlagRow*> rows_;
  std::vector<std::vector<std::string>> words_;
  Flags flags_;
};

StatusOr<Flags> ParseFlags(const FlagTable& table, std::string_view command, std::span<const std::string> args,
                           const FlagSources& sources) {
  const CommandRow* row = FindCommand(table, command);
  if (row) return FlagParser(table, *row).Parse(args, sources);
  std::vector<std::string_view> names;
  for (const CommandRow* known : CommandsOf(table)) names.push_back(known->name);
  std::string_view nearest = NearestWord(command, names);
  if (nearest.empty())
    return InvalidArgumentError(fmt::format("{}: unknown command, see {} --help", command, table.program));
  return InvalidArgumentError(fmt::format("{}: unknown command, did you mean {}?", command, nearest));
}

Status CheckFlagTable(const FlagTable& table) {
  auto wrong = [](std::string_view row, std::string_view why) {
    return InternalError(fmt::format("flag table: {}: {}", row, why));
  };
  constexpr std::string_view kReserved[] = {"help",   "help-all",     "version",  "man",   "reference",
                                            "config", "print-config", "progress", "color", "debug"};
  for (const ExampleRow& row : table.examples) {
    if (!FindCommand(table, row.command)) return wrong(row.line, "no such command");
    if (row.line.size() + 2 > 100) return wrong(row.line, "longer than a help line");
  }
  for (const FlagRow& row : table.flags) {
    for (std::string_view word : BlankWords(row.commands))
      if (word != "*" && !FindCommand(table, word)) return wrong(row.LongName(), fmt::format("no command {}", word));
    bool full_stop = row.help.ends_with('.') && !row.help.ends_with("...");
    if (row.group.empty() || row.help.empty() || full_stop) return wrong(row.LongName(), "group or sentence");
    bool number = row.type == FlagType::kInt || row.type == FlagType::kReal || row.type == FlagType::kSize ||
                  row.type == FlagType::kDuration;
    if (row.type != FlagType::kBool && row.unit.empty()) return wrong(row.LongName(), "no unit");
    if (!number && !row.range.empty()) return wrong(row.LongName(), "a range without a number");
    std::optional<Ends> ends = CutRange(row.range);
    if (!ends) return wrong(row.LongName(), "range");
    for (std::string_view end : {ends->low, ends->high}) {
      bool ok = end.empty() || (row.type == FlagType::kInt        ? ParseInteger(end).ok()
                                : row.type == FlagType::kSize     ? ParseSize(end).ok()
                                : row.type == FlagType::kDuration ? ParseDuration(end).ok()
                                                                  : ParseReal(end).ok());
      if (!ok) return wrong(row.LongName(), "range");
    }
    if (std::find(std::begin(kReserved), std::end(kReserved), row.LongName()) != std::end(kReserved))
      return wrong(row.LongName(), "the name is reserved");
    size_t parts = 1 + !row.ShortName().empty() + row.Aliases().size();
    if (parts != CutAt(row.name, ',').size()) return wrong(row.LongName(), "an alias needs its dashes");
  }
  for (const CommandRow& command : table.commands) {
    std::set<std::string, std::less<>> names;
    FlagParser parser(table, command);
    for (const FlagRow* row : RowsOf(table, command.name)) {
      for (const std::string& name : Spellings(*row))
        if (!names.emplace(Spelled(name)).second)
          return wrong(row->LongName(), fmt::format("{} is used twice", Spelled(name)));
      QWEN_RETURN_IF_ERROR(parser.SetFallback(*row).Annotate(std::string(row->LongName())));
    }
    if (std::count_if(table.examples.begin(), table.examples.end(),
                      [&](const ExampleRow& row) { return row.command == command.name; }) < 3)
      return wrong(command.name, "fewer than three examples");
  }
  return {};
}

// --- Programs --------------------------------------------------------------------------------------------------------

namespace {

std::string VersionText(const Tool& tool, bool json) {
  BuildInfo build = ThisBuild();
  std::vector<VersionField> fields;
  if (tool.version) fields = tool.version();
  std::string out;
  if (json) {
    out = fmt::format("{{\"program\": {}, \"version\": {}, \"commit\": {}, \"build_type\": {}, \"compiler\": {}",
                      JsonQuote(tool.table.program), JsonQuote(build.version), JsonQuote(build.commit),
                      JsonQuote(build.build_type), JsonQuote(build.compiler));
    for (const VersionField& field : fields) out += fmt::format(", {}: {}", JsonQuote(field.key), field.json);
    return out + "}\n";
  }
  out = fmt::format("{} {} ({}, {})\ncommit {}\n", tool.table.program, build.version, build.build_type, build.compiler,
                    build.commit);
  for (const VersionField& field : fields) {
    std::string key = field.key;
    std::replace(key.begin(), key.end(), '_', ' ');
    out += fmt::format("{} {}\n", key, field.text);
  }
  return out;
}

std::optional<ColorMode> ColorModeOf(std::string_view word) {
  if (word == "auto") return ColorMode::kAuto;
  if (word == "always") return ColorMode::kAlways;
  if (word == "never") return ColorMode::kNever;
  return std::nullopt;
}

/// What a command line asks for; `command` is set as soon as it is known.
Status RunWords(const Tool& tool, std::span<const std::string> words, std::string& command) {
  const FlagTable& table = tool.table;
  auto end = std::find(words.begin(), words.end(), "--");
  auto has = [&](std::string_view word) { return std::find(words.begin(), end, word) != end; };
  auto print = [](std::string_view text) { fmt::print("{}", text); };
  // Parsing itself may have an error to colour.
  for (auto word = words.begin(); word != end; ++word) {
    std::string_view value = word->starts_with("--color=")           ? std::string_view(*word).substr(8)
                             : *word == "--color" && word + 1 != end ? std::string_view(word[1])
                                                                     : std::string_view();
    if (std::optional<ColorMode> mode = ColorModeOf(value)) SetColorMode(*mode);
  }

  const std::string& first = words[0];
  bool known = FindCommand(table, first) != nullptr;
  if (known) command = first;
  if (known || first.starts_with('-')) {
    if (has("--help-all")) return print(HelpText(table, command, /*all=*/true)), Status();
    if (has("--help") || has("-h")) return print(HelpText(table, command)), Status();
    if (has("--version")) return print(VersionText(tool, has("--json"))), Status();
  }
  if (first == "--man") return print(ManPage(table)), Status();
  if (first == "--reference") return print(ReferencePage(table)), Status();
  if (!known && first.starts_with('-'))
    return InvalidArgumentError(fmt::format("{}: expected a command first", first),
                                fmt::format("see {} --help", table.program));

  std::vector<std::string> environment;
  for (char** entry = environ; *entry; ++entry) environment.emplace_back(*entry);
  QWEN_ASSIGN_OR_RETURN(Flags flags, ParseFlags(table, first, words.subspan(1),
                                                {.environment = environment, .plan_values = tool.plan_values}));
  if (std::optional<ColorMode> mode = ColorModeOf(flags.Choice("color"))) SetColorMode(*mode);
  for (const std::string& warning : flags.warnings()) PrintWarning(table.program, warning);
  if (flags.Bool("debug")) TraceCrashes();
  if (flags.Bool("print-config")) return print(flags.Settings(flags.Bool("json"))), Status();
  if (command == "completion") return print(CompletionScript(table, flags.Argument(0))), Status();
  if (!flags.Bool("debug")) return tool.body(flags);
  // Whatever is thrown ends the process here, where TraceCrashes can still see from where.
  return [&]() noexcept { return tool.body(flags); }();
}

/// A bug's message with a number that is the same each time it happens, so that reports can be told apart.
Status NameBug(const Status& status) {
  uint32_t hash = 2166136261;  // FNV-1a
  for (char c : status.message()) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  std::string hint = status.hint().empty() ? std::string() : status.hint() + "; ";
  return InternalError(status.message(), hint + fmt::format("this is a bug, please report it with crash id {}-{:08x}",
                                                            ThisBuild().commit, hash));
}

}  // namespace

int RunTool(const Tool& tool, int argc, char** argv) {
  HandleStopSignals();
  if (argc < 2) {
    fmt::print(stderr, "{}", ShortUsage(tool.table));
    return 2;
  }
  std::string command;
  Status status;
  try {
    std::vector<std::string> words(argv + 1, argv + argc);
    status = RunWords(tool, words, command);
    // A full disk shows only here.
    if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout)))
      status = ResourceExhaustedError("stdout: the results could not be written");
  } catch (const std::bad_alloc&) {
    status = ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    status = InternalError(error.what());
  }
  if (status.ok()) return 0;
  if (status.code() == StatusCode::kInternal) status = NameBug(status);
  int exit_code = PrintError(tool.table.program, command, status);
  return status.code() == StatusCode::kCancelled ? StopExitCode() : exit_code;
}

}  // namespace qwen
