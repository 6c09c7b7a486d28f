// The plan as plain values: what the compiler's emitter fills, what the reader hands to the executor.
//
// The file (FORMAT.md, plan.fbs) is these structs and a few blobs. A plan holds no weights: `weights` names where a
// checkpoint keeps them, `packed` what every rank makes of them (contracts, sections 5, 6 and 8).
#ifndef QWEN_RUNTIME_PLAN_PLAN_H_
#define QWEN_RUNTIME_PLAN_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/dtype.h"

namespace qwen::plan {

inline constexpr uint32_t kPlanVersion = 2;
inline constexpr int kPageTokens = 32;   // tokens of one KV page
inline constexpr int kStateAlign = 64;   // chunk borders and reproducible snapshots count in multiples of it
inline constexpr int kAlignment = 64;    // of arena buffers, blobs, layers inside a page or a slot

struct Range {
  int64_t begin = 0, end = 0;
  bool operator==(const Range&) const = default;
};

// --- Weights ---------------------------------------------------------------------------------------------------------

enum class Group : uint8_t { kModel, kMtp, kDraft };
enum class Transform : uint8_t { kNone, kOnePlus, kToF32 };

/// A rectangle of a checkpoint tensor, seen as a `view_rows` x `view_cols` matrix, copied to (`dst_row`, `dst_col`) of
/// the weight, seen as a matrix of its last dimension's columns. With `{e}` in the name it stands for `e_count`
/// tensors, the e-th going to `dst_row + e * dst_row_step`. `{P}` in the name is the checkpoint's prefix.
struct Piece {
  std::string tensor;
  int64_t e_count = 1;
  std::vector<std::string> dtypes;  // safetensors names that are accepted: "BF16", "F32"
  std::vector<int64_t> shape;       // of the tensor in the file
  int64_t view_rows = 0, view_cols = 0, src_row = 0, src_col = 0, rows = 0, cols = 0;
  int64_t dst_row = 0, dst_col = 0, dst_row_step = 0;
};

struct Alternative {
  std::vector<Piece> pieces;
};

struct Weight {
  std::string name;    // canonical: "layers.3.gdn.qkv"
  std::string scheme;  // "" plain; else the checkpoint's quantised form
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // [channels], [out, in] or [experts, out, in]
  Group group = Group::kModel;
  Transform transform = Transform::kNone;
  std::vector<Alternative> alternatives;  // the first whose tensors all exist is taken
  int32_t alias = -1;                     // index of the weight whose bytes this one shares (tied heads)
};

enum class Layout : uint8_t {
  kRows,    // row-major, as in the file, in the weight's type
  kVector,  // f32, any rank, row-major
  kTile16,  // f32 [N/16][K][16]; bf16 [N/16][K/32][16 k-pairs][16 n][2]; a cube is `experts` of these; zero padding
};

struct Packed {
  int32_t weight = 0;
  int32_t rank = 0;
  Layout layout = Layout::kRows;
  std::vector<std::vector<Range>> slices;  // one list a dimension; an empty list takes all of it
  int64_t bytes = 0;                       // with tile padding
  int64_t net_bytes = 0;                   // without
};

// --- Kernels and programs ---------------------------------------------------------------------------------------------

/// One compile-time constant of a kernel. Integers and reals are kept apart by `kind`.
struct Field {
  enum class Kind : uint8_t { kInt, kReal, kInts, kReals };
  std::string name;
  Kind kind = Kind::kInt;
  std::vector<int64_t> ints;  // one for kInt
  std::vector<double> reals;  // one for kReal
  bool operator==(const Field&) const = default;
};
using Fields = std::vector<Field>;

/// Blocks of a launch in one dimension: ceil(rows * mul / div), at least 1, at most `max`; `rows` is what `count` names,
/// of the step or of the bucket it is captured for.
enum class Count : uint8_t { kOne, kRows, kSeqs, kShortSeqs, kLongSeqs };
struct GridDim {
  Count count = Count::kOne;
  int32_t mul = 1, div = 1, max = INT32_MAX;
  bool operator==(const GridDim&) const = default;
};

/// How a kernel made of PTX is launched. No threads: built in.
struct LaunchShape {
  int32_t threads = 0;       // of a block
  int32_t shared_bytes = 0;  // dynamic shared memory of a block
  GridDim grid[3];
  bool operator==(const LaunchShape&) const = default;
};

struct Kernel {
  std::string name;    // "linear__k1024_n3584": entry, two underscores, Spec; unique in the plan
  std::string family;  // contracts, section 7
  std::string entry;   // the catalogue's name
  std::string target;  // "cpu", "sm_89"
  Fields spec;
  LaunchShape launch;  // of a kernel made of PTX
  int32_t ptx = -1;    // its blob; -1: built in. The entry point in it has the kernel's name
};

enum class BufferKind : uint8_t { kArena, kCache, kWeight, kInput, kOutput };

struct Buffer {
  std::string name;
  BufferKind kind = BufferKind::kArena;
  int32_t index = -1;  // kWeight: into `packed`; kInput / kOutput: into the program's inputs / outputs
  int64_t offset = 0;  // kArena: in the arena; kCache: of the layer, in a page or in a slot
  int64_t bytes = 0;   // at the variant's capacity; kCache: of the layer's part of one page or slot
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // -1: tokens, sequences or logit rows
  bool operator==(const Buffer&) const = default;
};

enum class StepKind : uint8_t { kLaunch, kCollective };
enum class Part : uint8_t { kAll, kShort, kLong, kLogitRows };

struct Step {
  StepKind kind = StepKind::kLaunch;
  int32_t kernel = 0;
  std::vector<int32_t> args;  // buffer per argument of the kernel's contract; -1 absent
  Part part = Part::kAll;
  bool waits = false;  // one barrier in front
  int64_t bytes = 0, flops = 0;  // of one decode token: the floor that `inspect --steps` prints
  std::string origin;            // "layers.3.gdn.in"
};

struct Port {
  std::string name;   // "next", "logits", "hidden"
  int32_t buffer = 0;
};

struct Program {
  std::string name;  // step, verify, draft_mtp, ...
  std::string target;
  int32_t rank = 0;
  int32_t max_rows = 1;  // rows of a short sequence
  int64_t arena_bytes = 0;
  int64_t scratch_bytes = 0;  // per thread
  int64_t shared_bytes = 0;   // per rank, zero between steps
  std::vector<Buffer> buffers;
  std::vector<Port> inputs, outputs;  // beyond the batch
  std::vector<Step> steps;
};

// --- State ------------------------------------------------------------------------------------------------------------

/// One attention layer's part of a page: `[K, V][kv_heads][page_tokens][head_dim]` of `dtype`.
struct KvLayer {
  std::string name;
  int64_t offset = 0;
  int32_t kv_heads = 0, head_dim = 0;
  DType dtype = DType::kF32;
};

/// One delta-rule layer's part of a slot; the order inside is runtime/kernels/gdn/gdn.h's SlotLayout.
struct DeltaLayer {
  std::string name;
  int64_t offset = 0;
  int32_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, width = 0;
  DType dtype = DType::kF32;  // of the conv rows
};

/// What one rank keeps between steps (contracts, section 5).
struct State {
  int32_t max_rows = 1, fold_rows = 8, ring_rows = 9, conv_rows = 4;
  int64_t page_bytes = 0, slot_bytes = 0;
  int64_t base_bytes = 0, ring_bytes = 0, conv_bytes = 0;  // of a slot, for the memory statement
  std::vector<KvLayer> kv_layers;
  std::vector<DeltaLayer> delta_layers;
};

// --- The plan ---------------------------------------------------------------------------------------------------------

struct Model {
  std::string family;  // qwen3_5, ...
  DType dtype = DType::kF32;
  int64_t hidden = 0, layers = 0, vocab = 0, max_model_len = 0;
  std::vector<int64_t> eos_ids;
  std::vector<std::string> prefixes;  // tried for {P}: the one whose embed_tokens.weight exists
  std::string weights_dir;            // relative to the plan file
};

struct Capacity {
  int32_t max_num_seqs = 16, max_num_batched_tokens = 2048, max_rows = 1, max_logit_rows = 0;
};

enum class BlobKind : uint8_t { kIr, kConfig, kTokenizer, kTemplate, kGenerationConfig, kPtx };

struct Blob {
  BlobKind kind = BlobKind::kIr;
  std::vector<uint8_t> bytes;
};

struct Plan {
  std::string producer;
  uint64_t digest = 0;          // of everything but itself; set by the writer
  uint64_t weights_digest = 0;  // of `weights` and `packed`; set by the writer
  Model model;
  Capacity capacity;
  std::vector<std::string> targets;
  int32_t tp = 1;
  std::vector<Kernel> kernels;
  std::vector<Weight> weights;
  std::vector<Packed> packed;
  std::vector<Program> programs;  // every program of every rank
  std::vector<State> states;      // by rank
  std::vector<Blob> blobs;
};

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_PLAN_H_
