// Damaged and hostile safetensors headers.
#include <gtest/gtest.h>

#include <limits>

#include "runtime/plan/safetensors.h"

namespace qwen::plan {
namespace {

/// A file of this header and `data_bytes` behind it, as its first bytes.
StatusOr<SafetensorsHeader> Parse(const std::string& header, int64_t data_bytes, int64_t length = -1) {
  if (length < 0) length = static_cast<int64_t>(header.size());
  std::vector<uint8_t> prefix;
  for (int i = 0; i < 8; ++i) prefix.push_back(static_cast<uint8_t>(static_cast<uint64_t>(length) >> (8 * i)));
  prefix.insert(prefix.end(), header.begin(), header.end());
  return ParseSafetensorsHeader(prefix, static_cast<int64_t>(prefix.size()) + data_bytes, "f");
}

std::string Message(const std::string& header, int64_t data_bytes) {
  StatusOr<SafetensorsHeader> parsed = Parse(header, data_bytes);
  if (parsed.ok()) return "ok";
  EXPECT_EQ(parsed.status().ExitCode(), 3);
  return parsed.status().message();
}

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

TEST(SafetensorsCorrupt, GoodHeadersPass) {
  EXPECT_EQ(Message("{}", 0), "ok");
  EXPECT_EQ(Message("{}   ", 0), "ok");
  EXPECT_EQ(Message("{" + Tensor("a", "F32", "[2,3]", "[0,24]") + "}", 24), "ok");
  EXPECT_EQ(Message("{" + Tensor("scalar", "F64", "[]", "[0,8]") + "}", 8), "ok");
  EXPECT_EQ(Message("{" + Tensor("none", "F64", "[0,7]", "[0,0]") + "," + Tensor("a", "U8", "[1]", "[0,1]") + "," +
                        Tensor("end", "U8", "[0]", "[1,1]") + "}",
                    1),
            "ok");
  EXPECT_EQ(Message("{\"__metadata__\":{\"format\":\"pt\"}," + Tensor("a", "U8", "[1]", "[0,1]") + "}", 1), "ok");
  EXPECT_EQ(Message("{" + Tensor("nibbles", "F4", "[4]", "[0,2]") + "}", 2), "ok");
  EXPECT_EQ(Message("{" + Tensor("later", "X7", "[5]", "[0,9]") + "}", 9), "ok");  // nobody may name it
}

TEST(SafetensorsCorrupt, Lengths) {
  EXPECT_EQ(ParseSafetensorsHeader({}, 0, "f").status().message(), "f: has 0 bytes, too few for a safetensors file");
  const uint8_t seven[7] = {};
  EXPECT_EQ(ParseSafetensorsHeader(seven, 7, "f").status().message(), "f: has 7 bytes, too few for a safetensors file");
  EXPECT_EQ(Parse("{}", 0, 100'000'001).status().message(),
            "f: its header has 100000001 bytes, the limit is 100000000");
  EXPECT_EQ(Parse("{}", 0, std::numeric_limits<int64_t>::max()).status().message(),
            "f: its header has 9223372036854775807 bytes, the limit is 100000000");
  EXPECT_EQ(Parse("{}", 0, 3).status().message(), "f: its header ends at byte 11, but the file has 10");
  EXPECT_EQ(Parse("", 0, 0).status().message(), "f: its header does not begin with {");
  std::vector<uint8_t> all_ones(64, 0xff);
  EXPECT_EQ(ParseSafetensorsHeader(all_ones, 64, "f").status().message(),
            "f: its header has 18446744073709551615 bytes, the limit is 100000000");
}

TEST(SafetensorsCorrupt, NotJson) {
  EXPECT_EQ(Message("[]", 0), "f: its header does not begin with {");
  EXPECT_EQ(Message(" {}", 0), "f: its header does not begin with {");
  for (const char* text : {"{", "{\"a\":}", "{}x", "{\"a\":{}", "{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}"})
    EXPECT_EQ(Message(text, 0).rfind("f: header", 0), 0u) << text;
  EXPECT_EQ(Message("{" + Tensor("a", "U8", "[1]", "[0,1]") + "," + Tensor("a", "U8", "[1]", "[0,1]") + "}", 1),
            "f: header:/a: stands twice in its object");
  EXPECT_EQ(Message(std::string("{\"\xff\":1}"), 0).rfind("f: header", 0), 0u);
  EXPECT_EQ(Message("{\"\":" + Tensor("", "U8", "[1]", "[0,1]").substr(3) + "}", 1), "f: a tensor has no name");
}

TEST(SafetensorsCorrupt, Entries) {
  auto tensor = [](const std::string& entry, int64_t data_bytes = 8) {
    return Message("{\"a\":" + entry + "}", data_bytes);
  };
  const std::string where = "f: tensor \"a\": ";
  EXPECT_EQ(tensor("7"), where + "is an integer, want an object");
  EXPECT_EQ(tensor("{}"), where + "has no dtype");
  EXPECT_EQ(tensor("{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}"), where + "has no dtype");
  EXPECT_EQ(tensor("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), where + "has no shape");
  EXPECT_EQ(tensor("{\"dtype\":\"F32\",\"shape\":[2]}"), where + "has no pair of data_offsets");
  EXPECT_EQ(tensor("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}"),
            where + "has no pair of data_offsets");
  auto shaped = [&](const std::string& shape, const std::string& offsets, const std::string& dtype = "F32") {
    return tensor("{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}");
  };
  EXPECT_EQ(shaped("[2]", "[0,8]"), "ok");
  EXPECT_EQ(shaped("[-2]", "[0,8]"), where + "has a dimension that is no integer from 0 on");
  EXPECT_EQ(shaped("[2.0]", "[0,8]"), where + "has a dimension that is no integer from 0 on");
  EXPECT_EQ(shaped("[18446744073709551615]", "[0,8]"), where + "has a dimension that is no integer from 0 on");
  EXPECT_EQ(shaped("[4294967296,4294967296]", "[0,8]"),
            where + "has the shape [4294967296, 4294967296], which is too large");
  EXPECT_EQ(shaped("[9223372036854775807]", "[0,8]"),
            where + "has the shape [9223372036854775807], which is too large");
  // 2^62 * 4 bytes wraps to 0, 2^61 + 1 elements of 8 bytes to 8.
  EXPECT_EQ(shaped("[4611686018427387904]", "[0,0]"),
            where + "has the shape [4611686018427387904], which is too large");
  EXPECT_EQ(shaped("[2305843009213693953]", "[0,8]", "F64"),
            where + "has the shape [2305843009213693953], which is too large");
  std::string many = "[1";
  for (int i = 0; i < 32; ++i) many += ",1";
  EXPECT_EQ(shaped(many + "]", "[0,4]"), where + "has 33 dimensions, at most 32");
  EXPECT_EQ(shaped("[3]", "[0,8]"), where + "has 8 bytes, but F32 [3] takes 12");
  EXPECT_EQ(shaped("[4]", "[0,8]", "F64"), where + "has 8 bytes, but F64 [4] takes 32");
  EXPECT_EQ(shaped("[3]", "[0,2]", "F4"), where + "has 2 bytes, but F4 [3] takes 1");
  EXPECT_EQ(shaped("[2]", "[-1,7]"), where + "has an offset that is no integer from 0 on");
  EXPECT_EQ(shaped("[2]", "[0,8.0]"), where + "has an offset that is no integer from 0 on");
  EXPECT_EQ(shaped("[2]", "[8,0]"), where + "is at bytes [8, 0), but the data have 8");
  EXPECT_EQ(shaped("[2]", "[1,9]"), where + "is at bytes [1, 9), but the data have 8");
  EXPECT_EQ(shaped("[2]", "[0,9223372036854775807]"),
            where + "is at bytes [0, 9223372036854775807), but the data have 8");
}

TEST(SafetensorsCorrupt, HolesAndOverlaps) {
  auto two = [](const std::string& first, const std::string& second, int64_t data_bytes) {
    return Message("{" + Tensor("a", "U8", "[4]", first) + "," + Tensor("b", "U8", "[4]", second) + "}", data_bytes);
  };
  EXPECT_EQ(two("[0,4]", "[4,8]", 8), "ok");
  EXPECT_EQ(two("[4,8]", "[0,4]", 8), "ok");
  // The header takes 113 bytes with its length.
  EXPECT_EQ(two("[0,4]", "[5,9]", 9), "f: tensor \"b\": begins at byte 118, but the one before ends at 117");
  EXPECT_EQ(two("[0,4]", "[3,7]", 7), "f: tensor \"b\": begins at byte 116, but the one before ends at 117");
  EXPECT_EQ(two("[0,4]", "[0,4]", 4), "f: tensor \"b\": begins at byte 113, but the one before ends at 117");
  EXPECT_EQ(two("[1,5]", "[5,9]", 9), "f: tensor \"a\": begins at byte 114, but the one before ends at 113");
  EXPECT_EQ(two("[0,4]", "[4,8]", 9), "f: the last tensor ends at byte 121, but the file has 122");
}

TEST(SafetensorsCorrupt, Metadata) {
  EXPECT_EQ(Message("{\"__metadata__\":[]}", 0), "f: its metadata are not an object");
  EXPECT_EQ(Message("{\"__metadata__\":{\"a\":1}}", 0), "f: metadata \"a\": is an integer, want a string");
}

TEST(SafetensorsCorrupt, EveryTruncationAndFlipIsSurvived) {
  const std::string header = "{\"__metadata__\":{\"k\":\"v\"}," + Tensor("a", "F32", "[2,3]", "[0,24]") + "," +
                             Tensor("b", "BF16", "[4]", "[24,32]") + "}";
  std::vector<uint8_t> file(8 + header.size() + 32);
  file[0] = static_cast<uint8_t>(header.size());
  std::copy(header.begin(), header.end(), file.begin() + 8);
  ASSERT_TRUE(ParseSafetensorsHeader(file, static_cast<int64_t>(file.size()), "f").ok());
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<uint8_t> cut(file.begin(), file.begin() + size);
    EXPECT_FALSE(ParseSafetensorsHeader(cut, static_cast<int64_t>(size), "f").ok()) << size;
  }
  for (size_t at = 0; at < 8 + header.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      file[at] ^= 1 << bit;
      StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(file, static_cast<int64_t>(file.size()), "f");
      if (parsed.ok()) {  // a letter of a name
        for (const TensorInfo& info : parsed->tensors) EXPECT_LE(info.end, static_cast<int64_t>(file.size()));
      }
      file[at] ^= 1 << bit;
    }
}

}  // namespace
}  // namespace qwen::plan
