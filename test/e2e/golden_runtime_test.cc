// The whole product against transformers: config.json -> plan -> logits of every row.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "compiler/codegen/Nvrtc.h"
#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

// A checkpoint, and the instruction set to run it with, or "cuda": the emulator, or what QWENRT_CUDA_DRIVER names.
using Param = std::tuple<std::string, std::string>;

class GoldenRuntime : public testing::TestWithParam<Param> {
 protected:
  const std::string& name() const { return std::get<0>(GetParam()); }
  const std::string& isa() const { return std::get<1>(GetParam()); }
  std::string Title() const { return name() + " " + isa(); }

  bool cuda() const { return isa() == "cuda"; }

  void SetUp() override {
    if (cuda()) {
      setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, /*overwrite=*/0);
      if (auto nvrtc = compiler::Nvrtc::open(); !nvrtc.ok()) GTEST_SKIP() << nvrtc.status().message();
      return;
    }
    static const std::string devices = RunProgram("qwenrt", {"devices", "--json"}).output;
    if (devices.find(fmt::format("\"{}\": true", isa())) == std::string::npos)
      GTEST_SKIP() << "this machine has no " << isa();
  }
  std::map<std::string, Tensor> Run(const std::vector<std::string>& compile_flags) {
    std::string dir = GoldenDir(name());
    std::vector<std::string> arguments = {"compile", dir, "-o", temp_ / "m.plan"};
    arguments.insert(arguments.end(), compile_flags.begin(), compile_flags.end());
    if (cuda())  // a step of 256 rows is enough, and its logits are fewer
      for (const char* flag : {"--target=sm_89", "--max-num-batched-tokens=256"}) arguments.push_back(flag);
    CommandResult compile = RunProgram("qwenc", arguments);
    EXPECT_EQ(compile.exit_code, 0) << compile.output;
    return Logits(temp_ / "m.plan", dir, dir + "/cases.json", temp_ / "out.safetensors",
                  cuda() ? std::vector<std::string>{"--device", "cuda"} : std::vector<std::string>{"--isa", isa()});
  }
  TempDir temp_;
};

// The bound is contracts, section 11: f32 through fused kernels, whose sums run in another order.
TEST_P(GoldenRuntime, F32WorstRow) {
  if (cuda() && !name().ends_with("-a")) GTEST_SKIP() << "one of each type on CUDA: the others take the same kernels";
  auto golden = ReadTensors(GoldenDir(name()) + "/golden.safetensors");
  auto got = Run({"--dtype", "f32"});
  double worst = 0;
  size_t cases = Cases(name()).size();
  ASSERT_EQ(got.size(), cases);
  for (size_t i = 0; i < cases; ++i)
    worst = std::max(worst, Worst(RowErrors(got[std::to_string(i)], golden[std::to_string(i)])));
  Figure("golden f32 " + Title(), fmt::format("worst row {:.2e} (allowed 1e-4)", worst));
  EXPECT_LE(worst, 1e-4);
}

// bf16 weights and activations against the f32 golden of the same bf16 weights. In a mixture of experts a rounding may
// flip the choice of an expert; such rows, and the rows that read them, are far off without anything being wrong.
TEST_P(GoldenRuntime, Bf16) {
  auto golden = ReadTensors(GoldenDir(name()) + "/golden.safetensors");
  auto got = Run({"--dtype", "bf16"});
  std::vector<double> errors;
  size_t cases = Cases(name()).size();
  ASSERT_EQ(got.size(), cases);
  for (size_t i = 0; i < cases; ++i)
    for (double error : RowErrors(got[std::to_string(i)], golden[std::to_string(i)])) errors.push_back(error);
  constexpr double kBound = 2e-2;
  size_t beyond = std::count_if(errors.begin(), errors.end(), [](double e) { return e > kBound; });
  std::sort(errors.begin(), errors.end());
  double median = errors[errors.size() / 2], worst = errors.back();
  Figure("golden bf16 " + Title(), fmt::format("worst row {:.2e}, median {:.2e}, {} of {} rows beyond 2e-2", worst,
                                               median, beyond, errors.size()));
  if (name().find("moe") == std::string::npos && name().find("next") == std::string::npos) {
    EXPECT_LE(worst, kBound);
  } else {
    EXPECT_LE(double(beyond), 0.1 * double(errors.size()));
    EXPECT_LE(median, kBound / 2);
  }
}

std::string NameOf(const testing::TestParamInfo<Param>& info) {
  std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Cuda, GoldenRuntime, testing::Combine(testing::ValuesIn(Goldens()), testing::Values("cuda")),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(All, GoldenRuntime,
                         testing::Combine(testing::ValuesIn(Goldens()),
                                          testing::Values("base", "avx2", "avx512", "amx")),
                         NameOf);

}  // namespace
}  // namespace qwen::e2e
