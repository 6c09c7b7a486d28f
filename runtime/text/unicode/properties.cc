#include "runtime/text/unicode/properties.h"

#include <algorithm>
#include <iterator>

namespace qwen::text {
namespace {

struct Decomposition {
  char32_t from;
  uint16_t begin, size;  // in kDecomposed
};
struct Composition {
  char32_t first, second, composite;
};

}  // namespace

namespace internal {
namespace {
constexpr CharClass kOther = CharClass::kOther, kLetter = CharClass::kLetter, kMark = CharClass::kMark,
                    kNumber = CharClass::kNumber, kSpace = CharClass::kSpace, kNewline = CharClass::kNewline;
}  // namespace
#include "runtime/text/unicode/tables.inc"
}  // namespace internal

std::span<const char32_t> DecompositionOf(char32_t c) {
  using internal::kDecompositions;
  const auto* found = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), c,
                                       [](const Decomposition& d, char32_t code_point) { return d.from < code_point; });
  if (found == std::end(kDecompositions) || found->from != c) return {};
  return {internal::kDecomposed + found->begin, found->size};
}

char32_t CompositeOf(char32_t first, char32_t second) {
  using internal::kCompositions;
  const auto* found = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), std::pair(first, second),
                                       [](const Composition& c, const std::pair<char32_t, char32_t>& pair) {
                                         return std::pair(c.first, c.second) < pair;
                                       });
  if (found == std::end(kCompositions) || found->first != first || found->second != second) return 0;
  return found->composite;
}

}  // namespace qwen::text
