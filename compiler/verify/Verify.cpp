//===- Verify.cpp - every kernel of a plan against the ops it stands for --===//
//
// The plan keeps the module after `select`, whose dispatches hold the model ops their kernels replace. So a check needs
// no second description of anything: the region runs in the interpreter, the kernels run from the catalogue, both on
// the same random numbers, and both write their results and their caches.
//
// Tolerances (contracts, section 8): 2^-8 for a rounding to bf16, those on the longest way through the region added in
// squares; sqrt(K) * 2^-22 where all is f32, K being the longest sum behind an element; integers equal. Which experts a router picks hangs on roundings that the region itself
// asks for, so its ids are held against a second run of the region, with them.
//
//===----------------------------------------------------------------------===//

#include "compiler/verify/Verify.h"

#include "compiler/verify/KernelRunner.h"
#include "compiler/reference/Interpreter.h"
#include "compiler/reference/RandomInputs.h"
#include "dialects/kernel/KernelDialect.h"
#include "passes/select/SpecAttr.h"
#include "runtime/exec/weights.h"
#include "runtime/kernels/catalog.h"
#include "runtime/kernels/gdn/gdn.h"
#include "runtime/plan/layout.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"

#include <cmath>
#include <cstring>
#include <fmt/ranges.h>
#include <map>
#include <random>
#include <xxhash.h>

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::compiler {
namespace {

using reference::OwnedWeight;
using RefTensor = reference::Tensor<double>;
using RefOperand = reference::Operand<double>;

constexpr int kPage = plan::kPageTokens;

// Bytes of 64-byte alignment, as kernels may expect.
class Bytes {
public:
  explicit Bytes(int64_t size = 0) : storage(size_t(size) + 64) {}
  int64_t size() const { return int64_t(storage.size()) - 64; }
  uint8_t *data() { return storage.data() + (-reinterpret_cast<uintptr_t>(storage.data()) & 63); }

private:
  std::vector<uint8_t> storage;
};

double load(const uint8_t *from, DType type, int64_t index) {
  if (type == DType::kI32)
    return reinterpret_cast<const int32_t *>(from)[index];
  if (type == DType::kBF16)
    return reference::FromBf16(reinterpret_cast<const uint16_t *>(from)[index]);
  return reinterpret_cast<const float *>(from)[index];
}

void store(uint8_t *to, DType type, int64_t index, double value) {
  if (type == DType::kI32)
    reinterpret_cast<int32_t *>(to)[index] = int32_t(value);
  else if (type == DType::kBF16)
    reinterpret_cast<uint16_t *>(to)[index] = reference::ToBf16(float(value));
  else
    reinterpret_cast<float *>(to)[index] = float(value);
}

reference::Type refType(DType type) {
  return type == DType::kBF16 ? reference::Type::kBf16
         : type == DType::kI32 ? reference::Type::kI32
                               : reference::Type::kF32;
}

DType dtypeOf(Type element) {
  return element.isBF16() ? DType::kBF16 : element.isInteger(32) ? DType::kI32 : DType::kF32;
}

reference::Operand<float> asFloat(const RefOperand &operand) {
  if (auto *tensor = std::get_if<std::shared_ptr<const RefTensor>>(&operand)) {
    auto copy = std::make_shared<reference::Tensor<float>>();
    copy->type = (*tensor)->type;
    copy->shape = (*tensor)->shape;
    copy->values.assign((*tensor)->values.begin(), (*tensor)->values.end());
    copy->ids = (*tensor)->ids;
    return std::shared_ptr<const reference::Tensor<float>>(copy);
  }
  if (auto *weight = std::get_if<OwnedWeight>(&operand))
    return *weight;
  if (auto *name = std::get_if<reference::StateName>(&operand))
    return *name;
  return reference::BatchHandle{};
}

/// A random weight. Drawing a billion numbers one by one would take minutes, so a big one repeats a prime number of them
/// and no two of its rows are alike.
OwnedWeight drawWeight(const std::string &name, reference::Type type, int64_t rows, int64_t cols, uint64_t seed) {
  constexpr int64_t kPeriod = 1048573; // the largest prime below 2^20
  if (rows * cols <= 4 * kPeriod || cols % kPeriod == 0)
    return reference::randomWeight(name, type, rows, cols, seed);
  // One row of `cols` columns decides the scale; the period is drawn as rows of that width.
  int64_t drawn = (kPeriod + cols - 1) / cols;
  OwnedWeight block = reference::randomWeight(name, type, drawn, cols, seed);
  int64_t size = rows * cols * reference::BytesOf(type), period = kPeriod * reference::BytesOf(type);
  auto bytes = std::make_shared<std::vector<uint8_t>>(size);
  for (int64_t at = 0; at < size; at += period)
    std::memcpy(bytes->data() + at, block.view.data, std::min(period, size - at));
  return {{bytes->data(), type, rows, cols}, bytes};
}

/// One sequence of the batch that every kernel is tried on.
struct Sequence {
  int rows, position, ring;
  bool fold, isShort;
};

/// A batch that kernels are tried on, and which of its rows have logits: a vocabulary's are dear in f64.
struct Trial {
  std::vector<Sequence> sequences;
  bool everyRowWanted;
};

/// What kernels tell apart: parts of a step, folds, one row or a few or many, a long past.
std::vector<Trial> trialsFor(const plan::State &state, int promptRows) {
  int m = state.max_rows, f = state.fold_rows;
  Trial mixed{{{1, 40, 0, false, true},          // a plain decode row
               {m, f + 25, f, true, true},       // a verify step that must fold first
               {1, 41, f - 1, false, true},      // the last row before a fold
               {1, 0, 0, false, true},           // the first token of all
               {promptRows, 0, 0, true, false},  // a prompt
               {5, 70, 3, true, false}},         // a later chunk, with rows to fold
              false};
  Trial alone{{{1, 2999, f - 1, false, true}}, true};
  Trial few{{}, true};
  for (int i = 0; i < 9; ++i)
    few.sequences.push_back({1, 5 * i + 1, std::min(i, f), i >= f, true});
  return {mixed, alone, few};
}

/// The cached state of one layer, both as the oracle and as the runtime keeps it.
struct LayerState {
  std::string name;
  model::KvCacheType kv;
  model::RecurrentStateType delta;
  Bytes pool;
};

class RegionCheck {
public:
  RegionCheck(const plan::Plan &plan, ModuleOp module, KernelRunner &runner, const VerifyOptions &options, Trial trial)
      : plan(plan), module(module), runner(runner), options(options), trial(std::move(trial)), random(options.seed) {}

  /// Checks the dispatch that stands at the same place in every rank's program; reports on rank `rank`'s kernels.
  Status run(const std::vector<kernel::DispatchOp> &ranks, size_t rank, std::map<std::string, KernelReport> &reports);

private:
  struct Slot { // an operand or a result of the dispatch
    DType type = DType::kF32;
    std::vector<int64_t> shape;
    Bytes bytes;
    int64_t count() const {
      int64_t n = 1;
      for (int64_t size : shape)
        n *= size;
      return n;
    }
  };

  void makeBatch(kernel::DispatchOp dispatch);
  RefOperand makeOperand(kernel::DispatchOp dispatch, size_t index, Slot &value, uint64_t salt);
  void makeState(kernel::DispatchOp dispatch, size_t index, Slot &value);
  int64_t rowsOf(kernel::DispatchOp dispatch) const;
  double normal() { return std::normal_distribution<double>()(random); }
  std::pair<double, double> compareRows(Slot &got, const RefTensor &want, int64_t from, int64_t to, double tolerance);
  std::pair<double, double> compareState(bool isShort, double tolerance);
  double toleranceOf(kernel::DispatchOp dispatch) const;

  const plan::Plan &plan;
  ModuleOp module;
  KernelRunner &runner;
  const VerifyOptions &options;
  const Trial trial;
  std::mt19937_64 random;

  const std::vector<Sequence> &sequences = trial.sequences;
  reference::Batch batch;
  int64_t shortRows = 0;
  std::vector<int32_t> position, slot, tableRow, ringFill, fold, pageTable;
  std::vector<kernels::SampleParams> sample;
  int maxPages = 0;
  reference::State<double> state;
  std::vector<LayerState> layers;
  kernels::StateView stateView{};
};

void RegionCheck::makeBatch(kernel::DispatchOp dispatch) {
  const plan::State &layout = plan.states.front();
  for (const Sequence &sequence : sequences)
    maxPages = std::max(maxPages, (sequence.position + sequence.rows + kPage - 1) / kPage);
  std::uniform_int_distribution<int32_t> ids(0, int32_t(plan.model.vocab) - 1);
  for (auto [index, sequence] : llvm::enumerate(sequences)) {
    std::vector<int32_t> tokens(sequence.rows);
    for (int32_t &token : tokens)
      token = ids(random);
    batch.Append(tokens, sequence.position, int32_t(index), reference::Batch::Logits::kNone);
    batch.num_short += sequence.isShort;
    shortRows += sequence.isShort ? sequence.rows : 0;
    position.push_back(sequence.position);
    slot.push_back(int32_t(index));
    tableRow.push_back(int32_t(index));
    ringFill.push_back(sequence.ring);
    fold.push_back(sequence.fold);
    for (int page = 0; page < maxPages; ++page) // pages of sequences interleave, so a wrong stride shows
      pageTable.push_back(int32_t(page * sequences.size() + index));
  }
  bool accepts = llvm::any_of(dispatch.block(), [](Operation &op) { return isa<model::AcceptOp>(op); });
  if (trial.everyRowWanted || accepts)
    for (int32_t row = 0; row < shortRows; ++row)
      batch.logit_rows.push_back(row);
  else
    batch.logit_rows = {0, int32_t(shortRows + options.promptRows - 1), int32_t(batch.num_tokens() - 1)};
  for (size_t row = 0; row < batch.logit_rows.size(); ++row) {
    // In turn: greedy, the whole distribution, and cut by each of the three.
    kernels::SampleParams params{};
    params.seed = options.seed + row;
    params.temperature = 0.8f;
    params.flags = row % 5 ? 0 : kernels::kSampleGreedy;
    params.top_k = row % 5 == 2 ? 20 : 0;
    params.top_p = row % 5 == 3 ? 0.9f : 1;
    params.min_p = row % 5 == 4 ? 0.05f : 0;
    sample.push_back(params);
    batch.sample.push_back({.seed = params.seed, .greedy = bool(params.flags & kernels::kSampleGreedy),
                            .temperature = params.temperature, .top_k = params.top_k, .top_p = params.top_p,
                            .min_p = params.min_p});
  }
  stateView = {kPage, 0, 0, layout.max_rows, layout.fold_rows, layout.ring_rows, layout.conv_rows};
}

// Whether a step runs over the rows that logits are wanted of.
bool overWanted(kernel::DispatchOp dispatch) {
  return llvm::any_of(dispatch.block(), [](Operation &op) {
    return isa<model::LmHeadOp, model::SampleOp, model::AllGatherOp, model::CandidateWalkOp, model::AcceptOp,
               model::LogitRowsOp>(op);
  });
}

int64_t RegionCheck::rowsOf(kernel::DispatchOp dispatch) const {
  bool gathers = llvm::any_of(dispatch.block(), [](Operation &op) { return isa<model::LogitRowsOp>(op); });
  return overWanted(dispatch) && !gathers ? int64_t(batch.logit_rows.size()) : batch.num_tokens();
}

void RegionCheck::makeState(kernel::DispatchOp dispatch, size_t index, Slot &value) {
  auto handle = dispatch.getInputs()[index].getDefiningOp<model::StateOp>();
  LayerState layer{handle.getName().str(), dyn_cast<model::KvCacheType>(handle.getType()),
                   dyn_cast<model::RecurrentStateType>(handle.getType()), Bytes()};
  if (layer.kv) {
    DType type = dtypeOf(layer.kv.getElementType());
    int64_t width = layer.kv.getKvHeads() * layer.kv.getHeadDim(), head = layer.kv.getHeadDim();
    stateView.page_bytes = std::max<int64_t>(64, 2 * width * kPage * DTypeBytes(type));
    layer.pool = Bytes(stateView.page_bytes * int64_t(pageTable.size()));
    for (auto [s, sequence] : llvm::enumerate(sequences)) {
      auto &cache = state.kv(0, int(s), layer.name);
      cache.tokens = sequence.position;
      for (int p = 0; p < sequence.position; ++p)
        for (int which = 0; which < 2; ++which)
          for (int64_t c = 0; c < width; ++c) {
            double number = reference::Round(float(normal()), refType(type));
            (which ? cache.values : cache.keys).push_back(number);
            uint8_t *page = layer.pool.data() + stateView.page_bytes * pageTable[s * maxPages + p / kPage];
            store(page, type, ((which * layer.kv.getKvHeads() + c / head) * kPage + p % kPage) * head + c % head, number);
          }
    }
  } else {
    DType type = dtypeOf(layer.delta.getElementType());
    int64_t hk = layer.delta.getKeyHeads(), hv = layer.delta.getValueHeads(), dk = layer.delta.getKeyDim(),
            dv = layer.delta.getValueDim(), width = layer.delta.getWidth(), channels = layer.delta.getConvChannels();
    auto at = kernels::MakeSlotLayout(int(hk), int(hv), int(dk), int(dv), type, stateView.ring_rows, stateView.conv_rows);
    stateView.slot_bytes = at.bytes;
    layer.pool = Bytes(at.bytes * int64_t(sequences.size()));
    std::memset(layer.pool.data(), 0xff, at.bytes * sequences.size()); // NaN wherever nothing was ever written
    for (auto [s, sequence] : llvm::enumerate(sequences)) {
      uint8_t *bytes = layer.pool.data() + at.bytes * s;
      auto &ref = state.recurrent(0, int(s), layer.name);
      ref.stateTokens = ref.convTokens = sequence.position;
      ref.s.assign(hv * dk * dv, 0);
      ref.conv.assign((width - 1) * channels, 0);
      float *base = reinterpret_cast<float *>(bytes);
      if (sequence.position > sequence.ring)
        for (int64_t h = 0; h < hv; ++h)
          for (int64_t v = 0; v < dv; ++v)
            for (int64_t k = 0; k < dk; ++k) {
              float number = float(0.3 * normal());
              base[(h * dv + v) * dk + k] = number;
              ref.s[(h * dk + k) * dv + v] = number;
            }
      for (int p = sequence.position - sequence.ring; p < sequence.position; ++p) {
        float *record = reinterpret_cast<float *>(bytes + at.ring + at.record_bytes * (p % stateView.ring_rows));
        float *u = record + hk * dk, *g = u + hv * dv;
        for (int64_t i = 0; i < hk * dk; ++i)
          record[i] = float(normal() / std::sqrt(double(dk)));
        for (int64_t i = 0; i < hv * dv; ++i)
          u[i] = float(normal());
        for (int64_t h = 0; h < hv; ++h)
          g[h] = -float(std::abs(normal()));
        for (int64_t h = 0; h < hv; ++h)
          for (int64_t k = 0; k < dk; ++k)
            for (int64_t v = 0; v < dv; ++v) {
              double &number = ref.s[(h * dk + k) * dv + v];
              number = std::exp(double(g[h])) * number + double(record[(h / (hv / hk)) * dk + k]) * u[h * dv + v];
            }
      }
      for (int back = 1; back < width && sequence.position - back >= 0; ++back) {
        int p = sequence.position - back;
        uint8_t *row = bytes + at.conv + at.conv_row_bytes * (p % stateView.conv_rows);
        for (int64_t c = 0; c < channels; ++c) {
          double number = reference::Round(float(normal()), refType(type));
          store(row, type, c, number);
          ref.conv[(width - 1 - back) * channels + c] = number;
        }
      }
    }
  }
  layers.push_back(std::move(layer));
  value.bytes = Bytes(); // the argument is the pool itself
}

RefOperand RegionCheck::makeOperand(kernel::DispatchOp dispatch, size_t index, Slot &value, uint64_t salt) {
  Value operand = dispatch.getInputs()[index];
  if (isa<model::BatchType>(operand.getType()))
    return reference::BatchHandle{};
  if (isa<model::KvCacheType, model::RecurrentStateType>(operand.getType())) {
    makeState(dispatch, index, value);
    return reference::StateName{layers.back().name};
  }
  auto type = cast<RankedTensorType>(operand.getType());
  value.type = dtypeOf(type.getElementType());
  if (auto weight = operand.getDefiningOp<model::WeightOp>()) {
    int64_t cols = type.getShape().back(), rows = cols ? type.getNumElements() / cols : 0;
    OwnedWeight owned = drawWeight(weight.getParam().str(), refType(value.type), rows, cols, options.seed + salt);
    plan::Weight whole{.dtype = value.type};
    llvm::append_range(whole.shape, type.getShape());
    StringRef layout = cast<StringAttr>((*dispatch.getLayouts())[index]).getValue();
    plan::Packed packed{.layout = layout == "rows"     ? plan::Layout::kRows
                                  : layout == "vector" ? plan::Layout::kVector
                                                       : plan::Layout::kTile16,
                        .slices = std::vector<std::vector<plan::Range>>(whole.shape.size())};
    plan::PackedSize size = *plan::PackedBytes(whole, packed);
    packed.bytes = size.bytes;
    packed.net_bytes = size.net_bytes;
    value.bytes = Bytes(size.bytes);
    exec::PackWeight(whole, packed, static_cast<const uint8_t *>(owned.view.data), value.bytes.data());
    return owned;
  }

  auto tensor = std::make_shared<RefTensor>();
  tensor->type = refType(value.type);
  for (int64_t size : type.getShape())
    tensor->shape.push_back(ShapedType::isDynamic(size) ? rowsOf(dispatch) : size);
  bool isIds = type.getRank() == 1, isExperts = value.type == DType::kI32 && !isIds;
  bool isNext = isIds && llvm::any_of(dispatch.block().getArgument(index).getUsers(), [&](Operation *user) {
    auto accept = dyn_cast<model::AcceptOp>(user);
    return accept && accept.getNext() == dispatch.block().getArgument(index);
  });
  if (isIds && !isNext)
    tensor->shape[0] = batch.num_tokens();
  value.shape = tensor->shape;
  value.bytes = Bytes(value.count() * DTypeBytes(value.type));
  if (isExperts) { // top_k distinct ids a row, some of them another rank's
    int64_t experts = tensor->channels();
    dispatch.getBody().walk([&](model::ExpertsOp op) {
      experts = std::max<int64_t>(tensor->channels(),
                                  op.getFirstExpert() + cast<RankedTensorType>(op.getGateUp().getType()).getDimSize(0));
    });
    std::vector<int32_t> deck(experts);
    for (int64_t e = 0; e < experts; ++e)
      deck[e] = int32_t(e);
    for (int64_t t = 0; t < tensor->rows(); ++t)
      for (int64_t i = 0; i < tensor->channels(); ++i) {
        std::swap(deck[i], deck[i + random() % (experts - i)]);
        tensor->ids.push_back(deck[i]);
      }
  } else if (isIds) {
    tensor->ids = batch.token_ids;
    tensor->ids.resize(tensor->shape[0]);
    if (isNext) // drafts are mostly right: row j's next token is row j + 1
      for (size_t n = 0; n < tensor->ids.size(); ++n) {
        size_t row = size_t(batch.logit_rows[n]) + 1;
        tensor->ids[n] = row < batch.token_ids.size() && random() % 4 ? batch.token_ids[row] : 0;
      }
  } else {
    for (int64_t i = 0; i < value.count(); ++i)
      tensor->values.push_back(reference::Round(float(normal()), tensor->type));
  }
  for (int64_t i = 0; i < value.count(); ++i)
    store(value.bytes.data(), value.type, i, value.type == DType::kI32 ? tensor->ids[i] : tensor->values[i]);
  return std::shared_ptr<const RefTensor>(tensor);
}

double RegionCheck::toleranceOf(kernel::DispatchOp dispatch) const {
  double longest = 64;
  int roundings = 0;
  DenseMap<Value, int> before; // roundings on the longest way to a value
  dispatch.getBody().walk([&](Operation *op) {
    int deepest = 0;
    for (Value operand : op->getOperands()) {
      deepest = std::max(deepest, before.lookup(operand));
      if (auto type = dyn_cast<RankedTensorType>(operand.getType()); type && type.getRank() > 1)
        longest = std::max(longest, double(type.getShape().back()));
    }
    for (Value result : op->getResults()) {
      auto type = dyn_cast<RankedTensorType>(result.getType());
      bool rounds = type && type.getElementType().isBF16();
      before[result] = deepest + (rounds ? 1 + op->hasAttr("round_first") : 0);
      roundings = std::max(roundings, before[result]);
    }
    if (auto append = dyn_cast<model::KvAppendOp>(op)) // what attention reads has been through the cache's type
      roundings = std::max<int>(roundings, append.getCache().getType().getElementType().isBF16());
    // Sums that run over tokens too.
    if (auto rule = dyn_cast<model::GatedDeltaRuleOp>(op))
      longest = std::max(longest, 128.0 * rule.getState().getType().getKeyDim());
    if (auto attention = dyn_cast<model::AttentionOp>(op))
      longest = std::max(longest, 128.0 * attention.getCache().getType().getHeadDim());
  });
  return roundings ? std::sqrt(double(roundings)) * std::ldexp(1, -8) : std::sqrt(longest) * std::ldexp(1, -22);
}

std::pair<double, double> RegionCheck::compareRows(Slot &got, const RefTensor &want, int64_t from, int64_t to,
                                                   double tolerance) {
  int64_t channels = want.channels();
  double off = 0, size = 0;
  for (int64_t i = from * channels; i < to * channels; ++i) {
    double a = load(got.bytes.data(), got.type, i);
    if (got.type == DType::kI32) {
      if (a != want.ids[i])
        return {1, 0};
      continue;
    }
    double b = want.values[i];
    off += (a - b) * (a - b);
    size += b * b;
    if (!std::isfinite(a))
      off = INFINITY;
  }
  if (got.type == DType::kI32)
    return {0, 0};
  return {off == 0 ? 0 : size == 0 ? 1 : std::sqrt(off / size), tolerance};
}

// What the step left in the caches, of the short or the long sequences.
std::pair<double, double> RegionCheck::compareState(bool isShort, double tolerance) {
  double off = 0, size = 0;
  auto add = [&](double got, double want) {
    off += std::isfinite(got) ? (got - want) * (got - want) : INFINITY;
    size += want * want;
  };
  for (LayerState &layer : layers)
    for (auto [s, sequence] : llvm::enumerate(sequences)) {
      if (sequence.isShort != isShort)
        continue;
      int end = sequence.position + sequence.rows;
      if (layer.kv) {
        DType type = dtypeOf(layer.kv.getElementType());
        int64_t heads = layer.kv.getKvHeads(), head = layer.kv.getHeadDim(), width = heads * head;
        auto &cache = state.kv(0, int(s), layer.name);
        for (int p = 0; p < end && p < cache.tokens; ++p)
          for (int which = 0; which < 2; ++which)
            for (int64_t c = 0; c < width; ++c) {
              uint8_t *page = layer.pool.data() + stateView.page_bytes * pageTable[s * maxPages + p / kPage];
              add(load(page, type, ((which * heads + c / head) * kPage + p % kPage) * head + c % head),
                  (which ? cache.values : cache.keys)[p * width + c]);
            }
        continue;
      }
      int64_t hk = layer.delta.getKeyHeads(), hv = layer.delta.getValueHeads(), dk = layer.delta.getKeyDim(),
              dv = layer.delta.getValueDim();
      auto at = kernels::MakeSlotLayout(int(hk), int(hv), int(dk), int(dv), dtypeOf(layer.delta.getElementType()),
                                        stateView.ring_rows, stateView.conv_rows);
      uint8_t *bytes = layer.pool.data() + at.bytes * s;
      int ring = isShort ? (sequence.fold ? 0 : sequence.ring) + sequence.rows : 0;
      std::vector<double> got(hv * dk * dv, 0);
      if (end > ring)
        for (int64_t h = 0; h < hv; ++h)
          for (int64_t v = 0; v < dv; ++v)
            for (int64_t k = 0; k < dk; ++k)
              got[(h * dk + k) * dv + v] = reinterpret_cast<float *>(bytes)[(h * dv + v) * dk + k];
      for (int p = end - ring; p < end; ++p) {
        float *record = reinterpret_cast<float *>(bytes + at.ring + at.record_bytes * (p % stateView.ring_rows));
        float *u = record + hk * dk, *g = u + hv * dv;
        for (int64_t h = 0; h < hv; ++h)
          for (int64_t k = 0; k < dk; ++k)
            for (int64_t v = 0; v < dv; ++v) {
              double &number = got[(h * dk + k) * dv + v];
              number = std::exp(double(g[h])) * number + double(record[(h / (hv / hk)) * dk + k]) * u[h * dv + v];
            }
      }
      auto &ref = state.recurrent(0, int(s), layer.name);
      for (size_t i = 0; i < got.size(); ++i)
        add(got[i], ref.s[i]);
    }
  return {off == 0 ? 0 : size == 0 ? 1 : std::sqrt(off / size), tolerance};
}

Status RegionCheck::run(const std::vector<kernel::DispatchOp> &ranks, size_t rank,
                        std::map<std::string, KernelReport> &reports) {
  kernel::DispatchOp dispatch = ranks[rank];
  makeBatch(dispatch);

  // Only a collective needs the other ranks; their partial rows differ, all else is the same on every rank.
  bool collective = dispatch.getFamily() == "all_reduce";
  size_t first = collective ? 0 : rank, last = collective ? ranks.size() : rank + 1;
  std::vector<std::vector<RefOperand>> operands;
  std::vector<std::vector<Slot>> values;
  for (size_t r = first; r < last; ++r) {
    auto &mine = operands.emplace_back();
    auto &theirs = values.emplace_back(dispatch.getNumOperands() + dispatch.getNumResults());
    for (size_t i = 0; i < dispatch.getNumOperands(); ++i) {
      bool partial = collective && llvm::any_of(kernel::DispatchOp(ranks[r]).block().getArgument(i).getUsers(), [](Operation *user) {
        return isa<model::AllReduceOp, model::AllGatherOp>(user);
      });
      if (r == first || partial) {
        mine.push_back(makeOperand(ranks[r], i, theirs[i], i + 1));
        continue;
      }
      theirs[i] = values.front()[i];
      mine.push_back(operands.front()[i]);
    }
  }
  std::vector<Slot> &mine = values[rank - first];
  int64_t rows = rowsOf(dispatch);

  reference::Interpreter<double> interpreter(module, reference::randomWeights(module, options.seed));
  std::vector<RefTensor> want;
  if (collective) {
    QWEN_ASSIGN_OR_RETURN(auto all, interpreter.runRegions(ranks, operands, batch, state));
    want = std::move(all[rank]);
  } else {
    QWEN_ASSIGN_OR_RETURN(want, interpreter.runRegion(dispatch, operands.front(), batch, state));
  }
  if (dispatch.getFamily() == "router") {
    reference::Interpreter<float> rounding(module, reference::randomWeights(module, options.seed));
    reference::State<float> none;
    std::vector<reference::Operand<float>> rounded;
    for (const RefOperand &operand : operands.front())
      rounded.push_back(asFloat(operand));
    QWEN_ASSIGN_OR_RETURN(auto again, rounding.runRegion(dispatch, rounded, batch, none));
    for (size_t i = 0; i < want.size(); ++i)
      want[i].ids = again[i].ids;
  }
  for (size_t i = 0; i < want.size(); ++i) {
    Slot &value = mine[dispatch.getNumOperands() + i];
    value.type = dtypeOf(cast<RankedTensorType>(dispatch.getResult(i).getType()).getElementType());
    value.shape = want[i].shape;
    value.bytes = Bytes(value.count() * DTypeBytes(value.type));
    std::memset(value.bytes.data(), 0xff, value.count() * DTypeBytes(value.type));
  }

  // The kernels, as the executor would call them, two threads each.
  std::vector<int32_t> logitRows = batch.logit_rows;
  kernels::BatchView view{int(batch.num_seqs()), batch.num_short, int(batch.num_tokens()), int(logitRows.size()),
                          batch.cu_tokens.data(), batch.token_ids.data(), position.data(), slot.data(), tableRow.data(),
                          ringFill.data(), fold.data(), logitRows.data(), sample.data(), pageTable.data(), maxPages};
  int64_t tempBytes = 0;
  std::vector<std::pair<const kernels::KernelInfo *, kernels::SpecPtr>> decoded;
  for (Attribute symbol : dispatch.getKernelsAttr()) {
    auto record = module.lookupSymbol<kernel::KernelOp>(cast<FlatSymbolRefAttr>(symbol).getAttr());
    const kernels::KernelInfo *info = record ? kernels::FindKernel(record.getEntry().str()) : nullptr;
    if (!info)
      return DataLossError(fmt::format("the plan's IR names kernel {}, which is not in the catalogue",
                                       cast<FlatSymbolRefAttr>(symbol).getValue().str()));
    QWEN_ASSIGN_OR_RETURN(kernels::SpecPtr spec, info->decode(passes::fieldsOf(record.getSpec())));
    tempBytes = std::max(tempBytes, info->workspace(spec.get(), int(batch.num_tokens())).temp);
    decoded.push_back({info, spec});
  }
  Bytes temp(tempBytes);
  double tolerance = toleranceOf(dispatch);
  struct Written {
    int64_t value, from, to;
  };
  for (auto [index, kernel] : llvm::enumerate(decoded)) {
    auto &[info, spec] = kernel;
    auto list = cast<DenseI32ArrayAttr>((*dispatch.getArgs())[index]).asArrayRef();
    KernelCall call{.name = cast<FlatSymbolRefAttr>((*dispatch.getKernels())[index]).getValue().str(),
                    .info = info, .spec = spec.get(), .part = info->part, .batch = &view, .state = &stateView,
                    .rank = int(rank)};
    if (call.part == plan::Part::kAll && overWanted(dispatch))
      call.part = plan::Part::kLogitRows;
    for (int32_t arg : list) {
      if (arg < 0)
        call.args.push_back({});
      else if (arg == int32_t(mine.size()))
        call.args.push_back({temp.data(), temp.size(), true});
      else if (arg < int32_t(dispatch.getNumOperands()) &&
               isa<model::KvCacheType, model::RecurrentStateType>(dispatch.getInputs()[arg].getType()))
        call.args.push_back({layers.front().pool.data(), layers.front().pool.size(), true});
      else
        call.args.push_back({mine[arg].bytes.data(), mine[arg].bytes.size(), arg >= int32_t(dispatch.getNumOperands())});
    }
    for (auto &theirs : values)
      call.peers.push_back(list[0] < 0 ? Argument{} : Argument{theirs[list[0]].bytes.data(), theirs[list[0]].bytes.size()});
    QWEN_RETURN_IF_ERROR(runner.run(call).Annotate(fmt::format("kernel {}", call.name)));
    uint64_t bits = 0;
    for (const Argument &argument : call.args)
      if (argument.written && argument.data != temp.data())
        bits = XXH3_64bits_withSeed(argument.data, size_t(argument.bytes), bits);

    // A short kernel answers for the short sequences' rows, a long one for the others.
    bool isShort = info->part == plan::Part::kShort, isLong = info->part == plan::Part::kLong;
    int64_t from = isLong ? shortRows : 0, to = isShort ? shortRows : rows;
    std::vector<Written> written;
    for (int32_t arg : list)
      if (arg >= int32_t(dispatch.getNumOperands()) && arg < int32_t(mine.size())) {
        // The draw reads the logits that the kernel before it wrote.
        if (info->entry == "sample" && mine[arg].type != DType::kI32)
          continue;
        written.push_back({arg, from, std::min(to, mine[arg].shape[0])});
      }
    if (options.breakFamily == info->family)
      for (const Written &w : written) {
        int64_t channels = mine[w.value].count() / std::max<int64_t>(1, mine[w.value].shape[0]);
        for (int64_t i = w.from * channels; i < w.to * channels; ++i)
          store(mine[w.value].bytes.data(), mine[w.value].type, i,
                1.5 * load(mine[w.value].bytes.data(), mine[w.value].type, i) + 1);
      }

    KernelReport report{.kernel = cast<FlatSymbolRefAttr>((*dispatch.getKernels())[index]).getValue().str(),
                        .family = std::string(info->family), .entry = std::string(info->entry),
                        .rows = std::min(to, rows) - from, .bits = bits};
    auto worst = [&](std::pair<double, double> result, std::string name) {
      auto [error, allowed] = result;
      bool worse = !(error <= allowed) ? report.ok() || error > report.error
                                         : report.ok() && error * report.tolerance >= report.error * allowed;
      if (report.output.empty() || worse) {
        report.error = error;
        report.tolerance = allowed;
        report.output = std::move(name);
      }
    };
    bool lastKernel = index + 1 == decoded.size();
    for (const Written &w : written) {
      size_t result = w.value - dispatch.getNumOperands();
      worst(compareRows(mine[w.value], want[result], w.from, w.to, tolerance), fmt::format("result {}", result));
    }
    if (!layers.empty()) {
      auto result = compareState(isShort, tolerance);
      if (options.breakFamily == info->family && written.empty())
        result.first = 1; // a kernel that writes nothing but its cache
      worst(result, "state");
    }
    // A kernel that writes only the dispatch's own space is judged by what the next one makes of it.
    if (!report.output.empty())
      reports[report.kernel] = report;
    if (lastKernel)
      for (auto [earlier, pair] : llvm::enumerate(decoded)) {
        std::string name = cast<FlatSymbolRefAttr>((*dispatch.getKernels())[earlier]).getValue().str();
        if (!reports.count(name)) {
          KernelReport copy = report;
          copy.kernel = name;
          copy.entry = std::string(pair.first->entry);
          reports[name] = copy;
        }
      }
  }
  return {};
}

} // namespace

// Of two trials of a kernel the one nearer to its bound, or further beyond it, stands.
static void mergeReport(const KernelReport &report, KernelReport &into) {
  auto share = [](const KernelReport &r) {
    return !std::isfinite(r.error) ? HUGE_VAL : r.error == 0 ? 0 : r.tolerance == 0 ? HUGE_VAL : r.error / r.tolerance;
  };
  KernelReport worst = share(report) > share(into) ? report : into;
  worst.rows = std::max(report.rows, into.rows);
  worst.bits = XXH3_64bits_withSeed(&report.bits, sizeof report.bits, into.bits);
  into = worst;
}

// The code path on the processor: the asked one, or the best here.
static StatusOr<kernels::Isa> chooseIsa(const std::optional<std::string> &asked) {
  if (!asked)
    return kernels::DetectIsa();
  for (kernels::Isa isa : kernels::kAllIsas)
    if (*asked == kernels::IsaName(isa) && kernels::IsaSupported(isa))
      return isa;
  return UnimplementedError(fmt::format("--isa={}: this machine cannot run it", *asked));
}

StatusOr<VerifyReport> verifyPlan(const plan::Plan &plan, const VerifyOptions &options) {
  const std::string target = options.cuda ? "sm_89" : "cpu";
  if (!llvm::is_contained(plan.targets, target))
    return UnimplementedError(fmt::format("the plan has no program for {}, only for {}", target,
                                          fmt::join(plan.targets, ", ")),
                              fmt::format("compile with --target=cpu,{}", target));
  std::unique_ptr<KernelRunner> runner;
  std::string where = "cuda";
  if (options.cuda) {
    QWEN_ASSIGN_OR_RETURN(runner, makeCudaRunner(plan));
  } else {
    QWEN_ASSIGN_OR_RETURN(kernels::Isa isa, chooseIsa(options.isa));
    runner = makeCpuRunner(isa);
    where = kernels::IsaName(isa);
  }
  if (!options.breakFamily.empty() && !kernel::isFamily(options.breakFamily))
    return InvalidArgumentError(fmt::format("--break-family={}: is no kernel family", options.breakFamily));

  const plan::Blob *ir = nullptr;
  for (const plan::Blob &blob : plan.blobs)
    if (blob.kind == plan::BlobKind::kIr)
      ir = &blob;
  if (!ir)
    return DataLossError("the plan has no IR section, so there is nothing to check its kernels against");
  MLIRContext context(MLIRContext::Threading::DISABLED);
  context.loadDialect<func::FuncDialect, model::ModelDialect, kernel::KernelDialect>();
  ScopedDiagnosticHandler quiet(&context, [](Diagnostic &) { return success(); });
  auto module = parseSourceString<ModuleOp>(
      StringRef(reinterpret_cast<const char *>(ir->bytes.data()), ir->bytes.size()), ParserConfig(&context));
  if (!module)
    return DataLossError("section ir: is not a module that this build can read");

  // Programs by name, their ranks in order; then the dispatches, which stand at the same place on every rank.
  llvm::MapVector<StringAttr, std::vector<func::FuncOp>> programs;
  for (auto program : module->getOps<func::FuncOp>())
    if (program->getAttrOfType<StringAttr>(model::kTargetAttr) == target)
      programs[program->getAttrOfType<StringAttr>(model::kProgramAttr)].push_back(program);
  std::map<std::string, KernelReport> reports;
  for (auto &[name, ranks] : programs) {
    std::vector<std::vector<kernel::DispatchOp>> lists;
    for (func::FuncOp program : ranks) {
      auto &list = lists.emplace_back();
      program.walk([&](kernel::DispatchOp dispatch) { list.push_back(dispatch); });
      if (list.size() != lists.front().size())
        return DataLossError(fmt::format("section ir: ranks of {} have {} and {} dispatches", name.getValue().str(),
                                         lists.front().size(), list.size()));
    }
    for (size_t place = 0; place < lists.front().size(); ++place) {
      std::vector<kernel::DispatchOp> at;
      for (auto &list : lists)
        at.push_back(list[place]);
      for (size_t rank = 0; rank < at.size(); ++rank) {
        if (!at[rank].getKernels() || !at[rank].getArgs() || !at[rank].getLayouts())
          return DataLossError("section ir: a dispatch has no kernels");
        bool known = llvm::all_of(*at[rank].getKernels(), [&](Attribute symbol) {
          return reports.count(cast<FlatSymbolRefAttr>(symbol).getValue().str()) != 0;
        });
        if (!known)
          for (const Trial &trial : trialsFor(plan.states.front(), options.promptRows)) {
            std::map<std::string, KernelReport> found;
            RegionCheck check(plan, *module, *runner, options, trial);
            QWEN_RETURN_IF_ERROR(check.run(at, rank, found).Annotate("section ir"));
            for (auto &[name, report] : found)
              mergeReport(report, reports.try_emplace(name, report).first->second);
          }
      }
    }
  }

  VerifyReport report{.where = where};
  for (const plan::Kernel &kernel : plan.kernels) {
    if (kernel.target != target)
      continue;
    auto found = reports.find(kernel.name);
    if (found == reports.end())
      return DataLossError(fmt::format("kernel {}: no dispatch of the plan's IR uses it", kernel.name));
    report.kernels.push_back(found->second);
  }
  return report;
}

std::string VerifyReport::text() const {
  std::string text = fmt::format("{:<56} {:>6} {:>10} {:>10}  {}\n", "kernel (" + where + ")", "rows", "error", "allowed",
                                 "worst at");
  size_t bad = 0;
  for (const KernelReport &kernel : kernels) {
    bad += !kernel.ok();
    text += fmt::format("{:<56} {:>6} {:>10.2e} {:>10.2e}  {}{}\n", kernel.kernel, kernel.rows, kernel.error,
                        kernel.tolerance, kernel.output, kernel.ok() ? "" : "  FAILED");
  }
  text += fmt::format("{} kernels, {} beyond tolerance\n", kernels.size(), bad);
  return text;
}

std::string VerifyReport::json() const {
  std::string text = fmt::format("{{\"isa\":\"{}\",\"kernels\":[", where);
  for (const KernelReport &kernel : kernels)
    text += fmt::format("{}\n{{\"kernel\":\"{}\",\"family\":\"{}\",\"entry\":\"{}\",\"rows\":{},\"error\":{:.6e},"
                        "\"tolerance\":{:.6e},\"output\":\"{}\",\"bits\":\"{:016x}\",\"ok\":{}}}",
                        &kernel == &kernels.front() ? "" : ",", kernel.kernel, kernel.family, kernel.entry, kernel.rows,
                        std::isfinite(kernel.error) ? kernel.error : 1e300, kernel.tolerance, kernel.output,
                        kernel.bits, kernel.ok() ? "true" : "false");
  return text + "\n]}\n";
}

Status VerifyReport::status() const {
  std::string names;
  size_t bad = 0;
  for (const KernelReport &kernel : kernels)
    if (!kernel.ok()) {
      names += (bad++ ? ", " : "") + kernel.kernel;
    }
  if (!bad)
    return {};
  return CheckFailedError(fmt::format("{} of {} kernels are beyond their tolerance: {}", bad, kernels.size(), names));
}

} // namespace qwen::compiler
