#include "tools/qwenrt/machine.h"

#include <fstream>

namespace qwen::qwenrt {

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (size_t colon = line.find(": "); line.starts_with("model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  return "unknown cpu";
}

}  // namespace qwen::qwenrt
