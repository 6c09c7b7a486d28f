// The plan's weight map against a checkpoint: which bytes of which file make which weight.
//
// Used when weights are loaded and by `qwenc verify --against`. Nothing is read but headers.
#ifndef QWEN_RUNTIME_PLAN_WEIGHT_MAP_H_
#define QWEN_RUNTIME_PLAN_WEIGHT_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/safetensors.h"

namespace qwen::plan {

/// One tensor's bytes.
struct Source {
  int32_t file = 0;            // into WeightMap::files
  int64_t begin = 0, end = 0;  // bytes of that file
};

struct ResolvedPiece {
  int32_t piece = 0;            // into the chosen alternative's pieces
  DType dtype = DType::kF32;    // of the file's elements
  std::vector<Source> sources;  // the e-th goes to row dst_row + e * dst_row_step
};

struct ResolvedWeight {
  bool present = false;     // false: a group that the checkpoint does not have
  int32_t weight = 0;       // whose alternative it is: the weight itself, or the one it is an alias of
  int32_t alternative = 0;  // of plan.weights[weight]
  std::vector<ResolvedPiece> pieces;
};

struct WeightMap {
  std::string prefix;                   // what {P} stands for
  bool has_mtp = true;                  // false: the plan has MTP weights, the checkpoint none of them
  bool has_draft = true;                // likewise for a drafter
  std::vector<ResolvedWeight> weights;  // index as in plan.weights
  std::vector<std::string> files;       // paths
  std::vector<std::string> warnings;
  int64_t ignored_tensors = 0;  // in the checkpoint, named by no chosen alternative
  uint64_t digest = 0;          // of the checkpoints' headers

  const Piece& PieceOf(const Plan& plan, int32_t weight, const ResolvedPiece& piece) const {
    const ResolvedWeight& resolved = weights[weight];
    return plan.weights[resolved.weight].alternatives[resolved.alternative].pieces[piece.piece];
  }
};

/// `name` with {P} and {e} put in.
std::string TensorName(const std::string& name, const std::string& prefix, int64_t e);

/// Matches every weight of `plan`. Weights of the draft group come from `drafter` (without a prefix); without one they
/// are absent. kDataLoss lists every missing and misshapen tensor, one a line.
StatusOr<WeightMap> ResolveWeights(const Plan& plan, const Checkpoint& checkpoint, const Checkpoint* drafter = nullptr);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_WEIGHT_MAP_H_
