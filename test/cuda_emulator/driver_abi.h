// The part of the CUDA driver's binary interface that the emulator serves and its tests call: result codes, handles,
// attribute numbers, the layout of structures. Our own declarations, so that neither needs the CUDA toolkit to build;
// where <cuda.h> is there, tests/driver_abi_test.cc compares them with it.
#ifndef QWEN_TEST_CUDA_EMULATOR_DRIVER_ABI_H_
#define QWEN_TEST_CUDA_EMULATOR_DRIVER_ABI_H_

#include <cstddef>
#include <cstdint>

namespace qwen::emu::abi {

enum Result : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kDeinitialized = 4,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kPeerAccessUnsupported = 217,
  kInvalidPtx = 218,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchOutOfResources = 701,
  kLaunchTimeout = 702,
  kPeerAccessNotEnabled = 705,
  kContextIsDestroyed = 709,
  kAssert = 710,
  kHostMemoryAlreadyRegistered = 712,
  kHostMemoryNotRegistered = 713,
  kIllegalInstruction = 715,
  kMisalignedAddress = 716,
  kLaunchFailed = 719,
  kNotSupported = 801,
  kStreamCaptureUnsupported = 900,
  kStreamCaptureInvalidated = 901,
  kStreamCaptureUnjoined = 904,
  kStreamCaptureImplicit = 906,
  kStreamCaptureWrongThread = 908,
  kGraphExecUpdateFailure = 910,
  kUnknown = 999,
};

/// One row per result that has a name; cuGetErrorName and cuGetErrorString read it.
#define QWEN_EMU_RESULTS(row)                                                                                          \
  row(kSuccess, "CUDA_SUCCESS", "no error") row(kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument") row(    \
      kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory") row(kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED",    \
                                                                     "initialization error")                           \
      row(kDeinitialized, "CUDA_ERROR_DEINITIALIZED", "driver shutting down") row(                                     \
          kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected") row(kInvalidDevice,                 \
                                                                                       "CUDA_ERROR_INVALID_DEVICE",    \
                                                                                       "invalid device ordinal")       \
          row(kInvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid") row(                        \
              kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT",                                                           \
              "invalid device context") row(kPeerAccessUnsupported, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",              \
                                            "peer access is not supported") row(kInvalidPtx, "CUDA_ERROR_INVALID_PTX", \
                                                                                "a PTX JIT compilation failed")        \
              row(kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle") row(                         \
                  kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found") row(kNotReady, "CUDA_ERROR_NOT_READY",  \
                                                                                   "device not ready")                 \
                  row(kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered") row(  \
                      kLaunchOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested")     \
                      row(kLaunchTimeout, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated") row( \
                          kPeerAccessNotEnabled, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED",                                 \
                          "peer access has not been enabled") row(kContextIsDestroyed,                                 \
                                                                  "CUDA_ERROR_CONTEXT_IS_DESTROYED",                   \
                                                                  "context is destroyed")                              \
                          row(kAssert, "CUDA_ERROR_ASSERT", "device-side assert triggered") row(                       \
                              kHostMemoryAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",               \
                              "part or all of the requested memory range is already mapped")                           \
                              row(kHostMemoryNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",                   \
                                  "pointer does not correspond to a registered memory region")                         \
                                  row(kIllegalInstruction, "CUDA_ERROR_ILLEGAL_INSTRUCTION",                           \
                                      "an illegal instruction was encountered") row(kMisalignedAddress,                \
                                                                                    "CUDA_ERROR_MISALIGNED_ADDRESS",   \
                                                                                    "misaligned address")              \
                                      row(kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED",                                   \
                                          "unspecified launch failure") row(kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", \
                                                                            "operation not supported")                 \
                                          row(kStreamCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",      \
                                              "operation not permitted when stream is capturing")                      \
                                              row(kStreamCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",  \
                                                  "operation failed due to a previous error during capture")           \
                                                  row(kStreamCaptureUnjoined, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",    \
                                                      "capturing stream has unjoined work")                            \
                                                      row(kStreamCaptureImplicit,                                      \
                                                          "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",                        \
                                                          "operation would make the legacy stream depend on a "        \
                                                          "capturing blocking stream")                                 \
                                                          row(kStreamCaptureWrongThread,                               \
                                                              "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",                \
                                                              "attempt to terminate a thread-local capture sequence "  \
                                                              "from another thread")                                   \
                                                              row(kGraphExecUpdateFailure,                             \
                                                                  "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",              \
                                                                  "the graph update was not performed because it "     \
                                                                  "included changes which violated constraints")       \
                                                                  row(kUnknown, "CUDA_ERROR_UNKNOWN", "unknown error")

using DevicePtr = uint64_t;  // CUdeviceptr
using Device = int;          // CUdevice

// Handles are opaque to a caller.
struct Context;
struct Module;
struct Function;
struct Stream;
struct Event;
struct Graph;
struct GraphExec;
struct GraphNode;

enum DeviceAttribute : int {
  kMaxThreadsPerBlock = 1,
  kMaxBlockDimX = 2,
  kMaxBlockDimY = 3,
  kMaxBlockDimZ = 4,
  kMaxGridDimX = 5,
  kMaxGridDimY = 6,
  kMaxGridDimZ = 7,
  kMaxSharedMemoryPerBlock = 8,
  kTotalConstantMemory = 9,
  kWarpSize = 10,
  kMaxRegistersPerBlock = 12,
  kClockRate = 13,
  kMultiprocessorCount = 16,
  kIntegrated = 18,
  kCanMapHostMemory = 19,
  kConcurrentKernels = 31,
  kPciBusId = 33,
  kPciDeviceId = 34,
  kMemoryClockRate = 36,
  kGlobalMemoryBusWidth = 37,
  kL2CacheSize = 38,
  kMaxThreadsPerMultiprocessor = 39,
  kAsyncEngineCount = 40,
  kUnifiedAddressing = 41,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
  kStreamPrioritiesSupported = 78,
  kMaxSharedMemoryPerMultiprocessor = 81,
  kMaxRegistersPerMultiprocessor = 82,
  kManagedMemory = 83,
  kCooperativeLaunch = 95,
  kMaxSharedMemoryPerBlockOptin = 97,
  kMaxBlocksPerMultiprocessor = 106,
  kReservedSharedMemoryPerBlock = 111,
};

enum FunctionAttribute : int {
  kFuncMaxThreadsPerBlock = 0,
  kFuncSharedSizeBytes = 1,
  kFuncConstSizeBytes = 2,
  kFuncLocalSizeBytes = 3,
  kFuncNumRegs = 4,
  kFuncPtxVersion = 5,
  kFuncBinaryVersion = 6,
  kFuncMaxDynamicSharedSizeBytes = 8,
  kFuncPreferredSharedMemoryCarveout = 9,
};

enum JitOption : int {
  kJitInfoLogBuffer = 3,
  kJitInfoLogBufferSizeBytes = 4,
  kJitErrorLogBuffer = 5,
  kJitErrorLogBufferSizeBytes = 6,
};

enum GraphNodeType : int { kNodeKernel = 0, kNodeMemcpy = 1, kNodeMemset = 2, kNodeEmpty = 5 };

enum CaptureStatus : int { kCaptureNone = 0, kCaptureActive = 1, kCaptureInvalidated = 2 };

constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDisableTiming = 2;
constexpr unsigned kHostAllocPortable = 1;
constexpr unsigned kHostAllocDeviceMap = 2;

/// Of cuLaunchKernelEx. An attribute is 72 bytes: a number, padding, 64 bytes of value.
struct LaunchAttribute {
  int id;
  char pad[4];
  char value[64];
};
constexpr int kLaunchAttributeIgnore = 0;
constexpr int kLaunchAttributeCooperative = 2;

struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  Stream* stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};

/// Of cuGraphExecUpdate.
struct GraphExecUpdateResult {
  int result;
  GraphNode* error_node;
  GraphNode* error_from_node;
};

// Every entry point: what the header calls it (some are renamed by a version suffix), and its parameters.
#define QWEN_EMU_ENTRY_POINTS(row)                                                                                                                                     \
  row(cuInit, (unsigned flags)) row(cuDriverGetVersion, (int* version)) row(cuGetErrorName, (abi::Result result, const char** name)) row(                              \
      cuGetErrorString, (abi::Result result,                                                                                                                           \
                         const char**                                                                                                                                  \
                             text)) row(cuGetProcAddress_v2,                                                                                                           \
                                        (const char* symbol, void** address, int version, uint64_t flags,                                                              \
                                         int* status)) row(cuDeviceGetCount,                                                                                           \
                                                           (int* count)) row(cuDeviceGet, (abi::Device * device, int ordinal))                                         \
      row(cuDeviceGetName, (char* name, int length, abi::Device device)) row(cuDeviceGetUuid_v2, (void* uuid, abi::Device device)) row(                                \
          cuDeviceGetAttribute,                                                                                                                                        \
          (int* value, int attribute,                                                                                                                                  \
           abi::Device                                                                                                                                                 \
               device)) row(cuDeviceTotalMem_v2,                                                                                                                       \
                            (size_t* bytes, abi::Device device)) row(cuDeviceCanAccessPeer, (int* can, abi::Device device, abi::Device peer))                          \
          row(cuDeviceGetPCIBusId, (char* id, int length, abi::Device device)) row(                                                                                    \
              cuDevicePrimaryCtxRetain,                                                                                                                                \
              (abi::Context * *context,                                                                                                                                \
               abi::                                                                                                                                                   \
                   Device device)) row(cuDevicePrimaryCtxRelease_v2,                                                                                                   \
                                       (abi::Device                                                                                                                    \
                                            device)) row(cuDevicePrimaryCtxReset_v2,                                                                                   \
                                                         (abi::Device device)) row(cuDevicePrimaryCtxSetFlags_v2, (abi::Device device, unsigned flags))                \
              row(cuDevicePrimaryCtxGetState, (abi::Device device, unsigned* flags, int* active)) row(                                                                 \
                  cuCtxCreate_v2,                                                                                                                                      \
                  (abi::Context * *context, unsigned flags,                                                                                                            \
                   abi::Device                                                                                                                                         \
                       device)) row(cuCtxCreate_v4,                                                                                                                    \
                                    (abi::Context * *context, void* params, unsigned flags,                                                                            \
                                     abi::                                                                                                                             \
                                         Device device)) row(cuCtxDestroy_v2, (abi::Context * context))                                                                \
                  row(cuCtxSetCurrent, (abi::Context * context)) row(cuCtxGetCurrent, (abi::Context * *context)) row(                                                  \
                      cuCtxPushCurrent_v2,                                                                                                                             \
                      (                                                                                                                                                \
                          abi::                                                                                                                                        \
                              Context *                                                                                                                                \
                          context)) row(cuCtxPopCurrent_v2,                                                                                                            \
                                        (abi::Context *                                                                                                                \
                                         *context)) row(cuCtxGetDevice,                                                                                                \
                                                        (abi::Device * device)) row(cuCtxSynchronize, ())                                                              \
                      row(cuCtxGetStreamPriorityRange, (int* least, int* greatest)) row(cuCtxEnablePeerAccess, (abi::Context * peer, unsigned flags)) row(             \
                          cuModuleLoadData,                                                                                                                            \
                          (abi::Module * *module,                                                                                                                      \
                           const void*                                                                                                                                 \
                               image)) row(cuModuleLoadDataEx,                                                                                                         \
                                           (abi::Module * *module, const void* image, unsigned num_options,                                                            \
                                            int* options,                                                                                                              \
                                            void**                                                                                                                     \
                                                values)) row(cuModuleUnload, (abi::Module * module))                                                                   \
                          row(cuModuleGetFunction,                                                                                                                     \
                              (                                                                                                                                        \
                                  abi::Function *                                                                                                                      \
                                      *function,                                                                                                                       \
                                  abi::Module * module,                                                                                                                \
                                  const char*                                                                                                                          \
                                      name)) row(cuModuleGetGlobal_v2,                                                                                                 \
                                                 (                                                                                                                     \
                                                     abi::                                                                                                             \
                                                             DevicePtr *                                                                                               \
                                                         address,                                                                                                      \
                                                     size_t*                                                                                                           \
                                                         bytes,                                                                                                        \
                                                     abi::                                                                                                             \
                                                         Module*                                                                                                       \
                                                             module,                                                                                                   \
                                                     const char*                                                                                                       \
                                                         name)) row(cuFuncGetAttribute,                                                                                \
                                                                    (int* value, int attribute, abi::Function* function))                                              \
                              row(cuFuncSetAttribute, (abi::Function * function, int attribute, int value)) row(                                                       \
                                  cuFuncSetCacheConfig,                                                                                                                \
                                  (abi::Function * function,                                                                                                           \
                                   int config)) row(cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                                       \
                                                    (int* blocks, abi::Function* function, int block_size,                                                             \
                                                     size_t shared_bytes)) row(cuMemAlloc_v2,                                                                          \
                                                                               (abi::DevicePtr * address, size_t bytes)) row(cuMemFree_v2, (abi::DevicePtr address))   \
                                  row(cuMemAllocAsync, (abi::DevicePtr * address, size_t bytes, abi::Stream* stream)) row(                                             \
                                      cuMemFreeAsync,                                                                                                                  \
                                      (abi::DevicePtr address,                                                                                                         \
                                       abi::Stream *                                                                                                                   \
                                           stream)) row(cuMemGetInfo_v2, (size_t* free_bytes, size_t* total_bytes))                                                    \
                                      row(cuMemGetAddressRange_v2, (abi::DevicePtr * base, size_t* bytes, abi::DevicePtr address)) row(                                \
                                          cuMemHostAlloc,                                                                                                              \
                                          (void** address, size_t bytes,                                                                                               \
                                           unsigned                                                                                                                    \
                                               flags)) row(cuMemAllocHost_v2,                                                                                          \
                                                           (void** address,                                                                                            \
                                                            size_t                                                                                                     \
                                                                bytes)) row(cuMemFreeHost,                                                                             \
                                                                            (void* address)) row(cuMemHostRegister_v2, (void* address, size_t bytes, unsigned flags))  \
                                          row(cuMemHostUnregister, (void* address)) row(                                                                               \
                                              cuMemHostGetDevicePointer_v2,                                                                                            \
                                              (abi::DevicePtr * device_address, void* address,                                                                         \
                                               unsigned                                                                                                                \
                                                   flags)) row(cuMemHostGetFlags,                                                                                      \
                                                               (unsigned* flags, void* address)) row(cuMemcpy, (abi::DevicePtr dst, abi::DevicePtr src, size_t bytes)) \
                                              row(cuMemcpyAsync, (abi::DevicePtr dst, abi::DevicePtr src, size_t bytes, abi::Stream* stream)) row(                     \
                                                  cuMemcpyPeer,                                                                                                        \
                                                  (abi::DevicePtr dst, abi::Context * dst_context, abi::DevicePtr src,                                                 \
                                                   abi::Context *                                                                                                      \
                                                       src_context,                                                                                                    \
                                                   size_t                                                                                                              \
                                                       bytes)) row(cuMemcpyHtoD_v2,                                                                                    \
                                                                   (abi::DevicePtr dst, const void* src,                                                               \
                                                                    size_t                                                                                             \
                                                                        bytes)) row(cuMemcpyDtoH_v2,                                                                   \
                                                                                    (void* dst, abi::DevicePtr src, size_t bytes))                                     \
                                                  row(cuMemcpyDtoD_v2, (abi::DevicePtr dst, abi::DevicePtr src, size_t bytes)) row(                                    \
                                                      cuMemcpyHtoDAsync_v2,                                                                                            \
                                                      (abi::DevicePtr dst, const void* src, size_t bytes,                                                              \
                                                       abi::Stream*                                                                                                    \
                                                           stream)) row(cuMemcpyDtoHAsync_v2,                                                                          \
                                                                        (void* dst, abi::DevicePtr src, size_t bytes, abi::Stream* stream))                            \
                                                      row(cuMemcpyDtoDAsync_v2,                                                                                        \
                                                          (abi::DevicePtr dst, abi::DevicePtr src, size_t bytes,                                                       \
                                                           abi::Stream*                                                                                                \
                                                               stream)) row(cuMemsetD8_v2,                                                                             \
                                                                            (abi::DevicePtr dst, unsigned char value,                                                  \
                                                                             size_t count)) row(cuMemsetD16_v2,                                                        \
                                                                                                (abi::DevicePtr dst, unsigned short value, size_t count))              \
                                                          row(cuMemsetD32_v2, (abi::DevicePtr dst, unsigned value, size_t count)) row(                                 \
                                                              cuMemsetD8Async,                                                                                         \
                                                              (abi::DevicePtr dst, unsigned char value, size_t count,                                                  \
                                                               abi::Stream*                                                                                            \
                                                                   stream)) row(cuMemsetD16Async,                                                                      \
                                                                                (abi::DevicePtr dst, unsigned short value, size_t count, abi::Stream* stream))         \
                                                              row(cuMemsetD32Async, (abi::DevicePtr dst, unsigned value, size_t count, abi::Stream* stream)) row(      \
                                                                  cuStreamCreate,                                                                                      \
                                                                  (abi::Stream * *stream,                                                                              \
                                                                   unsigned                                                                                            \
                                                                       flags)) row(cuStreamCreateWithPriority,                                                         \
                                                                                   (abi::Stream * *stream, unsigned flags,                                             \
                                                                                    int priority)) row(cuStreamDestroy_v2,                                             \
                                                                                                       (abi::Stream *                                                  \
                                                                                                        stream))                                                       \
                                                                  row(cuStreamSynchronize, (abi::Stream * stream)) row(                                                \
                                                                      cuStreamQuery,                                                                                   \
                                                                      (abi::Stream *                                                                                   \
                                                                       stream)) row(cuStreamWaitEvent,                                                                 \
                                                                                    (abi::Stream * stream,                                                             \
                                                                                     abi::                                                                             \
                                                                                             Event *                                                                   \
                                                                                         event,                                                                        \
                                                                                     unsigned                                                                          \
                                                                                         flags)) row(cuStreamBeginCapture_v2,                                          \
                                                                                                     (abi::Stream * stream, int mode))                                 \
                                                                      row(cuStreamEndCapture, (abi::Stream * stream, abi::Graph * *graph)) row(                        \
                                                                          cuStreamIsCapturing,                                                                         \
                                                                          (abi::Stream * stream,                                                                       \
                                                                           int*                                                                                        \
                                                                               status)) row(cuThreadExchangeStreamCaptureMode,                                         \
                                                                                            (int* mode))                                                               \
                                                                          row(cuEventCreate, (abi::Event * *event, unsigned flags)) row(                               \
                                                                              cuEventDestroy_v2,                                                                       \
                                                                              (abi::Event *                                                                            \
                                                                               event)) row(cuEventRecord,                                                              \
                                                                                           (abi::Event * event,                                                        \
                                                                                            abi::Stream *                                                              \
                                                                                                stream)) row(cuEventQuery,                                             \
                                                                                                             (abi::Event * event))                                     \
                                                                              row(cuEventSynchronize, (abi::Event * event)) row(                                       \
                                                                                  cuEventElapsedTime_v2,                                                               \
                                                                                  (float* ms, abi::Event* start,                                                       \
                                                                                   abi::Event*                                                                         \
                                                                                       end)) row(cuLaunchKernel,                                                       \
                                                                                                 (                                                                     \
                                                                                                     abi::                                                             \
                                                                                                             Function *                                                \
                                                                                                         function,                                                     \
                                                                                                     unsigned                                                          \
                                                                                                         grid_x,                                                       \
                                                                                                     unsigned                                                          \
                                                                                                         grid_y,                                                       \
                                                                                                     unsigned                                                          \
                                                                                                         grid_z,                                                       \
                                                                                                     unsigned                                                          \
                                                                                                         block_x,                                                      \
                                                                                                     unsigned                                                          \
                                                                                                         block_y,                                                      \
                                                                                                     unsigned                                                          \
                                                                                                         block_z,                                                      \
                                                                                                     unsigned                                                          \
                                                                                                         shared_bytes,                                                 \
                                                                                                     abi::                                                             \
                                                                                                         Stream*                                                       \
                                                                                                             stream,                                                   \
                                                                                                     void** params,                                                    \
                                                                                                     void** extra))                                                    \
                                                                                  row(cuLaunchKernelEx,                                                                \
                                                                                      (const abi::LaunchConfig*                                                        \
                                                                                           config,                                                                     \
                                                                                       abi::Function*                                                                  \
                                                                                           function,                                                                   \
                                                                                       void** params,                                                                  \
                                                                                       void**                                                                          \
                                                                                           extra)) row(cuLaunchCooperativeKernel,                                      \
                                                                                                       (abi::Function *                                                \
                                                                                                            function,                                                  \
                                                                                                        unsigned grid_x,                                               \
                                                                                                        unsigned grid_y,                                               \
                                                                                                        unsigned grid_z,                                               \
                                                                                                        unsigned block_x,                                              \
                                                                                                        unsigned block_y,                                              \
                                                                                                        unsigned block_z,                                              \
                                                                                                        unsigned shared_bytes,                                         \
                                                                                                        abi::Stream* stream,                                           \
                                                                                                        void**                                                         \
                                                                                                            params))                                                   \
                                                                                      row(cuLaunchHostFunc,                                                            \
                                                                                          (abi::Stream * stream,                                                       \
                                                                                           void (*function)(void*),                                                    \
                                                                                           void* data)) row(cuGraphCreate,                                             \
                                                                                                            (abi::Graph *                                              \
                                                                                                                 *graph,                                               \
                                                                                                             unsigned                                                  \
                                                                                                                 flags))                                               \
                                                                                          row(cuGraphInstantiateWithFlags,                                             \
                                                                                              (abi::GraphExec * *exec,                                                 \
                                                                                               abi::Graph * graph,                                                     \
                                                                                               uint64_t                                                                \
                                                                                                   flags)) row(cuGraphExecUpdate_v2,                                   \
                                                                                                               (abi::GraphExec *                                       \
                                                                                                                    exec,                                              \
                                                                                                                abi::Graph * graph,                                    \
                                                                                                                abi::GraphExecUpdateResult *                           \
                                                                                                                    result))                                           \
                                                                                              row(cuGraphLaunch,                                                       \
                                                                                                  (abi::GraphExec *                                                    \
                                                                                                       exec,                                                           \
                                                                                                   abi::Stream *                                                       \
                                                                                                       stream))                                                        \
                                                                                                  row(cuGraphUpload,                                                   \
                                                                                                      (abi::GraphExec *                                                \
                                                                                                           exec,                                                       \
                                                                                                       abi::Stream *                                                   \
                                                                                                           stream)) row(cuGraphExecDestroy,                            \
                                                                                                                        (abi::                                         \
                                                                                                                             GraphExec *                               \
                                                                                                                         exec))                                        \
                                                                                                      row(cuGraphDestroy,                                              \
                                                                                                          (abi::                                                       \
                                                                                                               Graph *                                                 \
                                                                                                           graph))                                                     \
                                                                                                          row(cuGraphGetNodes,                                         \
                                                                                                              (abi::Graph *                                            \
                                                                                                                   graph,                                              \
                                                                                                               abi::GraphNode *                                        \
                                                                                                                   *nodes,                                             \
                                                                                                               size_t*                                                 \
                                                                                                                   count))                                             \
                                                                                                              row(cuGraphNodeGetType,                                  \
                                                                                                                  (abi::GraphNode *                                    \
                                                                                                                       node,                                           \
                                                                                                                   int*                                                \
                                                                                                                       type))

}  // namespace qwen::emu::abi

#endif  // QWEN_TEST_CUDA_EMULATOR_DRIVER_ABI_H_
