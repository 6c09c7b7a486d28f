// Fragment maps: a one at every position of A meets a B whose columns tell k apart, for every shape and type; ldmatrix
// and movmatrix move matrices whose elements name their place. The maps are the tables of the PTX ISA (kernels design,
// 8.3), written out here element by element.
#include <bit>
#include <cmath>

#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

struct Shape {
  const char* name;
  const char* types;  // shape and types of the opcode
  int k, bits;        // bits of an element
  uint32_t one;       // its bit pattern for 1
  uint32_t power[4];  // the bit patterns of 1, 2, 4 and 1/2 or of 1, 2, 3, 4
  double value[4];
  char out;  // f, h or s: f32, f16 or s32 accumulators
};
const Shape kShapes[] = {
    {"f16_k16",
     "m16n8k16.row.col.f32.f16.f16.f32",
     16,
     16,
     0x3c00,
     {0x3c00, 0x4000, 0x4400, 0x3800},
     {1, 2, 4, .5},
     'f'},
    {"f16_k8", "m16n8k8.row.col.f32.f16.f16.f32", 8, 16, 0x3c00, {0x3c00, 0x4000, 0x4400, 0x3800}, {1, 2, 4, .5}, 'f'},
    {"f16_f16",
     "m16n8k16.row.col.f16.f16.f16.f16",
     16,
     16,
     0x3c00,
     {0x3c00, 0x4000, 0x4400, 0x3800},
     {1, 2, 4, .5},
     'h'},
    {"bf16_k16",
     "m16n8k16.row.col.f32.bf16.bf16.f32",
     16,
     16,
     0x3f80,
     {0x3f80, 0x4000, 0x4080, 0x3f00},
     {1, 2, 4, .5},
     'f'},
    {"bf16_k8",
     "m16n8k8.row.col.f32.bf16.bf16.f32",
     8,
     16,
     0x3f80,
     {0x3f80, 0x4000, 0x4080, 0x3f00},
     {1, 2, 4, .5},
     'f'},
    {"tf32_k8",
     "m16n8k8.row.col.f32.tf32.tf32.f32",
     8,
     32,
     0x3f800000,
     {0x3f800000, 0x40000000, 0x40800000, 0x3f000000},
     {1, 2, 4, .5},
     'f'},
    {"e4m3_k32", "m16n8k32.row.col.f32.e4m3.e4m3.f32", 32, 8, 0x38, {0x38, 0x40, 0x48, 0x30}, {1, 2, 4, .5}, 'f'},
    {"e5m2_k32", "m16n8k32.row.col.f32.e5m2.e5m2.f32", 32, 8, 0x3c, {0x3c, 0x40, 0x44, 0x38}, {1, 2, 4, .5}, 'f'},
    {"e4m3_f16", "m16n8k32.row.col.f16.e4m3.e4m3.f16", 32, 8, 0x38, {0x38, 0x40, 0x48, 0x30}, {1, 2, 4, .5}, 'h'},
    {"e4m3_k16", "m16n8k16.row.col.f32.e4m3.e4m3.f32", 16, 8, 0x38, {0x38, 0x40, 0x48, 0x30}, {1, 2, 4, .5}, 'f'},
    {"s8_k32", "m16n8k32.row.col.s32.s8.s8.s32", 32, 8, 1, {1, 2, 0xfd, 4}, {1, 2, -3, 4}, 's'},
    {"s8_k16", "m16n8k16.row.col.s32.s8.s8.s32", 16, 8, 1, {1, 2, 0xfd, 4}, {1, 2, -3, 4}, 's'},
    {"u8s8_k32", "m16n8k32.row.col.s32.u8.s8.s32", 32, 8, 1, {1, 2, 0xfd, 4}, {1, 2, -3, 4}, 's'},
    {"s4_k64", "m16n8k64.row.col.s32.s4.s4.s32", 64, 4, 1, {1, 2, 0xd, 4}, {1, 2, -3, 4}, 's'},
};

/// Which of a shape's four values B holds at (k, n): every row is unlike the others, and every column.
int Which(int k, int n) { return ((k >> (2 * (n % 3))) + n / 3) & 3; }

struct Place {
  int lane, reg, element;
};
/// A's element (row, k), by the table: with n elements in a register, a0 holds rows g and k = n t .., a1 rows g + 8,
/// a2 and a3 the same for the k-half above.
Place PlaceOfA(int row, int k, int n) {
  int half = 4 * n, in = k % half;
  return {row % 8 * 4 + in / n, row / 8 + 2 * (k / half), in % n};
}
Place PlaceOfB(int k, int column, int n) {
  int half = 4 * n, in = k % half;
  return {column * 4 + in / n, k / half, in % n};
}

class MmaTest : public GpuTest, public ::testing::WithParamInterface<Shape> {};

TEST_P(MmaTest, EveryPositionOfTheFragments) {
  const Shape& s = GetParam();
  int n = 32 / s.bits, a_registers = 16 * s.k / 32 / n, b_registers = 8 * s.k / 32 / n, outs = s.out == 'h' ? 2 : 4;
  auto list = [](const char* prefix, int count) {
    std::string text = "{";
    for (int i = 0; i < count; ++i) text += fmt::format("{}{}{}", i ? "," : "", prefix, i);
    return text + "}";
  };
  std::string loads, stores;
  for (int r = 0; r < a_registers; ++r) loads += fmt::format("ld.global.b32 %a{}, [%rd4+{}];\n", r, 128 * r);
  for (int r = 0; r < b_registers; ++r) loads += fmt::format("ld.global.b32 %b{}, [%rd5+{}];\n", r, 128 * r);
  for (int r = 0; r < outs; ++r) loads += fmt::format("mov.b32 %c{}, 0;\n", r);
  for (int r = 0; r < outs; ++r) stores += fmt::format("st.global.b32 [%rd6+{}], %d{};\n", 128 * r, r);
  abi::Function* k = Kernel(fmt::format(R"(
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d) {{
  .reg .b32 %r<4>; .reg .b64 %rd<8>; .reg .b32 %a<4>; .reg .b32 %b<4>; .reg .b32 %c<4>; .reg .b32 %d<4>;
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [d];
  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd7, %r1, 4;
  add.u64 %rd5, %rd2, %rd7;
  mul.lo.u32 %r3, %r2, 512; cvt.u64.u32 %rd4, %r3; add.u64 %rd7, %rd7, %rd4;
  add.u64 %rd4, %rd1, %rd7; add.u64 %rd6, %rd3, %rd7;
  {}mma.sync.aligned.{} {}, {}, {}, {};
  {}ret;
}})",
                                        loads, s.types, list("%d", outs), list("%a", a_registers),
                                        list("%b", b_registers), list("%c", outs), stores));
  ASSERT_NE(k, nullptr);
  uint32_t ones = s.bits == 32 ? ~0u : (1u << s.bits) - 1;
  std::vector<uint32_t> a(static_cast<size_t>(16 * s.k) * 128), b(128);
  // Block p holds a one at row p / k, k-index p % k.
  for (int p = 0; p < 16 * s.k; ++p) {
    Place at = PlaceOfA(p / s.k, p % s.k, n);
    a[static_cast<size_t>(p * 128 + at.reg * 32 + at.lane)] = (s.one & ones) << (s.bits * at.element);
  }
  for (int k_index = 0; k_index < s.k; ++k_index)
    for (int column = 0; column < 8; ++column) {
      Place at = PlaceOfB(k_index, column, n);
      b[static_cast<size_t>(at.reg * 32 + at.lane)] |= (s.power[Which(k_index, column)] & ones)
                                                       << (s.bits * at.element);
    }
  abi::DevicePtr da = Upload(a), db = Upload(b), dd = Upload(std::vector<uint32_t>(a.size()));
  QWEN_OK(Run(k, static_cast<unsigned>(16 * s.k), 32, da, db, dd));
  std::vector<uint32_t> d = Download<uint32_t>(dd, a.size());
  for (int p = 0; p < 16 * s.k; ++p)
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column) {
        double expected = row == p / s.k ? s.value[Which(p % s.k, column)] : 0.0;
        int lane = row % 8 * 4 + column / 2;
        size_t block = static_cast<size_t>(p) * 128;
        double got = 0;
        if (s.out == 'h') {
          uint32_t h = d[block + static_cast<size_t>(row / 8 * 32 + lane)] >> (16 * (column % 2)) & 0xffff;
          got = h == 0 ? 0 : std::ldexp(1024 + (h & 1023), static_cast<int>(h >> 10) - 25);
        } else {
          uint32_t word = d[block + static_cast<size_t>((row / 8 * 2 + column % 2) * 32 + lane)];
          got = s.out == 'f' ? std::bit_cast<float>(word) : static_cast<int32_t>(word);
        }
        ASSERT_EQ(got, expected) << fmt::format("one at ({}, {}), result ({}, {})", p / s.k, p % s.k, row, column);
      }
}
INSTANTIATE_TEST_SUITE_P(All, MmaTest, ::testing::ValuesIn(kShapes),
                         [](const auto& info) { return std::string(info.param.name); });

using MatrixTest = GpuTest;

/// Element (row, column) of matrix m is 64 m + 8 row + column.
TEST_F(MatrixTest, LdmatrixMovesEveryElement) {
  for (int matrices : {1, 2, 4})
    for (bool transposed : {false, true}) {
      std::string out = "{", stores;
      for (int m = 0; m < matrices; ++m) {
        out += fmt::format("{}%r{}", m ? "," : "", 10 + m);
        stores += fmt::format("st.global.b32 [%rd2+{}], %r{};", 128 * m, 10 + m);
      }
      abi::Function* k = Kernel(fmt::format(R"(
.visible .entry k(.param .u64 out) {{
  .reg .b32 %r<32>; .reg .b64 %rd<4>; .reg .b16 %h<2>; .reg .pred %p<2>; .shared .align 16 .b8 tile[512];
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd1, %rd2;
  mov.u32 %r2, %r1; mov.u32 %r4, tile;
$fill:
  shl.b32 %r3, %r2, 1; add.u32 %r3, %r3, %r4; cvt.u16.u32 %h1, %r2; st.shared.u16 [%r3], %h1;
  add.u32 %r2, %r2, 32; setp.lt.u32 %p1, %r2, 256; @%p1 bra $fill;
  bar.sync 0;
  shl.b32 %r3, %r1, 4; add.u32 %r3, %r3, %r4;
  ldmatrix.sync.aligned.m8n8.x{}{}.shared.b16 {}}}, [%r3];
  {} ret;
}})",
                                            matrices, transposed ? ".trans" : "", out, stores));
      abi::DevicePtr address = Allocate(512);
      QWEN_OK(Run(k, 1, 32, address));
      std::vector<uint32_t> words = Download<uint32_t>(address, static_cast<size_t>(matrices) * 32);
      for (int m = 0; m < matrices; ++m)
        for (int lane = 0; lane < 32; ++lane) {
          int g = lane / 4, t = lane % 4;
          uint32_t low = static_cast<uint32_t>(64 * m + (transposed ? 8 * (2 * t) + g : 8 * g + 2 * t));
          uint32_t high = static_cast<uint32_t>(64 * m + (transposed ? 8 * (2 * t + 1) + g : 8 * g + 2 * t + 1));
          ASSERT_EQ(words[static_cast<size_t>(32 * m + lane)], high << 16 | low) << m << " " << lane << transposed;
        }
    }
}

TEST_F(MatrixTest, MovmatrixTransposes) {
  abi::Function* k = Kernel(R"(
.visible .entry k(.param .u64 out) {
  .reg .b32 %r<8>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd1, %rd2;
  shl.b32 %r2, %r1, 1; add.u32 %r3, %r2, 1; shl.b32 %r3, %r3, 16; or.b32 %r2, %r2, %r3;
  movmatrix.sync.aligned.m8n8.trans.b16 %r4, %r2; st.global.b32 [%rd2], %r4; ret;
})");
  abi::DevicePtr address = Allocate(128);
  QWEN_OK(Run(k, 1, 32, address));
  std::vector<uint32_t> words = Download<uint32_t>(address, 32);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    uint32_t g = lane / 4, t = lane % 4;
    ASSERT_EQ(words[lane], (8 * (2 * t + 1) + g) << 16 | (8 * (2 * t) + g)) << lane;
  }
}

}  // namespace
}  // namespace qwen::emu
