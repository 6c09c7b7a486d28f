// Entry points: start-up, errors, devices, contexts.
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdio>

#include "test/cuda_emulator/driver.h"

using namespace qwen::emu;
using abi::Result;

namespace {

struct AttributeRow {
  int attribute, value;
};
constexpr AttributeRow kAttributes[] = {
    {abi::kMaxThreadsPerBlock, 1024},
    {abi::kMaxBlockDimX, 1024},
    {abi::kMaxBlockDimY, 1024},
    {abi::kMaxBlockDimZ, 64},
    {abi::kMaxGridDimX, 2147483647},
    {abi::kMaxGridDimY, 65535},
    {abi::kMaxGridDimZ, 65535},
    {abi::kMaxSharedMemoryPerBlock, kSharedPerBlock},
    {abi::kTotalConstantMemory, 65536},
    {abi::kWarpSize, kLanes},
    {abi::kMaxRegistersPerBlock, 65536},
    {abi::kClockRate, 2520000},
    {abi::kMultiprocessorCount, kMultiprocessors},
    {abi::kIntegrated, 0},
    {abi::kCanMapHostMemory, 1},
    {abi::kConcurrentKernels, 1},
    {abi::kPciBusId, 1},
    {abi::kPciDeviceId, 0},
    {abi::kMemoryClockRate, 10501000},
    {abi::kGlobalMemoryBusWidth, 384},
    {abi::kL2CacheSize, 72 << 20},
    {abi::kMaxThreadsPerMultiprocessor, kThreadsPerMultiprocessor},
    {abi::kAsyncEngineCount, 2},
    {abi::kUnifiedAddressing, 1},
    {abi::kStreamPrioritiesSupported, 1},
    {abi::kMaxSharedMemoryPerMultiprocessor, kSharedPerMultiprocessor},
    {abi::kMaxRegistersPerMultiprocessor, kRegistersPerMultiprocessor},
    {abi::kManagedMemory, 0},
    {abi::kCooperativeLaunch, 1},
    {abi::kMaxSharedMemoryPerBlockOptin, kSharedPerBlockOptin},
    {abi::kMaxBlocksPerMultiprocessor, kBlocksPerMultiprocessor},
    {abi::kReservedSharedMemoryPerBlock, kSharedReserved},
};

DeviceState* Device(abi::Device device) {
  Driver& driver = Driver::Get();
  return device >= 0 && static_cast<size_t>(device) < driver.devices.size() ? driver.devices[device].get() : nullptr;
}

}  // namespace

/// The text of the last fault, refused module or refused option. Valid until the thread calls again.
QWEN_EMU_EXPORT const char* qwenEmuLastFault() { return Driver::Get().LastFault(); }
/// The report so far, as JSON. Valid until the thread calls again.
QWEN_EMU_EXPORT const char* qwenEmuReportJson() {
  static thread_local std::string json;
  json = Driver::Get().report.Json();
  return json.c_str();
}

QWEN_EMU_EXPORT Result cuInit(unsigned flags) { return flags ? abi::kInvalidValue : Driver::Get().Init(); }
QWEN_EMU_EXPORT Result cuDriverGetVersion(int* version) {
  if (!version) return abi::kInvalidValue;
  const qwen::StatusOr<Options> options = Options::FromEnvironment();  // asked before cuInit, too
  *version = (options.ok() ? *options : Options()).version;
  return abi::kSuccess;
}

QWEN_EMU_EXPORT Result cuGetErrorName(Result result, const char** name) {
  if (!name) return abi::kInvalidValue;
  switch (result) {
#define QWEN_ROW(value, text, sentence) \
  case abi::value:                      \
    *name = text;                       \
    return abi::kSuccess;
    QWEN_EMU_RESULTS(QWEN_ROW)
#undef QWEN_ROW
  }
  *name = nullptr;
  return abi::kInvalidValue;
}
QWEN_EMU_EXPORT Result cuGetErrorString(Result result, const char** string) {
  if (!string) return abi::kInvalidValue;
  switch (result) {
#define QWEN_ROW(value, text, sentence) \
  case abi::value:                      \
    *string = sentence;                 \
    return abi::kSuccess;
    QWEN_EMU_RESULTS(QWEN_ROW)
#undef QWEN_ROW
  }
  *string = nullptr;
  return abi::kInvalidValue;
}

/// Names without a suffix get the newest version there is.
QWEN_EMU_EXPORT Result cuGetProcAddress_v2(const char* symbol, void** address, int, uint64_t, int* status) {
  if (!symbol || !address) return abi::kInvalidValue;
  Dl_info info;
  *address = nullptr;
  if (dladdr(reinterpret_cast<void*>(&cuInit), &info)) {
    if (void* self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD)) {
      std::string_view name = symbol;
      if (name == "cuGraphInstantiate") symbol = "cuGraphInstantiateWithFlags";
      for (const char* suffix : {"_v4", "_v3", "_v2", ""}) {
        *address = dlsym(self, fmt::format("{}{}", symbol, suffix).c_str());
        if (*address) break;
      }
      dlclose(self);
    }
  }
  if (status) *status = *address ? 0 : 1;
  return *address ? abi::kSuccess : abi::kNotFound;
}
QWEN_EMU_EXPORT Result cuGetProcAddress(const char* symbol, void** address, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, address, version, flags, nullptr);
}

QWEN_EMU_EXPORT Result cuDeviceGetCount(int* count) {
  if (!Driver::Get().initialized()) return abi::kNotInitialized;
  if (!count) return abi::kInvalidValue;
  *count = static_cast<int>(Driver::Get().devices.size());
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceGet(abi::Device* device, int ordinal) {
  if (!Driver::Get().initialized()) return abi::kNotInitialized;
  if (!device) return abi::kInvalidValue;
  if (!Device(ordinal)) return abi::kInvalidDevice;
  *device = ordinal;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceGetName(char* name, int length, abi::Device device) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!name || length <= 0) return abi::kInvalidValue;
  std::snprintf(name, static_cast<size_t>(length), "Emulated NVIDIA GeForce RTX 4090");
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceGetUuid_v2(void* uuid, abi::Device device) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!uuid) return abi::kInvalidValue;
  std::memset(uuid, 0, 16);
  static_cast<uint8_t*>(uuid)[15] = static_cast<uint8_t>(device + 1);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceGetPCIBusId(char* id, int length, abi::Device device) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!id || length <= 0) return abi::kInvalidValue;
  std::snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceGetAttribute(int* value, int attribute, abi::Device device) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!value) return abi::kInvalidValue;
  const int capability = Driver::Get().options.capability;
  if (attribute == abi::kComputeCapabilityMajor || attribute == abi::kComputeCapabilityMinor) {
    *value = attribute == abi::kComputeCapabilityMajor ? capability / 10 : capability % 10;
    return abi::kSuccess;
  }
  for (const AttributeRow& row : kAttributes) {
    if (row.attribute != attribute) continue;
    *value = row.value + (attribute == abi::kPciBusId ? device : 0);
    return abi::kSuccess;
  }
  *value = 0;  // what else a device may be able to do, this one is not
  return attribute > 0 && attribute < 200 ? abi::kSuccess : abi::kInvalidValue;
}
QWEN_EMU_EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, abi::Device device) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!bytes) return abi::kInvalidValue;
  *bytes = Device(device)->memory->capacity();
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDeviceCanAccessPeer(int* can, abi::Device device, abi::Device peer) {
  if (!Device(device) || !Device(peer)) return abi::kInvalidDevice;
  if (!can) return abi::kInvalidValue;
  *can = 0;
  return abi::kSuccess;
}

QWEN_EMU_EXPORT Result cuDevicePrimaryCtxRetain(abi::Context** context, abi::Device device) {
  DeviceState* state = Device(device);
  if (!state) return Driver::Get().initialized() ? abi::kInvalidDevice : abi::kNotInitialized;
  if (!context) return abi::kInvalidValue;
  std::lock_guard lock(Driver::Get().mutex);
  if (!state->primary)
    if (Result r = CreateContext(state, true, &state->primary); r != abi::kSuccess) return r;
  ++state->primary_references;
  *context = state->primary;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDevicePrimaryCtxReset_v2(abi::Device device) {
  DeviceState* state = Device(device);
  if (!state) return abi::kInvalidDevice;
  abi::Context* context = nullptr;
  {
    std::lock_guard lock(Driver::Get().mutex);
    std::swap(context, state->primary);
    state->primary_references = 0;
  }
  if (context) DestroyContext(context);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDevicePrimaryCtxRelease_v2(abi::Device device) {
  DeviceState* state = Device(device);
  if (!state) return abi::kInvalidDevice;
  {
    std::lock_guard lock(Driver::Get().mutex);
    if (state->primary_references == 0) return abi::kInvalidContext;
    if (--state->primary_references > 0) return abi::kSuccess;
  }
  return cuDevicePrimaryCtxReset_v2(device);
}
QWEN_EMU_EXPORT Result cuDevicePrimaryCtxSetFlags_v2(abi::Device device, unsigned flags) {
  if (!Device(device)) return abi::kInvalidDevice;
  Device(device)->primary_flags = flags;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuDevicePrimaryCtxGetState(abi::Device device, unsigned* flags, int* active) {
  if (!Device(device)) return abi::kInvalidDevice;
  if (!flags || !active) return abi::kInvalidValue;
  *flags = Device(device)->primary_flags;
  *active = Device(device)->primary != nullptr;
  return abi::kSuccess;
}

QWEN_EMU_EXPORT Result cuCtxCreate_v2(abi::Context** context, unsigned, abi::Device device) {
  if (!Device(device)) return Driver::Get().initialized() ? abi::kInvalidDevice : abi::kNotInitialized;
  if (!context) return abi::kInvalidValue;
  if (Result r = CreateContext(Device(device), false, context); r != abi::kSuccess) return r;
  ContextStack().push_back(*context);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxCreate_v4(abi::Context** context, void*, unsigned flags, abi::Device device) {
  return cuCtxCreate_v2(context, flags, device);
}
QWEN_EMU_EXPORT Result cuCtxDestroy_v2(abi::Context* context) {
  if (!IsLive(context) || context->is_primary) return abi::kInvalidContext;
  std::erase(ContextStack(), context);
  DestroyContext(context);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxSetCurrent(abi::Context* context) {
  if (!Driver::Get().initialized()) return abi::kNotInitialized;
  if (context && !IsLive(context)) return abi::kInvalidContext;
  std::vector<abi::Context*>& stack = ContextStack();
  if (!stack.empty()) stack.pop_back();
  if (context) stack.push_back(context);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxGetCurrent(abi::Context** context) {
  if (!Driver::Get().initialized()) return abi::kNotInitialized;
  if (!context) return abi::kInvalidValue;
  *context = ContextStack().empty() ? nullptr : ContextStack().back();
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxPushCurrent_v2(abi::Context* context) {
  if (!IsLive(context)) return abi::kInvalidContext;
  ContextStack().push_back(context);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxPopCurrent_v2(abi::Context** context) {
  if (ContextStack().empty()) return abi::kInvalidContext;
  if (context) *context = ContextStack().back();
  ContextStack().pop_back();
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxGetDevice(abi::Device* device) {
  if (ContextStack().empty() || !IsLive(ContextStack().back())) return abi::kInvalidContext;
  if (!device) return abi::kInvalidValue;
  *device = ContextStack().back()->device->ordinal;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuCtxEnablePeerAccess(abi::Context*, unsigned) { return abi::kPeerAccessUnsupported; }
QWEN_EMU_EXPORT Result cuCtxSynchronize() {
  return Guard([](abi::Context* context) {
    std::vector<CompletionPtr> last;
    {
      std::lock_guard lock(Driver::Get().mutex);
      if (context->default_stream->last) last.push_back(context->default_stream->last);
      for (abi::Stream* stream : context->streams) {
        if (stream->capture) return abi::kStreamCaptureUnsupported;
        if (stream->last) last.push_back(stream->last);
      }
    }
    for (const CompletionPtr& completion : last) completion->Wait();
    return static_cast<Result>(context->error.load());
  });
}
