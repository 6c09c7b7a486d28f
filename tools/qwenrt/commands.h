// qwenrt's commands, one function each.
#ifndef QWEN_TOOLS_QWENRT_COMMANDS_H_
#define QWEN_TOOLS_QWENRT_COMMANDS_H_

#include "runtime/base/flags.h"
#include "runtime/base/status.h"

namespace qwen::qwenrt {

Status RunCommand(const Flags& flags);
Status LogitsCommand(const Flags& flags);
Status ServeCommand(const Flags& flags);
Status ChatCommand(const Flags& flags);
Status TokenizeCommand(const Flags& flags);
Status DetokenizeCommand(const Flags& flags);
Status RenderCommand(const Flags& flags);
Status PerplexityCommand(const Flags& flags);
Status BenchCommand(const Flags& flags);
Status PackCommand(const Flags& flags);
Status InspectCommand(const Flags& flags);
Status VerifyCommand(const Flags& flags);
Status DevicesCommand(const Flags& flags);

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_COMMANDS_H_
