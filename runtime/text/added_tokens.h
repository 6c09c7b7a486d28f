// Finds added tokens (`<|im_end|>`, `<think>` ...) in text before it is cut into pieces.
#ifndef QWEN_RUNTIME_TEXT_ADDED_TOKENS_H_
#define QWEN_RUNTIME_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace qwen::text {

/// An automaton after Aho and Corasick 1975 over the bytes of the tokens, a node a byte at most. Text without tokens
/// takes one pass; threads may share it once all tokens are in.
class AddedTokens {
 public:
  struct Match {
    size_t begin, end;
    int32_t id;
  };

  AddedTokens() : nodes_(1) {}

  /// False when `content` is empty or there already.
  bool Add(std::string_view content, int32_t id);
  /// After the last Add, before the first Next.
  void Finish();

  /// The leftmost match in text[from, end) for which `allowed(const Match&)` says true; of those that begin there the
  /// longest. A match that is not allowed hides no other.
  template <class Allowed>
  std::optional<Match> Next(std::string_view text, size_t from, Allowed&& allowed) const;

 private:
  struct Node {
    uint32_t child = 0, sibling = 0;  // the first child; the next child of the same parent; 0: none
    uint32_t fail = 0;                // the longest proper suffix that is a node
    uint32_t shorter = 0;             // the longest proper suffix that is a token; 0: none
    uint32_t depth = 0;
    int32_t id = -1;  // of the token that ends here
    uint8_t byte = 0;
  };

  uint32_t Child(uint32_t node, uint8_t byte) const {
    uint32_t child = nodes_[node].child;
    while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
    return child;
  }

  std::vector<Node> nodes_;               // [0] is the root
  std::array<bool, 256> begins_token_{};  // by byte
};

template <class Allowed>
std::optional<AddedTokens::Match> AddedTokens::Next(std::string_view text, size_t from, Allowed&& allowed) const {
  std::optional<Match> best;
  uint32_t node = 0;
  for (size_t at = from; at < text.size(); ++at) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (node == 0 && !begins_token_[byte]) continue;
    uint32_t child = Child(node, byte);
    while (child == 0 && node != 0) child = Child(node = nodes_[node].fail, byte);
    node = child;
    const size_t end = at + 1;
    // Whatever is still to come begins at or after this node's first byte.
    if (best && end - nodes_[node].depth > best->begin) break;
    for (uint32_t token = nodes_[node].id >= 0 ? node : nodes_[node].shorter; token != 0;
         token = nodes_[token].shorter) {
      const Match match{end - nodes_[token].depth, end, nodes_[token].id};
      if (best && match.begin > best->begin) break;
      if (allowed(match)) {
        best = match;
        break;
      }
    }
  }
  return best;
}

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_ADDED_TOKENS_H_
