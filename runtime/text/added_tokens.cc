#include "runtime/text/added_tokens.h"

namespace qwen::text {

bool AddedTokens::Add(std::string_view content, int32_t id) {
  if (content.empty()) return false;
  uint32_t node = 0;
  for (char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t child = Child(node, byte);
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({.sibling = nodes_[node].child, .depth = nodes_[node].depth + 1, .byte = byte});
      nodes_[node].child = child;
    }
    node = child;
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  begins_token_[static_cast<uint8_t>(content[0])] = true;
  return true;
}

void AddedTokens::Finish() {
  // Breadth first: a node's suffixes are shorter than it, so they are done when it is reached.
  std::vector<uint32_t> queue = {0};
  for (size_t at = 0; at < queue.size(); ++at) {
    const uint32_t parent = queue[at];
    for (uint32_t child = nodes_[parent].child; child != 0; child = nodes_[child].sibling) {
      Node& node = nodes_[child];
      if (parent != 0) {
        uint32_t suffix = nodes_[parent].fail;
        while (suffix != 0 && Child(suffix, node.byte) == 0) suffix = nodes_[suffix].fail;
        node.fail = Child(suffix, node.byte);
        node.shorter = nodes_[node.fail].id >= 0 ? node.fail : nodes_[node.fail].shorter;
      }
      queue.push_back(child);
    }
  }
}

}  // namespace qwen::text
