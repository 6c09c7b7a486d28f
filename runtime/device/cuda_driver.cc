#include "runtime/device/cuda_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <type_traits>
#include <utility>

namespace qwen::device {
namespace {

constexpr int kLeastVersion = 13000;  // of the driver's API: NVRTC 13 writes PTX 9.0, which older ones do not know
constexpr int kStubLibrary = 34;      // CUDA_ERROR_STUB_LIBRARY: the toolkit's libcuda, without a driver behind it
// CU_DEVICE_ATTRIBUTE_*: COMPUTE_CAPABILITY_MAJOR and _MINOR; CLOCK_RATE and MEMORY_CLOCK_RATE in kHz;
// GLOBAL_MEMORY_BUS_WIDTH in bits; MULTIPROCESSOR_COUNT.
constexpr int kMajor = 75, kMinor = 76, kClock = 13, kMemoryClock = 36, kBusWidth = 37, kMultiprocessors = 16;
// Products of two bf16 numbers a multiprocessor adds to f32 in a clock. GeForce cards of Ada do half of what their
// professional sisters do, and are those our users have (RTX 4090: 165 Tflop/s).
constexpr int kAdaProducts = 256, kHopperProducts = 2048;

StatusOr<const CudaDriver*> OpenOnce() {
  const char* asked = std::getenv("QWENRT_CUDA_DRIVER");
  const char* name = asked && *asked ? asked : "libcuda.so.1";
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!library) return UnimplementedError(fmt::format("no CUDA driver: {}", dlerror()), "install NVIDIA's driver 580");
  static CudaDriver driver;
  std::string missing;
  auto load = [&](const char* symbol, auto* to) {
    *to = reinterpret_cast<std::remove_pointer_t<decltype(to)>>(dlsym(library, symbol));
    if (!*to && missing.empty()) missing = symbol;
  };
#define QWEN_CUDA_SYMBOL(name, parameters) load(#name, &driver.name);
#include "runtime/device/cuda_symbols.def"
  int version = 0;
  if (driver.cuDriverGetVersion) driver.cuDriverGetVersion(&version);
  if (!missing.empty() || version < kLeastVersion)
    return UnimplementedError(
        fmt::format("{}: is for CUDA {}.{}{}, want at least {}.{}", name, version / 1000, version % 1000 / 10,
                    missing.empty() ? "" : " and has no " + missing, kLeastVersion / 1000, kLeastVersion % 1000 / 10),
        "install NVIDIA's driver 580 or newer");
  if (const CudaResult result = driver.cuInit(0); result != 0) {
    if (result == kStubLibrary)
      return UnimplementedError(fmt::format("{}: is the toolkit's stub, there is no driver", name),
                                "install NVIDIA's driver 580");
    return UnimplementedError(driver.Check(result, "cuInit").message());
  }
  return static_cast<const CudaDriver*>(&driver);
}

}  // namespace

StatusOr<const CudaDriver*> CudaDriver::Open() {
  static const StatusOr<const CudaDriver*> opened = OpenOnce();
  return opened;
}

Status CudaDriver::Check(CudaResult result, const char* call) const {
  if (result == 0) return {};
  const char *name = nullptr, *what = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &what);
  constexpr CudaResult kOutOfMemory = 2;
  std::string message =
      fmt::format("{}: {} ({})", call, name ? name : std::to_string(result), what ? what : "unknown error");
  return result == kOutOfMemory ? ResourceExhaustedError(std::move(message)) : InternalError(std::move(message));
}

StatusOr<std::vector<CudaCard>> CudaCards() {
  QWEN_ASSIGN_OR_RETURN(const CudaDriver* cu, CudaDriver::Open());
  int count = 0;
  QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGetCount(&count), "cuDeviceGetCount"));
  std::vector<CudaCard> cards;
  std::string left;
  for (int i = 0; i < count; ++i) {
    CudaCard card{.ordinal = i};
    int device = 0;
    size_t bytes = 0;
    char name[128] = {};
    QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGet(&device, i), "cuDeviceGet"));
    QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGetName(name, sizeof name - 1, device), "cuDeviceGetName"));
    QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceTotalMem_v2(&bytes, device), "cuDeviceTotalMem"));
    QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGetAttribute(&card.major, kMajor, device), "cuDeviceGetAttribute"));
    QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGetAttribute(&card.minor, kMinor, device), "cuDeviceGetAttribute"));
    int clock = 0, memory_clock = 0, bus_bits = 0, multiprocessors = 0;
    for (auto [attribute, to] : {std::pair{kClock, &clock}, std::pair{kMemoryClock, &memory_clock},
                                 std::pair{kBusWidth, &bus_bits}, std::pair{kMultiprocessors, &multiprocessors}})
      QWEN_RETURN_IF_ERROR(cu->Check(cu->cuDeviceGetAttribute(to, attribute, device), "cuDeviceGetAttribute"));
    card.bytes_per_second = 2.0 * memory_clock * 1e3 * bus_bits / 8;  // two transfers a clock
    card.flops_per_second = 2.0 * multiprocessors * clock * 1e3 * (card.major == 8 ? kAdaProducts : kHopperProducts);
    card.name = name;
    card.memory_bytes = static_cast<int64_t>(bytes);
    if (card.major * 10 + card.minor >= 89)
      cards.push_back(std::move(card));
    else
      left = fmt::format("; {} has compute capability {}.{}, want at least 8.9", name, card.major, card.minor);
  }
  if (cards.empty()) return UnimplementedError("no CUDA card that runs sm_89 plans" + left);
  return cards;
}

}  // namespace qwen::device
