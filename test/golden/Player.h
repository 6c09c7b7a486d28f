//===- Player.h - feeds goldens' cases to the interpreter ------------------===//
//
// A case is fed in calls of any size, alone or beside others in ragged batches; what comes out is collected row by row,
// whatever the calls were, so that it can be laid beside the golden.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_TEST_GOLDEN_PLAYER_H
#define QWEN_TEST_GOLDEN_PLAYER_H

#include "Checkpoint.h"

namespace qwen::golden {

/// A case and the sizes of the calls it is fed in; they sum to its length.
struct Feed {
  int index = 0;
  std::vector<int64_t> calls;
};

/// What one case gives, keyed as in golden.safetensors without the case's number: "" is the logits.
using Trace = std::map<std::string, reference::Tensor<float>>;

struct PlayOptions {
  reference::Fault fault = reference::Fault::None;
  int64_t dropCollective = -1;
  /// Seeds the order of sequences within a batch.
  uint64_t seed = 0;
  /// Runs the MTP head over the golden's ids and the hidden states at hand, then its draft chain.
  bool mtp = true;
};

struct Played {
  std::vector<Trace> traces; // one a feed
  int64_t faultHits = 0, collectives = 0;
};

/// Runs `feeds` side by side: every step takes the next call of each. `Real` is the interpreter's.
template <class Real>
StatusOr<Played> play(Model &model, const Golden &golden, const std::vector<Feed> &feeds,
                      const PlayOptions &options = {});

/// One worst row a key that both sides have, worst key first.
struct Miss {
  std::string key;
  int64_t row = 0;
  double error = 0;
};
std::vector<Miss> misses(const Golden &golden, const Feed &feed, const Trace &trace);

/// Calls of random sizes that sum to `tokens`, few of them large.
std::vector<int64_t> randomCalls(int64_t tokens, uint64_t seed);

} // namespace qwen::golden

#endif
