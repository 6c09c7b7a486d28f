#include "tools/qwenrt/args.h"

#include <filesystem>
#include <limits>

#include "fmt/format.h"
#include "runtime/base/flags.h"
#include "runtime/base/json.h"

namespace qwen::qwenrt {
namespace {

Status CheckId(int64_t id) {
  if (id >= 0 && id <= std::numeric_limits<int32_t>::max()) return {};
  return InvalidArgumentError(
      fmt::format("{} is no token id, they run from 0 to {}", id, std::numeric_limits<int32_t>::max()));
}

}  // namespace

StatusOr<std::vector<int32_t>> ParsePrompt(std::string_view text) {
  QWEN_ASSIGN_OR_RETURN(std::vector<int64_t> ids, ParseIntegers(text));
  std::vector<int32_t> prompt;
  for (int64_t id : ids) {
    QWEN_RETURN_IF_ERROR(CheckId(id));
    prompt.push_back(static_cast<int32_t>(id));
  }
  return prompt;
}

StatusOr<std::vector<std::vector<int32_t>>> ParseCases(std::string_view text, const std::string& where) {
  QWEN_ASSIGN_OR_RETURN(
      Json json, ParseJson(text, where, {.max_bytes = text.size(), .max_values = size_t{1} << 24, .max_depth = 8}));
  if (!json.IsArray())
    return DataLossError(fmt::format("{}: expected an array of arrays of ids, got {}", where, json.KindName()));
  std::vector<std::vector<int32_t>> cases;
  for (const Json& item : json.items()) {
    std::string pointer = fmt::format("{}:/{}", where, cases.size());
    if (!item.IsArray())
      return DataLossError(fmt::format("{}: expected an array of ids, got {}", pointer, item.KindName()));
    cases.emplace_back();
    for (const Json& id : item.items()) {
      std::string at = fmt::format("{}/{}", pointer, cases.back().size());
      if (!id.IsInteger()) return DataLossError(fmt::format("{}: expected an integer, got {}", at, id.KindName()));
      QWEN_RETURN_IF_ERROR(CheckId(id.AsInteger()).Annotate(at));
      cases.back().push_back(static_cast<int32_t>(id.AsInteger()));
    }
  }
  return cases;
}

StatusOr<WeightSource> ParseWeights(std::string_view text, std::string_view plan_path, std::string_view weights_dir) {
  WeightSource source;
  constexpr std::string_view kRandom = "random:";
  if (text.starts_with(kRandom)) {
    StatusOr<int64_t> seed = ParseInteger(text.substr(kRandom.size()));
    if (!seed.ok() || *seed < 0) return InvalidArgumentError(fmt::format("--weights: '{}' is not random:SEED", text));
    source.seed = static_cast<uint64_t>(*seed);
  } else if (!text.empty()) {
    source.dir = text;
  } else {
    source.dir = (std::filesystem::path(plan_path).parent_path() / weights_dir).lexically_normal().string();
    if (source.dir.empty()) source.dir = ".";
  }
  return source;
}

Status CheckOutput(const std::string& path, bool overwrite) {
  std::error_code error;
  if (overwrite || !std::filesystem::exists(path, error)) return {};
  return InvalidArgumentError(fmt::format("{}: is already there", path), "use --force to replace it");
}

}  // namespace qwen::qwenrt
