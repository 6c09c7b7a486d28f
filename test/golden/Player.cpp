//===- Player.cpp ----------------------------------------------------------===//

#include "Player.h"

#include <algorithm>
#include <random>

#include "compiler/reference/RandomInputs.h"

using qwen::reference::Batch;
using qwen::reference::Tensor;

namespace qwen::golden {

namespace {

void appendRow(Tensor<float> &to, const float *row, int64_t channels) {
  if (to.shape.empty())
    to.shape = {0, channels};
  ++to.shape[0];
  to.values.insert(to.values.end(), row, row + channels);
}
void appendRow(Tensor<float> &to, const double *row, int64_t channels) {
  std::vector<float> narrow(row, row + channels);
  appendRow(to, narrow.data(), channels);
}

/// "layers.3" → "hidden.4", "embed" → "hidden.0": hidden states are numbered from the embedding.
std::string hiddenKey(const std::string &name) {
  if (name == "final_norm")
    return "final_hidden";
  if (name == "embed")
    return "hidden.0";
  if (name.rfind("layers.", 0) == 0 && name.find('.', 7) == std::string::npos)
    return "hidden." + std::to_string(std::stoi(name.substr(7)) + 1);
  return "";
}

template <class Real> class Player {
public:
  Player(Model &model, const Golden &golden, const std::vector<Feed> &feeds, const PlayOptions &options)
      : golden(golden), feeds(feeds), options(options), order(options.seed),
        interpreter(*model.module, model.weights, interpreterOptions()) {
    played.traces.resize(feeds.size());
    fed.resize(feeds.size());
    // A qwen3_next config promises a head that the checkpoint need not have.
    runsMtp = options.mtp && model.hasProgram("draft_mtp") && golden.has("2.mtp");
  }

  StatusOr<Played> run() {
    QWEN_RETURN_IF_ERROR(warmUp());
    for (size_t call = 0; !active(call).empty(); ++call)
      QWEN_RETURN_IF_ERROR(step(active(call), call));
    for (size_t i = 0; i < feeds.size(); ++i) {
      collectStates(i);
      if (std::string key = std::to_string(feeds[i].index) + ".mtp_chain"; runsMtp && golden.has(key))
        QWEN_RETURN_IF_ERROR(chain(i, golden.ids(key)));
    }
    played.faultHits = interpreter.faultHits();
    played.collectives = collectives;
    return std::move(played);
  }

private:
  reference::InterpreterOptions<Real> interpreterOptions() {
    reference::InterpreterOptions<Real> out;
    out.fault = options.fault;
    out.dropCollective = options.dropCollective;
    out.observer = [this](int rank, mlir::Operation *op, mlir::Value, const Tensor<Real> &tensor) {
      if (std::string key = hiddenKey(reference::locationName(op->getLoc())); rank == 0 && !inMtp && !key.empty())
        hidden[key] = tensor;
    };
    return out;
  }

  /// Leaves other tokens' states in every slot: a sequence that starts at 0 must not see them.
  Status warmUp() {
    Batch batch;
    for (size_t i = 0; i < feeds.size(); ++i)
      batch.Append({3, 1, 2, 0, 4}, 0, int32_t(i));
    QWEN_ASSIGN_OR_RETURN(auto outputs, interpreter.run("step", batch, state));
    if (!runsMtp)
      return {};
    inMtp = true;
    QWEN_ASSIGN_OR_RETURN(auto drafted, interpreter.run("draft_mtp", batch, state,
                                                        {{"hidden", outputs.at("final_hidden")}}));
    inMtp = false;
    return {};
  }

  std::vector<size_t> active(size_t call) {
    std::vector<size_t> out;
    for (size_t i = 0; i < feeds.size(); ++i)
      if (call < feeds[i].calls.size())
        out.push_back(i);
    return out;
  }

  /// One engine step of the target, then of the MTP head over the same rows.
  Status step(std::vector<size_t> who, size_t call) {
    std::shuffle(who.begin(), who.end(), order);
    // The batch contract: sequences with one row come first.
    std::partition(who.begin(), who.end(), [&](size_t i) { return feeds[i].calls[call] == 1; });
    Batch batch, mtp;
    std::vector<size_t> mtpWho;
    std::vector<int32_t> mtpRows; // of the target's batch
    for (size_t i : who) {
      const std::vector<int32_t> &ids = golden.cases[feeds[i].index];
      int64_t count = feeds[i].calls[call];
      batch.Append({ids.begin() + fed[i], ids.begin() + fed[i] + count}, int32_t(fed[i]), int32_t(i));
      batch.num_short += count == 1;
      std::vector<int32_t> next = golden.ids(std::to_string(feeds[i].index) + ".mtp_ids");
      if (runsMtp && !next.empty()) {
        mtp.Append({next.begin() + fed[i], next.begin() + fed[i] + count}, int32_t(fed[i]), int32_t(i));
        mtp.num_short += count == 1;
        mtpWho.push_back(i);
        for (int64_t row = batch.num_tokens() - count; row < batch.num_tokens(); ++row)
          mtpRows.push_back(int32_t(row));
      }
      fed[i] += count;
    }
    QWEN_ASSIGN_OR_RETURN(auto outputs, interpreter.run("step", batch, state));
    collectives = interpreter.collectives();
    collect(who, batch, outputs.at("logits"), "");
    if (outputs.count("final_hidden"))
      hidden["final_hidden"] = outputs.at("final_hidden");
    for (const auto &[key, tensor] : hidden)
      collect(who, batch, tensor, key);
    if (mtpWho.empty())
      return {};
    Tensor<Real> carried;
    carried.shape = {int64_t(mtpRows.size()), outputs.at("final_hidden").channels()};
    for (int32_t row : mtpRows)
      carried.values.insert(carried.values.end(), outputs.at("final_hidden").row(row),
                            outputs.at("final_hidden").row(row + 1));
    inMtp = true;
    QWEN_ASSIGN_OR_RETURN(auto drafted, interpreter.run("draft_mtp", mtp, state, {{"hidden", carried}}));
    inMtp = false;
    collect(mtpWho, mtp, drafted.at("logits"), "mtp");
    collect(mtpWho, mtp, drafted.at("hidden_out"), "mtp_hidden");
    return {};
  }

  /// Drafts from the last row of a case, each step on the hidden state that the one before left.
  Status chain(size_t i, const std::vector<int32_t> &drafts) {
    Trace &trace = played.traces[i];
    const Tensor<float> &logits = trace.at("mtp"), &last = trace.at("mtp_hidden");
    Tensor<Real> carried;
    carried.shape = {1, last.channels()};
    carried.values.assign(last.row(last.rows() - 1), last.row(last.rows()));
    appendRow(trace["mtp_chain_logits"], logits.row(logits.rows() - 1), logits.channels());
    for (size_t j = 1; j < drafts.size(); ++j) {
      Batch batch;
      batch.Append({drafts[j - 1]}, int32_t(fed[i] - 1 + int64_t(j)), int32_t(i));
      batch.num_short = 1;
      inMtp = true;
      QWEN_ASSIGN_OR_RETURN(auto drafted, interpreter.run("draft_mtp", batch, state, {{"hidden", carried}}));
      inMtp = false;
      appendRow(trace["mtp_chain_logits"], drafted.at("logits").row(0), drafted.at("logits").channels());
      carried = drafted.at("hidden_out");
    }
    return {};
  }

  void collect(const std::vector<size_t> &who, const Batch &batch, const Tensor<Real> &tensor, const std::string &key) {
    for (size_t s = 0; s < who.size(); ++s)
      for (int64_t row = batch.cu_tokens[s]; row < batch.cu_tokens[s + 1]; ++row)
        appendRow(played.traces[who[s]][key], tensor.row(row), tensor.channels());
  }

  void collectStates(size_t i) {
    for (auto &[key, part] : state.snapshot(int(i)))
      if (auto *recurrent = std::get_if<reference::RecurrentState<Real>>(&part); recurrent && key.first == 0) {
        std::string layer = key.second.substr(7, key.second.find('.', 7) - 7); // "layers.3.gdn"
        const StoredShape shape = stored(std::to_string(feeds[i].index) + ".recurrent." + layer);
        if (shape.heads && int64_t(recurrent->s.size()) == shape.heads * shape.size)
          for (int64_t head = 0; head < shape.heads; ++head)
            appendRow(played.traces[i]["recurrent." + layer], recurrent->s.data() + head * shape.size, shape.size);
      }
  }
  struct StoredShape {
    int64_t heads = 0, size = 0;
  };
  StoredShape stored(const std::string &key) {
    const StoredTensor *tensor = golden.numbers.find(key);
    return tensor ? StoredShape{tensor->shape[0], tensor->elements() / tensor->shape[0]} : StoredShape();
  }

  const Golden &golden;
  const std::vector<Feed> &feeds;
  const PlayOptions &options;
  std::mt19937_64 order;
  reference::Interpreter<Real> interpreter;
  reference::State<Real> state;
  std::map<std::string, Tensor<Real>> hidden; // of the last step, by key
  bool runsMtp = false, inMtp = false;
  int64_t collectives = 0;
  std::vector<int64_t> fed;
  Played played;
};

} // namespace

template <class Real>
StatusOr<Played> play(Model &model, const Golden &golden, const std::vector<Feed> &feeds, const PlayOptions &options) {
  return Player<Real>(model, golden, feeds, options).run();
}
template StatusOr<Played> play<float>(Model &, const Golden &, const std::vector<Feed> &, const PlayOptions &);
template StatusOr<Played> play<double>(Model &, const Golden &, const std::vector<Feed> &, const PlayOptions &);

std::vector<Miss> misses(const Golden &golden, const Feed &feed, const Trace &trace) {
  std::vector<Miss> out;
  for (const auto &[key, tensor] : trace) {
    std::string full = std::to_string(feed.index) + (key.empty() ? "" : "." + key);
    if (!golden.has(full))
      continue;
    Miss miss;
    miss.key = full;
    miss.error = reference::worstRowError(tensor, golden.tensor(full), &miss.row);
    out.push_back(miss);
  }
  std::sort(out.begin(), out.end(), [](const Miss &a, const Miss &b) { return a.error > b.error; });
  return out;
}

std::vector<int64_t> randomCalls(int64_t tokens, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int64_t> calls;
  while (tokens > 0) {
    int64_t most = generator() % 2 ? 64 : 5;
    calls.push_back(std::min<int64_t>(tokens, 1 + int64_t(generator() % uint64_t(most))));
    tokens -= calls.back();
  }
  return calls;
}

} // namespace qwen::golden
