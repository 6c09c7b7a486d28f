// Damaged and hostile plan files: every one is refused with a message that says where, none is read past its end.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>

#include "runtime/base/file.h"
#include "runtime/plan/dump.h"
#include "runtime/plan/file_format.h"
#include "runtime/plan/plan.fbs.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/writer.h"
#include "test/runtime/plan/test_plan.h"

namespace qwen::plan {
namespace {

constexpr ReaderOptions kNoSums{.check_sums = false};

Status Read(const std::vector<uint8_t>& file, const ReaderOptions& options = {}) {
  StatusOr<Plan> plan = ParsePlan(file, "p", options);
  return plan.ok() ? Status() : plan.status();
}

TEST(PlanCorrupt, EveryFlippedBitIsNoticed) {
  std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
  ASSERT_TRUE(Read(file).ok()) << Read(file).message();
  for (size_t at = 0; at < file.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      file[at] ^= 1 << bit;
      const Status status = Read(file);
      ASSERT_FALSE(status.ok()) << "byte " << at << " bit " << bit;
      // Bytes 8 to 11 are the version.
      const bool version = at >= 8 && at < 12;
      ASSERT_EQ(status.code(), version ? StatusCode::kUnimplemented : StatusCode::kDataLoss)
          << "byte " << at << ": " << status.message();
      file[at] ^= 1 << bit;
    }
}

TEST(PlanCorrupt, EveryTruncationIsNoticed) {
  const std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
  for (size_t size = 0; size < file.size(); ++size) {
    // A copy, so that a sanitizer sees a read behind it.
    const Status status = Read({file.begin(), file.begin() + size});
    ASSERT_EQ(status.code(), StatusCode::kDataLoss) << size;
  }
  std::vector<uint8_t> longer = file;
  longer.push_back(0);
  EXPECT_EQ(Read(longer).code(), StatusCode::kDataLoss);
}

// As an attacker would, with checksums that are right: whatever passes is a plan that can be used.
TEST(PlanCorrupt, SpoiledRootsAreRefusedOrWhole) {
  const std::vector<uint8_t> whole = EncodeUnchecked(MakeTestPlan());
  FileHeader header;
  std::memcpy(&header, whole.data(), sizeof(header));
  int passed = 0;
  for (size_t at = kRootOffset; at < kRootOffset + header.root_bytes; ++at)
    for (uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::vector<uint8_t> file = whole;
      if (file[at] == value) continue;
      file[at] = value;
      StatusOr<Plan> plan = ParsePlan(file, "p", kNoSums);
      if (!plan.ok()) continue;
      ++passed;
      ASSERT_TRUE(SerializePlan(*plan).ok()) << at;
      if (passed % 50 == 0) {
        ASSERT_FALSE(DumpJson(*plan).empty() || DumpMemory(*plan).empty());
      }
    }
  EXPECT_GT(passed, 0);  // names, figures and so on
}

TEST(PlanCorrupt, OtherVersion) {
  std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
  file[8] = 3;
  const Status status = Read(file);
  EXPECT_EQ(status.ExitCode(), 4);
  EXPECT_EQ(status.message(), "p: is a plan of version 3, this build reads version 2");
  EXPECT_FALSE(status.hint().empty());
}

TEST(PlanCorrupt, Headers) {
  const std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
  auto with = [&](const std::function<void(FileHeader&)>& change) {
    std::vector<uint8_t> spoiled = file;
    FileHeader header;
    std::memcpy(&header, spoiled.data(), sizeof(header));
    change(header);
    std::memcpy(spoiled.data(), &header, sizeof(header));
    const Status status = Read(spoiled, kNoSums);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    return status.message();
  };
  const std::string size = std::to_string(file.size());
  EXPECT_EQ(with([](FileHeader& h) { h.flags = 5; }), "p, section header: flags are 0x5, version 2 has none");
  EXPECT_EQ(with([](FileHeader& h) { h.root_offset = 128; }), "p, section header: the root is at byte 128, want 64");
  EXPECT_EQ(with([](FileHeader& h) { h.file_bytes = uint64_t{1} << 63; }),
            "p, section header: the file has " + size + " bytes, want 9223372036854775808");
  for (uint64_t bytes :
       {uint64_t{file.size()}, uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{63}})
    EXPECT_EQ(with([&](FileHeader& h) { h.root_bytes = bytes; }),
              "p, section header: the root has " + std::to_string(bytes) + " bytes, but the file has " + size +
                  " and the limit is 1073741824");
  for (uint64_t bytes : {0, 1, 7, 8, 64})
    EXPECT_EQ(with([&](FileHeader& h) { h.root_bytes = bytes; }).rfind("p, section root: ", 0), 0u) << bytes;
  EXPECT_EQ(Read({'Q', 'W', 'E', 'N', 'P', 'L', 'A', 'N'}).message(),
            "p, section header: the file has 8 bytes, a header 48");
  EXPECT_EQ(Read({}).message(), "p: is not a plan file: it does not begin with QWENPLAN");
}

TEST(PlanCorrupt, Blobs) {
  const std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
  auto with = [&](int blob, const std::function<void(fb::Blob&)>& change) {
    std::vector<uint8_t> spoiled = file;
    auto* blobs = fb::GetMutablePlan(spoiled.data() + kRootOffset)->mutable_blobs();
    change(*const_cast<fb::Blob*>(blobs->Get(blob)));
    return Read(spoiled, kNoSums).message();
  };
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  const uint64_t first = AlignFile(kRootOffset + header.root_bytes);
  const std::string at = std::to_string(first), size = std::to_string(file.size());
  for (uint64_t offset : {uint64_t{0}, first + 64, uint64_t{1} << 32, ~uint64_t{0}})
    EXPECT_EQ(with(0, [&](fb::Blob& b) { b.mutate_offset(offset); }),
              "p, section blobs: blob 0 is at byte " + std::to_string(offset) + ", want " + at);
  for (uint64_t bytes : {uint64_t{1000}, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - first})
    EXPECT_EQ(with(0, [&](fb::Blob& b) { b.mutate_bytes(bytes); }), "p, section blobs: blob 0 has " +
                                                                        std::to_string(bytes) + " bytes at byte " + at +
                                                                        ", but the file has " + size);
  EXPECT_EQ(
      with(1, [&](fb::Blob& b) { b.mutate_bytes(1); }),
      "p, section blobs: the last one ends at byte " + std::to_string(file.size() - 1) + ", but the file has " + size);
  EXPECT_EQ(with(1, [&](fb::Blob& b) { b.mutate_kind(fb::BlobKind(9)); }),
            "p, section blobs: a kind is 9, the last one known is 5");
  std::vector<uint8_t> spoiled = file;
  spoiled[file.size() - 2] ^= 1;
  EXPECT_EQ(Read(spoiled).message().rfind("p, section blobs: blob 1 has checksum ", 0), 0u);
}

struct Hostile {
  std::string message;  // without "p, section "
  std::function<void(Plan&)> change;
};

// Plans with right sums and wrong values, one a check. Program 0 is `step`, 1 is `draft_mtp`.
TEST(PlanCorrupt, HostileValues) {
  constexpr int64_t kInt64Max = std::numeric_limits<int64_t>::max();
  constexpr int32_t kInt32Max = std::numeric_limits<int32_t>::max();
  const std::vector<Hostile> cases = {
      // What the issue of a bad index looks like; each list once.
      {"steps: program step, rank 0: step 1 reads buffer 97, but the program has 10",
       [](Plan& p) { p.programs[0].steps[1].args[0] = 97; }},
      {"steps: program step, rank 0: step 1 reads buffer -2, but the program has 10",
       [](Plan& p) { p.programs[0].steps[1].args[0] = -2; }},
      {"steps: program step, rank 0: step 0 runs kernel 7, but the plan has 7",
       [](Plan& p) { p.programs[0].steps[0].kernel = 7; }},
      {"steps: program step, rank 0: step 0 runs kernel 2147483647, but the plan has 7",
       [](Plan& p) { p.programs[0].steps[0].kernel = kInt32Max; }},
      {"steps: bytes of a step is -1, want 0 to 9223372036854775807",
       [](Plan& p) { p.programs[0].steps[0].bytes = -1; }},
      {"steps: flops of a step is -9223372036854775808, want 0 to 9223372036854775807",
       [](Plan& p) { p.programs[0].steps[0].flops = std::numeric_limits<int64_t>::min(); }},
      {"steps: a kind is 2, the last one known is 1", [](Plan& p) { p.programs[0].steps[0].kind = StepKind(2); }},
      {"steps: a part is 4, the last one known is 3", [](Plan& p) { p.programs[0].steps[0].part = Part(4); }},
      {"steps: the name of an origin is not printable: \"\\u001b[2J\"",
       [](Plan& p) { p.programs[0].steps[0].origin = "\x1b[2J"; }},
      // Buffers.
      {"buffers: a kind is 5, the last one known is 4", [](Plan& p) { p.programs[0].buffers[0].kind = BufferKind(5); }},
      {"buffers: a type is 8, the last one known is 7", [](Plan& p) { p.programs[0].buffers[0].dtype = DType(8); }},
      {"buffers: program step, rank 0: buffer 0 (x): offset is -64, want 0 to 281474976710656",
       [](Plan& p) { p.programs[0].buffers[0].offset = -64; }},
      {"buffers: program step, rank 0: buffer 0 (x): bytes is 9223372036854775807, want 0 to 281474976710656",
       [](Plan& p) { p.programs[0].buffers[0].bytes = kInt64Max; }},
      {"buffers: program step, rank 0: buffer 0 (x) is at byte 32, not a multiple of 64",
       [](Plan& p) { p.programs[0].buffers[0].offset = 32; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 1024 bytes at byte 3136, but the arena has 4096",
       [](Plan& p) { p.programs[0].buffers[0].offset = 3136; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 1024 bytes at byte 281474976710656, but the arena has 4096",
       [](Plan& p) { p.programs[0].buffers[0].offset = kMaxBytes; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 127 bytes, too few for bf16 [-1, 32]",
       [](Plan& p) { p.programs[0].buffers[0].bytes = 127; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 1024 bytes, too few for bf16 [-1, 4294967296]",
       [](Plan& p) { p.programs[0].buffers[0].shape[1] = int64_t{1} << 32; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 1024 bytes, too few for bf16 [9223372036854775807, 2]",
       [](Plan& p) { p.programs[0].buffers[0].shape = {kInt64Max, 2}; }},
      {"buffers: program step, rank 0: buffer 0 (x) has a dimension of -2",
       [](Plan& p) { p.programs[0].buffers[0].shape[1] = -2; }},
      {"buffers: program step, rank 0: buffer 0 (x) has 9 dimensions, at most 8",
       [](Plan& p) { p.programs[0].buffers[0].shape.assign(9, 1); }},
      {"buffers: program step, rank 0: buffer 0 (x) has index 0, want -1",
       [](Plan& p) { p.programs[0].buffers[0].index = 0; }},
      {"buffers: program step, rank 0: buffer 1 (embed) is packed weight 5, but the plan has 5",
       [](Plan& p) { p.programs[0].buffers[1].index = 5; }},
      {"buffers: program step, rank 0: buffer 1 (embed) is packed weight -1, but the plan has 5",
       [](Plan& p) { p.programs[0].buffers[1].index = -1; }},
      {"buffers: program step, rank 0: buffer 1 (embed) has 5119 bytes, but the weight has 5120",
       [](Plan& p) { p.programs[0].buffers[1].bytes = 5119; }},
      {"buffers: program step, rank 0: buffer 1 (embed) has offset 64, want 0",
       [](Plan& p) { p.programs[0].buffers[1].offset = 64; }},
      {"buffers: program step, rank 0: buffer 4 (layers.9.gdn) names no layer of the rank's state",
       [](Plan& p) { p.programs[0].buffers[4].name = "layers.9.gdn"; }},
      {"buffers: program step, rank 0: buffer 4 (layers.0.gdn) has 4736 bytes at byte 64, but the layer has 4736 at 0",
       [](Plan& p) { p.programs[0].buffers[4].offset = 64; }},
      {"buffers: program step, rank 0: buffer 8 (logits) is port 2, but the program has 2",
       [](Plan& p) { p.programs[0].buffers[8].index = 2; }},
      {"buffers: program step, rank 0: buffer 8 (logits) is port 1, but that is buffer 9",
       [](Plan& p) { p.programs[0].buffers[8].index = 1; }},
      // Programs.
      {"programs: program step, rank 0: output more is buffer 10, but the program has 10",
       [](Plan& p) { p.programs[0].outputs.push_back({"more", 10}); }},
      {"programs: program step, rank 0: output more is buffer -1, but the program has 10",
       [](Plan& p) { p.programs[0].outputs.push_back({"more", -1}); }},
      {"programs: program step, rank 0: output 0 is there twice",
       [](Plan& p) { p.programs[0].outputs[0].name = p.programs[0].outputs[1].name = "0"; }},
      {"programs: program draft_mtp, rank 0: input hidden is buffer 0, which is not that",
       [](Plan& p) { p.programs[1].inputs[0].buffer = 0, p.programs[1].buffers[1] = p.programs[1].buffers[0]; }},
      {"programs: program step, rank 0: a size is -1, want 0 to 281474976710656",
       [](Plan& p) { p.programs[0].scratch_bytes = -1; }},
      {"programs: program step, rank 0: a size is 9223372036854775807, want 0 to 281474976710656",
       [](Plan& p) { p.programs[0].arena_bytes = kInt64Max; }},
      {"programs: program step, rank 0: max_rows is 3, want 1 to 2", [](Plan& p) { p.programs[0].max_rows = 3; }},
      {"programs: step is of rank 1, but the plan has 1", [](Plan& p) { p.programs[0].rank = 1; }},
      {"programs: step is of rank -1, but the plan has 1", [](Plan& p) { p.programs[0].rank = -1; }},
      {"programs: step is for target \"sm_89\", which the plan does not have",
       [](Plan& p) { p.programs[0].target = "sm_89"; }},
      {"programs: step of rank 0 is there twice for cpu", [](Plan& p) { p.programs[1] = p.programs[0]; }},
      // Kernels.
      {"kernels: embed_rows__test is there twice", [](Plan& p) { p.kernels[1].name = p.kernels[0].name; }},
      {"kernels: a kernel has no name", [](Plan& p) { p.kernels[1].name.clear(); }},
      {"kernels: the name of an entry has 1025 bytes, at most 1024",
       [](Plan& p) { p.kernels[1].entry.assign(1025, 'x'); }},
      {"kernels: linear__test is for target \"gpu\", which the plan does not have",
       [](Plan& p) { p.kernels[1].target = "gpu"; }},
      {"kernels: field k of linear__test has 2 integers and 0 reals, which is not its kind",
       [](Plan& p) { p.kernels[1].spec[0].ints.push_back(1); }},
      {"kernels: field k of linear__test has 1 integers and 1 reals, which is not its kind",
       [](Plan& p) { p.kernels[1].spec[0].reals.push_back(1); }},
      {"kernels: field eps of linear__test is not finite", [](Plan& p) { p.kernels[1].spec[2].reals[0] = NAN; }},
      {"kernels: a field's kind is 4, the last one known is 3",
       [](Plan& p) { p.kernels[1].spec[0].kind = Field::Kind(4); }},
      // Weights and their sources.
      {"weights: embed is there twice", [](Plan& p) { p.weights[2].name = "embed"; }},
      {"weights: lm_head is an alias of weight 6, but the plan has 6", [](Plan& p) { p.weights[1].alias = 6; }},
      {"weights: lm_head is an alias of weight -2, but the plan has 6", [](Plan& p) { p.weights[1].alias = -2; }},
      {"weights: lm_head is an alias of lm_head, which is an alias itself", [](Plan& p) { p.weights[1].alias = 1; }},
      {"weights: lm_head is an alias of final_norm, but not of its shape, type and group",
       [](Plan& p) { p.weights[1].alias = 2; }},
      {"weights: embed has 0 dimensions, want 1 to 8", [](Plan& p) { p.weights[0].shape.clear(); }},
      {"weights: embed has the shape [4294967296, 4294967296]",
       [](Plan& p) { p.weights[0].shape = {int64_t{1} << 32, int64_t{1} << 32}; }},
      {"weights: embed has the shape [0, 32]", [](Plan& p) { p.weights[0].shape = {0, 32}; }},
      {"weights: embed has the shape [-80, -32]", [](Plan& p) { p.weights[0].shape = {-80, -32}; }},
      {"weights: embed has no alternative", [](Plan& p) { p.weights[0].alternatives.clear(); }},
      {"weights: embed has an alternative without pieces",
       [](Plan& p) { p.weights[0].alternatives[0].pieces.clear(); }},
      {"weights: embed: an alternative fills 5120 elements of 2560",
       [](Plan& p) {
         auto& pieces = p.weights[0].alternatives[0].pieces;
         pieces.push_back(pieces[0]);
       }},
      {"weights: embed: an alternative fills 2528 elements of 2560",
       [](Plan& p) { p.weights[0].alternatives[0].pieces[0].rows = 79; }},
      {"weights: a group is 3, the last one known is 2", [](Plan& p) { p.weights[0].group = Group(3); }},
      {"weights: a transform is 255, the last one known is 2",
       [](Plan& p) { p.weights[0].transform = Transform(255); }},
      {"weights: a piece's type is 255, the last one known is 15",
       [](Plan& p) { p.weights[0].alternatives[0].pieces[0].dtypes = {"Q4_K"}; }},
      {"weights: final_norm, tensor {P}norm.weight: type \"U64\" is unknown",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].dtypes = {"U64"}; }},
      {"weights: final_norm, tensor {P}norm.weight: no type is accepted",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].dtypes.clear(); }},
      {"weights: final_norm, tensor {P}norm.weight: stands for 2 tensors, but has no {e}",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].e_count = 2; }},
      {"weights: final_norm, tensor {P}norm.weight: e_count is 4611686018427387904, want 1 to 65536",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].e_count = int64_t{1} << 62; }},
      {"weights: final_norm, tensor {P}norm.weight: a row or column is 9223372036854775807, want 0 to 281474976710656",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].src_row = kInt64Max; }},
      {"weights: final_norm, tensor {P}norm.weight: a row or column is -1, want 0 to 281474976710656",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].dst_col = -1; }},
      {"weights: final_norm, tensor {P}norm.weight: is seen as 1 x 33, which is not its shape",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].view_cols = 33; }},
      {"weights: final_norm, tensor {P}norm.weight: takes rows [0, 1) and columns [1, 33) of 1 x 32",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].src_col = 1; }},
      {"weights: final_norm, tensor {P}norm.weight: goes to rows [1, 2) x 1 every 0 and columns [0, 32) of 1 x 32",
       [](Plan& p) { p.weights[2].alternatives[0].pieces[0].dst_row = 1; }},
      {"weights: layers.0.moe.gate_up, tensor {P}layers.0.mlp.experts.{e}.gate_proj.weight: goes to rows [0, 16) x 2 "
       "every 281474976710656 and columns [0, 32) of 64 x 32",
       [](Plan& p) { p.weights[4].alternatives[1].pieces[0].dst_row_step = kMaxBytes; }},
      // Packed weights.
      {"packed: entry 0 is of weight 6, but the plan has 6", [](Plan& p) { p.packed[0].weight = 6; }},
      {"packed: entry 0 is of rank 1, but the plan has 1", [](Plan& p) { p.packed[0].rank = 1; }},
      {"packed: a layout is 3, the last one known is 2", [](Plan& p) { p.packed[0].layout = Layout(3); }},
      {"packed: entry 0 (embed) has 5121 bytes, 5120 net; want 5120 and 5120", [](Plan& p) { ++p.packed[0].bytes; }},
      {"packed: entry 0 (embed) has 5120 bytes, -1 net; want 5120 and 5120",
       [](Plan& p) { p.packed[0].net_bytes = -1; }},
      {"packed: entry 0: embed has 2 dimensions, but 1 lists of slices", [](Plan& p) { p.packed[0].slices = {{}}; }},
      {"packed: entry 0: embed slices [0, 81) of dimension 0 after 0, which has 80 rows",
       [](Plan& p) { p.packed[0].slices = {{{0, 81}}, {}}; }},
      {"packed: entry 0: embed slices [3, 2) of dimension 0 after 0, which has 80 rows",
       [](Plan& p) { p.packed[0].slices = {{{3, 2}}, {}}; }},
      {"packed: entry 0: embed slices [-1, 2) of dimension 0 after 0, which has 80 rows",
       [](Plan& p) { p.packed[0].slices = {{{-1, 2}}, {}}; }},
      {"packed: entry 0: embed slices [1, 3) of dimension 0 after 2, which has 80 rows",
       [](Plan& p) { p.packed[0].slices = {{{0, 2}, {1, 3}}, {}}; }},
      {"packed: entry 0: embed slices [0, 9223372036854775807) of dimension 0 after 0, which has 80 rows",
       [](Plan& p) { p.packed[0].slices = {{{0, kInt64Max}}, {}}; }},
      {"packed: entry 0 has 65 slices of a dimension, at most 64",
       [](Plan& p) { p.packed[0].slices = {std::vector<Range>(65), {}}; }},
      {"packed: entry 3: final_norm is a vector, tiles need a matrix",
       [](Plan& p) { p.packed[3].layout = Layout::kTile16; }},
      // State.
      {"state: there are 0 states, but 1 ranks", [](Plan& p) { p.states.clear(); }},
      {"state: rank 0 has 2 rows, 8 to fold, 11 in the ring, 5 in the convolution; want 2, 8, 10, 5",
       [](Plan& p) { p.states[0].ring_rows = 11; }},
      {"state: rank 0 has 1 rows, 8 to fold, 10 in the ring, 5 in the convolution; want 2, 8, 10, 5",
       [](Plan& p) { p.states[0].max_rows = 1; }},
      {"state: rank 0 has 2 rows, 8 to fold, 10 in the ring, 2147483647 in the convolution; want 2, 8, 10, 5",
       [](Plan& p) { p.states[0].conv_rows = kInt32Max; }},
      {"state: a size of rank 0 is -1, want 0 to 281474976710656", [](Plan& p) { p.states[0].slot_bytes = -1; }},
      {"state: rank 0 has pages of 4095 bytes and slots of 4736, want multiples of 64",
       [](Plan& p) { p.states[0].page_bytes = 4095; }},
      {"state: rank 0 has slots of 4736 bytes, but parts of 2048, 2048 and 704",
       [](Plan& p) { p.states[0].conv_bytes += 64; }},
      {"state: layer layers.1.attn of rank 0 has 2048 bytes at byte 64; the one before ends at 0, a page has 2048",
       [](Plan& p) { p.states[0].kv_layers[0].offset = 64, p.states[0].page_bytes = 2048; }},
      {"state: layer mtp.layers.0.attn of rank 0 has 2048 bytes at byte 1984; the one before ends at 2048, a page has "
       "4096",
       [](Plan& p) { p.states[0].kv_layers[1].offset = 1984; }},
      {"state: layer layers.1.attn of rank 0 has 2048 bytes at byte 1; the one before ends at 0, a page has 4096",
       [](Plan& p) { p.states[0].kv_layers[0].offset = 1; }},
      {"state: layer layers.1.attn of rank 0 has 2048 bytes at byte 9223372036854775744; the one before ends at 0, a "
       "page has 4096",
       [](Plan& p) { p.states[0].kv_layers[0].offset = kInt64Max - 63; }},
      {"state: kv_heads is 2147483647, want 0 to 65536",
       [](Plan& p) { p.states[0].kv_layers[0].kv_heads = kInt32Max; }},
      {"state: head_dim is 0, want 1 to 65536", [](Plan& p) { p.states[0].kv_layers[0].head_dim = 0; }},
      {"state: value_heads is -1, want 0 to 65536", [](Plan& p) { p.states[0].delta_layers[0].value_heads = -1; }},
      {"state: layer layers.0.gdn of rank 0 has 2 value heads, not a multiple of its 3 key heads",
       [](Plan& p) { p.states[0].delta_layers[0].key_heads = 3; }},
      {"state: layer layers.0.gdn of rank 0 has 2 value heads, not a multiple of its 0 key heads",
       [](Plan& p) { p.states[0].delta_layers[0].key_heads = 0; }},
      {"state: width is 5, want 1 to 4", [](Plan& p) { p.states[0].delta_layers[0].width = 5; }},
      {"state: rank 0 has layer layers.1.attn twice", [](Plan& p) { p.states[0].kv_layers[1].name = "layers.1.attn"; }},
      {"state: a type is 99, the last one known is 7", [](Plan& p) { p.states[0].kv_layers[1].dtype = DType(99); }},
      // The rest.
      {"model: its type is f16, want f32 or bf16", [](Plan& p) { p.model.dtype = DType::kF16; }},
      {"model: hidden is 0, want 1 to 2147483647", [](Plan& p) { p.model.hidden = 0; }},
      {"model: max_model_len is 2147483648, want 1 to 2147483647",
       [](Plan& p) { p.model.max_model_len = int64_t{1} << 31; }},
      {"model: an eos id is -1, want 0 to 2147483647", [](Plan& p) { p.model.eos_ids = {-1}; }},
      {"model: weights_dir is absolute, want relative to the plan", [](Plan& p) { p.model.weights_dir = "/w"; }},
      {"capacity: max_num_seqs is 2147483647, want 1 to 16777216",
       [](Plan& p) { p.capacity.max_num_seqs = kInt32Max; }},
      {"capacity: max_rows is 0, want 1 to 1024", [](Plan& p) { p.capacity.max_rows = 0; }},
      {"capacity: max_logit_rows is 17, want 0 to 16", [](Plan& p) { p.capacity.max_logit_rows = 17; }},
      {"plan: tp is 9, want 1 to 8", [](Plan& p) { p.tp = 9; }},
      {"plan: tp is 0, want 1 to 8", [](Plan& p) { p.tp = 0; }},
      {"plan: it has no target", [](Plan& p) { p.targets.clear(); }},
      {"plan: target cpu is there twice", [](Plan& p) { p.targets.push_back("cpu"); }},
      {"blobs: kind 0 is there twice", [](Plan& p) { p.blobs[1].kind = BlobKind::kIr; }},
  };
  for (const Hostile& hostile : cases) {
    Plan plan = MakeTestPlan();
    hostile.change(plan);
    const Status status = Read(EncodeUnchecked(plan));
    EXPECT_EQ(status.message(), "p, section " + hostile.message);
    EXPECT_EQ(status.ExitCode(), 3) << hostile.message;
    // The writer's caller has our enums: a value outside of them is never looked at.
    if (hostile.message.find("the last one known") == std::string::npos) {
      EXPECT_EQ(SerializePlan(plan).status().code(), StatusCode::kInternal) << hostile.message;
    }
  }
}

TEST(PlanCorrupt, PtxBelongsToOneKernel) {
  const Hostile cases[] = {
      {"kernels: a blob of PTX is 3, want 0 to 2", [](Plan& p) { p.kernels.back().ptx = 3; }},
      {"kernels: a blob of PTX is -2, want 0 to 2", [](Plan& p) { p.kernels.back().ptx = -2; }},
      {"kernels: add_rms_norm__c64_sm_89 has blob 1 for PTX, which is of kind 1",
       [](Plan& p) { p.kernels.back().ptx = 1; }},
      {"kernels: add_rms_norm__c64_sm_89 is built in, but says how it is launched",
       [](Plan& p) { p.kernels.back().ptx = -1; }},
      {"kernels: again shares blob 2 with another",
       [](Plan& p) {
         p.kernels.push_back(p.kernels.back());
         p.kernels.back().name = "again";
       }},
      {"blobs: blob 2 is PTX of no kernel", [](Plan& p) { p.kernels.pop_back(); }},
      {"kernels: threads of a block is 1025, want 1 to 1024", [](Plan& p) { p.kernels.back().launch.threads = 1025; }},
      {"kernels: shared_bytes of a block is -1, want 0 to 1048576",
       [](Plan& p) { p.kernels.back().launch.shared_bytes = -1; }},
      {"kernels: a number of a grid is 0, want 1 to 2147483647",
       [](Plan& p) { p.kernels.back().launch.grid[2].div = 0; }},
      {"kernels: what a grid counts is 9, the last one known is 4",
       [](Plan& p) { p.kernels.back().launch.grid[0].count = Count(9); }},
  };
  for (const Hostile& hostile : cases) {
    Plan plan = MakeTestPlan();
    AddPtxKernel(plan);
    hostile.change(plan);
    const Status status = Read(EncodeUnchecked(plan));
    EXPECT_EQ(status.message(), "p, section " + hostile.message);
    EXPECT_EQ(status.ExitCode(), 3) << hostile.message;
  }
}

TEST(PlanCorrupt, RanksMustMatch) {
  auto message = [](const std::function<void(Plan&)>& change) {
    Plan plan = MakeTestPlan(2);
    change(plan);
    return Read(EncodeUnchecked(plan)).message();
  };
  EXPECT_EQ(message([](Plan&) {}), "");
  EXPECT_EQ(message([](Plan& p) { p.programs.pop_back(); }),
            "p, section programs: draft_mtp for cpu has no rank 1, but the plan has 2");
  EXPECT_EQ(message([](Plan& p) { p.states.pop_back(); }), "p, section state: there are 1 states, but 2 ranks");
  // Dropping one collective would let the other rank wait for ever.
  EXPECT_EQ(message([](Plan& p) { p.programs[2].steps.erase(p.programs[2].steps.begin() + 5); }),
            "p, section steps: program step: rank 1 has 0 collectives, which are not the 1 of rank 0");
  EXPECT_EQ(message([](Plan& p) { p.programs[2].buffers[1].index = p.programs[0].buffers[1].index; }),
            "p, section buffers: program step, rank 1: buffer 1 (embed) is a weight of rank 0");
}

TEST(PlanCorrupt, SchemeIsForAnotherBuild) {
  Plan plan = MakeTestPlan();
  plan.weights[0].scheme = "int4_g128";
  const Status status = Read(EncodeUnchecked(plan));
  EXPECT_EQ(status.ExitCode(), 4);
  EXPECT_EQ(status.message(), "p, section weights: embed has scheme \"int4_g128\", this build has plain weights only");
}

// --- What the writer cannot make
// --------------------------------------------------------------------------------------

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

std::vector<uint8_t> Wrap(FlatBufferBuilder& b) {
  FileHeader header{.version = kPlanVersion,
                    .flags = 0,
                    .file_bytes = kRootOffset + b.GetSize(),
                    .root_offset = kRootOffset,
                    .root_bytes = b.GetSize(),
                    .root_xxh3 = 0};
  std::memcpy(header.magic, kMagic, sizeof(header.magic));
  std::vector<uint8_t> file(header.file_bytes);
  std::memcpy(file.data(), &header, sizeof(header));
  std::memcpy(file.data() + kRootOffset, b.GetBufferPointer(), b.GetSize());
  return file;
}

/// A root whose kernels or weights are given, everything else empty.
std::vector<uint8_t> RootWith(FlatBufferBuilder& b, const std::vector<Offset<fb::Kernel>>& kernels,
                              const std::vector<Offset<fb::Weight>>& weights) {
  auto text = b.CreateString("x");
  auto model = fb::CreateModel(b, text, fb::DType::F32, 1, 1, 1, 1, b.CreateVector(std::vector<int64_t>()),
                               b.CreateVector(std::vector<Offset<flatbuffers::String>>()), text);
  auto capacity = fb::CreateCapacity(b, 1, 1, 1, 1);
  auto targets = b.CreateVector(std::vector<Offset<flatbuffers::String>>());
  auto packed = b.CreateVector(std::vector<Offset<fb::Packed>>());
  auto programs = b.CreateVector(std::vector<Offset<fb::Program>>());
  auto states = b.CreateVector(std::vector<Offset<fb::State>>());
  auto blobs = b.CreateVectorOfStructs(std::vector<fb::Blob>());
  auto kernel_list = b.CreateVector(kernels);
  auto weight_list = b.CreateVector(weights);
  b.Finish(fb::CreatePlan(b, text, 0, 0, model, capacity, targets, 1, kernel_list, weight_list, packed, programs,
                          states, blobs));
  return Wrap(b);
}

// A megabyte of text that ten thousand kernels share would unfold to ten gigabytes.
TEST(PlanCorrupt, SharedStringsDoNotUnfold) {
  FlatBufferBuilder b;
  auto text = b.CreateString(std::string(1 << 20, 'x'));
  auto spec = b.CreateVector(std::vector<Offset<fb::Field>>());
  auto grid = b.CreateVectorOfStructs(std::vector<fb::GridDim>(3));
  std::vector<Offset<fb::Kernel>> kernels;
  for (int i = 0; i < 10000; ++i)
    kernels.push_back(fb::CreateKernel(b, text, text, text, text, spec, -1, 0, 0, grid));
  const std::vector<uint8_t> file = RootWith(b, kernels, {});
  EXPECT_EQ(Read(file, kNoSums).message(), "p, section root: its strings and lists unfold to more than its " +
                                               std::to_string(file.size() - kRootOffset) + " bytes");
}

// Lists of lists of the same tables: 2000 x 2000 x 2000 pieces in a few kilobytes.
TEST(PlanCorrupt, SharedTablesDoNotUnfold) {
  FlatBufferBuilder b;
  auto text = b.CreateString("t");
  auto none = b.CreateVector(std::vector<int64_t>());
  auto types = b.CreateVector(std::vector<fb::TensorType>{fb::TensorType::F32});
  auto piece = fb::CreatePiece(b, text, 1, types, none);
  auto pieces = b.CreateVector(std::vector<Offset<fb::Piece>>(2000, piece));
  auto alternative = fb::CreateAlternative(b, pieces);
  auto alternatives = b.CreateVector(std::vector<Offset<fb::Alternative>>(2000, alternative));
  auto weight =
      fb::CreateWeight(b, text, text, fb::DType::F32, none, fb::Group::Model, fb::Transform::None, alternatives);
  const std::vector<uint8_t> file = RootWith(b, {}, std::vector<Offset<fb::Weight>>(2000, weight));
  EXPECT_EQ(Read(file, kNoSums).message(), "p, section root: its offsets and sizes do not fit together");
}

TEST(PlanCorrupt, MissingFieldIsDamage) {
  FlatBufferBuilder b;
  auto start = b.StartTable();
  b.Finish(Offset<fb::Plan>(b.EndTable(start)));
  EXPECT_EQ(Read(Wrap(b), kNoSums).message(), "p, section root: its offsets and sizes do not fit together");
}

TEST(PlanCorrupt, RootOfNothing) {
  for (size_t size : {8, 16, 64, 1000}) {
    for (int fill : {0x00, 0xff, 0x04}) {
      std::vector<uint8_t> file = EncodeUnchecked(MakeTestPlan());
      file.resize(kRootOffset + size);
      std::fill(file.begin() + kRootOffset, file.end(), static_cast<uint8_t>(fill));
      FileHeader header;
      std::memcpy(&header, file.data(), sizeof(header));
      header.file_bytes = file.size();
      header.root_bytes = size;
      std::memcpy(file.data(), &header, sizeof(header));
      EXPECT_EQ(Read(file, kNoSums).message(), "p, section root: its offsets and sizes do not fit together");
    }
  }
}

// Where the fuzzer starts. QWEN_UPDATE=1 writes them anew.
TEST(PlanCorrupt, FuzzerSeedsAreCurrent) {
  for (int tp : {1, 3}) {
    const std::vector<uint8_t> want = EncodeUnchecked(MakeTestPlan(tp));
    const std::string_view bytes(reinterpret_cast<const char*>(want.data()), want.size());
    const std::string path = QWEN_SOURCE_DIR "/test/fuzz/corpus/fuzz_plan/tp" + std::to_string(tp) + ".plan";
    if (getenv("QWEN_UPDATE")) {
      ASSERT_TRUE(WriteFileAtomic(path, bytes, true).ok());
    }
    StatusOr<std::string> seed = ReadFile(path, 1 << 20);
    ASSERT_TRUE(seed.ok()) << seed.status().message();
    EXPECT_TRUE(*seed == bytes) << "QWEN_UPDATE=1 writes " << path << " anew";
  }
}

}  // namespace
}  // namespace qwen::plan
