#include "runtime/plan/weight_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "runtime/plan/digest.h"

namespace qwen::plan {
namespace {

void Replace(std::string* text, std::string_view what, const std::string& with) {
  for (size_t at = 0; (at = text->find(what, at)) != std::string::npos; at += with.size())
    text->replace(at, what.size(), with);
}

/// "3, 7-11": ascending numbers.
std::string Runs(const std::vector<int64_t>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", numbers[i]);
    if (last > i) text += fmt::format("-{}", numbers[last]);
    i = last + 1;
  }
  return text;
}

class Resolver {
 public:
  Resolver(const Plan& plan, const Checkpoint& checkpoint, const Checkpoint* drafter)
      : plan_(plan), checkpoint_(checkpoint), drafter_(drafter) {}

  StatusOr<WeightMap> Run();

 private:
  struct Missing {
    int present = 0;                 // tensors of the alternative that are there
    std::vector<std::string> lines;  // of those that are not
  };

  Status ChoosePrefix();
  void Resolve(int32_t index);
  /// The tensors of `piece`, or nothing; what is missing is added to `missing`.
  bool Find(const Checkpoint& from, const Piece& piece, std::vector<const Checkpoint::Entry*>* found,
            Missing* missing) const;
  void Use(const Checkpoint& from, const Piece& piece, const std::vector<const Checkpoint::Entry*>& entries,
           ResolvedPiece* out);

  const Plan& plan_;
  const Checkpoint& checkpoint_;
  const Checkpoint* drafter_;
  WeightMap map_;
  std::unordered_set<const Checkpoint::Entry*> used_;
  int mtp_weights_ = 0, mtp_tensors_ = 0;  // of the plan; found
  std::vector<std::string> missing_, mtp_missing_, misshapen_;
};

Status Resolver::ChoosePrefix() {
  bool needed = false;
  for (const Weight& weight : plan_.weights)
    for (const Alternative& alternative : weight.alternatives)
      for (const Piece& piece : alternative.pieces) needed |= piece.tensor.find("{P}") != std::string::npos;
  if (!needed) return Status();
  std::vector<std::string> tried;
  for (const std::string& prefix : plan_.model.prefixes) {
    const std::string name = prefix + "embed_tokens.weight";
    if (checkpoint_.Find(name)) {
      map_.prefix = prefix;
      return Status();
    }
    tried.push_back(name);
  }
  return DataLossError(fmt::format("{}: has {} tensors, but none is named {}", checkpoint_.dir,
                                   checkpoint_.tensors.size(), fmt::join(tried, " or ")),
                       "is this the checkpoint of the plan's model?");
}

bool Resolver::Find(const Checkpoint& from, const Piece& piece, std::vector<const Checkpoint::Entry*>* found,
                    Missing* missing) const {
  std::vector<int64_t> absent;
  for (int64_t e = 0; e < piece.e_count; ++e) {
    const Checkpoint::Entry* entry = from.Find(TensorName(piece.tensor, map_.prefix, e));
    if (entry)
      found->push_back(entry), ++missing->present;
    else
      absent.push_back(e);
  }
  if (absent.empty()) return true;
  if (piece.e_count == 1) {
    missing->lines.push_back(TensorName(piece.tensor, map_.prefix, 0) + ": missing");
  } else {
    std::string name = piece.tensor;
    Replace(&name, "{P}", map_.prefix);
    missing->lines.push_back(fmt::format("{}: missing for e = {}", name, Runs(absent)));
  }
  return false;
}

void Resolver::Use(const Checkpoint& from, const Piece& piece, const std::vector<const Checkpoint::Entry*>& entries,
                   ResolvedPiece* out) {
  const int32_t first_file = &from == &checkpoint_ ? 0 : static_cast<int32_t>(checkpoint_.files.size());
  std::string_view dtype;
  for (const Checkpoint::Entry* entry : entries) {
    const TensorInfo& info = entry->info;
    used_.insert(entry);
    const bool accepted = std::find(piece.dtypes.begin(), piece.dtypes.end(), info.dtype) != piece.dtypes.end();
    if (dtype.empty()) dtype = info.dtype;
    if (!accepted || info.shape != piece.shape) {
      misshapen_.push_back(fmt::format("{}: is {} [{}], want {} [{}]", info.name, info.dtype,
                                       fmt::join(info.shape, ", "), fmt::join(piece.dtypes, " or "),
                                       fmt::join(piece.shape, ", ")));
    } else if (info.dtype != dtype) {
      misshapen_.push_back(fmt::format("{}: is {}, but {} is {}", info.name, info.dtype, entries[0]->info.name, dtype));
    } else {
      out->dtype = *SafetensorsType(info.dtype);
      out->sources.push_back({.file = first_file + entry->file, .begin = info.begin, .end = info.end});
    }
  }
}

void Resolver::Resolve(int32_t index) {
  const Weight& weight = plan_.weights[index];
  ResolvedWeight& resolved = map_.weights[index];
  const Checkpoint* from = weight.group == Group::kDraft ? drafter_ : &checkpoint_;
  if (!from) {
    map_.has_draft = false;
    return;
  }
  if (weight.group == Group::kMtp) ++mtp_weights_;
  std::optional<Missing> nearest;
  for (size_t a = 0; a < weight.alternatives.size(); ++a) {
    const Alternative& alternative = weight.alternatives[a];
    std::vector<std::vector<const Checkpoint::Entry*>> entries(alternative.pieces.size());
    Missing missing;
    bool complete = true;
    for (size_t p = 0; p < alternative.pieces.size(); ++p)
      complete &= Find(*from, alternative.pieces[p], &entries[p], &missing);
    if (weight.group == Group::kMtp) mtp_tensors_ += missing.present;
    if (!complete) {
      if (!nearest || missing.present > nearest->present) nearest = std::move(missing);
      continue;
    }
    resolved.present = true;
    resolved.weight = index;
    resolved.alternative = static_cast<int32_t>(a);
    for (size_t p = 0; p < alternative.pieces.size(); ++p) {
      ResolvedPiece& piece = resolved.pieces.emplace_back();
      piece.piece = static_cast<int32_t>(p);
      Use(*from, alternative.pieces[p], entries[p], &piece);
    }
    return;
  }
  if (!nearest) return;
  std::vector<std::string>& list = weight.group == Group::kMtp ? mtp_missing_ : missing_;
  list.insert(list.end(), nearest->lines.begin(), nearest->lines.end());
}

StatusOr<WeightMap> Resolver::Run() {
  QWEN_RETURN_IF_ERROR(ChoosePrefix());
  for (const Checkpoint* from : {&checkpoint_, drafter_})
    for (int32_t file = 0; from && file < static_cast<int32_t>(from->files.size()); ++file)
      map_.files.push_back(from->Path(file));
  map_.weights.resize(plan_.weights.size());
  for (int32_t i = 0; i < static_cast<int32_t>(plan_.weights.size()); ++i)
    if (plan_.weights[i].alias < 0) Resolve(i);
  for (int32_t i = 0; i < static_cast<int32_t>(plan_.weights.size()); ++i)
    if (plan_.weights[i].alias >= 0) map_.weights[i] = map_.weights[plan_.weights[i].alias];

  if (mtp_weights_ > 0 && mtp_tensors_ == 0) {
    map_.has_mtp = false;
    map_.warnings.push_back(
        fmt::format("{}: has none of the MTP head's tensors; the plan's draft_mtp is off", checkpoint_.dir));
    mtp_missing_.clear();
  }
  if (!map_.has_draft) map_.warnings.push_back("no drafter checkpoint; the plan's drafter is off");

  missing_.insert(missing_.end(), mtp_missing_.begin(), mtp_missing_.end());
  // Two weights may be parts of one tensor: it is listed once.
  std::vector<std::string> lines;
  std::unordered_set<std::string_view> seen;
  size_t missing = 0;
  for (const std::string& line : missing_)
    if (seen.insert(line).second) lines.push_back(line), ++missing;
  for (const std::string& line : misshapen_)
    if (seen.insert(line).second) lines.push_back(line);
  if (!lines.empty())
    return DataLossError(fmt::format("{}: of the plan's tensors {} missing, {} of another type or shape:\n{}",
                                     checkpoint_.dir, missing == 1 ? "1 is" : fmt::format("{} are", missing),
                                     lines.size() - missing, fmt::join(lines, "\n")),
                         "is this the checkpoint of the plan's model?");

  map_.ignored_tensors = static_cast<int64_t>(checkpoint_.tensors.size() - used_.size());
  Digest digest;
  digest.Int(static_cast<int64_t>(checkpoint_.digest));
  if (drafter_) {
    map_.ignored_tensors += static_cast<int64_t>(drafter_->tensors.size());
    digest.Int(static_cast<int64_t>(drafter_->digest));
  }
  map_.digest = digest.Finish();
  return std::move(map_);
}

}  // namespace

std::string TensorName(const std::string& name, const std::string& prefix, int64_t e) {
  std::string out = name;
  Replace(&out, "{P}", prefix);
  Replace(&out, "{e}", std::to_string(e));
  return out;
}

StatusOr<WeightMap> ResolveWeights(const Plan& plan, const Checkpoint& checkpoint, const Checkpoint* drafter) {
  return Resolver(plan, checkpoint, drafter).Run();
}

}  // namespace qwen::plan
