// What stops a launch: the kind, which decides the CUresult a caller sees, and the sentence that names the place.
#ifndef QWEN_TEST_CUDA_EMULATOR_FAULT_H_
#define QWEN_TEST_CUDA_EMULATOR_FAULT_H_

#include <string>

#include "test/cuda_emulator/driver_abi.h"

namespace qwen::emu {

enum class FaultKind {
  kNone,
  kOutOfBounds,
  kUseAfterFree,
  kMisaligned,
  kUnwritten,
  kRace,
  kDivergentBarrier,
  kDeadlock,
  kAssertion,
  kTrap,
  kUnsupported,
};

/// The word a message starts with, and tests look for.
inline const char* FaultName(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNone:
      return "no fault";
    case FaultKind::kOutOfBounds:
      return "out-of-bounds access";
    case FaultKind::kUseAfterFree:
      return "use after free";
    case FaultKind::kMisaligned:
      return "misaligned access";
    case FaultKind::kUnwritten:
      return "read of unwritten memory";
    case FaultKind::kRace:
      return "race";
    case FaultKind::kDivergentBarrier:
      return "divergent barrier";
    case FaultKind::kDeadlock:
      return "deadlock";
    case FaultKind::kAssertion:
      return "assertion failed";
    case FaultKind::kTrap:
      return "trap";
    case FaultKind::kUnsupported:
      return "unsupported instruction";
  }
  return "fault";
}

inline abi::Result FaultResult(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNone:
      return abi::kSuccess;
    case FaultKind::kOutOfBounds:
    case FaultKind::kUseAfterFree:
      return abi::kIllegalAddress;
    case FaultKind::kMisaligned:
      return abi::kMisalignedAddress;
    case FaultKind::kDeadlock:
      return abi::kLaunchTimeout;
    case FaultKind::kAssertion:
      return abi::kAssert;
    case FaultKind::kUnsupported:
      return abi::kIllegalInstruction;
    case FaultKind::kUnwritten:
    case FaultKind::kRace:
    case FaultKind::kDivergentBarrier:
    case FaultKind::kTrap:
      return abi::kLaunchFailed;
  }
  return abi::kUnknown;
}

struct Fault {
  FaultKind kind = FaultKind::kNone;
  std::string text;
};

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_FAULT_H_
