//===- Text.h - a checkpoint's tokenizer and template, for the plan -------===//

#ifndef QWEN_COMPILER_IMPORT_TEXT_H
#define QWEN_COMPILER_IMPORT_TEXT_H

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

#include <string>

namespace qwen::compiler {

/// Adds to `plan` what `dir` has of tokenizer.json (compiled), chat_template.jinja or tokenizer_config.json's
/// `chat_template`, and generation_config.json; the end-of-sequence ids of all of them join the config's. Files that are
/// not there are left out. A file that does not parse is refused: the runtime would only find out later.
Status readText(const std::string &dir, plan::Plan &plan);

} // namespace qwen::compiler

#endif
