// Request heads: what is taken, what is refused, and that neither depends on how the bytes are cut.
#include "runtime/server/http/head_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qwen::server {
namespace {

struct Outcome {
  Progress progress = Progress::kMore;
  int status = 0;
  std::string code, message;
  std::string said;  // every part of the head
  size_t left = 0;   // bytes not taken

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome Parse(const std::vector<std::string_view>& pieces, const HeadLimits& limits = {}) {
  HeadParser parser(limits);
  Outcome outcome;
  for (std::string_view piece : pieces) {
    if (outcome.progress == Progress::kMore) outcome.progress = parser.Feed(&piece);
    outcome.left += piece.size();
  }
  if (outcome.progress == Progress::kFailed) {
    outcome.status = parser.error().status;
    outcome.code = parser.error().code;
    outcome.message = parser.error().message;
    outcome.left = 0;  // where it stops is not promised
  }
  if (outcome.progress == Progress::kDone) {
    const RequestHead& head = parser.head();
    outcome.said = head.method + " " + head.path + "?" + head.query + " 1." + std::to_string(head.minor_version);
    if (head.content_length) outcome.said += " length=" + std::to_string(*head.content_length);
    if (head.chunked) outcome.said += " chunked";
    if (head.keep_alive) outcome.said += " keep";
    if (head.expect_continue) outcome.said += " expect";
    for (const auto& [name, value] : head.headers) outcome.said += " " + name + "=" + value;
  }
  return outcome;
}

/// The outcome of `bytes` in one piece, after any two pieces and single bytes have given the same.
Outcome ParseEveryWay(std::string_view bytes, const HeadLimits& limits = {}) {
  const Outcome whole = Parse({bytes}, limits);
  for (size_t cut = 0; cut <= bytes.size(); ++cut)
    EXPECT_EQ(Parse({bytes.substr(0, cut), bytes.substr(cut)}, limits), whole) << bytes << " cut at " << cut;
  std::vector<std::string_view> single;
  for (size_t i = 0; i < bytes.size(); ++i) single.push_back(bytes.substr(i, 1));
  EXPECT_EQ(Parse(single, limits), whole) << bytes;
  return whole;
}

struct Refused {
  const char* why;
  std::string head;
  int status;
  const char* message;  // part of it
};

std::string With(std::string_view fields) {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n\r\n";
}

TEST(HeadParser, RefusesWhatCanBeReadInTwoWays) {
  using namespace std::string_literals;
  const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n";
  const Refused table[] = {
      {"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "CR or LF alone"},
      {"bare LF after a header", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "CR or LF alone"},
      {"bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "CR or LF alone"},
      {"bare CR in a value", With("X: a\rb"), 400, "CR or LF alone"},
      {"bare CR before CRLF", With("X: a\r"), 400, "CR or LF alone"},
      {"bare CR in the target", "GET /\r/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "CR or LF alone"},
      {"NUL in a value", With("X: a\0b"s), 400, "NUL"},
      {"NUL in a name", With("X\0Y: a"s), 400, "NUL"},
      {"NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"s, 400, "NUL"},
      {"NUL instead of the LF", "GET / HTTP/1.1\r\0Host: a\r\n\r\n"s, 400, "NUL"},
      {"obs-fold by space", With("X: a\r\n b"), 400, "folded"},
      {"obs-fold by tab", With("X: a\r\n\tb"), 400, "folded"},
      {"a folded first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "folded"},
      {"space before the colon", With("Content-Length : 3"), 400, "name, colon"},
      {"tab before the colon", With("Content-Length\t: 3"), 400, "name, colon"},
      {"no colon", With("Content-Length"), 400, "name, colon"},
      {"no name", With(": a"), 400, "name, colon"},
      {"a parenthesis in a name", With("X(: a"), 400, "name, colon"},
      {"a quote in a name", With("\"X\": a"), 400, "name, colon"},
      {"a non-ASCII name", With("X\xc3\xa9: a"), 400, "name, colon"},
      {"a control character in a value", With("X: a\x01"), 400, "name, colon"},
      {"DEL in a value", With("X: a\x7f"), 400, "name, colon"},
      {"a vertical tab before a value", With("Transfer-Encoding:\vchunked"), 400, "name, colon"},

      {"two lengths that differ", With("Content-Length: 3\r\nContent-Length: 4"), 400, "twice"},
      {"two lengths that agree", With("Content-Length: 3\r\ncontent-length: 3"), 400, "twice"},
      {"a list of lengths", With("Content-Length: 3, 3"), 400, "not a number"},
      {"a negative length", With("Content-Length: -1"), 400, "not a number"},
      {"a signed length", With("Content-Length: +1"), 400, "not a number"},
      {"a hexadecimal length", With("Content-Length: 0x10"), 400, "not a number"},
      {"a fraction", With("Content-Length: 1.0"), 400, "not a number"},
      {"an empty length", With("Content-Length:"), 400, "not a number"},
      {"a length with a space", With("Content-Length: 1 2"), 400, "not a number"},
      {"length, then chunked", With("Content-Length: 3\r\nTransfer-Encoding: chunked"), 400, "both"},
      {"chunked, then length", With("Transfer-Encoding: chunked\r\nContent-Length: 3"), 400, "both"},
      {"gzip, chunked", With("Transfer-Encoding: gzip, chunked"), 400, "not chunked"},
      {"chunked, identity", With("Transfer-Encoding: chunked, identity"), 400, "not chunked"},
      {"chunked, chunked", With("Transfer-Encoding: chunked, chunked"), 400, "not chunked"},
      {"chunked twice", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, "twice"},
      {"identity", With("Transfer-Encoding: identity"), 400, "not chunked"},
      {"xchunked", With("Transfer-Encoding: xchunked"), 400, "not chunked"},
      {"quoted chunked", With("Transfer-Encoding: \"chunked\""), 400, "not chunked"},
      {"chunked in capitals", With("Transfer-Encoding: Chunked"), 400, "not chunked"},
      {"an empty encoding", With("Transfer-Encoding:"), 400, "not chunked"},
      {"chunked on HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"},

      {"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", 400, "Host is missing"},
      {"no header at all", "GET / HTTP/1.1\r\n\r\n", 400, "Host is missing"},
      {"two Hosts", get + "host: a\r\n\r\n", 400, "Host is there twice"},
      {"two Hosts on HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "Host is there twice"},
      {"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "not a host"},
      {"a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "not a host"},
      {"a Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "not a host"},
      {"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "another host"},
      {"another port in the target", "GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "another host"},
      {"a user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "another host"},
      {"a target without a host", "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400, "no host"},
      {"another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "neither"},
      {"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "neither"},
      {"a relative target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "neither"},
      {"* of GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "OPTIONS"},

      {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "characters"},
      {"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "characters"},
      {"a tab as separator", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "not method, target, version"},
      {"a space first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "token"},
      {"HTTP/0.9", "GET /\r\nHost: a\r\n\r\n", 400, "not method, target, version"},
      {"no version", "GET / \r\nHost: a\r\n\r\n", 400, "version"},
      {"lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, "version"},
      {"a long version", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "version"},
      {"a space last", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "version"},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\n", 505, "HTTP/1.1"},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "HTTP/1.1"},
      {"an invalid method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "token"},
      {"two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "not method, target, version"},
      {"a fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "characters"},
      {"raw UTF-8 in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "characters"},
      {"TLS on this port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s, 400, "NUL"},

      {"%00", "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"%0d%0a", "GET /a%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"%zz", "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"% at the end", "GET /a% HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"%4 at the end", "GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"..", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {".. last", "GET /a/.. HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"encoded ..", "GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"encoded slashes around ..", "GET /a%2f..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"a backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"an encoded backslash", "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
      {"another expectation", With("Expect: 200-ok"), 417, "100-continue"},
  };
  for (const Refused& one : table) {
    SCOPED_TRACE(one.why);
    const Outcome outcome = ParseEveryWay(one.head);
    EXPECT_EQ(outcome.progress, Progress::kFailed);
    EXPECT_EQ(outcome.status, one.status) << outcome.message;
    EXPECT_NE(outcome.message.find(one.message), std::string::npos) << outcome.message;
    if (one.status == 400) EXPECT_EQ(outcome.code, "invalid_http");
  }
}

TEST(HeadParser, TakesWhatHasOneReading) {
  struct Taken {
    const char* head;
    const char* said;
  };
  const Taken table[] = {
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? 1.1 keep host=a"},
      {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? 1.1 keep host=a"},
      {"GET / HTTP/1.1\r\nHOST:a\r\n\r\n", "GET /? 1.1 keep host=a"},
      {"GET / HTTP/1.1\r\nHost:\t a \t\r\n\r\n", "GET /? 1.1 keep host=a"},
      {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /? 1.1 keep host="},
      {"GET / HTTP/1.0\r\n\r\n", "GET /? 1.0"},
      {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET /? 1.0 keep connection=Keep-Alive"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", "GET /? 1.1 host=a connection=x, Close"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", "GET /? 1.1 keep host=a connection=closed"},
      {"GET /a%20b%2Fc%2541?q=%00%zz\\.. HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a b/c%41?q=%00%zz\\.. 1.1 keep host=a"},
      {"GET /.../..a/. HTTP/1.1\r\nHost: a\r\n\r\n", "GET /.../..a/.? 1.1 keep host=a"},
      {"GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET /x?y 1.1 keep host=a:80"},
      {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? 1.1 keep host=a"},
      {"GET http://a/ HTTP/1.0\r\n\r\n", "GET /? 1.0"},
      {"OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "OPTIONS *? 1.1 keep host=[::1]:8080"},
      {"P-T_! / HTTP/1.1\r\nHost: a\r\n\r\n", "P-T_! /? 1.1 keep host=a"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n",
       "POST /? 1.1 length=7 keep host=a content-length=007"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
       "POST /? 1.1 length=18446744073709551615 keep host=a content-length=18446744073709551616"},
      {"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nExpect: 100-Continue\r\n\r\n",
       "POST /? 1.1 chunked keep expect host=a transfer-encoding=chunked expect=100-Continue"},
      {"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
       "POST /? 1.0 length=1 content-length=1 expect=100-continue"},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\ty\r\n\r\n", "GET /? 1.1 keep host=a x=\xc3\xa9\ty"},
  };
  for (const Taken& one : table) {
    SCOPED_TRACE(one.head);
    const Outcome outcome = ParseEveryWay(one.head);
    EXPECT_EQ(outcome.progress, Progress::kDone) << outcome.message;
    EXPECT_EQ(outcome.said, one.said);
    EXPECT_EQ(outcome.left, 0);
    // What follows belongs to the body or to the next request.
    EXPECT_EQ(ParseEveryWay(one.head + std::string("GET /")).left, 5);
  }
}

TEST(HeadParser, LimitsHoldToTheByte) {
  const HeadLimits limits = {.request_line_bytes = 64, .head_bytes = 200, .headers = 3};
  auto line = [](size_t bytes) { return "GET /" + std::string(bytes - 14, 'a') + " HTTP/1.1\r\n"; };
  auto status = [&](const std::string& head) {
    const Outcome outcome = ParseEveryWay(head, limits);
    return outcome.progress == Progress::kDone ? 200 : outcome.status;
  };
  EXPECT_EQ(status(line(64) + "Host: a\r\n\r\n"), 200);
  EXPECT_EQ(status(line(65) + "Host: a\r\n\r\n"), 431);
  EXPECT_EQ(status(line(64 + 100)), 431);
  auto head = [&](size_t bytes) {
    const std::string rest = line(40) + "Host: a\r\nX: \r\n\r\n";
    return line(40) + "Host: a\r\nX: " + std::string(bytes - rest.size(), 'x') + "\r\n\r\n";
  };
  ASSERT_EQ(head(200).size(), 200);
  EXPECT_EQ(status(head(200)), 200);
  for (size_t bytes : {201, 202, 203, 2000}) EXPECT_EQ(status(head(bytes)), 431) << bytes;
  EXPECT_EQ(status(line(40) + "Host: a\r\nA: 1\r\nB: 2\r\n\r\n"), 200);
  EXPECT_EQ(status(line(40) + "Host: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"), 431);
}

TEST(HeadParser, ALineThatNeverEndsIsRefusedAtItsLimit) {
  const HeadLimits limits;
  HeadParser parser(limits);
  const std::string endless(limits.request_line_bytes + 1, 'G');
  std::string_view first(endless.data(), limits.request_line_bytes), last(endless.data(), 1);
  EXPECT_EQ(parser.Feed(&first), Progress::kMore);
  EXPECT_EQ(parser.Feed(&last), Progress::kFailed);
  EXPECT_EQ(parser.error().status, 431);
}

}  // namespace
}  // namespace qwen::server
