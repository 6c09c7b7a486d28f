// Cuts text into pieces that merges never cross.
//
// tokenizer.json describes the cut as a regular expression. All Qwen releases use one of two, so each is a scanner
// here: a few comparisons a code point, linear whatever the text, over the classes of unicode/properties.h.
#ifndef QWEN_RUNTIME_TEXT_PRETOKENIZER_H_
#define QWEN_RUNTIME_TEXT_PRETOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace qwen::text {

/// The patterns there are scanners for. Numbers are stored in compiled tokenizers: append only.
enum class Pattern : uint32_t {
  kWords = 0,           // Qwen2, Qwen2.5, Qwen3: words are letters
  kWordsWithMarks = 1,  // Qwen3.5: words are letters and marks
};

/// Regular expressions by Pattern.
std::span<const std::string_view> PatternRegexes();
std::optional<Pattern> FindPattern(std::string_view regex);

/// The end of the piece that begins at `text[begin]`, `begin < text.size()`: where the pattern's next match ends. The
/// matches cover all of any text. Bytes that are not UTF-8 count as one symbol for each U+FFFD they would become.
size_t PieceEnd(std::string_view text, size_t begin, Pattern pattern);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_PRETOKENIZER_H_
