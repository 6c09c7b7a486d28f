// Ten planted faults, each caught by its name, and four correct idioms that raise no alarm.
#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

// Registers that every kernel here has; %rd1 is the parameter `a`, %r1 the thread, %r2 the block.
constexpr const char* kHead = R"(
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 a, .param .u64 b) {
  .reg .pred %p<8>; .reg .b32 %r<32>; .reg .b64 %rd<16>; .reg .f32 %f<16>;
  .shared .align 16 .b8 tile[4096];
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b];
  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %nctaid.x;
  shl.b32 %r5, %r1, 2; mov.u32 %r6, tile; add.u32 %r7, %r6, %r5;
  mul.wide.u32 %rd3, %r1, 4; add.u64 %rd4, %rd1, %rd3;
)";
std::string Body(std::string_view body) { return fmt::format("{}{}\n ret;\n}}", kHead, body); }

struct Planted {
  const char* name;
  const char* body;
  unsigned blocks, threads;
  abi::Result result;
  const char* fault;  // how the text begins
  const char* text;   // what else it says
};
// `a` has 1024 written bytes, `b` 1024 bytes that nobody wrote.
const Planted kPlanted[] = {
    {"OutOfBoundsGlobal", "ld.global.u32 %r10, [%rd4+1024];", 1, 32, abi::kIllegalAddress, "out-of-bounds access",
     "0 bytes past the end of the 1024 bytes"},
    {"OutOfBoundsShared", "add.u32 %r8, %r7, 4096; st.shared.u32 [%r8], %r1;", 1, 32, abi::kIllegalAddress,
     "out-of-bounds access", "the block has 4096"},
    {"Misaligned", "ld.global.u32 %r10, [%rd4+2];", 1, 32, abi::kMisalignedAddress, "misaligned access",
     "no multiple of 4"},
    {"UnwrittenGlobal", "add.u64 %rd5, %rd2, %rd3; ld.global.u32 %r10, [%rd5];", 1, 32, abi::kLaunchFailed,
     "read of unwritten memory", "global memory"},
    {"UnwrittenShared", "ld.shared.u32 %r10, [%r7];", 1, 32, abi::kLaunchFailed, "read of unwritten memory",
     "shared memory"},
    {"RaceOfWarps",
     "st.shared.u32 [%r7], %r1; bar.sync 0; st.shared.u32 [%r7], %r2; xor.b32 %r8, %r7, 128; ld.shared.u32 %r10, "
     "[%r8];",
     1, 64, abi::kLaunchFailed, "race", "shared memory"},
    {"RaceOfLanes", "st.shared.u32 [%r7], %r1; xor.b32 %r8, %r7, 4; ld.shared.u32 %r10, [%r8];", 1, 32,
     abi::kLaunchFailed, "race", "lane 1 wrote"},
    {"RaceOfReaderAndWriter",
     "st.shared.u32 [%r7], %r1; bar.sync 0; xor.b32 %r8, %r7, 4; ld.shared.u32 %r10, [%r8]; st.shared.u32 [%r7], %r10;",
     1, 32, abi::kLaunchFailed, "race", "read without"},
    {"RaceOfBlocks", "st.global.u32 [%rd4], %r2;", 2, 32, abi::kLaunchFailed, "race", "global memory"},
    {"CopyNotWaitedFor",
     "mul.wide.u32 %rd5, %r1, 16; add.u64 %rd6, %rd1, %rd5; shl.b32 %r8, %r1, 4; add.u32 %r9, %r6, %r8;"
     "cp.async.cg.shared.global [%r9], [%rd6], 16; cp.async.commit_group; ld.shared.u32 %r10, [%r9];",
     1, 32, abi::kLaunchFailed, "race", "cp.async is under way"},
    {"DivergentBarrier", "setp.lt.u32 %p1, %r1, 7; @%p1 bra $there; bar.sync 0; $there: bar.sync 0;", 1, 32,
     abi::kLaunchFailed, "divergent barrier", "lanes"},
    {"BarrierNobodyCompletes", "bar.sync 1, 96;", 1, 64, abi::kLaunchTimeout, "deadlock", "barrier 1 has 64 of 96"},
    {"FlagNobodySets", "$spin: ld.acquire.gpu.global.u32 %r10, [%rd1]; setp.ne.u32 %p1, %r10, 12345; @%p1 bra $spin;",
     2, 32, abi::kLaunchTimeout, "deadlock", "resident blocks wait"},
    {"Trap", "setp.eq.u32 %p1, %r1, 5; @%p1 trap;", 1, 32, abi::kLaunchFailed, "trap", "lane 5"},
};

class FaultTest : public GpuTest, public ::testing::WithParamInterface<Planted> {};

TEST_P(FaultTest, IsNamed) {
  if (!emulated()) GTEST_SKIP() << "a card does not say";
  const Planted& planted = GetParam();
  std::vector<uint32_t> values(256);
  for (uint32_t i = 0; i < 256; ++i) values[i] = i;
  abi::DevicePtr a = Upload(values), b = Allocate(1024);
  abi::Function* k = Kernel(Body(planted.body));
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(Run(k, planted.blocks, planted.threads, a, b), planted.result) << Fault();
  EXPECT_EQ(Fault().find(planted.fault), 0u) << Fault();
  for (const char* part : {planted.text, "kernel k, ptx line ", "block (", "thread ("})
    EXPECT_NE(Fault().find(part), std::string::npos) << part << " in " << Fault();
  // It sticks.
  EXPECT_EQ(cu.cuCtxSynchronize(), planted.result);
}
INSTANTIATE_TEST_SUITE_P(All, FaultTest, ::testing::ValuesIn(kPlanted),
                         [](const auto& info) { return std::string(info.param.name); });

using FaultsTest = GpuTest;

TEST_F(FaultsTest, UseAfterFree) {
  if (!emulated()) GTEST_SKIP() << "a card does not say";
  abi::DevicePtr a = Upload(std::vector<uint32_t>(256));
  QWEN_OK(cu.cuMemFree_v2(a));
  EXPECT_EQ(Run(Kernel(Body("ld.global.u32 %r10, [%rd4];")), 1, 32, a, a), abi::kIllegalAddress);
  EXPECT_EQ(Fault().find("use after free"), 0u) << Fault();
}

TEST_F(FaultsTest, UnknownWordsRefuseTheModule) {
  abi::Module* module = nullptr;
  for (const char* bad : {"frobnicate.u32 %r10, %r1;", "add.sideways.u32 %r10, %r1, %r1;", "add.u32 %rd5, %r1, %r1;"}) {
    std::string ptx = ".version 8.8\n.target sm_89\n.address_size 64\n" + Body(bad);
    EXPECT_EQ(cu.cuModuleLoadData(&module, ptx.c_str()), abi::kInvalidPtx) << bad;
    if (emulated()) {
      EXPECT_EQ(Fault().find("ptx line "), 0u) << Fault();
      EXPECT_NE(Fault().find(std::string(bad).substr(0, 8)), std::string::npos) << Fault();
    }
  }
}

// ---- correct idioms

/// Every block adds up its part; the one whose ticket is the last adds up the parts.
TEST_F(FaultsTest, LastBlockTicketIsNoRace) {
  abi::Function* k = Kernel(Body(R"(
    mul.wide.u32 %rd5, %r2, 4; add.u64 %rd6, %rd2, %rd5;
    setp.ne.u32 %p1, %r1, 0; @%p1 bra $wait;
    add.u32 %r10, %r2, 1; st.global.u32 [%rd6+64], %r10;
    membar.gl;
    atom.global.add.u32 %r11, [%rd2], 1;
    st.shared.u32 [tile], %r11;
  $wait:
    bar.sync 0;
    ld.shared.u32 %r12, [tile]; sub.u32 %r13, %r4, 1;
    setp.ne.u32 %p2, %r12, %r13; @%p2 bra $out;
    setp.ne.u32 %p3, %r1, 0; @%p3 bra $out;
    mov.u32 %r14, 0; mov.u32 %r15, 0; mov.u64 %rd7, %rd2;
  $loop:
    ld.global.u32 %r16, [%rd7+64]; add.u32 %r14, %r14, %r16; add.u64 %rd7, %rd7, 4; add.u32 %r15, %r15, 1;
    setp.lt.u32 %p4, %r15, %r4; @%p4 bra $loop;
    st.global.u32 [%rd1], %r14;
  $out:)"));
  abi::DevicePtr a = Upload(std::vector<uint32_t>(256)), b = Upload(std::vector<uint32_t>(256));
  QWEN_OK(Run(k, 20, 64, a, b));
  EXPECT_EQ(Download<uint32_t>(a, 1)[0], 210u);
}

TEST_F(FaultsTest, LastBlockTicketWithoutItsFenceIsARace) {
  if (!emulated()) GTEST_SKIP() << "a card does not say";
  abi::Function* k = Kernel(Body(R"(
    setp.ne.u32 %p1, %r1, 0; @%p1 bra $out;
    mul.wide.u32 %rd5, %r2, 4; add.u64 %rd6, %rd2, %rd5; st.global.u32 [%rd6+64], %r2;
    atom.global.add.u32 %r11, [%rd2], 1;
    membar.gl;
    setp.eq.u32 %p2, %r11, 0; @%p2 bra $out;
    ld.global.u32 %r16, [%rd2+64]; ld.global.u32 %r17, [%rd2+68];
  $out:)"));
  abi::DevicePtr b = Upload(std::vector<uint32_t>(256));
  EXPECT_EQ(Run(k, 2, 32, b, b), abi::kLaunchFailed);
  EXPECT_EQ(Fault().find("race"), 0u) << Fault();
}

/// Warp 0 fills, warp 1 drains; two named barriers say full and empty.
TEST_F(FaultsTest, NamedBarriersAreNoRace) {
  abi::Function* k = Kernel(Body(R"(
    mov.u32 %r10, 0; mov.u32 %r20, 0; and.b32 %r11, %r5, 127; add.u32 %r11, %r6, %r11;
    setp.ge.u32 %p1, %r1, 32; @%p1 bra $consumer;
  $producer:
    st.shared.u32 [%r11], %r10; bar.arrive 1, 64; bar.sync 2, 64;
    add.u32 %r10, %r10, 1; setp.lt.u32 %p2, %r10, 10; @%p2 bra $producer;
    bra $out;
  $consumer:
    bar.sync 1, 64; xor.b32 %r12, %r11, 4; ld.shared.u32 %r13, [%r12]; add.u32 %r20, %r20, %r13; bar.arrive 2, 64;
    add.u32 %r10, %r10, 1; setp.lt.u32 %p3, %r10, 10; @%p3 bra $consumer;
    st.global.u32 [%rd4], %r20;
  $out:)"));
  abi::DevicePtr a = Upload(std::vector<uint32_t>(256));
  QWEN_OK(Run(k, 1, 64, a, a));
  EXPECT_EQ(Download<uint32_t>(a, 64)[33], 45u);
}

TEST_F(FaultsTest, ShuffleTreeIsNoRace) {
  abi::Function* k = Kernel(Body(R"(
    mov.u32 %r10, %r1;
    shfl.sync.bfly.b32 %r11, %r10, 16, 31, -1; add.u32 %r10, %r10, %r11;
    shfl.sync.bfly.b32 %r11, %r10, 8, 31, -1; add.u32 %r10, %r10, %r11;
    shfl.sync.bfly.b32 %r11, %r10, 4, 31, -1; add.u32 %r10, %r10, %r11;
    shfl.sync.bfly.b32 %r11, %r10, 2, 31, -1; add.u32 %r10, %r10, %r11;
    shfl.sync.bfly.b32 %r11, %r10, 1, 31, -1; add.u32 %r10, %r10, %r11;
    st.global.u32 [%rd4], %r10;)"));
  abi::DevicePtr a = Upload(std::vector<uint32_t>(256));
  QWEN_OK(Run(k, 1, 32, a, a));
  EXPECT_EQ(Download<uint32_t>(a, 32), std::vector<uint32_t>(32, 496u));
}

/// Block 0 waits for the flag of block 1, whichever of the two begins first.
TEST_F(FaultsTest, AcquireReleaseFlagIsNoRace) {
  abi::Function* k = Kernel(Body(R"(
    setp.eq.u32 %p1, %r2, 1; @%p1 bra $writer;
    setp.ne.u32 %p3, %r1, 0; @%p3 bra $ready;
  $spin:
    ld.acquire.gpu.global.u32 %r10, [%rd2]; setp.eq.u32 %p2, %r10, 0; @%p2 bra $spin;
  $ready:
    bar.sync 0;
    ld.global.u32 %r11, [%rd4]; add.u32 %r11, %r11, 1; st.global.u32 [%rd4+512], %r11; bra $out;
  $writer:
    st.global.u32 [%rd4], %r1; bar.sync 0;
    setp.ne.u32 %p4, %r1, 0; @%p4 bra $out;
    st.release.gpu.global.u32 [%rd2], 1;
  $out:)"));
  abi::DevicePtr a = Upload(std::vector<uint32_t>(256)), b = Upload(std::vector<uint32_t>(1));
  QWEN_OK(Run(k, 2, 64, a, b));
  EXPECT_EQ(Download<uint32_t>(a, 192)[128 + 63], 64u);
}

}  // namespace
}  // namespace qwen::emu
