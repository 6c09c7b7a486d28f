#include "runtime/text/utf8_stream.h"

#include "runtime/text/unicode/utf8.h"

namespace qwen::text {
namespace {

/// Appends the units of `bytes`; returns where one begins that the end cuts off, else bytes.size().
size_t AppendUnits(std::string_view bytes, std::string* out) {
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Unit unit = DecodeUtf8(bytes, at);
    if (unit.cut) return at;
    out->append(unit.code_point == kIllFormed ? kReplacement : bytes.substr(at, unit.length));
    at += unit.length;
  }
  return bytes.size();
}

}  // namespace

void Utf8Stream::Push(std::string_view bytes, std::string* out) {
  // One byte at a time while something waits: a beginning grows by one or is decided.
  while (!waiting_.empty() && !bytes.empty()) {
    waiting_ += bytes[0];
    bytes.remove_prefix(1);
    waiting_.erase(0, AppendUnits(waiting_, out));
  }
  waiting_ += bytes.substr(AppendUnits(bytes, out));
}

void Utf8Stream::Flush(std::string* out) {
  if (!waiting_.empty()) out->append(kReplacement);
  waiting_.clear();
}

std::string ReplaceIllFormed(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  Utf8Stream stream;
  stream.Push(bytes, &text);
  stream.Flush(&text);
  return text;
}

}  // namespace qwen::text
