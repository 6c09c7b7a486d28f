// What end-to-end tests share: running the two programs, reading tensors, comparing rows.
#ifndef QWEN_TEST_E2E_SUPPORT_H_
#define QWEN_TEST_E2E_SUPPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qwen::e2e {

struct CommandResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr
  double seconds = 0;
  int64_t peak_bytes = 0;  // resident
};

/// Runs `program` of the build tree ("qwenc", "qwenrt") and waits for it.
CommandResult RunProgram(const std::string& program, const std::vector<std::string>& arguments);

/// A folder that is gone with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
  int64_t rows() const { return shape[0]; }
  int64_t channels() const { return shape.size() > 1 ? shape.back() : 1; }
};
/// The f32 tensors of a safetensors file, by name. Fails the test when the file is not one.
std::map<std::string, Tensor> ReadTensors(const std::string& path);

/// Relative L2 of every row of `got` against `want`; infinite when shapes differ or a number is not finite.
std::vector<double> RowErrors(const Tensor& got, const Tensor& want);
double Worst(const std::vector<double>& errors);

/// Folder of the golden checkpoints, and their names.
std::string GoldenDir(const std::string& name);
const std::vector<std::string>& Goldens();
/// One checkpoint of each model type.
const std::vector<std::string>& OneOfEachType();

/// The prompts of a checkpoint's cases.json.
std::vector<std::vector<int>> Cases(const std::string& name);
void WriteCases(const std::string& path, const std::vector<std::vector<int>>& cases);

/// `qwenrt logits` into tensors; fails the test when the command does.
std::map<std::string, Tensor> Logits(const std::string& plan, const std::string& weights, const std::string& cases,
                                     const std::string& out, const std::vector<std::string>& more = {});

/// Prints a figure that `tools/accept` collects: "figure: NAME: VALUE".
void Figure(const std::string& name, const std::string& value);

}  // namespace qwen::e2e

#endif  // QWEN_TEST_E2E_SUPPORT_H_
