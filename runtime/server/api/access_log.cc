#include "runtime/server/api/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <iterator>

#include "fmt/format.h"
#include "runtime/base/json.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::server {
namespace {

constexpr size_t kMaxLine = 4096, kMaxValue = 512, kMaxRepeats = 256;
constexpr const char* kLevels[] = {"DEBUG", "INFO", "WARN", "ERROR"};

std::string TimeText(Log::Clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, ms % 1000);
}

std::string Quoted(std::string_view text) { return JsonQuote(text::ReplaceIllFormed(text.substr(0, kMaxValue))); }

/// As it is where nothing in it could be taken for something else.
std::string Plain(std::string_view text) {
  auto safe = [](char c) { return c > ' ' && c < 0x7F && c != '"' && c != '=' && c != '\\'; };
  if (!text.empty() && text.size() <= kMaxValue && std::all_of(text.begin(), text.end(), safe))
    return std::string(text);
  return Quoted(text);
}

std::string ValueText(const LogField& field, bool json) {
  if (const auto* text = std::get_if<std::string>(&field.value)) return json ? Quoted(*text) : Plain(*text);
  if (const auto* integer = std::get_if<int64_t>(&field.value)) return fmt::format("{}", *integer);
  return fmt::format("{:.3f}", std::get<double>(field.value));
}

}  // namespace

Log::Log(Options options, int fd) : options_(std::move(options)), fd_(fd) {}

StatusOr<std::unique_ptr<Log>> Log::ToFile(Options options, const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0) return ResourceExhaustedError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  auto log = std::make_unique<Log>(std::move(options), fd);
  log->owned_ = true;
  return log;
}

Log::~Log() {
  if (owned_) ::close(fd_);
}

void Log::Write(LogLevel level, std::string_view room, std::string_view message, std::vector<LogField> fields) {
  if (level < options_.level) return;
  const Clock::time_point now = options_.now ? options_.now() : Clock::now();
  const Clock::time_point second = std::chrono::floor<std::chrono::seconds>(now);
  uint64_t folded = 0;
  {
    std::lock_guard lock(mutex_);
    if (repeats_.size() > kMaxRepeats) repeats_.clear();
    auto at = repeats_.find(message);
    if (at == repeats_.end()) at = repeats_.emplace(std::string(message), Repeats{}).first;
    Repeats& repeats = at->second;
    if (repeats.second != second) {
      folded = repeats.folded;
      repeats = {.second = second};
    }
    if (repeats.written >= options_.messages_per_second) {
      ++repeats.folded;
      return;
    }
    ++repeats.written;
  }
  if (folded > 0) fields.push_back({"repeated", static_cast<int64_t>(folded)});
  WriteLine(level, room, message, fields);
}

void Log::Access(const AccessRecord& record, const GenerationSummary* generation) {
  if (LogLevel::kInfo < options_.level) return;
  std::vector<LogField> fields = {{"id", record.id},
                                  {"key", record.key_name},
                                  {"peer", record.peer},
                                  {"method", record.method},
                                  {"route", record.route},
                                  {"status", int64_t{record.status}},
                                  {"bytes_in", static_cast<int64_t>(record.bytes_in)},
                                  {"bytes_out", static_cast<int64_t>(record.bytes_out)},
                                  {"ms", record.seconds * 1e3}};
  if (record.route == "other") fields.push_back({"path", record.path});
  if (!record.refused.empty()) fields.push_back({"refused", record.refused});
  if (generation) {
    fields.push_back({"prompt_tokens", generation->prompt_tokens});
    fields.push_back({"cached_tokens", generation->cached_tokens});
    fields.push_back({"completion_tokens", generation->completion_tokens});
    if (generation->first_token_ms >= 0) fields.push_back({"ttft_ms", generation->first_token_ms});
    fields.push_back({"e2e_ms", generation->total_ms});
    fields.push_back({"finish", generation->finish});
  }
  fields.push_back({"client_closed", int64_t{record.client_gone}});
  WriteLine(LogLevel::kInfo, "http", "request", fields);
}

void Log::Summary(const engine::EngineStats& stats) {
  engine::EngineStats last;
  double seconds = 0;
  {
    std::lock_guard lock(mutex_);
    const Clock::time_point now = options_.now ? options_.now() : Clock::now();
    last = std::exchange(last_, stats);
    if (last_time_ != Clock::time_point()) seconds = std::chrono::duration<double>(now - last_time_).count();
    last_time_ = now;
  }
  if (stats.running == 0 && stats.waiting == 0 && stats.steps == last.steps) return;
  auto rate = [&](uint64_t now, uint64_t before) {
    return seconds > 0 ? static_cast<double>(now - before) / seconds : 0.0;
  };
  auto percent = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0.0; };
  Write(LogLevel::kInfo, "engine", "busy",
        {{"running", int64_t{stats.running}},
         {"waiting", int64_t{stats.waiting}},
         {"prefill_tok_s", rate(stats.prompt_tokens, last.prompt_tokens)},
         {"decode_tok_s", rate(stats.generated_tokens, last.generated_tokens)},
         {"kv_percent", percent(stats.pages - stats.pages_free, stats.pages)},
         {"hit_percent", percent(static_cast<double>(stats.cache_hits - last.cache_hits),
                                 static_cast<double>(stats.cache_queries - last.cache_queries))}});
}

void Log::WriteLine(LogLevel level, std::string_view room, std::string_view message,
                    const std::vector<LogField>& fields) {
  const Clock::time_point now = options_.now ? options_.now() : Clock::now();
  const char* name = kLevels[static_cast<size_t>(level)];
  std::string line;
  if (options_.json) {
    line = fmt::format("{{\"time\":\"{}\",\"level\":\"{}\",\"room\":\"{}\",\"message\":{}", TimeText(now), name, room,
                       Quoted(message));
  } else {
    const std::string quoted = Quoted(message);
    line = fmt::format("{} {:<5} {:<6} {}", TimeText(now), name, room,
                       std::string_view(quoted).substr(1, quoted.size() - 2));
  }
  std::lock_guard lock(mutex_);
  auto add = [&](const LogField& field) {
    const std::string text = options_.json ? fmt::format(",\"{}\":{}", field.key, ValueText(field, true))
                                           : fmt::format(" {}={}", field.key, ValueText(field, false));
    if (line.size() + text.size() + 2 <= kMaxLine) line += text;  // a line stays whole: what does not fit is left out
  };
  for (const LogField& field : fields) add(field);
  if (dropped_ > dropped_said_) add({"dropped_lines", static_cast<int64_t>(dropped_ - dropped_said_)});
  line += options_.json ? "}\n" : "\n";
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = ::write(fd_, line.data() + written, line.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      ++dropped_;
      return;
    }
    written += static_cast<size_t>(count);
  }
  dropped_said_ = dropped_;
}

uint64_t Log::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

}  // namespace qwen::server
