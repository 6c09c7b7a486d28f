// Shuffles, votes, reductions, atomics, barriers with counts, mbarriers: what threads tell one another.
#include <cstring>

#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

/// One block of 64 threads stores %r23 of each; %r20 is 7 * lane + 3, %r21 the lane, %r22 the warp.
struct Row {
  const char* name;
  const char* ptx;
  uint32_t (*expected)(uint32_t lane, uint32_t warp);
};
uint32_t Value(uint32_t lane) { return 7 * lane + 3; }

const Row kRows[] = {
    {"shfl_up", "shfl.sync.up.b32 %r23|%p1, %r20, 3, 0, -1; @!%p1 add.u32 %r23, %r23, 1000;",
     [](uint32_t l, uint32_t) { return l < 3 ? Value(l) + 1000 : Value(l - 3); }},
    {"shfl_down_8", "shfl.sync.down.b32 %r23|%p1, %r20, 3, 0x1807, -1; @!%p1 add.u32 %r23, %r23, 1000;",
     [](uint32_t l, uint32_t) { return l % 8 + 3 > 7 ? Value(l) + 1000 : Value(l + 3); }},
    {"shfl_bfly", "shfl.sync.bfly.b32 %r23, %r20, 5, 31, -1;", [](uint32_t l, uint32_t) { return Value(l ^ 5); }},
    {"shfl_idx_16", "shfl.sync.idx.b32 %r23, %r20, 2, 0x101f, -1;",
     [](uint32_t l, uint32_t) { return Value(l / 16 * 16 + 2); }},
    {"vote_any", "setp.eq.u32 %p1, %r21, 9; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r23, 1, 2, %p2;",
     [](uint32_t, uint32_t) { return 1u; }},
    {"vote_all", "setp.ne.u32 %p1, %r21, 9; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r23, 1, 2, %p2;",
     [](uint32_t, uint32_t) { return 2u; }},
    {"ballot", "setp.lt.u32 %p1, %r20, 30; vote.sync.ballot.b32 %r23, %p1, -1;",
     [](uint32_t, uint32_t) { return 0xfu; }},
    {"match_any", "and.b32 %r24, %r21, 3; match.any.sync.b32 %r23, %r24, -1;",
     [](uint32_t l, uint32_t) { return 0x11111111u << l % 4; }},
    {"redux_add", "redux.sync.add.s32 %r23, %r20, -1;", [](uint32_t, uint32_t) { return 7 * 496 + 3 * 32u; }},
    {"redux_max", "xor.b32 %r24, %r20, 5; redux.sync.max.u32 %r23, %r24, -1;",
     [](uint32_t, uint32_t) {
       uint32_t most = 0;
       for (uint32_t l = 0; l < 32; ++l) most = std::max(most, Value(l) ^ 5);
       return most;
     }},
    {"half_warps",
     "setp.lt.u32 %p1, %r21, 16; @%p1 bra $low; shfl.sync.bfly.b32 %r23, %r20, 1, 31, 0xffff0000; bra $end;"
     "$low: shfl.sync.bfly.b32 %r23, %r20, 2, 31, 0xffff; $end: add.u32 %r23, %r23, 1;",
     [](uint32_t l, uint32_t) { return Value(l ^ (l < 16 ? 2 : 1)) + 1; }},
    {"bar_red", "setp.lt.u32 %p1, %r21, 5; bar.red.popc.u32 %r23, 0, %p1;", [](uint32_t, uint32_t) { return 10u; }},
    {"bar_red_or", "setp.eq.u32 %p1, %r20, 3; bar.red.or.pred %p2, 0, %p1; selp.u32 %r23, 8, 9, %p2;",
     [](uint32_t, uint32_t) { return 8u; }},
    {"atom_shared",
     "or.b32 %r24, %r21, %r22; setp.eq.u32 %p1, %r24, 0; @%p1 st.shared.u32 [tile], %r24; bar.sync 0;"
     "atom.shared.add.u32 %r25, [tile], %r20; bar.sync 0; ld.shared.u32 %r23, [tile];",
     [](uint32_t, uint32_t) { return 2 * (7 * 496 + 3 * 32u); }},
    {"mbarrier",
     // Every thread arrives; all wait for the phase, then read what the other warp wrote.
     "or.b32 %r24, %r21, %r22; setp.ne.u32 %p1, %r24, 0; @%p1 bra $made; mbarrier.init.shared.b64 [tile], 64;"
     "$made: bar.sync 0; shl.b32 %r25, %r22, 7; shl.b32 %r26, %r21, 2; add.u32 %r25, %r25, %r26; mov.u32 %r27, tile;"
     "add.u32 %r25, %r25, %r27; st.shared.u32 [%r25+64], %r20; mbarrier.arrive.shared.b64 %rd9, [tile];"
     "$wait: mbarrier.test_wait.shared.b64 %p2, [tile], %rd9; @!%p2 bra $wait;"
     "xor.b32 %r28, %r22, 1; shl.b32 %r28, %r28, 7; add.u32 %r28, %r28, %r26; add.u32 %r28, %r28, %r27;"
     "ld.shared.u32 %r23, [%r28+64];",
     [](uint32_t l, uint32_t) { return Value(l); }},
};

class WarpTest : public GpuTest, public ::testing::WithParamInterface<Row> {};

TEST_P(WarpTest, AsTheFormula) {
  abi::Function* k = Kernel(fmt::format(R"(
.visible .entry k(.param .u64 out) {{
  .reg .pred %p<4>; .reg .b32 %r<32>; .reg .b64 %rd<12>; .shared .align 16 .b8 tile[1024];
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2;
  and.b32 %r21, %r1, 31; shr.u32 %r22, %r1, 5; mad.lo.u32 %r20, %r21, 7, 3;
  {}
  st.global.u32 [%rd1], %r23; ret;
}})",
                                        GetParam().ptx));
  abi::DevicePtr out = Allocate(256);
  QWEN_OK(Run(k, 1, 64, out));
  std::vector<uint32_t> words = Download<uint32_t>(out, 64);
  for (uint32_t t = 0; t < 64; ++t) ASSERT_EQ(words[t], GetParam().expected(t % 32, t / 32)) << t;
}
INSTANTIATE_TEST_SUITE_P(All, WarpTest, ::testing::ValuesIn(kRows),
                         [](const auto& info) { return std::string(info.param.name); });

struct AtomicRow {
  const char* name;
  const char* ptx;  // updates [%rd1]; %r21 is the thread of 64
  uint32_t before, after;
};
const AtomicRow kAtomics[] = {
    {"add", "red.global.add.u32 [%rd1], %r21;", 5, 5 + 2016},
    {"max_s32", "red.global.max.s32 [%rd1], %r21;", 0xfffffff0, 63},
    {"min_u32", "red.global.min.u32 [%rd1], %r21;", 0xfffffff0, 0},
    {"and", "or.b32 %r23, %r21, 0xf0; atom.global.and.b32 %r22, [%rd1], %r23;", 0xffffffff, 0xf0},
    {"or", "red.global.or.b32 [%rd1], %r21;", 0x100, 0x13f},
    {"inc", "atom.global.inc.u32 %r22, [%rd1], 9;", 0, 4},
    {"add_f32", "cvt.rn.f32.u32 %f1, %r21; red.global.add.f32 [%rd1], %f1;", 0, 0x44fc0000},             // 2016
    {"add_f16x2", "mov.b32 %r22, 0x40003c00; red.global.add.noftz.f16x2 [%rd1], %r22;", 0, 0x58005400},  // 128, 64
    {"exch", "mov.u32 %r22, 77; atom.global.exch.b32 %r23, [%rd1], %r22;", 1, 77},
    {"cas", "add.u32 %r22, %r21, 1; $again: atom.global.cas.b32 %r23, [%rd1], %r21, %r22; setp.eq.u32 %p1, %r23, %r24;",
     0, 64},
};
class AtomicTest : public GpuTest, public ::testing::WithParamInterface<AtomicRow> {};

TEST_P(AtomicTest, AddsUp) {
  // One block a thread: cas counts up only in their order, which the flag in front makes.
  bool in_order = std::strcmp(GetParam().name, "cas") == 0;
  abi::Function* k = Kernel(fmt::format(
      R"(
.visible .entry k(.param .u64 a) {{
  .reg .pred %p<4>; .reg .b32 %r<32>; .reg .b64 %rd<4>; .reg .f32 %f<4>;
  ld.param.u64 %rd1, [a]; mov.u32 %r21, %{}; mov.u32 %r24, 0xffffffff;
$turn: {}
  {}
  ret;
}})",
      "ctaid.x", in_order ? "ld.relaxed.gpu.global.u32 %r25, [%rd1]; setp.ne.u32 %p2, %r25, %r21; @%p2 bra $turn;" : "",
      GetParam().ptx));
  abi::DevicePtr a = Upload(std::vector<uint32_t>{GetParam().before});
  QWEN_OK(Run(k, 64, 1, a));
  EXPECT_EQ(Download<uint32_t>(a, 1)[0], GetParam().after);
}
INSTANTIATE_TEST_SUITE_P(All, AtomicTest, ::testing::ValuesIn(kAtomics),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qwen::emu
