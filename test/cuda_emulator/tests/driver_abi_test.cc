// Our declarations of the driver's interface against NVIDIA's header, where that is installed.
#include "test/cuda_emulator/driver_abi.h"

#include <gtest/gtest.h>

#if __has_include(<cuda.h>)
#include <cuda.h>

namespace qwen::emu {
namespace {

TEST(DriverAbi, NumbersAreTheSame) {
  EXPECT_EQ(abi::kIllegalAddress, int{CUDA_ERROR_ILLEGAL_ADDRESS});
  EXPECT_EQ(abi::kMisalignedAddress, int{CUDA_ERROR_MISALIGNED_ADDRESS});
  EXPECT_EQ(abi::kLaunchFailed, int{CUDA_ERROR_LAUNCH_FAILED});
  EXPECT_EQ(abi::kLaunchTimeout, int{CUDA_ERROR_LAUNCH_TIMEOUT});
  EXPECT_EQ(abi::kAssert, int{CUDA_ERROR_ASSERT});
  EXPECT_EQ(abi::kIllegalInstruction, int{CUDA_ERROR_ILLEGAL_INSTRUCTION});
  EXPECT_EQ(abi::kInvalidPtx, int{CUDA_ERROR_INVALID_PTX});
  EXPECT_EQ(abi::kInvalidImage, int{CUDA_ERROR_INVALID_IMAGE});
  EXPECT_EQ(abi::kInvalidHandle, int{CUDA_ERROR_INVALID_HANDLE});
  EXPECT_EQ(abi::kInvalidContext, int{CUDA_ERROR_INVALID_CONTEXT});
  EXPECT_EQ(abi::kNotFound, int{CUDA_ERROR_NOT_FOUND});
  EXPECT_EQ(abi::kNotReady, int{CUDA_ERROR_NOT_READY});
  EXPECT_EQ(abi::kPeerAccessUnsupported, int{CUDA_ERROR_PEER_ACCESS_UNSUPPORTED});
  EXPECT_EQ(abi::kStreamCaptureUnsupported, int{CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED});
  EXPECT_EQ(abi::kStreamCaptureInvalidated, int{CUDA_ERROR_STREAM_CAPTURE_INVALIDATED});
  EXPECT_EQ(abi::kStreamCaptureImplicit, int{CUDA_ERROR_STREAM_CAPTURE_IMPLICIT});
  EXPECT_EQ(abi::kGraphExecUpdateFailure, int{CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE});
  EXPECT_EQ(abi::kMultiprocessorCount, int{CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT});
  EXPECT_EQ(abi::kMaxSharedMemoryPerBlock, int{CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK});
  EXPECT_EQ(abi::kMaxSharedMemoryPerBlockOptin, int{CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN});
  EXPECT_EQ(abi::kMaxSharedMemoryPerMultiprocessor, int{CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR});
  EXPECT_EQ(abi::kReservedSharedMemoryPerBlock, int{CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK});
  EXPECT_EQ(abi::kComputeCapabilityMajor, int{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR});
  EXPECT_EQ(abi::kComputeCapabilityMinor, int{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR});
  EXPECT_EQ(abi::kL2CacheSize, int{CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE});
  EXPECT_EQ(abi::kCooperativeLaunch, int{CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH});
  EXPECT_EQ(abi::kMaxBlocksPerMultiprocessor, int{CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR});
  EXPECT_EQ(abi::kUnifiedAddressing, int{CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING});
  EXPECT_EQ(abi::kPciBusId, int{CU_DEVICE_ATTRIBUTE_PCI_BUS_ID});
  EXPECT_EQ(abi::kFuncMaxDynamicSharedSizeBytes, int{CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES});
  EXPECT_EQ(abi::kFuncNumRegs, int{CU_FUNC_ATTRIBUTE_NUM_REGS});
  EXPECT_EQ(abi::kFuncLocalSizeBytes, int{CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES});
  EXPECT_EQ(abi::kJitErrorLogBuffer, int{CU_JIT_ERROR_LOG_BUFFER});
  EXPECT_EQ(abi::kJitErrorLogBufferSizeBytes, int{CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES});
  EXPECT_EQ(sizeof(abi::LaunchConfig), sizeof(CUlaunchConfig));
  EXPECT_EQ(sizeof(abi::LaunchAttribute), sizeof(CUlaunchAttribute));
  EXPECT_EQ(offsetof(abi::LaunchAttribute, value), offsetof(CUlaunchAttribute, value));
  EXPECT_EQ(offsetof(abi::LaunchConfig, stream), offsetof(CUlaunchConfig, hStream));
  EXPECT_EQ(sizeof(abi::GraphExecUpdateResult), sizeof(CUgraphExecUpdateResultInfo));
  EXPECT_EQ(abi::kLaunchAttributeCooperative, int{CU_LAUNCH_ATTRIBUTE_COOPERATIVE});
}

}  // namespace
}  // namespace qwen::emu
#endif
