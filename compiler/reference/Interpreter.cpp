//===- Interpreter.cpp - one handler an op ---------------------------------===//
//
// A handler fetches operands, calls the plain function of runtime/kernels/reference and stores the result; `define`
// rounds it to its type. Lines with `faulty(...)` are the test hooks of Faults.def: the handler reads right without them.
//
//===----------------------------------------------------------------------===//

#include "compiler/reference/Interpreter.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "runtime/kernels/reference/activations.h"
#include "runtime/kernels/reference/ops.h"

using namespace mlir;
using namespace qwen::ir;

namespace qwen::reference {

OwnedWeight OwnedWeight::copyOf(std::vector<float> numbers, int64_t rows, int64_t cols) {
  auto owner = std::make_shared<const std::vector<float>>(std::move(numbers));
  return {{owner->data(), qwen::reference::Type::kF32, rows, cols}, owner};
}

std::string locationName(Location location) {
  if (auto named = dyn_cast<NameLoc>(location))
    return named.getName().str();
  if (auto fused = dyn_cast<FusedLoc>(location))
    for (Location part : fused.getLocations())
      if (std::string name = locationName(part); !name.empty())
        return name;
  return "";
}

namespace {

using Element = qwen::reference::Type;

Element elementOf(mlir::Type type) {
  mlir::Type element = cast<RankedTensorType>(type).getElementType();
  return element.isInteger(32) ? Element::kI32 : element.isBF16() ? Element::kBf16 : Element::kF32;
}

/// The last dimension: channels of rows, columns of a weight.
int64_t dim(Value value, unsigned index) { return cast<RankedTensorType>(value.getType()).getDimSize(index); }

/// The model.param that a value reads, where that can be seen: not through a dispatch's block arguments.
StringRef paramOf(Value value) {
  auto weight = value.getDefiningOp<model::WeightOp>();
  return weight ? weight.getParam() : StringRef();
}

Status checkBatch(const Batch &batch) {
  size_t seqs = batch.num_seqs(), tokens = batch.num_tokens();
  auto bad = [](const Twine &what, size_t is, size_t want) {
    return InvalidArgumentError(("batch: " + what + ": " + Twine(is) + ", not " + Twine(want)).str());
  };
  for (size_t s = 0; s < seqs; ++s)
    if (batch.rows(s) < 1)
      return InvalidArgumentError("batch: sequence " + std::to_string(s) + " has no row");
  if (batch.token_ids.size() != tokens)
    return bad("token ids", batch.token_ids.size(), tokens);
  if (batch.position.size() != seqs)
    return bad("positions", batch.position.size(), seqs);
  if (batch.state_slot.size() != seqs)
    return bad("state slots", batch.state_slot.size(), seqs);
  if (!batch.sample.empty() && batch.sample.size() != batch.logit_rows.size())
    return bad("sample parameters", batch.sample.size(), batch.logit_rows.size());
  for (int32_t row : batch.logit_rows)
    if (row < 0 || size_t(row) >= tokens)
      return InvalidArgumentError("batch: logit row " + std::to_string(row) + " of " + std::to_string(tokens) + " rows");
  if (batch.num_short < 0 || size_t(batch.num_short) > seqs)
    return bad("short sequences", batch.num_short, seqs);
  return {};
}

} // namespace

template <class Real> class Interpreter<Real>::Impl {
public:
  using TensorPtr = std::shared_ptr<const Tensor<Real>>;

  Impl(ModuleOp module, WeightSource weights, Options options)
      : module(module), source(std::move(weights)), options(std::move(options)) {}

  StatusOr<std::vector<Outputs<Real>>> runProgram(const std::string &program, const Batch &batch, State<Real> &state,
                                                  const std::map<std::string, Tensor<Real>> &extra);
  StatusOr<std::vector<std::vector<Tensor<Real>>>> runRegions(const std::vector<kernel::DispatchOp> &dispatches,
                                                              std::vector<std::vector<Operand<Real>>> operands,
                                                              const Batch &batch, State<Real> &state);

  int64_t faultHits = 0, collectives = 0;

private:
  /// A block under way: the function's, or that of a dispatch within it.
  struct Frame {
    Block *block;
    Block::iterator next;
    kernel::DispatchOp dispatch;
  };
  struct Rank {
    int index = 0;
    DenseMap<Value, Operand<Real>> values;
    std::vector<Frame> frames;
    Operation *waiting = nullptr;   // the collective it stands at
    std::vector<Value> returned;    // what the last block ended with
  };

  // Running
  Status runAll(const Batch &batch, State<Real> &state);
  Status advance(Rank &rank);
  Status collect();
  Status evaluate(Operation *op);
  StatusOr<std::vector<Tensor<Real>>> results(Rank &rank);

  // Values of the rank at hand
  const Tensor<Real> &tensor(Value value) { return *std::get<TensorPtr>(at(value)); }
  const Real *numbers(Value value) { return tensor(value).values.data(); }
  const OwnedWeight &weight(Value value) { return std::get<OwnedWeight>(at(value)); }
  const std::string &stateName(Value value) { return std::get<StateName>(at(value)).name; }
  std::vector<Real> vectorOf(Value value);
  Operand<Real> &at(Value value) { return rank->values.find(value)->second; }
  Tensor<Real> make(Value result, int64_t rows);
  void define(Value result, Tensor<Real> tensor);

  /// Whether the hook is on and would change something here.
  bool faulty(Fault fault, bool applies = true) {
    if (options.fault != fault || !applies)
      return false;
    ++faultHits;
    return true;
  }

  /// Calls `body(sequence, slot, first row, rows, position)` for every sequence that is not padding.
  template <class Body> Status eachSequence(Body body) {
    for (int64_t s = 0; s < batch->num_seqs(); ++s)
      if (batch->state_slot[s] >= 0)
        QWEN_RETURN_IF_ERROR(body(batch->state_slot[s], batch->cu_tokens[s], batch->rows(s), batch->position[s]));
    return {};
  }
  Status mismatch(const std::string &name, int slot, int64_t holds, int64_t wants) {
    return InvalidArgumentError(name + ": slot " + std::to_string(slot) + " holds " + std::to_string(holds) +
                                " tokens, the batch goes on at position " + std::to_string(wants));
  }
  Status misshapen(const std::string &name, int slot, int64_t holds, int64_t wants) {
    return InvalidArgumentError(name + ": slot " + std::to_string(slot) + " was given " + std::to_string(holds) +
                                " numbers, the layer's state has " + std::to_string(wants));
  }

  Status eval(model::WeightOp op);
  Status eval(model::StateOp op);
  Status eval(model::AddOp op);
  Status eval(model::RMSNormOp op);
  Status eval(model::QKNormOp op);
  Status eval(model::GatedRMSNormOp op);
  Status eval(model::L2NormOp op);
  Status eval(model::EmbedOp op);
  Status eval(model::LinearOp op);
  Status eval(model::SiluMulOp op);
  Status eval(model::SigmoidGateOp op);
  Status eval(model::SplitOp op);
  Status eval(model::ConcatOp op);
  Status eval(model::DynamicConvOp op);
  Status eval(model::RopeOp op);
  Status eval(model::KvAppendOp op);
  Status eval(model::AttentionOp op);
  Status eval(model::CausalConv1dOp op);
  Status eval(model::DeltaGatesOp op);
  Status eval(model::GatedDeltaRuleOp op);
  Status eval(model::RouterOp op);
  Status eval(model::ExpertsOp op);
  Status eval(model::CombineOp op);
  Status eval(model::LogitRowsOp op);
  Status eval(model::LmHeadOp op);
  Status eval(model::SampleOp op);
  Status eval(model::AcceptOp op);
  Status eval(model::CandidateWalkOp op);

  ModuleOp module;
  WeightSource source;
  Options options;
  std::map<std::string, OwnedWeight> loaded;

  // The run at hand
  std::vector<Rank> ranks;
  Rank *rank = nullptr;
  const Batch *batch = nullptr;
  State<Real> *state = nullptr;
  std::string program;
};

//===----------------------------------------------------------------------===//
// Running: ranks go from collective to collective
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::runAll(const Batch &newBatch, State<Real> &newState) {
  batch = &newBatch;
  state = &newState;
  collectives = 0;
  QWEN_RETURN_IF_ERROR(checkBatch(newBatch));
  while (true) {
    size_t done = 0;
    for (Rank &each : ranks) {
      QWEN_RETURN_IF_ERROR(advance(each));
      done += each.frames.empty();
    }
    if (done == ranks.size())
      return {};
    if (done)
      return InvalidArgumentError("a rank has ended while another waits at a collective");
    QWEN_RETURN_IF_ERROR(collect());
  }
}

/// Runs one rank up to its next collective, or to its end.
template <class Real> Status Interpreter<Real>::Impl::advance(Rank &next) {
  rank = &next;
  while (!rank->frames.empty()) {
    Frame &frame = rank->frames.back();
    Operation *op = &*frame.next++;
    if (isa<model::AllReduceOp, model::AllGatherOp>(op)) {
      rank->waiting = op;
      return {};
    }
    if (auto dispatch = dyn_cast<kernel::DispatchOp>(op)) {
      for (auto [argument, input] : llvm::zip(dispatch.block().getArguments(), dispatch.getInputs())) {
        Operand<Real> value = at(input);
        rank->values[argument] = std::move(value);
      }
      rank->frames.push_back({&dispatch.block(), dispatch.block().begin(), dispatch});
    } else if (isa<kernel::YieldOp, func::ReturnOp>(op)) {
      rank->returned.assign(op->operand_begin(), op->operand_end());
      kernel::DispatchOp ended = frame.dispatch;
      rank->frames.pop_back();
      if (ended && !rank->frames.empty())
        for (auto [result, yielded] : llvm::zip(ended.getResults(), rank->returned)) {
          Operand<Real> value = at(yielded);
          rank->values[result] = std::move(value);
        }
    } else if (Status status = evaluate(op); !status.ok()) {
      std::string where = locationName(op->getLoc());
      return std::move(status).Annotate((where.empty() ? "" : where + ": ") + op->getName().getStringRef().str());
    }
  }
  return {};
}

/// Every rank stands at a collective: exchanges, and lets them go.
template <class Real> Status Interpreter<Real>::Impl::collect() {
  Operation *first = ranks.front().waiting;
  for (Rank &each : ranks)
    if (each.waiting->getName() != first->getName())
      return InvalidArgumentError("rank 0 waits at " + first->getName().getStringRef().str() + ", rank " +
                                  std::to_string(each.index) + " at " + each.waiting->getName().getStringRef().str());
  bool dropped = collectives++ == options.dropCollective;
  std::vector<TensorPtr> shares;
  for (Rank &each : ranks) {
    rank = &each;
    shares.push_back(std::get<TensorPtr>(at(each.waiting->getOperand(0))));
    if (shares.back()->rows() != shares.front()->rows())
      return InvalidArgumentError("ranks bring different numbers of rows to a collective");
  }
  for (Rank &each : ranks) {
    rank = &each;
    Value result = each.waiting->getResult(0);
    Tensor<Real> y = make(result, shares.front()->rows());
    std::vector<const Real *> parts;
    std::vector<int64_t> widths;
    for (size_t i = 0; i < shares.size(); ++i)
      if (!dropped || int(i) == each.index) {
        parts.push_back(shares[i]->values.data());
        widths.push_back(shares[i]->channels());
      }
    if (isa<model::AllReduceOp>(each.waiting))
      AllReduce(parts, y.values.data(), int64_t(y.values.size()));
    else if (!dropped)
      Concat(parts, widths, y.values.data(), y.rows());
    define(result, std::move(y));
    each.waiting = nullptr;
  }
  return {};
}

template <class Real> StatusOr<std::vector<Tensor<Real>>> Interpreter<Real>::Impl::results(Rank &of) {
  rank = &of;
  std::vector<Tensor<Real>> out;
  for (Value value : of.returned) {
    auto *held = std::get_if<TensorPtr>(&at(value));
    if (!held)
      return InvalidArgumentError("a result is no tensor");
    out.push_back(**held);
  }
  return out;
}

template <class Real>
StatusOr<std::vector<Outputs<Real>>>
Interpreter<Real>::Impl::runProgram(const std::string &name, const Batch &newBatch, State<Real> &newState,
                                    const std::map<std::string, Tensor<Real>> &extra) {
  program = name;
  std::map<int64_t, func::FuncOp> functions;
  for (auto function : module.getOps<func::FuncOp>())
    if (auto attr = function->template getAttrOfType<StringAttr>(model::kProgramAttr); attr && attr.getValue() == name) {
      auto index = function->template getAttrOfType<IntegerAttr>(model::kRankAttr);
      functions[index ? index.getInt() : 0] = function;
    }
  if (functions.empty())
    return InvalidArgumentError("the module has no program \"" + name + "\"");

  ranks.assign(functions.size(), Rank());
  for (auto [index, function] : functions) {
    if (index != int64_t(std::distance(functions.begin(), functions.find(index))))
      return InvalidArgumentError("program \"" + name + "\" has no function for a rank below " + std::to_string(index));
    Rank &each = ranks[index];
    each.index = int(index);
    Block &body = function.front();
    each.frames.push_back({&body, body.begin(), nullptr});
    auto inputs = function->template getAttrOfType<ArrayAttr>(model::kInputsAttr);
    if (!inputs || inputs.size() != body.getNumArguments())
      return InvalidArgumentError("program \"" + name + "\": model.inputs does not name every argument");
    for (auto [attr, argument] : llvm::zip(inputs, body.getArguments())) {
      std::string input = cast<StringAttr>(attr).str();
      if (isa<model::BatchType>(argument.getType())) {
        each.values[argument] = BatchHandle();
      } else if (auto it = extra.find(input); it != extra.end()) {
        each.values[argument] = std::make_shared<const Tensor<Real>>(it->second);
      } else if (input == "token_ids") {
        Tensor<Real> ids;
        ids.type = Element::kI32;
        ids.shape = {newBatch.num_tokens()};
        ids.ids = newBatch.token_ids;
        each.values[argument] = std::make_shared<const Tensor<Real>>(std::move(ids));
      } else {
        return InvalidArgumentError("program \"" + name + "\": input \"" + input + "\" is not given");
      }
    }
  }
  if (Status status = runAll(newBatch, newState); !status.ok())
    return std::move(status).Annotate(name);

  std::vector<Outputs<Real>> out;
  for (auto [index, function] : functions) {
    auto outputs = function->template getAttrOfType<ArrayAttr>(model::kOutputsAttr);
    Rank &each = ranks[index];
    if (!outputs || outputs.size() != each.returned.size())
      return InvalidArgumentError("program \"" + name + "\": model.outputs does not name every result");
    for (auto [attr, value] : llvm::zip(outputs, each.returned)) {
      StringRef output = cast<StringAttr>(attr).getValue();
      auto norm = value.template getDefiningOp<model::RMSNormOp>();
      if (norm && (faulty(Fault::MtpHiddenBeforeNorm, output == "final_hidden") ||
                   faulty(Fault::MtpChainBeforeNorm, output == "hidden_out")))
        value = norm.getX();
    }
    QWEN_ASSIGN_OR_RETURN(std::vector<Tensor<Real>> tensors, results(each));
    Outputs<Real> &named = out.emplace_back();
    for (auto [attr, tensor] : llvm::zip(outputs, tensors))
      named[cast<StringAttr>(attr).str()] = std::move(tensor);
  }
  return out;
}

template <class Real>
StatusOr<std::vector<std::vector<Tensor<Real>>>>
Interpreter<Real>::Impl::runRegions(const std::vector<kernel::DispatchOp> &dispatches,
                                    std::vector<std::vector<Operand<Real>>> operands, const Batch &newBatch,
                                    State<Real> &newState) {
  program = "region";
  ranks.assign(dispatches.size(), Rank());
  for (size_t i = 0; i < dispatches.size(); ++i) {
    kernel::DispatchOp dispatch = dispatches[i];
    Block &body = dispatch.block();
    if (operands[i].size() != body.getNumArguments())
      return InvalidArgumentError("a region of " + std::to_string(body.getNumArguments()) + " inputs is given " +
                                  std::to_string(operands[i].size()));
    ranks[i].index = int(i);
    for (auto [argument, operand] : llvm::zip(body.getArguments(), operands[i]))
      ranks[i].values[argument] = std::move(operand);
    ranks[i].frames.push_back({&body, body.begin(), dispatch});
  }
  QWEN_RETURN_IF_ERROR(runAll(newBatch, newState));
  std::vector<std::vector<Tensor<Real>>> out;
  for (Rank &each : ranks) {
    QWEN_ASSIGN_OR_RETURN(std::vector<Tensor<Real>> tensors, results(each));
    out.push_back(std::move(tensors));
  }
  return out;
}

template <class Real> Status Interpreter<Real>::Impl::evaluate(Operation *op) {
  return llvm::TypeSwitch<Operation *, Status>(op)
      .template Case<model::WeightOp, model::StateOp, model::AddOp, model::RMSNormOp, model::QKNormOp,
                     model::GatedRMSNormOp, model::L2NormOp, model::EmbedOp, model::LinearOp, model::SiluMulOp,
                     model::SigmoidGateOp, model::SplitOp, model::ConcatOp, model::DynamicConvOp, model::RopeOp,
                     model::KvAppendOp, model::AttentionOp, model::CausalConv1dOp, model::DeltaGatesOp,
                     model::GatedDeltaRuleOp, model::RouterOp, model::ExpertsOp, model::CombineOp, model::LogitRowsOp,
                     model::LmHeadOp, model::SampleOp, model::AcceptOp, model::CandidateWalkOp>(
          [&](auto known) { return eval(known); })
      .Default([](Operation *) { return UnimplementedError("the interpreter does not know this op"); });
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

template <class Real> Tensor<Real> Interpreter<Real>::Impl::make(Value result, int64_t rows) {
  auto type = cast<RankedTensorType>(result.getType());
  Tensor<Real> tensor;
  tensor.type = elementOf(type);
  tensor.shape = {rows};
  if (type.getRank() == 2)
    tensor.shape.push_back(type.getDimSize(1));
  size_t count = rows * tensor.channels();
  if (tensor.type == Element::kI32)
    tensor.ids.resize(count);
  else
    tensor.values.resize(count);
  return tensor;
}

template <class Real> void Interpreter<Real>::Impl::define(Value result, Tensor<Real> tensor) {
  for (Real &value : tensor.values)
    value = Round(value, tensor.type);
  auto held = std::make_shared<const Tensor<Real>>(std::move(tensor));
  rank->values[result] = held;
  if (options.observer)
    options.observer(rank->index, result.getDefiningOp(), result, *held);
}

/// A weight of f32, or a tensor, as plain numbers: for the small ones.
template <class Real> std::vector<Real> Interpreter<Real>::Impl::vectorOf(Value value) {
  if (auto *held = std::get_if<TensorPtr>(&at(value)))
    return (*held)->values;
  const Weight &view = weight(value).view;
  std::vector<Real> out(view.rows * view.cols);
  for (int64_t row = 0; row < view.rows; ++row)
    view.Row(row, out.data() + row * view.cols);
  return out;
}

/// The elements of one dimension that `[begin, end)` pairs name, in order; all of them when there is no pair.
static std::vector<int64_t> picked(ArrayAttr pairs, int64_t size) {
  std::vector<int64_t> out;
  if (!pairs || pairs.empty()) {
    out.resize(size);
    std::iota(out.begin(), out.end(), 0);
    return out;
  }
  for (size_t i = 0; i < pairs.size(); i += 2)
    for (int64_t at = cast<IntegerAttr>(pairs[i]).getInt(); at < cast<IntegerAttr>(pairs[i + 1]).getInt(); ++at)
      out.push_back(at);
  return out;
}

/// Cuts `slices` out of a weight of `shape`, whose leading dimensions are the rows of its matrix.
static OwnedWeight sliced(const OwnedWeight &whole, ArrayRef<int64_t> shape, ArrayAttr slices) {
  std::vector<int64_t> rows{0};
  for (size_t d = 0; d + 1 < shape.size(); ++d) {
    std::vector<int64_t> outer = std::move(rows);
    rows.clear();
    for (int64_t row : outer)
      for (int64_t at : picked(cast<ArrayAttr>(slices[d]), shape[d]))
        rows.push_back(row * shape[d] + at);
  }
  std::vector<int64_t> cols = picked(cast<ArrayAttr>(slices[shape.size() - 1]), shape.back());
  int64_t bytes = BytesOf(whole.view.type);
  auto copy = std::make_shared<std::vector<char>>();
  copy->reserve(rows.size() * cols.size() * bytes);
  for (int64_t row : rows)
    for (int64_t col : cols) {
      const char *from = static_cast<const char *>(whole.view.data) + (row * whole.view.cols + col) * bytes;
      copy->insert(copy->end(), from, from + bytes);
    }
  return {{copy->data(), whole.view.type, int64_t(rows.size()), int64_t(cols.size())}, copy};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::WeightOp op) {
  auto param = SymbolTable::lookupNearestSymbolFrom<model::ParamOp>(op, op.getParamAttr());
  std::string name = param.getAlias() ? param.getAlias()->str() : op.getParam().str();
  auto it = loaded.find(name);
  if (it == loaded.end()) {
    QWEN_ASSIGN_OR_RETURN(OwnedWeight fresh, source(name));
    it = loaded.emplace(name, std::move(fresh)).first;
  }
  ArrayRef<int64_t> shape = cast<RankedTensorType>(param.getType()).getShape();
  const Weight &view = it->second.view;
  if (view.cols != shape.back() || view.rows * view.cols != ShapedType::getNumElements(shape))
    return InvalidArgumentError("weight " + name + " is given as [" + std::to_string(view.rows) + ", " +
                                std::to_string(view.cols) + "], the param has " +
                                std::to_string(ShapedType::getNumElements(shape)) + " elements in columns of " +
                                std::to_string(shape.back()));
  OwnedWeight value = op.getSlicesAttr() ? sliced(it->second, shape, op.getSlicesAttr()) : it->second;
  bool centred = param.getTransform() == "one_plus", deltaNorm = StringRef(name).ends_with(".gated_norm");
  if (bool shifted = faulty(Fault::NormNotZeroCentred, centred);
      shifted || faulty(Fault::GatedNormZeroCentred, deltaNorm)) {
    std::vector<float> numbers(value.view.cols);
    value.view.Row(0, numbers.data());
    for (float &number : numbers)
      number += shifted ? -1 : 1;
    value = OwnedWeight::copyOf(std::move(numbers), 1, value.view.cols);
  }
  rank->values[op.getResult()] = std::move(value);
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::StateOp op) {
  rank->values[op.getResult()] = StateName{op.getName().str()};
  return {};
}

//===----------------------------------------------------------------------===//
// Norms and sums
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::eval(model::AddOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  Add(numbers(op.getX()), numbers(op.getResidual()), y.values.data(), int64_t(y.values.size()));
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::RMSNormOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  RmsNorm(numbers(op.getX()), vectorOf(op.getWeight()).data(), y.values.data(), y.rows(), y.channels(),
          op.getEps().convertToDouble(), op.getRoundFirst() ? y.type : Element::kF32);
  define(op.getY(), std::move(y));
  return {};
}

/// `weight` once for every head of a row.
template <class Real> static std::vector<Real> tiled(const std::vector<Real> &weight, int64_t channels) {
  std::vector<Real> out(channels);
  for (int64_t c = 0; c < channels; ++c)
    out[c] = weight[c % weight.size()];
  return out;
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::QKNormOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  std::vector<Real> weight = vectorOf(op.getWeight());
  if (faulty(Fault::QKNormOverRow, y.channels() > int64_t(weight.size())))
    weight = tiled(weight, y.channels());
  int64_t headDim = int64_t(weight.size());
  RmsNorm(numbers(op.getX()), weight.data(), y.values.data(), int64_t(y.values.size()) / headDim, headDim,
          op.getEps().convertToDouble(), op.getRoundFirst() ? y.type : Element::kF32);
  StringRef param = paramOf(op.getWeight());
  if (faulty(Fault::QNormDropped, param.ends_with("q_norm")) || faulty(Fault::KNormDropped, param.ends_with("k_norm")))
    y.values = tensor(op.getX()).values;
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::GatedRMSNormOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  std::vector<Real> weight = vectorOf(op.getWeight());
  const Real *x = numbers(op.getX()), *gate = numbers(op.getGate());
  double eps = op.getEps().convertToDouble();
  auto activation = op.getActivation() == "silu" ? Activation::kSilu : Activation::kSigmoid;
  if (faulty(Fault::ZGateSigmoid, activation == Activation::kSilu))
    activation = Activation::kSigmoid;
  if (faulty(Fault::GatedNormOverRow, y.channels() > int64_t(weight.size())))
    weight = tiled(weight, y.channels());
  int64_t valueDim = int64_t(weight.size()), rows = int64_t(y.values.size()) / valueDim;
  GatedRmsNorm(x, gate, weight.data(), y.values.data(), rows, valueDim, eps, activation);
  if (faulty(Fault::GateBeforeNorm)) {
    std::vector<Real> gated(y.values.size());
    SiluMul(gate, x, gated.data(), int64_t(gated.size()));
    RmsNorm(gated.data(), weight.data(), y.values.data(), rows, valueDim, eps, Element::kF32);
  }
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::L2NormOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  int64_t headDim = op.getHeadDim();
  double eps = op.getEps().convertToDouble(), scale = op.getScale().convertToDouble();
  bool isKey = scale == 1;
  if (faulty(Fault::QUnscaled, !isKey))
    scale = 1;
  if (faulty(Fault::KScaled, isKey))
    scale = 1 / std::sqrt(double(headDim));
  if (faulty(Fault::L2NormMean, isKey))
    scale = std::sqrt(double(headDim)), eps *= double(headDim);
  L2Norm(numbers(op.getX()), y.values.data(), int64_t(y.values.size()) / headDim, headDim, eps, scale);
  if (faulty(Fault::L2NormDropped, isKey))
    y.values = tensor(op.getX()).values;
  define(op.getY(), std::move(y));
  return {};
}

//===----------------------------------------------------------------------===//
// Projections and channel plumbing
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::eval(model::EmbedOp op) {
  std::vector<int32_t> ids = tensor(op.getIds()).ids;
  const Weight &table = weight(op.getTable()).view;
  for (int32_t id : ids)
    if (id < 0 || id >= table.rows)
      return InvalidArgumentError("token id " + std::to_string(id) + " of " + std::to_string(table.rows));
  if (faulty(Fault::MtpTokenNotShifted, program == "draft_mtp" && ids.size() > 1))
    for (int64_t row = batch->num_tokens() - 1; row > 0; --row)
      ids[row] = batch->token_ids[row - 1];
  Tensor<Real> y = make(op.getY(), int64_t(ids.size()));
  Embed(ids.data(), table, y.values.data(), y.rows());
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::LinearOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  Linear(numbers(op.getX()), weight(op.getWeight()).view, y.values.data(), y.rows());
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::SiluMulOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getGate()).rows());
  const Real *gate = numbers(op.getGate()), *up = numbers(op.getUp());
  if (faulty(Fault::GateUpSwapped))
    std::swap(gate, up);
  SiluMul(gate, up, y.values.data(), int64_t(y.values.size()));
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::SigmoidGateOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  const Real *x = numbers(op.getX()), *gate = numbers(op.getGate());
  SigmoidGate(x, gate, y.values.data(), int64_t(y.values.size()));
  if (faulty(Fault::OutputGateDropped))
    y.values = tensor(op.getX()).values;
  if (faulty(Fault::OutputGateSilu))
    SiluMul(gate, x, y.values.data(), int64_t(y.values.size()));
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::SplitOp op) {
  int64_t rows = tensor(op.getX()).rows(), heads = op.getHeads();
  std::vector<Tensor<Real>> results;
  std::vector<int64_t> widths;
  std::vector<Real *> parts;
  for (Value part : op.getParts()) {
    results.push_back(make(part, rows));
    widths.push_back(model::channelsOf(part));
    parts.push_back(results.back().values.data());
  }
  bool queryAndGate = parts.size() == 2 && widths[0] == widths[1];
  if (faulty(Fault::GateLayout, queryAndGate && heads > 1))
    heads = 1;
  if (faulty(Fault::GateFirst, queryAndGate))
    std::swap(parts[0], parts[1]);
  Split(numbers(op.getX()), widths, parts, rows, heads);
  for (auto [part, result] : llvm::zip(op.getParts(), results))
    define(part, std::move(result));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::ConcatOp op) {
  std::vector<const Real *> parts;
  std::vector<int64_t> widths;
  for (Value part : op.getParts()) {
    parts.push_back(numbers(part));
    widths.push_back(model::channelsOf(part));
  }
  if (faulty(Fault::MtpConcatSwapped, program == "draft_mtp"))
    std::swap(parts[0], parts[1]);
  Tensor<Real> y = make(op.getY(), tensor(op.getParts().front()).rows());
  Concat(parts, widths, y.values.data(), y.rows());
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::DynamicConvOp op) {
  const Tensor<Real> &x = tensor(op.getX()), &coef = tensor(op.getCoef());
  std::vector<Real> base = vectorOf(op.getBase());
  Tensor<Real> y = make(op.getY(), x.rows());
  QWEN_RETURN_IF_ERROR(eachSequence([&](int, int64_t first, int64_t rows, int64_t) -> Status {
    DynamicConv(x.row(first), coef.row(first), base.data(), y.values.data() + first * y.channels(), rows, y.channels(),
                dim(op.getBase(), 1), int64_t(op.getGroup()), int64_t(op.getIndex()));
    return {};
  }));
  define(op.getY(), std::move(y));
  return {};
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// theta^(-2j / headDim) over the whole head, theta read off the frequencies that the op has.
static std::vector<float> frequenciesOfAllDims(ArrayRef<float> invFreq, int64_t headDim) {
  double n = double(invFreq.size()), theta = n > 1 ? std::pow(double(invFreq[1]), -n) : 1e4;
  std::vector<float> out;
  for (int64_t j = 0; j < headDim / 2; ++j)
    out.push_back(float(std::pow(theta, -2.0 * double(j) / double(headDim))));
  return out;
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::RopeOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  std::vector<float> frequencies(op.getInvFreq().begin(), op.getInvFreq().end());
  int64_t headDim = op.getHeadDim();
  double factor = op.getAttentionFactor().convertToDouble();
  std::vector<int64_t> positions;
  for (int64_t row = 0; row < y.rows(); ++row)
    positions.push_back(batch->PositionOf(row));

  if (faulty(Fault::RopeAllDims, 2 * int64_t(frequencies.size()) < headDim))
    frequencies = frequenciesOfAllDims(frequencies, headDim);
  if (faulty(Fault::RopeFactorDropped, factor != 1))
    factor = 1;
  if (faulty(Fault::RopeReversed))
    for (int64_t &position : positions)
      position = -position;
  bool ofQueries = llvm::any_of(op.getY().getUsers(), [](Operation *user) { return isa<model::AttentionOp>(user); });
  if (faulty(Fault::RopeQueryAhead, ofQueries))
    for (int64_t &position : positions)
      ++position;
  for (int64_t row = 0; row < y.rows(); ++row)
    if (int64_t start = batch->position[batch->SequenceOf(row)]; faulty(Fault::RopeRestarts, start > 0))
      positions[row] -= start;

  int64_t heads = y.channels() / headDim;
  if (faulty(Fault::RopeInterleaved, frequencies.size() > 1))
    interleavedRope(numbers(op.getX()), positions.data(), y.values.data(), y.rows(), heads, headDim, frequencies,
                    factor);
  else
    Rope(numbers(op.getX()), positions.data(), y.values.data(), y.rows(), heads, headDim, frequencies, factor);
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::KvAppendOp op) {
  const Tensor<Real> &k = tensor(op.getK()), &v = tensor(op.getV());
  const std::string &name = stateName(op.getCache());
  Type held = op.getCache().getType().getElementType().isBF16() ? Type::kBf16 : Type::kF32;
  auto append = [&](std::vector<Real> &to, const Real *from, const Real *end) {
    for (; from != end; ++from)
      to.push_back(Round(*from, held));
  };
  return eachSequence([&](int slot, int64_t first, int64_t rows, int64_t position) -> Status {
    KvCache<Real> &cache = state->kv(rank->index, slot, name);
    if (position > cache.tokens)
      return mismatch(name, slot, cache.tokens, position);
    cache.truncate(position); // what stood behind was a draft, or another sequence
    append(cache.keys, k.row(first), k.row(first + rows));
    append(cache.values, v.row(first), v.row(first + rows));
    cache.tokens += rows;
    return {};
  });
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::AttentionOp op) {
  const Tensor<Real> &q = tensor(op.getQ());
  const std::string &name = stateName(op.getCache());
  model::KvCacheType type = op.getCache().getType();
  AttentionShape shape;
  shape.kv_map.assign(op.getKvMap().begin(), op.getKvMap().end());
  shape.kv_heads = type.getKvHeads();
  shape.head_dim = type.getHeadDim();
  shape.scale = op.getScale().convertToDouble();
  shape.block = op.getMask() == "block";
  shape.window = int64_t(op.getWindow());
  if (faulty(Fault::KvHeadModulo, shape.kv_heads > 1 && shape.kv_heads < int64_t(shape.kv_map.size())))
    for (size_t h = 0; h < shape.kv_map.size(); ++h)
      shape.kv_map[h] = int64_t(h) % shape.kv_heads;
  if (faulty(Fault::AttentionUnscaled))
    shape.scale = 1;
  if (faulty(Fault::AttentionNotCausal, !shape.block))
    shape.block = true;
  if (faulty(Fault::WindowOffByOne, shape.window > 0))
    ++shape.window;
  if (faulty(Fault::WindowDropped, shape.window > 0))
    shape.window = 0;

  Tensor<Real> y = make(op.getY(), q.rows());
  QWEN_RETURN_IF_ERROR(eachSequence([&](int slot, int64_t first, int64_t rows, int64_t position) -> Status {
    const KvCache<Real> &cache = state->kv(rank->index, slot, name);
    if (cache.tokens < position + rows)
      return mismatch(name, slot, cache.tokens, position + rows);
    if (int64_t(cache.keys.size()) != cache.tokens * shape.kv_heads * shape.head_dim)
      return misshapen(name, slot, cache.keys.size(), cache.tokens * shape.kv_heads * shape.head_dim);
    const Real *keys = cache.keys.data(), *values = cache.values.data();
    if (faulty(Fault::KvLostAtSplit, position > 0)) {
      keys += position * shape.kv_heads * shape.head_dim;
      values += position * shape.kv_heads * shape.head_dim;
      position = 0;
    }
    Attention(q.row(first), keys, values, y.values.data() + first * y.channels(), rows, position, shape);
    return {};
  }));
  define(op.getY(), std::move(y));
  return {};
}

//===----------------------------------------------------------------------===//
// Gated DeltaNet
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::eval(model::CausalConv1dOp op) {
  const Tensor<Real> &x = tensor(op.getX());
  const std::string &name = stateName(op.getState());
  std::vector<Real> weight = vectorOf(op.getWeight());
  int64_t width = dim(op.getWeight(), 1), channels = x.channels();
  if (faulty(Fault::ConvTapsReversed))
    for (int64_t c = 0; c < channels; ++c)
      std::reverse(weight.begin() + c * width, weight.begin() + (c + 1) * width);
  model::RecurrentStateType type = op.getState().getType();
  int64_t plainFrom = channels; // channels from here on skip silu
  if (faulty(Fault::ConvNoSilu))
    plainFrom = 0;
  if (faulty(Fault::ConvNoSiluOnV))
    plainFrom = 2 * type.getKeyHeads() * type.getKeyDim();

  Tensor<Real> y = make(op.getY(), x.rows());
  QWEN_RETURN_IF_ERROR(eachSequence([&](int slot, int64_t first, int64_t rows, int64_t position) -> Status {
    RecurrentState<Real> &part = state->recurrent(rank->index, slot, name);
    bool kept = !part.conv.empty() && faulty(Fault::ConvHistoryKept, position == 0);
    if ((position == 0 && !kept) || !part.convTokens) { // not conv.empty(): a rank without heads has no channels
      part.conv.assign((width - 1) * channels, 0);
      part.convTokens = 0;
    }
    if (part.convTokens != position && !kept)
      return mismatch(name, slot, part.convTokens, position);
    if (int64_t(part.conv.size()) != (width - 1) * channels)
      return misshapen(name, slot, part.conv.size(), (width - 1) * channels);
    if (faulty(Fault::ConvHistoryLostAtSplit, position > 0))
      std::fill(part.conv.begin(), part.conv.end(), Real(0));
    Real *out = y.values.data() + first * channels;
    std::vector<Real> history = part.conv;
    CausalConv1d(x.row(first), weight.data(), part.conv.data(), out, rows, channels, width);
    if (plainFrom < channels)
      convWithoutSilu(x.row(first), weight.data(), history, out, rows, channels, width, plainFrom);
    if (faulty(Fault::ConvHistoryAfterSilu)) {
      history.insert(history.end(), out, out + rows * channels);
      part.conv.assign(history.end() - (width - 1) * channels, history.end());
    }
    part.convTokens = position + rows;
    return {};
  }));
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::DeltaGatesOp op) {
  Tensor<Real> beta = make(op.getBeta(), tensor(op.getB()).rows()), g = make(op.getG(), beta.rows());
  const Real *b = numbers(op.getB()), *a = numbers(op.getA());
  std::vector<Real> aLog = vectorOf(op.getALog()), dtBias = vectorOf(op.getDtBias());
  int64_t heads = beta.channels();
  if (faulty(Fault::GatesSwapped))
    std::swap(a, b);
  if (faulty(Fault::DtBiasDropped))
    std::fill(dtBias.begin(), dtBias.end(), Real(0));
  if (faulty(Fault::ALogSign))
    for (Real &value : aLog)
      value = -value;
  DeltaGates(b, a, aLog.data(), dtBias.data(), beta.values.data(), g.values.data(), beta.rows(), heads);
  if (faulty(Fault::BetaRaw))
    beta.values.assign(b, b + beta.values.size());
  for (size_t i = 0; i < g.values.size(); ++i) {
    if (faulty(Fault::SoftplusDropped))
      g.values[i] = -std::exp(aLog[i % heads]) * (a[i] + dtBias[i % heads]);
    if (faulty(Fault::ALogNoExp))
      g.values[i] *= aLog[i % heads] / std::exp(aLog[i % heads]);
  }
  define(op.getBeta(), std::move(beta));
  define(op.getG(), std::move(g));
  return {};
}

/// Swaps keys and values of every head of a square state.
template <class Real> static void transpose(std::vector<Real> &s, int64_t size) {
  for (size_t head = 0; head < s.size(); head += size * size)
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < i; ++j)
        std::swap(s[head + i * size + j], s[head + j * size + i]);
}

static bool changesDeltaRule(Fault fault) {
  return llvm::is_contained({Fault::ReadBeforeDecay, Fault::OutputBeforeUpdate, Fault::DecayAfterUpdate,
                             Fault::DeltaDropped},
                            fault);
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::GatedDeltaRuleOp op) {
  const Tensor<Real> &q = tensor(op.getQ()), &k = tensor(op.getK()), &v = tensor(op.getV());
  const Tensor<Real> &beta = tensor(op.getBeta()), &g = tensor(op.getG());
  const std::string &name = stateName(op.getState());
  model::RecurrentStateType type = op.getState().getType();
  DeltaShape shape{type.getKeyHeads(), type.getValueHeads(), type.getKeyDim(), type.getValueDim()};
  bool grouped = shape.key_heads > 1 && shape.value_heads > shape.key_heads;
  bool wrongRule = faulty(options.fault, changesDeltaRule(options.fault)) || faulty(Fault::KeyHeadModulo, grouped);

  Tensor<Real> y = make(op.getY(), q.rows());
  QWEN_RETURN_IF_ERROR(eachSequence([&](int slot, int64_t first, int64_t rows, int64_t position) -> Status {
    RecurrentState<Real> &part = state->recurrent(rank->index, slot, name);
    bool kept = !part.s.empty() && faulty(Fault::StateKept, position == 0);
    if ((position == 0 && !kept) || !part.stateTokens) {
      part.s.assign(shape.value_heads * shape.key_dim * shape.value_dim, 0);
      part.stateTokens = 0;
    }
    if (part.stateTokens != position && !kept)
      return mismatch(name, slot, part.stateTokens, position);
    if (int64_t(part.s.size()) != shape.value_heads * shape.key_dim * shape.value_dim)
      return misshapen(name, slot, part.s.size(), shape.value_heads * shape.key_dim * shape.value_dim);
    if (faulty(Fault::StateLostAtSplit, position > 0))
      std::fill(part.s.begin(), part.s.end(), Real(0));
    if (faulty(Fault::StateTransposed, position > 0 && shape.key_dim == shape.value_dim))
      transpose(part.s, shape.key_dim);
    Real *out = y.values.data() + first * y.channels();
    if (wrongRule)
      faultyDeltaRule(options.fault, q.row(first), k.row(first), v.row(first), beta.row(first), g.row(first),
                      part.s.data(), out, rows, shape);
    else
      GatedDeltaRule(q.row(first), k.row(first), v.row(first), beta.row(first), g.row(first), part.s.data(), out, rows,
                     shape);
    part.stateTokens = position + rows;
    return {};
  }));
  define(op.getY(), std::move(y));
  return {};
}

//===----------------------------------------------------------------------===//
// Mixture of experts
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::eval(model::RouterOp op) {
  const Tensor<Real> &x = tensor(op.getX());
  const Weight &view = weight(op.getWeight()).view;
  Tensor<Real> weights = make(op.getWeights(), x.rows()), ids = make(op.getIds(), x.rows());
  int64_t topK = weights.channels();
  bool renormalize = op.getRenormalize();
  if (faulty(Fault::RenormalizeFlipped))
    renormalize = !renormalize;
  Router(x.values.data(), view, weights.values.data(), ids.ids.data(), x.rows(), topK, renormalize);

  bool uniform = faulty(Fault::RouterUniform, topK > 1), oneLess = faulty(Fault::RouterOneLess, topK > 1);
  bool sigmoid = faulty(Fault::RouterSigmoid);
  for (int64_t t = 0; t < x.rows() && (uniform || oneLess || sigmoid); ++t) {
    Real *w = weights.values.data() + t * topK, sum = std::accumulate(w, w + topK, Real(0)), scores = 0;
    for (int64_t i = 0; i < topK && sigmoid; ++i) {
      Real logit;
      Linear(x.row(t), view.Slice(ids.ids[t * topK + i], 1), &logit, 1);
      scores += w[i] = Sigmoid(logit);
    }
    for (int64_t i = 0; i < topK; ++i)
      w[i] = uniform ? sum / Real(topK) : oneLess ? w[i] / (sum - w[topK - 1]) : renormalize ? w[i] / scores : w[i];
    if (oneLess)
      w[topK - 1] = 0;
  }
  define(op.getWeights(), std::move(weights));
  define(op.getIds(), std::move(ids));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::ExpertsOp op) {
  const Tensor<Real> &x = tensor(op.getX()), &weights = tensor(op.getWeights());
  OwnedWeight gateUp = weight(op.getGateUp());
  int64_t experts = dim(op.getGateUp(), 0), inter = dim(op.getDown(), 2);
  if (faulty(Fault::ExpertGateUpSwapped)) {
    std::vector<float> swapped(gateUp.view.rows * gateUp.view.cols);
    for (int64_t row = 0; row < gateUp.view.rows; ++row) {
      int64_t to = row % (2 * inter) < inter ? row + inter : row - inter;
      gateUp.view.Row(row, swapped.data() + to * gateUp.view.cols);
    }
    gateUp = OwnedWeight::copyOf(std::move(swapped), gateUp.view.rows, gateUp.view.cols);
  }
  Tensor<Real> y = make(op.getY(), x.rows());
  Experts(x.values.data(), weights.values.data(), tensor(op.getIds()).ids.data(), gateUp.view,
          weight(op.getDown()).view, y.values.data(), x.rows(), weights.channels(), int64_t(op.getFirstExpert()),
          experts);
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::CombineOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getRouted()).rows());
  const Real *routed = numbers(op.getRouted()), *shared = numbers(op.getShared());
  std::vector<Real> gate = tensor(op.getGate()).values;
  if (faulty(Fault::SharedGateDropped))
    std::fill(gate.begin(), gate.end(), Real(INFINITY));
  Combine(routed, shared, gate.data(), y.values.data(), y.rows(), y.channels());
  if (faulty(Fault::SharedExpertDropped))
    y.values = tensor(op.getRouted()).values;
  if (faulty(Fault::SharedGateRaw))
    for (size_t i = 0; i < y.values.size(); ++i)
      y.values[i] = routed[i] + gate[i / y.channels()] * shared[i];
  define(op.getY(), std::move(y));
  return {};
}

//===----------------------------------------------------------------------===//
// Logits and the next token
//===----------------------------------------------------------------------===//

template <class Real> Status Interpreter<Real>::Impl::eval(model::LogitRowsOp op) {
  Tensor<Real> y = make(op.getY(), int64_t(batch->logit_rows.size()));
  LogitRows(numbers(op.getX()), batch->logit_rows, y.values.data(), y.channels());
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::LmHeadOp op) {
  Tensor<Real> y = make(op.getY(), tensor(op.getX()).rows());
  Linear(numbers(op.getX()), weight(op.getWeight()).view, y.values.data(), y.rows());
  define(op.getY(), std::move(y));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::SampleOp op) {
  const Tensor<Real> &logits = tensor(op.getLogits());
  Tensor<Real> next = make(op.getNext(), logits.rows());
  for (int64_t n = 0; n < logits.rows(); ++n)
    next.ids[n] = Sample(logits.row(n), logits.channels(), batch->sample.empty() ? SampleParams() : batch->sample[n],
                         batch->PositionOf(batch->logit_rows[n]) + 1);
  define(op.getNext(), std::move(next));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::AcceptOp op) {
  const Tensor<Real> &next = tensor(op.getNext()), &ids = tensor(op.getIds());
  Tensor<Real> accepted = make(op.getAccepted(), batch->num_short), emitted = make(op.getEmitted(), batch->num_short);
  for (int64_t s = 0; s < batch->num_short; ++s) {
    std::vector<int32_t> drawn;
    for (int32_t row = batch->cu_tokens[s]; row < batch->cu_tokens[s + 1]; ++row) {
      auto it = llvm::find(batch->logit_rows, row);
      if (it == batch->logit_rows.end())
        return InvalidArgumentError("row " + std::to_string(row) + " of short sequence " + std::to_string(s) +
                                    " is no logit row");
      drawn.push_back(next.ids[it - batch->logit_rows.begin()]);
    }
    accepted.ids[s] = int32_t(Accept(drawn.data(), ids.ids.data() + batch->cu_tokens[s], int64_t(drawn.size())));
    emitted.ids[s] = drawn[accepted.ids[s]];
  }
  define(op.getAccepted(), std::move(accepted));
  define(op.getEmitted(), std::move(emitted));
  return {};
}

template <class Real> Status Interpreter<Real>::Impl::eval(model::CandidateWalkOp op) {
  const Tensor<Real> &logits = tensor(op.getLogits()), &hidden = tensor(op.getHidden());
  const std::vector<int32_t> &rows = batch->logit_rows;
  Tensor<Real> next = make(op.getNext(), logits.rows());
  for (size_t n = 0, end; n < rows.size(); n = end) {
    int64_t block = batch->SequenceOf(rows[n]);
    for (end = n + 1; end < rows.size() && batch->SequenceOf(rows[end]) == block;)
      ++end;
    CandidateWalk(logits.row(int64_t(n)), hidden.row(int64_t(n)), tensor(op.getIds()).ids[batch->cu_tokens[block]],
                  weight(op.getPredecessor()).view, weight(op.getSuccessor()).view, next.ids.data() + n,
                  int64_t(end - n), int64_t(op.getCandidates()));
  }
  define(op.getNext(), std::move(next));
  return {};
}

//===----------------------------------------------------------------------===//
// The outside
//===----------------------------------------------------------------------===//

template <class Real>
Interpreter<Real>::Interpreter(ModuleOp module, WeightSource weights, Options options)
    : impl(std::make_unique<Impl>(module, std::move(weights), std::move(options))) {}
template <class Real> Interpreter<Real>::~Interpreter() = default;

template <class Real>
StatusOr<std::vector<Outputs<Real>>> Interpreter<Real>::runRanks(const std::string &program, const Batch &batch,
                                                                 State<Real> &state,
                                                                 const std::map<std::string, Tensor<Real>> &extra) {
  return impl->runProgram(program, batch, state, extra);
}

template <class Real>
StatusOr<Outputs<Real>> Interpreter<Real>::run(const std::string &program, const Batch &batch, State<Real> &state,
                                               const std::map<std::string, Tensor<Real>> &extra) {
  QWEN_ASSIGN_OR_RETURN(std::vector<Outputs<Real>> ranks, impl->runProgram(program, batch, state, extra));
  return std::move(ranks.front());
}

template <class Real>
StatusOr<std::vector<std::vector<Tensor<Real>>>>
Interpreter<Real>::runRegions(const std::vector<kernel::DispatchOp> &ranks,
                              std::vector<std::vector<Operand<Real>>> operands, const Batch &batch,
                              State<Real> &state) {
  return impl->runRegions(ranks, std::move(operands), batch, state);
}

template <class Real>
StatusOr<std::vector<Tensor<Real>>> Interpreter<Real>::runRegion(kernel::DispatchOp dispatch,
                                                                 std::vector<Operand<Real>> operands,
                                                                 const Batch &batch, State<Real> &state) {
  QWEN_ASSIGN_OR_RETURN(auto ranks, impl->runRegions({dispatch}, {std::move(operands)}, batch, state));
  return std::move(ranks.front());
}

template <class Real> int64_t Interpreter<Real>::faultHits() const { return impl->faultHits; }
template <class Real> int64_t Interpreter<Real>::collectives() const { return impl->collectives; }

template class Interpreter<float>;
template class Interpreter<double>;

} // namespace qwen::reference
