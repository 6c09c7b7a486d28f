// The whole product against transformers: config.json -> plan -> logits of every row.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
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
  /// Some cases of a checkpoint.
  struct Range {
    size_t first, end;
  };
  void Compile(const std::string& dtype) {
    std::vector<std::string> arguments = {"compile", GoldenDir(name()), "-o", temp_ / "m.plan", "--dtype", dtype};
    if (cuda())  // a step of 256 rows is enough, and its logits are fewer
      for (const char* flag : {"--target=sm_89", "--max-num-batched-tokens=256"}) arguments.push_back(flag);
    CommandResult compile = RunProgram("qwenc", arguments);
    ASSERT_EQ(compile.exit_code, 0) << compile.output;
  }
  /// The logits of the cases, by their index.
  std::map<std::string, Tensor> Run(Range range = {0, SIZE_MAX}, std::vector<std::string> flags = {}) {
    std::vector<std::vector<int>> cases = Cases(name());
    cases.resize(std::min(range.end, cases.size()));
    cases.erase(cases.begin(), cases.begin() + static_cast<std::ptrdiff_t>(range.first));
    WriteCases(temp_ / "cases.json", cases);
    flags.push_back(cuda() ? "--device" : "--isa");
    flags.push_back(isa());
    auto got =
        Logits(temp_ / "m.plan", GoldenDir(name()), temp_ / "cases.json", temp_ / "out.safetensors", flags);
    EXPECT_EQ(got.size(), cases.size());
    std::map<std::string, Tensor> by_index;
    for (size_t i = 0; i < cases.size(); ++i)
      by_index[std::to_string(range.first + i)] = std::move(got[std::to_string(i)]);
    return by_index;
  }
  void CheckF32(const std::string& title, const std::map<std::string, Tensor>& got);
  void CheckBf16(const std::string& title, const std::map<std::string, Tensor>& got);
  TempDir temp_;
};

// The bound is contracts, section 11: f32 through fused kernels, whose sums run in another order.
void GoldenRuntime::CheckF32(const std::string& title, const std::map<std::string, Tensor>& got) {
  auto golden = ReadTensors(GoldenDir(name()) + "/golden.safetensors");
  double worst = 0;
  for (const auto& [index, tensor] : got) worst = std::max(worst, Worst(RowErrors(tensor, golden[index])));
  Figure("golden f32 " + title, fmt::format("worst row {:.2e} (allowed 1e-4)", worst));
  EXPECT_LE(worst, 1e-4);
}

// bf16 weights and activations against the f32 golden of the same bf16 weights. In a mixture of experts a rounding may
// flip the choice of an expert; such rows, and the rows that read them, are far off without anything being wrong.
void GoldenRuntime::CheckBf16(const std::string& title, const std::map<std::string, Tensor>& got) {
  auto golden = ReadTensors(GoldenDir(name()) + "/golden.safetensors");
  std::vector<double> errors;
  for (const auto& [index, tensor] : got)
    for (double error : RowErrors(tensor, golden[index])) errors.push_back(error);
  ASSERT_FALSE(errors.empty());
  constexpr double kBound = 2e-2;
  size_t beyond = std::count_if(errors.begin(), errors.end(), [](double e) { return e > kBound; });
  std::sort(errors.begin(), errors.end());
  double median = errors[errors.size() / 2], worst = errors.back();
  Figure("golden bf16 " + title, fmt::format("worst row {:.2e}, median {:.2e}, {} of {} rows beyond 2e-2", worst,
                                             median, beyond, errors.size()));
  if (name().find("moe") == std::string::npos && name().find("next") == std::string::npos) {
    EXPECT_LE(worst, kBound);
  } else {
    EXPECT_LE(double(beyond), 0.1 * double(errors.size()));
    EXPECT_LE(median, kBound / 2);
  }
}

TEST_P(GoldenRuntime, F32WorstRow) {
  if (cuda() && !name().ends_with("-a")) GTEST_SKIP() << "one of each type on CUDA: the others take the same kernels";
  ASSERT_NO_FATAL_FAILURE(Compile("f32"));
  CheckF32(Title(), Run());
}

TEST_P(GoldenRuntime, Bf16) {
  ASSERT_NO_FATAL_FAILURE(Compile("bf16"));
  CheckBf16(Title(), Run());
}

// The kernels of short sequences, which a case in one call never takes. A run of the emulator costs by its rows: the
// case of 300 tokens, several parts of the keys, is for f32, which sees them best; bf16 has the others.
class GoldenCalls : public GoldenRuntime {
 protected:
  static constexpr Range kShorter{0, 7}, kLongest{7, 8};
  // A prompt of 60 rows, four steps of one, and so on: decode on the pages and the recurrent state of a prompt.
  static constexpr const char* kPromptThenSteps = "60,1,1,1,1";
};

TEST_P(GoldenCalls, F32) {
  ASSERT_NO_FATAL_FAILURE(Compile("f32"));
  CheckF32(Title() + ", prompt then steps", Run(kLongest, {"--split", kPromptThenSteps}));
}

TEST_P(GoldenCalls, Bf16) {
  ASSERT_NO_FATAL_FAILURE(Compile("bf16"));
  CheckBf16(Title() + ", prompt then steps", Run(kShorter, {"--split", kPromptThenSteps}));
  CheckBf16(Title() + ", random calls", Run(kShorter, {"--split", "random:1"}));
  // Sequences of one row beside prompts, fewer as the cases end: ragged, and of another size each step.
  CheckBf16(Title() + ", ragged batches", Run(kShorter, {"--batch", "--split", "1,60,1,1,1,3"}));
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
INSTANTIATE_TEST_SUITE_P(Cuda, GoldenCalls,
                         testing::Combine(testing::ValuesIn(OneOfEachType()), testing::Values("cuda")),
                         NameOf);

}  // namespace
}  // namespace qwen::e2e
