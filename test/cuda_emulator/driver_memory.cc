// Entry points: allocation, host memory, copies, fills.
#include <fmt/format.h>

#include <cstdlib>

#include "test/cuda_emulator/driver.h"

using namespace qwen::emu;
using abi::DevicePtr;
using abi::Result;

extern "C" Result cuCtxSynchronize();

namespace {

/// Where a copy's end lies, checked.
struct Place {
  DeviceState* device = nullptr;  // null: host memory
};
bool Locate(DevicePtr address, size_t bytes, Place* place) {
  Driver& driver = Driver::Get();
  place->device = driver.DeviceOf(address);
  if (!place->device) return true;
  if (place->device->memory->Writable(address, bytes)) return true;
  uint64_t last = address + bytes - 1;
  uint64_t bad = place->device->memory->shadow(address) & DeviceMemory::kAllocated ? last : address;
  driver.SetFault(fmt::format("a copy or fill of {} bytes at {:#x} leaves its allocation: {:#x} is {}", bytes, address,
                              bad, place->device->memory->Describe(bad)));
  return false;
}

void Move(Place to, DevicePtr dst, Place from, DevicePtr src, size_t bytes) {
  std::memmove(reinterpret_cast<void*>(dst), reinterpret_cast<const void*>(src), bytes);
  if (!to.device) return;
  if (from.device == to.device) {
    to.device->memory->CopyShadow(dst, src, bytes);
  } else {
    to.device->memory->MarkWritten(dst, bytes);
  }
}

Result Copy(DevicePtr dst, DevicePtr src, size_t bytes, abi::Stream* stream, bool wait) {
  return Guard([&](abi::Context*) -> Result {
    if (bytes == 0) return abi::kSuccess;
    Place to, from;
    if (!dst || !src || !Locate(dst, bytes, &to) || !Locate(src, bytes, &from)) return abi::kInvalidValue;
    abi::Stream* resolved = nullptr;
    if (Result r = Resolve(stream, &resolved); r != abi::kSuccess) return r;
    const HostRanges& host = Driver::Get().host;
    // Pageable memory is the caller's again when the call returns: its bytes are taken now, or the copy is waited for.
    bool pageable_source = !from.device && !host.Contains(src, bytes);
    bool pageable_target = !to.device && !host.Contains(dst, bytes);
    std::shared_ptr<std::vector<uint8_t>> staged;
    if (pageable_source && !wait && !resolved->capture) {
      const uint8_t* begin = reinterpret_cast<const uint8_t*>(src);
      staged = std::make_shared<std::vector<uint8_t>>(begin, begin + bytes);
    }
    auto work = [=] {
      Move(to, dst, from, staged ? reinterpret_cast<DevicePtr>(staged->data()) : src, bytes);
      return abi::kSuccess;
    };
    return Submit(stream, abi::kNodeMemcpy, work, wait || (pageable_target && !resolved->capture));
  });
}

template <class T>
Result Fill(DevicePtr dst, T value, size_t count, abi::Stream* stream, bool wait) {
  return Guard([&](abi::Context*) -> Result {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(T), &bytes) || dst % sizeof(T) != 0) return abi::kInvalidValue;
    if (bytes == 0) return abi::kSuccess;
    Place to;
    if (!dst || !Locate(dst, bytes, &to) || (!to.device && !Driver::Get().host.Contains(dst, bytes)))
      return abi::kInvalidValue;
    auto work = [=] {
      T* out = reinterpret_cast<T*>(dst);
      std::fill(out, out + count, value);
      if (to.device) to.device->memory->MarkWritten(dst, bytes);
      return abi::kSuccess;
    };
    return Submit(stream, abi::kNodeMemset, work, wait);
  });
}

DevicePtr Address(const void* p) { return reinterpret_cast<DevicePtr>(p); }

}  // namespace

QWEN_EMU_EXPORT Result cuMemAlloc_v2(DevicePtr* address, size_t bytes) {
  return Guard([&](abi::Context* context) -> Result {
    if (!address || bytes == 0) return abi::kInvalidValue;
    qwen::StatusOr<uint64_t> at = context->device->memory->Allocate(bytes);
    if (!at.ok()) {
      Driver::Get().SetFault("out of memory: " + at.status().message());
      return abi::kOutOfMemory;
    }
    Driver::Get().report.CountAllocation(bytes);
    *address = *at;
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuMemFree_v2(DevicePtr address) {
  return Guard([&](abi::Context*) -> Result {
    if (!address) return abi::kSuccess;
    DeviceState* device = Driver::Get().DeviceOf(address);
    if (!device) return abi::kInvalidValue;
    // Work that still uses the memory is waited for, as cuMemFree does.
    if (Result r = cuCtxSynchronize(); r != abi::kSuccess) return r;
    return device->memory->Free(address).ok() ? abi::kSuccess : abi::kInvalidValue;
  });
}
QWEN_EMU_EXPORT Result cuMemAllocAsync(DevicePtr* address, size_t bytes, abi::Stream*) {
  return cuMemAlloc_v2(address, bytes);
}
QWEN_EMU_EXPORT Result cuMemFreeAsync(DevicePtr address, abi::Stream* stream) {
  return Guard([&](abi::Context*) -> Result {
    DeviceState* device = Driver::Get().DeviceOf(address);
    if (!device) return abi::kInvalidValue;
    return Submit(
        stream, abi::kNodeEmpty,
        [=] { return device->memory->Free(address).ok() ? abi::kSuccess : abi::kInvalidValue; }, false);
  });
}
QWEN_EMU_EXPORT Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return Guard([&](abi::Context* context) {
    if (free_bytes) *free_bytes = context->device->memory->capacity() - context->device->memory->used();
    if (total_bytes) *total_bytes = context->device->memory->capacity();
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuMemGetAddressRange_v2(DevicePtr* base, size_t* bytes, DevicePtr address) {
  return Guard([&](abi::Context*) {
    DeviceState* device = Driver::Get().DeviceOf(address);
    uint64_t found_base = 0, found_bytes = 0;
    if (!device || !device->memory->Find(address, &found_base, &found_bytes)) return abi::kInvalidValue;
    if (base) *base = found_base;
    if (bytes) *bytes = found_bytes;
    return abi::kSuccess;
  });
}

QWEN_EMU_EXPORT Result cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
  return Guard([&](abi::Context*) -> Result {
    if (!address || bytes == 0 || bytes > SIZE_MAX / 2) return abi::kInvalidValue;
    void* p = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!p) return abi::kOutOfMemory;
    Driver::Get().host.Add(Address(p), bytes, flags, true);
    Driver::Get().report.CountHostAllocation();
    *address = p;
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuMemAllocHost_v2(void** address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
QWEN_EMU_EXPORT Result cuMemFreeHost(void* address) {
  return Guard([&](abi::Context*) -> Result {
    if (!Driver::Get().host.Remove(Address(address), true)) return abi::kInvalidValue;
    std::free(address);
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuMemHostRegister_v2(void* address, size_t bytes, unsigned flags) {
  return Guard([&](abi::Context*) -> Result {
    if (!address || bytes == 0) return abi::kInvalidValue;
    return Driver::Get().host.Add(Address(address), bytes, flags, false) ? abi::kSuccess
                                                                         : abi::kHostMemoryAlreadyRegistered;
  });
}
QWEN_EMU_EXPORT Result cuMemHostUnregister(void* address) {
  return Guard([&](abi::Context*) -> Result {
    return Driver::Get().host.Remove(Address(address), false) ? abi::kSuccess : abi::kHostMemoryNotRegistered;
  });
}
QWEN_EMU_EXPORT Result cuMemHostGetDevicePointer_v2(DevicePtr* device_address, void* address, unsigned) {
  return Guard([&](abi::Context*) -> Result {
    if (!device_address || !Driver::Get().host.Contains(Address(address), 1)) return abi::kInvalidValue;
    *device_address = Address(address);
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuMemHostGetFlags(unsigned* flags, void* address) {
  return Guard([&](abi::Context*) -> Result {
    return flags && Driver::Get().host.Flags(Address(address), flags) ? abi::kSuccess : abi::kInvalidValue;
  });
}

QWEN_EMU_EXPORT Result cuMemcpy(DevicePtr dst, DevicePtr src, size_t bytes) {
  return Copy(dst, src, bytes, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemcpyAsync(DevicePtr dst, DevicePtr src, size_t bytes, abi::Stream* stream) {
  return Copy(dst, src, bytes, stream, false);
}
QWEN_EMU_EXPORT Result cuMemcpyPeer(DevicePtr dst, abi::Context*, DevicePtr src, abi::Context*, size_t bytes) {
  return Copy(dst, src, bytes, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemcpyHtoD_v2(DevicePtr dst, const void* src, size_t bytes) {
  return Copy(dst, Address(src), bytes, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemcpyDtoH_v2(void* dst, DevicePtr src, size_t bytes) {
  return Copy(Address(dst), src, bytes, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemcpyDtoD_v2(DevicePtr dst, DevicePtr src, size_t bytes) {
  return Copy(dst, src, bytes, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePtr dst, const void* src, size_t bytes, abi::Stream* stream) {
  return Copy(dst, Address(src), bytes, stream, false);
}
QWEN_EMU_EXPORT Result cuMemcpyDtoHAsync_v2(void* dst, DevicePtr src, size_t bytes, abi::Stream* stream) {
  return Copy(Address(dst), src, bytes, stream, false);
}
QWEN_EMU_EXPORT Result cuMemcpyDtoDAsync_v2(DevicePtr dst, DevicePtr src, size_t bytes, abi::Stream* stream) {
  return Copy(dst, src, bytes, stream, false);
}
QWEN_EMU_EXPORT Result cuMemsetD8_v2(DevicePtr dst, unsigned char value, size_t count) {
  return Fill<uint8_t>(dst, value, count, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemsetD16_v2(DevicePtr dst, unsigned short value, size_t count) {
  return Fill<uint16_t>(dst, value, count, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemsetD32_v2(DevicePtr dst, unsigned value, size_t count) {
  return Fill<uint32_t>(dst, value, count, nullptr, true);
}
QWEN_EMU_EXPORT Result cuMemsetD8Async(DevicePtr dst, unsigned char value, size_t count, abi::Stream* stream) {
  return Fill<uint8_t>(dst, value, count, stream, false);
}
QWEN_EMU_EXPORT Result cuMemsetD16Async(DevicePtr dst, unsigned short value, size_t count, abi::Stream* stream) {
  return Fill<uint16_t>(dst, value, count, stream, false);
}
QWEN_EMU_EXPORT Result cuMemsetD32Async(DevicePtr dst, unsigned value, size_t count, abi::Stream* stream) {
  return Fill<uint32_t>(dst, value, count, stream, false);
}
