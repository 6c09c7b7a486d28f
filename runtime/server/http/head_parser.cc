#include "runtime/server/http/head_parser.h"

#include <algorithm>

namespace qwen::server {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlnum(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool IsTokenChar(char c) { return IsAlnum(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos; }
/// Of a host with its port (RFC 3986, 3.2.2), by character alone.
bool IsHostChar(char c) {
  return IsAlnum(c) || std::string_view("-._~!$&'()*+,;=%:[]").find(c) != std::string_view::npos;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  c = Lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string ToLower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), Lower);
  return lower;
}

bool HasToken(std::string_view list, std::string_view token) {
  while (true) {
    const size_t comma = list.find(',');
    if (ToLower(Trim(list.substr(0, comma))) == token) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

bool ParseField(std::string_view line, Header* field) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view name = line.substr(0, colon), value = Trim(line.substr(colon + 1));
  if (!std::all_of(name.begin(), name.end(), IsTokenChar)) return false;
  if (std::any_of(value.begin(), value.end(), [](char c) { return IsControl(c) && c != '\t'; })) return false;
  *field = {ToLower(name), std::string(value)};
  return true;
}

bool ParseLength(std::string_view text, uint64_t* value) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), IsDigit)) return false;
  *value = 0;
  for (char c : text)
    if (__builtin_mul_overflow(*value, uint64_t{10}, value) ||
        __builtin_add_overflow(*value, static_cast<uint64_t>(c - '0'), value)) {
      *value = UINT64_MAX;
      return true;
    }
  return true;
}

bool DecodePath(std::string_view raw, std::string* path) {
  path->clear();
  for (size_t i = 0; i < raw.size(); ++i) {
    char c = raw[i];
    if (c == '%') {
      const int high = i + 2 < raw.size() ? HexDigit(raw[i + 1]) : -1, low = high < 0 ? -1 : HexDigit(raw[i + 2]);
      if (low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (IsControl(c) || c == '\\') return false;
    path->push_back(c);
  }
  for (size_t begin = 0; begin <= path->size();) {
    const size_t end = std::min(path->find('/', begin), path->size());
    if (std::string_view(*path).substr(begin, end - begin) == "..") return false;
    begin = end + 1;
  }
  return true;
}

Progress HeadParser::Fail(int status, const char* code, const char* message) {
  error_ = {status, code, message};
  return Progress::kFailed;
}

Progress HeadParser::Feed(std::string_view* bytes) {
  started_ |= !bytes->empty();
  while (true) {
    // A line may not end beyond the head's limit, so a line is never kept that could not count.
    size_t room = limits_.head_bytes - head_bytes_;
    room = room < 2 ? 0 : room - 2;
    if (!has_request_line_) room = std::min(room, limits_.request_line_bytes);
    switch (reader_.Feed(bytes, room)) {
      case LineReader::Result::kMore:
        return Progress::kMore;
      case LineReader::Result::kBadByte:
        return Bad("a line of the head ends in CR or LF alone, or holds a NUL");
      case LineReader::Result::kTooLong:
        return Fail(431, "headers_too_large",
                    has_request_line_ ? "the request's head is too large" : "the request line is too long");
      case LineReader::Result::kLine:
        break;
    }
    head_bytes_ += reader_.line().size() + 2;
    if (head_bytes_ > limits_.head_bytes) return Fail(431, "headers_too_large", "the request's head is too large");
    Progress progress = Progress::kMore;
    if (!has_request_line_) {
      // One empty line before a request is skipped (RFC 9112, 2.2).
      if (reader_.line().empty() && !skipped_empty_line_) {
        skipped_empty_line_ = true;
      } else {
        has_request_line_ = true;
        progress = RequestLine(reader_.line());
      }
    } else if (reader_.line().empty()) {
      progress = Finish();
    } else {
      progress = Field(reader_.line());
    }
    reader_.Next();
    if (progress != Progress::kMore) return progress;
  }
}

Progress HeadParser::RequestLine(std::string_view line) {
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return Bad("the request line is not method, target, version");
  const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1),
                         version = line.substr(last + 1);
  if (method.empty() || !std::all_of(method.begin(), method.end(), IsTokenChar))
    return Bad("the method is not a token");
  head_.method = method;
  if (version == "HTTP/1.1" || version == "HTTP/1.0") {
    head_.minor_version = version.back() - '0';
    head_.keep_alive = head_.minor_version == 1;
  } else if (version.size() == 8 && version.starts_with("HTTP/") && IsDigit(version[5]) && version[6] == '.' &&
             IsDigit(version[7])) {
    return Fail(505, "http_version_not_supported", "only HTTP/1.1 and HTTP/1.0 are spoken here");
  } else {
    return Bad("the request line does not end in an HTTP version");
  }
  return Target(target);
}

Progress HeadParser::Target(std::string_view target) {
  // A space would make a second version, what is not ASCII has no one reading, and a fragment never leaves a client.
  if (target.empty() || std::any_of(target.begin(), target.end(), [](char c) {
        return c == ' ' || c == '#' || IsControl(c) || static_cast<unsigned char>(c) >= 0x80;
      }))
    return Bad("the request target has characters that no target has");
  if (target == "*") {
    if (head_.method != "OPTIONS") return Bad("the target * is for OPTIONS");
    head_.path = "*";
    return Progress::kMore;
  }
  if (target.front() != '/') {
    const size_t scheme = target.find("://");
    if (scheme == std::string_view::npos) return Bad("the request target is neither a path nor a URL");
    const std::string name = ToLower(target.substr(0, scheme));
    if (name != "http" && name != "https") return Bad("the request target is neither a path nor a URL");
    target.remove_prefix(scheme + 3);
    const size_t slash = std::min(target.find_first_of("/?"), target.size());
    authority_ = ToLower(target.substr(0, slash));
    if (authority_.empty()) return Bad("the request target has no host");
    target.remove_prefix(slash);
    if (target.empty()) target = "/";
    if (target.front() != '/') return Bad("the request target has no path");
  }
  const size_t question = target.find('?');
  if (question != std::string_view::npos) head_.query = target.substr(question + 1);
  if (!DecodePath(target.substr(0, question), &head_.path))
    return Bad("the path has a broken escape, a control character, a backslash or a .. segment");
  return Progress::kMore;
}

Progress HeadParser::Field(std::string_view line) {
  if (head_.headers.size() >= limits_.headers) return Fail(431, "headers_too_large", "there are too many headers");
  Header field;
  if (line.front() == ' ' || line.front() == '\t') return Bad("a header is folded over two lines");
  if (!ParseField(line, &field)) return Bad("a header is not name, colon, value");
  head_.headers.push_back(std::move(field));
  return Progress::kMore;
}

Progress HeadParser::Finish() {
  int hosts = 0, lengths = 0, encodings = 0;
  bool close = false, keep_alive = false;
  for (const auto& [name, value] : head_.headers) {
    if (name == "host") {
      ++hosts;
      head_.host = value;
    } else if (name == "content-length") {
      ++lengths;
      uint64_t length;
      if (!ParseLength(value, &length)) return Bad("Content-Length is not a number");
      head_.content_length = length;
    } else if (name == "transfer-encoding") {
      ++encodings;
      if (value != "chunked") return Bad("Transfer-Encoding is not chunked");
      head_.chunked = true;
    } else if (name == "connection") {
      close |= HasToken(value, "close");
      keep_alive |= HasToken(value, "keep-alive");
    } else if (name == "expect") {
      if (ToLower(value) != "100-continue") return Fail(417, "expectation_failed", "only 100-continue can be expected");
      head_.expect_continue = head_.minor_version == 1;
    }
  }
  if (lengths > 1) return Bad("Content-Length is there twice");
  if (encodings > 1) return Bad("Transfer-Encoding is there twice");
  if (lengths > 0 && encodings > 0) return Bad("Content-Length and Transfer-Encoding are both there");
  if (encodings > 0 && head_.minor_version == 0) return Bad("HTTP/1.0 has no Transfer-Encoding");
  if (hosts > 1) return Bad("Host is there twice");
  if (hosts == 0 && head_.minor_version == 1) return Bad("Host is missing");
  if (!std::all_of(head_.host.begin(), head_.host.end(), IsHostChar)) return Bad("Host is not a host");
  if (!authority_.empty()) {
    if (hosts == 0) head_.host = authority_;
    if (ToLower(head_.host) != authority_) return Bad("the request target names another host than Host");
  }
  head_.keep_alive = close ? false : head_.keep_alive || keep_alive;
  return Progress::kDone;
}

}  // namespace qwen::server
