#include "runtime/server/api/errors.h"

#include <iterator>
#include <utility>

#include "runtime/base/json.h"
#include "runtime/text/unicode/utf8.h"

namespace qwen::server {
namespace {

constexpr size_t kMaxMessage = 500, kMaxQuoted = 80;  // characters

struct ErrorRow {
  ErrorKind kind;
  int status;
  const char *type, *code;
  int retry_after_s = 0;     // of those that may go well later
  bool will_repeat = false;  // tells clients that would try again not to
  bool close = false;        // the connection ends
};

constexpr const char kInvalid[] = "invalid_request_error", kUnavailable[] = "unavailable_error",
                     kServer[] = "server_error";

constexpr ErrorRow kErrors[] = {
    {ErrorKind::kInvalidJson, 400, kInvalid, "invalid_json"},
    {ErrorKind::kJsonTooDeep, 400, kInvalid, "json_too_deep"},
    {ErrorKind::kInvalidType, 400, kInvalid, "invalid_type"},
    {ErrorKind::kMissingParameter, 400, kInvalid, "missing_required_parameter"},
    {ErrorKind::kInvalidValue, 400, kInvalid, "invalid_value"},
    {ErrorKind::kUnsupportedParameter, 400, kInvalid, "unsupported_parameter"},
    {ErrorKind::kUnsupportedContent, 400, kInvalid, "unsupported_content"},
    {ErrorKind::kUnknownParameter, 400, kInvalid, "unknown_parameter"},
    {ErrorKind::kContextLength, 400, kInvalid, "context_length_exceeded"},
    {ErrorKind::kTemplateError, 400, kInvalid, "template_error"},
    {ErrorKind::kTemplateLimit, 400, kInvalid, "template_limit"},
    {ErrorKind::kModelNotFound, 404, kInvalid, "model_not_found"},
    {ErrorKind::kQueueFull, 429, "rate_limit_error", "queue_full", 1},
    {ErrorKind::kModelLoading, 503, kUnavailable, "model_loading", 5},
    {ErrorKind::kShuttingDown, 503, kUnavailable, "shutting_down", 5, false, true},
    {ErrorKind::kQueueTimeout, 503, kUnavailable, "queue_timeout", 10},
    {ErrorKind::kEngineFailed, 503, kServer, "engine_failed", 0, true},
    {ErrorKind::kDeadline, 504, "timeout_error", "deadline_exceeded", 0, true},
    {ErrorKind::kInternal, 500, kServer, "internal_error", 0, true},
    {ErrorKind::kNotSupported, 501, "not_supported_error", "not_supported", 0, true},
};

constexpr bool RowsAreInOrder() {
  for (size_t i = 0; i < std::size(kErrors); ++i)
    if (kErrors[i].kind != static_cast<ErrorKind>(i)) return false;
  return std::size(kErrors) == static_cast<size_t>(ErrorKind::kNotSupported) + 1;
}
static_assert(RowsAreInOrder());

std::string_view FirstCharacters(std::string_view text, size_t count) {
  size_t end = 0;
  for (; count > 0 && end < text.size(); --count) end += text::DecodeUtf8(text, end).length;
  return text.substr(0, end);
}

}  // namespace

ApiError MakeError(ErrorKind kind, std::string_view message, std::string param) {
  const ErrorRow& row = kErrors[static_cast<size_t>(kind)];
  ApiError error{.status = row.status,
                 .type = row.type,
                 .code = row.code,
                 .message = std::string(FirstCharacters(message, kMaxMessage)),
                 .param = std::move(param),
                 .retry_after_s = row.retry_after_s,
                 .close = row.close};
  if (row.will_repeat) error.headers.emplace_back("x-should-retry", "false");
  return error;
}

std::string QuoteUser(std::string_view text) {
  const std::string_view head = FirstCharacters(text, kMaxQuoted);
  return JsonQuote(head) + (head.size() < text.size() ? "..." : "");
}

}  // namespace qwen::server
