// What the tests know of a GPU: the driver API, opened at run time. QWENRT_CUDA_DRIVER names the library, the emulator
// without it; with a real libcuda.so.1 the same tests run on the card, but for those that ask the emulator a question.
#ifndef QWEN_TEST_CUDA_EMULATOR_TESTS_GPU_H_
#define QWEN_TEST_CUDA_EMULATOR_TESTS_GPU_H_

#include <dlfcn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "test/cuda_emulator/driver_abi.h"

namespace qwen::emu {

struct Api {
#define QWEN_ROW(name, parameters) abi::Result(*name) parameters = nullptr;
  QWEN_EMU_ENTRY_POINTS(QWEN_ROW)
#undef QWEN_ROW
  // Of the emulator alone.
  const char* (*last_fault)() = nullptr;
  const char* (*report)() = nullptr;
  std::string missing;

  static const Api& Get() {
    static const Api* api = [] {
      auto* a = new Api;
      // What the tests count on; the environment may say otherwise.
      setenv("QWEN_CUDA_EMULATOR_DEVICES", "2", 0);
      setenv("QWEN_CUDA_EMULATOR_SPIN_LIMIT", "200000", 0);
      const char* path = std::getenv("QWENRT_CUDA_DRIVER");
      void* library = dlopen(path ? path : QWEN_CUDA_EMULATOR, RTLD_NOW | RTLD_LOCAL);
      if (!library) {
        a->missing = dlerror();
        return a;
      }
      auto load = [&](const char* name, auto* to) {
        *to = reinterpret_cast<std::remove_pointer_t<decltype(to)>>(dlsym(library, name));
        if (!*to) a->missing += fmt::format(" {}", name);
      };
#define QWEN_ROW(name, parameters) load(#name, &a->name);
      QWEN_EMU_ENTRY_POINTS(QWEN_ROW)
#undef QWEN_ROW
      a->last_fault = reinterpret_cast<const char* (*)()>(dlsym(library, "qwenEmuLastFault"));
      a->report = reinterpret_cast<const char* (*)()>(dlsym(library, "qwenEmuReportJson"));
      return a;
    }();
    return *api;
  }
};

#define QWEN_OK(call) ASSERT_EQ((call), ::qwen::emu::abi::kSuccess) << Fault()

/// A primary context on device 0, fresh for each test.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cu.missing, "");
    if (cu.cuInit(0) != abi::kSuccess) GTEST_SKIP() << "no device";
    QWEN_OK(cu.cuDevicePrimaryCtxRetain(&context, 0));
    QWEN_OK(cu.cuCtxSetCurrent(context));
  }
  void TearDown() override {
    if (!context) return;
    cu.cuCtxSetCurrent(nullptr);
    cu.cuDevicePrimaryCtxReset_v2(0);
  }

  std::string Fault() const { return cu.last_fault ? cu.last_fault() : ""; }
  bool emulated() const { return cu.last_fault != nullptr; }

  /// The kernel `k` of a module: a header, then `text`.
  abi::Function* Kernel(std::string_view text, const char* name = "k") {
    std::string ptx = fmt::format(".version 8.8\n.target sm_89\n.address_size 64\n{}", text);
    std::string log(4096, '\0');
    int options[] = {abi::kJitErrorLogBuffer, abi::kJitErrorLogBufferSizeBytes};
    void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
    abi::Module* module = nullptr;
    abi::Function* function = nullptr;
    abi::Result result = cu.cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values);
    EXPECT_EQ(result, abi::kSuccess) << log.c_str();
    if (result == abi::kSuccess) {
      EXPECT_EQ(cu.cuModuleGetFunction(&function, module, name), abi::kSuccess);
    }
    return function;
  }

  /// Device memory with `values` in it.
  template <class T>
  abi::DevicePtr Upload(const std::vector<T>& values) {
    abi::DevicePtr address = 0;
    EXPECT_EQ(cu.cuMemAlloc_v2(&address, values.size() * sizeof(T)), abi::kSuccess);
    EXPECT_EQ(cu.cuMemcpyHtoD_v2(address, values.data(), values.size() * sizeof(T)), abi::kSuccess);
    return address;
  }
  abi::DevicePtr Allocate(size_t bytes) {
    abi::DevicePtr address = 0;
    EXPECT_EQ(cu.cuMemAlloc_v2(&address, bytes), abi::kSuccess);
    return address;
  }
  template <class T>
  std::vector<T> Download(abi::DevicePtr address, size_t count) {
    std::vector<T> values(count);
    EXPECT_EQ(cu.cuMemcpyDtoH_v2(values.data(), address, count * sizeof(T)), abi::kSuccess) << Fault();
    return values;
  }
  template <class... A>
  abi::Result Launch(abi::Function* f, unsigned blocks, unsigned threads, unsigned shared, abi::Stream* stream,
                     A... arguments) {
    void* params[] = {&arguments..., nullptr};
    return cu.cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, shared, stream, params, nullptr);
  }
  /// Launches and waits.
  template <class... A>
  abi::Result Run(abi::Function* f, unsigned blocks, unsigned threads, A... arguments) {
    if (!f) return abi::kInvalidHandle;
    abi::Result result = Launch(f, blocks, threads, 0, nullptr, arguments...);
    return result != abi::kSuccess ? result : cu.cuCtxSynchronize();
  }

  const Api& cu = Api::Get();
  abi::Context* context = nullptr;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_TESTS_GPU_H_
