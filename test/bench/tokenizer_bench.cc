// Encoding and loading the real Qwen3 tokenizer: bytes a second on one core.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "runtime/base/file.h"
#include "runtime/text/tokenizer_json.h"

namespace qwen::text {
namespace {

std::string File(const char* name) {
  StatusOr<std::string> text = ReadFile(std::string(QWEN_SOURCE_DIR "/") + name, 1 << 24);
  if (!text.ok()) std::abort();
  return *std::move(text);
}

const Tokenizer& Qwen3() {
  static const Tokenizer tokenizer = [] {
    StatusOr<Tokenizer> read = ParseTokenizerJson(File("test/data/tokenizers/qwen3/tokenizer.json"), "bench");
    if (!read.ok()) std::abort();
    return *std::move(read);
  }();
  return tokenizer;
}

std::string Repeated(std::string_view unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

void Encode(benchmark::State& bench, const std::string& text) {
  const Tokenizer& tokenizer = Qwen3();
  for (auto _ : bench) benchmark::DoNotOptimize(tokenizer.Encode(text));
  bench.SetBytesProcessed(static_cast<int64_t>(bench.iterations() * text.size()));
}
BENCHMARK_CAPTURE(Encode, code, File("runtime/text/tokenizer_blob.cc"));
BENCHMARK_CAPTURE(Encode, prose, File("runtime/text/README.md"));
BENCHMARK_CAPTURE(Encode, chinese,
                  Repeated("深度学习是机器学习的分支，是一种以人工神经网络为架构，对资料进行表征学习的算法。",
                           1 << 16));
BENCHMARK_CAPTURE(Encode, hindi, Repeated("नमस्ते दुनिया यह एक परीक्षण है। ", 1 << 16));
BENCHMARK_CAPTURE(Encode, decomposed, Repeated("e\u0301te\u0301 a\u0323\u0302 ", 1 << 16));
BENCHMARK_CAPTURE(Encode, one_piece, std::string(1 << 20, 'a'));

void ReadJson(benchmark::State& bench) {
  const std::string json = File("test/data/tokenizers/qwen3/tokenizer.json");
  for (auto _ : bench) benchmark::DoNotOptimize(ParseTokenizerJson(json, "bench").ok());
}
BENCHMARK(ReadJson)->Unit(benchmark::kMillisecond);

void LoadBlob(benchmark::State& bench) {
  for (auto _ : bench) benchmark::DoNotOptimize(Tokenizer::FromBlob(Qwen3().Serialize(), "bench").ok());
}
BENCHMARK(LoadBlob)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace qwen::text

BENCHMARK_MAIN();
