// Keys, hosts and origins: who is let in.
#include "runtime/server/http/access_control.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace qwen::server {
namespace {

HttpRequest With(std::vector<Header> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

TEST(ApiKeys, FileFormat) {
  StatusOr<ApiKeys> keys = ApiKeys::Parse("# all of them\n\n  alice:sk-1 \r\nsk-2\nbob:a:b\n#bob:no\nsk-4", "keys");
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  EXPECT_EQ(keys->Find("sk-1"), "alice");
  EXPECT_EQ(keys->Find("sk-2"), "key2");
  EXPECT_EQ(keys->Find("a:b"), "bob");
  EXPECT_EQ(keys->Find("sk-4"), "key4");
  for (const char* wrong : {"", "sk-", "sk-11", "alice", "alice:sk-1", "no", "bob:no", "SK-1"})
    EXPECT_EQ(keys->Find(wrong), std::nullopt) << wrong;
}

TEST(ApiKeys, DamagedFilesAreRefusedAndNeverQuoteAKey) {
  struct Refused {
    const char* text;
    const char* message;
  };
  for (const auto& [text, message] : {
           Refused{"", "keys: has no key"},
           Refused{"# none\n\n", "keys: has no key"},
           Refused{"ok\nsecret key\n", "keys: line 2: not a key or name:key in visible ASCII characters"},
           Refused{"a:\n", "keys: line 1: not a key or name:key in visible ASCII characters"},
           Refused{":secret\n", "keys: line 1: not a key or name:key in visible ASCII characters"},
           Refused{"secr\xc3\xa9t\n", "keys: line 1: not a key or name:key in visible ASCII characters"},
           Refused{"a:secret\na:other\n", "keys: line 2: the name a is there twice"},
           Refused{"a:secret\nb:secret\n", "keys: line 2: the key of a is there twice"},
       }) {
    StatusOr<ApiKeys> keys = ApiKeys::Parse(text, "keys");
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_EQ(keys.status().message(), message);
    EXPECT_EQ(keys.status().message().find("secr"), std::string::npos);
  }
  EXPECT_FALSE(ApiKeys::Load("/nonexistent/keys").ok());
}

TEST(ApiKeys, Load) {
  const std::string path = testing::TempDir() + "/api_keys_test";
  std::ofstream(path) << "alice:sk-1\n";
  StatusOr<ApiKeys> keys = ApiKeys::Load(path);
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(keys->Find("sk-1"), "alice");
  std::remove(path.c_str());
}

TEST(ApiKeys, InRequests) {
  const ApiKeys keys = *ApiKeys::Parse("alice:sk-1\nbob:sk-2", "keys");
  EXPECT_EQ(keys.FindIn(With({{"authorization", "Bearer sk-1"}})), "alice");
  EXPECT_EQ(keys.FindIn(With({{"authorization", "bearer  sk-1"}})), "alice");
  EXPECT_EQ(keys.FindIn(With({{"x-api-key", "sk-2"}})), "bob");
  EXPECT_EQ(keys.FindIn(With({{"authorization", "Basic eDp5"}, {"x-api-key", "sk-2"}})), "bob");
  EXPECT_EQ(keys.FindIn(With({})), std::nullopt);
  EXPECT_EQ(keys.FindIn(With({{"authorization", "sk-1"}})), std::nullopt);
  EXPECT_EQ(keys.FindIn(With({{"authorization", "Basic sk-1"}})), std::nullopt);
  EXPECT_EQ(keys.FindIn(With({{"authorization", "Bearer"}})), std::nullopt);
  EXPECT_EQ(keys.FindIn(With({{"authorization", "Bearer sk-1 sk-2"}})), std::nullopt);
  EXPECT_EQ(keys.FindIn(With({{"cookie", "sk-1"}})), std::nullopt);
}

TEST(AccessControl, Hosts) {
  for (const char* host : {"localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080"})
    EXPECT_TRUE(HostAllowed(host, {})) << host;
  for (const char* host : {"", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "::1",
                           "localhost:80:80", "evil.example:80", "[::1]x", "localhost:x"})
    EXPECT_FALSE(HostAllowed(host, {})) << host;
  EXPECT_TRUE(HostAllowed("box.lan:8080", {"Box.lan"}));
  EXPECT_TRUE(HostAllowed("box.lan:8080", {"box.lan:8080"}));
  EXPECT_FALSE(HostAllowed("box.lan:8081", {"box.lan:8080"}));
  EXPECT_TRUE(HostAllowed("any.example", {"*"}));
}

TEST(AccessControl, Origins) {
  const std::vector<Header> page = {{"host", "box:8080"}, {"origin", "http://page.example"}};
  auto check = [](CorsPolicy policy, std::vector<Header> headers) {
    const CorsDecision decision = CheckOrigin(policy, With(std::move(headers)));
    std::string text = decision.allowed ? "yes" : "no";
    for (const auto& [name, value] : decision.headers) text += " " + name + "=" + value;
    return text;
  };
  EXPECT_EQ(check({}, {{"host", "box:8080"}}), "yes");
  EXPECT_EQ(check({}, {{"host", "box:8080"}, {"origin", "http://Box:8080"}}), "yes");
  EXPECT_EQ(check({}, {{"host", "box:8080"}, {"origin", "http://box"}}), "no");
  EXPECT_EQ(check({}, {{"host", "box:8080"}, {"origin", "null"}}), "no");
  EXPECT_EQ(check({}, page), "no");
  EXPECT_EQ(check({.origins = {"http://other.example"}}, page), "no");
  EXPECT_EQ(check({.origins = {"http://page.example.evil"}}, page), "no");
  EXPECT_EQ(check({.origins = {"http://other.example", "http://page.example"}}, page),
            "yes access-control-allow-origin=http://page.example vary=Origin");
  EXPECT_EQ(check({.origins = {"*"}}, page), "yes access-control-allow-origin=*");
  EXPECT_EQ(check({.origins = {"*"}, .credentials = true}, page),
            "yes access-control-allow-origin=http://page.example vary=Origin access-control-allow-credentials=true");
}

}  // namespace
}  // namespace qwen::server
