// Launches, copies, streams, events, graphs and devices through the driver API.
#include <cstring>
#include <numeric>
#include <thread>

#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

constexpr const char* kVectorAdd = R"(
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n) {
  .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<6>; .reg .b64 %rd<11>;
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u32 %r2, [n];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;
  mad.lo.s32 %r1, %r3, %r4, %r5;
  setp.ge.s32 %p1, %r1, %r2;
  @%p1 bra $done;
  cvta.to.global.u64 %rd4, %rd1; mul.wide.s32 %rd5, %r1, 4; add.s64 %rd6, %rd4, %rd5;
  cvta.to.global.u64 %rd7, %rd2; add.s64 %rd8, %rd7, %rd5;
  ld.global.f32 %f1, [%rd8]; ld.global.f32 %f2, [%rd6]; add.f32 %f3, %f2, %f1;
  cvta.to.global.u64 %rd9, %rd3; add.s64 %rd10, %rd9, %rd5; st.global.f32 [%rd10], %f3;
$done:
  ret;
})";

using LaunchTest = GpuTest;

TEST_F(LaunchTest, VectorAdd) {
  abi::Function* k = Kernel(kVectorAdd);
  constexpr unsigned kCount = 1000;
  std::vector<float> a(kCount), b(kCount);
  for (unsigned i = 0; i < kCount; ++i) a[i] = static_cast<float>(i) * 0.5f, b[i] = static_cast<float>(i * i);
  abi::DevicePtr da = Upload(a), db = Upload(b), dc = Allocate(kCount * 4);
  QWEN_OK(Run(k, 8, 128, da, db, dc, kCount));
  std::vector<float> c = Download<float>(dc, kCount);
  for (unsigned i = 0; i < kCount; ++i) ASSERT_EQ(c[i], a[i] + b[i]) << i;
}

/// Adds a parameter to every word.
constexpr const char* kAddWord = R"(
.visible .entry k(.param .u64 a, .param .u32 b) {
  .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [a]; ld.param.u32 %r1, [b]; mov.u32 %r2, %tid.x; mul.wide.u32 %rd2, %r2, 4;
  add.u64 %rd1, %rd1, %rd2; ld.global.u32 %r3, [%rd1]; add.u32 %r3, %r3, %r1; st.global.u32 [%rd1], %r3; ret;
})";

TEST_F(LaunchTest, GraphIsCapturedAndReplayed) {
  abi::Function* k = Kernel(kAddWord);
  abi::DevicePtr a = Allocate(128);
  abi::Stream *stream = nullptr, *side = nullptr;
  QWEN_OK(cu.cuStreamCreate(&stream, abi::kStreamNonBlocking));
  QWEN_OK(cu.cuStreamCreate(&side, abi::kStreamNonBlocking));
  abi::Event* event = nullptr;
  QWEN_OK(cu.cuEventCreate(&event, abi::kEventDisableTiming));
  QWEN_OK(cu.cuStreamBeginCapture_v2(stream, 1));
  QWEN_OK(cu.cuMemsetD32Async(a, 5, 32, stream));
  QWEN_OK(Launch(k, 1, 32, 0, stream, a, 7u));
  // A second stream forks off and joins again.
  QWEN_OK(cu.cuEventRecord(event, stream));
  QWEN_OK(cu.cuStreamWaitEvent(side, event, 0));
  QWEN_OK(Launch(k, 1, 32, 0, side, a, 100u));
  QWEN_OK(cu.cuEventRecord(event, side));
  QWEN_OK(cu.cuStreamWaitEvent(stream, event, 0));
  abi::Graph* graph = nullptr;
  QWEN_OK(cu.cuStreamEndCapture(stream, &graph));
  size_t nodes = 0;
  QWEN_OK(cu.cuGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_EQ(nodes, 3u);
  abi::GraphExec* exec = nullptr;
  QWEN_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
  QWEN_OK(cu.cuGraphDestroy(graph));
  QWEN_OK(cu.cuMemsetD32_v2(a, 0, 32));
  for (int i = 0; i < 3; ++i) QWEN_OK(cu.cuGraphLaunch(exec, stream));
  QWEN_OK(Launch(k, 1, 32, 0, stream, a, 1u));
  QWEN_OK(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(Download<uint32_t>(a, 32), std::vector<uint32_t>(32, 113));
  QWEN_OK(cu.cuGraphExecDestroy(exec));
}

TEST_F(LaunchTest, StreamWaitsForAnEventOfAnother) {
  // The first stream spins on host memory until the second has been seen to wait.
  abi::Function* spin = Kernel(R"(
.visible .entry k(.param .u64 flag, .param .u64 a) {
  .reg .pred %p1; .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [flag]; ld.param.u64 %rd2, [a];
$spin: ld.acquire.sys.global.u32 %r1, [%rd1]; setp.eq.u32 %p1, %r1, 0; @%p1 bra $spin;
  st.global.u32 [%rd2], %r1; ret;
})");
  void* flag = nullptr;
  QWEN_OK(cu.cuMemHostAlloc(&flag, 4, abi::kHostAllocDeviceMap | abi::kHostAllocPortable));
  auto* word = static_cast<uint32_t*>(flag);
  __atomic_store_n(word, 0u, __ATOMIC_RELEASE);
  abi::DevicePtr device_flag = 0, a = Allocate(4), b = Allocate(4);
  QWEN_OK(cu.cuMemHostGetDevicePointer_v2(&device_flag, flag, 0));
  abi::Stream *first = nullptr, *second = nullptr;
  abi::Event* event = nullptr;
  QWEN_OK(cu.cuStreamCreate(&first, abi::kStreamNonBlocking));
  QWEN_OK(cu.cuStreamCreate(&second, abi::kStreamNonBlocking));
  QWEN_OK(cu.cuEventCreate(&event, 0));
  QWEN_OK(Launch(spin, 1, 1, 0, first, device_flag, a));
  QWEN_OK(cu.cuEventRecord(event, first));
  QWEN_OK(cu.cuStreamWaitEvent(second, event, 0));
  QWEN_OK(cu.cuMemcpyDtoDAsync_v2(b, a, 4, second));
  EXPECT_EQ(cu.cuEventQuery(event), abi::kNotReady);
  EXPECT_EQ(cu.cuStreamQuery(second), abi::kNotReady);
  __atomic_store_n(word, 77u, __ATOMIC_RELEASE);
  QWEN_OK(cu.cuStreamSynchronize(second));
  EXPECT_EQ(cu.cuEventQuery(event), abi::kSuccess);
  EXPECT_EQ(Download<uint32_t>(b, 1)[0], 77u);
  QWEN_OK(cu.cuMemFreeHost(flag));
}

TEST_F(LaunchTest, DevicesHaveTheirOwnMemoryAndMeetInHostMemory) {
  int devices = 0;
  QWEN_OK(cu.cuDeviceGetCount(&devices));
  if (devices < 2) GTEST_SKIP() << "one device";
  // Each device writes its flag and waits for the other's.
  constexpr const char* kExchange = R"(
.visible .entry k(.param .u64 mine, .param .u64 other, .param .u32 value, .param .u64 out) {
  .reg .pred %p1; .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [mine]; ld.param.u64 %rd2, [other]; ld.param.u32 %r1, [value]; ld.param.u64 %rd3, [out];
  st.release.sys.global.u32 [%rd1], %r1;
$spin: ld.acquire.sys.global.u32 %r2, [%rd2]; setp.eq.u32 %p1, %r2, 0; @%p1 bra $spin;
  st.global.u32 [%rd3], %r2; ret;
})";
  void* host = nullptr;
  QWEN_OK(cu.cuMemHostAlloc(&host, 128, abi::kHostAllocDeviceMap | abi::kHostAllocPortable));
  std::memset(host, 0, 128);
  abi::DevicePtr flags = reinterpret_cast<abi::DevicePtr>(host), out[2];
  abi::Function* k0 = Kernel(kExchange);
  out[0] = Allocate(4);
  QWEN_OK(Launch(k0, 1, 1, 0, nullptr, flags, flags + 64, 11u, out[0]));
  abi::Context* second = nullptr;
  QWEN_OK(cu.cuDevicePrimaryCtxRetain(&second, 1));
  QWEN_OK(cu.cuCtxSetCurrent(second));
  abi::Function* k1 = Kernel(kExchange);
  out[1] = Allocate(4);
  QWEN_OK(Launch(k1, 1, 1, 0, nullptr, flags + 64, flags, 22u, out[1]));
  QWEN_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(Download<uint32_t>(out[1], 1)[0], 11u);
  if (emulated()) {
    EXPECT_EQ(cu.cuCtxEnablePeerAccess(context, 0), abi::kPeerAccessUnsupported);
    abi::Function* add = Kernel(kAddWord);
    EXPECT_EQ(Run(add, 1, 1, out[0], 1u), abi::kIllegalAddress);
  }
  cu.cuDevicePrimaryCtxReset_v2(1);
  QWEN_OK(cu.cuCtxSetCurrent(context));
  QWEN_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(Download<uint32_t>(out[0], 1)[0], 22u);
}

TEST_F(LaunchTest, CountersOfAHandCountedKernel) {
  if (!emulated()) GTEST_SKIP() << "a card does not count";
  // Each lane stores to bank 0, 2, 4 .. : two lanes a bank, two wavefronts. Reads are 32 words: 4 sectors. The column
  // of a 32 x 32 tile is one bank: 32 wavefronts.
  abi::Function* k = Kernel(R"(
.visible .entry counted(.param .u64 a) {
  .reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .pred %p1; .shared .align 16 .b8 tile[4096];
  ld.param.u64 %rd1, [a]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd1, %rd2;
  ld.global.u32 %r2, [%rd2];
  ld.global.u32 %r2, [%rd2];
  mov.u32 %r3, tile; shl.b32 %r4, %r1, 3; add.u32 %r4, %r3, %r4; st.shared.u32 [%r4], %r2;
  bar.sync 0;
  shl.b32 %r5, %r1, 7; add.u32 %r5, %r3, %r5; st.shared.u32 [%r5], %r2;
  setp.gt.u32 %p1, %r1, 99; @%p1 st.global.u32 [%rd2], %r1;
  ret;
})",
                            "counted");
  abi::DevicePtr a = Upload(std::vector<uint32_t>(32));
  QWEN_OK(Run(k, 1, 32, a));
  std::string report = cu.report(), json = report.substr(report.find("\"counted\""));
  for (const char* part : {"\"launches\": 1", "\"read_sectors_requested\": 8", "\"read_sectors_unique\": 4",
                           "\"write_sectors_requested\": 0", "\"shared_wavefronts\": 34", "\"bank_conflicts\": 32",
                           "\"load_global\": 2", "\"store_shared\": 2", "\"barrier\": 1", "\"ptx_instructions\": 17",
                           "\"ptx_instructions_executed\": 16", "st.global.u32 [%rd2], %r1;"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

TEST_F(LaunchTest, CallsAndLocalMemory) {
  // The sum of 1 .. n by recursion; each level keeps its n in local memory.
  abi::Function* k = Kernel(R"(
.func (.param .b32 sum) down(.param .b32 n) {
  .reg .b32 %r<6>; .reg .pred %p1; .reg .b64 %rd<2>; .local .align 4 .b8 depot[8];
  ld.param.b32 %r1, [n]; mov.u64 %rd1, depot; st.local.u32 [%rd1+4], %r1; mov.u32 %r3, 0;
  setp.eq.u32 %p1, %r1, 0; @%p1 bra $end;
  sub.u32 %r2, %r1, 1;
  { .param .b32 in; .param .b32 out; st.param.b32 [in], %r2; call.uni (out), down, (in); ld.param.b32 %r3, [out]; }
$end:
  ld.local.u32 %r4, [%rd1+4]; add.u32 %r3, %r3, %r4; st.param.b32 [sum], %r3; ret;
}
.visible .entry k(.param .u64 a) {
  .reg .b32 %r<6>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [a]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2;
  { .param .b32 in; .param .b32 out; st.param.b32 [in], %r1; call.uni (out), down, (in); ld.param.b32 %r2, [out]; }
  st.global.u32 [%rd1], %r2; ret;
})");
  abi::DevicePtr a = Allocate(128);
  QWEN_OK(Run(k, 1, 32, a));
  std::vector<uint32_t> sums = Download<uint32_t>(a, 32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(sums[i], i * (i + 1) / 2);
}

TEST_F(LaunchTest, AsyncCopiesByGroup) {
  abi::Function* k = Kernel(R"(
.visible .entry k(.param .u64 a, .param .u64 b) {
  .reg .b32 %r<16>; .reg .b64 %rd<8>; .shared .align 16 .b8 tile[1536];
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd3, %r1, 16;
  add.u64 %rd4, %rd1, %rd3; shl.b32 %r2, %r1, 4; mov.u32 %r3, tile; add.u32 %r4, %r3, %r2;
  cp.async.cg.shared.global [%r4], [%rd4], 16; cp.async.commit_group;
  cp.async.cg.shared.global [%r4+512], [%rd4], 16, 0; cp.async.ca.shared.global [%r4+1024], [%rd4], 8, 4;
  cp.async.commit_group;
  cp.async.wait_group 1; bar.sync 0;
  xor.b32 %r5, %r4, 16; ld.shared.u32 %r6, [%r5];
  cp.async.wait_all; bar.sync 0;
  ld.shared.u32 %r7, [%r5+512]; ld.shared.v2.u32 {%r8, %r9}, [%r5+1024];
  add.u64 %rd5, %rd2, %rd3; st.global.v4.u32 [%rd5], {%r6, %r7, %r8, %r9}; ret;
})");
  std::vector<uint32_t> words(128);
  std::iota(words.begin(), words.end(), 1000u);
  abi::DevicePtr a = Upload(words), b = Allocate(512);
  QWEN_OK(Run(k, 1, 32, a, b));
  std::vector<uint32_t> out = Download<uint32_t>(b, 128);
  for (uint32_t i = 0; i < 32; ++i) {
    uint32_t from = 1000 + 4 * (i ^ 1);
    EXPECT_EQ((std::vector<uint32_t>{&out[4 * i], &out[4 * i] + 4}), (std::vector<uint32_t>{from, 0, from, 0})) << i;
  }
}

TEST_F(LaunchTest, GraphIsUpdatedInPlace) {
  abi::Function* k = Kernel(kAddWord);
  abi::DevicePtr a = Upload(std::vector<uint32_t>(32));
  abi::Stream* stream = nullptr;
  QWEN_OK(cu.cuStreamCreate(&stream, 0));
  abi::GraphExec* exec = nullptr;
  for (uint32_t value : {1u, 30u}) {
    abi::Graph* graph = nullptr;
    QWEN_OK(cu.cuStreamBeginCapture_v2(stream, 2));
    QWEN_OK(Launch(k, 1, 32, 0, stream, a, value));
    QWEN_OK(cu.cuStreamEndCapture(stream, &graph));
    abi::GraphExecUpdateResult result = {};
    if (exec) {
      QWEN_OK(cu.cuGraphExecUpdate_v2(exec, graph, &result));
    } else {
      QWEN_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
    }
    QWEN_OK(cu.cuGraphLaunch(exec, stream));
    QWEN_OK(cu.cuGraphDestroy(graph));
  }
  QWEN_OK(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(Download<uint32_t>(a, 32), std::vector<uint32_t>(32, 31));
  abi::Graph* other = nullptr;
  QWEN_OK(cu.cuStreamBeginCapture_v2(stream, 2));
  QWEN_OK(cu.cuMemsetD32Async(a, 0, 32, stream));
  QWEN_OK(cu.cuStreamEndCapture(stream, &other));
  abi::GraphExecUpdateResult result = {};
  EXPECT_EQ(cu.cuGraphExecUpdate_v2(exec, other, &result), abi::kGraphExecUpdateFailure);
}

TEST_F(LaunchTest, FunctionsAndDevicesHaveAttributes) {
  abi::Function* k = Kernel(R"(
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 a) .maxntid 64, 1, 1 {
  .reg .b32 %r<4>; .reg .b64 %rd<4>; .shared .align 4 .b8 tile[512];
  ld.param.u64 %rd1, [a]; mov.u32 %r1, dynamic; mov.u32 %r2, 5;
  st.shared.u32 [%r1+65532], %r2; ld.shared.u32 %r3, [%r1+65532]; st.global.u32 [%rd1], %r3; ret;
})");
  int value = 0;
  QWEN_OK(cu.cuFuncGetAttribute(&value, abi::kFuncSharedSizeBytes, k));
  EXPECT_EQ(value, 512);
  QWEN_OK(cu.cuFuncGetAttribute(&value, abi::kFuncMaxThreadsPerBlock, k));
  EXPECT_EQ(value, 64);
  abi::DevicePtr a = Allocate(4);
  EXPECT_EQ(Launch(k, 1, 1, 65536, nullptr, a), abi::kInvalidValue);
  EXPECT_EQ(cu.cuFuncSetAttribute(k, abi::kFuncMaxDynamicSharedSizeBytes, 1 << 20), abi::kInvalidValue);
  QWEN_OK(cu.cuFuncSetAttribute(k, abi::kFuncMaxDynamicSharedSizeBytes, 65536));
  abi::LaunchAttribute cooperative = {abi::kLaunchAttributeCooperative, {}, {1}};
  abi::LaunchConfig config = {1, 1, 1, 1, 1, 1, 65536, nullptr, &cooperative, 1};
  void* params[] = {&a};
  QWEN_OK(cu.cuLaunchKernelEx(&config, k, params, nullptr));
  EXPECT_EQ(Download<uint32_t>(a, 1)[0], 5u);
  EXPECT_EQ(Launch(k, 1, 128, 0, nullptr, a), abi::kInvalidValue);
  if (!emulated()) return;
  QWEN_OK(cu.cuDeviceGetAttribute(&value, abi::kMultiprocessorCount, 0));
  EXPECT_EQ(value, 128);
  QWEN_OK(cu.cuDeviceGetAttribute(&value, abi::kMaxSharedMemoryPerBlockOptin, 0));
  EXPECT_EQ(value, 101376);
}

TEST_F(LaunchTest, ProcAddressAndErrorNames) {
  void* address = nullptr;
  QWEN_OK(cu.cuGetProcAddress_v2("cuMemAlloc", &address, 13000, 0, nullptr));
  EXPECT_EQ(address, reinterpret_cast<void*>(cu.cuMemAlloc_v2));
  const char* text = nullptr;
  QWEN_OK(cu.cuGetErrorName(abi::kIllegalAddress, &text));
  EXPECT_STREQ(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
  QWEN_OK(cu.cuGetErrorString(abi::kMisalignedAddress, &text));
  EXPECT_STREQ(text, "misaligned address");
}

TEST_F(LaunchTest, CopiesOutsideAnAllocationAreRefused) {
  abi::DevicePtr a = Allocate(64);
  uint8_t bytes[128] = {};
  EXPECT_EQ(cu.cuMemcpyHtoD_v2(a, bytes, 128), abi::kInvalidValue);
  EXPECT_EQ(cu.cuMemsetD8_v2(a + 32, 0, 64), abi::kInvalidValue);
  EXPECT_EQ(cu.cuMemFree_v2(a + 4), abi::kInvalidValue);
  QWEN_OK(cu.cuMemcpyHtoD_v2(a, bytes, 64));
}

}  // namespace
}  // namespace qwen::emu
