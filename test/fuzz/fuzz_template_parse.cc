// Any bytes as a chat template. What parses is a tree within its limits, and its probes end.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/text/jinja/chat_template.h"
#include "runtime/text/jinja/parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::text;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const qwen::StatusOr<Program> program = ParseTemplate(text, "fuzz");
  if (!program.ok()) return 0;
  // Children stand before their parents, so there is no cycle; indices are those of what exists.
  if (program->root >= program->nodes.size() || program->names.size() > kMaxNames) abort();
  for (uint32_t i = 0; i < program->nodes.size(); ++i) {
    const Node& node = program->nodes[i];
    if (node.depth > kMaxDepth) abort();
    for (uint32_t child : program->ChildrenOf(node))
      if (child >= i) abort();
    if ((node.kind == NodeKind::kText || node.kind == NodeKind::kConst) && node.index >= program->constants.size())
      abort();
    if ((node.kind == NodeKind::kName || node.kind == NodeKind::kGetAttr) && node.index >= program->names.size())
      abort();
  }
  if (size < 512 && !ChatTemplate::Parse(text, "fuzz").ok()) abort();
  return 0;
}
