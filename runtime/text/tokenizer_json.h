// The tokenizer.json of a checkpoint: byte-level BPE as all Qwen releases have it, and nothing that only looks like it.
#ifndef QWEN_RUNTIME_TEXT_TOKENIZER_JSON_H_
#define QWEN_RUNTIME_TEXT_TOKENIZER_JSON_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/text/tokenizer.h"

namespace qwen::text {

/// Qwen3.5's file has 20 MB.
inline constexpr size_t kMaxTokenizerJsonBytes = size_t{128} << 20;

/// kDataLoss for a file that is malformed or contradicts itself, kUnimplemented for one that asks for what this build
/// does not do, with `where` and the JSON pointer in front. Nothing is passed over: a key it does not know is refused.
StatusOr<Tokenizer> ParseTokenizerJson(std::string_view text, const std::string& where);
/// The same of a file; kResourceExhausted when it cannot be read.
StatusOr<Tokenizer> ReadTokenizerJson(const std::string& path);

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_TOKENIZER_JSON_H_
