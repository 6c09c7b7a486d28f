// Chunked bodies: what is taken, what is refused, and that neither depends on how the bytes are cut.
#include "runtime/server/http/chunk_decoder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qwen::server {
namespace {

struct Outcome {
  Progress progress = Progress::kMore;
  int status = 0;
  std::string message, body;
  size_t left = 0;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome Decode(const std::vector<std::string_view>& pieces, size_t limit) {
  ChunkDecoder decoder(limit);
  Outcome outcome;
  for (std::string_view piece : pieces) {
    if (outcome.progress == Progress::kMore) outcome.progress = decoder.Feed(&piece, &outcome.body);
    outcome.left += piece.size();
  }
  EXPECT_LE(outcome.body.size(), limit);
  if (outcome.progress == Progress::kFailed) {
    outcome.status = decoder.error().status;
    outcome.message = decoder.error().message;
    outcome.left = 0;
  }
  return outcome;
}

Outcome DecodeEveryWay(std::string_view bytes, size_t limit = 1000) {
  const Outcome whole = Decode({bytes}, limit);
  for (size_t cut = 0; cut <= bytes.size(); ++cut)
    EXPECT_EQ(Decode({bytes.substr(0, cut), bytes.substr(cut)}, limit), whole) << bytes << " cut at " << cut;
  std::vector<std::string_view> single;
  for (size_t i = 0; i < bytes.size(); ++i) single.push_back(bytes.substr(i, 1));
  EXPECT_EQ(Decode(single, limit), whole) << bytes;
  return whole;
}

TEST(ChunkDecoder, TakesChunks) {
  struct Taken {
    std::string bytes, body;
  };
  const Taken table[] = {
      {"0\r\n\r\n", ""},
      {"5\r\nhello\r\n0\r\n\r\n", "hello"},
      {"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", "hello0123456789"},
      {"a\r\n0123456789\r\n0\r\n\r\n", "0123456789"},
      {"00000005\r\nhello\r\n00000000\r\n\r\n", "hello"},
      {"4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"},
      {"2;a=b;c=\"d e\"\r\nxy\r\n0;end\r\n\r\n", "xy"},
      {"1;" + std::string(255, 'e') + "\r\nx\r\n0\r\n\r\n", "x"},
      {"1\r\nx\r\n0\r\nX-Digest: 1\r\nY:\r\n\r\n", "x"},
  };
  for (const auto& [bytes, body] : table) {
    SCOPED_TRACE(bytes);
    const Outcome outcome = DecodeEveryWay(bytes);
    EXPECT_EQ(outcome.progress, Progress::kDone) << outcome.message;
    EXPECT_EQ(outcome.body, body);
    EXPECT_EQ(DecodeEveryWay(bytes + "GET /").left, 5);
  }
}

TEST(ChunkDecoder, RefusesWhatCanBeReadInTwoWays) {
  using namespace std::string_literals;
  struct Refused {
    std::string bytes;
    int status;
  };
  const Refused table[] = {
      {"\r\n", 400},
      {"x\r\n", 400},
      {"-1\r\n", 400},
      {"+1\r\nx\r\n", 400},
      {"0x1\r\nx\r\n", 400},
      {" 1\r\nx\r\n", 400},
      {"1 \r\nx\r\n", 400},
      {"1 ;a\r\nx\r\n", 400},
      {"1\t\r\nx\r\n", 400},
      {"1_0\r\n", 400},
      {"000000001\r\nx\r\n", 400},
      {"100000000\r\n", 400},
      {"fffffffffffffffff\r\n", 400},
      {"1\nx\r\n", 400},
      {"1\r\nx\n", 400},
      {"1\r\nx\r\r\n", 400},
      {"1\r\nxy\r\n", 400},
      {"1\r\nx0\r\n\r\n", 400},
      {"1;a\nb\r\nx\r\n", 400},
      {"1;a\rb\r\nx\r\n", 400},
      {"1;a\0b\r\nx\r\n"s, 400},
      {"1;a\x01\r\nx\r\n", 400},
      {"1;" + std::string(256, 'e') + "\r\nx\r\n", 400},
      {"1;" + std::string(5000, 'e'), 400},
      {"0\r\nX : a\r\n\r\n", 400},
      {"0\r\n X: a\r\n\r\n", 400},
      {"0\r\nX\r\n\r\n", 400},
      {"0\r\nX: a\n\r\n", 400},
      {"0\r\n\n", 400},
      {"0\r\nX: " + std::string(5000, 't') + "\r\n\r\n", 431},
      {"ffffffff\r\n", 413},
      {"3e9\r\n", 413},
  };
  for (const auto& [bytes, status] : table) {
    SCOPED_TRACE(bytes);
    const Outcome outcome = DecodeEveryWay(bytes);
    EXPECT_EQ(outcome.progress, Progress::kFailed);
    EXPECT_EQ(outcome.status, status) << outcome.message;
  }
}

TEST(ChunkDecoder, LimitsHoldToTheByte) {
  const std::string five = "5\r\nhello\r\n", end = "0\r\n\r\n";
  EXPECT_EQ(DecodeEveryWay(five + five + end, 10).progress, Progress::kDone);
  EXPECT_EQ(DecodeEveryWay(five + five + end, 9).status, 413);
  EXPECT_EQ(DecodeEveryWay(five + five + "1\r\nx\r\n" + end, 10).status, 413);
  // Trailers: 4 KiB with their line ends.
  auto trailers = [](size_t bytes) { return "0\r\nA: " + std::string(bytes - 5, 't') + "\r\n\r\n"; };
  EXPECT_EQ(DecodeEveryWay(trailers(4096)).progress, Progress::kDone);
  std::string many = "0\r\n";
  for (int i = 0; i < 4096 / 8; ++i) many += "A: 345\r\n";
  EXPECT_EQ(Decode({many + "\r\n"}, 10).progress, Progress::kDone);
  EXPECT_EQ(Decode({many + "A: 1\r\n\r\n"}, 10).status, 431);
}

}  // namespace
}  // namespace qwen::server
