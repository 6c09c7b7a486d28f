#include "test/cuda_emulator/options.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

namespace qwen::emu {
namespace {

const char* Variable(const char* name) { return std::getenv(fmt::format("QWEN_CUDA_EMULATOR_{}", name).c_str()); }

template <class T>
Status ReadNumber(const char* name, int64_t low, int64_t high, T* value) {
  const char* text = Variable(name);
  if (!text) return {};
  int64_t number = 0;
  const char* last = text + std::strlen(text);
  auto [end, code] = std::from_chars(text, last, number);
  if (code != std::errc() || end != last || number < low || number > high)
    return InvalidArgumentError(
        fmt::format("QWEN_CUDA_EMULATOR_{}: `{}` is not a number from {} to {}", name, text, low, high));
  *value = static_cast<T>(number);
  return {};
}

template <class T>
struct Choice {
  const char* word;
  T value;
};
template <class T, size_t n>
Status ReadChoice(const char* name, const Choice<T> (&choices)[n], T* value) {
  const char* text = Variable(name);
  if (!text) return {};
  std::string words;
  for (const Choice<T>& choice : choices) {
    if (!std::strcmp(choice.word, text)) {
      *value = choice.value;
      return {};
    }
    words += fmt::format("{}{}", words.empty() ? "" : ", ", choice.word);
  }
  return InvalidArgumentError(fmt::format("QWEN_CUDA_EMULATOR_{}: `{}` is none of {}", name, text, words));
}

}  // namespace

StatusOr<Options> Options::FromEnvironment() {
  Options o;
  QWEN_RETURN_IF_ERROR(ReadNumber("VERSION", 0, 1000000, &o.version));
  QWEN_RETURN_IF_ERROR(ReadNumber("INIT", 0, 999, &o.init));
  QWEN_RETURN_IF_ERROR(ReadNumber("DEVICES", 0, 16, &o.devices));
  QWEN_RETURN_IF_ERROR(ReadNumber("MEMORY", 1 << 20, int64_t{1} << 40, &o.memory_bytes));
  QWEN_RETURN_IF_ERROR(ReadNumber("CAPABILITY", 10, 999, &o.capability));
  QWEN_RETURN_IF_ERROR(ReadNumber("THREADS", 1, 256, &o.threads));
  QWEN_RETURN_IF_ERROR(ReadNumber("SEED", 0, INT64_MAX, &o.seed));
  QWEN_RETURN_IF_ERROR(ReadNumber("UNWRITTEN", 0, 1, &o.check_unwritten));
  QWEN_RETURN_IF_ERROR(ReadNumber("QUANTUM", 1, 1 << 30, &o.warp_quantum));
  QWEN_RETURN_IF_ERROR(ReadNumber("SPIN_LIMIT", 1, INT64_MAX, &o.spin_limit));
  QWEN_RETURN_IF_ERROR(ReadNumber("HOST_WAIT_MS", 1, INT64_MAX, &o.host_wait_ms));
  static constexpr Choice<BlockOrder> kOrders[] = {
      {"forward", BlockOrder::kForward}, {"reversed", BlockOrder::kReversed}, {"shuffled", BlockOrder::kShuffled}};
  static constexpr Choice<bool> kCompletions[] = {{"earliest", false}, {"latest", true}};
  static constexpr Choice<RaceCheck> kRaces[] = {
      {"off", RaceCheck::kOff}, {"shared", RaceCheck::kShared}, {"all", RaceCheck::kAll}};
  QWEN_RETURN_IF_ERROR(ReadChoice("ORDER", kOrders, &o.block_order));
  QWEN_RETURN_IF_ERROR(ReadChoice("CP_ASYNC", kCompletions, &o.async_copies_late));
  QWEN_RETURN_IF_ERROR(ReadChoice("RACES", kRaces, &o.races));
  if (const char* report = Variable("REPORT")) o.report = report;
  return o;
}

}  // namespace qwen::emu
