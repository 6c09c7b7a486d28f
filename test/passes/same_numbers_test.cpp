// A pass may move work, never change it: every program of every small model gives the same numbers before and after.
//
// Fusions keep the ops, so they must keep the bits (bf16, with every rounding). Sharding changes the order of sums, so
// it is judged without any rounding, in double, where only a wrong slice, head or share is left to see.
#include "compiler/import/Import.h"
#include "compiler/reference/Interpreter.h"
#include "compiler/reference/RandomInputs.h"
#include "passes/Passes.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

using namespace mlir;

namespace qwen {
namespace {

using reference::Batch;

constexpr const char *kGoldens[] = {"qwen3-a",     "qwen3-b",      "qwen3-c",       "qwen3_moe-a",
                                    "qwen3_moe-b", "qwen3_next-a", "qwen3_next-b",  "qwen3_5-a",
                                    "qwen3_5-b",   "qwen3_5-c",    "qwen3_5_moe-a", "qwen3_5_moe-b"};

// In pipeline order. dispatch-remaining is the last.
constexpr const char *kFusions[] = {
    "fuse-all-reduce", "fuse-experts",           "fuse-router",         "fuse-gated-delta-net", "fuse-attention",
    "fuse-gate-up",    "fuse-input-projections", "fuse-gated-norm-out", "fuse-norm-linear",     "fuse-residual",
    "fuse-lm-head",    "fuse-add-rms-norm",      "dispatch-remaining"};

std::string goldenConfig(const std::string &name) { return std::string(QWEN_SOURCE_DIR) + "/test/golden/" + name; }

/// A call of one program: `name` and its batch. Later calls go on from the state of earlier ones.
struct Call {
  std::string program;
  Batch batch;
};

/// Prompts and single tokens side by side, drafts to verify, a drafter's catch-up and its block.
std::vector<Call> callsOf(int64_t vocab) {
  uint64_t seed = 0;
  auto ids = [&](int64_t count) { return reference::randomIds(count, vocab, ++seed); };
  std::vector<Call> calls;
  Batch prompts;
  prompts.Append(ids(9), 0, 2);
  prompts.Append(ids(2), 0, 0);
  calls.push_back({"step", prompts});
  Batch mixed;
  mixed.num_short = 2;
  mixed.Append(ids(1), 9, 2);
  mixed.Append(ids(1), 2, 0);
  mixed.Append(ids(5), 0, 1, Batch::Logits::kLast);
  calls.push_back({"step", mixed});
  Batch drafts;
  drafts.num_short = 3;
  drafts.Append(ids(1), 3, 0);
  drafts.Append(ids(4), 10, 2);
  drafts.Append(ids(2), 5, 1);
  calls.push_back({"verify", drafts});
  Batch catchUp;
  catchUp.Append(ids(6), 0, 2);
  catchUp.Append(ids(3), 0, 0);
  calls.push_back({"draft_mtp", catchUp});
  calls.push_back({"draft_dflash_context", catchUp});
  Batch block;
  block.num_short = 2;
  block.Append(ids(4), 6, 2);
  block.Append(ids(4), 3, 0);
  calls.push_back({"draft_dflash", block});
  return calls;
}

func::FuncOp programOf(ModuleOp module, StringRef name) {
  for (auto function : module.getOps<func::FuncOp>())
    if (auto attr = function->getAttrOfType<StringAttr>(ir::model::kProgramAttr); attr && attr.getValue() == name)
      return function;
  return {};
}

int64_t dimension(ModuleOp module, StringRef name) {
  return cast<IntegerAttr>(module->getAttrOfType<DictionaryAttr>("model.dims").get(name)).getInt();
}

template <class Real> using Results = std::vector<std::vector<reference::Outputs<Real>>>; // [call][rank]

/// Runs every call whose program the module has.
template <class Real> Results<Real> runCalls(ModuleOp module) {
  reference::Interpreter<Real> interpreter(module, reference::randomWeights(module, 5));
  reference::State<Real> state;
  Results<Real> results;
  for (const Call &call : callsOf(dimension(module, "vocab"))) {
    func::FuncOp program = programOf(module, call.program);
    if (!program)
      continue;
    std::map<std::string, reference::Tensor<Real>> extra;
    auto names = program->getAttrOfType<ArrayAttr>(ir::model::kInputsAttr);
    for (auto [attr, type] : llvm::zip(names, program.getArgumentTypes())) {
      auto tensor = dyn_cast<RankedTensorType>(type);
      if (!tensor || tensor.getRank() != 2)
        continue;
      reference::Tensor<Real> rows;
      rows.type = tensor.getElementType().isBF16() ? reference::Type::kBf16 : reference::Type::kF32;
      rows.shape = {call.batch.num_tokens(), tensor.getDimSize(1)};
      std::mt19937 generator(3);
      std::normal_distribution<float> normal;
      for (int64_t i = 0; i < rows.shape[0] * rows.shape[1]; ++i)
        rows.values.push_back(reference::Round(normal(generator), rows.type));
      extra[cast<StringAttr>(attr).str()] = rows;
    }
    auto outputs = interpreter.runRanks(call.program, call.batch, state, extra);
    EXPECT_TRUE(outputs.ok()) << call.program << ": " << outputs.status().message();
    if (!outputs.ok())
      return {};
    results.push_back(std::move(*outputs));
  }
  return results;
}

template <class Real>
void expectSameBits(const reference::Outputs<Real> &got, const reference::Outputs<Real> &want,
                    const std::string &where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  for (const auto &[name, tensor] : want) {
    const auto &other = got.at(name);
    EXPECT_EQ(other.shape, tensor.shape) << where << ", " << name;
    EXPECT_TRUE(other.ids == tensor.ids) << where << ", " << name;
    EXPECT_TRUE(other.values == tensor.values) << where << ", " << name;
  }
}

template <class Real>
void expectSameBits(const Results<Real> &got, const Results<Real> &want, const std::string &where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  for (size_t call = 0; call < want.size(); ++call) {
    ASSERT_EQ(got[call].size(), want[call].size()) << where;
    for (size_t rank = 0; rank < want[call].size(); ++rank)
      expectSameBits(got[call][rank], want[call][rank],
                     where + ", call " + std::to_string(call) + ", rank " + std::to_string(rank));
  }
}

/// The worst row over all calls and outputs of rank 0.
double worstError(const Results<double> &got, const Results<double> &want) {
  double worst = 0;
  for (size_t call = 0; call < want.size(); ++call)
    for (const auto &[name, tensor] : want[call][0])
      if (tensor.ids.empty())
        worst = std::max(worst, reference::worstRowError(got[call][0].at(name), tensor));
  return worst;
}

class Passes : public testing::Test {
protected:
  Passes() {
    static bool once = (passes::registerQwenPasses(), passes::registerQwenPipelines(), true);
    (void)once;
    context.loadDialect<func::FuncDialect, ir::model::ModelDialect, ir::kernel::KernelDialect>();
  }

  OwningOpRef<ModuleOp> import(const std::string &config, const std::string &dtype, const std::string &drafter = "") {
    compiler::ImportOptions options;
    options.dtype = dtype;
    options.maxRows = 4;
    options.drafterPath = drafter;
    std::vector<std::string> warnings;
    auto module = compiler::importModel(context, config, options, warnings);
    EXPECT_TRUE(module.ok()) << config << ": " << module.status().message();
    return module.ok() ? std::move(*module) : OwningOpRef<ModuleOp>();
  }

  /// A copy of `module` behind `pipeline`.
  OwningOpRef<ModuleOp> after(ModuleOp module, const std::string &pipeline) {
    OwningOpRef<ModuleOp> copy = module.clone();
    PassManager manager(&context);
    EXPECT_TRUE(succeeded(parsePassPipeline(pipeline, manager))) << pipeline;
    EXPECT_TRUE(succeeded(manager.run(*copy))) << pipeline;
    return copy;
  }

  /// Every fusion alone, and every prefix of the pipeline, keeps the bits.
  void checkFusions(ModuleOp module, const std::string &where) {
    Results<float> want = runCalls<float>(module);
    ASSERT_FALSE(want.empty());
    std::string prefix;
    for (const char *fusion : kFusions) {
      std::string alone = std::string("func.func(") + fusion + ")";
      prefix += (prefix.empty() ? "" : ",") + std::string(fusion);
      expectSameBits(runCalls<float>(*after(module, alone)), want, where + " after " + fusion);
      expectSameBits(runCalls<float>(*after(module, "func.func(" + prefix + ")")), want, where + " up to " + fusion);
    }
  }

  /// Ranks agree with each other to the bit and with one rank to what double can tell.
  void checkShards(ModuleOp module, const std::string &where) {
    Results<double> want = runCalls<double>(module);
    ASSERT_FALSE(want.empty());
    for (const char *options : {"tp=1", "tp=2", "tp=3", "tp=5", "tp=8", "tp=2 moe=ep", "tp=3 moe=ep", "tp=5 moe=ep",
                                "tp=3 rotate", "tp=5 rotate moe=ep"}) {
      std::string name = where + " with " + options, pass = std::string("shard-tensor-parallel{") + options + "}";
      OwningOpRef<ModuleOp> sharded = after(module, pass + ",verify-stage{stage=shard}");
      Results<double> got = runCalls<double>(*sharded);
      ASSERT_EQ(got.size(), want.size()) << name;
      EXPECT_LE(worstError(got, want), 1e-11) << name;
      for (auto &call : got)
        for (auto &rank : call)
          expectSameBits(rank, call.front(), name + ", ranks");
      for (size_t call = 0; call < want.size(); ++call)
        EXPECT_TRUE(got[call][0].count("next") == 0 || got[call][0].at("next").ids == want[call][0].at("next").ids);
      expectSameBits(runCalls<double>(*after(*sharded, "fuse,verify-stage{stage=fuse}")), got, name + ", fused");
    }
  }

  MLIRContext context{MLIRContext::Threading::DISABLED}; // as qwenc has it
};

class SameNumbers : public Passes, public testing::WithParamInterface<const char *> {};

TEST_P(SameNumbers, BehindEveryFusion) {
  OwningOpRef<ModuleOp> module = import(goldenConfig(GetParam()), "bf16");
  ASSERT_TRUE(module);
  checkFusions(*module, GetParam());
}

// With ranks the fusions meet collectives.
TEST_P(SameNumbers, BehindEveryFusionOfAShard) {
  OwningOpRef<ModuleOp> module = import(goldenConfig(GetParam()), "bf16");
  ASSERT_TRUE(module);
  checkFusions(*after(*module, "shard-tensor-parallel{tp=3}"), GetParam());
}

TEST_P(SameNumbers, OnAnyNumberOfRanks) {
  OwningOpRef<ModuleOp> module = import(goldenConfig(GetParam()), "f32");
  ASSERT_TRUE(module);
  checkShards(*module, GetParam());
}

// Two sums a layer, no more; and each is needed: without it the numbers are wrong.
TEST_P(SameNumbers, NotWithoutACollective) {
  OwningOpRef<ModuleOp> module = import(goldenConfig(GetParam()), "f32");
  ASSERT_TRUE(module);
  Results<double> want = runCalls<double>(*module);
  ASSERT_FALSE(want.empty());
  for (const char *ranks : {"tp=2", "tp=5"}) {
    OwningOpRef<ModuleOp> sharded = after(*module, std::string("shard-tensor-parallel{") + ranks + "}");
    auto sums = programOf(*sharded, "step").front().getOps<ir::model::AllReduceOp>();
    int64_t layers = dimension(*module, "layers"), count = std::distance(sums.begin(), sums.end());
    EXPECT_EQ(count, 2 * layers);
    for (int64_t drop = 1; drop <= count; ++drop) {
      std::string pass =
          std::string("shard-tensor-parallel{") + ranks + " drop-collective=" + std::to_string(drop) + "}";
      EXPECT_GT(worstError(runCalls<double>(*after(*module, pass)), want), 1e-4) << pass;
    }
  }
}

// What a layer costs in barriers: five regions, dense or with experts, whichever mixer it has.
TEST_P(SameNumbers, AndFiveDispatchesALayer) {
  OwningOpRef<ModuleOp> module = import(goldenConfig(GetParam()), "bf16");
  ASSERT_TRUE(module);
  OwningOpRef<ModuleOp> fused = after(*module, "shard-tensor-parallel,fuse,verify-stage{stage=fuse}");
  for (auto program : fused->getOps<func::FuncOp>()) {
    std::map<std::string, int> perLayer;
    for (auto dispatch : program.front().getOps<ir::kernel::DispatchOp>()) {
      StringRef origin = dispatch.getOriginAttr().getValue();
      size_t at = origin.find("layers.");
      if (at != StringRef::npos)
        ++perLayer[origin.substr(0, origin.find('.', at + 7)).str()];
    }
    bool isDraft = program.getName() == "draft_mtp";
    EXPECT_EQ(int64_t(perLayer.size()), isDraft ? 1 : dimension(*module, "layers"));
    for (const auto &[layer, count] : perLayer)
      EXPECT_EQ(count, 5) << program.getName().str() << ", " << layer;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, SameNumbers, testing::ValuesIn(kGoldens), [](const auto &info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

/// A drafter that fits qwen3_5-a; `more` is put among its keys.
std::string writeDrafter(const std::string &name, const std::string &architecture, const std::string &more) {
  std::string path = testing::TempDir() + name + ".json";
  std::ofstream(path) << R"({"architectures": [")" << architecture << R"("], "model_type": "qwen3", "dtype": "float32",
    "hidden_size": 72, "vocab_size": 137, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 88, "rms_norm_eps": 1e-6, "rope_theta": 10000, "hidden_act": "silu",
    "max_position_embeddings": 4096, "num_target_layers": 4, "block_size": 4,
    "dflash_config": {"mask_token_id": 130, "target_layer_ids": [1, 3])"
                      << more << "}}";
  return path;
}

class Drafters : public Passes {
protected:
  void check(const std::string &drafter) {
    OwningOpRef<ModuleOp> plain = import(goldenConfig("qwen3_5-a"), "f32", drafter);
    ASSERT_TRUE(plain);
    ASSERT_TRUE(programOf(*plain, "draft_dflash"));
    checkShards(*plain, drafter);
    OwningOpRef<ModuleOp> rounded = import(goldenConfig("qwen3_5-a"), "bf16", drafter);
    ASSERT_TRUE(rounded);
    checkFusions(*rounded, drafter);
    checkFusions(*after(*rounded, "shard-tensor-parallel{tp=3}"), drafter);
  }
};

TEST_F(Drafters, DFlash) { check(writeDrafter("dflash", "DFlashDraftModel", "")); }

TEST_F(Drafters, DFlash2) {
  check(writeDrafter("dflash2", "DFlash2DraftModel",
                     R"(, "conv_kernel_size": 2, "conv_group_size": 8, "selector_rank": 8, "selector_top_k": 16)"));
}

} // namespace
} // namespace qwen
