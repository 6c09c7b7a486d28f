// A checkpoint for the made-up plan of test/runtime/plan/test_plan.h, and a folder to write it to.
#ifndef QWEN_TEST_RUNTIME_EXEC_TEST_CHECKPOINT_H_
#define QWEN_TEST_RUNTIME_EXEC_TEST_CHECKPOINT_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "runtime/plan/safetensors.h"

namespace qwen::exec::test {

/// Gone with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qwen_exec_test_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  size_t Files() const {
    return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
  }

 private:
  std::string path_;
};

inline std::vector<uint8_t> ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void WriteBytes(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

/// Every tensor that the plan names, bf16, no byte like another's; `note` goes into the header, so that it tells
/// checkpoints apart.
inline void WriteTestCheckpoint(const std::string& dir, bool mtp = true, const std::string& note = "") {
  std::filesystem::create_directories(dir);
  struct Shaped {
    const char* name;
    std::vector<int64_t> shape;
  };
  std::vector<Shaped> shapes = {{"model.embed_tokens.weight", {80, 32}},
                                {"model.norm.weight", {32}},
                                {"model.layers.0.linear_attn.in_proj_qkv.weight", {96, 32}},
                                {"model.layers.0.mlp.experts.gate_up_proj", {2, 32, 32}}};
  if (mtp) shapes.push_back({"mtp.fc.weight", {32, 64}});
  std::vector<std::vector<uint8_t>> bytes;
  uint32_t state = 1;
  for (const Shaped& tensor : shapes) {
    int64_t count = 1;
    for (int64_t size : tensor.shape) count *= size;
    std::vector<uint8_t>& values = bytes.emplace_back(2 * count);
    // The upper byte stays below infinity's.
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24) & (i % 2 ? 0xbf : 0xff);
  }
  std::vector<plan::TensorToWrite> tensors;
  for (size_t i = 0; i < shapes.size(); ++i)
    tensors.push_back({.name = shapes[i].name, .dtype = DType::kBF16, .shape = shapes[i].shape, .bytes = bytes[i]});
  std::map<std::string, std::string> metadata;
  if (!note.empty()) metadata["note"] = note;
  const Status status = plan::WriteSafetensors(dir + "/model.safetensors", tensors, metadata);
  EXPECT_TRUE(status.ok()) << status.message();
}

}  // namespace qwen::exec::test

#endif  // QWEN_TEST_RUNTIME_EXEC_TEST_CHECKPOINT_H_
