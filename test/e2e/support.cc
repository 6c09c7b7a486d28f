#include "test/e2e/support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/plan/safetensors.h"

namespace qwen::e2e {

CommandResult RunProgram(const std::string& program, const std::vector<std::string>& arguments) {
  CommandResult result;
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return result;
  auto start = std::chrono::steady_clock::now();
  std::string path = std::string(QWEN_BIN_DIR) + "/" + program;
  // Another build's runtime under the same tests: the one without the compiler, say.
  if (const char* other = std::getenv("QWEN_TEST_RUNTIME"); other && program == "qwenrt") path = other;
  pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], 1);
    dup2(pipe_ends[1], 2);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    std::vector<char*> argv = {path.data()};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(path.c_str(), argv.data());
    _exit(127);
  }
  close(pipe_ends[1]);
  char buffer[4096];
  for (ssize_t n; (n = read(pipe_ends[0], buffer, sizeof buffer)) > 0;) result.output.append(buffer, n);
  close(pipe_ends[0]);
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.peak_bytes = int64_t{usage.ru_maxrss} * 1024;
  return result;
}

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "qwen-e2e-XXXXXX").string();
  path_ = mkdtemp(name.data());
}
TempDir::~TempDir() { std::filesystem::remove_all(path_); }

std::map<std::string, Tensor> ReadTensors(const std::string& path) {
  std::map<std::string, Tensor> tensors;
  auto header = plan::ReadSafetensorsHeader(path);
  EXPECT_TRUE(header.ok()) << header.status().message();
  if (!header.ok()) return tensors;
  std::ifstream file(path, std::ios::binary);
  for (const plan::TensorInfo& info : header->tensors) {
    if (info.dtype != "F32") continue;
    Tensor tensor{info.shape, std::vector<float>((info.end - info.begin) / 4)};
    file.seekg(info.begin);
    file.read(reinterpret_cast<char*>(tensor.values.data()), info.end - info.begin);
    tensors[info.name] = std::move(tensor);
  }
  EXPECT_TRUE(file.good() || file.eof());
  return tensors;
}

std::vector<double> RowErrors(const Tensor& got, const Tensor& want) {
  if (got.shape != want.shape) return {INFINITY};
  std::vector<double> errors;
  for (int64_t row = 0; row < want.rows(); ++row) {
    double off = 0, size = 0;
    for (int64_t c = 0; c < want.channels(); ++c) {
      double a = got.values[row * want.channels() + c], b = want.values[row * want.channels() + c];
      off += (a - b) * (a - b);
      size += b * b;
    }
    double error = std::sqrt(off / size);
    errors.push_back(std::isfinite(error) ? error : INFINITY);
  }
  return errors;
}

double Worst(const std::vector<double>& errors) { return *std::max_element(errors.begin(), errors.end()); }

std::string GoldenDir(const std::string& name) { return std::string(QWEN_SOURCE_DIR) + "/test/golden/" + name; }

const std::vector<std::string>& Goldens() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    std::ifstream file(GoldenDir("golden_list.txt"));
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) list.push_back(line);
    return list;
  }();
  return names;
}

const std::vector<std::string>& OneOfEachType() {
  static const std::vector<std::string> names = {"qwen3-b", "qwen3_moe-a", "qwen3_next-b", "qwen3_5-b", "qwen3_5_moe-a"};
  return names;
}

std::vector<std::vector<int>> Cases(const std::string& name) {
  std::ifstream file(GoldenDir(name) + "/cases.json");
  return nlohmann::json::parse(file).get<std::vector<std::vector<int>>>();
}

void WriteCases(const std::string& path, const std::vector<std::vector<int>>& cases) {
  std::ofstream(path) << nlohmann::json(cases).dump();
}

std::map<std::string, Tensor> Logits(const std::string& plan, const std::string& weights, const std::string& cases,
                                     const std::string& out, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"logits", plan, "--weights", weights, "--tokens", cases, "-o", out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  std::error_code ignored;
  std::filesystem::remove(out, ignored);
  CommandResult run = RunProgram("qwenrt", arguments);
  EXPECT_EQ(run.exit_code, 0) << run.output;
  return run.exit_code == 0 ? ReadTensors(out) : std::map<std::string, Tensor>();
}

void Figure(const std::string& name, const std::string& value) {
  std::printf("figure: %s: %s\n", name.c_str(), value.c_str());
  std::fflush(stdout);
}

}  // namespace qwen::e2e
