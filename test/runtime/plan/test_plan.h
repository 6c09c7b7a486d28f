// A plan of a made-up model, small enough to spoil byte by byte: one delta-rule layer with experts, one attention
// layer, an MTP head, a tied head. Its kernels would not run; everything the file format checks is right.
#ifndef QWEN_TEST_RUNTIME_PLAN_TEST_PLAN_H_
#define QWEN_TEST_RUNTIME_PLAN_TEST_PLAN_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "runtime/plan/layout.h"
#include "runtime/plan/plan.h"

namespace qwen::plan {

inline Field IntField(std::string name, int64_t value) {
  return {.name = std::move(name), .kind = Field::Kind::kInt, .ints = {value}, .reals = {}};
}

/// A tensor that is the weight as it lies.
inline Piece WholeTensor(std::string tensor, std::vector<int64_t> shape) {
  Piece p{.tensor = std::move(tensor), .dtypes = {"BF16", "F32"}, .shape = shape};
  p.view_cols = p.cols = shape.back();
  p.view_rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) p.view_rows *= shape[d];
  p.rows = p.view_rows;
  return p;
}

class TestPlan {
 public:
  static constexpr int64_t kHidden = 32, kVocab = 80, kExperts = 2, kInter = 16;

  explicit TestPlan(int tp = 1) {
    plan.producer = "test";
    plan.model = {.family = "qwen3_5_moe",
                  .dtype = DType::kBF16,
                  .hidden = kHidden,
                  .layers = 2,
                  .vocab = kVocab,
                  .max_model_len = 128,
                  .eos_ids = {7},
                  .prefixes = {"model.language_model.", "model."},
                  .weights_dir = "checkpoint"};
    plan.capacity = {.max_num_seqs = 2, .max_num_batched_tokens = 16, .max_rows = 2, .max_logit_rows = 4};
    plan.targets = {"cpu"};
    plan.tp = tp;
    plan.blobs = {{BlobKind::kIr, {1, 2, 3}}, {BlobKind::kConfig, {'{', '}'}}};
    AddKernels();
    AddWeights();
    for (int rank = 0; rank < tp; ++rank) {
      AddState();
      AddProgram("step", rank);
      AddProgram("draft_mtp", rank);
    }
  }

  Plan plan;

 private:
  int32_t AddKernel(std::string entry, std::string family, Fields spec) {
    plan.kernels.push_back({entry + "__test", std::move(family), entry, "cpu", std::move(spec)});
    return static_cast<int32_t>(plan.kernels.size()) - 1;
  }
  void AddKernels() {
    embed_ = AddKernel("embed_rows", "embed", {IntField("hidden", kHidden)});
    linear_ = AddKernel("linear", "linear",
                        {IntField("k", kHidden),
                         {.name = "n", .kind = Field::Kind::kInts, .ints = {96, 32}, .reals = {}},
                         {.name = "eps", .kind = Field::Kind::kReal, .ints = {}, .reals = {0.5}}});
    decode_ = AddKernel("gdn_decode", "gdn", {IntField("width", 4)});
    scan_ = AddKernel("gdn_scan", "gdn", {IntField("width", 4)});
    attention_ = AddKernel("attn_decode", "attention",
                           {{.name = "inv_freq", .kind = Field::Kind::kReals, .ints = {}, .reals = {1, 0.25}}});
    reduce_ = AddKernel("all_reduce", "all_reduce", {IntField("channels", kHidden)});
    head_ = AddKernel("lm_head", "lm_head", {IntField("vocab", kVocab)});
  }

  int32_t AddWeight(std::string name, std::vector<int64_t> shape, std::vector<Alternative> alternatives,
                    DType dtype = DType::kBF16, Group group = Group::kModel) {
    plan.weights.push_back({.name = std::move(name),
                            .scheme = "",
                            .dtype = dtype,
                            .shape = std::move(shape),
                            .group = group,
                            .transform = dtype == DType::kF32 ? Transform::kOnePlus : Transform::kNone,
                            .alternatives = std::move(alternatives)});
    return static_cast<int32_t>(plan.weights.size()) - 1;
  }
  void AddWeights() {
    embed_w_ = AddWeight("embed", {kVocab, kHidden}, {{{WholeTensor("{P}embed_tokens.weight", {kVocab, kHidden})}}});
    head_w_ = AddWeight("lm_head", {kVocab, kHidden}, {});
    plan.weights[head_w_].alias = embed_w_;
    norm_w_ = AddWeight("final_norm", {kHidden}, {{{WholeTensor("{P}norm.weight", {kHidden})}}}, DType::kF32);
    qkv_w_ = AddWeight("layers.0.gdn.qkv", {96, kHidden},
                       {{{WholeTensor("{P}layers.0.linear_attn.in_proj_qkv.weight", {96, kHidden})}}});
    // Fused, or a tensor an expert: gate rows first.
    const int64_t rows = 2 * kInter;
    Piece fused = WholeTensor("{P}layers.0.mlp.experts.gate_up_proj", {kExperts, rows, kHidden});
    Piece gate = WholeTensor("{P}layers.0.mlp.experts.{e}.gate_proj.weight", {kInter, kHidden});
    gate.e_count = kExperts;
    gate.dst_row_step = rows;
    Piece up = gate;
    up.tensor = "{P}layers.0.mlp.experts.{e}.up_proj.weight";
    up.dst_row = kInter;
    gate_up_w_ = AddWeight("layers.0.moe.gate_up", {kExperts, rows, kHidden}, {{{fused}}, {{gate, up}}});
    fc_w_ = AddWeight("mtp.fc", {kHidden, 2 * kHidden}, {{{WholeTensor("mtp.fc.weight", {kHidden, 2 * kHidden})}}},
                      DType::kBF16, Group::kMtp);
  }

  void AddState() {
    State state;
    state.max_rows = plan.capacity.max_rows;
    state.kv_layers = {{.name = "layers.1.attn", .kv_heads = 1, .head_dim = 16, .dtype = DType::kBF16},
                       {.name = "mtp.layers.0.attn", .kv_heads = 1, .head_dim = 16, .dtype = DType::kBF16}};
    state.delta_layers = {{.name = "layers.0.gdn",
                           .key_heads = 1,
                           .value_heads = 2,
                           .key_dim = 16,
                           .value_dim = 16,
                           .width = 4,
                           .dtype = DType::kBF16}};
    LayOutState(&state);
    plan.states.push_back(std::move(state));
  }

  int32_t AddPacked(int32_t weight, int32_t rank, Layout layout, std::vector<std::vector<Range>> slices) {
    Packed packed{.weight = weight, .rank = rank, .layout = layout, .slices = std::move(slices)};
    const PackedSize size = *PackedBytes(plan.weights[weight], packed);
    packed.bytes = size.bytes;
    packed.net_bytes = size.net_bytes;
    plan.packed.push_back(std::move(packed));
    return static_cast<int32_t>(plan.packed.size()) - 1;
  }

  // A program's buffers.
  int32_t Arena(std::string name, std::vector<int64_t> shape, int64_t bytes, DType dtype = DType::kBF16) {
    program_->buffers.push_back({.name = std::move(name),
                                 .kind = BufferKind::kArena,
                                 .offset = program_->arena_bytes,
                                 .bytes = bytes,
                                 .dtype = dtype,
                                 .shape = std::move(shape)});
    program_->arena_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return static_cast<int32_t>(program_->buffers.size()) - 1;
  }
  int32_t WeightBuffer(int32_t packed) {
    const Weight& weight = plan.weights[plan.packed[packed].weight];
    program_->buffers.push_back({.name = weight.name,
                                 .kind = BufferKind::kWeight,
                                 .index = packed,
                                 .bytes = plan.packed[packed].bytes,
                                 .dtype = weight.dtype,
                                 .shape = *PackedShape(weight, plan.packed[packed])});
    return static_cast<int32_t>(program_->buffers.size()) - 1;
  }
  int32_t Cache(const std::string& name) {
    const State& state = plan.states[program_->rank];
    Buffer buffer{.name = name, .kind = BufferKind::kCache, .dtype = DType::kU8};
    for (const KvLayer& layer : state.kv_layers)
      if (layer.name == name) buffer.offset = layer.offset, buffer.bytes = KvLayerBytes(layer);
    for (const DeltaLayer& layer : state.delta_layers)
      if (layer.name == name)
        buffer.offset = layer.offset, buffer.bytes = DeltaLayerBytes(layer, state.ring_rows, state.conv_rows).bytes();
    buffer.shape = {buffer.bytes};
    program_->buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(program_->buffers.size()) - 1;
  }
  int32_t PortBuffer(BufferKind kind, std::string name, std::vector<int64_t> shape, int64_t bytes, DType dtype) {
    std::vector<Port>& ports = kind == BufferKind::kInput ? program_->inputs : program_->outputs;
    const int32_t index = static_cast<int32_t>(program_->buffers.size());
    program_->buffers.push_back({.name = name,
                                 .kind = kind,
                                 .index = static_cast<int32_t>(ports.size()),
                                 .bytes = bytes,
                                 .dtype = dtype,
                                 .shape = std::move(shape)});
    ports.push_back({std::move(name), index});
    return index;
  }
  void AddStep(int32_t kernel, std::vector<int32_t> args, std::string origin, bool waits, Part part = Part::kAll) {
    program_->steps.push_back({.kind = kernel == reduce_ ? StepKind::kCollective : StepKind::kLaunch,
                               .kernel = kernel,
                               .args = std::move(args),
                               .part = part,
                               .waits = waits,
                               .bytes = 3000,
                               .flops = 4000,
                               .origin = std::move(origin)});
  }

  void AddProgram(std::string name, int rank) {
    const bool draft = name == "draft_mtp";
    plan.programs.push_back({.name = std::move(name), .target = "cpu", .rank = rank, .max_rows = 1});
    program_ = &plan.programs.back();
    program_->scratch_bytes = 256;
    program_->shared_bytes = 64;
    const int64_t tokens = plan.capacity.max_num_batched_tokens, logit_rows = plan.capacity.max_logit_rows;
    const int64_t row = kHidden * DTypeBytes(DType::kBF16);
    // Rank r takes rows [begin, end): every rank but the last takes 16; the experts' gate and up rows likewise.
    auto share = [&](int64_t size) {
      const int64_t unit = 16, last = plan.tp - 1;
      return Range{std::min(size, rank * unit), rank == last ? size : std::min(size, (rank + 1) * unit)};
    };
    const int32_t x = Arena("x", {-1, kHidden}, tokens * row);
    if (!draft) {
      const Range qkv = share(96);
      const int32_t table = AddPacked(embed_w_, rank, Layout::kTile16, {});
      AddStep(embed_, {WeightBuffer(table), x}, "embed", false);
      const int32_t mixed = Arena("layers.0.gdn.in", {-1, qkv.end - qkv.begin}, tokens * 96 * 2);
      AddStep(linear_, {x, WeightBuffer(AddPacked(qkv_w_, rank, Layout::kTile16, {{qkv}, {}})), mixed, -1},
              "layers.0.gdn.in", true);
      const int32_t state = Cache("layers.0.gdn");
      AddStep(decode_, {mixed, state, x}, "layers.0.gdn.mixer", true, Part::kShort);
      AddStep(scan_, {mixed, state, x}, "layers.0.gdn.mixer", false, Part::kLong);
      const Range gate = share(kInter);
      const Range up = {gate.begin + kInter, gate.end + kInter};
      AddStep(linear_, {x, WeightBuffer(AddPacked(gate_up_w_, rank, Layout::kTile16, {{}, {gate, up}, {}})), x},
              "layers.0", true);
      if (plan.tp > 1) AddStep(reduce_, {x, x}, "layers.0", true);
      AddStep(attention_, {x, Cache("layers.1.attn"), x}, "layers.1.attn.mixer", true);
      const int32_t norm = WeightBuffer(AddPacked(norm_w_, rank, Layout::kVector, {}));
      const int32_t logits =
          PortBuffer(BufferKind::kOutput, "logits", {-1, kVocab}, logit_rows * kVocab * 4, DType::kF32);
      const int32_t next = PortBuffer(BufferKind::kOutput, "next", {-1}, logit_rows * 4, DType::kI32);
      AddStep(head_, {x, norm, program_->steps[0].args[0], logits, next}, "lm_head", true, Part::kLogitRows);
      return;
    }
    const int32_t hidden = PortBuffer(BufferKind::kInput, "hidden", {-1, kHidden}, tokens * row, DType::kBF16);
    AddStep(linear_, {hidden, WeightBuffer(AddPacked(fc_w_, rank, Layout::kTile16, {})), x}, "mtp.fc", false);
    const int32_t out = PortBuffer(BufferKind::kOutput, "hidden_out", {-1, kHidden}, tokens * row, DType::kBF16);
    AddStep(attention_, {x, Cache("mtp.layers.0.attn"), out}, "mtp.layers.0.attn.mixer", true);
  }

  int32_t embed_ = 0, linear_ = 0, decode_ = 0, scan_ = 0, attention_ = 0, reduce_ = 0, head_ = 0;
  int32_t embed_w_ = 0, head_w_ = 0, norm_w_ = 0, qkv_w_ = 0, gate_up_w_ = 0, fc_w_ = 0;
  Program* program_ = nullptr;
};

inline Plan MakeTestPlan(int tp = 1) { return TestPlan(tp).plan; }

/// A kernel for another target that brings its own text; no step runs it.
inline void AddPtxKernel(Plan& plan) {
  plan.targets.push_back("sm_89");
  plan.kernels.push_back({.name = "add_rms_norm__c64_sm_89",
                          .family = "rms_norm",
                          .entry = "add_rms_norm",
                          .target = "sm_89",
                          .launch = {.threads = 64, .shared_bytes = 256, .grid = {{Count::kRows, 2, 3, 128}}},
                          .ptx = static_cast<int32_t>(plan.blobs.size())});
  plan.blobs.push_back({BlobKind::kPtx, {'.', 'v'}});
}

}  // namespace qwen::plan

#endif  // QWEN_TEST_RUNTIME_PLAN_TEST_PLAN_H_
