// Element types. No includes: ISA files and device code read this header too.
#ifndef QWEN_RUNTIME_BASE_DTYPE_H_
#define QWEN_RUNTIME_BASE_DTYPE_H_

namespace qwen {

// The numbers are part of the plan file.
enum class DType : unsigned char { kF32 = 0, kBF16 = 1, kF16 = 2, kI32 = 3, kI64 = 4, kU8 = 5, kF8E4M3 = 6, kF64 = 7 };
inline constexpr int kNumDTypes = 8;

constexpr int DTypeBytes(DType type) {
  constexpr int kBytes[] = {4, 2, 2, 4, 8, 1, 1, 8};
  return kBytes[static_cast<int>(type)];
}

constexpr const char* DTypeName(DType type) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "i32", "i64", "u8", "f8e4m3", "f64"};
  return kNames[static_cast<int>(type)];
}

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_DTYPE_H_
