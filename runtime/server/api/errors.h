// Every way a request can go wrong, as clients see it (serving design, section 5): one row a kind, so that a status, a
// type and a code are never combined by hand.
#ifndef QWEN_RUNTIME_SERVER_API_ERRORS_H_
#define QWEN_RUNTIME_SERVER_API_ERRORS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/server/http/http.h"

namespace qwen::server {

enum class ErrorKind : uint8_t {
  kInvalidJson,
  kJsonTooDeep,
  kInvalidType,
  kMissingParameter,
  kInvalidValue,
  kUnsupportedParameter,
  kUnsupportedContent,
  kUnknownParameter,
  kContextLength,
  kTemplateError,
  kTemplateLimit,
  kModelNotFound,
  kQueueFull,
  kModelLoading,
  kShuttingDown,
  kQueueTimeout,
  kEngineFailed,
  kDeadline,
  kInternal,
  kNotSupported,
};

/// `param`: the place in the request, "messages[2].content"; "" when there is none. Messages end after 500 characters.
ApiError MakeError(ErrorKind kind, std::string_view message, std::string param = "");

/// Why a request is not taken; nothing when it is.
using Refusal = std::optional<ApiError>;

/// At most 80 characters of what a user wrote, as a JSON string.
std::string QuoteUser(std::string_view text);

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_API_ERRORS_H_
