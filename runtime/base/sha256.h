// SHA-256 (FIPS 180-4), for comparing secrets by digest. Not a fast path: a key a request.
#ifndef QWEN_RUNTIME_BASE_SHA256_H_
#define QWEN_RUNTIME_BASE_SHA256_H_

#include <array>
#include <cstdint>
#include <string_view>

namespace qwen {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(std::string_view bytes);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_SHA256_H_
