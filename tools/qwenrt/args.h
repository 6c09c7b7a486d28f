// What run and logits are given, as values: apart from the commands so that tests reach it.
#ifndef QWEN_TOOLS_QWENRT_ARGS_H_
#define QWEN_TOOLS_QWENRT_ARGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::qwenrt {

/// "1,2,3". Whether the ids are the model's is the plan's question.
StatusOr<std::vector<int32_t>> ParsePrompt(std::string_view text);

/// A JSON array of arrays of ids. kDataLoss, with `where` and the JSON pointer in front.
StatusOr<std::vector<std::vector<int32_t>>> ParseCases(std::string_view text, const std::string& where);

/// kInvalidArgument when `path` exists and may not be replaced: before long work whose result would have no place.
Status CheckOutput(const std::string& path, bool overwrite);

struct WeightSource {
  std::string dir;
  std::optional<uint64_t> seed;  // made up, when given
};
/// The value of --weights. When it is empty: `weights_dir` as seen from the folder of `plan_path`.
StatusOr<WeightSource> ParseWeights(std::string_view text, std::string_view plan_path, std::string_view weights_dir);

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_ARGS_H_
