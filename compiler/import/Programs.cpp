//===- Programs.cpp - step, verify, draft_mtp -----------------------------===//

#include "compiler/import/Programs.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;
namespace model_ir = qwen::ir::model;

namespace qwen::compiler {

Program::Program(ModuleOp module, SymbolTable &params, Type element, StringRef name, int64_t maxRows)
    : builder(OpBuilder::atBlockEnd(module.getBody())), ops(builder, params, element), maxRows(maxRows) {
  Location loc = NameLoc::get(builder.getStringAttr(name));
  function = func::FuncOp::create(builder, loc, name, builder.getFunctionType({}, {}));
  builder.setInsertionPointToStart(function.addEntryBlock());
  ops.loc = loc;
  ops.batch = input("batch", model_ir::BatchType::get(builder.getContext()));
}

Value Program::input(StringRef name, Type type) {
  inputNames.push_back(builder.getStringAttr(name));
  return function.getBody().front().addArgument(type, ops.loc);
}

void Program::output(StringRef name, Value value) {
  outputNames.push_back(builder.getStringAttr(name));
  results.push_back(value);
}

void Program::finish() {
  func::ReturnOp::create(builder, function.getLoc(), results);
  function.setFunctionType(
      builder.getFunctionType(function.getBody().front().getArgumentTypes(), ValueRange(results).getTypes()));
  function->setAttr(model_ir::kProgramAttr, function.getSymNameAttr());
  function->setAttr(model_ir::kInputsAttr, builder.getArrayAttr(inputNames));
  function->setAttr(model_ir::kOutputsAttr, builder.getArrayAttr(outputNames));
  function->setAttr(model_ir::kRankAttr, builder.getI64IntegerAttr(0));
  function->setAttr(model_ir::kMaxRowsAttr, builder.getI64IntegerAttr(maxRows));
}

/// The target model. `verify` is `step` that also says how many drafts of each sequence the model agrees with; one
/// recipe for both keeps them the same.
static void buildTarget(ModuleOp module, SymbolTable &params, const ImportedModel &model, bool verify) {
  const ModelConfig &target = model.target;
  Program program(module, params, model.element, verify ? "verify" : "step", verify ? model.maxRows : 1);
  Graph &graph = program.graph();
  Value ids = program.input("token_ids", graph.ids());

  graph.at("embed");
  Value x = graph.embed(ids, "embed");
  std::vector<Value> layerOutputs;
  for (auto [index, layer] : llvm::enumerate(target.layers)) {
    x = buildDecoderLayer(graph, x, "layers." + std::to_string(index), target, layer);
    layerOutputs.push_back(x);
  }

  // An MTP head reads the normed rows of every token, so then the norm comes before the rows are picked.
  graph.at("final_norm");
  Value hidden;
  if (target.mtp) {
    hidden = graph.rmsNorm(x, "final_norm", target);
    graph.at("lm_head");
    x = graph.logitRows(hidden);
  } else {
    x = graph.rmsNorm(graph.logitRows(x), "final_norm", target);
    graph.at("lm_head");
  }
  Value logits = graph.lmHead(x);
  graph.at("sample");
  Value next = graph.sample(logits);
  program.output("next", next);
  program.output("logits", logits);
  if (hidden)
    program.output("final_hidden", hidden);
  if (model.drafter) {
    graph.at("features");
    SmallVector<Value> taps;
    for (int64_t layer : model.drafter->targetLayers)
      taps.push_back(layerOutputs[layer]);
    program.output("features", graph.concat(taps));
  }
  if (verify) {
    graph.at("accept");
    auto accept =
        model_ir::AcceptOp::create(graph.builder, graph.loc, graph.ids(), graph.ids(), next, ids, graph.batch);
    program.output("accepted", accept.getAccepted());
    program.output("emitted", accept.getEmitted());
  }
  program.finish();
}

/// The MTP head: the embedding of the next token beside the normed hidden state of this one, through one attention
/// layer (model specification, 11).
static void buildMtp(ModuleOp module, SymbolTable &params, const ImportedModel &model) {
  const ModelConfig &target = model.target;
  Program program(module, params, model.element, "draft_mtp", model.maxRows);
  Graph &graph = program.graph();
  Value ids = program.input("token_ids", graph.ids());
  Value hidden = program.input("hidden", graph.rows(target.hidden));

  graph.at("mtp.embed");
  Value embedded = graph.embed(ids, "embed");
  graph.at("mtp.norm_embed");
  embedded = graph.rmsNorm(embedded, "mtp.norm_embed", target);
  graph.at("mtp.norm_hidden");
  hidden = graph.rmsNorm(hidden, "mtp.norm_hidden", target);
  graph.at("mtp.fc");
  Value x = graph.linear(graph.concat({embedded, hidden}), "mtp.fc");
  x = buildDecoderLayer(graph, x, "mtp.layers.0", target, *target.mtp);
  graph.at("mtp.norm");
  x = graph.rmsNorm(x, "mtp.norm", target);
  graph.at("mtp.lm_head");
  Value logits = graph.lmHead(graph.logitRows(x));
  graph.at("mtp.sample");
  program.output("next", graph.sample(logits));
  program.output("logits", logits);
  program.output("hidden_out", x);
  program.finish();
}

void buildPrograms(ModuleOp module, const ImportedModel &model) {
  SymbolTable params(module);
  buildTarget(module, params, model, /*verify=*/false);
  if (model.maxRows > 1)
    buildTarget(module, params, model, /*verify=*/true);
  if (model.target.mtp)
    buildMtp(module, params, model);
  if (model.drafter)
    buildDFlash(module, params, model);
}

} // namespace qwen::compiler
