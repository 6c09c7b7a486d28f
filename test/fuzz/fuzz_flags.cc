// Any bytes as a command line and its config file: words end at newlines, and what follows an empty line is the file.
#include <cstdint>
#include <cstdlib>

#include "runtime/base/flags.h"
#include "runtime/base/json.h"

namespace {

using qwen::FlagType;
constexpr qwen::CommandRow kCommands[] = {{"run", "PLAN", "one of each type"}};
constexpr qwen::FlagRow kFlags[] = {
    {"run", "bool,b,!--disable-bool", FlagType::kBool, "off", "", "", "Types", "a boolean"},
    {"run", "int,--whole,-i", FlagType::kInt, "5", "N", "1..100", "Types", "an integer"},
    {"run", "real", FlagType::kReal, "0.5", "X", "0..1", "Types", "a number"},
    {"run", "size", FlagType::kSize, "1Ki", "BYTES", "1..1G", "Types", "a size"},
    {"run", "duration", FlagType::kDuration, "1s", "TIME", "1ms..1h", "Types", "a duration"},
    {"run", "text,t,-tt", FlagType::kText, "(none)", "TEXT", "", "Types", "text"},
    {"run", "texts", FlagType::kTexts, "", "TEXT", "", "Types", "texts"},
    {"run", "secret", FlagType::kSecret, "", "KEY", "", "Types", "a secret"},
    {"run", "choice", FlagType::kChoice, "a", "a|b", "", "Types", "a choice"},
};
constexpr qwen::FlagTable kTable{"tool", "a tool", kCommands, kFlags, {}};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> words;
  std::string config;
  while (!text.empty()) {
    size_t end = text.find('\n');
    if (end == 0) {
      config = text.substr(1);
      words.insert(words.begin(), {"--config", "c.json"});
      break;
    }
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  auto read = [&](const std::string&) -> qwen::StatusOr<std::string> { return config; };
  qwen::StatusOr<qwen::Flags> flags = qwen::ParseFlags(kTable, "run", words, {.read_config = read});
  if (!flags.ok()) return 0;
  // What was accepted is in range, and prints as it should.
  if (flags->Int("int") < 1 || flags->Int("int") > 100 || !(flags->Real("real") >= 0 && flags->Real("real") <= 1) ||
      flags->Size("size") < 1 || flags->Duration("duration") > std::chrono::hours(1) ||
      flags->Choice("choice").size() != 1)
    abort();
  qwen::StatusOr<qwen::Json> json = qwen::ParseJson(flags->Settings(true), "settings", {.max_bytes = size_t{1} << 26});
  if (!json.ok() || json->members().size() != std::size(kFlags) + 6) abort();
  for (char c : flags->Settings(false))
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') abort();
  return 0;
}
