//===- ModulePatterns.cpp - lists of module names in a checkpoint's rules -===//

#include "compiler/import/quant/ModulePatterns.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

using llvm::StringRef;

namespace qwen::compiler {

static constexpr size_t kMaxPatternBytes = 512, kMaxWildcards = 2048, kMaxRegexes = 256;

bool matchesGlob(StringRef pattern, StringRef name) {
  // Greedy with one point of return: only the last star can have to give back.
  size_t p = 0, n = 0, star = StringRef::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != StringRef::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*')
    ++p;
  return p == pattern.size();
}

std::optional<ModuleRegex> ModuleRegex::compile(ConfigReader &config, const ConfigValue &where, StringRef pattern) {
  auto refuse = [&](const std::string &what) {
    config.unsupported(where, what + " in the expression " + JsonQuote(pattern) + " is not supported");
    return std::nullopt;
  };
  // To POSIX, which has no classes by letter, no groups without a number and no lazy counts; the latter two make no
  // difference to whether a name matches.
  std::string posix = "^(";
  size_t repeats = 0;
  bool afterCount = false, inSet = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    char c = pattern[i];
    bool count = false;
    if (c == '\\') {
      char next = i + 1 < pattern.size() ? pattern[++i] : '\0';
      if (next == 'd')
        posix += inSet ? "0-9" : "[0-9]";
      else if (next == 'w')
        posix += inSet ? "A-Za-z0-9_" : "[A-Za-z0-9_]";
      else if (next == '\0' || llvm::isAlnum(next))
        return refuse(std::string("\\") + next);
      else if (inSet)
        posix += next;
      else
        posix += std::string("\\") + next;
    } else if (inSet) {
      inSet = c != ']';
      posix += c;
    } else if (c == '[') {
      inSet = true;
      posix += c;
    } else if (c == '(' && pattern.substr(i).starts_with("(?")) {
      if (!pattern.substr(i).starts_with("(?:"))
        return refuse("look-around or a flag");
      posix += '(';
      i += 2;
    } else if (afterCount && (c == '?' || c == '+')) {
      if (c == '+')
        return refuse("a possessive count");
    } else {
      count = c == '*' || c == '+' || c == '?' || c == '}';
      if (c == '{' && ++repeats > 2)
        return refuse("more than two repeat counts");
      posix += c;
    }
    afterCount = count;
  }
  posix += ')';
  llvm::Regex regex(posix);
  std::string error;
  if (!regex.isValid(error)) {
    config.unsupported(where, "the expression " + JsonQuote(pattern) + " is not valid: " + error);
    return std::nullopt;
  }
  return ModuleRegex(std::move(regex));
}

ModulePatterns ModulePatterns::read(ConfigReader &config, const ConfigValue &list, Plain plain) {
  ModulePatterns result;
  result.components = plain == Plain::Component;
  for (const ConfigValue &item : config.items(list)) {
    std::string pattern = config.string(item);
    if (pattern.size() > kMaxPatternBytes)
      config.unsupported(item, llvm::formatv("is {0} bytes, a pattern may have {1}", pattern.size(), kMaxPatternBytes));
    if (result.globs.size() + result.parts.size() > kMaxWildcards || result.regexes.size() > kMaxRegexes)
      config.unsupported(list,
                         llvm::formatv("has more than {0} patterns or {1} expressions", kMaxWildcards, kMaxRegexes));
    if (!config.ok())
      return result;
    StringRef text(pattern);
    if (text.consume_front("re:")) {
      if (std::optional<ModuleRegex> regex = ModuleRegex::compile(config, item, text))
        result.regexes.push_back(std::move(*regex));
    } else if (text.find_first_of("*?") != StringRef::npos) {
      result.globs.push_back(std::move(pattern));
    } else if (plain == Plain::Substring) {
      result.parts.push_back(std::move(pattern));
    } else {
      result.names.insert(pattern);
    }
  }
  return result;
}

bool ModulePatterns::matches(StringRef name) const {
  if (names.contains(name))
    return true;
  if (components && !names.empty())
    for (size_t dot = name.find('.'); dot != StringRef::npos; dot = name.find('.', dot + 1))
      if (names.contains(name.take_front(dot)) || names.contains(name.drop_front(dot + 1)))
        return true;
  return llvm::any_of(globs, [&](const std::string &glob) { return matchesGlob(glob, name); }) ||
         llvm::any_of(parts, [&](const std::string &part) { return name.contains(part); }) ||
         llvm::any_of(regexes, [&](const ModuleRegex &regex) { return regex.matches(name); });
}

bool ModulePatterns::matchesAny(llvm::ArrayRef<std::string> candidates) const {
  return llvm::any_of(candidates, [&](const std::string &name) { return matches(name); });
}

} // namespace qwen::compiler
