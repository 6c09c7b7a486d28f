// Nothing is allocated per step: every call of the allocator is counted while a text goes on.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/engine/generate.h"
#include "runtime/exec/weights.h"
#include "runtime/plan/reader.h"
#include "test/e2e/support.h"
#include "test/sanitizers.h"

// The process's allocator is glibc's, with a counter in front; operator new comes here too. A sanitizer has one of its
// own, which is left alone.
namespace {
std::atomic<bool> counting = false;
std::atomic<int> allocations = 0;
[[maybe_unused]] void Count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if !QWEN_SANITIZED
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* at, size_t bytes);
void* __libc_memalign(size_t align, size_t bytes);

void* malloc(size_t bytes) { return Count(), __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return Count(), __libc_calloc(count, bytes); }
void* realloc(void* at, size_t bytes) { return Count(), __libc_realloc(at, bytes); }
void* memalign(size_t align, size_t bytes) { return Count(), __libc_memalign(align, bytes); }
void* aligned_alloc(size_t align, size_t bytes) { return Count(), __libc_memalign(align, bytes); }
int posix_memalign(void** at, size_t align, size_t bytes) {
  Count();
  *at = __libc_memalign(align, bytes);
  return *at ? 0 : ENOMEM;
}
}
#endif

namespace qwen::e2e {
namespace {

class Allocations : public testing::TestWithParam<std::string> {};

// Goal: at most 10 in 512 tokens, once the first are out.
TEST_P(Allocations, SteadyTokensTakeNone) {
  if (QWEN_SANITIZED) GTEST_SKIP() << "a sanitizer has the allocator";
  constexpr int kWarmUp = 16, kSteady = 512, kSequences = 3;
  TempDir temp;
  // The checkpoint's, but for longer texts.
  std::ifstream file(GoldenDir(GetParam()) + "/config.json");
  nlohmann::json config = nlohmann::json::parse(file);
  (config.contains("text_config") ? config["text_config"] : config)["max_position_embeddings"] = 1024;
  std::ofstream(temp / "config.json") << config;
  const CommandResult compile = RunProgram("qwenc", {"compile", temp / "config.json", "-o", temp / "m.plan"});
  ASSERT_EQ(compile.exit_code, 0) << compile.output;
  auto plan = plan::ReadPlan(temp / "m.plan");
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  auto weights = exec::LoadWeights(*plan, GoldenDir(GetParam()));
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  const int pages = kSequences * engine::PagesFor(1024);
  auto executor =
      exec::Executor::Create(*plan, *std::move(weights), {.threads = 2, .num_pages = pages, .num_slots = kSequences});
  ASSERT_TRUE(executor.ok()) << executor.status().message();
  engine::Engine engine(*plan, *std::move(executor), pages, kSequences);

  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {4, 5}, {6, 7, 8, 9}};
  for (const size_t sequences : {1, kSequences}) {
    engine::GenerateOptions options;
    options.max_tokens = kWarmUp + kSteady + 1;
    options.sampling = {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f, .min_p = 0.01f, .seed = 7};
    int steps = 0;
    allocations = 0;
    options.on_token = [&](size_t index, int32_t) {
      if (index != 0) return;
      ++steps;
      if (steps == kWarmUp) counting = true;
      if (steps == kWarmUp + kSteady) counting = false;
    };
    auto results = engine::Generate(engine, std::span(prompts).first(sequences), options);
    counting = false;
    ASSERT_TRUE(results.ok()) << results.status().message();
    ASSERT_EQ(steps, kWarmUp + kSteady + 1);
    Figure(fmt::format("allocations {}, {} at once", GetParam(), sequences),
           fmt::format("{} in {} steady tokens of each (allowed 10)", allocations.load(), kSteady));
    EXPECT_LE(allocations.load(), 10);
  }
  // The counter counts.
  allocations = 0;
  counting = true;
  void* counted = ::operator new(100);
  counting = false;
  EXPECT_EQ(allocations.load(), 1);
  ::operator delete(counted);
}

INSTANTIATE_TEST_SUITE_P(Types, Allocations, testing::ValuesIn(OneOfEachType()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace qwen::e2e
