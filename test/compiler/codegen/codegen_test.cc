// Kernel records to PTX: what is written for a Spec, what NVRTC says of a bad one, what the cache keeps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "compiler/codegen/CompileKernels.h"
#include "compiler/codegen/SpecEmitter.h"
#include "runtime/base/file.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "runtime/kernels/spec_fields.h"

namespace qwen::compiler {
namespace {

using testing::HasSubstr;

plan::Kernel Norm(int channels) {
  const kernels::RmsNormSpec spec{.channels = channels, .eps = 1e-6f, .round_first = 0, .add = 1, .type = DType::kBF16};
  return {.name = "add_rms_norm__c" + std::to_string(channels), .family = "rms_norm", .entry = "add_rms_norm",
          .target = "sm_89", .spec = kernels::ToFields(spec),
          .launch = kernels::FindCudaKernel("add_rms_norm")->shape(&spec)};
}

class Codegen : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("codegen_test." + std::to_string(getpid()));
    std::filesystem::remove_all(folder_);
    auto opened = Nvrtc::open();
    if (!opened.ok()) GTEST_SKIP() << opened.status().message();
    nvrtc_ = *opened;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  KernelFigures Compile(plan::Plan& plan) {
    size_t failed = 0;
    auto figures = compileKernels(plan, *nvrtc_, {.cacheDir = folder_}, &failed);
    EXPECT_TRUE(figures.ok()) << figures.status().message();
    return figures.ok() ? *figures : KernelFigures{-1, -1};
  }
  std::string folder_;
  const Nvrtc* nvrtc_ = nullptr;
};

TEST(SpecEmitter, EveryFieldIsAConstant) {
  const plan::Kernel kernel = Norm(40);
  const std::string source = emitCudaSource(kernel, *kernels::FindCudaKernel("add_rms_norm"), kernel.launch, 5);
  EXPECT_THAT(source, HasSubstr("#include \"runtime/kernels/rms_norm/rms_norm.cuh\""));
  EXPECT_THAT(source, HasSubstr("static constexpr int kThreads = 64;"));
  EXPECT_THAT(source, HasSubstr("static constexpr int channels = 40;"));
  EXPECT_THAT(source, HasSubstr("static constexpr float eps = __builtin_bit_cast(float, 0x358637bdu);"));  // 1e-6
  EXPECT_THAT(source, HasSubstr("static constexpr qwen::DType type = qwen::DType(1);"));
  EXPECT_THAT(source, HasSubstr("void add_rms_norm__c40(const __grid_constant__ qwen::kernels::cuda::Launch<5> launch)"));
}

TEST(SpecEmitter, HeadersAreBuiltInAsTheyStandInTheTree) {
  ASSERT_FALSE(deviceHeaders().empty());
  for (const DeviceHeader& header : deviceHeaders()) {
    auto file = ReadFile(std::string(QWEN_SOURCE_DIR "/") + header.name, 1 << 20);
    ASSERT_TRUE(file.ok()) << header.name;
    EXPECT_EQ(*file, header.text) << header.name;
  }
}

TEST_F(Codegen, PtxHasTheKernelsNameAndIsCompiledOnce) {
  plan::Plan plan;
  plan.kernels = {Norm(40), Norm(64)};
  EXPECT_EQ(Compile(plan).compiled, 2);
  ASSERT_EQ(plan.blobs.size(), 2u);
  for (const plan::Kernel& kernel : plan.kernels) {
    const auto& bytes = plan.blobs.at(kernel.ptx).bytes;
    const std::string text(bytes.begin(), bytes.end());
    EXPECT_THAT(text, HasSubstr(".entry " + kernel.name));
    EXPECT_THAT(text, HasSubstr(".target sm_89"));
    EXPECT_EQ(text.find('\0'), std::string::npos);
  }
  plan::Plan again;
  again.kernels = {Norm(64), Norm(40), Norm(72)};
  const KernelFigures figures = Compile(again);
  EXPECT_EQ(figures.cached, 2);
  EXPECT_EQ(figures.compiled, 1);
  EXPECT_EQ(again.blobs.at(again.kernels[0].ptx).bytes, plan.blobs.at(plan.kernels[1].ptx).bytes);
}

TEST_F(Codegen, ADamagedCacheIsMadeAnew) {
  plan::Plan plan;
  plan.kernels = {Norm(40)};
  EXPECT_EQ(Compile(plan).compiled, 1);
  const std::vector<uint8_t> ptx = plan.blobs[0].bytes;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    const std::string file = *ReadFile(entry.path(), 1 << 24);
    for (const std::string& damaged : {file.substr(0, file.size() / 2), file + "x", std::string(), std::string("\n")}) {
      ASSERT_TRUE(WriteFileAtomic(entry.path(), damaged, true).ok());
      plan::Plan again;
      again.kernels = {Norm(40)};
      EXPECT_EQ(Compile(again).compiled, 1);
      EXPECT_EQ(again.blobs[0].bytes, ptx);
    }
  }
}

TEST_F(Codegen, ABadSpecIsTheCatalogues) {
  plan::Plan plan;
  plan.kernels = {Norm(40)};
  plan.kernels[0].spec.back().ints = {3};  // i32, which no kernel computes in
  size_t failed = 0;
  auto figures = compileKernels(plan, *nvrtc_, {}, &failed);
  ASSERT_FALSE(figures.ok());
  EXPECT_THAT(figures.status().message(), HasSubstr("field type is i32"));
  EXPECT_TRUE(plan.blobs.empty());
}

TEST_F(Codegen, NvrtcsWordsComeBack) {
  auto ptx = nvrtc_->compile("broken", "#include \"runtime/kernels/cuda/types.cuh\"\nint f() { return nothing; }\n");
  ASSERT_FALSE(ptx.ok());
  EXPECT_THAT(ptx.status().message(), HasSubstr("kernel broken: NVRTC_ERROR_COMPILATION"));
  EXPECT_THAT(ptx.status().message(), HasSubstr("broken.cu(2): error: identifier \"nothing\" is undefined"));
}

}  // namespace
}  // namespace qwen::compiler
