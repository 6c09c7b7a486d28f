// The whole product against transformers: config.json -> plan -> logits of every row.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "test/e2e/support.h"

namespace qwen::e2e {
namespace {

// A checkpoint, and the instruction set to run it with.
using Param = std::tuple<std::string, std::string>;

class GoldenRuntime : public testing::TestWithParam<Param> {
 protected:
  const std::string& name() const { return std::get<0>(GetParam()); }
  const std::string& isa() const { return std::get<1>(GetParam()); }
  std::string Title() const { return name() + " " + isa(); }

  void SetUp() override {
    static const std::string devices = RunProgram("qwenrt", {"devices", "--json"}).output;
    if (devices.find(fmt::format("\"{}\": true", isa())) == std::string::npos)
      GTEST_SKIP() << "this machine has no " << isa();
  }
  std::map<std::string, Tensor> Run(const std::vector<std::string>& compile_flags) {
    std::string dir = GoldenDir(name());
    std::vector<std::string> arguments = {"compile", dir, "-o", temp_ / "m.plan"};
    arguments.insert(arguments.end(), compile_flags.begin(), compile_flags.end());
    CommandResult compile = RunProgram("qwenc", arguments);
    EXPECT_EQ(compile.exit_code, 0) << compile.output;
    return Logits(temp_ / "m.plan", dir, dir + "/cases.json", temp_ / "out.safetensors", {"--isa", isa()});
  }
  TempDir temp_;
};

// The bound is contracts, section 11: f32 through fused kernels, whose sums run in another order.
TEST_P(GoldenRuntime, F32WorstRow) {
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
INSTANTIATE_TEST_SUITE_P(All, GoldenRuntime,
                         testing::Combine(testing::ValuesIn(Goldens()),
                                          testing::Values("base", "avx2", "avx512", "amx")),
                         NameOf);

}  // namespace
}  // namespace qwen::e2e
