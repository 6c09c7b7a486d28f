#include "test/cuda_emulator/report.h"

#include <fmt/format.h>

namespace qwen::emu {
namespace {

constexpr const char* kClassNames[] = {
    "integer",     "float",        "half",       "double",      "convert",     "special_function",
    "move",        "predicate",    "mma",        "matrix_move", "load_global", "store_global",
    "load_shared", "store_shared", "load_other", "store_other", "atomic",      "async_copy",
    "warp",        "barrier",      "fence",      "control",
};
static_assert(std::size(kClassNames) == static_cast<size_t>(OpClass::kCount));

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n' || c == '\t' || c == '\r') c = ' ';
    out += c;
  }
  return out + '"';
}

}  // namespace

const char* OpClassName(OpClass op_class) { return kClassNames[static_cast<int>(op_class)]; }

Counters::Counters(const Program& program) {
  for (const auto& function : program.functions) executed.emplace_back(function->code.size());
}

void Counters::Add(const Counters& other) {
  if (executed.size() < other.executed.size()) executed.resize(other.executed.size());
  for (size_t f = 0; f < other.executed.size(); ++f) {
    if (executed[f].size() < other.executed[f].size()) executed[f].resize(other.executed[f].size());
    for (size_t i = 0; i < other.executed[f].size(); ++i) executed[f][i] += other.executed[f][i];
  }
  warp_instructions += other.warp_instructions;
  lane_instructions += other.lane_instructions;
  read_sectors_requested += other.read_sectors_requested;
  read_sectors_unique += other.read_sectors_unique;
  write_sectors_requested += other.write_sectors_requested;
  write_sectors_unique += other.write_sectors_unique;
  shared_wavefronts += other.shared_wavefronts;
  bank_conflicts += other.bank_conflicts;
  async_copy_bytes += other.async_copy_bytes;
}

void Report::AddLaunch(const Program& program, const Function& kernel, int device, const Counters& counters) {
  std::lock_guard lock(mutex_);
  ++launches_;
  Kernel& entry = kernels_[kernel.name];
  ++entry.launches;
  Counters sums = counters;
  sums.executed.clear();
  entry.counters.Add(sums);
  for (const auto& function : program.functions) {
    const auto& executed = counters.executed[static_cast<size_t>(function->index)];
    // Functions that the kernel never entered say nothing about its coverage.
    if (function.get() != &kernel && (executed.empty() || executed[0] == 0)) continue;
    auto& lines = entry.lines[function->name];
    for (size_t i = 0; i < executed.size(); ++i) {
      const Instruction& instruction = function->code[i];
      entry.by_class[static_cast<int>(instruction.op_class)] += executed[i];
      if (function->text[i].empty()) continue;  // the return behind the last statement
      auto& line = lines[instruction.line * 64 + static_cast<int>(i) % 64];
      line.first = fmt::format("{}: {}", instruction.line, function->text[i]);
      line.second += executed[i];
    }
  }
}

void Report::CountAllocation(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  ++allocations_;
  allocated_bytes_ += bytes;
}

void Report::CountHostAllocation() {
  std::lock_guard lock(mutex_);
  ++host_allocations_;
}
void Report::CountGraphInstantiation() {
  std::lock_guard lock(mutex_);
  ++graph_instantiations_;
}
void Report::CountGraphLaunch() {
  std::lock_guard lock(mutex_);
  ++graph_launches_;
}
void Report::CountDirectLaunch() {
  std::lock_guard lock(mutex_);
  ++direct_launches_;
}

std::string Report::Json() const {
  std::lock_guard lock(mutex_);
  std::string out = fmt::format(
      "{{\"launches\": {}, \"graph_launches\": {}, \"graph_instantiations\": {}, \"direct_launches\": {}, "
      "\"allocations\": {}, \"allocated_bytes\": {}, \"host_allocations\": {}, \"kernels\": {{",
      launches_, graph_launches_, graph_instantiations_, direct_launches_, allocations_, allocated_bytes_,
      host_allocations_);
  bool first_kernel = true;
  for (const auto& [name, kernel] : kernels_) {
    const Counters& c = kernel.counters;
    out +=
        fmt::format("{}\n{}: {{\"launches\": {}, \"warp_instructions\": {}, \"lane_instructions\": {}, ",
                    first_kernel ? "" : ",", Quoted(name), kernel.launches, c.warp_instructions, c.lane_instructions);
    first_kernel = false;
    out += fmt::format("\"read_sectors_requested\": {}, \"read_sectors_unique\": {}, ", c.read_sectors_requested,
                       c.read_sectors_unique);
    out += fmt::format("\"write_sectors_requested\": {}, \"write_sectors_unique\": {}, ", c.write_sectors_requested,
                       c.write_sectors_unique);
    out += fmt::format("\"shared_wavefronts\": {}, \"bank_conflicts\": {}, \"async_copy_bytes\": {},\n \"classes\": {{",
                       c.shared_wavefronts, c.bank_conflicts, c.async_copy_bytes);
    bool first = true;
    for (int i = 0; i < static_cast<int>(OpClass::kCount); ++i) {
      if (!kernel.by_class[i]) continue;
      out += fmt::format("{}\"{}\": {}", first ? "" : ", ", kClassNames[i], kernel.by_class[i]);
      first = false;
    }
    uint64_t all = 0, executed = 0;
    std::string rest;
    for (const auto& [function, lines] : kernel.lines)
      for (const auto& [line, count] : lines) {
        ++all;
        if (count.second)
          ++executed;
        else
          rest += fmt::format("{}{}", rest.empty() ? "" : ", ", Quoted(count.first));
      }
    out += fmt::format("}},\n \"ptx_instructions\": {}, \"ptx_instructions_executed\": {}, \"not_executed\": [{}]}}",
                       all, executed, rest);
  }
  return out + "\n}}\n";
}

}  // namespace qwen::emu
