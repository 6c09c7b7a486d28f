// Normalization Form C (UAX #15), as the tokenizers that models are trained with compute it.
#ifndef QWEN_RUNTIME_TEXT_UNICODE_NFC_H_
#define QWEN_RUNTIME_TEXT_UNICODE_NFC_H_

#include <string>
#include <string_view>

namespace qwen::text {

/// `text` in NFC: `text` itself where it is that already, which takes one pass and no memory, else `*storage`, whose
/// old content is lost. Bytes that are not UTF-8 stay as they are and nothing composes across them. O(n log n) whatever
/// the text. Threads: pure.
std::string_view ToNfc(std::string_view text, std::string* storage);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_UNICODE_NFC_H_
