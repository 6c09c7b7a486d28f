//===- CardFigures.cpp - what a card makes of a plan's kernels ------------===//

#include "compiler/codegen/CardFigures.h"

#include "compiler/codegen/PtxCache.h"
#include "runtime/base/file.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <thread>
#include <unistd.h>

extern char **environ;

namespace qwen::compiler {
namespace {

constexpr Card kCards[] = {
    {"rtx4090", "RTX 4090", "sm_89", 1008e9, 165.2e12, 48, 24, 100 << 10},
    {"h100", "H100 SXM", "sm_90", 3350e9, 989.4e12, 64, 32, 228 << 10},
    {"h200", "H200 SXM", "sm_90", 4800e9, 989.4e12, 64, 32, 228 << 10},
};
constexpr int kWarp = 32, kPartitions = 4, kRegistersOfPartition = 16384, kRegisterUnit = 256, kSharedOfBlock = 1 << 10;

std::string findPtxas() {
  if (const char *asked = std::getenv("QWENC_PTXAS"))
    return access(asked, X_OK) == 0 ? asked : "";
  std::string folders = "/usr/local/cuda/bin";
  if (const char *path = std::getenv("PATH"))
    folders = std::string(path) + ":" + folders;
  for (size_t begin = 0; begin <= folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string file = folders.substr(begin, end - begin) + "/ptxas";
    if (end > begin && access(file.c_str(), X_OK) == 0)
      return file;
    begin = end + 1;
  }
  return "";
}

// All a program writes, both ways. No shell: paths are the user's.
StatusOr<std::string> outputOf(const std::vector<std::string> &words) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return InternalError("pipe2 failed");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  std::vector<char *> argv;
  for (const std::string &word : words)
    argv.push_back(const_cast<char *>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; error == 0 && (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, size_t(n));
  close(ends[0]);
  int status = 0;
  if (error != 0 || waitpid(child, &status, 0) < 0 || status != 0)
    return InternalError(fmt::format("{} failed: {}", words[0], text));
  return text;
}

// The number in front of `unit`, the first time it is there.
bool numberBefore(const std::string &text, std::string_view unit, int64_t *value) {
  const size_t at = text.find(unit);
  if (at == std::string::npos)
    return false;
  size_t begin = at;
  while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9')
    --begin;
  if (begin == at || at - begin > 12)
    return false;
  *value = std::stoll(text.substr(begin, at - begin));
  return true;
}

} // namespace

const Card *findCard(std::string_view name) {
  for (const Card &card : kCards)
    if (name == card.name)
      return &card;
  return nullptr;
}

StatusOr<Assembled> readPtxasText(const std::string &text) {
  Assembled figures;
  int64_t registers = 0, stores = 0, loads = 0;
  if (!numberBefore(text, " registers", &registers) || !numberBefore(text, " bytes stack frame", &figures.stackBytes) ||
      !numberBefore(text, " bytes spill stores", &stores) || !numberBefore(text, " bytes spill loads", &loads))
    return InternalError("ptxas says nothing of registers, stack or spills: " + text);
  figures.registers = int(registers);
  figures.spillBytes = stores + loads;
  numberBefore(text, " bytes smem", &figures.sharedBytes); // left out where there is none
  return figures;
}

int residentBlocks(const Card &card, int threads, int registers, int64_t sharedBytes) {
  const int warps = (threads + kWarp - 1) / kWarp;
  const int ofWarp = (std::max(registers, 1) * kWarp + kRegisterUnit - 1) / kRegisterUnit * kRegisterUnit;
  const int byRegisters = kPartitions * (kRegistersOfPartition / ofWarp);
  return std::min({card.blocks, std::min(card.warps, byRegisters) / std::max(warps, 1),
                   int(card.sharedBytes / (sharedBytes + kSharedOfBlock))});
}

StatusOr<CardFigures> figuresOn(const Card &card, const plan::Plan &plan, const std::string &cacheDir) {
  CardFigures figures;
  figures.kernels.resize(plan.kernels.size());
  for (const plan::Program &program : plan.programs)
    for (const plan::Step &step : program.steps) {
      plan::KernelOnCard &kernel = figures.kernels[size_t(step.kernel)];
      kernel.bytes = std::max(kernel.bytes, step.bytes);
      kernel.flops = std::max(kernel.flops, step.flops);
      kernel.floor_us = 1e6 * std::max(double(kernel.bytes) / card.bytesPerSecond, double(kernel.flops) / card.flopsPerSecond);
    }

  const std::string ptxas = findPtxas();
  if (ptxas.empty())
    return figures;
  QWEN_ASSIGN_OR_RETURN(std::string version, outputOf({ptxas, "--version"}));
  const size_t at = version.find("release ");
  figures.ptxas = at == std::string::npos ? "of no known version" : version.substr(at + 8, version.find(',', at) - at - 8);

  std::string folder = (std::filesystem::temp_directory_path() / "qwenc-ptxas-XXXXXX").string();
  if (!mkdtemp(folder.data()))
    return InternalError(fmt::format("{}: cannot be made", folder));
  struct Remove {
    const std::string &folder;
    ~Remove() {
      std::error_code ignored;
      std::filesystem::remove_all(folder, ignored);
    }
  } remove{folder};

  const PtxCache cache(cacheDir);
  std::vector<Status> statuses(plan.kernels.size());
  std::atomic<size_t> next = 0;
  auto assemble = [&](size_t i) -> Status {
    const plan::Kernel &kernel = plan.kernels[i];
    const std::vector<uint8_t> &blob = plan.blobs[size_t(kernel.ptx)].bytes;
    const std::string ptx(blob.begin(), blob.end());
    const std::string key = fmt::format("ptxas {} {}\n{}", version, card.arch, ptx);
    std::optional<std::string> text = cache.find(key);
    if (!text) {
      const std::string file = fmt::format("{}/{}.ptx", folder, i);
      QWEN_RETURN_IF_ERROR(WriteFileAtomic(file, ptx, true));
      QWEN_ASSIGN_OR_RETURN(text, outputOf({ptxas, std::string("-arch=") + card.arch, "-v", "-o", "/dev/null", file}));
      cache.store(key, *text);
    }
    QWEN_ASSIGN_OR_RETURN(Assembled assembled, readPtxasText(*text));
    plan::KernelOnCard &to = figures.kernels[i];
    to.registers = assembled.registers;
    to.spill_bytes = assembled.spillBytes;
    to.stack_bytes = assembled.stackBytes;
    to.shared_bytes = assembled.sharedBytes + kernel.launch.shared_bytes;
    to.blocks = residentBlocks(card, kernel.launch.threads, to.registers, to.shared_bytes);
    to.occupancy = double(to.blocks) * ((kernel.launch.threads + kWarp - 1) / kWarp) / card.warps;
    return {};
  };
  auto work = [&] {
    for (size_t i; (i = next++) < plan.kernels.size();)
      if (plan.kernels[i].ptx >= 0)
        statuses[i] = assemble(i).Annotate(fmt::format("kernel {}", plan.kernels[i].name));
  };
  std::thread other(work); // as NVRTC's two
  work();
  other.join();
  for (const Status &status : statuses)
    QWEN_RETURN_IF_ERROR(status);
  return figures;
}

} // namespace qwen::compiler
