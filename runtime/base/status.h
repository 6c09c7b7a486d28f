// Status and StatusOr: how every fallible call of both programs says what went wrong.
//
// A message reads `what: where: why with both numbers`, lower case, no full stop; a hint says what to do. Each room on
// the way up adds what it was doing, once (Status::Annotate). The code decides the exit code (serving design, 1.1).
#ifndef QWEN_RUNTIME_BASE_STATUS_H_
#define QWEN_RUNTIME_BASE_STATUS_H_

#include <cassert>
#include <optional>
#include <string>
#include <utility>

namespace qwen {

enum class StatusCode {
  kOk,
  kFailed,             // exit 1: no better class
  kInvalidArgument,    // exit 2: a flag, a value, a missing argument
  kDataLoss,           // exit 3: an input file is damaged or malformed
  kUnimplemented,      // exit 4: valid, but not for this build or device
  kResourceExhausted,  // exit 5: memory, disk, a file that cannot be opened; pages or slots
  kCheckFailed,        // exit 6: a comparison beyond its tolerance
  kCancelled,          // exit 130: stopped by the user
  kInternal,           // exit 70: our bug
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message, std::string hint = {})
      : code_(code), message_(std::move(message)), hint_(std::move(hint)) {
    assert(code != StatusCode::kOk);
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

  /// The same status with `where: ` in front of its message; OK stays OK.
  Status Annotate(const std::string& where) && {
    if (!ok()) message_ = where + ": " + message_;
    return std::move(*this);
  }
  Status Annotate(const std::string& where) const& { return Status(*this).Annotate(where); }

  /// The process's exit code for this status.
  int ExitCode() const {
    switch (code_) {
      case StatusCode::kOk: return 0;
      case StatusCode::kFailed: return 1;
      case StatusCode::kInvalidArgument: return 2;
      case StatusCode::kDataLoss: return 3;
      case StatusCode::kUnimplemented: return 4;
      case StatusCode::kResourceExhausted: return 5;
      case StatusCode::kCheckFailed: return 6;
      case StatusCode::kCancelled: return 130;
      case StatusCode::kInternal: return 70;
    }
    return 70;
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
  std::string hint_;
};

inline Status FailedError(std::string m, std::string hint = {}) {
  return {StatusCode::kFailed, std::move(m), std::move(hint)};
}
inline Status InvalidArgumentError(std::string m, std::string hint = {}) {
  return {StatusCode::kInvalidArgument, std::move(m), std::move(hint)};
}
inline Status DataLossError(std::string m, std::string hint = {}) {
  return {StatusCode::kDataLoss, std::move(m), std::move(hint)};
}
inline Status UnimplementedError(std::string m, std::string hint = {}) {
  return {StatusCode::kUnimplemented, std::move(m), std::move(hint)};
}
inline Status ResourceExhaustedError(std::string m, std::string hint = {}) {
  return {StatusCode::kResourceExhausted, std::move(m), std::move(hint)};
}
inline Status CheckFailedError(std::string m, std::string hint = {}) {
  return {StatusCode::kCheckFailed, std::move(m), std::move(hint)};
}
inline Status CancelledError(std::string m, std::string hint = {}) {
  return {StatusCode::kCancelled, std::move(m), std::move(hint)};
}
inline Status InternalError(std::string m, std::string hint = {}) {
  return {StatusCode::kInternal, std::move(m), std::move(hint)};
}

/// A value, or the status that says why there is none.
template <class T>
class [[nodiscard]] StatusOr {
 public:
  StatusOr(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT: implicit by design
  StatusOr(T value) : value_(std::move(value)) {}                                  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

#define QWEN_CONCAT_IMPL(a, b) a##b
#define QWEN_CONCAT(a, b) QWEN_CONCAT_IMPL(a, b)
/// Returns from the caller when `expr` is not OK.
#define QWEN_RETURN_IF_ERROR(expr)                          \
  do {                                                      \
    if (::qwen::Status qwen_status = (expr); !qwen_status.ok()) return qwen_status; \
  } while (false)
/// `QWEN_ASSIGN_OR_RETURN(auto x, F())`: x is F's value, or the caller returns F's status.
#define QWEN_ASSIGN_OR_RETURN(decl, expr) QWEN_ASSIGN_OR_RETURN_IMPL(QWEN_CONCAT(qwen_or_, __LINE__), decl, expr)
#define QWEN_ASSIGN_OR_RETURN_IMPL(tmp, decl, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return tmp.status();               \
  decl = *std::move(tmp)

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_STATUS_H_
