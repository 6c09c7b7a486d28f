// What this machine is called.
#ifndef QWEN_TOOLS_QWENRT_MACHINE_H_
#define QWEN_TOOLS_QWENRT_MACHINE_H_

#include <string>

namespace qwen::qwenrt {

/// As the system names it.
std::string CpuName();

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_MACHINE_H_
