// Safetensors files: ours read by ourselves, a stored one by transformers, folders of one and of many.
#include "runtime/plan/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/base/file.h"

namespace qwen::plan {
namespace {

namespace fs = std::filesystem;

std::span<const uint8_t> Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

class Safetensors : public testing::Test {
 protected:
  Safetensors() : folder_(fs::temp_directory_path() / ("safetensors_test." + std::to_string(getpid()))) {
    fs::create_directory(folder_);
  }
  ~Safetensors() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ / name; }
  std::string folder() const { return folder_; }

  void Shard(const std::string& file, const std::vector<std::string>& tensors) {
    std::vector<TensorToWrite> list;
    for (const std::string& name : tensors) list.push_back({name, DType::kF32, {2}, Bytes(values_)});
    ASSERT_TRUE(WriteSafetensors(Path(file), list).ok());
  }
  void Index(const std::string& text) { std::ofstream(Path("model.safetensors.index.json")) << text; }

 private:
  fs::path folder_;
  const std::vector<float> values_ = {1, 2};
};

TEST_F(Safetensors, WhatIsWrittenIsRead) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6}, b = {7};
  const std::vector<TensorToWrite> tensors = {{"0", DType::kF32, {2, 3}, Bytes(a)},
                                              {"empty", DType::kBF16, {0, 5}, {}},
                                              {"quote\"\n", DType::kF32, {}, Bytes(b)}};
  const std::map<std::string, std::string> metadata = {{"source", "a \"plan\""}, {"a", "b"}};
  ASSERT_TRUE(WriteSafetensors(Path("f"), tensors, metadata).ok());
  StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(Path("f"));
  ASSERT_TRUE(header.ok()) << header.status().message();
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->header_bytes % 64, 0);
  EXPECT_EQ(header->metadata, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"source", "a \"plan\""}}));
  const std::string file = *ReadFile(Path("f"), 1 << 20);
  for (const TensorInfo& info : header->tensors) {
    const TensorToWrite& want = info.name == "0" ? tensors[0] : info.name == "empty" ? tensors[1] : tensors[2];
    EXPECT_EQ(info.name, want.name);
    EXPECT_EQ(info.dtype, SafetensorsName(want.dtype));
    EXPECT_EQ(info.shape, want.shape);
    EXPECT_EQ(file.substr(info.begin, info.end - info.begin),
              std::string(reinterpret_cast<const char*>(want.bytes.data()), want.bytes.size()));
  }
  // The same again, and nothing but those bytes.
  ASSERT_TRUE(WriteSafetensors(Path("g"), tensors, metadata).ok());
  EXPECT_EQ(*ReadFile(Path("g"), 1 << 20), file);
}

TEST_F(Safetensors, WriterRefusesWhatReaderWould) {
  const std::vector<float> a = {1, 2};
  const TensorToWrite good{"a", DType::kF32, {2}, Bytes(a)}, short_one{"a", DType::kF32, {3}, Bytes(a)};
  EXPECT_EQ(WriteSafetensors(Path("f"), {{short_one}}).code(), StatusCode::kInternal);
  EXPECT_EQ(WriteSafetensors(Path("f"), {{good, good}}).code(), StatusCode::kInternal);
  EXPECT_EQ(WriteSafetensors(Path("f"), {{TensorToWrite{"__metadata__", DType::kF32, {2}, Bytes(a)}}}).code(),
            StatusCode::kInternal);
  EXPECT_FALSE(fs::exists(Path("f")));
  ASSERT_TRUE(WriteSafetensors(Path("f"), {{good}}).ok());
  EXPECT_EQ(WriteSafetensors(Path("f"), {{good}}, {}, /*overwrite=*/false).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteSafetensors(Path("none/f"), {{good}}).code(), StatusCode::kResourceExhausted);
}

TEST_F(Safetensors, TypesHaveTheirNames) {
  for (int type = 0; type < kNumDTypes; ++type) {
    const std::string_view name = SafetensorsName(static_cast<DType>(type));
    EXPECT_EQ(SafetensorsType(name), static_cast<DType>(type));
    EXPECT_EQ(SafetensorsBits(name), 8 * DTypeBytes(static_cast<DType>(type)));
  }
  EXPECT_EQ(SafetensorsBits("F4"), 4);
  EXPECT_EQ(SafetensorsType("F4"), std::nullopt);
  EXPECT_EQ(SafetensorsBits("Q4_K"), 0);
}

// Written by the reference implementation.
TEST_F(Safetensors, CheckpointOfTransformers) {
  StatusOr<Checkpoint> checkpoint = OpenCheckpoint(QWEN_SOURCE_DIR "/test/golden/qwen3_5-a");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  int embeddings = 0;
  for (const auto& [name, entry] : checkpoint->tensors) {
    embeddings += name.ends_with("embed_tokens.weight");
    EXPECT_LT(entry.info.begin, entry.info.end);
  }
  EXPECT_EQ(embeddings, 1);
}

TEST_F(Safetensors, OneFile) {
  Shard("model.safetensors", {"a", "b"});
  StatusOr<Checkpoint> checkpoint = OpenCheckpoint(folder());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->files, std::vector<std::string>{"model.safetensors"});
  EXPECT_EQ(checkpoint->tensors.size(), 2u);
  EXPECT_EQ(checkpoint->Find("c"), nullptr);
  const uint64_t digest = checkpoint->digest;
  Shard("model.safetensors", {"a", "c"});
  EXPECT_NE(OpenCheckpoint(folder())->digest, digest);
}

TEST_F(Safetensors, ManyFiles) {
  Shard("s2.safetensors", {"a", "more"});
  Shard("s1.safetensors", {"b"});
  Shard("model.safetensors", {"b"});  // the index wins
  Index(R"({"metadata":{"total_size":5},"weight_map":{"a":"s2.safetensors","b":"s1.safetensors"}})");
  StatusOr<Checkpoint> checkpoint = OpenCheckpoint(folder());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->files, (std::vector<std::string>{"s1.safetensors", "s2.safetensors"}));
  EXPECT_EQ(checkpoint->Find("a")->file, 1);
  EXPECT_EQ(checkpoint->Find("b")->file, 0);
  EXPECT_EQ(checkpoint->Path(1), folder() + "/s2.safetensors");
  EXPECT_NE(checkpoint->Find("more"), nullptr);
}

TEST_F(Safetensors, BadIndices) {
  Shard("s1.safetensors", {"a"});
  Shard("s2.safetensors", {"a", "b"});
  const std::string index = folder() + "/model.safetensors.index.json";
  auto open = [&](const std::string& text) {
    Index(text);
    return OpenCheckpoint(folder()).status();
  };
  EXPECT_EQ(open("[]").message(), index + ":/weight_map: want an object");
  EXPECT_EQ(open("{\"weight_map\":{\"a\":5}}").message(), index + ":/weight_map/a: is an integer, want a string");
  for (const char* name : {"../s1.safetensors", "/etc/passwd", "", ".", "..", "d/s1.safetensors", "s1\\u0000"}) {
    const Status status = open(std::string("{\"weight_map\":{\"a/b\":\"") + name + "\"}}");
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << name;
    EXPECT_NE(status.message().find("/weight_map/a~1b: "), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("is not a plain file name"), std::string::npos) << status.message();
  }
  EXPECT_EQ(open("{\"weight_map\":{\"c\":\"s1.safetensors\"}}").message(),
            index + ":/weight_map/c: s1.safetensors has no such tensor");
  EXPECT_EQ(open("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}").message(),
            folder() + "/s2.safetensors: tensor \"a\": is in s1.safetensors as well");
  EXPECT_EQ(open("{\"weight_map\":{\"a\":\"gone.safetensors\"}}").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(open("{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s1.safetensors\"}}").code(), StatusCode::kDataLoss);
}

TEST_F(Safetensors, BadFolders) {
  EXPECT_EQ(OpenCheckpoint(folder()).status().message(),
            folder() + ": has neither model.safetensors.index.json nor model.safetensors");
  EXPECT_EQ(OpenCheckpoint(Path("none")).status().code(), StatusCode::kResourceExhausted);
  std::ofstream(Path("file")) << "x";
  EXPECT_EQ(OpenCheckpoint(Path("file")).status().message(), Path("file") + ": is not a folder");
  fs::create_directory(Path("model.safetensors"));
  EXPECT_EQ(OpenCheckpoint(folder()).status().message(), Path("model.safetensors") + ": is not a regular file");
}

}  // namespace
}  // namespace qwen::plan
