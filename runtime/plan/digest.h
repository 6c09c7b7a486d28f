// XXH3 over what has an order: bytes, integers, strings with their lengths.
#ifndef QWEN_RUNTIME_PLAN_DIGEST_H_
#define QWEN_RUNTIME_PLAN_DIGEST_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/plan/plan.h"

namespace qwen::plan {

/// XXH3-64 with seed 0.
uint64_t Xxh3(std::span<const uint8_t> bytes);

class Digest {
 public:
  Digest();
  ~Digest();
  void Bytes(std::span<const uint8_t> bytes);
  void Int(int64_t value);              // 8 bytes, little-endian
  void String(std::string_view value);  // its length, then its bytes
  uint64_t Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Of `weights` and `packed`: plans that agree in it pack the same checkpoint into the same bytes (FORMAT.md).
uint64_t WeightsDigest(const Plan& plan);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_DIGEST_H_
