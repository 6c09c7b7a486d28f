//===- golden_test.cpp - the oracle against transformers -------------------===//
//
// Everything else agrees with the interpreter; here the interpreter agrees with numbers that others computed. Figures
// are the worst row's relative L2 error (contracts, section 11).
//
//===----------------------------------------------------------------------===//

#include "Player.h"

#include <cstdio>

#include "compiler/reference/RandomInputs.h"
#include "llvm/ADT/STLExtras.h"
#include "gtest/gtest.h"

namespace qwen::golden {
namespace {

constexpr double kTolerance = 1e-5;

struct Loaded {
  Golden golden;
  std::unique_ptr<Model> model;
};

Loaded load(const std::string &name) {
  auto golden = Golden::open(name);
  if (!golden.ok()) {
    ADD_FAILURE() << golden.status().message();
    return {};
  }
  auto model = Model::open(*golden);
  if (!model.ok()) {
    ADD_FAILURE() << name << ": " << model.status().message();
    return {};
  }
  return {*std::move(golden), *std::move(model)};
}

Played playOrFail(Loaded &loaded, const std::vector<Feed> &feeds, const PlayOptions &options = {}) {
  auto played = play<float>(*loaded.model, loaded.golden, feeds, options);
  if (played.ok())
    return *std::move(played);
  ADD_FAILURE() << loaded.golden.name << ": " << played.status().message();
  return Played{std::vector<Trace>(feeds.size()), 0, 0};
}

/// The worst of the misses whose key holds `part` ("" the logits alone), for printing.
std::string worstOf(const std::vector<Miss> &all, const std::string &part) {
  const Miss *worst = nullptr;
  for (const Miss &miss : all) {
    bool fits = part.empty() ? miss.key.find('.') == std::string::npos : miss.key.find(part) != std::string::npos;
    if (fits && (!worst || miss.error > worst->error))
      worst = &miss;
  }
  char text[64] = "-";
  if (worst)
    std::snprintf(text, sizeof text, "%.1e (case %s, row %d)", worst->error,
                  worst->key.substr(0, worst->key.find('.')).c_str(), int(worst->row));
  return text;
}

class Goldens : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, Goldens, testing::ValuesIn(goldenNames()), [](const auto &info) {
  std::string name = info.param; // gtest wants letters, digits and underscores
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(GoldenList, NamesEveryModelType) {
  std::vector<std::string> names = goldenNames();
  for (const char *type : {"qwen3-", "qwen3_moe-", "qwen3_next-", "qwen3_5-", "qwen3_5_moe-"})
    EXPECT_TRUE(llvm::any_of(names, [&](const std::string &name) { return name.rfind(type, 0) == 0; })) << type;
}

TEST_P(Goldens, OneCallACaseAgrees) {
  Loaded loaded = load(GetParam());
  ASSERT_TRUE(loaded.model);
  std::vector<Miss> all;
  for (size_t index = 0; index < loaded.golden.cases.size(); ++index) {
    Feed feed{int(index), {int64_t(loaded.golden.cases[index].size())}};
    Played played = playOrFail(loaded, {feed});
    std::vector<Miss> found = misses(loaded.golden, feed, played.traces[0]);
    EXPECT_GE(found.size(), 1u) << "case " << index << " has no golden";
    all.insert(all.end(), found.begin(), found.end());
    // A draft is the argmax of its logits.
    std::vector<int32_t> drafts = loaded.golden.ids(std::to_string(index) + ".mtp_chain");
    for (size_t j = 0; j < drafts.size(); ++j) {
      const reference::Tensor<float> &logits = played.traces[0].at("mtp_chain_logits");
      const float *row = logits.row(int64_t(j));
      EXPECT_EQ(std::max_element(row, row + logits.channels()) - row, drafts[j]) << "draft " << j;
    }
  }
  std::printf("%-14s logits %s  hidden %s  final %s  states %s  mtp %s\n", GetParam().c_str(), worstOf(all, "").c_str(),
              worstOf(all, ".hidden").c_str(), worstOf(all, ".final_hidden").c_str(), worstOf(all, ".rec").c_str(),
              worstOf(all, ".mtp").c_str());
  for (const Miss &miss : all)
    EXPECT_LE(miss.error, kTolerance) << miss.key << ", row " << miss.row;
  // Nothing that the file holds is left unread.
  size_t stored = 0;
  for (const std::string &key : loaded.golden.numbers.names())
    stored += key.find("router_margin") == std::string::npos && loaded.golden.numbers.find(key)->dtype == "F32";
  EXPECT_EQ(all.size(), stored);
}

// All cases side by side, each in calls of its own random sizes, in slots that held other sequences.
TEST_P(Goldens, RaggedBatchesOfSplitsAgree) {
  Loaded loaded = load(GetParam());
  ASSERT_TRUE(loaded.model);
  std::vector<Feed> whole, split;
  for (size_t index = 0; index < loaded.golden.cases.size(); ++index) {
    int64_t tokens = int64_t(loaded.golden.cases[index].size());
    whole.push_back({int(index), {tokens}});
    split.push_back({int(index), randomCalls(tokens, 17 + index)});
  }
  PlayOptions other;
  other.seed = 1;
  Played one = playOrFail(loaded, whole), many = playOrFail(loaded, split, other);
  double apart = 0;
  std::vector<Miss> all;
  for (size_t index = 0; index < whole.size(); ++index) {
    for (const auto &[key, tensor] : one.traces[index])
      apart = std::max(apart, reference::worstRowError(many.traces[index][key], tensor));
    std::vector<Miss> found = misses(loaded.golden, split[index], many.traces[index]);
    all.insert(all.end(), found.begin(), found.end());
  }
  std::printf("%-14s split and batched: logits %s, against one call %.1e\n", GetParam().c_str(),
              worstOf(all, "").c_str(), apart);
  for (const Miss &miss : all)
    EXPECT_LE(miss.error, kTolerance) << miss.key << ", row " << miss.row;
  EXPECT_LE(apart, kTolerance);
}

/// What a fault does to one golden.
struct Effect {
  std::string name;
  Miss worst;
};

/// Runs a fault over the cases with stored states, split in the middle, in reused slots. Empty where it does not apply.
std::vector<Effect> effectsOf(reference::Fault fault, std::vector<Loaded> &goldens) {
  std::vector<Effect> out;
  PlayOptions options;
  options.fault = fault;
  for (Loaded &loaded : goldens) {
    std::vector<Feed> brief{{2, {1, 2}}}, feeds{{2, {1, 2}}, {5, {20, 1, 44}}};
    if (!playOrFail(loaded, brief, options).faultHits)
      continue;
    Played played = playOrFail(loaded, feeds, options);
    Effect effect{loaded.golden.name, {}};
    for (size_t i = 0; i < feeds.size(); ++i)
      for (const Miss &miss : misses(loaded.golden, feeds[i], played.traces[i]))
        if (miss.error > effect.worst.error)
          effect.worst = miss;
    out.push_back(effect);
  }
  return out;
}

// Each wrong piece of mathematics misses every golden that it applies to by five tolerances or more, and applies to one.
TEST(WrongMathematics, MissesTheGoldens) {
  std::vector<Loaded> goldens;
  for (const std::string &name : goldenNames())
    goldens.push_back(load(name));
  for (Loaded &loaded : goldens)
    ASSERT_TRUE(loaded.model);
  std::printf("%-26s %-8s %-31s %s\n", "fault", "seen by", "least", "most");
  for (const reference::FaultInfo &info : reference::allFaults()) {
    std::vector<Effect> effects = effectsOf(info.fault, goldens);
    EXPECT_FALSE(effects.empty()) << info.name << " applies to no golden";
    if (effects.empty())
      continue;
    llvm::sort(effects, [](const Effect &a, const Effect &b) { return a.worst.error < b.worst.error; });
    size_t seen = llvm::count_if(effects, [](const Effect &e) { return e.worst.error >= 5 * kTolerance; });
    const Effect &least = effects.front(), &most = effects.back();
    std::printf("%-26s %2zu of %-2zu %-14s %-7s %7.1e  %-14s %-7s %7.1e  %s\n", info.name, seen, effects.size(),
                least.name.c_str(), least.worst.key.c_str(), least.worst.error, most.name.c_str(),
                most.worst.key.c_str(), most.worst.error, info.what);
    EXPECT_EQ(seen, effects.size()) << info.name << ": " << info.what;
  }
}

} // namespace
} // namespace qwen::golden
