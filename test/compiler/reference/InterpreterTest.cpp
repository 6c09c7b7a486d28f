//===- InterpreterTest.cpp - programs, regions, ranks, states --------------===//
//
// Programs are written out, small enough to work out what must come of them. The mathematics of the ops is OpsTest's
// matter, that of whole models the goldens'.
//
//===----------------------------------------------------------------------===//

#include "compiler/reference/Interpreter.h"

#include <set>

#include "compiler/reference/RandomInputs.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

namespace qwen::reference {
namespace {

struct Program {
  mlir::MLIRContext context;
  mlir::OwningOpRef<mlir::ModuleOp> module;

  explicit Program(const std::string &text) {
    context.loadDialect<ir::model::ModelDialect, ir::kernel::KernelDialect, mlir::func::FuncDialect>();
    module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
    if (!module)
      ADD_FAILURE() << "the program does not parse";
  }
};

std::string param(const std::string &name, const std::string &type) {
  return "model.param @\"" + name + "\" group \"model\" transform \"none\" sources [[]] : " + type + "\n";
}

/// A function `step` over `%batch, %x`, its result named y.
std::string step(const std::string &type, const std::string &body, const std::string &extra = "") {
  return "func.func @step" + extra + "(%batch: !model.batch, %x: " + type + ") -> " + type +
         " attributes {model.program = \"step\", model.inputs = [\"batch\", \"x\"], model.outputs = [\"y\"]" +
         (extra.empty() ? "" : ", model.rank = " + extra.substr(2) + " : i64") + "} {\n" + body + "\n}\n";
}

template <class Real> Tensor<Real> rows(std::vector<Real> values, int64_t channels, Type type = Type::kF32) {
  Tensor<Real> tensor;
  tensor.type = type;
  tensor.shape = {int64_t(values.size()) / channels, channels};
  tensor.values = std::move(values);
  return tensor;
}

Batch batchOf(int64_t tokens, int32_t position = 0, int32_t slot = 0) {
  Batch batch;
  batch.Append(std::vector<int32_t>(tokens), position, slot);
  return batch;
}

WeightSource numbered(const std::map<std::string, OwnedWeight> &weights) {
  return [weights](const std::string &name) -> StatusOr<OwnedWeight> {
    auto it = weights.find(name);
    if (it == weights.end())
      return InvalidArgumentError("no weight " + name);
    return it->second;
  };
}

TEST(Interpreter, RoundsResultsToTheirTypeInFloatOnly) {
  Program program(step("tensor<?x1xbf16>", "%y = model.add %x, %x : tensor<?x1xbf16> return %y : tensor<?x1xbf16>"));
  float odd = 1 + 0x1p-9f;
  State<float> single;
  auto y = Interpreter<float>(*program.module, {}).run("step", batchOf(1), single, {{"x", rows<float>({odd}, 1)}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ((*y)["y"].values[0], 2);
  State<double> exact;
  auto z = Interpreter<double>(*program.module, {}).run("step", batchOf(1), exact, {{"x", rows<double>({odd}, 1)}});
  ASSERT_TRUE(z.ok()) << z.status().message();
  EXPECT_EQ((*z)["y"].values[0], 2.0 * odd);
}

TEST(Interpreter, RunsDispatchesInAFunctionAndAlone) {
  Program program(param("w", "tensor<2x2xf32>") + step("tensor<?x2xf32>", R"(
    %w = model.weight @w : tensor<2x2xf32>
    %y = kernel.dispatch @linear(%a = %x : tensor<?x2xf32>, %b = %w : tensor<2x2xf32>) -> (tensor<?x2xf32>) {
      %l = model.linear %a, %b : (tensor<?x2xf32>, tensor<2x2xf32>) -> tensor<?x2xf32>
      %s = model.add %l, %a : tensor<?x2xf32>
      kernel.yield %s : tensor<?x2xf32>
    }
    %z = model.add %y, %y : tensor<?x2xf32>
    return %z : tensor<?x2xf32>)"));
  OwnedWeight w = OwnedWeight::copyOf({1, 2, 3, 4}, 2, 2);
  Interpreter<double> interpreter(*program.module, numbered({{"w", w}}));
  State<double> state;
  auto y = interpreter.run("step", batchOf(1), state, {{"x", rows<double>({1, 10}, 2)}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ((*y)["y"].values, (std::vector<double>{44, 106}));

  ir::kernel::DispatchOp dispatch;
  program.module->walk([&](ir::kernel::DispatchOp op) { dispatch = op; });
  auto x = std::make_shared<const Tensor<double>>(rows<double>({1, 10}, 2));
  auto alone = interpreter.runRegion(dispatch, {x, w}, batchOf(1), state);
  ASSERT_TRUE(alone.ok()) << alone.status().message();
  EXPECT_EQ(alone->front().values, (std::vector<double>{22, 53}));
}

// Rank 1 has an op more before the first sum; the ranks' own parts are x and 2x.
const char *const kTwoRanks = R"(
    %y = model.all_reduce %x : tensor<?x2xf32> -> tensor<?x2xf32>
    %z = model.all_reduce %y : tensor<?x2xf32> -> tensor<?x2xf32>
    return %z : tensor<?x2xf32>)";
const char *const kTwoRanks1 = R"(
    %d = model.add %x, %x : tensor<?x2xf32>
    %y = kernel.dispatch @all_reduce(%a = %d : tensor<?x2xf32>) -> (tensor<?x2xf32>) {
      %s = model.all_reduce %a : tensor<?x2xf32> -> tensor<?x2xf32>
      kernel.yield %s : tensor<?x2xf32>
    }
    %z = model.all_reduce %y : tensor<?x2xf32> -> tensor<?x2xf32>
    return %z : tensor<?x2xf32>)";

TEST(Interpreter, RanksMeetAtCollectives) {
  Program program(step("tensor<?x2xf32>", kTwoRanks, "_r0") + step("tensor<?x2xf32>", kTwoRanks1, "_r1"));
  auto run = [&](int64_t drop) {
    InterpreterOptions<float> options;
    options.dropCollective = drop;
    Interpreter<float> interpreter(*program.module, {}, options);
    State<float> state;
    auto ranks = interpreter.runRanks("step", batchOf(1), state, {{"x", rows<float>({1, 5}, 2)}});
    EXPECT_TRUE(ranks.ok());
    EXPECT_EQ(interpreter.collectives(), 2);
    return std::make_pair((*ranks)[0]["y"].values, (*ranks)[1]["y"].values);
  };
  std::vector<float> both{6, 30};
  EXPECT_EQ(run(-1), std::make_pair(both, both));
  EXPECT_EQ(run(0), std::make_pair(std::vector<float>{3, 15}, std::vector<float>{3, 15})); // 1 + 2
  EXPECT_EQ(run(1), std::make_pair(std::vector<float>{3, 15}, std::vector<float>{3, 15}));
}

TEST(Interpreter, SaysWhenRanksDoNotMeet) {
  Program program(step("tensor<?x2xf32>", kTwoRanks, "_r0") +
                  step("tensor<?x2xf32>", "return %x : tensor<?x2xf32>", "_r1"));
  State<float> state;
  auto y = Interpreter<float>(*program.module, {}).run("step", batchOf(1), state, {{"x", rows<float>({1, 5}, 2)}});
  ASSERT_FALSE(y.ok());
  EXPECT_EQ(y.status().message(), "step: a rank has ended while another waits at a collective");
}

// Shares of 2, 0 and 1 channels; the weight is a diagonal, so y = w x, and s = w w x is summed over the same shares.
std::string raggedRank(const std::string &rank, const std::string &width, const std::string &range) {
  std::string part = "tensor<?x" + width + "xf32>", all = "tensor<?x3xf32>";
  return step(all,
              "%w = model.weight @w slices [[" + range + "], []] : tensor<" + width + "x3xf32>\n" +
                  "%c = model.weight @w slices [[], [" + range + "]] : tensor<3x" + width + "xf32>\n" +
                  "%l = model.linear %x, %w : (" + all + ", tensor<" + width + "x3xf32>) -> " + part + "\n" +
                  "%y = model.all_gather %l counts [2, 0, 1] : " + part + " -> " + all + "\n" +
                  "%p = model.linear %l, %c : (" + part + ", tensor<3x" + width + "xf32>) -> " + all + "\n" +
                  "%s = model.all_reduce %p : " + all + " -> " + all + "\n" +
                  "%z = model.add %y, %s : " + all + "\nreturn %z : " + all,
              rank);
}

TEST(Interpreter, RanksMayOwnNothing) {
  Program program(param("w", "tensor<3x3xf32>") + raggedRank("_r0", "2", "0, 2") + raggedRank("_r1", "0", "2, 2") +
                  raggedRank("_r2", "1", "2, 3"));
  OwnedWeight w = OwnedWeight::copyOf({1, 0, 0, 0, 2, 0, 0, 0, 3}, 3, 3);
  State<float> state;
  auto y = Interpreter<float>(*program.module, numbered({{"w", w}}))
               .runRanks("step", batchOf(1), state, {{"x", rows<float>({1, 1, 1}, 3)}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  for (int r = 0; r < 3; ++r)
    EXPECT_EQ((*y)[r]["y"].values, (std::vector<float>{2, 6, 12})) << "rank " << r;
}

// Of two experts of one channel each, the rank takes the second, with its up row first.
TEST(Interpreter, CutsSlicesOutOfWeights) {
  Program program(param("v", "tensor<3xf32>") + param("gu", "tensor<2x2x1xbf16>") + param("d", "tensor<2x1x1xf32>") +
                  step("tensor<?x1xf32>", R"(
    %v = model.weight @v slices [[2, 3]] : tensor<1xf32>
    %n = model.rms_norm %x, %v eps 1.0e-30 : tensor<?x1xf32>, tensor<1xf32>
    %r = model.weight @d slices [[1, 2], [], []] : tensor<1x1x1xf32>
    %gu = model.weight @gu slices [[1, 2], [1, 2, 0, 1], []] : tensor<1x2x1xbf16>
    %m = model.weight @router : tensor<1x1xf32>
    %w, %i = model.router %x, %m : (tensor<?x1xf32>, tensor<1x1xf32>) -> (tensor<?x1xf32>, tensor<?x1xi32>)
    %y = model.experts %n, %w, %i, %gu, %r first_expert 0
      : (tensor<?x1xf32>, tensor<?x1xf32>, tensor<?x1xi32>, tensor<1x2x1xbf16>, tensor<1x1x1xf32>) -> tensor<?x1xf32>
    return %y : tensor<?x1xf32>)") + param("router", "tensor<1x1xf32>"));
  static const uint16_t gateUp[] = {ToBf16(9), ToBf16(9), ToBf16(3), ToBf16(0.5f)};
  std::map<std::string, OwnedWeight> weights{{"v", OwnedWeight::copyOf({7, 8, 2}, 1, 3)},
                                             {"gu", {{gateUp, Type::kBf16, 4, 1}, nullptr}},
                                             {"d", OwnedWeight::copyOf({5, 11}, 2, 1)},
                                             {"router", OwnedWeight::copyOf({1}, 1, 1)}};
  State<double> state;
  auto y = Interpreter<double>(*program.module, numbered(weights))
               .run("step", batchOf(1), state, {{"x", rows<double>({4}, 1)}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  // The norm gives 1 * 2; the gate is 0.5 * 2, the up 3 * 2: silu(1) * 6 * 11.
  EXPECT_NEAR((*y)["y"].values[0], 66 / (1 + std::exp(-1.0)), 1e-12);
}

const char *const kAttention = R"(
    %c = model.state "a" : !model.kv_cache<1x1, f32>
    model.kv_append %x, %x, %c, %batch : tensor<?x1xf32>, tensor<?x1xf32>, !model.kv_cache<1x1, f32>
    %y = model.attention %x, %c, %batch kv_map [0] scale 0.0 mask "causal" window 0
      : tensor<?x1xf32>, !model.kv_cache<1x1, f32>
    return %y : tensor<?x1xf32>)";

// With scale 0 every row is the mean of what its sequence has seen.
TEST(Interpreter, CachesGoOnBySlotAndCanBeRolledBack) {
  Program program(step("tensor<?x1xf32>", kAttention));
  Interpreter<float> interpreter(*program.module, {});
  State<float> state;
  auto run = [&](const Batch &batch, std::vector<float> x) -> std::vector<float> {
    auto y = interpreter.run("step", batch, state, {{"x", rows<float>(std::move(x), 1)}});
    EXPECT_TRUE(y.ok()) << y.status().message();
    return y.ok() ? (*y)["y"].values : std::vector<float>();
  };
  Batch two;
  two.Append({0, 0}, 0, 5);
  two.Append({0}, 0, 6);
  EXPECT_EQ(run(two, {2, 4, 10}), (std::vector<float>{2, 3, 10}));
  auto saved = state.snapshot(5);
  EXPECT_EQ(run(batchOf(1, 2, 5), {6}), (std::vector<float>{4}));
  EXPECT_EQ(run(batchOf(1, 2, 5), {9}), (std::vector<float>{5})); // position 2 again: the 6 is forgotten
  state.restore(7, saved);
  EXPECT_EQ(run(batchOf(1, 2, 7), {0}), (std::vector<float>{2}));
  EXPECT_EQ(run(batchOf(1, 0, 5), {1}), (std::vector<float>{1})); // from 0 on it is another sequence

  Batch padded = batchOf(1, 1, 6);
  padded.Append({0}, 0, -1);
  EXPECT_EQ(run(padded, {20, 99}), (std::vector<float>{15, 0}));

  auto hole = interpreter.run("step", batchOf(1, 3, 6), state, {{"x", rows<float>({1}, 1)}});
  ASSERT_FALSE(hole.ok());
  EXPECT_EQ(hole.status().message(),
            "step: model.kv_append: a: slot 6 holds 2 tokens, the batch goes on at position 3");
}

/// A delta-rule mixer whose inputs are all its one input: key heads of 2 channels, twice as many value heads of 3.
Program deltaNet(int keyHeads = 2) {
  std::string heads = std::to_string(2 * keyHeads), channels = std::to_string(10 * keyHeads);
  std::string state = "!model.recurrent_state<k " + std::to_string(keyHeads) + " v " + heads + " dk 2 dv 3 w 4, f32>";
  std::string all = "tensor<?x" + channels + "xf32>", key = "tensor<?x" + heads + "xf32>",
              value = "tensor<?x" + std::to_string(6 * keyHeads) + "xf32>", vector = "tensor<" + heads + "xf32>",
              conv = "tensor<" + channels + "x4xf32>";
  return Program(param("conv", conv) + param("a_log", vector) + param("dt_bias", vector) +
                 "func.func @step(%batch: !model.batch, %x: " + all + ") -> " + value + R"( attributes {
      model.program = "step", model.inputs = ["batch", "x"], model.outputs = ["y"]} {
    %s = model.state "g" : )" + state + "\n%w = model.weight @conv : " + conv + "\n" +
                 "%al = model.weight @a_log : " + vector + "\n%dt = model.weight @dt_bias : " + vector + "\n" +
                 "%c = model.causal_conv1d %x, %w, %s, %batch : " + all + ", " + conv + ", " + state + "\n" +
                 "%q, %k, %v = model.split %c heads 1 : (" + all + ") -> (" + key + ", " + key + ", " + value + ")\n" +
                 "%qn = model.l2_norm %q head_dim 2 eps 1.0e-6 scale 0.7071 : " + key + "\n" +
                 "%kn = model.l2_norm %k head_dim 2 eps 1.0e-6 scale 1.0 : " + key + "\n" +
                 "%beta, %g = model.delta_gates %q, %k, %al, %dt : (" + key + ", " + key + ", " +
                 vector + ", " + vector + ") -> (" + key + ", " + key + ")\n" +
                 "%y = model.gated_delta_rule %qn, %kn, %v, %beta, %g, %s, %batch : (" + key + ", " + key + ", " + value +
                 ", " + key + ", " + key + ", " + state + ", !model.batch) -> " + value + "\nreturn %y : " + value +
                 "\n}");
}

Tensor<float> noise(int64_t tokens, int64_t channels, uint64_t seed) {
  OwnedWeight drawn = randomWeight("embed", Type::kF32, tokens, channels, seed);
  auto *numbers = static_cast<const float *>(drawn.view.data);
  return rows<float>(std::vector<float>(numbers, numbers + tokens * channels), channels);
}

Tensor<float> rowsOf(const Tensor<float> &x, int64_t begin, int64_t end) {
  return rows<float>(std::vector<float>(x.row(begin), x.row(end)), x.channels());
}

TEST(Interpreter, OneCallIsManyAndAloneIsInABatch) {
  Program program = deltaNet();
  Interpreter<float> interpreter(*program.module, randomWeights(*program.module, 1));
  Tensor<float> x = noise(9, 20, 2), other = noise(4, 20, 3);
  State<float> state;
  auto whole = interpreter.run("step", batchOf(9), state, {{"x", x}});
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  std::vector<float> pieces;
  int64_t at = 0;
  for (int64_t count : {1, 4, 1, 1, 2}) {
    Batch batch;
    batch.Append(std::vector<int32_t>(4), 0, 2); // another sequence, from its start each time
    batch.Append(std::vector<int32_t>(count), int32_t(at), 1);
    Tensor<float> both = other, mine = rowsOf(x, at, at + count);
    both.values.insert(both.values.end(), mine.values.begin(), mine.values.end());
    both.shape[0] += count;
    auto y = interpreter.run("step", batch, state, {{"x", both}});
    ASSERT_TRUE(y.ok()) << y.status().message();
    pieces.insert(pieces.end(), (*y)["y"].row(4), (*y)["y"].row(4 + count));
    at += count;
  }
  EXPECT_EQ(pieces, (*whole)["y"].values);
  EXPECT_EQ(state.recurrent(0, 1, "g").s, state.recurrent(0, 0, "g").s);
  EXPECT_EQ(state.recurrent(0, 1, "g").conv, state.recurrent(0, 0, "g").conv);
}

TEST(Interpreter, ARecurrentStateGoesOnWhereItStands) {
  Program program = deltaNet();
  Interpreter<float> interpreter(*program.module, randomWeights(*program.module, 1));
  State<float> state;
  ASSERT_TRUE(interpreter.run("step", batchOf(3), state, {{"x", noise(3, 20, 2)}}).ok());
  auto y = interpreter.run("step", batchOf(1, 2), state, {{"x", noise(1, 20, 2)}});
  ASSERT_FALSE(y.ok());
  EXPECT_EQ(y.status().message(),
            "step: model.causal_conv1d: g: slot 0 holds 3 tokens, the batch goes on at position 2");
}

// What a rank of a ragged shard may be left with.
TEST(Interpreter, ARecurrentStateWithoutHeadsGoesOnToo) {
  Program program = deltaNet(0);
  Interpreter<float> interpreter(*program.module, randomWeights(*program.module, 1));
  State<float> state;
  Tensor<float> nothing;
  nothing.shape = {1, 0};
  for (int position = 0; position < 3; ++position) {
    auto y = interpreter.run("step", batchOf(1, position), state, {{"x", nothing}});
    ASSERT_TRUE(y.ok()) << y.status().message();
  }
}

TEST(Interpreter, AStateOfTheWrongSizeIsRefused) {
  Program program = deltaNet();
  Interpreter<float> interpreter(*program.module, randomWeights(*program.module, 1));
  State<float> state;
  state.recurrent(0, 0, "g").convTokens = 2;
  state.recurrent(0, 0, "g").conv.resize(7);
  auto y = interpreter.run("step", batchOf(1, 2), state, {{"x", noise(1, 20, 2)}});
  ASSERT_FALSE(y.ok());
  EXPECT_EQ(y.status().message(),
            "step: model.causal_conv1d: g: slot 0 was given 7 numbers, the layer's state has 60");
}

TEST(Interpreter, TheObserverSeesNamedResults) {
  Program program(step("tensor<?x1xf32>", R"(
    %y = kernel.dispatch @elementwise(%a = %x : tensor<?x1xf32>) -> (tensor<?x1xf32>) {
      %b = model.add %a, %a : tensor<?x1xf32> loc("layers.0")
      %c = model.add %b, %b : tensor<?x1xf32> loc(fused["there", "layers.1"])
      kernel.yield %c : tensor<?x1xf32>
    }
    return %y : tensor<?x1xf32>)"));
  std::map<std::string, float> seen;
  InterpreterOptions<float> options;
  options.observer = [&](int, mlir::Operation *op, mlir::Value, const Tensor<float> &tensor) {
    seen[locationName(op->getLoc())] = tensor.values[0];
  };
  State<float> state;
  ASSERT_TRUE(Interpreter<float>(*program.module, {}, options)
                  .run("step", batchOf(1), state, {{"x", rows<float>({1}, 1)}})
                  .ok());
  EXPECT_EQ(seen, (std::map<std::string, float>{{"layers.0", 2}, {"there", 4}}));
}

// Three short rows of one sequence and one of another; logits name the next id of each row.
TEST(Interpreter, AcceptsTheDraftsThatTheModelAgreesWith) {
  Program program(R"(
  func.func @verify(%batch: !model.batch, %ids: tensor<?xi32>, %l: tensor<?x4xf32>) -> (tensor<?xi32>, tensor<?xi32>)
      attributes {model.program = "verify", model.inputs = ["batch", "token_ids", "logits"],
                  model.outputs = ["accepted", "emitted"]} {
    %next = model.sample %l, %batch : tensor<?x4xf32> -> tensor<?xi32>
    %a, %e = model.accept %next, %ids, %batch : tensor<?xi32>, tensor<?xi32> -> tensor<?xi32>, tensor<?xi32>
    return %a, %e : tensor<?xi32>, tensor<?xi32>
  })");
  Batch batch;
  batch.Append({0, 3, 1}, 4, 0);
  batch.Append({2}, 7, 1);
  batch.Append({2, 2}, 0, 2, Batch::Logits::kLast);
  batch.num_short = 2;
  auto logits = rows<float>({0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}, 4); // 3, 2, 0 | 1 | 3
  State<float> state;
  Interpreter<float> interpreter(*program.module, {});
  auto y = interpreter.run("verify", batch, state, {{"logits", logits}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ((*y)["accepted"].ids, (std::vector<int32_t>{1, 0}));
  EXPECT_EQ((*y)["emitted"].ids, (std::vector<int32_t>{2, 1}));

  batch.logit_rows = {0, 2, 3, 5, 4};
  auto bad = interpreter.run("verify", batch, state, {{"logits", logits}});
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().message(), "verify: model.accept: row 1 of short sequence 0 is no logit row");
}

TEST(Interpreter, SaysWhatIsMissingOrMisshapen) {
  Program program(param("w", "tensor<1x1xf32>") + step("tensor<?x1xf32>", R"(
    %w = model.weight @w : tensor<1x1xf32> loc("head")
    %y = model.linear %x, %w : (tensor<?x1xf32>, tensor<1x1xf32>) -> tensor<?x1xf32>
    return %y : tensor<?x1xf32>)"));
  State<float> state;
  std::map<std::string, Tensor<float>> x{{"x", rows<float>({1}, 1)}};
  auto says = [&](std::map<std::string, OwnedWeight> weights, const char *name, Batch batch,
                  std::map<std::string, Tensor<float>> extra) {
    auto y = Interpreter<float>(*program.module, numbered(weights)).run(name, batch, state, extra);
    return y.ok() ? "" : y.status().message();
  };
  EXPECT_EQ(says({}, "draft", batchOf(1), x), "the module has no program \"draft\"");
  EXPECT_EQ(says({}, "step", batchOf(1), {}), "program \"step\": input \"x\" is not given");
  EXPECT_EQ(says({}, "step", batchOf(1), x), "step: head: model.weight: no weight w");
  EXPECT_EQ(says({{"w", OwnedWeight::copyOf({1, 2}, 1, 2)}}, "step", batchOf(1), x),
            "step: head: model.weight: weight w is given as [1, 2], the param has 1 elements in columns of 1");
  Batch batch = batchOf(1);
  batch.logit_rows = {1};
  EXPECT_EQ(says({}, "step", batch, x), "step: batch: logit row 1 of 1 rows");
  batch.token_ids = {0, 0};
  EXPECT_EQ(says({}, "step", batch, x), "step: batch: token ids: 2, not 1");
}

TEST(Faults, AreAtLeastTwentyAndNamed) {
  std::set<std::string> names;
  for (const FaultInfo &info : allFaults()) {
    names.insert(info.name);
    EXPECT_FALSE(std::string(info.what).empty());
  }
  EXPECT_EQ(names.size(), allFaults().size());
  EXPECT_GE(names.size(), 20u);
}

TEST(Faults, CountWhereTheyApply) {
  Program program(step("tensor<?x1xf32>", "%y = model.silu_mul %x, %x : tensor<?x1xf32> return %y : tensor<?x1xf32>"));
  for (auto [fault, hits] : {std::pair(Fault::GateUpSwapped, 1), std::pair(Fault::RopeAllDims, 0)}) {
    InterpreterOptions<float> options;
    options.fault = fault;
    Interpreter<float> interpreter(*program.module, {}, options);
    State<float> state;
    ASSERT_TRUE(interpreter.run("step", batchOf(1), state, {{"x", rows<float>({1}, 1)}}).ok());
    EXPECT_EQ(interpreter.faultHits(), hits);
  }
}

TEST(RandomInputs, FollowFromSeedAndName) {
  auto bytes = [](const OwnedWeight &w) {
    auto *from = static_cast<const char *>(w.view.data);
    return std::string(from, from + w.view.rows * w.view.cols * BytesOf(w.view.type));
  };
  auto draw = [&](const char *name, uint64_t seed) { return bytes(randomWeight(name, Type::kBf16, 3, 5, seed)); };
  EXPECT_EQ(draw("layers.0.attn.q", 1), draw("layers.0.attn.q", 1));
  EXPECT_NE(draw("layers.0.attn.q", 1), draw("layers.0.attn.q", 2));
  EXPECT_NE(draw("layers.0.attn.q", 1), draw("layers.1.attn.q", 1));
}

TEST(RandomInputs, WorstRowIsByItsOwnSize) {
  Tensor<float> want = rows<float>({3, 4, 300, 400}, 2), got = rows<float>({3, 4.5, 300, 410}, 2);
  int64_t row = -1;
  EXPECT_NEAR(worstRowError(got, want, &row), 0.1, 1e-6);
  EXPECT_EQ(row, 0);
  got.values[3] = NAN;
  EXPECT_EQ(worstRowError(got, want, &row), INFINITY);
  EXPECT_EQ(row, 1);
  EXPECT_EQ(worstRowError(rowsOf(got, 0, 1), want), INFINITY);
}

} // namespace
} // namespace qwen::reference
