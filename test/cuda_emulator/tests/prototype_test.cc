// Kernels as nvcc writes them: the PTX of real CUDA C++ loads, and gives what a host reference gives.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <tuple>

#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

float Half(uint16_t h) {
  int exponent = h >> 10 & 31, mantissa = h & 1023;
  float sign = h & 0x8000 ? -1.0f : 1.0f;
  return exponent ? sign * std::ldexp(1024.0f + mantissa, exponent - 25) : sign * std::ldexp(float(mantissa), -24);
}
uint16_t ToHalf(float x) {
  _Float16 h = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
float Bf16(uint16_t b) {
  uint32_t bits = uint32_t{b} << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
uint16_t ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

class PrototypeTest : public GpuTest {
 protected:
  /// The PTX of tests/kernels/<name>.cu; empty without nvcc.
  std::string Compile(const char* name) {
#ifdef QWEN_NVCC
    std::string out = ::testing::TempDir() + fmt::format("qwen_{}_{}.ptx", name, getpid());
    std::string command =
        fmt::format("'{}' -arch=compute_89 -ptx -O3 '{}/test/cuda_emulator/tests/kernels/{}.cu' -o '{}'", QWEN_NVCC,
                    QWEN_SOURCE_DIR, name, out);
    if (std::system(command.c_str()) != 0) return "";
    std::stringstream text;
    text << std::ifstream(out).rdbuf();
    std::remove(out.c_str());
    return text.str();
#else
    return "";
#endif
  }
  abi::Module* Load(const std::string& ptx) {
    abi::Module* module = nullptr;
    EXPECT_EQ(cu.cuModuleLoadData(&module, ptx.c_str()), abi::kSuccess) << Fault();
    return module;
  }
};

/// One chunk of the delta rule's scan after another: o = eG (Q S0^T) + P N, N = T (V - eG (K S0^T)),
/// S = gl S0 + (eR N)^T K, in double. Tolerance: operands of the second and third product are rounded to f16.
TEST_F(PrototypeTest, ChunkedScanOfTheDeltaRule) {
  std::string ptx = Compile("gdn_scan");
  if (ptx.empty()) GTEST_SKIP() << "no nvcc";
  abi::Module* module = Load(ptx);
  ASSERT_NE(module, nullptr);
  for (auto [name, smem_name, c, has_output] :
       {std::tuple{"full_c32", "full_c32_smem", 32, true}, std::tuple{"full_c16", "full_c16_smem", 16, true},
        std::tuple{"state_c32", "state_c32_smem", 32, false}}) {
    constexpr int kChunks = 3, kDk = 128, kDv = 64;
    std::mt19937 random(5);
    auto uniform = [&](float scale) { return std::uniform_real_distribution<float>(-scale, scale)(random); };
    int tokens = c * kChunks;
    std::vector<uint16_t> q(tokens * kDk), k(q.size()), v(tokens * kDv), t(kChunks * c * c), p(t.size());
    for (auto* m : {&q, &k})
      for (uint16_t& x : *m) x = ToHalf(uniform(0.15f));
    for (uint16_t& x : v) x = ToHalf(uniform(1));
    for (int chunk = 0; chunk < kChunks; ++chunk)
      for (int i = 0; i < c; ++i)
        for (int j = 0; j <= i; ++j) {
          t[static_cast<size_t>((chunk * c + i) * c + j)] = ToHalf(i == j ? 1 : uniform(0.2f));
          p[static_cast<size_t>((chunk * c + i) * c + j)] = ToHalf(uniform(0.3f));
        }
    std::vector<float> gates(static_cast<size_t>(kChunks * 3 * c)), state(kDv * kDk);
    for (float& x : gates) x = 0.5f + 0.5f * std::fabs(uniform(1));
    for (float& x : state) x = uniform(1);

    abi::Function* f = nullptr;
    QWEN_OK(cu.cuModuleGetFunction(&f, module, name));
    abi::DevicePtr smem_address = 0;
    size_t bytes = 0;
    QWEN_OK(cu.cuModuleGetGlobal_v2(&smem_address, &bytes, module, smem_name));
    int smem = Download<int>(smem_address, 1)[0];
    QWEN_OK(cu.cuFuncSetAttribute(f, abi::kFuncMaxDynamicSharedSizeBytes, smem));
    abi::DevicePtr dq = Upload(q), dk = Upload(k), dv = Upload(v), dt = Upload(t), dp = Upload(p), dg = Upload(gates),
                   ds = Upload(state), dr = Allocate(state.size() * 4), dout = Allocate(v.size() * 2);
    QWEN_OK(Launch(f, 1, 128, static_cast<unsigned>(smem), nullptr, dq, dk, dv, dt, dp, dg, ds, dr, dout, kChunks, kDk,
                   kDv));
    QWEN_OK(cu.cuCtxSynchronize());

    std::vector<double> s(state.begin(), state.end());
    std::vector<double> expected(static_cast<size_t>(tokens * kDv));
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const float* g = &gates[static_cast<size_t>(chunk * 3 * c)];
      auto dot = [&](const std::vector<uint16_t>& m, int i, int row) {
        double sum = 0;
        for (int d = 0; d < kDk; ++d)
          sum += Half(m[static_cast<size_t>((chunk * c + i) * kDk + d)]) * s[static_cast<size_t>(row * kDk + d)];
        return sum;
      };
      std::vector<double> next(s.size());
      for (int row = 0; row < kDv; ++row) {
        std::vector<double> w(static_cast<size_t>(c)), n(w.size());
        for (int i = 0; i < c; ++i)
          w[i] = Half(v[static_cast<size_t>((chunk * c + i) * kDv + row)]) - g[i] * dot(k, i, row);
        for (int i = 0; i < c; ++i)
          for (int j = 0; j <= i; ++j) n[i] += Half(t[static_cast<size_t>((chunk * c + i) * c + j)]) * w[j];
        for (int i = 0; i < c; ++i) {
          double o = g[i] * dot(q, i, row);
          for (int j = 0; j <= i; ++j) o += Half(p[static_cast<size_t>((chunk * c + i) * c + j)]) * n[j];
          expected[static_cast<size_t>((chunk * c + i) * kDv + row)] = o;
        }
        for (int d = 0; d < kDk; ++d) {
          double sum = g[2 * c] * s[static_cast<size_t>(row * kDk + d)];
          for (int i = 0; i < c; ++i) sum += g[c + i] * n[i] * Half(k[static_cast<size_t>((chunk * c + i) * kDk + d)]);
          next[static_cast<size_t>(row * kDk + d)] = sum;
        }
      }
      s = next;
    }
    std::vector<float> result = Download<float>(dr, state.size());
    double state_error = 0, scale = 0;
    for (size_t i = 0; i < s.size(); ++i)
      state_error = std::max(state_error, std::fabs(result[i] - s[i])), scale = std::max(scale, std::fabs(s[i]));
    EXPECT_LT(state_error, 4e-3 * scale) << name;
    if (!has_output) continue;
    std::vector<uint16_t> output = Download<uint16_t>(dout, v.size());
    double error = 0, largest = 0;
    for (size_t i = 0; i < expected.size(); ++i)
      error = std::max(error, std::fabs(Half(output[i]) - expected[i])),
      largest = std::max(largest, std::fabs(expected[i]));
    EXPECT_LT(error, 4e-3 * largest) << name;
  }
}

/// Weights of 4 bits in the layout of an mma's A fragments, split over 8 warps; sums in float, so 1e-4 of the largest.
TEST_F(PrototypeTest, FourBitWeights) {
  std::string ptx = Compile("gdn_decode");
  if (ptx.empty()) GTEST_SKIP() << "no nvcc";
  abi::Module* module = Load(ptx);
  ASSERT_NE(module, nullptr);
  abi::Function* f = nullptr;
  QWEN_OK(cu.cuModuleGetFunction(&f, module, "w4_n8"));
  constexpr int kK = 1024, kTiles = 2;
  std::mt19937 random(9);
  std::vector<uint32_t> weights(kTiles * kK / 64 * 32 * 4), meta(kTiles * kK / 128 * 16), x(kK / 16 * 32 * 2);
  for (uint32_t& w : weights) w = static_cast<uint32_t>(random());
  for (uint32_t& m : meta) {
    float zero = static_cast<float>(random() % 16);
    m = ToHalf(0.01f * static_cast<float>(1 + random() % 8)) | uint32_t{ToBf16(-(128 + zero))} << 16;
  }
  for (uint32_t& word : x)
    word = ToBf16(static_cast<float>(int(random() % 17) - 8) / 8) |
           uint32_t{ToBf16(static_cast<float>(int(random() % 17) - 8) / 4)} << 16;
  std::vector<double> expected(kTiles * 128);
  double largest = 0;
  for (int tile = 0; tile < kTiles; ++tile)
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 4; ++e) {
        // Result (row, column) of the lane's element e; k runs over fragments of 16.
        int row = lane / 4 + 8 * (e / 2), column = lane % 4 * 2 + e % 2;
        double sum = 0;
        for (int k16 = 0; k16 < kK / 16; ++k16)
          for (int k = 0; k < 16; ++k) {
            int at = row % 8 * 4 + k % 8 / 2, reg = row / 8 + 2 * (k / 8), half = k % 2;
            uint32_t word = weights[static_cast<size_t>(((tile * kK / 64 + k16 / 4) * 32 + at) * 4 + k16 % 4)];
            uint32_t code = word >> (4 * reg + 16 * half) & 15;
            // 0x4300 is 128 in bf16, its low bits count ones.
            uint32_t m = meta[static_cast<size_t>((tile * (kK / 128) + k16 / 8) * 16 + row)];
            double weight = (128.0 + code + Bf16(static_cast<uint16_t>(m >> 16))) * Half(static_cast<uint16_t>(m));
            uint32_t pair = x[static_cast<size_t>((k16 * 32 + column * 4 + k % 8 / 2) * 2 + k / 8)];
            sum += weight * Bf16(static_cast<uint16_t>(half ? pair >> 16 : pair));
          }
        expected[static_cast<size_t>(tile * 128 + lane * 4 + e)] = sum;
        largest = std::max(largest, std::fabs(sum));
      }
  abi::DevicePtr dw = Upload(weights), dm = Upload(meta), dx = Upload(x), dout = Allocate(expected.size() * 4);
  QWEN_OK(Run(f, 2, 256, dw, dm, dx, dout, kK, kTiles));
  std::vector<float> out = Download<float>(dout, expected.size());
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-4 * largest) << i;
}

}  // namespace
}  // namespace qwen::emu
