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

}  // namespace
}  // namespace qwen::emu
